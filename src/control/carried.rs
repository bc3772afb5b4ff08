//! The form in which one process leaves its state to the next, when it is replaced while it serves.
//!
//! The file is read by each process for itself; only what no file says is carried. A field that a
//! later release adds must be one that a process can do without: the two are of different releases.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{analysis::Verdict, config::units::Weight};

/// What a process knows that its file does not say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HandoverState {
    /// Generation in force; those of the next process are above it.
    pub generation: u64,
    /// Weights set while running, by service.
    pub weights: BTreeMap<String, SetWeights>,
    /// Versions that get nobody, by service.
    #[serde(default)]
    pub ejected: BTreeMap<String, BTreeSet<String>>,
    /// Why they are out.
    #[serde(default)]
    pub reasons: Vec<WhyEjected>,
    /// Endpoints that operators ejected.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// Who took these out, when and why.
    #[serde(default)]
    pub endpoint_reasons: Vec<WhyEndpoint>,
    /// Versions that serve, since the weights of their services lead to nobody.
    #[serde(default)]
    pub stand_ins: BTreeMap<String, StandIn>,
    /// Number of changes of shares, by service.
    #[serde(default)]
    pub epochs: BTreeMap<String, u64>,
    /// Versions that came back by themselves.
    #[serde(default)]
    pub mistakes: Vec<Mistakes>,
}

/// A version that gets all players of its service, since the weights lead to nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// The version.
    pub version: String,
    /// What is wrong with the weights.
    pub why: String,
}

/// How often a version came back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistakes {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// How often.
    pub times: u32,
}

/// Why a version is out.
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
    /// The route with limits of its own that the verdict is about.
    #[serde(default)]
    pub route: Option<String>,
    /// The verdict, if one did.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// When, in milliseconds since 1970.
    #[serde(default)]
    pub at_unix_ms: Option<u64>,
}

/// Why an endpoint is out that somebody took out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyEndpoint {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Its address.
    pub endpoint: String,
    /// Who took it out.
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
    /// What the file said as they were set; they stay only if it still says so.
    pub file: Option<IndexMap<String, Weight>>,
}

impl SetWeights {
    /// Whether they were set while the file said `weights`.
    pub fn is_of_file(&self, weights: Option<&IndexMap<String, Weight>>) -> bool {
        // Reading JSON may round the last bit of a number: it is to do so on both sides.
        let text = serde_json::to_string(&weights).unwrap_or_default();
        serde_json::from_str(&text).is_ok_and(|file: Option<_>| file == self.file)
    }
}

/// How a process came from another one, and what came of those that were to follow it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replacement {
    /// The process whose sockets were taken over.
    pub from_pid: Option<u32>,
    /// When and why another process did not take over; nothing if none failed.
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
            let set = SetWeights { set: file.clone(), file: Some(file.clone()) };
            let text = serde_json::to_string(&set).expect("JSON");
            let read: SetWeights = serde_json::from_str(&text).expect("the same");
            assert!(read.is_of_file(Some(&file)), "{odd}");
            assert!(!read.is_of_file(None));
        }
    }
}
