//! Tokens of clients (JWT, RFC 7519), and what a route asks of them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{
    pattern::KeySource,
    units::{self, OneOrMany},
};

/// An issuer of tokens: its keys, and what its tokens must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The issuer's public keys (JWKS, RFC 7517): a file relative to the folder of this file, watched for changes; or a URL,
    /// such as `https://id.example.com/.well-known/jwks.json`.
    pub jwks: String,
    /// PEM file of the authorities that sign the certificate of the URL. Default: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Interval at which keys are fetched from the URL, 10 s to 24 h. They are also fetched, at most every 10 s, when a token
    /// names an unknown key. Default `10m`.
    #[serde(default = "default_refresh", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub refresh: Duration,
    /// The algorithms of its signatures; all others are refused.
    #[schemars(length(min = 1))]
    pub algorithms: Vec<JwtAlgorithm>,
    /// What `iss` must be; one or a list.
    pub issuer: OneOrMany<String>,
    /// What `aud` must be or contain; one or a list. Default: not checked, so tokens for other applications pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<OneOrMany<String>>,
    /// How far the issuer's clock may be off, at most 10 minutes. Default `30s`.
    #[serde(default = "default_leeway", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub leeway: Duration,
    /// Where clients send the token: `header:NAME` or `cookie:NAME`; one or a list, of which the first one that is present
    /// counts. `Bearer` before the token in a header is left out. Default `header:authorization`.
    #[serde(default = "default_from")]
    pub from: OneOrMany<KeySource>,
    /// Header fields for the versions, each with the claim that it has: `x-player-id: sub`. No client can send these fields, on any
    /// route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The content of the file of `jwks`; empty for a URL.
    #[serde(skip)]
    #[schemars(skip)]
    pub document: Option<Arc<str>>,
}

/// An algorithm of signatures (RFC 7518, RFC 8037). All have a key of which only the issuer has the private half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are those of the registry of algorithms")]
pub enum JwtAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// Who a client must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The entry of `jwt` whose tokens count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<String>,
    /// Whether a request without a token is refused with 401. A token that is not valid always is. Default `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// Claims that the token must have, with one of the values each; others are refused with 403.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub require: BTreeMap<String, OneOrMany<String>>,
    /// The entry of `authorizers` that is asked about each request, after its token was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
}

impl Jwt {
    /// Whether `refresh` is written, as another time than the default.
    pub fn has_own_refresh(&self) -> bool {
        self.refresh != default_refresh()
    }

    /// Whether its keys are fetched from a URL.
    pub fn is_fetched(&self) -> bool {
        is_url(&self.jwks)
    }
}

/// Whether `text` is a URL and no file.
fn is_url(text: &str) -> bool {
    ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme))
}

fn default_refresh() -> Duration {
    Duration::from_secs(600)
}

fn default_leeway() -> Duration {
    Duration::from_secs(30)
}

fn default_from() -> OneOrMany<KeySource> {
    OneOrMany::One(KeySource::Header("authorization".to_owned()))
}
