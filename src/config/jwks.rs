//! The public keys of issuers (JWKS, RFC 7517), and the files that hold them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

use super::{
    check::Finding,
    file::read_text,
    problem::FieldPath,
    schema::{Config, JwtAlgorithm},
};

/// Largest set of keys, in bytes.
pub const MOST_JWKS_BYTES: u64 = 1 << 20;

/// Most keys of a set; issuers have two or three.
const MOST_KEYS: usize = 100;

/// The keys of an issuer that fit its algorithms.
#[derive(Debug)]
pub struct KeySet {
    /// Number of the set, unique in a process: a token that was verified counts as long as it is the same.
    pub number: u64,
    keys: Box<[Key]>,
}

#[derive(Debug)]
struct Key {
    id: Option<Box<str>>,
    /// Algorithms of the issuer that fit its type.
    algorithms: Box<[Algorithm]>,
    key: DecodingKey,
}

/// Why there is no one key for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// The token names none, and there are several.
    Unnamed,
    /// No key has the name and fits the algorithm.
    Unknown,
}

impl KeySet {
    /// Reads a set of keys, of which those count that fit one of `algorithms`. Others are left out, as RFC 7517 section 5 asks.
    /// A set without any keys is one, too: its issuer has revoked all.
    ///
    /// # Errors
    ///
    /// If the text is no set of keys, or it has keys and none is left.
    pub fn read(text: &str, algorithms: &[JwtAlgorithm]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_str(text).map_err(|error| {
            format!("no set of keys (line {}); write {{\"keys\": [ … ]}}", error.line())
        })?;
        if set.keys.len() > MOST_KEYS {
            return Err(format!("more than {MOST_KEYS} keys; write those in use"));
        }
        let is_revoked = set.keys.is_empty();
        let pinned: Vec<Algorithm> = algorithms.iter().map(|a| (*a).into()).collect();
        let keys: Box<[Key]> =
            set.keys.into_iter().filter_map(|key| Key::read(key, &pinned)).collect();
        if keys.is_empty() && !is_revoked {
            let names = algorithms.iter().map(|a| format!("{a:?}")).collect::<Vec<_>>().join(", ");
            return Err(format!("no public key for {names}; write one, or another algorithm"));
        }
        for (at, key) in keys.iter().enumerate() {
            let is_same = |other: &Key| {
                other.id == key.id && other.algorithms.iter().any(|a| key.algorithms.contains(a))
            };
            if let (Some(id), true) = (&key.id, keys[..at].iter().any(is_same)) {
                return Err(format!("two keys are called `{id}`; give each a `kid` of its own"));
            }
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Ok(Self { number: NEXT.fetch_add(1, Relaxed), keys })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none: all tokens are refused.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Names of the keys, of those that have one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.id.as_deref())
    }

    /// The key that a token with this key id and algorithm was signed with. A token without a key id has the only key that fits.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, NoKey> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        match id {
            Some(id) => {
                let found = fitting.find(|key| key.id.as_deref() == Some(id));
                found.map(|key| &key.key).ok_or(NoKey::Unknown)
            }
            None => match (fitting.next(), fitting.next()) {
                (Some(only), None) => Ok(&only.key),
                (Some(_), Some(_)) => Err(NoKey::Unnamed),
                (None, _) => Err(NoKey::Unknown),
            },
        }
    }
}

impl Key {
    /// `None` if the key is not for signatures of one of the `pinned` algorithms.
    fn read(key: serde_json::Value, pinned: &[Algorithm]) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        let (of, to) = (&jwk.common.public_key_use, &jwk.common.key_operations);
        if of.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature)
            || to.as_ref().is_some_and(|to| !to.contains(&KeyOperations::Verify))
        {
            return None;
        }
        let fits = |algorithm: &&Algorithm| {
            fits(&jwk.algorithm, **algorithm)
                && jwk
                    .common
                    .key_algorithm
                    .as_ref()
                    .is_none_or(|own| *own == KeyAlgorithm::from(**algorithm))
        };
        let algorithms: Box<[Algorithm]> = pinned.iter().filter(fits).copied().collect();
        if algorithms.is_empty() {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id.map(Into::into), algorithms, key })
    }
}

/// Whether a key of this type can verify signatures of `algorithm`. A secret never can: whoever verifies with it could sign, too.
fn fits(key: &AlgorithmParameters, algorithm: Algorithm) -> bool {
    use Algorithm::*;
    match key {
        AlgorithmParameters::RSA(_) => {
            matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512)
        }
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => algorithm == ES256,
            EllipticCurve::P384 => algorithm == ES384,
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(key) => {
            key.curve == EllipticCurve::Ed25519 && algorithm == EdDSA
        }
        _ => false,
    }
}

impl From<JwtAlgorithm> for Algorithm {
    fn from(algorithm: JwtAlgorithm) -> Self {
        match algorithm {
            JwtAlgorithm::RS256 => Self::RS256,
            JwtAlgorithm::RS384 => Self::RS384,
            JwtAlgorithm::RS512 => Self::RS512,
            JwtAlgorithm::PS256 => Self::PS256,
            JwtAlgorithm::PS384 => Self::PS384,
            JwtAlgorithm::PS512 => Self::PS512,
            JwtAlgorithm::ES256 => Self::ES256,
            JwtAlgorithm::ES384 => Self::ES384,
            JwtAlgorithm::EdDSA => Self::EdDSA,
        }
    }
}

/// Reads the files of keys of `config`, relative to `folder`, and adds their problems to `found`.
pub(super) fn read(config: &mut Config, folder: &Path, found: &mut Vec<Finding>) {
    for (name, jwt) in &mut config.jwt {
        if jwt.is_fetched() || jwt.algorithms.is_empty() {
            continue;
        }
        match read_keys(&folder.join(&jwt.jwks), &jwt.algorithms) {
            Ok((text, _)) => jwt.document = Some(text),
            Err(message) => {
                let path = FieldPath::default().key("jwt").key(name).key("jwks");
                found.push(Finding::new(path, message));
            }
        }
    }
}

/// The text of the file of keys at `path`, and its keys.
///
/// # Errors
///
/// A sentence with the path.
pub fn read_keys(path: &Path, algorithms: &[JwtAlgorithm]) -> Result<(Arc<str>, KeySet), String> {
    let shown = path.display();
    let text = read_text(path, MOST_JWKS_BYTES)
        .map_err(|e| format!("{shown}: {e}; name a file that this process may read"))?;
    let keys = KeySet::read(&text, algorithms).map_err(|why| format!("{shown} holds {why}"))?;
    Ok((text.into(), keys))
}
