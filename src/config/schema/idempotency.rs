//! Which requests of a route are processed once, however often they arrive.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{
    pattern::KeySource,
    units::{self, ByteSize, OneOrMany},
};

/// Requests with an `Idempotency-Key` are processed once: the first response is replayed to later requests with
/// the same key. Only writes (`class`) take part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Idempotency {
    /// What its keys are kept by, beside the service. Routes of a service with one name share their keys, and a route that is
    /// renamed keeps them with its former name here. Default: the name of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// What tells players apart who each have keys of their own, as in `cohort.key`; one or a list, of which the first one
    /// that is present counts, and the client's address if none is. Default: the `cohort.key` of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<OneOrMany<KeySource>>,
    /// Whether a write without a key is refused with 400. Default `false`: it is forwarded without protection.
    pub required: bool,
    /// A key is remembered for this time after it began, `1m` to `744h`. Default `24h`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub window: Duration,
    /// Largest body of a request with a key, which is read whole before it is sent, at most `1MiB`. A larger one
    /// is refused with 413. Default `64KiB`.
    pub body: ByteSize,
    /// Largest response that is kept, header fields and body, at most `1MiB`. The key of a larger one is kept
    /// without it. Default `64KiB`.
    pub answer: ByteSize,
    /// Memory for all kept responses of the route, 16 times `answer` to `16GiB`. With `state` older ones are read from the
    /// disk; without it their keys are kept without them. Default `64MiB`.
    pub memory: ByteSize,
    /// Most keys of the route at once, 1 to 10,000,000: the rate of writes times `window`. A write with a further
    /// key is refused with 503. Default `1000000`.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub keys: u32,
    /// Longest wait of a request for the response to another one with the same key, `100ms` to `10m`; then it gets
    /// 409. Default `30s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub wait: Duration,
    /// Most requests of the route that wait at once, up to 100,000. Default `1000`.
    #[schemars(range(max = 100_000))]
    pub waiting: u32,
    /// What becomes of a request whose key began earlier, and of which nobody knows whether it was processed.
    /// Default `conflict`.
    pub unsure: Unsure,
    /// What a 5xx of the version says about the request. Default `unsure`.
    pub errors: ErrorAnswers,
}

/// What becomes of a request whose key may have been processed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unsure {
    /// It gets 409, until the key is forgotten.
    #[default]
    Conflict,
    /// It is sent to the service, which honours `Idempotency-Key` itself.
    Ask,
}

/// What a 5xx says about the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorAnswers {
    /// It may have been processed.
    #[default]
    Unsure,
    /// It is the final response, and is replayed.
    Replay,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            name: None,
            by: None,
            required: false,
            window: Duration::from_secs(24 * 60 * 60),
            body: ByteSize(64 << 10),
            answer: ByteSize(64 << 10),
            memory: ByteSize(64 << 20),
            keys: 1_000_000,
            wait: Duration::from_secs(30),
            waiting: 1000,
            unsure: Unsure::Conflict,
            errors: ErrorAnswers::Unsure,
        }
    }
}

impl Idempotency {
    /// What the keys of a route with this `label` are kept by, beside its service.
    pub fn scope<'a>(&'a self, label: &'a str) -> &'a str {
        self.name.as_deref().unwrap_or(label)
    }

    /// What tells players apart, where the service does it by `cohort`.
    pub fn players<'a>(&'a self, cohort: &'a [KeySource]) -> &'a [KeySource] {
        self.by.as_ref().map_or(cohort, OneOrMany::as_slice)
    }
}
