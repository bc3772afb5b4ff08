//! Smoke checks: requests that a version must answer as expected before it gets players.

mod template;

use std::{fmt, time::Duration};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::Statuses;
use crate::config::{
    pattern::NAME,
    units::{self, OneOrMany},
};

pub use template::{Kept, Piece, RequestLine, Template, is_variable, json_path};

/// Most steps of a smoke check.
pub const MAX_SMOKE_STEPS: usize = 50;

/// Longest `timeout` of a smoke check: somebody, or a rollout, waits for its result.
pub const MAX_SMOKE_TIME: Duration = Duration::from_secs(60);

/// A smoke check: requests in order, each with the answer that is expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeCheck {
    /// Requests, 1 to 50; each is sent when the one before was answered as expected.
    #[schemars(length(min = 1, max = 50))]
    pub steps: Vec<SmokeStep>,
    /// The host of the requests, which routes match and endpoints get. Default `localhost`.
    #[serde(default)]
    pub host: Option<String>,
    /// The scheme that endpoints are told by `X-Forwarded-Proto`. Default: `https` if every listener
    /// has TLS, otherwise `http`.
    #[serde(default)]
    pub scheme: Option<Scheme>,
    /// Longest time of all steps together, at most `1m`. Default `30s`.
    #[serde(default = "default_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
}

fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

/// A scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

/// A request, what its answer must be, and values of the answer that later steps use as `${name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeStep {
    /// Method, path and query, such as `POST /v1/login` or `GET /v1/rounds/${round}`.
    pub request: RequestLine,
    /// Header fields of the request. Default: none.
    #[serde(default)]
    pub headers: IndexMap<String, Template>,
    /// The body, sent as `application/json`; its texts may contain `${name}`. A text that is one
    /// `${name}` becomes the kept value itself, so a number stays a number. Default: no body.
    #[serde(default)]
    pub json: Option<Value>,
    /// The expected answer. Default: any status of 200 to 299.
    #[serde(default)]
    pub expect: SmokeExpectation,
    /// Values of the answer to keep, by name. Default: none.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": NAME }))]
    pub keep: IndexMap<String, Kept>,
}

/// An expected answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SmokeExpectation {
    /// Its status: `200`, a class such as `2xx`, a range, or a list of these. Default `2xx`.
    pub status: OneOrMany<Statuses>,
    /// Longest time from the request to the last byte of the answer. Default: the rest of the
    /// check's `timeout`.
    #[serde(with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub within: Option<Duration>,
    /// Header fields by name: the value, or `{ matches: PATTERN }`. Default: any.
    pub headers: IndexMap<String, HeaderExpectation>,
    /// Values in the body by JSON path (RFC 9535), such as `"$.state": settled`; each path must lead to
    /// exactly one value, which is equal. Default: any body.
    pub json: IndexMap<String, Value>,
}

impl Default for SmokeExpectation {
    fn default() -> Self {
        Self {
            status: OneOrMany::One(Statuses { first: 200, last: 299 }),
            within: None,
            headers: IndexMap::new(),
            json: IndexMap::new(),
        }
    }
}

/// The expected value of a header field.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum HeaderExpectation {
    /// Equal to this text.
    Is(Template),
    /// Matched by a pattern.
    Matches(HeaderPattern),
}

/// A pattern for the value of a header field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderPattern {
    /// A regular expression that must match some part of the value: `^application/json`.
    pub matches: String,
}

impl<'de> Deserialize<'de> for HeaderExpectation {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = HeaderExpectation;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or { matches: PATTERN }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HeaderExpectation, E> {
                text.parse().map(HeaderExpectation::Is).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<HeaderExpectation, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_map<A: de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<HeaderExpectation, A::Error> {
                let pattern = HeaderPattern::deserialize(MapAccessDeserializer::new(map))?;
                Ok(HeaderExpectation::Matches(pattern))
            }
        }
        d.deserialize_any(Visitor)
    }
}
