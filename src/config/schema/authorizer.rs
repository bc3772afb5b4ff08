//! Services that are asked whether a request may go on.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{pattern::KeySource, units};

/// A service that is asked by one HTTP request whether a request may go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authorizer {
    /// URL to which a GET is sent, with the request's method, URI, host, client and id in `X-Forwarded-Method`, `-Uri`, `-Host`, `-For`
    /// and `X-Request-Id`. 2xx lets the request go on, 401 and other 4xx refuse it; anything else is a failure.
    #[schemars(regex(pattern = "^https?://[!-~]+$"))]
    pub url: String,
    /// PEM file of the authorities that sign its certificate. Default: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Longest wait for its answer, at most 30 s. Default `500ms`.
    #[serde(default = "default_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// What happens to requests while it fails. Default `closed`.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Header fields of the request that it gets. Default `[ authorization, cookie ]`.
    #[serde(default = "default_send")]
    pub send: Vec<String>,
    /// Header fields of its answer that the version gets. No client can send them, on any route. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copy: Vec<String>,
    /// How long its answers count. Default: it is asked about each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<AuthorizerCache>,
}

/// How long the answers of an authorizer count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizerCache {
    /// What an answer is about, beside the route: `header:NAME`, `cookie:NAME` or `claim:NAME`. All requests with the same value get the
    /// same answer; those without it are asked about each time.
    pub by: KeySource,
    /// How long an answer counts, at most 1 h.
    #[serde(rename = "for", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub lasts: Duration,
    /// Most answers that are remembered, 1 to 1,000,000. Default `10000`.
    #[serde(default = "default_most")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub most: u32,
}

/// What happens to requests while the authorizer fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are answered 503.
    #[default]
    Closed,
    /// They go on, without the fields of `copy`.
    Open,
}

impl OnFailure {
    /// Its name in a configuration.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

fn default_timeout() -> Duration {
    Duration::from_millis(500)
}

fn default_send() -> Vec<String> {
    ["authorization", "cookie"].map(str::to_owned).to_vec()
}

fn default_most() -> u32 {
    10_000
}
