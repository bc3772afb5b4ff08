//! The fence of a service.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units;

/// Cutovers hold the service's writes until those of the old version have ended, so that no two versions ever
/// work on writes at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fence {
    /// Whether writes move in no other way: changes of weights, ejections and files that would move them are
    /// refused. Default `false`.
    pub required: bool,
    /// How long writes are held at most; then the cutover is undone. Default `2s`, at most `30s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub deadline: Duration,
    /// Most writes that are held; further ones get 503. Default 1000, at most 100000.
    pub queue: u32,
}

impl Default for Fence {
    fn default() -> Self {
        Self { required: false, deadline: Duration::from_secs(2), queue: 1000 }
    }
}
