//! Chooses the certificate for a client (server name indication, RFC 6066 section 3): that of the
//! exact name, then of a wildcard, then the listener's first certificate, also for a client that
//! sends no name.
//!
//! A wildcard matches exactly one label (RFC 9525 section 6.3). Of several certificates for one
//! name the client gets the first whose algorithm it supports. Elliptic curves come before RSA,
//! whose signatures cost the server some twenty times as much; otherwise the file's order decides.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::Certificate;
use crate::config::pattern::relative;

/// The certificates of a listener by name, for each name the best first. A look-up of a name with
/// one certificate does not allocate; to choose among several, rustls does.
#[derive(Debug)]
pub struct Sni {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// Keyed by the name without its `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Vec<Arc<CertifiedKey>>,
}

impl Sni {
    /// Indexes `certificates`, of which there must be at least one.
    pub fn new(certificates: &[Certificate]) -> Self {
        let mut best_first: Vec<&Certificate> = certificates.iter().collect();
        best_first.sort_by_key(|certificate| certificate.is_rsa());
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for certificate in &best_first {
            for name in &certificate.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut wildcard, suffix),
                    None => (&mut exact, name.as_str()),
                };
                let choice: &mut Vec<_> = names.entry(name.to_owned()).or_default();
                choice.push(Arc::clone(&certificate.key));
            }
        }
        // There may be a certificate with another algorithm and the names of the first one.
        let of_first = |c: &&&Certificate| certificates.first().is_some_and(|f| f.names == c.names);
        let siblings = best_first.iter().filter(of_first);
        let default = siblings.map(|certificate| Arc::clone(&certificate.key)).collect();
        Self { exact, wildcard, default }
    }

    /// The certificate for `name`, in lower case, and a client that supports `schemes`. Some
    /// clients send a trailing dot, which RFC 6066 does not allow.
    pub fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let named = name.map(relative).and_then(|name| {
            let wildcard = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(wildcard)
        });
        let choice = named.unwrap_or(&self.default);
        if let [only] = choice.as_slice() {
            return Some(only);
        }
        let spoken = choice.iter().find(|key| key.key.choose_scheme(schemes).is_some());
        // If the client supports none of them, rustls rejects the handshake.
        spoken.or_else(|| choice.first())
    }
}

impl ResolvesServerCert for Sni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls passes the name in lower case.
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}
