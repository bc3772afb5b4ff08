//! A service and its versions, compiled.

use std::{sync::Arc, time::Duration};

use super::{
    Snapshot,
    amounts::Amount,
    comparison::Compared,
    endpoints::{Breaker, Endpoint, endpoints},
    sources::{Sources, weights_in_force},
    usable::{self, usable},
};
use crate::{
    config::{
        pattern::EndpointHost,
        schema::{self, OnEject},
        units::{Share, Weight},
    },
    registry::{AmountState, EndpointState, Registry, ServiceState, VersionState},
    routing::{Cohort, Rule, Split},
    tls,
};

/// A service, compiled.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: Box<str>,
    /// Index of the baseline version.
    pub baseline: u16,
    /// How players are told apart.
    pub cohort: Cohort,
    /// Ahead of the split; none of a version that is ejected, unless the rule keeps to it.
    pub rules: Box<[Rule]>,
    /// Which version a player gets.
    pub split: Split,
    /// Versions, in the order of the file.
    pub versions: Box<[Version]>,
    /// Longest time for a connection to an endpoint.
    pub connect_timeout: Duration,
    /// Bounds of the keep-alive pools.
    pub pool: schema::Pool,
    /// How it is known which endpoints serve.
    pub health: schema::Health,
    /// How much each version takes at once; nothing if that is not limited.
    pub breaker: Option<Breaker>,
    /// Number of the epoch: it grows at every change of shares.
    pub epoch: u64,
    /// Live state.
    pub state: Arc<ServiceState>,
    /// How its versions are compared; nothing if they are not.
    pub compared: Option<Arc<Compared>>,
    /// What amounts its answers carry.
    pub amounts: Box<[Amount]>,
}

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
    /// The same of its amounts, as [`Service::amounts`] has them.
    pub amounts: Box<[Arc<AmountState>]>,
}

impl Service {
    pub(super) fn compile(
        name: &str,
        service: &schema::Service,
        sources: Sources<'_>,
        previous: Option<&Snapshot>,
        registry: &Registry,
    ) -> Self {
        let weights = weights_in_force(name, service, sources.overrides);
        let health = service.health.clone().unwrap_or_default();
        let versions: Box<[Version]> = service
            .versions
            .iter()
            .zip(&weights)
            .map(|((version, written), (_, weight))| {
                let state = registry.version(name, version);
                let known = endpoints(&written.endpoints, sources.resolved, state.id, registry);
                let used = usable(&known, health.panic_threshold);
                let (hosts, endpoints): (Vec<_>, Vec<_>) =
                    used.map(|e| (e.host.clone(), Arc::clone(&e.state))).unzip();
                let key = written.tls.as_ref().map(|tls| (tls.clone(), written.protocol));
                let tls = key.and_then(|key| sources.tls.get(&key).cloned());
                Version {
                    name: version.as_str().into(),
                    weight: *weight,
                    ejected: sources.decided.is_ejected(name, version),
                    unserved: sources.decided.is_unserved(name, version),
                    labels: written.labels.clone(),
                    endpoints: endpoints.into(),
                    known,
                    tls: tls.map(|client| (client, hosts.into())),
                    protocol: written.protocol,
                    amounts: (service.amounts.keys())
                        .map(|amount| registry.amount(state.id, amount))
                        .collect(),
                    state,
                }
            })
            .collect();
        let compared = match previous.and_then(|previous| previous.service(name)) {
            Some(previous) => previous.compared.clone(),
            None => Compared::compile(name, service, sources.config, &versions, registry),
        };
        let index = |wanted: &str| service.versions.get_index_of(wanted).unwrap_or(0) as u16;
        let applies = |rule: &&schema::Rule| {
            rule.on_eject == OnEject::Keep || !sources.decided.is_ejected(name, &rule.version)
        };
        let rules = service.rules.iter().filter(applies);
        Self {
            name: name.into(),
            baseline: index(&service.baseline),
            cohort: Cohort::new(&service.cohort.key),
            rules: rules.map(|r| Rule::new(&r.when, index(&r.version))).collect(),
            split: Split::new(
                &service.cohort.salt,
                versions.iter().map(|version| (&*version.name, version.share_weight())),
            )
            .telling_by(index(&service.baseline)),
            epoch: sources.decided.epochs.get(name).copied().unwrap_or_default(),
            state: registry.service(name),
            compared,
            amounts: Amount::compile(service),
            versions,
            connect_timeout: service.connect_timeout,
            pool: service.pool.clone(),
            health,
            breaker: service.breaker.as_ref().map(|b| Breaker::new(b, registry.workers())),
        }
    }

    /// The share of players, 0 to 1, of version number `version`.
    pub fn share(&self, version: u16) -> f64 {
        self.part(version, |v| v.share_weight().value())
    }

    /// The part that version number `version` has of the weights of versions that are not ejected, whether
    /// anybody serves or not.
    pub fn weight_share(&self, version: u16) -> f64 {
        self.part(version, |v| if v.ejected { 0.0 } else { v.weight.value() })
    }

    fn part(&self, version: u16, weight: impl Fn(&Version) -> f64) -> f64 {
        let all: f64 = self.versions.iter().map(&weight).sum();
        let own = self.versions.get(usize::from(version)).map_or(0.0, weight);
        if all > 0.0 { own / all } else { 0.0 }
    }

    /// The version called `name`.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| *v.name == *name)
    }
}

impl Version {
    /// Whether so few of its endpoints serve, by `threshold`, that others get requests, too.
    pub fn panics(&self, threshold: Share) -> bool {
        usable::panics(&self.known, threshold)
    }

    /// The weight that counts: none while it is ejected, or none of its endpoints serves.
    pub fn share_weight(&self) -> Weight {
        if self.ejected || self.unserved { Weight::ZERO } else { self.weight }
    }
}
