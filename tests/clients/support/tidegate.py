"""The real program, with a file of its own. It takes free ports and tells them in its log."""

import contextlib
import http.client
import json
import os
import signal
import subprocess

from . import PATIENCE, ROOT, eventually

PROGRAM = os.environ.get("TIDEGATE_PROGRAM", ROOT / "target/debug/tidegate")

CONFIGURATION = """
listen:
  - address: 127.0.0.1:0
  - address: 127.0.0.1:0
    tls: {{ certificates: [ {{ cert: {authority}/edge.pem, key: {authority}/edge.key }} ] }}
admin: {{ address: 127.0.0.1:0 }}
shutdown: {{ deadline: 5s }}
services:
  game-api:
    baseline: {baseline}
    versions: {versions}
    weights: {weights}
    {service}
    cohort: {{ key: [ "cookie:uid", client-ip ] }}
routes:
  - {{ service: game-api{route} }}
{top}
"""


class Tidegate:
    """Splits players evenly over `versions`, fields of a version by its name; the first is the baseline.
    `service` is one more field of the service, `route` are more of the route, `top` more of the file.
    """

    def __init__(self, folder, authority, versions, service="", route="", top=""):
        text = CONFIGURATION.format(
            authority=authority.folder,
            baseline=next(iter(versions)),
            versions=json.dumps(versions),
            weights=json.dumps({name: 1 for name in versions}),
            service=service,
            route=f", {route}" if route else "",
            top=top,
        )
        self.authority = authority
        self.file = folder / "tidegate.yaml"
        self.file.write_text(text)
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "run", "--config", self.file],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        try:
            serving = eventually("the program serves", self._serving)
            listen = [address.strip() for address in serving["listen"].split(",")]
            self.clear, self.secure = listen
            self.admin = serving["admin"]
            eventually("the program is ready", self._ready)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def url(self, path, scheme="https"):
        return f"{scheme}://{self.secure if scheme in ('https', 'wss') else self.clear}{path}"

    def states(self):
        """Of the endpoints of the first version, as the API shows them."""
        connection = http.client.HTTPConnection(self.admin, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/services/game-api")
            shown = json.load(connection.getresponse())
        return [endpoint["state"] for endpoint in shown["versions"][0]["endpoints"]]

    def close(self):
        """Asks it to end, and expects that no answer was left unfinished."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
        text = self.log.read_text()
        assert status == 0, f"ended with {status}:\n{text}"
        assert "panicked" not in text, text

    def _serving(self):
        text = self.log.read_text()
        assert self.process.poll() is None, f"the program ended:\n{text}"
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]
        return next((line for line in lines if line["message"] == "serving"), None)

    def _ready(self):
        connection = http.client.HTTPConnection(self.admin, timeout=PATIENCE)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except ConnectionError:
            return False
        finally:
            connection.close()
