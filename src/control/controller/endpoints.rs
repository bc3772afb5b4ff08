//! Ejects and reinstates endpoints, by the endpoint monitor's findings or for an operator.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Instant, SystemTime},
};

use indexmap::IndexMap;
use tokio::sync::Notify;

use super::{ChangeHead, Controller, Moment, Moved, Plan, Rejected, Target, prepare::Inputs};
use crate::{
    config::{
        Config, schema,
        units::{Share, Weight},
    },
    control::{
        endpoints::{self, Notice, Transition},
        events::{EventDetails, EventKind},
        reach::Tried,
        state::{Change, ControlState, ManualEjection},
    },
    health::{Cause, State, probe::Probe},
    registry::Registry,
    snapshot::{
        Candidate, Endpoint, Overrides, Resolved, Snapshot, Version, endpoints, unserved, usable,
        weights_in_force,
    },
};

impl Controller {
    /// Polls all endpoints and publishes which ones serve, if that changed. Returns the endpoints to probe, at
    /// most `room` of them, and when to poll next; `None` if only an operator's change can matter.
    pub fn attend(&mut self, room: usize) -> (Vec<(u32, Probe)>, Option<Instant>) {
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        let look = self.endpoints.look(&snapshot, now, room, fastrand::f64);
        // The snapshot is published before anything is logged: an ejection must not wait for the log.
        let generation = self.publish_endpoints(&snapshot).unwrap_or(snapshot.generation);
        for moved in look.moves {
            log_transition(&moved, generation);
            self.record_move(moved);
        }
        for notice in look.notices {
            self.record_notice(notice, generation);
        }
        (look.probes, look.next.map(|next| self.started.0 + next))
    }

    /// Takes the result of a probe of endpoint number `id`.
    pub fn endpoint_probed(&mut self, id: u32, answer: Result<(), String>) {
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        self.endpoints.probed(&snapshot, id, answer, now, fastrand::f64());
    }

    /// Keeps what connections found that were `tried` for other reasons than a request.
    pub(in crate::control) fn note_tried(&mut self, tried: &Tried) {
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        self.endpoints.tried(&snapshot, tried, now);
        self.stirred.notify_one();
    }

    /// Wakes the task that attends to endpoints.
    pub fn stirred(&self) -> Arc<Notify> {
        Arc::clone(&self.stirred)
    }

    /// Notes that requests were served: counts are polled only while there is traffic.
    pub fn note_traffic(&mut self) {
        let now = self.started.0.elapsed();
        if self.endpoints.waits_for_traffic(now) {
            self.endpoints.traffic(now);
            self.stirred.notify_one();
        }
    }

    /// Ejects the endpoint of `subject` for an operator. Only an operator reinstates it.
    pub(super) fn eject_endpoint(
        &mut self,
        subject: Target,
        address: &str,
        moment: Moment,
    ) -> Result<Moved, Rejected> {
        let (generation, snapshot) = (self.admit(&subject)?, self.snapshot());
        let (_, id) = find(&snapshot, &subject, address)?;
        if let Some(already) = self.manually_ejected(&subject, address) {
            return Ok(Moved { already: Some(already.clone()), ..Moved::to(generation) });
        }
        let change = endpoint_ejected(&subject, address, moment.at);
        self.check(&change, &self.config)?;
        if subject.head.dry_run {
            return Ok(Moved::to(generation));
        }
        let now = self.started.0.elapsed();
        self.endpoints.follow(&snapshot, now, fastrand::f64);
        self.endpoints.eject(&snapshot, id, now);
        let event = (EventKind::EndpointEjected, details_of(&subject, moment));
        let generation = self.commit_endpoint(change, &snapshot, event);
        let Target { service, version, endpoint, head: ChangeHead { by, reason, .. } } = &subject;
        let (journal_seq, journal_hash) = moment.logged();
        tracing::warn!(
            service,
            version,
            endpoint,
            generation,
            by = by.name,
            reason,
            journal.seq = journal_seq,
            journal.hash = journal_hash,
            "endpoint ejected"
        );
        Ok(Moved::to(generation))
    }

