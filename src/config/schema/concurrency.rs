//! Limits on requests in flight, and which requests give way first.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{self, Share};

/// Most requests in flight at the same time, of a route or of all routes of a service together. Further ones wait, or
/// get 503.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Most requests in flight, at least 1. With `adaptive`: the most that the limit grows to.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max: u32,
    /// Most requests that wait until one of those in flight has ended; 0: none waits. Default 100.
    #[serde(default = "default_queue")]
    #[schemars(range(max = 100_000))]
    pub queue: u32,
    /// Longest wait, at most a minute. Default `500ms`.
    #[serde(default = "default_queue_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub queue_timeout: Duration,
    /// Only of a service: the share of the limit that is kept from a route for each more important `priority` that
    /// other routes of the service have, at most `40%`. Default `10%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Share>,
    /// Lets the limit follow the latency of the responses; `{}` uses the defaults. Default: it is `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
}

/// A limit that follows the latency of the responses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adaptive {
    /// The least that the limit falls to. Default 4, or `max` if that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min: Option<u32>,
    /// The limit at the start. Default 20, or the nearest number from `min` to `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub initial: Option<u32>,
    /// How much longer than without a queue responses may take before the limit falls, `1%` to `100%`. Default `25%`.
    pub tolerance: Share,
    /// Interval of the measurements of the latency without a queue, `1s` to `1h`. Default `30s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub measure_every: Duration,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            min: None,
            initial: None,
            tolerance: Share(0.25),
            measure_every: Duration::from_secs(30),
        }
    }
}

/// How important the requests of a route are, from the most important.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// They give way last, such as bets and withdrawals.
    High,
    /// They give way before those.
    #[default]
    Normal,
    /// They give way first, such as pictures of the lobby.
    Low,
}

fn default_queue() -> u32 {
    100
}

fn default_queue_timeout() -> Duration {
    Duration::from_millis(500)
}
