"""An authority that signs the edge's certificate, which is also that of origins with TLS."""

import ssl
import subprocess


class Authority:
    def __init__(self, folder):
        self.folder = folder
        self._make("ca", "-subj", "/CN=Tidegate test authority")
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        # What is marked as an authority is no server's certificate to strict clients.
        self._make("edge", "-subj", "/CN=localhost", "-addext", names,
                   "-addext", "basicConstraints=critical,CA:FALSE",
                   "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key")

    @property
    def certificate(self):
        return self.folder / "ca.pem"

    def context(self, *protocols):
        """TLS of a client that trusts the authority and offers `protocols`."""
        context = ssl.create_default_context(cafile=self.certificate)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def _make(self, name, *arguments):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-noenc", "-days", "2", "-out", self.folder / f"{name}.pem",
             "-keyout", self.folder / f"{name}.key", *arguments],
            check=True, capture_output=True, timeout=30,
        )
