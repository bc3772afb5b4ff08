//! The format of the state that a process hands over to its successor at a takeover.
//!
//! Each process reads the configuration file itself; only the state that is in no file is handed over. Both
//! processes may be of different releases, so a process must be able to do without a field that a later release
//! adds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{earlier::Earlier, fences::FenceMark};
use crate::{
    analysis::Verdict,
    config::{schema::Notice, units::Weight},
    policy::read_only::{Mark, Mode},
    telemetry::rfc3339,
};

/// The state of a process that is not in its configuration file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HandoverState {
    /// The generation in force; the generations of the next process are higher.
    pub generation: u64,
    /// Weights set while running, by service.
    pub weights: BTreeMap<String, SetWeights>,
    /// Ejected versions, by service.
    #[serde(default)]
    pub ejected: BTreeMap<String, BTreeSet<String>>,
    /// Why these versions were ejected.
    #[serde(default)]
    pub reasons: Vec<WhyEjected>,
    /// Manually ejected endpoints.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// Who ejected these endpoints, when and why.
    #[serde(default)]
    pub endpoint_reasons: Vec<WhyEndpoint>,
    /// Stand-ins: versions that serve because the weights of their services have no version that can serve.
    #[serde(default)]
    pub stand_ins: BTreeMap<String, StandIn>,
    /// Number of changes of shares, by service.
    #[serde(default)]
    pub epochs: BTreeMap<String, u64>,
    /// Which version has the writes of each service with a fence, and the epoch.
    #[serde(default)]
    pub fences: BTreeMap<String, FenceMark>,
    /// Versions that were reinstated automatically.
    #[serde(default)]
    pub mistakes: Vec<Mistakes>,
    /// Rollouts, in the form of the release that wrote them.
    #[serde(default)]
    pub rollouts: BTreeMap<String, serde_json::Value>,
    /// Moves of pins.
    #[serde(default)]
    pub pin_moves: Vec<CarriedPinMove>,
    /// What is read-only.
    #[serde(default)]
    pub modes: Vec<CarriedMode>,
    /// Notices that were set at run time.
    #[serde(default)]
    pub notices: BTreeMap<String, Notice>,
    /// What became of notices.
    #[serde(default)]
    pub notice_marks: BTreeMap<String, Mark>,
}

/// A read-only mode: of a service, of a route, or of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedMode {
    /// The service, if it is the mode of one.
    #[serde(default)]
    pub service: Option<String>,
    /// The route, if it is the mode of one.
    #[serde(default)]
    pub route: Option<String>,
    /// The mode.
    #[serde(flatten)]
    pub mode: Mode,
}

/// A move of pins of a version of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedPinMove {
    /// The service.
    pub service: String,
    /// The version that had them.
    pub from: String,
    /// Its place in the order of the service's moves; `None` in an older release, which has the time only.
    #[serde(default)]
    pub order: Option<u64>,
    /// The move.
    #[serde(flatten)]
    pub rule: MovedPins,
}

/// Where the pins of a version are since an operator moved them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedPins {
    /// The version that has them.
    pub to: String,
    /// When they were moved, in seconds since 1970: later pins are none of them.
    pub before: u32,
    /// When the last of them has ended, in seconds since 1970.
    pub until: u32,
    /// Who moved them.
    pub by: String,
    /// Why; empty if no reason was given.
    pub reason: String,
}

/// A version that gets all players of its service because no version with weight can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// The version.
    pub version: String,
    /// What is wrong with the weights.
    pub why: String,
}

/// How often a version was reinstated automatically.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistakes {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Number of reinstatements.
    pub times: u32,
}

/// Why a version was ejected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhyEjected {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Who ejected it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The route with its own limits that the verdict is about.
    #[serde(default)]
    pub route: Option<String>,
    /// The verdict, if a verdict ejected the version.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// When, in milliseconds since 1970.
    #[serde(default)]
    pub at_unix_ms: Option<u64>,
}

/// Why an endpoint was ejected manually.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyEndpoint {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Its address.
    pub endpoint: String,
    /// Who ejected it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: Option<u64>,
}

/// Addresses of endpoints, by service and version.
pub type Endpoints = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Weights of a service that were set while running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetWeights {
    /// By version.
    pub set: IndexMap<String, Weight>,
    /// The file's weights at that time; the weights that were set remain in force only while the file is
    /// unchanged in this.
    pub file: Option<IndexMap<String, Weight>>,
    /// Who set them, when and why; `None` if an older process did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<WhySet>,
    /// The weights before them, to which a rollback returns; `None` if an older process set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<IndexMap<String, Weight>>,
    /// The splits before that one, oldest first, to which further rollbacks lead; see `undo.rs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<IndexMap<String, Weight>>,
}

/// Who set weights, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhySet {
    /// Who set them: a token's name.
    pub by: String,
    /// Why; empty if no reason was given.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
}

impl WhySet {
    /// Weights that `by` sets at `now`.
    pub fn new(by: &str, reason: &str, now: SystemTime) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at_unix_ms = since.as_millis().try_into().unwrap_or_default();
        Self { by: by.to_owned(), reason: reason.to_owned(), at_unix_ms }
    }

    /// When they were set.
    pub fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.at_unix_ms)
    }
}

impl SetWeights {
    /// `weights set by ops (canary looks good) at 2026-11-26T18:00:00Z`.
    pub fn told(&self) -> String {
        let Some(why) = &self.why else { return "weights set at runtime".to_owned() };
        let reason = match why.reason.trim_end_matches('.') {
            "" => String::new(),
            reason => format!(" ({reason})"),
        };
        let at = rfc3339::seconds(why.at());
        format!("weights set by {}{reason} at {at}", why.by)
    }

    /// Whether the file's weights were `weights` when these were set.
    pub fn is_of_file(&self, weights: Option<&IndexMap<String, Weight>>) -> bool {
        // A round trip through JSON may change the last bit of a number, so both sides take it.
        let text = serde_json::to_string(&weights).unwrap_or_default();
        serde_json::from_str(&text).is_ok_and(|file: Option<_>| file == self.file)
    }
}

/// Whether this process took over from another one, and whether a takeover from it failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replacement {
    /// The process whose sockets were taken over.
    pub from_pid: Option<u32>,
    /// The processes before this one that may still have requests in flight, the last one at the end.
    pub earlier: Vec<Earlier>,
    /// Until when the process before may answer on idle connections that it still has, by the split of the takeover.
    pub beside_until: Option<Instant>,
    /// When and why the last takeover by another process failed; `None` if none failed.
    pub last_error: Option<(SystemTime, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_known_again_after_the_way_through_json() {
        let weight = |w| Weight::new(w).expect("a weight");
        for odd in [1.0 / 3.0, 100.0 / 3.0, 0.1 + 0.2, 1e-9 / 7.0, 99.999_999_999_999_99] {
            let file = IndexMap::from([("v1".to_owned(), weight(odd))]);
            let (why, before, earlier) = (None, None, Vec::new());
            let set =
                SetWeights { set: file.clone(), file: Some(file.clone()), why, before, earlier };
            let text = serde_json::to_string(&set).expect("JSON");
            let read: SetWeights = serde_json::from_str(&text).expect("the same");
            assert!(read.is_of_file(Some(&file)), "{odd}");
            assert!(!read.is_of_file(None));
        }
    }
}
