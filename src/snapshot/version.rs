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
    registry::{AmountState, EndpointState, Registry, VersionState},
    tls,
};

/// A version, compiled.
#[derive(Debug)]
pub struct Version {
    /// Its name.
    pub name: Box<str>,
    /// Its weight in force.
    pub weight: Weight,
    /// Gets nobody, whatever its weight, but for rules and routes that keep to it.
    pub ejected: bool,
    /// Gets nobody, whatever its weight, since none of its endpoints serves.
    pub unserved: bool,
    /// What release it is.
    pub labels: schema::Labels,
    /// Where it is reached now: what a request chooses from.
    pub endpoints: Box<[Arc<EndpointState>]>,
    /// All its endpoints, in the order of the file: those, and the ones that do not serve.
    pub known: Box<[Endpoint]>,
    /// How its endpoints are spoken to under TLS, and what each is called there; nothing in clear.
    pub tls: Option<(tls::Client, Box<[EndpointHost]>)>,
    /// What its endpoints speak.
    pub protocol: schema::Protocol,
    /// Live state.
    pub state: Arc<VersionState>,
    /// The same of its amounts, in the order of those of the service.
    pub amounts: Box<[Arc<AmountState>]>,
}

impl Version {
    /// The version of the service `within` that the file calls so: `(service, version)`.
    pub(super) fn compile(
        (service, name): (&str, &str),
        within: &schema::Service,
        weight: Weight,
        panic_threshold: Share,
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
            amounts: amounts.collect(),
            state,
        }
    }

    /// Whether so few of its endpoints serve, by `threshold`, that others get requests, too.
    pub fn panics(&self, threshold: Share) -> bool {
        usable::panics(&self.known, threshold)
    }

    /// The weight that counts: none while it is ejected, or none of its endpoints serves.
    pub fn share_weight(&self) -> Weight {
        if self.ejected || self.unserved { Weight::ZERO } else { self.weight }
    }
}
