//! Limits of requests in flight, compiled: what a request is asked for, and all limits of a configuration.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    config::{
        Config,
        schema::{self, Priority},
        units::Share,
    },
    policy::{adaptive::Rules, places::Parts},
    registry::{LatencyState, PlaceState, PlaceTerms, Registry},
};

/// Part of a limit that is kept for each more important priority, unless another one is written.
const RESERVE: Share = Share(0.1);

/// The least that an adaptive limit falls to by default.
const MIN: u32 = 4;

/// An adaptive limit at the start, by default.
const INITIAL: u32 = 20;

/// A limit of requests in flight.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    /// The service.
    pub service: Box<str>,
    /// The route; `None`: all routes of the service share the limit.
    pub route: Option<Box<str>>,
    /// Its terms.
    pub terms: PlaceTerms,
    /// Longest wait for a place.
    pub queue_timeout: Duration,
    /// Interval of measurements, if it is adaptive.
    pub measure_every: Duration,
    /// Live state.
    pub state: Arc<PlaceState>,
    /// The latencies that it follows, if it is adaptive.
    pub latencies: Box<[Arc<LatencyState>]>,
}

/// The limits of the requests of a route, at least one.
#[derive(Debug)]
pub struct RouteConcurrency {
    /// How important its requests are.
    pub priority: Priority,
    /// Its own limit.
    pub own: Option<Arc<ConcurrencyLimit>>,
    /// The limit of its service.
    pub shared: Option<Arc<ConcurrencyLimit>>,
    /// Where latencies are noted, if one of them is adaptive.
    pub latency: Option<Arc<LatencyState>>,
}

/// The limits of services, by name.
#[derive(Debug)]
pub(super) struct Concurrency<'c>(HashMap<&'c str, Arc<ConcurrencyLimit>>);

impl<'c> Concurrency<'c> {
    pub(super) fn compile(config: &'c Config, registry: &Registry) -> Self {
        let limits = config.services.iter().filter_map(|(name, service)| {
            let written = service.concurrency.as_ref()?;
            let routes: Vec<_> =
                config.routes.iter().filter(|route| route.service == *name).collect();
            let priorities = routes.iter().map(|route| route.priority.unwrap_or_default());
            let parts = Parts::new(written.reserve.unwrap_or(RESERVE).0, priorities);
            let labels = routes.iter().map(|route| route.label());
            let latencies = labels.map(|label| registry.latencies(name, &label)).collect();
            let limit = ConcurrencyLimit::new((name, None), written, parts, latencies, registry);
            Some((name.as_str(), Arc::new(limit)))
        });
        Self(limits.collect())
    }

    /// The limits of `route` with this `label`, if it has some.
    pub(super) fn of(
        &self,
        route: &schema::Route,
        label: &str,
        registry: &Registry,
    ) -> Option<Box<RouteConcurrency>> {
        let shared = self.0.get(route.service.as_str()).cloned();
        let written = route.limit.as_ref().and_then(|limit| limit.concurrency.as_ref());
        if shared.is_none() && written.is_none() {
            return None;
        }
        let priority = route.priority.unwrap_or_default();
        let latency = registry.latencies(&route.service, label);
        let own = written.map(|written| {
            let (place, parts) = ((&*route.service, Some(label)), Parts::new(0.0, [priority]));
            let latencies = Box::new([Arc::clone(&latency)]);
            Arc::new(ConcurrencyLimit::new(place, written, parts, latencies, registry))
        });
        let is_adaptive = own.iter().chain(&shared).any(|limit| limit.is_adaptive());
        Some(Box::new(RouteConcurrency {
            priority,
            own,
            shared,
            latency: is_adaptive.then_some(latency),
        }))
    }
}

impl ConcurrencyLimit {
    fn new(
        (service, route): (&str, Option<&str>),
        written: &schema::Concurrency,
        parts: Parts,
        latencies: Box<[Arc<LatencyState>]>,
        registry: &Registry,
    ) -> Self {
        let adaptive = written.adaptive.as_ref();
        let terms = PlaceTerms {
            max: written.max,
            queue: written.queue,
            parts,
            adaptive: adaptive.map(|adaptive| rules(adaptive, written.max)),
        };
        Self {
            service: service.into(),
            route: route.map(Into::into),
            terms,
            queue_timeout: written.queue_timeout,
            measure_every: adaptive.map(|adaptive| adaptive.measure_every).unwrap_or_default(),
            state: registry.places(service, route, terms),
            latencies: if adaptive.is_some() { latencies } else { Box::default() },
        }
    }

