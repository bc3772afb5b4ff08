//! What a snapshot is compiled from: the file, what was decided while running, and what stands for names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use indexmap::IndexMap;

use crate::{
    config::{
        Config, schema,
        units::{Share, Weight},
    },
    health::resolve::Resolved,
    telemetry::access_log::Sender,
    tls::TlsClients,
};

/// Weights by service and version, ahead of those in the file.
pub type Overrides = HashMap<String, IndexMap<String, Weight>>;

/// Decisions made at run time, other than weights: ejections and epochs.
#[derive(Debug, Clone, Default)]
pub struct RuntimeState {
    /// Versions that get nobody whatever their weight, by service.
    pub ejected: BTreeMap<String, BTreeSet<String>>,
    /// Versions that get nobody, since none of their endpoints serves, by service.
    pub unserved: BTreeMap<String, BTreeSet<String>>,
    /// Number of changes of shares, by service.
    pub epochs: HashMap<String, u64>,
}

impl RuntimeState {
    /// Whether `version` of `service` is ejected.
    pub fn is_ejected(&self, service: &str, version: &str) -> bool {
        self.ejected.get(service).is_some_and(|versions| versions.contains(version))
    }

    /// Whether `version` of `service` leaves its players to others, since none of its endpoints serves.
    pub fn is_unserved(&self, service: &str, version: &str) -> bool {
        self.unserved.get(service).is_some_and(|versions| versions.contains(version))
    }
}

/// Where lines of the access log go, and which.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Share of requests written.
    pub sample: Share,
    /// Takes the lines.
    pub sender: Sender,
}

/// What a snapshot is compiled from.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotInputs<'a> {
    /// The file; must have passed the check.
    pub config: &'a Config,
    /// Changes made through the admin endpoint.
    pub overrides: &'a Overrides,
    /// Ejections, and the epochs that they and changes of weights begin.
    pub decided: &'a RuntimeState,
    /// Addresses of names.
    pub resolved: &'a Resolved,
    /// Clients of the versions that are spoken to under TLS, by their settings.
    pub tls: &'a TlsClients,
    /// The access log that was opened for `config`, if it has one.
    pub access_log: Option<&'a AccessLog>,
}

/// The weights that a service serves by, one per version in the order of the file: those set while it
/// runs if there are any, else the file's, else everything to the baseline.
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