    /// Reinstates the endpoint of `subject` for an operator, whatever ejected it.
    pub(super) fn reinstate_endpoint(
        &mut self,
        subject: Target,
        address: &str,
        moment: Moment,
    ) -> Result<Moved, Rejected> {
        let (generation, snapshot) = (self.admit(&subject)?, self.snapshot());
        let (change, id) = endpoint_reinstated(&snapshot, &subject, address)?;
        if subject.head.dry_run {
            return self.check(&change, &self.config).map(|_| Moved::to(generation));
        }
        let now = self.started.0.elapsed();
        self.endpoints.follow(&snapshot, now, fastrand::f64);
        self.endpoints.reinstate(&snapshot, id, now);
        let event = (EventKind::EndpointServing, details_of(&subject, moment));
        let generation = self.commit_endpoint(change, &snapshot, event);
        self.stirred.notify_one();
        let Target { service, version, endpoint, head: ChangeHead { by, reason, .. } } = &subject;
        let (journal_seq, journal_hash) = moment.logged();
        tracing::info!(
            service,
            version,
            endpoint,
            generation,
            by = by.name,
            reason,
            journal.seq = journal_seq,
            journal.hash = journal_hash,
            "endpoint reinstated"
        );
        Ok(Moved::to(generation))
    }

    /// Plans the ejection of an endpoint at the time `ejected_at`, or its reinstatement.
    pub(super) fn plan_endpoint(
        &self,
        subject: &Target,
        address: &str,
        ejected_at: Option<SystemTime>,
    ) -> Result<Plan, Rejected> {
        let (generation, snapshot) = (self.admit(subject)?, self.snapshot());
        let (version, id) = find(&snapshot, subject, address)?;
        let (kind, change) = match ejected_at {
            Some(_) if self.manually_ejected(subject, address).is_some() => {
                let draft = self.entry_of("ejected", subject, [true, true]);
                return Ok(Plan { draft, then: None });
            }
            Some(at) => ("ejected", endpoint_ejected(subject, address, at)),
            None => ("reinstated", endpoint_reinstated(&snapshot, subject, address)?.0),
        };
        let then = self.check(&change, &self.config)?;
        let was_in_use = version.endpoints.iter().any(|endpoint| endpoint.id == id);
        let mut plan = self.planned(kind, subject, [!was_in_use, ejected_at.is_some()], then);
        // No snapshot is published if the endpoints in use are the same.
        let moves = was_in_use == ejected_at.is_some();
        plan.draft.generation = generation + u64::from(moves);
        Ok(plan)
    }

    /// Who ejected the endpoint of `subject`, if an operator did.
    fn manually_ejected(&self, subject: &Target, address: &str) -> Option<&ManualEjection> {
        let Target { service, version, .. } = subject;
        let place = (service.clone(), version.clone(), address.to_owned());
        self.state.endpoints().get(&place)
    }

    /// Brings an accepted change of an endpoint into force. The endpoint's health has changed already: it is
    /// not part of the state, and the snapshot is compiled with it. No snapshot is published if the one in
    /// force chooses from the same endpoints.
    fn commit_endpoint(
        &mut self,
        change: Change,
        snapshot: &Snapshot,
        event: (EventKind, EventDetails),
    ) -> u64 {
        if self.has_other_endpoints(snapshot) {
            let prepared = self.lead(change, self.inputs(snapshot));
            return self.commit(prepared, Some(event));
        }
        self.note(change);
        let (kind, matter) = event;
        self.record(kind, matter);
        snapshot.generation
    }

    /// Reinstates the endpoints of a version that were ejected by comparison with their peers, when the version
    /// is reinstated.
    pub(super) fn reinstate_compared_endpoints(&mut self, service: &str, version: &str) {
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        let Some(service) = snapshot.service(service) else { return };
        let Some(version) = service.versions.iter().find(|v| *v.name == *version) else { return };
        self.endpoints.follow(&snapshot, now, fastrand::f64);
        self.endpoints.reinstate_compared(version, service, now);
        self.stirred.notify_one();
    }