    /// Whether it follows latencies.
    pub fn is_adaptive(&self) -> bool {
        self.terms.adaptive.is_some()
    }

    /// Lets it follow the latencies so far, if it is adaptive; `unix` is the time of the clock, and `now` one that does not
    /// go back. Returns whether there were responses since the last tick.
    pub fn tick(&self, unix: Duration, now: Duration) -> bool {
        let interval = unix.as_nanos() / self.measure_every.as_nanos().max(1);
        let latencies = self.latencies.iter().map(|latency| (latency.id, latency.all()));
        self.state.tick(latencies, interval as u64, now)
    }
}

fn rules(written: &schema::Adaptive, max: u32) -> Rules {
    let min = written.min.unwrap_or(MIN.min(max));
    Rules {
        min,
        max,
        initial: written.initial.unwrap_or(INITIAL.clamp(min, max)),
        tolerance: written.tolerance.0,
    }
}

/// All limits of `routes`, each once: those of services, which their routes share, and those of routes.
pub(super) fn all<'r>(
    routes: impl Iterator<Item = &'r RouteConcurrency>,
) -> Arc<[Arc<ConcurrencyLimit>]> {
    let mut all: Vec<Arc<ConcurrencyLimit>> = Vec::new();
    let mut services = HashSet::new();
    for RouteConcurrency { own, shared, .. } in routes {
        all.extend(shared.iter().filter(|shared| services.insert(shared.service.clone())).cloned());
        all.extend(own.iter().cloned());
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs},
        *,
    };
    use crate::config::parse;

    fn snapshot(text: &str, registry: &Registry) -> Snapshot {
        let config = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
        let sources = SnapshotInputs {
            config: &config,
            overrides: &Overrides::new(),
            decided: &RuntimeState::default(),
            resolved: &Resolved::new(),
            tls: &HashMap::new(),
            access_log: None,
        };
        Snapshot::compile(1, sources, None, registry)
    }

    const TEXT: &str = "listen: [ { address: 127.0.0.1:0 } ]\nservices:\n  a:\n    baseline: v1\n    \
        versions: { v1: { endpoints: [ 127.0.0.1:1 ] } }\n    concurrency: { max: 100, adaptive: { min: 30 } }\n  \
        b: { baseline: v1, versions: { v1: { endpoints: [ 127.0.0.1:2 ] } } }\nroutes:\n\
        - { service: a, priority: high, match: { path: /bets }, limit: { concurrency: { max: 7, queue: 0 } } }\n\
        - { service: a, priority: low, match: { path: /lobby } }\n- { service: b }\n";

    #[test]
    fn routes_of_a_service_share_its_limit_and_others_have_none() {
        let registry = Registry::new(1);
        let first = snapshot(TEXT, &registry);
        let places: Vec<_> =
            first.concurrency.iter().map(|l| (&*l.service, l.route.as_deref())).collect();
        assert_eq!(places, [("a", None), ("a", Some("/bets"))]);
        let limits: Vec<_> =
            first.routes.iter().map(|route| route.concurrency.as_deref()).collect();
        let [Some(bets), Some(lobby), None] = limits[..] else { panic!("{limits:?}") };
        let shared = bets.shared.as_ref().expect("a limit");
        assert!(Arc::ptr_eq(shared, lobby.shared.as_ref().expect("the same")));
        assert_eq!((bets.priority, lobby.priority), (Priority::High, Priority::Low));
        let parts = shared.terms.parts;
        assert_eq!([Priority::High, Priority::Low].map(|p| parts.most(100, p)), [100, 90]);
        assert_eq!((shared.state.limit(), shared.latencies.len()), (30, 2), "it begins at `min`");
        assert!(bets.latency.is_some() && lobby.own.is_none());
        let again = snapshot(&TEXT.replace("max: 7", "max: 9"), &registry);
        assert!(Arc::ptr_eq(&again.concurrency[1].state, &first.concurrency[1].state));
        assert_eq!(again.concurrency[1].state.limit(), 7, "until it is published");
    }
}
