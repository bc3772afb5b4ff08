//! No change may leave a service without a version that serves it.
//!
//! Before a change is committed, its [`Coverage`] is computed. A change on request is refused if the service
//! would be worse served. A file cannot be refused because of the weights of one service, and a process that
//! takes over must serve. In these two cases a *stand-in* gets all players, the baseline if it can serve, until
//! a version with configured weight can serve again.

use super::{
    Controller, Rejected,
    endpoints::{has_no_endpoint, serves_nobody},
    prepare::Inputs,
    weights::Unserved,
};
use crate::{
    config::{Config, schema, units::Weight},
    control::{
        events::{EventDetails, EventKind},
        state::{Change, ControlState, StandIn, StandIns},
    },
    snapshot::{self, Endpoint, Overrides, Snapshot, weights_in_force},
};

/// The facts about a version that [`Coverage`] depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contender {
    /// It has weight.
    pub has_weight: bool,
    /// It is ejected.
    pub is_ejected: bool,
    /// None of its endpoints serves, or its names resolve to no address.
    pub is_out: bool,
    /// It is the baseline.
    pub is_baseline: bool,
    /// It has players now.
    pub has_players: bool,
}

/// How well a service is served, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coverage {
    /// All versions with weight are ejected, so that every request is answered 503.
    Nobody,
    /// Versions have a share, but none of their endpoints serves. Requests are sent to them nevertheless.
    Unavailable,
    /// A version has a share and an endpoint that serves.
    Available,
}

impl Coverage {
    fn of_version(is_out: bool) -> Self {
        if is_out { Self::Unavailable } else { Self::Available }
    }

    /// The best coverage of the versions with a share. Each item is true if none of the version's endpoints
    /// serves.
    fn of_shares(are_out: impl Iterator<Item = bool>) -> Self {
        are_out.map(Self::of_version).max().unwrap_or(Self::Nobody)
    }

    /// How well `service` is served.
    pub fn of(service: &snapshot::Service) -> Self {
        let shares = service.versions.iter().filter(|v| v.share_weight() > Weight::ZERO);
        Self::of_shares(shares.map(|version| serves_nobody(&version.known)))
    }

    /// How well a service with `versions` is served.
    fn by(versions: &[Contender]) -> Self {
        let shares = versions.iter().filter(|v| v.has_weight && !v.is_ejected);
        Self::of_shares(shares.map(|version| version.is_out))
    }
}

/// The version that gets all players, if with the weights the service has no version to serve it or is worse
/// served than `before`. The order of preference: a version that serves, the baseline, a version that has
/// players, the first one. `None` if the weights are good or no version is better.
pub(super) fn stand_in(versions: &[Contender], before: Coverage) -> Option<usize> {
    let now = Coverage::by(versions);
    if now > Coverage::Nobody && now >= before {
        return None;
    }
    let better = |v: &Contender| !v.is_ejected && Coverage::of_version(v.is_out) > now;
    let candidates = versions.iter().enumerate().filter(|(_, v)| better(v));
    // `max_by_key` returns the last of equal items, so the order is reversed.
    let best = candidates.rev().max_by_key(|(_, v)| (!v.is_out, v.is_baseline, v.has_players));
    best.map(|(place, _)| place)
}

impl Controller {
    /// Refuses `change`, which leads to the state `then` under `config`, if a service would have no version to
    /// serve it or would be worse served than now.
    ///
    /// A verdict may eject all versions but those whose endpoints do not serve, if the version serves nobody either
    /// (`living.rs`): requests are sent to these nevertheless.
    pub(super) fn refuse_unserved(
        &self,
        change: &Change,
        then: &ControlState,
        config: &Config,
    ) -> Result<(), Rejected> {
        self.refuse_unserved_unless(false, change, (then, config))
    }

