//! A certificate with its matching key, its names and its validity.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    Error, InconsistentKeys, SignatureAlgorithm,
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{PrivateKeyDer, pem, pem::PemObject},
    sign::{CertifiedKey, SigningKey},
};
use x509_parser::{
    asn1_rs::{Enumerated, FromDer, Sequence},
    certificate::X509Certificate,
    extensions::GeneralName,
    time::ASN1Time,
};

use super::{Material, TlsError};
use crate::config::schema::CertificateFiles;

/// A certificate to present, with its chain, key and OCSP response.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Chain and key in the form of rustls.
    pub key: Arc<CertifiedKey>,
    /// Its file.
    pub file: PathBuf,
    /// Names of hosts, lower case, `*.` in front of wildcards, in the certificate's order.
    pub names: Vec<String>,
    /// Addresses, in the certificate's order.
    pub addresses: Vec<IpAddr>,
    /// Not valid before.
    pub not_before: SystemTime,
    /// Not valid after.
    pub not_after: SystemTime,
}

impl Certificate {
    /// Loads the certificate of `files` from `material`.
    pub fn load(files: &CertificateFiles, material: &Material) -> Result<Self, TlsError> {
        let mut key = certified_key(&files.cert, &files.key, material)?;
        if let Some(file) = &files.ocsp {
            key.ocsp = Some(ocsp_response(file, material)?);
        }
        let (_, parsed) = X509Certificate::from_der(&key.cert[0]).map_err(|e| {
            let why = format!("the certificate cannot be understood ({e}); have it issued anew");
            TlsError::content(&files.cert, why)
        })?;
        let (names, addresses) = names(&parsed);
        let validity = parsed.validity();
        let (not_before, not_after) = (time(validity.not_before), time(validity.not_after));
        let file = files.cert.clone();
        Ok(Self { key: Arc::new(key), file, names, addresses, not_before, not_after })
    }

    /// Whether it is not valid yet, or has expired.
    pub fn is_outdated(&self, now: SystemTime) -> bool {
        !(self.not_before..=self.not_after).contains(&now)
    }

    /// Whether its key is RSA rather than an elliptic curve.
    pub(super) fn is_rsa(&self) -> bool {
        self.key.key.algorithm() == SignatureAlgorithm::RSA
    }
}

/// A chain with the key of its first certificate.
pub(super) fn certified_key(
    cert: &Path,
    key: &Path,
    material: &Material,
) -> Result<CertifiedKey, TlsError> {
    let chain = material.chain(cert)?;
    let key_file = key;
    let key = signing_key(key_file, material)?;
    let matches =
        |chain: &[_]| match CertifiedKey::new(chain.to_vec(), Arc::clone(&key)).keys_match() {
            // A key without a public half cannot be checked.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(true),
            Err(Error::InconsistentKeys(_)) => Ok(false),
            Err(e) => Err(e),
        };
    match matches(&chain) {
        Ok(true) => Ok(CertifiedKey::new(chain, key)),
        Ok(false) => {
            let later = (1..chain.len()).any(|at| matches(&chain[at..]) == Ok(true));
            let why = if later {
                format!(
                    "begins with another certificate than that of {}; put the server's own first, \
                     then those between it and the root",
                    key_file.display()
                )
            } else {
                format!(
                    "does not belong to the key in {}; name the key that the certificate was issued for",
                    key_file.display()
                )
            };
            Err(TlsError::content(cert, why))
        }
        Err(e) => {
            let why = format!("the certificate cannot be used ({e}); have it issued anew");
            Err(TlsError::content(cert, why))
        }
    }
}

fn signing_key(file: &Path, material: &Material) -> Result<Arc<dyn SigningKey>, TlsError> {
    let bytes = material.bytes(file);
    let says = |text: &str| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    if says("-----BEGIN ENCRYPTED PRIVATE KEY") || says("Proc-Type: 4,ENCRYPTED") {
        let why = "the key is encrypted; take the passphrase off with `openssl pkey -in FILE -out FILE`, \
                   and let no one else read it";
        return Err(TlsError::content(file, why));
    }
    let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|e| {
        let why = match e {
            pem::Error::NoItemsFound => {
                "holds no private key; PEM has a line -----BEGIN PRIVATE KEY-----".to_owned()
            }
            e => format!("not PEM ({e}); write the whole file again"),
        };
        TlsError::content(file, why)
    })?;
    any_supported_type(&key).map_err(|e| {
        let why = format!(
            "the key cannot be used ({e}); write one of ECDSA P-256, P-384 or P-521, of Ed25519, or of \
             RSA with 2048 to 8192 bits"
        );
        TlsError::content(file, why)
    })
}

/// Reads an OCSP response (RFC 6960): a sequence that begins with its status; 0 is success.
fn ocsp_response(file: &Path, material: &Material) -> Result<Vec<u8>, TlsError> {
    let bytes = material.bytes(file);
    let status = Sequence::from_der(bytes).ok().filter(|(rest, _)| rest.is_empty()).and_then(
        |(_, response)| Enumerated::from_der(&response.content).ok().map(|(_, status)| status.0),
    );
    match status {
        Some(0) => Ok(bytes.to_vec()),
        Some(status) => {
            let why =
                format!("an OCSP response that is an error (status {status}); fetch it again");
            Err(TlsError::content(file, why))
        }
        None => {
            let why = "not an OCSP response in DER; fetch one with `openssl ocsp -respout FILE`";
            Err(TlsError::content(file, why))
        }
    }
}

/// Names and addresses of the subject's alternative names (RFC 5280 section 4.2.1.6). The common
/// name is ignored, as clients do (RFC 9525 section 2).
fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let extension = certificate.subject_alternative_name().ok().flatten();
    for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    (names, addresses)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    match time.timestamp() < 0 {
        true => UNIX_EPOCH - seconds,
        false => UNIX_EPOCH + seconds,
    }
}
