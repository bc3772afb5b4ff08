use super::*;
use crate::{
    config::parse,
    registry::{Outcome, Registry},
    snapshot::{Decided, Overrides, Resolved, Sources},
};

/// A service with a canary that has a fifth of the players, and a clock.
struct Stage {
    snapshot: Snapshot,
    evaluator: Evaluator,
    now: Duration,
    /// Requests of each version so far, by which it is said which of them fail.
    asked: [u64; 2],
}

fn snapshot(eject: &str, weights: &str, registry: &mut Registry) -> Snapshot {
    let text = format!(
        "listen: [ {{ address: 127.0.0.1:0 }} ]\nroutes: [ {{ service: a }} ]\nservices:\n  a:\n    \
         baseline: v1\n    versions: {{ v1: {{ endpoints: [ 10.0.0.1:1 ] }}, v2: {{ endpoints: [ \
         10.0.0.1:2 ] }} }}\n    weights: {weights}\n    eject: {eject}\n"
    );
    let config = parse(&text).expect("a good file");
    let sources = Sources {
        config: &config,
        overrides: &Overrides::new(),
        decided: &Decided::default(),
        resolved: &Resolved::new(),
        tls: &Default::default(),
        access_log: None,
    };
    Snapshot::compile(1, sources, None, registry)
}

impl Stage {
    fn new(eject: &str) -> Self {
        let snapshot = snapshot(eject, "{ v1: 80, v2: 20 }", &mut Registry::new(1));
        let (evaluator, now) = (Evaluator::default(), Duration::ZERO);
        let mut stage = Self { snapshot, evaluator, now, asked: [0; 2] };
        assert_eq!(stage.look(), []);
        stage
    }

    fn look(&mut self) -> Vec<Found> {
        self.evaluator.poll(&self.snapshot, self.now)
    }

    /// So many seconds of 800 requests of the baseline and 200 of the canary each, of which one of so
    /// many fails (0: none); what was found meanwhile.
    fn pass(&mut self, seconds: u64, one_of: [u64; 2]) -> Vec<Found> {
        let mut found = Vec::new();
        for _ in 0..seconds * 50 {
            self.now += Duration::from_millis(20);
            for (version, requests) in [(0, 16), (1, 4)] {
                for _ in 0..requests {
                    self.asked[version] += 1;
                    let (nth, one_of) = (self.asked[version], one_of[version]);
                    let failed = one_of > 0 && nth.is_multiple_of(one_of);
                    let outcome = if failed { Outcome::Failed } else { Outcome::Served(1_000) };
                    let service = &self.snapshot.services[0];
                    let compared = service.compared.as_ref().expect("compared");
                    let cells = compared.strata[0].arms[version].cells.of(0);
                    cells.record(service.parity, outcome);
                }
            }
            found.extend(self.look());
        }
        found
    }
}

/// What each is, in a word.
fn words(found: &[Found]) -> Vec<&'static str> {
    let word = |found: &Found| match found {
        Found::Worse(_) => "worse",
        Found::NearMiss(_) => "near",
        Found::NearMissOver(_) => "no longer near",
        Found::NoLongerCompared { .. } => "no longer compared",
        Found::SharedOutage { change: OutageChange::Begins(_), .. } => "outage",
        Found::SharedOutage { change: OutageChange::Ends(_), .. } => "outage over",
    };
    found.iter().map(word).collect()
}

#[test]
fn a_canary_that_fails_is_near_before_it_is_worse_and_told_once() {
    let mut stage = Stage::new("{ errors: {} }");
    assert_eq!(words(&stage.pass(10, [1_000, 1_000])), [""; 0]);
    let found = stage.pass(10, [1_000, 10]);
    assert_eq!(words(&found), ["near", "worse"]);
    let Found::NearMiss(suspect) = &found[0] else { panic!("{found:?}") };
    assert_eq!((&*suspect.service, &*suspect.version, suspect.mode), ("a", "v2", Mode::Act));
    let verdict = &suspect.verdict;
    let evidence = verdict.log_evidence.expect("some");
    assert!(evidence >= 0.5 * verdict.log_threshold && evidence < verdict.log_threshold);
    // Weights were not changed, as a controller would: nothing more is to be said, until they are.
    assert_eq!(words(&stage.pass(5, [1_000, 10])), [""; 0]);
    stage.snapshot = snapshot("{ errors: {} }", "{ v1: 100, v2: 0 }", &mut Registry::new(1));
    assert_eq!(words(&stage.look()), ["no longer compared"]);
    assert_eq!(words(&stage.look()), [""; 0]);
}

#[test]
fn a_near_miss_that_passes_is_told_as_over() {
    let mut stage = Stage::new("{ errors: {} }");
    stage.pass(5, [1_000, 1_000]);
    let mut found = Vec::new();
    for _ in 0..500 {
        found.extend(stage.pass(1, [1_000, 100]));
        if !found.is_empty() {
            break;
        }
    }
    assert_eq!(words(&found), ["near"]);
    // As good as the baseline for long.
    assert_eq!(words(&stage.pass(300, [100, 0])), ["no longer near"]);
}

#[test]
fn what_both_arms_share_is_an_outage_and_no_verdict() {
    let mut stage = Stage::new("{ errors: {} }");
    assert_eq!(words(&stage.pass(30, [1_000, 1_000])), [""; 0]);
    let found = stage.pass(30, [3, 3]);
    assert_eq!(words(&found), ["outage"]);
    assert_eq!(stage.evaluator.has_shared_outage("a"), Some(true));
    let Found::SharedOutage { change: OutageChange::Begins(counts), .. } = &found[0] else {
        panic!("{found:?}")
    };
    assert!(counts.canary.failures() > 50 && counts.baseline.failures() > 200, "{counts:?}");
    assert_eq!(words(&stage.pass(30, [1_000, 1_000])), ["outage over"]);
    assert_eq!(stage.evaluator.has_shared_outage("a"), Some(false));
    assert_eq!(stage.evaluator.has_shared_outage("b"), None);
}