    /// As [`Controller::refuse_unserved`]; if their caller `insists`, weights and a cutover may lead to versions
    /// whose endpoints do not serve.
    pub(super) fn refuse_unserved_unless(
        &self,
        insists: bool,
        change: &Change,
        (then, config): (&ControlState, &Config),
    ) -> Result<(), Rejected> {
        match change {
            Change::WeightsSet { service, weights } | Change::CutOver { service, weights } => {
                let now =
                    if insists { Coverage::Nobody } else { self.coverage(service, &self.state) };
                let comes = self.coverage(service, then);
                if comes >= now.max(Coverage::Unavailable) {
                    return Ok(());
                }
                let set = weights.set.iter().map(|(version, weight)| (version, *weight));
                let (version, mut why) = self.why_unserved(service, then, set);
                if comes == Coverage::Unavailable {
                    why += "; insist with `force` (`--force` on the command line)";
                }
                Err(Rejected::Unserved { service: service.clone(), version, why })
            }
            Change::VersionEjected { service, version, ejection } => {
                let least = match ejection.verdict {
                    Some(_) => Coverage::Unavailable,
                    None => self.coverage(service, &self.state).max(Coverage::Unavailable),
                };
                if self.coverage(service, then) >= least {
                    return Ok(());
                }
                let right = self.instead_of(service, version, then);
                let (service, version) = (service.clone(), version.clone());
                Err(Rejected::LastVersion { service, version, right })
            }
            Change::EndpointEjected { service, version, endpoint, .. } => {
                let snapshot = self.snapshot();
                let known = snapshot.service(service).and_then(|s| s.version(version));
                let mut others = known.into_iter().flat_map(|version| &version.known);
                let is_other = |known: &Endpoint| *known.state.label != **endpoint;
                if others.any(|known| is_other(known) && known.state.standing.serves()) {
                    return Ok(());
                }
                let (service, version) = (service.clone(), version.clone());
                Err(Rejected::LastEndpoint { service, version, endpoint: endpoint.clone() })
            }
            Change::ModeSet { .. } | Change::NoticeSent { .. } | Change::NoticeSet { .. } => Ok(()),
            Change::FileTaken { .. } => match self.all_ejected(config) {
                Some(why) => Err(Rejected::AllEjected { why }),
                None => Ok(()),
            },
            // These eject no version that is not ejected already.
            Change::Resumed(_)
            | Change::RolloutMoved(_)
            | Change::RolloutForgotten { .. }
            | Change::VersionReinstated { .. }
            | Change::EjectionMistaken { .. }
            | Change::PinsMoved { .. }
            | Change::EndpointReinstated { .. }
            | Change::StandInsChosen(_)
            | Change::StandInReleased { .. }
            | Change::EpochsBegun { .. }
            | Change::WritesMoved(_)
            | Change::Compiled { .. } => Ok(()),
        }
    }

    /// Versions of `service` that have weight in `state` and get no players, because none of their endpoints
    /// serves.
    pub(super) fn waiting(&self, service: &str, state: &ControlState) -> Vec<Unserved> {
        let Some(written) = self.config.services.get(service) else { return Vec::new() };
        let (snapshot, shares) = (self.snapshot(), self.shares_with(service, state, None));
        let known =
            |version: &str| snapshot.service(service).and_then(|service| service.version(version));
        let each = weights_in_force(service, written, &state.weights_ahead()).into_iter();
        let each = each.filter(|(version, weight)| {
            let has_players = shares.get(*version).is_some_and(|share| *share > 0.0);
            *weight > Weight::ZERO && !has_players && state.ejection(service, version).is_none()
        });
        let each = each.map(|(version, _)| {
            let with = self.shares_with(service, state, Some(version));
            Unserved {
                version: version.clone(),
                why: no_endpoint(version, known(version).map_or(&[], |version| &version.known)),
                share: with.get(version).copied().unwrap_or_default(),
            }
        });
        each.collect()
    }

    /// Whether the stand-in of `service` is released when its ejected `version` is reinstated.
    pub(super) fn releases_stand_in(&self, service: &str, version: &str) -> bool {
        let (service, version) = (service.to_owned(), version.to_owned());
        let released = Change::StandInReleased { service: service.clone() };
        let of = service.clone();
        let back = Change::VersionReinstated { service: of, version, by_itself: false };
        self.coverage(&service, &self.state.after(back).after(released)) == Coverage::Available
    }

