//! All that a request needs, compiled and immutable; swapped whole.
//!
//! Built by [`Snapshot::compile`] from a valid configuration, the weights in force and the addresses
//! that names stand for. Names are turned into indices here, so that the path of a request compares
//! and hashes as little as possible. Its number is the *generation*; a larger one is newer.

mod amounts;
mod comparison;
mod endpoints;
mod forwarding;
mod usable;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use indexmap::IndexMap;
use ipnet::IpNet;

pub use self::forwarding::Forwarding;
pub use self::{
    amounts::{Amount, AmountSource},
    comparison::{AmountArm, Arm, Compared, Evidence, FailureSet, Named, Stratum},
    endpoints::{Breaker, Candidate, Endpoint, endpoints, unserved},
    usable::{Trust, usable},
};
pub use crate::health::resolve::Resolved;
use crate::{
    config::{
        Config,
        pattern::{EndpointHost, Segment},
        schema::{self, OnEject},
        units::{Share, Weight},
    },
    registry::{
        AmountState, EndpointState, Player, Registry, SeriesState, ServiceState, VersionState,
    },
    routing::{Cohort, RequestView, Rule, Split, Table},
    telemetry::access_log::Sender,
    tls::{self, Clients, TlsError},
};

/// Weights by service and version, ahead of those in the file.
pub type Overrides = HashMap<String, IndexMap<String, Weight>>;

/// What was decided while running, beside weights.
#[derive(Debug, Clone, Default)]
pub struct Decided {
    /// Versions that get nobody whatever their weight, by service.
    pub ejected: BTreeMap<String, BTreeSet<String>>,
    /// Versions that get nobody, since none of their endpoints serves, by service.
    pub unserved: BTreeMap<String, BTreeSet<String>>,
    /// Number of changes of shares, by service.
    pub epochs: HashMap<String, u64>,
}

impl Decided {
    /// Whether `version` of `service` is ejected.
    pub fn is_ejected(&self, service: &str, version: &str) -> bool {
        self.ejected.get(service).is_some_and(|versions| versions.contains(version))
    }

    /// Whether `version` of `service` leaves its players to others, since none of its endpoints serves.
    pub fn is_unserved(&self, service: &str, version: &str) -> bool {
        self.unserved.get(service).is_some_and(|versions| versions.contains(version))
    }

    /// Begins an epoch of each service whose versions will not get the shares that they have in
    /// `current`.
    pub fn begin_epochs(&mut self, current: &Snapshot, config: &Config, overrides: &Overrides) {
        for (name, service) in &config.services {
            let Some(before) = current.service(name) else { continue };
            let weights = weights_in_force(name, service, overrides);
            let after = weights.iter().map(|(version, weight)| {
                let nobody = self.is_ejected(name, version) || self.is_unserved(name, version);
                (version.as_str(), if nobody { Weight::ZERO } else { *weight })
            });
            let before = before.versions.iter().map(|v| (&*v.name, v.share_weight()));
            if !before.eq(after) {
                *self.epochs.entry(name.clone()).or_default() += 1;
            }
        }
    }
}

/// Clients of versions by their settings and what they speak.
pub type TlsClients = HashMap<(schema::VersionTls, schema::Protocol), tls::Client>;

/// Opens the clients of all versions of `config` that are spoken to under TLS. A file that was changed
/// for a broken one keeps its last good content; a broken new one is an error, and then no client is let
/// go of, since `config` will not be in force.
pub fn open_clients(config: &Config, clients: &mut Clients) -> Result<TlsClients, TlsError> {
    let versions = config.services.values().flat_map(|service| service.versions.values());
    let wanted: HashSet<(&schema::VersionTls, schema::Protocol)> =
        versions.filter_map(|v| Some((v.tls.as_ref()?, v.protocol))).collect();
    let open = |(tls, protocol): &(&schema::VersionTls, schema::Protocol)| {
        Ok((((*tls).clone(), *protocol), clients.open(tls, *protocol)?))
    };
    let opened = wanted.iter().map(open).collect::<Result<TlsClients, TlsError>>()?;
    clients.retain(&wanted);
    Ok(opened)
}

