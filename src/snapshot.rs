//! Everything that a request needs, compiled and immutable; replaced as a whole.
//!
//! [`Snapshot::compile`] builds it from a valid configuration, the weights in force and the addresses of names.
//! Names are turned into indices here, so that a request compares and hashes as little as possible. The number
//! of a snapshot is its *generation*; a larger one is newer.

mod amounts;
mod authorizer;
mod comparison;
mod concurrency;
mod decide;
mod endpoints;
mod fence;
mod forwarding;
mod hold;
mod idempotency;
mod identity;
mod pin;
mod policies;
mod retry;
mod route;
mod service;
mod sources;
mod standing;
mod usable;
mod version;

use std::sync::Arc;

use ipnet::IpNet;

use self::concurrency::Concurrency;
pub use self::{
    amounts::{Amount, AmountSource},
    authorizer::Authorizer,
    comparison::{AmountArm, Arm, ComparisonPlan, Evidence, FailureSet, Named, Stratum},
    concurrency::{ConcurrencyLimit, RouteConcurrency},
    decide::{AssignedBy, Decision, NoSmoke},
    endpoints::{Breaker, Candidate, Endpoint, endpoints, unserved},
    fence::Fence,
    forwarding::Forwarding,
    hold::{Hold, OnReadOnly},
    idempotency::Idempotency,
    identity::{Identity, Issuer, Issuers},
    pin::PinPlan,
    policies::{RateLimit, RoutePolicies},
    retry::RetryPlan,
    route::{BodyLimits, Route},
    service::Service,
    sources::{AccessLog, Overrides, RuntimeState, SnapshotInputs, weights_in_force},
    standing::{Notices, Refusal, Standing},
    usable::{Trust, usable},
    version::Version,
};
pub use crate::health::resolve::Resolved;
use crate::{config::schema, registry::Registry, routing::Table};

/// Everything that a request needs.
#[derive(Debug)]
pub struct Snapshot {
    /// Number of the snapshot; increases with every change.
    pub generation: u64,
    /// Maps a request to an index into `routes`.
    pub table: Arc<Table>,
    /// Routes, in the order of the file.
    pub routes: Arc<[Route]>,
    /// The issuer whose claims are conditions of routes; `None` if no route has any.
    pub routing_issuer: Option<Arc<Issuer>>,
    /// Header fields that no client can send, since policies write them: in lower case, with `-` for what is no letter or digit.
    pub reserved: Arc<[Box<str>]>,
    /// Issuers of clients' tokens.
    pub issuers: Arc<Issuers>,
    /// All limits of requests in flight.
    pub concurrency: Arc<[Arc<ConcurrencyLimit>]>,
    /// Services, in the order of the file.
    pub services: Vec<Service>,
    /// Limits on clients.
    pub limits: schema::Limits,
    /// Fields that are added to forwarded requests and responses.
    pub forwarding: Forwarding,
    /// Peers whose statements about the client's address are trusted.
    pub trusted_proxies: Box<[IpNet]>,
    /// Settings of the access log; `None` if it is off.
    pub access_log: Option<AccessLog>,
    /// Notices and read-only modes.
    pub notices: Arc<Notices>,
}

impl Snapshot {
    /// Compiles a snapshot. Live state comes from `registry`, which gets the new identities.
    ///
    /// `previous` is a snapshot of the same configuration, if there is one: its routes and their comparison
    /// data are shared, so that a change of weights costs the same with ten routes and ten thousand.
    pub fn compile(
        generation: u64,
        sources: SnapshotInputs<'_>,
        previous: Option<&Self>,
        registry: &Registry,
    ) -> Self {
        let config = sources.config;
        let notices = Notices::compile(sources);
        let services: Vec<Service> = config
            .services
            .iter()
            .map(|(name, service)| {
                let previous = previous.and_then(|previous| previous.service(name));
                Service {
                    standing: Standing::compile(name, &notices, sources, registry),
                    ..Service::compile(name, service, sources, previous, registry)
                }
            })
            .collect();
        let (table, routes, issuers, concurrency) = match previous {
            Some(Self { table, routes, issuers, concurrency, .. }) => (
                Arc::clone(table),
                Arc::clone(routes),
                Arc::clone(issuers),
                Arc::clone(concurrency),
            ),
            None => {
                let issuers = Arc::new(Issuers::compile(config, registry));
                let limits = Concurrency::compile(config, registry);
                let compile =
                    |route| Route::compile(route, config, (&services, &issuers, &limits), registry);
                let routes: Arc<[Route]> = config.routes.iter().filter_map(compile).collect();
                let limits =
                    concurrency::all(routes.iter().filter_map(|r| r.concurrency.as_deref()));
                let table = Table::new(config.routes.iter().map(|r| &r.matches));
                (Arc::new(table), routes, issuers, limits)
            }
        };
        Self {
            generation,
            table,
            routes,
            routing_issuer: issuers.routing.clone(),
            reserved: Arc::clone(&issuers.reserved),
            issuers,
            concurrency,
            services,
            limits: config.limits.clone(),
            forwarding: Forwarding::new(&config.forwarding),
            trusted_proxies: config.trusted_proxies.clone().into(),
            access_log: sources.access_log.cloned(),
            notices,
        }
    }

    /// The service `name`.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| *s.name == *name)
    }
}
