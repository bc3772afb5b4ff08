//! A service, compiled.

use std::{sync::Arc, time::Duration};

use super::{
    Amount, Breaker, ComparisonPlan, Fence, PinPlan, Standing, Version,
    sources::{SnapshotInputs, weights_in_force},
};
use crate::{
    config::{
        schema::{self, OnEject},
        units::Weight,
    },
    registry::{Reads, Registry, ServiceState},
    routing::{Cohort, Rule, Split},
};

/// A service, compiled.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: Box<str>,
    /// Index of the baseline version.
    pub baseline: u16,
    /// Sources of the cohort key.
    pub cohort: Cohort,
    /// Rules, which come before the split; without those for an ejected version, unless a rule
    /// keeps it.
    pub rules: Box<[Rule]>,
    /// Assigns versions to players.
    pub split: Split,
    /// Its pins; `None` if it has none.
    pub pins: Option<Box<PinPlan>>,
    /// Versions, in the order of the file.
    pub versions: Box<[Version]>,
    /// Longest time for a connection to an endpoint.
    pub connect_timeout: Duration,
    /// Limits of the keep-alive pools.
    pub pool: schema::Pool,
    /// Settings of health checks.
    pub health: schema::Health,
    /// Limits of each version; `None` if there are none.
    pub breaker: Option<Breaker>,
    /// Holds writes while they move to another version; `None` if the service has none.
    pub fence: Option<Box<Fence>>,
    /// Whether its writes are refused, and what its clients are told in advance; `None` mostly.
    pub standing: Option<Box<Standing>>,
    /// Which counter counts its reads.
    pub reads: Reads,
    /// Number of the epoch: it grows at every change of shares.
    pub epoch: u64,
    /// Live state.
    pub state: Arc<ServiceState>,
    /// How its versions are compared; `None` if they are not.
    pub compared: Option<Arc<ComparisonPlan>>,
    /// Amounts in its responses.
    pub amounts: Box<[Amount]>,
}

impl Service {
    pub(super) fn compile(
        name: &str,
        service: &schema::Service,
        sources: SnapshotInputs<'_>,
        previous: Option<&Self>,
        registry: &Registry,
    ) -> Self {
        let weights = weights_in_force(name, service, sources.overrides);
        let health = service.health.clone().unwrap_or_default();
        let pins = service.pin.as_ref().map(|_| registry.pins(name));
        let versions: Box<[Version]> = service
            .versions
            .keys()
            .zip(&weights)
            .map(|(version, (_, weight))| {
                let names = (name, version.as_str());
                let pinned = pins.as_ref().map(|pins| pins.version(version));
                let weights = (*weight, health.panic_threshold);
                Version::compile(names, service, weights, pinned, sources, registry)
            })
            .collect();
        let compared = match previous {
            Some(previous) => previous.compared.clone(),
            None => ComparisonPlan::compile(name, service, sources.config, &versions, registry),
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
            .bucket_by(index(&service.baseline)),
            fence: Fence::compile(name, service, sources, registry),
            pins: service.pin.as_ref().zip(pins).map(|(pin, table)| {
                let before = previous.and_then(|previous| previous.pins.as_deref());
                Box::new(PinPlan::new((name, pin), sources, &versions, table, before))
            }),
            standing: None,
            reads: sources.decided.reads.get(name).copied().unwrap_or_default(),
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

    /// Whether version number `version` has a share of the players.
    pub fn has_share(&self, version: u16) -> bool {
        self.versions[usize::from(version)].share_weight() > Weight::ZERO
    }

    /// The part of version number `version` in the weights of versions that are not ejected,
    /// whether they serve or not.
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
