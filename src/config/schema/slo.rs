//! What a service promises, whatever it did before.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{self, Share};

/// Absolute limits, by which a version is judged that has no baseline beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Slo {
    /// Share of requests that may fail. Default: no limit.
    pub errors: Option<Share>,
    /// Latency that 95 % of the requests are below, to the head of the answer. Default: no limit.
    #[serde(with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub p95: Option<Duration>,
    /// The same of 99 %. Default: no limit.
    #[serde(with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub p99: Option<Duration>,
}
