//! Conversion of the state to and from the format of a takeover (`carried.rs`).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    super::carried::{
        CarriedMode, CarriedPinMove, HandoverState, Mistakes, WhyEjected, WhyEndpoint,
    },
    ControlState, Ejection, ManualEjection, Planned, Rollouts,
};
use crate::{
    policy::read_only::{Mode, Scope},
    rollout::Rollout,
};

/// Placeholder for a time that a process did not give.
pub(super) const NOT_SAID: SystemTime = SystemTime::UNIX_EPOCH;

/// The precision of the hand-over format.
pub(super) fn whole_ms(at: SystemTime) -> SystemTime {
    time_of(unix_ms(at))
}

pub(super) fn time_of(at_unix_ms: Option<u64>) -> SystemTime {
    at_unix_ms.map_or(NOT_SAID, |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
}

pub(super) fn unix_ms(at: SystemTime) -> Option<u64> {
    at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis().try_into().ok()
}

impl From<ControlState> for HandoverState {
    fn from(state: ControlState) -> Self {
        let (ejected, out) = (state.ejected(), state.kept_out());
        let ControlState { generation, weights, ejections, endpoints, stand_ins, .. } = state;
        let ControlState { epochs, fences, mistakes, rollouts, pin_moves, read_only, .. } = state;
        let Planned { modes, notices, marks } = read_only;
        let pin_moves = pin_moves.into_iter();
        let pin_moves = pin_moves.map(|((service, order, from), rule)| CarriedPinMove {
            service,
            from,
            order: Some(order),
            rule,
        });
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
            fences,
            mistakes: mistakes.collect(),
            rollouts: rollouts
                .into_iter()
                .filter_map(|(service, it)| Some((service, serde_json::to_value(&**it).ok()?)))
                .collect(),
            pin_moves: pin_moves.collect(),
            modes: modes.into_iter().map(CarriedMode::from).collect(),
            notices,
            notice_marks: marks,
        }
    }
}

impl From<HandoverState> for ControlState {
    /// Versions that an older process ejected without a reason are ejected, too; reasons of versions that are
    /// not ejected are ignored.
    fn from(carried: HandoverState) -> Self {
        let unknown = || ("another process".to_owned(), "ejected by an earlier process".to_owned());
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
            fences: carried.fences,
            mistakes: mistakes.collect(),
            rollouts: readable(carried.rollouts),
            pin_moves: carried
                .pin_moves
                .into_iter()
                .map(|m| ((m.service, m.order.unwrap_or(m.rule.before.into()), m.from), m.rule))
                .collect(),
            read_only: Planned {
                modes: carried.modes.into_iter().map(CarriedMode::scoped).collect(),
                notices: carried.notices,
                marks: carried.notice_marks,
            },
        }
    }
}

impl From<(Scope, Mode)> for CarriedMode {
    fn from((scope, mode): (Scope, Mode)) -> Self {
        let (service, route) = scope.names();
        Self { service: service.map(str::to_owned), route: route.map(str::to_owned), mode }
    }
}

impl CarriedMode {
    fn scoped(self) -> (Scope, Mode) {
        let scope = match (self.service, self.route) {
            (_, Some(route)) => Scope::Route(route),
            (Some(service), None) => Scope::Service(service),
            (None, None) => Scope::Process,
        };
        (scope, self.mode)
    }
}

/// The rollouts that this release can read. One that it cannot is left behind: its weights stay as they are.
fn readable(rollouts: BTreeMap<String, serde_json::Value>) -> Rollouts {
    let each = rollouts.into_iter().filter_map(|(service, value)| {
        match serde_json::from_value::<Rollout>(value) {
            Ok(rollout) => Some((service, Arc::new(rollout.into()))),
            Err(error) => {
                tracing::error!(service, %error, "a rollout of another release is not continued");
                None
            }
        }
    });
    each.collect()
}
