//! Absolute limits of a service.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{self, Share};

/// Absolute limits for a version without a baseline to compare with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Slo {
    /// Share of requests that may fail. Default: no limit.
    pub errors: Option<Share>,
    /// Longest time to the head of the response for 95 % of the requests. Default: no limit.
    #[serde(with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub p95: Option<Duration>,
    /// Likewise, for 99 %. Default: no limit.
    #[serde(with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub p99: Option<Duration>,
}
