//! Outages of a dependency of both versions: neither version is to blame, whenever its requests reach the
//! dependency and however long the errors take.

use std::{cmp::Reverse, collections::BinaryHeap};

use fastrand::Rng;

use super::{
    stage::{BASELINE, CANARY, Outcome, Stage},
    *,
};
use crate::registry::Player;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const LOOK: Duration = ms(10);
/// When the dependency is down.
const DOWN: std::ops::Range<Duration> = ms(5_000)..ms(8_000);
const LENGTH: Duration = ms(12_000);

/// How a version uses the dependency.
#[derive(Debug, Clone, Copy)]
struct Needs {
    /// From the start of a request to the call of the dependency.
    after: Duration,
    /// From the call to the error, if the dependency is down.
    fails_after: Duration,
}

/// Requests in progress, by their end: end, evaluation in which the request began, version, player, and whether it
/// fails.
type UnderWay = BinaryHeap<Reverse<(Duration, u32, usize, u16, bool)>>;

impl Needs {
    /// How long a request that begins at `now` takes, and whether it fails. `failing` is the fraction of calls
    /// that fail at a given time.
    fn fate(
        self,
        now: Duration,
        failing: impl Fn(Duration) -> f64,
        rng: &mut Rng,
    ) -> (Duration, bool) {
        let fails = rng.f64() < failing(now + self.after);
        (self.after + if fails { self.fails_after } else { ms(1) }, fails)
    }
}

/// When a canary with this share of `rate` requests per second is ejected, if at all. `fate` gives the duration
/// of a request of a version that begins at some time, and whether it fails.
fn ejected_at(
    rate: f64,
    share: f64,
    mut fate: impl FnMut(usize, Duration, &mut Rng) -> (Duration, bool),
    seed: u64,
) -> Option<Duration> {
    let mut rng = Rng::with_seed(seed);
    let mut stage = Stage::new("{ errors: { relative: 10%, absolute: 0.3% } }");
    stage.set_share(share);
    let (mut under_way, mut due) = (UnderWay::new(), 0.0);
    while stage.now < LENGTH {
        due += 2.0 * rng.f64() * rate * LOOK.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            let version = if rng.f64() < share { CANARY } else { BASELINE };
            let (takes, fails) = fate(version, stage.now, &mut rng);
            let (ends, look) = (stage.now + takes, stage.begin(version));
            under_way.push(Reverse((ends, look, version, rng.u16(..), fails)));
        }
        let until = stage.now + LOOK;
        while under_way.peek().is_some_and(|Reverse((ends, ..))| *ends < until) {
            let Some(Reverse((_, look, version, player, fails))) = under_way.pop() else { break };
            let outcome = if fails { Outcome::Failed } else { Outcome::Served(1_000) };
            stage.end(look, version, Player(player), Player(player), 0, outcome);
        }
        if stage.look_after(LOOK).iter().any(|found| matches!(found, Found::Worse(_))) {
            return Some(stage.now);
        }
    }
    None
}

#[test]
fn no_version_is_blamed_for_an_outage_that_they_meet_at_different_moments() {
    let needs = |after, fails_after| Needs { after: ms(after), fails_after: ms(fails_after) };
    let at_once = needs(0, 1);
    let pairs = [
        // The canary calls later, or the baseline does.
        [at_once, needs(300, 1)],
        [needs(300, 1), at_once],
        [needs(50, 5), needs(600, 20)],
        // The canary calls later, and its errors take longer.
        [needs(20, 1), needs(300, 400)],
        // Both call at once, and the errors of one take longer.
        [needs(0, 1_000), needs(0, 200)],
        [needs(0, 50), needs(0, 500)],
    ];
    let mut blamed = Vec::new();
    for pair in pairs {
        for (rate, share) in [(1_000.0, 0.05), (1_000.0, 0.25), (300.0, 0.5)] {
            for (seed, part) in [(1, 1.0), (2, 0.45)] {
                let failing = |asks| if DOWN.contains(&asks) { part } else { 0.0 };
                let fate = |version: usize, now, rng: &mut Rng| {
                    let of: Needs = pair[version];
                    of.fate(now, failing, rng)
                };
                let at = ejected_at(rate, share, fate, seed);
                blamed.extend(at.map(|at| (at, pair, rate, share, part)));
            }
        }
    }
    assert!(blamed.is_empty(), "{blamed:?}");
}

/// Constant failures of the baseline are no outage, and even in an outage a worse version is found.
#[test]
fn a_canary_that_fails_more_than_a_baseline_that_fails_is_found() {
    let at_once = Needs { after: ms(0), fails_after: ms(1) };
    for (rate, share) in [(1_000.0, 0.05), (10_000.0, 0.05), (300.0, 0.5)] {
        for (ever, worse) in [(0.05, 0.5), (0.1, 0.6), (0.4, 1.0)] {
            for since in [Duration::ZERO, DOWN.start] {
                let fate = |version, now, rng: &mut Rng| {
                    let failing =
                        |asks| match (version == CANARY && asks >= DOWN.start, asks >= since) {
                            (true, _) => worse,
                            (false, true) => ever,
                            (false, false) => 0.0,
                        };
                    at_once.fate(now, failing, rng)
                };
                let at = ejected_at(rate, share, fate, 1);
                let after = at.and_then(|at| at.checked_sub(DOWN.start));
                let case = format!("{rate}/s, share {share}, {ever} {since:?} {worse}");
                assert!(after.is_some_and(|after| after < ms(2_000)), "{case}: {at:?}");
            }
        }
    }
}

/// Regression: failures were set aside for as long as some requests of the baseline took to fail or be left by
/// their clients.
#[test]
fn a_canary_that_fails_is_found_where_some_requests_ever_fail_late() {
    for hold in [ms(1_000), ms(2_000)] {
        let fate = |version, now: Duration, rng: &mut Rng| match rng.f64() < 0.3 {
            true => (hold, true),
            false => (ms(1), version == CANARY && now >= DOWN.start),
        };
        let at = ejected_at(150.0, 0.2, fate, 1);
        let after = at.and_then(|at| at.checked_sub(DOWN.start));
        assert!(after.is_some_and(|after| after < ms(4_000)), "{hold:?}: {at:?}");
    }
}