/// What a snapshot is compiled from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The file; must have passed the check.
    pub config: &'a Config,
    /// Changes made through the admin endpoint.
    pub overrides: &'a Overrides,
    /// Ejections, and the epochs that they and changes of weights begin.
    pub decided: &'a Decided,
    /// Addresses of names.
    pub resolved: &'a Resolved,
    /// Clients of the versions that are spoken to under TLS, by their settings.
    pub tls: &'a TlsClients,
    /// The access log that was opened for `config`, if it has one.
    pub access_log: Option<&'a AccessLog>,
}

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

/// Where a request goes: indices into the snapshot, and what decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Into [`Snapshot::routes`].
    pub route: u32,
    /// Into [`Snapshot::services`].
    pub service: u32,
    /// Into [`Service::versions`].
    pub version: u16,
    /// What decided the version.
    pub by: AssignedBy,
    /// Whose request it is, if versions are compared; else anybody's.
    pub player: Player,
    /// The split has a canary for the player, who was sent to the baseline to see whether it is the
    /// canary that fails.
    pub diverted: bool,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// No route matches.
    NoRoute,
    /// The route's service (its index in [`Snapshot::routes`] is told) has no version of weight.
    NoVersion(u32),
}

/// What decided a request's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignedBy {
    /// The route names a version.
    Route,
    /// A rule of the service.
    Rule,
    /// The split, by the source of that number in the service's cohort key.
    Cohort(u16),
    /// No other version has weight.
    Only,
}

/// Where lines of the access log go, and which.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Share of requests written.
    pub sample: Share,
    /// Takes the lines.
    pub sender: Sender,
}

/// A route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its name in metrics and log.
    pub label: Box<str>,
    /// Index of its service.
    pub service: u32,
    /// The version that serves all its requests, ahead of rules and split.
    pub version: Option<u16>,
    /// That version serves them while it is ejected, too.
    pub keeps_ejected: bool,
    /// Longest time to the head of the answer.
    pub timeout: Duration,
    /// How long bodies may take.
    pub body: BodyLimits,
    /// Longest time without a byte after an upgrade.
    pub upgrade_timeout: Duration,
    /// Protocols that a client may go on in.
    pub upgrades: Box<[Box<str>]>,
    /// Parameters of its path: name and segment number.
    pub params: Box<[(Box<str>, u16)]>,
    /// Live state by version of the service.
    pub series: Box<[Arc<SeriesState>]>,
    /// Where first attempts count; nothing if they are not compared.
    pub evidence: Option<Evidence>,
    /// Which answers are failures of the version.
    pub failures: FailureSet,
}

/// How long bodies may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Longest time without a byte.
    pub timeout: Duration,
    /// Bytes per second, on the average, once a body has taken several times `timeout`; 0 is no bound.
    pub rate: u64,
}

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

impl Snapshot {
    /// Compiles a snapshot. Live state comes from, and new identities go into, `registry`.
    ///
    /// `previous` is a snapshot of the same configuration, if there is one: its routes and what is
    /// compared of them are shared, so that a change of weights costs the same with ten routes and ten thousand.
    pub fn compile(
        generation: u64,
        sources: Sources<'_>,
        previous: Option<&Self>,
        registry: &Registry,
    ) -> Self {
        let config = sources.config;
        let services: Vec<Service> = config
            .services
            .iter()
            .map(|(name, service)| Service::compile(name, service, sources, previous, registry))
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

    /// Which route, service and version `request` goes to, at `self`'s weights.
    pub fn decide(&self, request: &RequestView<'_>) -> Result<Decision, Undecided> {
        let number = self.table.find(request).ok_or(Undecided::NoRoute)?;
        let route = &self.routes[number as usize];
        let service = &self.services[route.service as usize];
        let assigned = service.assign(request, route).ok_or(Undecided::NoVersion(number))?;
        let Assigned { version, by, player, diverted } = assigned;
        Ok(Decision { route: number, service: route.service, version, by, player, diverted })
    }

    /// The service called `name`.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| *s.name == *name)
    }
}