    fn record_move(&mut self, moved: Transition) {
        let kind = match moved.to {
            State::Ejected if moved.advice => EventKind::EndpointWouldEject,
            State::Ejected => EventKind::EndpointEjected,
            State::Probing => EventKind::EndpointProbing,
            State::Down => EventKind::EndpointDown,
            State::Serving => EventKind::EndpointServing,
        };
        let matter = EventDetails {
            endpoint: Some(moved.endpoint.into()),
            by: moved.cause.map(|cause| cause.label().to_owned()),
            ..EventDetails::of_place(moved.service.into(), moved.version.into(), moved.reason)
        };
        self.record(kind, matter);
    }

    fn record_notice(&mut self, notice: Notice, generation: u64) {
        let Notice { service, version, what, begins } = notice;
        let kind = match (&what, begins) {
            (endpoints::NoticeKind::Panic { .. }, true) => EventKind::HealthPanic,
            (endpoints::NoticeKind::Panic { .. }, false) => EventKind::HealthPanicOver,
            (endpoints::NoticeKind::Unreachable { .. }, true) => EventKind::EndpointUnreachable,
            (endpoints::NoticeKind::Unreachable { .. }, false) => EventKind::EndpointReached,
        };
        let reason = match what {
            endpoints::NoticeKind::Panic { serving, of } => {
                format!("{serving} of {of} endpoints serve")
            }
            endpoints::NoticeKind::Unreachable { .. } if begins => {
                "it could not be connected".to_owned()
            }
            endpoints::NoticeKind::Unreachable { .. } => "it can be connected again".to_owned(),
        };
        let endpoint = match what {
            endpoints::NoticeKind::Unreachable { endpoint } => Some(endpoint.into()),
            endpoints::NoticeKind::Panic { .. } => None,
        };
        let place = EventDetails::of_place(service.into(), version.into(), reason);
        announce(kind, &place, endpoint.as_deref(), generation);
        self.record(kind, EventDetails { endpoint, ..place });
    }

    /// Publishes which endpoints serve, if they differ from those in `snapshot`, the one in force.
    pub(super) fn publish_endpoints(&mut self, snapshot: &Snapshot) -> Option<u64> {
        self.has_other_endpoints(snapshot).then(|| self.refresh())
    }

    /// Whether the endpoints that serve differ from those in `snapshot`, the one in force.
    fn has_other_endpoints(&self, snapshot: &Snapshot) -> bool {
        let mut versions = snapshot.services.iter().flat_map(|service| {
            service.versions.iter().map(|version| (version, service.health.panic_threshold))
        });
        let same = |(version, threshold): (&Version, Share)| {
            let used = version.endpoints.iter().map(|endpoint| endpoint.id);
            usable(&version.known, threshold).map(|endpoint| endpoint.state.id).eq(used)
        };
        let out = |service: &str, version: &str| {
            let version = snapshot.service(service).and_then(|s| s.version(version));
            version.is_some_and(|version| serves_nobody(&version.known))
        };
        !versions.all(same)
            || unserved_in(snapshot) != who_is_unserved(&self.config, &self.state, out)
    }

    /// Versions whose players go to other versions in a snapshot that is compiled now.
    pub(super) fn will_be_unserved(&self, state: &ControlState, inputs: Inputs<'_>) -> Versions {
        let Inputs { config, resolved, .. } = inputs;
        who_is_unserved(config, state, |service, version| {
            let written = &config.services[service];
            has_no_endpoint(service, written, version, resolved, &self.registry)
        })
    }

    /// The share of players, 0 to 1, that each ejected version of `service` gets if it alone is reinstated.
    ///
    /// A stand-in that would then be released is not counted: it ends when a version with weight can serve.
    pub fn shares_when_reinstated(&self, service: &str) -> IndexMap<String, f64> {
        let mut shares = self.returning(service, &self.state);
        if self.state.stand_ins().contains_key(service) {
            let released = Change::StandInReleased { service: service.to_owned() };
            for (version, share) in self.returning(service, &self.state.after(released)) {
                if self.releases_stand_in(service, &version) {
                    shares.insert(version, share);
                }
            }
        }
        shares
    }

