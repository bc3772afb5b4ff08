//! What was decided while the process runs and stands in no file, as data.
//!
//! [`ControlState::apply`] alone changes it, and needs no clock, no file and no socket: the same changes lead
//! to the same state, wherever they are applied. So a dry run is a change of a clone, and what one process
//! hands over to the next is the state itself, in the form of `carried.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, SystemTime},
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use super::carried::StandIn;
use super::carried::{Endpoints, HandoverState, Mistakes, SetWeights, WhyEjected, WhyEndpoint};
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

    /// Whether the two differ in more than their numbers.
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

/// Stands for a time that a process did not say.
const NOT_SAID: SystemTime = SystemTime::UNIX_EPOCH;

/// As it is handed over.
fn whole_ms(at: SystemTime) -> SystemTime {
    time_of(unix_ms(at))
}

fn time_of(at_unix_ms: Option<u64>) -> SystemTime {
    at_unix_ms.map_or(NOT_SAID, |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
}

fn unix_ms(at: SystemTime) -> Option<u64> {
    at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis().try_into().ok()
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

impl From<ControlState> for HandoverState {
    fn from(state: ControlState) -> Self {
        let (ejected, out) = (state.ejected(), state.kept_out());
        let ControlState { generation, weights, ejections, endpoints, stand_ins, epochs, mistakes } =
            state;
        let reasons = ejections.into_iter().map(|((service, version), ejection)| {
            let Ejection { since, by, reason, verdict } = ejection;
            let (route, verdict) = verdict.unzip();
            let (route, at_unix_ms) = (route.flatten(), unix_ms(since));
            WhyEjected { service, version, by, reason, route, verdict, at_unix_ms }
        });
        let endpoint_reasons = endpoints.into_iter().map(|((service, version, endpoint), why)| {
            let ManualEjection { since, by, reason } = why;
            WhyEndpoint { service, version, endpoint, by, reason, at_unix_ms: unix_ms(since) }
        });
        let mistakes = mistakes.into_iter().map(|((service, version), times)| Mistakes {
            service,
            version,
            times,
        });
        Self {
            generation,
            weights,
            ejected,
            reasons: reasons.collect(),
            endpoints: out,
            endpoint_reasons: endpoint_reasons.collect(),
            stand_ins,
            epochs,
            mistakes: mistakes.collect(),
        }
    }
}

impl From<HandoverState> for ControlState {
    /// What an older process ejected without saying why is out nevertheless, and what it gives reasons for
    /// and does not name is not.
    fn from(carried: HandoverState) -> Self {
        let unknown = || ("another process".to_owned(), "ejected before this one".to_owned());
        let HandoverState { reasons, endpoint_reasons, .. } = carried;
        let mut reasons: BTreeMap<_, _> = reasons
            .into_iter()
            .map(|why| ((why.service.clone(), why.version.clone()), why))
            .collect();
        let mut endpoint_reasons: BTreeMap<_, _> = endpoint_reasons
            .into_iter()
            .map(|why| ((why.service.clone(), why.version.clone(), why.endpoint.clone()), why))
            .collect();
        let ejected = carried.ejected.into_iter().flat_map(|(service, versions)| {
            versions.into_iter().map(move |version| (service.clone(), version))
        });
        let ejections = ejected.map(|place| {
            let ejection = match reasons.remove(&place) {
                Some(WhyEjected { by, reason, route, verdict, at_unix_ms, .. }) => Ejection {
                    since: time_of(at_unix_ms),
                    by,
                    reason,
                    verdict: verdict.map(|verdict| (route, verdict)),
                },
                None => {
                    let (by, reason) = unknown();
                    Ejection { since: NOT_SAID, by, reason, verdict: None }
                }
            };
            (place, ejection)
        });
        let out = carried.endpoints.into_iter().flat_map(|(service, versions)| {
            versions.into_iter().flat_map(move |(version, addresses)| {
                let service = service.clone();
                addresses.into_iter().map(move |a| (service.clone(), version.clone(), a))
            })
        });
        let endpoints = out.map(|place| {
            let ejection = match endpoint_reasons.remove(&place) {
                Some(WhyEndpoint { by, reason, at_unix_ms, .. }) => {
                    ManualEjection { since: time_of(at_unix_ms), by, reason }
                }
                None => {
                    let (by, reason) = unknown();
                    ManualEjection { since: NOT_SAID, by, reason }
                }
            };
            (place, ejection)
        });
        let mistakes = carried.mistakes.into_iter().map(|m| ((m.service, m.version), m.times));
        Self {
            generation: carried.generation,
            weights: carried.weights,
            ejections: ejections.collect(),
            endpoints: endpoints.collect(),
            stand_ins: carried.stand_ins,
            epochs: carried.epochs,
            mistakes: mistakes.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()])
    }

    fn time() -> impl Strategy<Value = SystemTime> {
        (1_u64..10_000_000_000).prop_map(|us| SystemTime::UNIX_EPOCH + Duration::from_micros(us))
    }

    fn weights() -> impl Strategy<Value = IndexMap<String, Weight>> {
        let weight = (0.0_f64..1e6).prop_map(|w| Weight::new(w).expect("a weight"));
        prop::collection::vec((name(), weight), 1..3).prop_map(|each| each.into_iter().collect())
    }

    fn verdict() -> Verdict {
        serde_json::from_value(serde_json::json!({
            "answer": "fail", "since_s": 1.5, "compared_s": 2.5, "log_evidence": 9.0,
            "log_threshold": 6.5, "health": null, "findings": [], "reason": "worse"
        }))
        .expect("a verdict")
    }

    fn ejection() -> impl Strategy<Value = Ejection> {
        let verdict = prop::option::of(prop::option::of(name()).prop_map(|r| (r, verdict())));
        (time(), name(), name(), verdict).prop_map(|(since, by, reason, verdict)| Ejection {
            since,
            by,
            reason,
            verdict,
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        let place = || (name(), name());
        let manual = (time(), name(), name()).prop_map(|(since, by, reason)| ManualEjection {
            since,
            by,
            reason,
        });
        let stand_in = (name(), name()).prop_map(|(version, why)| StandIn { version, why });
        prop_oneof![
            (name(), weights(), prop::option::of(weights())).prop_map(|(service, set, file)| {
                Change::WeightsSet { service, weights: SetWeights { set, file } }
            }),
            (place(), ejection()).prop_map(|((service, version), ejection)| {
                Change::VersionEjected { service, version, ejection }
            }),
            (place(), name()).prop_map(|((service, version), reason)| {
                Change::EjectionMistaken { service, version, reason }
            }),
            (place(), any::<bool>()).prop_map(|((service, version), by_itself)| {
                Change::VersionReinstated { service, version, by_itself }
            }),
            (place(), name(), manual).prop_map(|((service, version), endpoint, ejection)| {
                Change::EndpointEjected { service, version, endpoint, ejection }
            }),
            (place(), name()).prop_map(|((service, version), endpoint)| {
                Change::EndpointReinstated { service, version, endpoint }
            }),
            (prop::collection::btree_set(name(), 0..2), prop::collection::btree_set(place(), 0..3))
                .prop_map(|(weights, gone)| Change::FileTaken { weights, gone }),
            prop::collection::btree_map(name(), stand_in, 0..3).prop_map(Change::StandInsChosen),
            name().prop_map(|service| Change::StandInReleased { service }),
            prop::collection::btree_set(name(), 1..3)
                .prop_map(|services| Change::EpochsBegun { services }),
            (1_u64..1_000).prop_map(|generation| Change::Compiled { generation }),
        ]
    }

    fn replay(changes: &[Change]) -> ControlState {
        let mut state = ControlState::at(1);
        changes.iter().cloned().for_each(|change| state.apply(change));
        state
    }

    fn read_again(state: &ControlState) -> ControlState {
        let text = serde_json::to_string(state).expect("JSON");
        serde_json::from_str(&text).expect("a state")
    }

    proptest! {
        #[test]
        fn changes_one_by_one_are_the_changes_replayed(
            changes in prop::collection::vec(change(), 0..20),
        ) {
            let mut state = ControlState::at(1);
            for (n, change) in changes.iter().enumerate() {
                state = state.after(change.clone());
                prop_assert_eq!(&state, &replay(&changes[..=n]));
                prop_assert_eq!(&read_again(&state), &state);
            }
            let resumed = ControlState::default().after(Change::Resumed(Box::new(state.clone())));
            let own = Change::StandInsChosen(state.stand_ins().clone());
            prop_assert_eq!(resumed.after(own), state, "another process goes on where it was");
        }

        #[test]
        fn a_reinstatement_undoes_an_ejection(
            changes in prop::collection::vec(change(), 0..20),
            ejection in ejection(),
        ) {
            let (service, version) = ("a".to_owned(), "b".to_owned());
            let back = Change::VersionReinstated {
                service: service.clone(),
                version: version.clone(),
                by_itself: false,
            };
            let before = replay(&changes).after(back.clone());
            let out = before.after(Change::VersionEjected { service, version, ejection });
            prop_assert!(out.ejection("a", "b").is_some());
            prop_assert!(!out.decides_as(&before));
            prop_assert_eq!(out.after(back), before);
        }
    }

    #[test]
    fn an_endpoint_comes_back_and_weights_end_a_stand_in() {
        let (service, version) = ("a".to_owned(), "v1".to_owned());
        let endpoint = "10.0.0.1:80".to_owned();
        let stand_in = StandIn { version: version.clone(), why: "v2 is ejected".to_owned() };
        let stand_ins = StandIns::from([(service.clone(), stand_in)]);
        let start = ControlState::at(7).after(Change::StandInsChosen(stand_ins));
        assert_eq!(start.weights_ahead()["a"]["v1"], Weight::ONE);
        let ejection =
            ManualEjection { since: NOT_SAID, by: "ops".to_owned(), reason: "disk".to_owned() };
        let out = start.after(Change::EndpointEjected {
            service: service.clone(),
            version: version.clone(),
            endpoint: endpoint.clone(),
            ejection,
        });
        assert_eq!(out.endpoints().len(), 1);
        let back = Change::EndpointReinstated { service: service.clone(), version, endpoint };
        assert_eq!(out.after(back), start);
        let weights = SetWeights { set: IndexMap::new(), file: None };
        let set = start.after(Change::WeightsSet { service, weights });
        assert!(set.stand_ins().is_empty() && set.weights_ahead()["a"].is_empty());
    }

    /// What the first release that hands over writes: the rest came later.
    #[test]
    fn what_an_older_process_hands_over_is_understood() {
        let text = r#"{
            "generation": 12,
            "weights": { "a": { "set": { "v2": 1.0 }, "file": { "v1": 1.0 } } },
            "ejected": { "a": [ "v1" ] },
            "reasons": [ { "service": "a", "version": "v3", "by": "ops", "reason": "gone" } ],
            "endpoints": { "a": { "v2": [ "10.0.0.1:80" ] } }
        }"#;
        let state: ControlState = serde_json::from_str(text).expect("a state");
        assert_eq!((state.generation(), state.overrides()["a"]["v2"]), (12, Weight::ONE));
        assert!(state.ejection("a", "v3").is_none(), "it is only explained");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let state = state.dated(now);
        let why = state.ejection("a", "v1").expect("it is out");
        assert_eq!((&*why.by, why.since), ("another process", now));
        let endpoint = ("a".to_owned(), "v2".to_owned(), "10.0.0.1:80".to_owned());
        assert_eq!(state.endpoints()[&endpoint].since, now);
        let least: ControlState =
            serde_json::from_str(r#"{ "generation": 1, "weights": {} }"#).expect("a state");
        assert_eq!(least, ControlState::at(1));
    }

    #[test]
    fn what_is_handed_over_is_what_an_older_process_reads() {
        let (service, version) = ("a".to_owned(), "v2".to_owned());
        let since = SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_700);
        let (by, reason) = ("ops".to_owned(), "pays twice".to_owned());
        let ejection = Ejection { since, by, reason, verdict: None };
        let state =
            ControlState::at(3).after(Change::VersionEjected { service, version, ejection });
        let written = serde_json::to_value(&state).expect("JSON");
        assert_eq!(written["ejected"], serde_json::json!({ "a": [ "v2" ] }));
        assert_eq!(
            written["reasons"],
            serde_json::json!([ {
                "service": "a", "version": "v2", "by": "ops", "reason": "pays twice",
                "route": null, "verdict": null, "at_unix_ms": 1500
            } ])
        );
    }
}
