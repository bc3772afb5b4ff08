//! Decisions made at runtime that are in no file, as data.
//!
//! Only [`ControlState::apply`] changes the state, and it needs no clock, no file and no socket: the same
//! changes always lead to the same state. So a dry run is a change of a clone, and a takeover hands over the
//! state itself, in the format of `carried.rs`.

mod handover;
mod kept_rollout;
mod read_only;
pub mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::SystemTime,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use self::handover::{NOT_SAID, whole_ms};
pub use self::kept_rollout::KeptRollout;
pub use super::carried::{MovedPins, StandIn};
use super::{
    carried::{Endpoints, HandoverState, SetWeights},
    fences::FenceMarks,
};
use crate::{
    analysis::Verdict,
    config::{
        schema::{Notice, UtcTime},
        units::Weight,
    },
    policy::read_only::{Mark, Mode, Modes, Scope, Settled},
    rollout::Rollout,
    routing::pin::PinMove,
    snapshot::Overrides,
    telemetry::rfc3339,
};

/// Most ejections of versions that are in no file, and of their endpoints. They stay in case the versions
/// come back.
const MOST_ABSENT: usize = 1_000;

/// Why and since when a version is ejected.
#[derive(Debug, Clone, PartialEq)]
pub struct Ejection {
    /// Wall-clock time, to the millisecond.
    pub since: SystemTime,
    /// Who ejected it: a token's name, or `verdict`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The verdict that ejected it, if there is one, and the route with limits of its own that it is about.
    pub verdict: Option<(Option<String>, Verdict)>,
}

/// Why and since when an endpoint is manually ejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualEjection {
    /// Wall-clock time, to the millisecond.
    pub since: SystemTime,
    /// Who ejected it: a token's name.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Ejections in force, by service and version.
pub type Ejections = BTreeMap<(String, String), Ejection>;

/// Manually ejected endpoints, by service, version and address.
pub type ManualEjections = BTreeMap<(String, String, String), ManualEjection>;

/// Moves of pins by operators, in their order for each service: by service, place in the order, and the version
/// that had them. An older release has no order but the time, so several may have the same place.
pub type PinMoves = BTreeMap<(String, u64, String), MovedPins>;

/// The last rollout of each service. They are shared: a state is copied for each change of any of them.
pub type Rollouts = BTreeMap<String, Arc<KeptRollout>>;

/// Stand-ins by service.
pub type StandIns = BTreeMap<String, StandIn>;

/// Decisions made at runtime.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "HandoverState", into = "HandoverState")]
pub struct ControlState {
    generation: u64,
    weights: BTreeMap<String, SetWeights>,
    ejections: Ejections,
    endpoints: ManualEjections,
    stand_ins: StandIns,
    epochs: BTreeMap<String, u64>,
    fences: FenceMarks,
    mistakes: BTreeMap<(String, String), u32>,
    /// The last rollout of each service, as of its last transition.
    rollouts: Rollouts,
    pin_moves: PinMoves,
    read_only: Planned,
}

/// What is read-only, and which notices were set at run time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planned {
    /// Modes in force.
    pub modes: Modes,
    /// Notices that were set at run time, by name.
    pub notices: BTreeMap<String, Notice>,
    /// What became of notices, by name.
    pub marks: BTreeMap<String, Mark>,
}

