//! A route, compiled.

use std::{sync::Arc, time::Duration};

use super::{
    comparison::{Evidence, FailureSet},
    concurrency::{Concurrency, RouteConcurrency},
    identity::Issuers,
    policies::RoutePolicies,
    service::Service,
};
use crate::{
    config::{
        Config,
        pattern::Segment,
        schema::{self, Class, OnEject},
    },
    registry::{RefusalCounts, Registry, SeriesState},
};

/// A route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its name in metrics and log.
    pub label: Box<str>,
    /// Index of its service.
    pub service: u32,
    /// The version for all its requests, before rules and split.
    pub version: Option<u16>,
    /// Whether that version serves them even while it is ejected.
    pub keeps_ejected: bool,
    /// The class of its requests; `None`: by method.
    pub class: Option<Class>,
    /// Longest time to the head of the response.
    pub timeout: Duration,
    /// Limits of the duration of bodies.
    pub body: BodyLimits,
    /// Longest time without a byte after an upgrade.
    pub upgrade_timeout: Duration,
    /// Protocols to which a client may switch.
    pub upgrades: Box<[Box<str>]>,
    /// Parameters of its path: name and segment number.
    pub params: Box<[(Box<str>, u16)]>,
    /// Live state by version of the service.
    pub series: Box<[Arc<SeriesState>]>,
    /// Where first attempts are counted; `None` if they are not compared.
    pub evidence: Option<Evidence>,
    /// The responses that are failures of the version.
    pub failures: FailureSet,
    /// What is asked of its requests before they reach a version; `None`: nothing.
    pub policies: Option<Box<RoutePolicies>>,
    /// Limits of its requests in flight; `None`: there are none.
    pub concurrency: Option<Box<RouteConcurrency>>,
    /// Its refused requests.
    pub refusals: Arc<RefusalCounts>,
}

/// Limits of the duration of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Longest time without a byte.
    pub timeout: Duration,
    /// Least average rate in bytes per second, once a body has taken several times `timeout`; 0 is
    /// no limit.
    pub rate: u64,
}

impl Route {
    pub(super) fn compile(
        route: &schema::Route,
        config: &Config,
        (services, issuers, limits): (&[Service], &Issuers, &Concurrency<'_>),
        registry: &Registry,
    ) -> Option<Self> {
        let number = config.services.get_index_of(&route.service)?;
        let service = &services[number];
        let label = route.label();
        let params = route.matches.path.iter().flat_map(|path| {
            path.segments.iter().zip(0u16..).filter_map(|(segment, at)| match segment {
                Segment::Param(name) => Some((name.as_str().into(), at)),
                Segment::Literal(_) => None,
            })
        });
        let version = route.version.as_deref();
        let written = &config.services[number];
        let compared = service.compared.as_ref();
        Some(Self {
            evidence: compared.and_then(|compared| compared.evidence_of(route, &label)),
            failures: FailureSet::new(route.failures.as_ref().or(written.failures.as_ref())),
            policies: RoutePolicies::compile(route, &label, issuers, registry),
            concurrency: limits.of(route, &label, registry),
            service: number as u32,
            version: version
                .and_then(|v| service.versions.iter().position(|known| *known.name == *v))
                .map(|v| v as u16),
            keeps_ejected: route.on_eject == Some(OnEject::Keep),
            class: route.class,
            timeout: route.timeout,
            body: BodyLimits {
                timeout: route.body_timeout.unwrap_or(config.limits.body_timeout),
                rate: route.body_rate.unwrap_or(config.limits.body_rate).0,
            },
            upgrade_timeout: route.upgrade_timeout.unwrap_or(config.limits.upgrade_timeout),
            upgrades: route.upgrades.iter().map(|protocol| protocol.as_str().into()).collect(),
            params: params.collect(),
            series: service.versions.iter().map(|v| registry.series(v.state.id, &label)).collect(),
            refusals: registry.refusals(&route.service, &label),
            label: label.as_ref().into(),
        })
    }
}
