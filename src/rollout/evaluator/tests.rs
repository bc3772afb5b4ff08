//! The pace of looks, and what is known before a canary begins.

use std::collections::HashMap;

use super::*;
use crate::{
    config::{Config, parse},
    registry::{Outcome, Registry},
    snapshot::{Decided, Overrides, Resolved, Sources},
};

/// Numbers of the versions.
pub(super) const BASELINE: usize = 0;
pub(super) const CANARY: usize = 1;

/// A service of two versions, the first of which is the baseline, whose counts a test makes.
pub(super) struct Stage {
    config: Config,
    overrides: Overrides,
    decided: Decided,
    registry: Registry,
    pub(super) snapshot: Snapshot,
    pub(super) evaluator: Evaluator,
    pub(super) now: Duration,
}

impl Stage {
    /// A service with this `eject`, whose canary has no share.
    pub(super) fn new(eject: &str) -> Self {
        let config = parse(&format!(
            "listen: [ {{ address: '127.0.0.1:0' }} ]\n\
            services:\n  game-api:\n    baseline: v41\n    weights: {{ v41: 100, v42: 0 }}\n\
            \x20   cohort: {{ key: [ client-ip ] }}\n    eject: {eject}\n    versions:\n\
            \x20     v41: {{ endpoints: [ '127.0.0.1:9001' ] }}\n\
            \x20     v42: {{ endpoints: [ '127.0.0.1:9002' ] }}\n\
            routes: [ {{ service: game-api }} ]\n"
        ));
        let config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
        let mut registry = Registry::new(1);
        let (overrides, decided) = (Overrides::new(), Decided::default());
        let snapshot = compile(&config, &overrides, &decided, &mut registry);
        let evaluator = Evaluator::default();
        let mut stage =
            Self { config, overrides, decided, registry, snapshot, evaluator, now: Duration::ZERO };
        assert_eq!(stage.look_after(Duration::ZERO), []);
        stage
    }

    /// Gives the canary this share of players.
    pub(super) fn set_share(&mut self, share: f64) {
        let weight = |w| Weight::new(w).expect("a weight");
        let weights = [("v41".to_owned(), 1.0 - share), ("v42".to_owned(), share)];
        let weights = weights.map(|(version, share)| (version, weight(share)));
        self.overrides.insert("game-api".to_owned(), weights.into_iter().collect());
        self.decided.begin_epochs(&self.snapshot, &self.config, &self.overrides);
        self.snapshot = compile(&self.config, &self.overrides, &self.decided, &mut self.registry);
    }

    /// Counts a request as a worker does.
    pub(super) fn count(&self, version: usize, outcome: Outcome) {
        let cells = self.snapshot.routes[0].evidence[version].cells.of(0);
        cells.record(self.snapshot.services[0].parity, outcome);
    }

    /// Looks when `pause` has passed.
    pub(super) fn look_after(&mut self, pause: Duration) -> Vec<Found> {
        self.now += pause;
        self.evaluator.poll(&self.snapshot, self.now)
    }

    /// A second in which the baseline answers `requests` within 10 ms, all but 2 % within 1.
    fn serve(&mut self, requests: u32) -> Vec<Found> {
        for n in 0..requests {
            let latency_us = if n % 50 == 0 { 10_000 } else { 1_000 };
            self.count(BASELINE, Outcome::Served(latency_us));
        }
        self.look_after(Duration::from_secs(1))
    }
}

fn compile(
    config: &Config,
    overrides: &Overrides,
    decided: &Decided,
    registry: &mut Registry,
) -> Snapshot {
    let (resolved, tls) = (Resolved::new(), HashMap::new());
    let sources =
        Sources { config, overrides, decided, resolved: &resolved, tls: &tls, access_log: None };
    Snapshot::compile(1, sources, None, registry)
}

#[test]
fn looks_are_rare_without_a_canary_and_sooner_with_traffic() {
    let mut stage = Stage::new("{ errors: {} }");
    assert_eq!(stage.evaluator.next_look(), Some(IDLE_LOOK));
    stage.set_share(0.05);
    assert_eq!(stage.serve(4_900), []);
    assert_eq!(stage.evaluator.next_look(), Some(Duration::from_millis(10)));
    assert_eq!(stage.serve(5_000), []);
    assert_eq!(stage.evaluator.next_look(), Some(Duration::from_millis(5)));
    assert_eq!(stage.serve(10), []);
    assert_eq!(stage.evaluator.next_look(), Some(Duration::from_millis(10)));
    stage.set_share(0.0);
    assert_eq!(stage.look_after(IDLE_LOOK), []);
    assert_eq!(stage.evaluator.next_look(), Some(IDLE_LOOK));
    assert_eq!(Evaluator::default().next_look(), None);
}

/// A second of `requests` to the baseline and fifty slow ones to the canary: the versions found.
fn compare_slow(stage: &mut Stage, requests: u32) -> Vec<Box<str>> {
    (0..50).for_each(|_| stage.count(CANARY, Outcome::Served(30_000)));
    stage.serve(requests).into_iter().map(|found| found.version).collect()
}

#[test]
fn the_baselines_latency_is_known_before_a_rollout_and_after_it() {
    let mut stage = Stage::new("{ latency: { p99: 20% }, warm_up: 0s }");
    (0..3).for_each(|_| assert_eq!(stage.serve(1_000), []));
    for _rollout in 0..2 {
        stage.set_share(0.05);
        assert_eq!(stage.look_after(Duration::from_millis(10)), []);
        // The canary came amid the first block, and no block decides alone.
        let looks = (1..20).find(|_| compare_slow(&mut stage, 100) == ["v42".into()]);
        assert!(looks.is_some_and(|looks| looks <= 6), "after {looks:?}");
        stage.set_share(0.0);
        assert_eq!(stage.serve(100), []);
    }
}

#[test]
fn other_questions_begin_anew() {
    let mut stage = Stage::new("{ latency: { p99: 20% }, warm_up: 0s }");
    (0..3).for_each(|_| assert_eq!(stage.serve(1_000), []));
    let mut other = Stage::new("{ latency: { p99: 30% }, warm_up: 0s }");
    std::mem::swap(&mut stage.evaluator, &mut other.evaluator);
    other.now = stage.now;
    other.set_share(0.05);
    for _ in 0..6 {
        assert_eq!(compare_slow(&mut other, 100), [] as [Box<str>; 0]);
    }
}
