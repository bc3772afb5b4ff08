//! Inputs of a snapshot: the file, decisions made at run time, and addresses of names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::IndexMap;

use crate::{
    config::{
        Config, schema,
        units::{Share, Weight},
    },
    health::resolve::Resolved,
    policy::read_only::{Mark, Modes},
    registry::Reads,
    routing::pin::PinMove,
    telemetry::access_log::Sender,
    tls::TlsClients,
};

/// Weights by service and version that replace those of the file.
pub type Overrides = HashMap<String, IndexMap<String, Weight>>;

/// Decisions made at run time, other than weights: ejections and epochs.
#[derive(Debug, Clone, Default)]
pub struct RuntimeState {
    /// Ejected versions, by service.
    pub ejected: BTreeMap<String, BTreeSet<String>>,
    /// Versions that get no players because none of their endpoints serves, by service.
    pub unserved: BTreeMap<String, BTreeSet<String>>,
    /// Number of changes of shares, by service.
    pub epochs: HashMap<String, u64>,
    /// Number of moves of writes, by service with a fence.
    pub fence_epochs: BTreeMap<String, u64>,
    /// Which counter counts reads, by service; the default elsewhere.
    pub reads: BTreeMap<String, Reads>,
    /// Moves of pins by operators, by service, in their order.
    pub pin_moves: BTreeMap<String, Vec<PinMove>>,
    /// Read-only modes.
    pub modes: Modes,
    /// Notices that were set at run time, by name.
    pub notices: BTreeMap<String, schema::Notice>,
    /// What became of notices so far, by name.
    pub marks: BTreeMap<String, Mark>,
}

impl RuntimeState {
    /// Whether `version` of `service` is ejected.
    pub fn is_ejected(&self, service: &str, version: &str) -> bool {
        self.ejected.get(service).is_some_and(|versions| versions.contains(version))
    }

    /// Whether `version` of `service` gets no players because none of its endpoints serves.
    pub fn is_unserved(&self, service: &str, version: &str) -> bool {
        self.unserved.get(service).is_some_and(|versions| versions.contains(version))
    }
}

/// The access log and its sampling.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Share of requests that are logged.
    pub sample: Share,
    /// Takes the lines.
    pub sender: Sender,
}

/// Inputs of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotInputs<'a> {
    /// The checked file.
    pub config: &'a Config,
    /// Changes made through the admin endpoint.
    pub overrides: &'a Overrides,
    /// Ejections and epochs.
    pub decided: &'a RuntimeState,
    /// Addresses of names.
    pub resolved: &'a Resolved,
    /// TLS clients of versions, by their settings.
    pub tls: &'a TlsClients,
    /// The access log that was opened for `config`, if it has one.
    pub access_log: Option<&'a AccessLog>,
}

/// The weights in force of a service, one per version in the order of the file: the overrides if
/// there are any, otherwise the file's, otherwise everything to the baseline.
pub fn weights_in_force<'a>(
    name: &str,
    service: &'a schema::Service,
    overrides: &Overrides,
) -> Vec<(&'a String, Weight)> {
    let written = overrides.get(name).or(service.weights.as_ref());
    service
        .versions
        .keys()
        .map(|version| {
            let weight = match written {
                Some(weights) => weights.get(version).copied().unwrap_or(Weight::ZERO),
                None if *version == service.baseline => Weight::ONE,
                None => Weight::ZERO,
            };
            (version, weight)
        })
        .collect()
}
