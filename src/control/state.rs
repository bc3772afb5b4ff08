//! What was decided while the process runs and stands in no file, as data.
//!
//! [`ControlState::apply`] alone changes it, and needs no clock, no file and no socket: the same changes lead
//! to the same state, wherever they are applied. So a dry run is a change of a clone, and what one process
//! hands over to the next is the state itself, in the form of `carried.rs`.

mod handover;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::SystemTime,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use self::handover::{NOT_SAID, whole_ms};
pub use super::carried::StandIn;
use super::carried::{Endpoints, HandoverState, SetWeights};
use crate::{analysis::Verdict, config::units::Weight, snapshot::Overrides};

/// Why and since when a version is ejected.
#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    /// When, by the clock, to the millisecond.
    pub since: SystemTime,
    /// Who ejected it: a token's name, or `verdict`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The verdict that ejected it, if one did, and the route with limits of its own it is about.
    pub verdict: Option<(Option<String>, Verdict)>,
}

/// Why and since when an operator keeps an endpoint out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualEjection {
    /// When, by the clock, to the millisecond.
    pub since: SystemTime,
    /// Who ejected it: a token's name.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Ejections in force, by service and version.
pub type Ejections = BTreeMap<(String, String), Ejection>;

/// Endpoints that operators keep out, by service, version and address.
pub type ManualEjections = BTreeMap<(String, String, String), ManualEjection>;

/// Stand-ins by service.
pub type StandIns = BTreeMap<String, StandIn>;

/// What was decided while the process runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "HandoverState", into = "HandoverState")]
pub struct ControlState {
    generation: u64,
    weights: BTreeMap<String, SetWeights>,
    ejections: Ejections,
    endpoints: ManualEjections,
    stand_ins: StandIns,
    epochs: BTreeMap<String, u64>,
    mistakes: BTreeMap<(String, String), u32>,
}

/// All that alters a [`ControlState`].
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Weights of a service were set.
    WeightsSet {
        /// The service.
        service: String,
        /// The weights.
        weights: SetWeights,
    },
    /// A version was ejected.
    VersionEjected {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// By whom, when and why.
        ejection: Ejection,
    },
    /// The ejection of a version by a verdict turned out to help nobody.
    EjectionMistaken {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// The reason with what was found out.
        reason: String,
    },
    /// A version was reinstated.
    VersionReinstated {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// Whether no operator did it: its ejection was a mistake.
        by_itself: bool,
    },
    /// An operator ejected an endpoint.
    EndpointEjected {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// Its address.
        endpoint: String,
        /// By whom, when and why.
        ejection: ManualEjection,
    },
    /// An operator reinstated an endpoint.
    EndpointReinstated {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// Its address.
        endpoint: String,
    },
    /// Another file came into force.
    FileTaken {
        /// Services whose weights are those of the file again.
        weights: BTreeSet<String>,
        /// Versions that the file no longer has.
        gone: BTreeSet<(String, String)>,
    },
    /// The process goes on where another one was.
    Resumed(Box<ControlState>),
    /// It was decided anew which versions stand in.
    StandInsChosen(StandIns),
    /// The weights of a service lead to somebody again, so that nobody stands in.
    StandInReleased {
        /// The service.
        service: String,
    },
    /// Versions of these services get other shares than before.
    EpochsBegun {
        /// The services.
        services: BTreeSet<String>,
    },
    /// A snapshot was compiled from it.
    Compiled {
        /// Its number.
        generation: u64,
    },
}

impl ControlState {
    /// That of a process which has decided nothing yet and has published this generation.
    pub fn at(generation: u64) -> Self {
        Self { generation, ..Self::default() }
    }