    /// How well `service` would be served in `state`, with the endpoints that serve now.
    pub(super) fn coverage(&self, service: &str, state: &ControlState) -> Coverage {
        let Some(written) = self.config.services.get(service) else { return Coverage::Nobody };
        let snapshot = self.snapshot();
        let known = snapshot.service(service);
        let is_ejected = |version: &str| state.ejection(service, version).is_some();
        let is_out = |version: &str| {
            known.and_then(|s| s.version(version)).is_none_or(|v| serves_nobody(&v.known))
        };
        let ahead = state.weights_ahead();
        Coverage::by(&contenders((service, written), &ahead, is_ejected, is_out, &snapshot))
    }

    /// The first version of `service` that has weight in `weights` and does not serve, and why these versions
    /// do not.
    fn why_unserved<'a>(
        &self,
        service: &str,
        state: &ControlState,
        weights: impl IntoIterator<Item = (&'a String, Weight)>,
    ) -> (String, String) {
        let snapshot = self.snapshot();
        let with_weight = weights.into_iter().filter(|(_, weight)| *weight > Weight::ZERO);
        let versions: Vec<&String> = with_weight.map(|(version, _)| version).collect();
        let each = versions.iter().map(|version| match state.ejection(service, version) {
            Some(ejection) => format!(
                "`{version}` is ejected since {ejection}; `tidegate reinstate {service} {version}`, \
                 or POST /v1/services/{service}/reinstate, reinstates it"
            ),
            None => {
                let known = snapshot.service(service).and_then(|s| s.version(version));
                no_endpoint(version, known.map_or(&[], |version| &version.known))
            }
        });
        let why = each.collect::<Vec<_>>().join("; ");
        (versions.first().map(|version| (*version).clone()).unwrap_or_default(), why)
    }

    /// What must happen before `version` of `service`, the last one that serves, can be ejected: why others that
    /// have weight do not serve, if there are any.
    fn instead_of(&self, service: &str, version: &str, state: &ControlState) -> String {
        let written = self.config.services.get(service);
        let nothing = || match written.and_then(|written| written.fence.as_ref()) {
            Some(fence) if fence.required => {
                format!("move its players first: `tidegate cutover {service} VERSION`")
            }
            _ => "give another one weight first".to_owned(),
        };
        let Some(written) = written else { return nothing() };
        let others = weights_in_force(service, written, &state.overrides()).into_iter();
        let others = others.filter(|(other, weight)| *other != version && *weight > Weight::ZERO);
        let others: Vec<_> = others.collect();
        let names: Vec<_> = others.iter().map(|(other, _)| format!("`{other}`")).collect();
        let have = match &*names {
            [] => return nothing(),
            [one] => format!("{one} has weight, too"),
            all => format!("{} have weight, too", all.join(", ")),
        };
        let (_, why) = self.why_unserved(service, state, others);
        format!("{have}, but {why}")
    }

    /// The error if `config` has a service all of whose versions are ejected: no version could be a stand-in.
    fn all_ejected(&self, config: &Config) -> Option<String> {
        let (name, service) = without_versions(&self.state, config).next()?;
        let versions = service.versions.keys().map(|version| (version, Weight::ONE));
        let (_, why) = self.why_unserved(name, &self.state, versions);
        Some(format!("services.{name}: every version is ejected: {why}; or keep another version"))
    }

    /// The stand-ins in `state`, when a file or the state of another process comes into force.
    pub(super) fn stand_ins_of(&self, state: &ControlState, inputs: Inputs<'_>) -> StandIns {
        let (snapshot, overrides) = (self.snapshot(), state.overrides());
        let written = Written { state, overrides: &overrides, inputs };
        let each = inputs.config.services.iter().filter_map(|(name, service)| {
            // A stand-in would move writes.
            if service.fence.as_ref().is_some_and(|fence| fence.required) {
                return None;
            }
            let before = snapshot.service(name).map_or(Coverage::Available, Coverage::of);
            let contenders = self.contenders_to_come(name, service, written);
            let (version, _) = service.versions.get_index(stand_in(&contenders, before)?)?;
            let weights = weights_in_force(name, service, &overrides);
            let (_, why) = self.why_unserved(name, state, weights);
            Some((name.clone(), StandIn { version: version.clone(), why }))
        });
        each.collect()
    }

