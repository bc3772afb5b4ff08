//! Takes endpoints out and back in, by what was found or by word.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use tokio::sync::Notify;

use super::{Controller, Rejected, Subject};
use crate::{
    config::{Config, units::Weight},
    rollout::{
        endpoints::Move,
        events::{Kind, Matter},
    },
    snapshot::{
        Candidate, Decided, Endpoint, Overrides, Snapshot, Version, endpoints, unserved, usable,
        weights_in_force,
    },
    upstream::{
        health::{Cause, State},
        probe::Probe,
    },
};

impl Controller {
    /// Looks at all endpoints and publishes which ones serve, if that changed. Answers whom to ask, at
    /// most `room` of them, and when to look again; nothing if only word can change something.
    pub fn attend(&mut self, room: usize) -> (Vec<(u32, Probe)>, Option<Instant>) {
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        let look = self.endpoints.look(&snapshot, now, room, fastrand::f64);
        // Whoever went must not wait for a line of the log.
        let generation = self.publish_endpoints(&snapshot).unwrap_or(snapshot.generation);
        for moved in look.moves {
            tell(&moved, generation);
            self.record_move(moved);
        }
        (look.probes, look.next.map(|next| self.started.0 + next))
    }

    /// Takes in how a probe of endpoint number `id` ended.
    pub fn endpoint_probed(&mut self, id: u32, answer: Result<(), String>) {
        let (snapshot, now) = (self.snapshot(), self.started.0.elapsed());
        self.endpoints.probed(&snapshot, id, answer, now, fastrand::f64());
    }

    /// Tells whoever attends to endpoints that there is something to look at.
    pub fn stirred(&self) -> Arc<Notify> {
        Arc::clone(&self.stirred)
    }

    /// Notes that requests were served. Counts are looked at while there is traffic.
    pub fn note_traffic(&mut self) {
        let now = self.started.0.elapsed();
        if self.endpoints.waits_for_traffic(now) {
            self.endpoints.traffic(now);
            self.stirred.notify_one();
        }
    }

    /// Takes the endpoint of `subject` out by word. It comes back only by word.
    pub(super) fn eject_endpoint(
        &mut self,
        subject: Subject,
        address: &str,
    ) -> Result<u64, Rejected> {
        let (generation, snapshot) = (self.admit(&subject)?, self.snapshot());
        let (version, id) = find(&snapshot, &subject, address)?;
        let mut others = version.known.iter().filter(|other| other.state.id != id);
        if !others.any(|other| other.state.standing.serves()) {
            let Subject { service, version, .. } = subject;
            let endpoint = address.to_owned();
            return Err(Rejected::LastEndpoint { service, version, endpoint });
        }
        if subject.dry_run {
            return Ok(generation);
        }
        let now = self.started.0.elapsed();
        self.endpoints.follow(&snapshot, now, fastrand::f64);
        self.endpoints.eject(&snapshot, id, now);
        let generation = self.publish_endpoints(&snapshot).unwrap_or(generation);
        let Subject { service, version, endpoint, by, reason, .. } = &subject;
        tracing::warn!(service, version, endpoint, generation, by, reason, "endpoint ejected");
        self.record_word(Kind::EndpointEjected, subject);
        Ok(generation)
    }

    /// Takes the endpoint of `subject` back in by word, whatever ejected it.
    pub(super) fn reinstate_endpoint(
        &mut self,
        subject: Subject,
        address: &str,
    ) -> Result<u64, Rejected> {
        let (generation, snapshot) = (self.admit(&subject)?, self.snapshot());
        let (version, id) = find(&snapshot, &subject, address)?;
        let known = version.known.iter().find(|known| known.state.id == id);
        let state = known.map_or(State::Serving, |known| known.state.standing.state());
        if !matches!(state, State::Ejected | State::Probing) {
            let Subject { service, version, .. } = subject;
            let (endpoint, state) = (address.to_owned(), state.label());
            return Err(Rejected::EndpointNotEjected { service, version, endpoint, state });
        }
        if subject.dry_run {
            return Ok(generation);
        }
        let now = self.started.0.elapsed();
        self.endpoints.follow(&snapshot, now, fastrand::f64);
        self.endpoints.reinstate(&snapshot, id, now);
        let generation = self.publish_endpoints(&snapshot).unwrap_or(generation);
        self.stirred.notify_one();
        let Subject { service, version, endpoint, by, reason, .. } = &subject;
        tracing::info!(service, version, endpoint, generation, by, reason, "endpoint reinstated");
        self.record_word(Kind::EndpointServing, subject);
        Ok(generation)
    }