    /// The share of players that each ejected version of `service` gets in `state` if it alone is reinstated.
    pub(super) fn returning(&self, service: &str, state: &ControlState) -> IndexMap<String, f64> {
        let ejected = state.ejections().keys();
        let ejected = ejected.filter(|(of, v)| of == service && self.config.has_version(of, v));
        let each = ejected.map(|(_, version)| {
            let shares = self.shares_with(service, state, Some(version));
            (version.clone(), shares.get(version).copied().unwrap_or(0.0))
        });
        each.collect()
    }

    /// The share of players, 0 to 1, of each version of `service` in `state`, with the endpoints that serve
    /// now, and as if `back` were neither ejected nor without endpoints.
    pub(super) fn shares_with(
        &self,
        service: &str,
        state: &ControlState,
        back: Option<&str>,
    ) -> IndexMap<String, f64> {
        let Some(written) = self.config.services.get(service) else { return IndexMap::new() };
        let snapshot = self.snapshot();
        let known = snapshot.service(service);
        let out = |version: &str| {
            known.and_then(|s| s.version(version)).is_none_or(|v| serves_nobody(&v.known))
        };
        let ahead = state.weights_ahead();
        let left = unserved_of(service, written, &ahead, state, out);
        let counts = |version: &str| {
            let is_left = left.contains(version) || state.ejection(service, version).is_some();
            back == Some(version) || !is_left
        };
        let weights: IndexMap<String, f64> = weights_in_force(service, written, &ahead)
            .into_iter()
            .map(|(v, weight)| (v.clone(), if counts(v) { weight.value() } else { 0.0 }))
            .collect();
        let sum: f64 = weights.values().sum();
        let share = |weight: f64| if sum > 0.0 { weight / sum } else { 0.0 };
        weights.into_iter().map(|(version, weight)| (version, share(weight))).collect()
    }
}

/// Versions by service.
type Versions = BTreeMap<String, BTreeSet<String>>;

/// Event details of a manual change of an endpoint.
fn details_of(subject: &Target, moment: Moment) -> EventDetails {
    let Target { service, version, endpoint, head } = subject.clone();
    let place = EventDetails::of_place(service, version, head.reason);
    let (by, second) = (Some(head.by.name), head.second);
    EventDetails { endpoint, by, second, journal: moment.entry, ..place }
}

/// The change that ejects the endpoint of `subject` at `address`.
fn endpoint_ejected(subject: &Target, address: &str, since: SystemTime) -> Change {
    let Target { service, version, head, .. } = subject.clone();
    let ejection = ManualEjection { since, by: head.by.name, reason: head.reason };
    Change::EndpointEjected { service, version, endpoint: address.to_owned(), ejection }
}

/// The change that reinstates the endpoint of `subject` at `address`, if it is ejected, and the endpoint's
/// number.
fn endpoint_reinstated(
    snapshot: &Snapshot,
    subject: &Target,
    address: &str,
) -> Result<(Change, u32), Rejected> {
    let (version, id) = find(snapshot, subject, address)?;
    let known = version.known.iter().find(|known| known.state.id == id);
    let state = known.map_or(State::Serving, |known| known.state.standing.state());
    let (service, version) = (subject.service.clone(), subject.version.clone());
    let endpoint = address.to_owned();
    if !matches!(state, State::Ejected | State::Probing) {
        let state = state.label();
        return Err(Rejected::EndpointNotEjected { service, version, endpoint, state });
    }
    Ok((Change::EndpointReinstated { service, version, endpoint }, id))
}

/// Versions whose players go to other versions in `snapshot`.
fn unserved_in(snapshot: &Snapshot) -> Versions {
    let each = snapshot.services.iter().map(|service| {
        let left = service.versions.iter().filter(|version| version.unserved);
        (service.name.to_string(), left.map(|version| version.name.to_string()).collect())
    });
    each.filter(|(_, left): &(String, BTreeSet<String>)| !left.is_empty()).collect()
}

/// Whether no request should go to a version with these endpoints.
pub(super) fn serves_nobody(known: &[Endpoint]) -> bool {
    known.iter().all(|endpoint| !endpoint.state.standing.serves())
}

/// Whether no request should go to `version` of `service`, as configured.
pub(super) fn has_no_endpoint(
    name: &str,
    service: &schema::Service,
    version: &str,
    resolved: &Resolved,
    registry: &Registry,
) -> bool {
    let state = registry.version(name, version);
    let written = &service.versions[version].endpoints;
    serves_nobody(&endpoints(written, resolved, state.id, registry))
}