    /// Services with a stand-in in which a version with configured weight can serve again.
    pub(super) fn releasable(&self, state: &ControlState, inputs: Inputs<'_>) -> Vec<String> {
        let overrides = state.overrides();
        let written = Written { state, overrides: &overrides, inputs };
        let served = |name: &&String| {
            let Some(service) = inputs.config.services.get(*name) else { return true };
            let contenders = self.contenders_to_come(name, service, written);
            Coverage::by(&contenders) == Coverage::Available
        };
        state.stand_ins().keys().filter(served).cloned().collect()
    }

    /// Records the stand-ins that are not in `known`.
    pub(super) fn record_stand_ins(&mut self, known: &StandIns) {
        let new = self.state.stand_ins().clone().into_iter();
        let new = new.filter(|(service, stand_in)| known.get(service) != Some(stand_in));
        for (service, StandIn { version, why }) in new {
            let reason =
                format!("no version would serve by its weights, so {version} serves: {why}");
            tracing::error!(service, version, reason, "weights of the file are not in force");
            let place = EventDetails::of_place(service, version, reason);
            self.record(EventKind::ConfigurationRejected, place);
        }
    }

    /// Records that the configured weights of `services` are in force again.
    pub(super) fn record_released(&mut self, services: Vec<String>) {
        for service in services {
            let reason = "the weights as written are in force again".to_owned();
            tracing::info!(service, "{reason}");
            self.record(
                EventKind::Weights,
                EventDetails { service: Some(service), reason, ..EventDetails::default() },
            );
        }
    }

    /// The versions of a service in a snapshot that is compiled now, with the configured weights of `state`.
    fn contenders_to_come(
        &self,
        name: &str,
        service: &schema::Service,
        Written { state, overrides, inputs }: Written<'_>,
    ) -> Vec<Contender> {
        let is_ejected = |version: &str| state.ejection(name, version).is_some();
        let is_out = |version: &str| {
            has_no_endpoint(name, service, version, inputs.resolved, &self.registry)
        };
        contenders((name, service), overrides, is_ejected, is_out, &self.snapshot())
    }
}

/// The inputs of a snapshot, with the weights set at runtime, looked up once for all services.
#[derive(Clone, Copy)]
struct Written<'a> {
    state: &'a ControlState,
    overrides: &'a Overrides,
    inputs: Inputs<'a>,
}

/// Services of `config` all of whose versions are ejected.
pub(super) fn without_versions<'a>(
    state: &'a ControlState,
    config: &'a Config,
) -> impl Iterator<Item = (&'a String, &'a schema::Service)> {
    config.services.iter().filter(|(name, service)| {
        service.versions.keys().all(|version| state.ejection(name, version).is_some())
    })
}

/// The versions of a service in the order of the file, with the weights in `ahead`, or else those of the file.
fn contenders(
    (name, service): (&str, &schema::Service),
    ahead: &Overrides,
    is_ejected: impl Fn(&str) -> bool,
    mut is_out: impl FnMut(&str) -> bool,
    now: &Snapshot,
) -> Vec<Contender> {
    let now = now.service(name);
    let each = weights_in_force(name, service, ahead).into_iter();
    let each = each.map(|(version, weight)| Contender {
        has_weight: weight > Weight::ZERO,
        is_ejected: is_ejected(version),
        is_out: is_out(version),
        is_baseline: *version == service.baseline,
        has_players: now
            .and_then(|service| service.version(version))
            .is_some_and(|version| version.share_weight() > Weight::ZERO),
    });
    each.collect()
}