/// Every change of a [`ControlState`].
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Weights of a service were set.
    WeightsSet {
        /// The service.
        service: String,
        /// The weights.
        weights: SetWeights,
    },
    /// All traffic of a service was moved to a version, or back to the split before.
    CutOver {
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
    /// The ejection of a version by a verdict proved to be a mistake.
    EjectionMistaken {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// The reason, with the new finding.
        reason: String,
    },
    /// A version was reinstated.
    VersionReinstated {
        /// The service.
        service: String,
        /// Its version.
        version: String,
        /// Whether it was automatic, because the ejection was a mistake.
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
    /// A rollout was started, or took a transition.
    RolloutMoved(Box<Rollout>),
    /// A service with a rollout that has ended is in no file any more.
    RolloutForgotten {
        /// The service.
        service: String,
    },
    /// An operator moved the pins of a version.
    PinsMoved {
        /// The service.
        service: String,
        /// The version that had them.
        from: String,
        /// Where they are now.
        rule: MovedPins,
    },
    /// A read-only mode was set, or ended.
    ModeSet {
        /// What it is about.
        scope: Scope,
        /// The mode; `None` if it ended.
        mode: Option<Mode>,
        /// Notices that do not make it read-only any more.
        settled: Settled,
    },
    /// A receiver has taken the message about a notice.
    NoticeSent {
        /// The notice.
        notice: String,
        /// When it begins.
        from: UtcTime,
        /// The receiver.
        receiver: String,
        /// The lead time of the message, in seconds.
        lead: u64,
    },
    /// A notice was set at run time, or is gone.
    NoticeSet {
        /// Its name.
        name: String,
        /// The notice; `None` if it is gone.
        notice: Option<Notice>,
    },
    /// Another file came into force.
    FileTaken {
        /// When.
        at: SystemTime,
        /// Services whose weights are those of the file again.
        weights: BTreeSet<String>,
        /// Versions with ejections that the file does not have. Their ejections stay: a version that comes back
        /// is still ejected. Only the oldest are forgotten, if there are too many.
        gone: BTreeSet<(String, String)>,
        /// Services whose writes the file would move, and the weights that stay in force instead.
        held: BTreeMap<String, SetWeights>,
        /// Services whose weights, set at runtime, name a version that the file does not have, and the weights that
        /// follow.
        moved: BTreeMap<String, SetWeights>,
    },
    /// The state of another process was taken over.
    Resumed(Box<ControlState>),
    /// The stand-ins were chosen again.
    StandInsChosen(StandIns),
    /// A version with configured weight can serve again, so the stand-in of the service ends.
    StandInReleased {
        /// The service.
        service: String,
    },
    /// Versions of these services get other shares than before.
    EpochsBegun {
        /// The services.
        services: BTreeSet<String>,
    },
    /// Writes of these services are in other hands.
    WritesMoved(FenceMarks),
    /// A snapshot was compiled from the state.
    Compiled {
        /// Its number.
        generation: u64,
    },
}

impl ControlState {
    /// The state of a process that has decided nothing yet and has published this generation.
    pub fn at(generation: u64) -> Self {
        Self { generation, ..Self::default() }
    }

    /// Applies a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::WeightsSet { service, weights } | Change::CutOver { service, weights } => {
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
            Change::RolloutMoved(rollout) => {
                self.rollouts.insert(rollout.service.clone(), Arc::new((*rollout).into()));
            }
            Change::RolloutForgotten { service } => drop(self.rollouts.remove(&service)),
            Change::PinsMoved { service, from, rule } => {
                // Pins of moves that are that old have ended.
                self.pin_moves.retain(|_, old| old.until >= rule.before);
                let last = self.pin_moves.keys().rfind(|(of, ..)| *of == service);
                let next = last.map_or(1, |(_, order, _)| order.saturating_add(1));
                // Not below the time: a cookie may know a move that was forgotten.
                self.pin_moves.insert((service, next.max(rule.before.into()), from), rule);
            }
            Change::ModeSet { .. } | Change::NoticeSent { .. } | Change::NoticeSet { .. } => {
                self.read_only.apply(change)
            }
            Change::FileTaken { weights, gone, held, moved, .. } => {
                self.weights.retain(|service, _| !weights.contains(service));
                self.weights.extend(moved);
                self.weights.extend(held);
                let is_gone = |place: &(String, String)| gone.contains(place);
                forget_oldest(&mut self.ejections, is_gone, |ejection| ejection.since);
                let is_gone = |(service, version, _): &(String, String, String)| {
                    gone.contains(&(service.clone(), version.clone()))
                };
                forget_oldest(&mut self.endpoints, is_gone, |ejection| ejection.since);
            }
            Change::Resumed(from) => {
                let Self { generation, weights, ejections, endpoints, .. } = *from;
                let Self { epochs, fences, mistakes, rollouts, pin_moves, read_only, .. } = *from;
                self.generation = self.generation.max(generation);
                (self.weights, self.ejections, self.rollouts) = (weights, ejections, rollouts);
                (self.endpoints, self.mistakes) = (endpoints, mistakes);
                // Exactly: two processes that serve at the same time say the same.
                self.fences.extend(fences);
                (self.pin_moves, self.read_only) = (pin_moves, read_only);
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
            Change::WritesMoved(marks) => self.fences.extend(marks),
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

    /// The generation in force, or that of a previous process: the next one is higher.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Weights set at runtime, by service.
    pub fn weights(&self) -> &BTreeMap<String, SetWeights> {
        &self.weights
    }

    /// Versions that are ejected, also those that are in no file now.
    pub fn ejections(&self) -> &Ejections {
        &self.ejections
    }

    /// The ejection of `version` of `service`, if it is ejected.
    pub fn ejection(&self, service: &str, version: &str) -> Option<&Ejection> {
        self.ejections.get(&(service.to_owned(), version.to_owned()))
    }

    /// Manually ejected endpoints, also those of versions that are in no file now.
    pub fn endpoints(&self) -> &ManualEjections {
        &self.endpoints
    }

    /// Stand-ins: versions that serve because no version of their services with weight can serve.
    pub fn stand_ins(&self) -> &StandIns {
        &self.stand_ins
    }

    /// Number of changes of shares, by service.
    pub fn epochs(&self) -> &BTreeMap<String, u64> {
        &self.epochs
    }

    /// The last rollout of each service, as of its last transition.
    pub fn rollouts(&self) -> &Rollouts {
        &self.rollouts
    }

    /// Which version has the writes of each service with a fence, and the epoch.
    pub fn fences(&self) -> &FenceMarks {
        &self.fences
    }

    /// How often `version` of `service` was reinstated automatically.
    pub fn mistakes(&self, service: &str, version: &str) -> u32 {
        let place = (service.to_owned(), version.to_owned());
        self.mistakes.get(&place).copied().unwrap_or_default()
    }

    /// Moves of pins by operators.
    pub fn pin_moves(&self) -> &PinMoves {
        &self.pin_moves
    }

    /// The same in the order in which they were made, by service, as a snapshot takes them.
    pub fn pin_moves_by_service(&self) -> BTreeMap<String, Vec<PinMove>> {
        let mut all: BTreeMap<String, Vec<PinMove>> = BTreeMap::new();
        for ((service, order, from), MovedPins { to, before, .. }) in &self.pin_moves {
            let (from, to) = (from.clone(), to.clone());
            let one = PinMove { from, to, before: *before, order: *order };
            all.entry(service.clone()).or_default().push(one);
        }
        all
    }

    /// What is read-only, and which notices were set at run time.
    pub fn read_only(&self) -> &Planned {
        &self.read_only
    }

    /// Versions that are ejected, by service.
    pub fn ejected(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (service, version) in self.ejections.keys() {
            versions.entry(service.clone()).or_default().insert(version.clone());
        }
        versions
    }

    /// Manually ejected endpoints, by service and version.
    pub fn kept_out(&self) -> Endpoints {
        let mut out = Endpoints::new();
        for (service, version, endpoint) in self.endpoints.keys().cloned() {
            out.entry(service).or_default().entry(version).or_default().insert(endpoint);
        }
        out
    }

    /// Weights set at runtime, as a snapshot takes them.
    pub fn overrides(&self) -> Overrides {
        let each = self.weights.iter();
        each.map(|(service, weights)| (service.clone(), weights.set.clone())).collect()
    }

    /// Weights that take precedence over the file: those of stand-ins, then those set at runtime.
    pub fn weights_ahead(&self) -> Overrides {
        let mut ahead = self.overrides();
        ahead.extend(self.stand_ins.iter().map(|(service, stand_in)| {
            (service.clone(), IndexMap::from([(stand_in.version.clone(), Weight::ONE)]))
        }));
        ahead
    }

    /// Whether both states hold the same decisions; generation and epochs may differ.
    pub fn decides_as(&self, other: &Self) -> bool {
        let Self { generation: _, epochs: _, fences: _, weights, ejections, .. } = self;
        let Self { endpoints, stand_ins, mistakes, rollouts, pin_moves, read_only, .. } = self;
        *weights == other.weights
            && *ejections == other.ejections
            && *endpoints == other.endpoints
            && *stand_ins == other.stand_ins
            && *mistakes == other.mistakes
            && *rollouts == other.rollouts
            && *pin_moves == other.pin_moves
            && *read_only == other.read_only
    }

    /// The same with a generation that is higher by `count`.
    #[must_use]
    pub fn ahead(mut self, count: u64) -> Self {
        self.generation = self.generation.saturating_add(count);
        self
    }

    /// The same with epochs of fences of at least `epoch`: also if the state is an old one, put back.
    #[must_use]
    pub fn fenced_from(mut self, epoch: u64) -> Self {
        self.fences.values_mut().for_each(|mark| mark.epoch = mark.epoch.max(epoch));
        self
    }

    /// Replaces missing times of ejection by `now`.
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

/// Removes the oldest of the items for which `is_gone` holds, if they are more than [`MOST_ABSENT`].
fn forget_oldest<K: Ord + Clone, E>(
    ejections: &mut BTreeMap<K, E>,
    is_gone: impl Fn(&K) -> bool,
    since: impl Fn(&E) -> SystemTime,
) {
    let gone = ejections.iter().filter(|(place, _)| is_gone(place));
    let mut gone: Vec<_> = gone.map(|(place, e)| (since(e), place.clone())).collect();
    gone.sort_unstable();
    for (_, place) in gone.iter().take(gone.len().saturating_sub(MOST_ABSENT)) {
        ejections.remove(place);
    }
}

impl fmt::Display for Ejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", rfc3339::seconds(self.since), self.by)?;
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
