//! A version that gets all players, behind a queue: its latency rises with its load, and that is no fault.
//!
//! Both versions are queues with one server, Poisson arrivals and exponential service times (M/M/1), whose p99 is
//! `4.6 / (capacity - arrivals)`. For two minutes the players are divided between them; then the version gets all, and
//! is judged without a baseline. Simplification: a request is reported in the evaluation in which it began.
//!
//! `TIDEGATE_BAKES=2000 cargo test --release --lib bakes -- --nocapture` simulates so many of each kind.

use std::thread;

use fastrand::Rng;

use super::{
    stage::{BASELINE, CANARY, Outcome, Stage},
    *,
};

const LOOK: Duration = Duration::from_millis(500);
/// How long the players are divided, and how long the version has all.
const BEFORE: Duration = Duration::from_secs(120);
const BAKE: Duration = Duration::from_secs(180);
/// Requests per second of all players.
const PER_S: f64 = 150.0;
const EJECT: &str = "{ errors: {}, latency: { p95: 20%, p99: 20% }, warm_up: 20s }";

/// A bake and what comes before it.
#[derive(Clone, Copy)]
struct Kind {
    /// The version's share before the bake.
    share: f64,
    /// Part of the capacity in use when one version serves all players.
    busy: f64,
    /// Share of requests that fail: before, and of the version in the bake.
    failing: [f64; 2],
    /// How many times the service time of the baseline the version takes.
    slower: f64,
}

const GOOD: Kind = Kind { share: 0.5, busy: 0.8, failing: [0.002; 2], slower: 1.0 };

/// A queue with one server.
struct Queue {
    /// When the server is free, in seconds.
    free: f64,
    /// Mean service time, in seconds.
    takes: f64,
}

impl Queue {
    /// Time from the arrival at `at` until the response, in seconds.
    fn serve(&mut self, at: f64, rng: &mut Rng) -> f64 {
        self.free = self.free.max(at) - self.takes * (1.0 - rng.f64()).ln();
        self.free - at
    }
}

/// When the version is found to be worse in its bake, with the verdict; and how it stands at the end.
fn bake(kind: Kind, seed: u64) -> (Option<(Duration, Verdict)>, String) {
    let mut rng = Rng::with_seed(seed);
    let mut stage = Stage::new(EJECT);
    stage.set_share(kind.share);
    let takes = kind.busy / PER_S;
    let mut queues = [Queue { free: 0.0, takes }, Queue { free: 0.0, takes: takes * kind.slower }];
    let mut at = 0.0;
    let (mut is_baking, mut found) = (false, None);
    while stage.now < BEFORE + BAKE && found.is_none() {
        if !is_baking && stage.now >= BEFORE {
            stage.set_share(1.0);
            is_baking = true;
        }
        let (share, failing) = match is_baking {
            true => (1.0, kind.failing[1]),
            false => (kind.share, kind.failing[0]),
        };
        while at < (stage.now + LOOK).as_secs_f64() {
            at -= (1.0 - rng.f64()).ln() / PER_S;
            let version = if rng.f64() < share { CANARY } else { BASELINE };
            let took = queues[version].serve(at, &mut rng);
            stage.count(
                version,
                match rng.f64() < failing {
                    true => Outcome::Failed,
                    false => Outcome::Served((1e6 * took) as u32),
                },
            );
        }
        for news in stage.look_after(LOOK) {
            if let (Found::Worse(suspect), true) = (news, is_baking) {
                found = Some((stage.now - BEFORE, suspect.verdict));
            }
        }
    }
    let standing = stage.evaluator.standing("game-api", "v42", stage.now);
    (found, standing.map(|standing| standing.to_string()).unwrap_or_default())
}

/// How many of `runs` bakes find the version to be worse, what the first one of them says, and how the first of the
/// others stands at its end.
fn found(kind: Kind, runs: u64) -> (u64, String, String) {
    let half = |odd: u64| {
        let seeds = (0..runs).filter(move |seed| seed % 2 == odd);
        let (mut count, mut says, mut stands) = (0, String::new(), String::new());
        for (found, standing) in seeds.map(|seed| bake(kind, seed)) {
            match found {
                Some((after, verdict)) => {
                    count += 1;
                    if says.is_empty() {
                        says = format!("after {after:?}: {}", verdict.reason);
                    }
                }
                None if stands.is_empty() => stands = standing,
                None => {}
            }
        }
        (count, says, stands)
    };
    thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        let (even, odd) = (half(0), odd.join().expect("no panic"));
        let either = |a: String, b: String| if a.is_empty() { b } else { a };
        (even.0 + odd.0, either(even.1, odd.1), either(even.2, odd.2))
    })
}

fn runs(usual: u64) -> u64 {
    let asked = std::env::var("TIDEGATE_BAKES").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(usual)
}

#[test]
fn a_good_version_whose_load_grows_as_it_gets_all_players_is_not_found_to_be_worse() {
    let runs = runs(8);
    for (what, kind) in [
        ("5 % more load, 80 % busy", Kind { share: 0.05, ..GOOD }),
        ("twice the load, 80 % busy", GOOD),
        ("twice the load, 95 % busy", Kind { busy: 0.95, ..GOOD }),
        ("20 times the load, 80 % busy", Kind { share: 0.95, ..GOOD }),
        ("5 % more load, 50 % busy", Kind { share: 0.05, busy: 0.5, ..GOOD }),
    ] {
        let (worse, says, stands) = found(kind, runs);
        println!("{what}: {worse} of {runs} found to be worse. {says}\n  else: {stands}");
        // Alpha is 0.001 of all.
        let mean = runs as f64 * 0.001;
        assert!(
            worse as f64 <= mean + 3.5 * mean.sqrt() + 0.5,
            "{what}: {worse} of {runs}: {says}"
        );
        let is_apart = kind.share >= 0.5;
        assert_eq!(stands.contains("latency is not compared"), is_apart, "{what}: {stands}");
    }
}

#[test]
fn a_version_that_is_worse_as_it_gets_all_players_is_found() {
    let runs = runs(8);
    for (what, kind, by) in [
        ("10 times the errors, twice the load", Kind { failing: [0.002, 0.02], ..GOOD }, "failed"),
        (
            "3 times as slow, 5 % more load",
            Kind { share: 0.05, busy: 0.3, slower: 3.0, ..GOOD },
            "or longer",
        ),
    ] {
        let (worse, says, _) = found(kind, runs);
        println!("{what}: {worse} of {runs} found to be worse. {says}");
        assert_eq!(worse, runs, "{what}");
        assert!(says.contains(by), "{what}: {says}");
    }
}
