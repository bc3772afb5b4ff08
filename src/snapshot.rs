//! All that a request needs, compiled and immutable; swapped whole.
//!
//! Built by [`Snapshot::compile`] from a valid configuration, the weights in force and the addresses
//! that names stand for. Names are turned into indices here, so that the path of a request compares
//! and hashes as little as possible. Its number is the *generation*; a larger one is newer.

mod amounts;
mod comparison;
mod decide;
mod endpoints;
mod forwarding;
mod route;
mod service;
mod sources;
mod usable;
mod version;

use std::sync::Arc;

use ipnet::IpNet;

pub use self::{
    amounts::{Amount, AmountSource},
    comparison::{AmountArm, Arm, ComparisonPlan, Evidence, FailureSet, Named, Stratum},
    decide::{AssignedBy, Decision, NoDecision},
    endpoints::{Breaker, Candidate, Endpoint, endpoints, unserved},
    forwarding::Forwarding,
    route::{BodyLimits, Route},
    service::Service,
    sources::{AccessLog, Overrides, RuntimeState, SnapshotInputs, weights_in_force},
    usable::{Trust, usable},
    version::Version,
};
pub use crate::health::resolve::Resolved;
use crate::{config::schema, registry::Registry, routing::Table};

/// All that a request needs.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows with every change.
    pub generation: u64,
    /// From a request to an index into `routes`.
    pub table: Arc<Table>,
    /// Routes, in the order of the file.
    pub routes: Arc<[Route]>,
    /// Services, in the order of the file.
    pub services: Vec<Service>,
    /// Bounds on clients.
    pub limits: schema::Limits,
    /// What is added to messages on their way.
    pub forwarding: Forwarding,
    /// Peers that are believed when they say whose request it is.
    pub trusted_proxies: Box<[IpNet]>,
    /// Where lines of the access log go; nothing if it is off.
    pub access_log: Option<AccessLog>,
}

impl Snapshot {
    /// Compiles a snapshot. Live state comes from, and new identities go into, `registry`.
    ///
    /// `previous` is a snapshot of the same configuration, if there is one: its routes and what is
    /// compared of them are shared, so that a change of weights costs the same with ten routes and ten thousand.
    pub fn compile(
        generation: u64,
        sources: SnapshotInputs<'_>,
        previous: Option<&Self>,
        registry: &Registry,
    ) -> Self {
        let config = sources.config;
        let services: Vec<Service> = config
            .services
            .iter()
            .map(|(name, service)| {
                let previous = previous.and_then(|previous| previous.service(name));
                Service::compile(name, service, sources, previous, registry)
            })
            .collect();
        let (table, routes) = match previous {
            Some(previous) => (Arc::clone(&previous.table), Arc::clone(&previous.routes)),
            None => {
                let compile = |route| Route::compile(route, config, &services, registry);
                let routes = config.routes.iter().filter_map(compile).collect();
                (Arc::new(Table::new(config.routes.iter().map(|r| &r.matches))), routes)
            }
        };
        Self {
            generation,
            table,
            routes,
            services,
            limits: config.limits.clone(),
            forwarding: Forwarding::new(&config.forwarding),
            trusted_proxies: config.trusted_proxies.clone().into(),
            access_log: sources.access_log.cloned(),
        }
    }

    /// The service called `name`.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| *s.name == *name)
    }
}
