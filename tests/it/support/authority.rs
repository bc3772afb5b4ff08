//! An authority that signs certificates of tests.

use std::{fs, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tempfile::TempDir;

/// An authority whose certificates stand as files in a folder.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { folder, issuer }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Signs a certificate for `name` and writes it as `file.pem` and `file.key`.
    pub(crate) fn sign(&self, file: &str, name: &str) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        fs::write(self.path().join(format!("{file}.key")), key.serialize_pem()).expect("written");
        fs::write(self.path().join(format!("{file}.pem")), certificate.pem()).expect("written");
        (certificate.der().clone(), key)
    }

    /// The fields of a listener with the certificate `file`.
    pub(crate) fn listener(&self, file: &str, client: &str) -> String {
        let at = self.path().display();
        format!(
            "tls: {{ certificates: [ {{ cert: {at}/{file}.pem, key: {at}/{file}.key }} ]{client} }}"
        )
    }

    /// A client that trusts the authority, with a certificate of its own if given.
    pub(crate) fn client(
        &self,
        identity: Option<(CertificateDer<'static>, KeyPair)>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![certificate], key).expect("a pair")
            }
        }
    }
}