/// A sentence that no endpoint of `version` serves, of those that are `known`.
fn no_endpoint(version: &str, known: &[Endpoint]) -> String {
    /// Number of endpoints that are named.
    const NAMED: usize = 3;
    let each = known
        .iter()
        .map(|known| format!("{} is {}", known.state.label, known.state.standing.state().label()));
    let named: Vec<String> = each.take(NAMED).collect();
    let more = if known.len() > NAMED { ", …" } else { "" };
    match named.is_empty() {
        true => format!("`{version}` has no endpoint: its name resolves to no address"),
        false => format!("no endpoint of `{version}` serves ({}{more})", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASELINE: Contender = Contender {
        has_weight: true,
        is_ejected: false,
        is_out: false,
        is_baseline: true,
        has_players: true,
    };
    const CANARY: Contender = Contender { is_baseline: false, ..BASELINE };
    const IDLE: Contender = Contender { has_weight: false, has_players: false, ..CANARY };

    fn ejected(version: Contender) -> Contender {
        Contender { is_ejected: true, ..version }
    }

    fn out(version: Contender) -> Contender {
        Contender { is_out: true, ..version }
    }

    fn without_weight(version: Contender) -> Contender {
        Contender { has_weight: false, ..version }
    }

    #[test]
    fn a_service_is_served_as_well_as_by_its_best_version_with_a_share() {
        assert_eq!(Coverage::by(&[BASELINE, ejected(CANARY)]), Coverage::Available);
        assert_eq!(Coverage::by(&[out(BASELINE), CANARY]), Coverage::Available);
        assert_eq!(Coverage::by(&[out(BASELINE), ejected(CANARY)]), Coverage::Unavailable);
        assert_eq!(Coverage::by(&[without_weight(BASELINE), ejected(CANARY)]), Coverage::Nobody);
        assert_eq!(Coverage::by(&[]), Coverage::Nobody);
    }

    #[test]
    fn the_baseline_stands_in_else_who_has_players_else_the_first_that_serves() {
        let (idle_baseline, best) = (without_weight(BASELINE), Coverage::Available);
        assert_eq!(stand_in(&[ejected(CANARY), IDLE, idle_baseline], best), Some(2));
        let has_players = Contender { has_players: true, ..IDLE };
        assert_eq!(stand_in(&[ejected(BASELINE), IDLE, has_players], best), Some(2));
        assert_eq!(stand_in(&[ejected(BASELINE), IDLE, IDLE], best), Some(1));
        assert_eq!(stand_in(&[out(idle_baseline), ejected(CANARY), IDLE], best), Some(2));
        assert_eq!(stand_in(&[out(idle_baseline), ejected(CANARY)], best), Some(0));
        assert_eq!(stand_in(&[ejected(idle_baseline), ejected(CANARY)], best), None);
    }

    #[test]
    fn there_is_no_stand_in_if_the_weights_are_no_worse_than_before() {
        assert_eq!(stand_in(&[BASELINE, ejected(CANARY)], Coverage::Available), None);
        let all_out = [out(CANARY), without_weight(BASELINE)];
        assert_eq!(stand_in(&all_out, Coverage::Unavailable), None);
        assert_eq!(stand_in(&all_out, Coverage::Available), Some(1));
        assert_eq!(stand_in(&[out(BASELINE), out(IDLE)], Coverage::Available), None);
    }

    proptest! {
        #[test]
        fn a_version_serves_unless_all_are_ejected(
            versions in prop::collection::vec(any::<(bool, bool, bool, bool)>(), 1..6),
            baseline in 0_usize..6,
        ) {
            let baseline = baseline % versions.len();
            let each = versions.into_iter().enumerate();
            let versions: Vec<_> = each
                .map(|(place, (has_weight, is_ejected, is_out, has_players))| Contender {
                    has_weight,
                    is_ejected,
                    is_out,
                    is_baseline: place == baseline,
                    has_players,
                })
                .collect();
            let best = versions.iter().filter(|v| !v.is_ejected);
            let best = best.map(|v| Coverage::of_version(v.is_out)).max();
            let chosen = stand_in(&versions, Coverage::Available);
            let served = match chosen {
                Some(place) => {
                    prop_assert!(!versions[place].is_ejected);
                    Coverage::of_version(versions[place].is_out)
                }
                None => Coverage::by(&versions),
            };
            prop_assert_eq!(served, best.unwrap_or(Coverage::Nobody));
        }
    }
}
