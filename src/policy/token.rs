//! Whether a client's token (JWT, RFC 7519) counts.
//!
//! The algorithm is one that the configuration names and the key's type fits (RFC 8725 sections 3.1 and 3.2): a token never
//! chooses how it is verified. Nothing of a token is believed, or told, before its signature was verified; only the name of its key
//! is looked at. The signature is verified by `jsonwebtoken`; time is an argument here.

#[cfg(test)]
pub(crate) mod tests;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    config::{
        jwks::{KeySet, NoKey},
        schema::Jwt,
    },
    routing::Claims,
};

/// Largest token, in bytes. Cookies have at most 4 KiB, and servers take heads of 8 KiB.
pub const MOST_TOKEN_BYTES: usize = 8 << 10;

/// What the tokens of an issuer must be.
#[derive(Debug)]
pub struct TokenTerms {
    algorithms: Box<[Algorithm]>,
    issuers: Box<[Box<str>]>,
    audiences: Box<[Box<str>]>,
    leeway_s: u64,
}

/// A token that counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// From when it does not count any more, in seconds since 1970.
    pub until_s: u64,
}

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// There is none.
    Missing,
    /// It is no token.
    Malformed,
    /// The request has several where one is expected.
    Doubled,
    /// It is longer than [`MOST_TOKEN_BYTES`].
    Large,
    /// It has extensions (`crit` or `b64`), of which none is known.
    Extended,
    /// Its algorithm is not one of the configuration.
    Algorithm,
    /// It names no key, and there are several.
    UnnamedKey,
    /// No key has the name that it gives.
    UnknownKey,
    /// It was not signed with the key, or was changed since.
    Signature,
    /// Its time is over.
    Expired,
    /// It says no time at which it ends.
    Endless,
    /// Its time has not come.
    Early,
    /// Another issuer made it.
    Issuer,
    /// It was made for another application.
    Audience,
    /// It lacks a claim that the route requires.
    Claim,
    /// The keys of the issuer could not be fetched yet.
    NoKeys,
}

impl TokenFault {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Missing,
        Self::Malformed,
        Self::Doubled,
        Self::Large,
        Self::Extended,
        Self::Algorithm,
        Self::UnnamedKey,
        Self::UnknownKey,
        Self::Signature,
        Self::Expired,
        Self::Endless,
        Self::Early,
        Self::Issuer,
        Self::Audience,
        Self::Claim,
        Self::NoKeys,
    ];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Doubled => "doubled",
            Self::Large => "oversized",
            Self::Extended => "extension",
            Self::Algorithm => "algorithm",
            Self::UnnamedKey => "unnamed_key",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Endless => "no_expiry",
            Self::Early => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim => "claim",
            Self::NoKeys => "no_keys",
        }
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    alg: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    kid: Option<std::borrow::Cow<'a, str>>,
    /// Extensions that the reader must understand (RFC 7515 section 4.1.11); none is.
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
    /// Whether the payload is encoded (RFC 7797).
    #[serde(default)]
    b64: Option<serde::de::IgnoredAny>,
}

impl<'a> Head<'a> {
    fn read(json: &'a [u8]) -> Result<Self, TokenFault> {
        serde_json::from_slice(json).map_err(|_| TokenFault::Malformed)
    }
}

/// The name of the key that `token` gives; `None` if it gives none, or is no token. Anybody can write any name.
pub fn key_name(token: &[u8]) -> Option<String> {
    let head = token.split(|byte| *byte == b'.').next()?;
    let head = decoded(std::str::from_utf8(head).ok()?).ok()?;
    Some(Head::read(&head).ok()?.kid?.into_owned())
}

impl TokenTerms {
    /// The terms of a checked configuration.
    pub fn new(jwt: &Jwt) -> Self {
        let texts = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        Self {
            algorithms: jwt.algorithms.iter().map(|algorithm| (*algorithm).into()).collect(),
            issuers: texts(jwt.issuer.as_slice()),
            audiences: jwt.audience.as_ref().map_or_else(Box::default, |a| texts(a.as_slice())),
            leeway_s: jwt.leeway.as_secs(),
        }
    }

    /// Verifies `token` with `keys` at `now_s`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// The first fault of the token.
    pub fn verify(&self, token: &[u8], keys: &KeySet, now_s: u64) -> Result<Verified, TokenFault> {
        if token.len() > MOST_TOKEN_BYTES {
            return Err(TokenFault::Large);
        }
        let token = std::str::from_utf8(token).map_err(|_| TokenFault::Malformed)?;
        let (message, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (head, payload) = message.split_once('.').ok_or(TokenFault::Malformed)?;
        let head = decoded(head)?;
        let head = Head::read(&head)?;
        if head.crit.is_some() || head.b64.is_some() {
            return Err(TokenFault::Extended);
        }
        let algorithm: Algorithm = head.alg.parse().map_err(|_| TokenFault::Algorithm)?;
        if !self.algorithms.contains(&algorithm) {
            return Err(TokenFault::Algorithm);
        }
        let key = keys.find(head.kid.as_deref(), algorithm).map_err(|none| match none {
            NoKey::Unnamed => TokenFault::UnnamedKey,
            NoKey::Unknown => TokenFault::UnknownKey,
        })?;
        let is_signed = jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm);
        if !is_signed.unwrap_or(false) {
            return Err(TokenFault::Signature);
        }
        let payload = decoded(payload)?;
        let members = serde_json::from_slice(&payload).map_err(|_| TokenFault::Malformed)?;
        let until_s = self.judge(&members, now_s)?;
        let claims = Claims::new(&payload).ok_or(TokenFault::Malformed)?;
        Ok(Verified { claims, until_s })
    }

    /// Judges what a token says whose signature was verified. Returns the time from which it does not count any more.
    fn judge(&self, payload: &Map<String, Value>, now_s: u64) -> Result<u64, TokenFault> {
        let issuer = payload.get("iss").and_then(Value::as_str).ok_or(TokenFault::Issuer)?;
        if !self.issuers.iter().any(|known| **known == *issuer) {
            return Err(TokenFault::Issuer);
        }
        if !self.audiences.is_empty() && !self.is_for_us(payload.get("aud")) {
            return Err(TokenFault::Audience);
        }
        let expiry = payload.get("exp").and_then(seconds).ok_or(TokenFault::Endless)?;
        let until_s = expiry.saturating_add(self.leeway_s);
        if now_s >= until_s {
            return Err(TokenFault::Expired);
        }
        if let Some(begin) = payload.get("nbf") {
            let begin = seconds(begin).ok_or(TokenFault::Early)?;
            if now_s.saturating_add(self.leeway_s) < begin {
                return Err(TokenFault::Early);
            }
        }
        Ok(until_s)
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let is_ours = |audience: &Value| {
            audience.as_str().is_some_and(|text| self.audiences.iter().any(|own| **own == *text))
        };
        match audience {
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        }
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed)
}

/// A time of a token in whole seconds (RFC 7519 section 2: a number that may have decimals); before 1970 counts as 1970.
fn seconds(value: &Value) -> Option<u64> {
    if let Some(seconds) = value.as_u64() {
        return Some(seconds);
    }
    // Rounds towards zero, and what is too large to the largest number.
    value.as_f64().filter(|seconds| seconds.is_finite()).map(|seconds| seconds as u64)
}