/// Versions of `config` whose players go to other versions, because they are `out`: none of their endpoints
/// serves.
fn who_is_unserved(
    config: &Config,
    state: &ControlState,
    mut out: impl FnMut(&str, &str) -> bool,
) -> Versions {
    let ahead = state.weights_ahead();
    let each = config.services.iter().map(|(name, service)| {
        let out = |version: &str| out(name, version);
        (name.clone(), unserved_of(name, service, &ahead, state, out))
    });
    each.filter(|(_, left)| !left.is_empty()).collect()
}

/// As [`who_is_unserved`], for one service.
fn unserved_of(
    name: &str,
    service: &schema::Service,
    ahead: &Overrides,
    state: &ControlState,
    mut out: impl FnMut(&str) -> bool,
) -> BTreeSet<String> {
    let weights = weights_in_force(name, service, ahead);
    let candidates = weights.iter().map(|(version, weight)| Candidate {
        has_share: *weight > Weight::ZERO && state.ejection(name, version).is_none(),
        is_baseline: **version == service.baseline,
        is_out: out(version),
    });
    let left = unserved(&candidates.collect::<Vec<_>>());
    let left = weights.iter().zip(left).filter(|(_, left)| *left);
    left.map(|((version, _), _)| (*version).clone()).collect()
}

/// The version of `subject` and the number of its endpoint at `address`.
fn find<'s>(
    snapshot: &'s Snapshot,
    subject: &Target,
    address: &str,
) -> Result<(&'s Version, u32), Rejected> {
    let version = snapshot.service(&subject.service).and_then(|s| s.version(&subject.version));
    let known = version.map_or(&[][..], |version| &version.known);
    let found = known.iter().find(|known| *known.state.label == *address);
    version.zip(found).map(|(version, found)| (version, found.state.id)).ok_or_else(|| {
        let known: Vec<_> = known.iter().map(|known| &*known.state.label).collect();
        Rejected::NoEndpoint {
            service: subject.service.clone(),
            version: subject.version.clone(),
            endpoint: address.to_owned(),
            known: known.join(", "),
        }
    })
}

/// Logs a notice that changed the state of no endpoint.
fn announce(kind: EventKind, place: &EventDetails, endpoint: Option<&str>, generation: u64) {
    let (service, version) = (place.service.as_deref(), place.version.as_deref());
    let reason = &*place.reason;
    match kind {
        EventKind::HealthPanic => tracing::warn!(
            service,
            version,
            generation,
            reason,
            "too few endpoints serve; those that failed checks or connections are used, too"
        ),
        EventKind::HealthPanicOver => {
            tracing::info!(service, version, generation, reason, "enough endpoints serve again");
        }
        EventKind::EndpointUnreachable => tracing::warn!(
            service,
            version,
            endpoint,
            generation,
            reason,
            "the only endpoint cannot be connected; requests go to it nevertheless"
        ),
        _ => {
            tracing::info!(service, version, endpoint, generation, reason, "endpoint is reached");
        }
    }
}

/// Logs the change of an endpoint's state.
fn log_transition(moved: &Transition, generation: u64) {
    let Transition { service, version, endpoint, to, cause, pause, advice, reason } = moved;
    let (service, version, endpoint) = (&**service, &**version, &**endpoint);
    let cause = cause.map(Cause::label);
    let seconds = pause.map(|pause| pause.as_secs());
    match to {
        State::Ejected if *advice => {
            tracing::warn!(service, version, endpoint, reason, "an endpoint would be ejected");
        }
        State::Ejected => tracing::warn!(
            service,
            version,
            endpoint,
            generation,
            cause,
            seconds,
            reason,
            "endpoint ejected"
        ),
        State::Down => {
            tracing::warn!(service, version, endpoint, generation, reason, "endpoint is down");
        }
        State::Probing => {
            tracing::info!(service, version, endpoint, reason, "endpoint is probed");
        }
        State::Serving => {
            tracing::info!(service, version, endpoint, generation, reason, "endpoint serves again");
        }
    }
}