    /// Makes a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::WeightsSet { service, weights } => {
                self.stand_ins.remove(&service);
                self.weights.insert(service, weights);
            }
            Change::VersionEjected { service, version, ejection } => {
                let since = whole_ms(ejection.since);
                self.ejections.insert((service, version), Ejection { since, ..ejection });
            }
            Change::EjectionMistaken { service, version, reason } => {
                let Some(ejection) = self.ejections.get_mut(&(service, version)) else { return };
                if let Some((_, verdict)) = &mut ejection.verdict {
                    verdict.reason.clone_from(&reason);
                }
                ejection.reason = reason;
            }
            Change::VersionReinstated { service, version, by_itself } => {
                let place = (service, version);
                self.ejections.remove(&place);
                if by_itself {
                    *self.mistakes.entry(place).or_default() += 1;
                }
            }
            Change::EndpointEjected { service, version, endpoint, ejection } => {
                let since = whole_ms(ejection.since);
                let ejection = ManualEjection { since, ..ejection };
                self.endpoints.insert((service, version, endpoint), ejection);
            }
            Change::EndpointReinstated { service, version, endpoint } => {
                self.endpoints.remove(&(service, version, endpoint));
            }
            Change::FileTaken { weights, gone } => {
                self.weights.retain(|service, _| !weights.contains(service));
                self.ejections.retain(|place, _| !gone.contains(place));
                self.endpoints.retain(|(service, version, _), _| {
                    !gone.contains(&(service.clone(), version.clone()))
                });
            }
            Change::Resumed(from) => {
                let Self { generation, weights, ejections, endpoints, epochs, mistakes, .. } =
                    *from;
                self.generation = self.generation.max(generation);
                (self.weights, self.ejections) = (weights, ejections);
                (self.endpoints, self.mistakes) = (endpoints, mistakes);
                for (service, epoch) in epochs {
                    let own = self.epochs.entry(service).or_default();
                    *own = epoch.max(*own);
                }
            }
            Change::StandInsChosen(stand_ins) => self.stand_ins = stand_ins,
            Change::StandInReleased { service } => drop(self.stand_ins.remove(&service)),
            Change::EpochsBegun { services } => {
                for service in services {
                    *self.epochs.entry(service).or_default() += 1;
                }
            }
            Change::Compiled { generation } => self.generation = generation,
        }
    }

    /// The state that `change` leads to.
    #[must_use]
    pub fn after(&self, change: Change) -> Self {
        let mut state = self.clone();
        state.apply(change);
        state
    }

    /// The generation in force, or one of a process before this one: the next one is above it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Weights set while running, by service.
    pub fn weights(&self) -> &BTreeMap<String, SetWeights> {
        &self.weights
    }

    /// Versions that are ejected.
    pub fn ejections(&self) -> &Ejections {
        &self.ejections
    }

    /// The ejection of `version` of `service`, if it is ejected.
    pub fn ejection(&self, service: &str, version: &str) -> Option<&Ejection> {
        self.ejections.get(&(service.to_owned(), version.to_owned()))
    }

    /// Endpoints that operators keep out.
    pub fn endpoints(&self) -> &ManualEjections {
        &self.endpoints
    }

    /// Versions that serve, since the weights of their services lead to nobody.
    pub fn stand_ins(&self) -> &StandIns {
        &self.stand_ins
    }

    /// Number of changes of shares, by service.
    pub fn epochs(&self) -> &BTreeMap<String, u64> {
        &self.epochs
    }

    /// How often `version` of `service` came back by itself.
    pub fn mistakes(&self, service: &str, version: &str) -> u32 {
        let place = (service.to_owned(), version.to_owned());
        self.mistakes.get(&place).copied().unwrap_or_default()
    }

    /// Versions that are ejected, by service.
    pub fn ejected(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (service, version) in self.ejections.keys() {
            versions.entry(service.clone()).or_default().insert(version.clone());
        }
        versions
    }

    /// Endpoints that operators keep out, by service and version.
    pub fn kept_out(&self) -> Endpoints {
        let mut out = Endpoints::new();
        for (service, version, endpoint) in self.endpoints.keys().cloned() {
            out.entry(service).or_default().entry(version).or_default().insert(endpoint);
        }
        out
    }

    /// Weights set while running, as a snapshot takes them.
    pub fn overrides(&self) -> Overrides {
        let each = self.weights.iter();
        each.map(|(service, weights)| (service.clone(), weights.set.clone())).collect()
    }

    /// Weights ahead of those in the file: those of stand-ins, then those set while running.
    pub fn weights_ahead(&self) -> Overrides {
        let mut ahead = self.overrides();
        ahead.extend(self.stand_ins.iter().map(|(service, stand_in)| {
            (service.clone(), IndexMap::from([(stand_in.version.clone(), Weight::ONE)]))
        }));
        ahead
    }

    /// Whether all that is decided is the same: the two differ in generation and epochs at most.
    pub fn decides_as(&self, other: &Self) -> bool {
        let Self { generation: _, epochs: _, weights, ejections, endpoints, stand_ins, mistakes } =
            self;
        *weights == other.weights
            && *ejections == other.ejections
            && *endpoints == other.endpoints
            && *stand_ins == other.stand_ins
            && *mistakes == other.mistakes
    }

    /// With `now` where a process did not say when it ejected something.
    #[must_use]
    pub fn dated(mut self, now: SystemTime) -> Self {
        let of_versions = self.ejections.values_mut().map(|ejection| &mut ejection.since);
        let of_endpoints = self.endpoints.values_mut().map(|ejection| &mut ejection.since);
        for since in of_versions.chain(of_endpoints).filter(|since| **since == NOT_SAID) {
            *since = whole_ms(now);
        }
        self
    }
}

impl fmt::Display for Ejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", humantime::format_rfc3339_seconds(self.since), self.by)?;
        match self.reason.trim_end_matches('.') {
            "" => Ok(()),
            reason => write!(f, " ({reason})"),
        }
    }
}

impl From<&Ejection> for ManualEjection {
    fn from(ejection: &Ejection) -> Self {
        let Ejection { since, by, reason, .. } = ejection;
        Self { since: *since, by: by.clone(), reason: reason.clone() }
    }
}

#[cfg(test)]
mod tests;
