//! A version, compiled.

use std::sync::Arc;

use super::{
    endpoints::{Endpoint, endpoints},
    sources::SnapshotInputs,
    usable::{self, usable},
};
use crate::{
    config::{
        pattern::EndpointHost,
        schema,
        units::{Share, Weight},
    },
    registry::{AmountState, EndpointState, PinnedVersion, Registry, VersionState},
    tls,
};

/// A version, compiled.
#[derive(Debug)]
pub struct Version {
    /// Its name.
    pub name: Box<str>,
    /// Its weight in force.
    pub weight: Weight,
    /// Whether it is ejected: gets no players whatever its weight, except by rules and routes that
    /// keep it.
    pub ejected: bool,
    /// Whether it gets no players because none of its endpoints serves.
    pub unserved: bool,
    /// Labels of the release.
    pub labels: schema::Labels,
    /// The endpoints from which a request chooses.
    pub endpoints: Box<[Arc<EndpointState>]>,
    /// All its endpoints in the order of the file, including those that get no requests.
    pub known: Box<[Endpoint]>,
    /// TLS client, and the host of each of `endpoints`; `None` in clear.
    pub tls: Option<(tls::Client, Box<[EndpointHost]>)>,
    /// Protocol of its endpoints.
    pub protocol: schema::Protocol,
    /// Its pins, if its service has any.
    pub pinned: Option<Arc<PinnedVersion>>,
    /// Live state.
    pub state: Arc<VersionState>,
    /// Live state of its amounts, in the order of the service's amounts.
    pub amounts: Box<[Arc<AmountState>]>,
}

impl Version {
    /// Compiles a version of the service `within`; the first argument is `(service, version)`.
    pub(super) fn compile(
        (service, name): (&str, &str),
        within: &schema::Service,
        (weight, panic_threshold): (Weight, Share),
        pinned: Option<Arc<PinnedVersion>>,
        sources: SnapshotInputs<'_>,
        registry: &Registry,
    ) -> Self {
        let written = &within.versions[name];
        let state = registry.version(service, name);
        let known = endpoints(&written.endpoints, sources.resolved, state.id, registry);
        let used = usable(&known, panic_threshold);
        let (hosts, endpoints): (Vec<_>, Vec<_>) =
            used.map(|e| (e.host.clone(), Arc::clone(&e.state))).unzip();
        let key = written.tls.as_ref().map(|tls| (tls.clone(), written.protocol));
        let tls = key.and_then(|key| sources.tls.get(&key).cloned());
        let amounts = within.amounts.keys().map(|amount| registry.amount(state.id, amount));
        Self {
            name: name.into(),
            weight,
            ejected: sources.decided.is_ejected(service, name),
            unserved: sources.decided.is_unserved(service, name),
            labels: written.labels.clone(),
            endpoints: endpoints.into(),
            known,
            tls: tls.map(|client| (client, hosts.into())),
            protocol: written.protocol,
            pinned,
            amounts: amounts.collect(),
            state,
        }
    }

    /// Whether fewer than `threshold` of its endpoints serve, so that others get requests, too.
    pub fn panics(&self, threshold: Share) -> bool {
        usable::panics(&self.known, threshold)
    }

    /// Whether an endpoint serves and can be connected.
    pub fn works(&self) -> bool {
        let standings = self.known.iter().map(|known| &known.state.standing);
        standings.into_iter().any(|standing| standing.serves() && !standing.is_unreachable())
    }

    /// Pins that it holds.
    pub fn pins(&self) -> u64 {
        self.pinned.as_ref().map_or(0, |pinned| pinned.live())
    }

    /// Whether something that began on it has not ended: a request in flight, or a pin.
    pub fn is_needed(&self) -> bool {
        self.state.in_flight() > 0 || self.pinned.as_ref().is_some_and(|pinned| pinned.holds())
    }

    /// The effective weight: 0 while the version is ejected or unserved.
    pub fn share_weight(&self) -> Weight {
        if self.ejected || self.unserved { Weight::ZERO } else { self.weight }
    }
}