/// The version that a request gets.
struct Assigned {
    version: u16,
    by: AssignedBy,
    player: Player,
    diverted: bool,
}

impl Assigned {
    /// Of a request that is not compared.
    fn to(version: u16, by: AssignedBy) -> Self {
        Self { version, by, player: Player::default(), diverted: false }
    }
}

impl Service {
    fn compile(
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

    /// The version that serves `request`: the route's own, else the first rule's that holds, else the
    /// split's. Neither of the first two if it is ejected, unless the file says so. Nothing if no version
    /// has weight.
    fn assign(&self, request: &RequestView<'_>, route: &Route) -> Option<Assigned> {
        // Routes are shared by snapshots, so an ejection is not compiled into them.
        if let Some(version) = route.version
            && (route.keeps_ejected || !self.versions[usize::from(version)].ejected)
        {
            return Some(Assigned::to(version, AssignedBy::Route));
        }
        // Who counts must be known before a canary begins, too.
        let is_counted = route.evidence.is_some();
        if self.rules.is_empty() && !self.split.needs_key() && !is_counted {
            return self.split.assign(&[]).map(|version| Assigned::to(version, AssignedBy::Only));
        }
        let key = self.cohort.key(request, &route.params);
        let rule = self.rules.iter().find(|r| r.holds(request, &route.params, key.value));
        if let Some(rule) = rule {
            return Some(Assigned::to(rule.version, AssignedBy::Rule));
        }
        let (version, bucket) = self.split.assign_and_tell(key.value)?;
        let by = match self.split.needs_key() {
            true => AssignedBy::Cohort(key.source),
            false => AssignedBy::Only,
        };
        if !is_counted {
            return Some(Assigned::to(version, by));
        }
        let player = Player(bucket);
        let diverted = version != self.baseline
            && self.state.diverted.has(player)
            && self.compared.as_ref().is_some_and(|compared| compared.asks_players())
            && self.versions[usize::from(self.baseline)].share_weight() > Weight::ZERO;
        let version = if diverted { self.baseline } else { version };
        Some(Assigned { version, by, player, diverted })
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

impl Route {
    fn compile(
        route: &schema::Route,
        config: &Config,
        services: &[Service],
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
            service: number as u32,
            version: version
                .and_then(|v| service.versions.iter().position(|known| *known.name == *v))
                .map(|v| v as u16),
            keeps_ejected: route.on_eject == Some(OnEject::Keep),
            timeout: route.timeout,
            body: BodyLimits {
                timeout: route.body_timeout.unwrap_or(config.limits.body_timeout),
                rate: route.body_rate.unwrap_or(config.limits.body_rate).0,
            },
            upgrade_timeout: route.upgrade_timeout.unwrap_or(config.limits.upgrade_timeout),
            upgrades: route.upgrades.iter().map(|protocol| protocol.as_str().into()).collect(),
            params: params.collect(),
            series: service.versions.iter().map(|v| registry.series(v.state.id, &label)).collect(),
            label: label.as_ref().into(),
        })
    }
}

/// The weights that a service serves by, one per version in the order of the file: those set while it
/// runs if there are any, else the file's, else everything to the baseline.
pub fn weights_in_force<'a>(
    name: &str,
    service: &'a schema::Service,
    overrides: &Overrides,
) -> Vec<(&'a String, Weight)> {
    let written = overrides.get(name).or(service.weights.as_ref());
    service
        .versions
        .keys()
        .map(|version| {
            let weight = match written {
                Some(weights) => weights.get(version).copied().unwrap_or(Weight::ZERO),
                None if *version == service.baseline => Weight::ONE,
                None => Weight::ZERO,
            };
            (version, weight)
        })
        .collect()
}