    fn record_move(&mut self, moved: Move) {
        let kind = match moved.to {
            State::Ejected if moved.advice => Kind::EndpointWouldEject,
            State::Ejected => Kind::EndpointEjected,
            State::Probing => Kind::EndpointProbing,
            State::Down => Kind::EndpointDown,
            State::Serving => Kind::EndpointServing,
        };
        let matter = Matter {
            endpoint: Some(moved.endpoint.into()),
            by: moved.cause.map(|cause| cause.label().to_owned()),
            ..Matter::of_place(moved.service.into(), moved.version.into(), moved.reason)
        };
        self.record(kind, matter);
    }

    /// Notes that somebody took an endpoint out or back in.
    fn record_word(&mut self, kind: Kind, subject: Subject) {
        let Subject { service, version, endpoint, by, reason, .. } = subject;
        let place = Matter::of_place(service, version, reason.unwrap_or_default());
        self.record(kind, Matter { endpoint, by: Some(by), ..place });
    }

    /// Publishes which endpoints serve, if they are others than in `snapshot`, the one in force.
    pub(super) fn publish_endpoints(&mut self, snapshot: &Snapshot) -> Option<u64> {
        let mut versions = snapshot.services.iter().flat_map(|service| &service.versions);
        let same = |version: &Version| {
            let used = version.endpoints.iter().map(|endpoint| endpoint.id);
            usable(&version.known).map(|endpoint| endpoint.state.id).eq(used)
        };
        let out = |service: &str, version: &str| {
            let version = snapshot.service(service).and_then(|s| s.version(version));
            version.is_some_and(|version| serves_nobody(&version.known))
        };
        let changed = !versions.all(same)
            || self.decided.unserved
                != who_is_unserved(&self.config, &self.overrides, &self.decided, out);
        changed.then(|| self.publish(true))
    }

    /// Versions whose players will go to others in a snapshot that is compiled now.
    pub(super) fn will_be_unserved(&mut self) -> BTreeMap<String, BTreeSet<String>> {
        let Self { config, overrides, decided, resolved, registry, .. } = self;
        who_is_unserved(config, overrides, decided, |service, version| {
            let written = &config.services[service].versions[version].endpoints;
            let state = registry.version(service, version);
            serves_nobody(&endpoints(written, resolved, state.id, registry))
        })
    }
}

/// Whether no request should go to a version of these endpoints.
fn serves_nobody(known: &[Endpoint]) -> bool {
    known.iter().all(|endpoint| !endpoint.state.standing.serves())
}

/// Versions of `config` whose players go to others, since they are `out`: none of their endpoints serves.
fn who_is_unserved(
    config: &Config,
    overrides: &Overrides,
    decided: &Decided,
    mut out: impl FnMut(&str, &str) -> bool,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for (name, service) in &config.services {
        let weights = weights_in_force(name, service, overrides);
        let candidates = weights.iter().map(|(version, weight)| Candidate {
            has_share: *weight > Weight::ZERO && !decided.is_ejected(name, version),
            is_baseline: **version == service.baseline,
            is_out: out(name, version),
        });
        let left = unserved(&candidates.collect::<Vec<_>>());
        let left = weights.iter().zip(left).filter(|(_, left)| *left);
        let left: BTreeSet<String> = left.map(|((version, _), _)| (*version).clone()).collect();
        if !left.is_empty() {
            all.insert(name.clone(), left);
        }
    }
    all
}

/// The version of `subject` and the number of its endpoint at `address`.
fn find<'s>(
    snapshot: &'s Snapshot,
    subject: &Subject,
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

/// Writes what moved to the log.
fn tell(moved: &Move, generation: u64) {
    let Move { service, version, endpoint, to, cause, pause, advice, reason } = moved;
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
