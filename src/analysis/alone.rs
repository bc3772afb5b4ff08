//! Decides whether a version is worse than a fixed bound, if there is no baseline to compare it
//! with.
//!
//! A bound is the share of requests that may be bad: fail, or take longer than a limit. It comes
//! from the configuration, or from the baseline's past. The hypothesis is that the mean share of a
//! block is within the bound `m`; a bet that the share is `q > m` multiplies its wealth by
//!
//! ```text
//! (q / m)^bad * ((1 - q) / (1 - m))^good
//! ```
//!
//! which is the e-variable of `bet` with one arm: `1 + eta (x - m)`, `eta = (q - m) / (m (1 - m))`.
//! All bounds together are averaged, as in `comparison`. This cannot distinguish a bad version from
//! a bad hour: there is no baseline that the same hour would have affected.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    counts::Tally,
    latency::{Latencies, Quantile, first_at_or_above},
    limits::Limits,
    verdict::{Answer, Finding, HeldBack, Metric, Numbers, Source, Verdict, known},
    wealth::{Guarantee, Wealth, log_sum},
};
use crate::config::schema::Eject;

/// Bets, as multiples of the bound.
const FACTORS: [f64; 8] = [1.2, 1.4, 1.8, 2.7, 5.0, 12.0, 50.0, 400.0];

/// Largest share that is bet on.
const MOST: f64 = 0.95;

/// The smallest bound: with a bound of 0 a single failure would be certainty.
const LEAST_BOUND: f64 = 1e-6;

/// The share of requests that may be bad.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    metric: Metric,
    source: Source,
    /// More than 0, below 1.
    share: f64,
    /// Microseconds from which on a request is slow; `None` if the bound is about failures.
    slow_us: Option<u64>,
}

impl Bound {
    /// At most the share `share`, 0 to 1, of requests may fail.
    pub fn errors(source: Source, share: f64) -> Self {
        let share = share.clamp(LEAST_BOUND, MOST);
        Self { metric: Metric::Errors, source, share, slow_us: None }
    }

    /// At most the share beyond `quantile` may take longer than `longest`.
    pub fn latency(source: Source, quantile: Quantile, longest: Duration) -> Self {
        let slow_us = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        let share = 1.0 - quantile.level();
        Self { metric: quantile.into(), source, share, slow_us: Some(slow_us) }
    }
}

/// The running judgement of one version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Alone {
    began: Duration,
    alpha: f64,
    least_failures: u64,
    tests: Vec<Test>,
    failed: Option<Box<Verdict>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Test {
    bound: Bound,
    /// First bucket that is slow.
    first_slow: Option<usize>,
    wealth: Wealth,
    total: Tally,
}

impl Alone {
    /// Creates the judgement of a version that serves alone from `now` on, by `bounds`. The
    /// probability that a version within all of them ever fails is at most `alpha`.
    pub fn new(bounds: &[Bound], alpha: f64, least_failures: u64, now: Duration) -> Self {
        let tests = bounds.iter().map(|bound| Test {
            bound: *bound,
            // The bucket of the limit has requests on both sides of it; only buckets above it are
            // slow.
            first_slow: bound.slow_us.map(first_at_or_above),
            wealth: Wealth::new(FACTORS.map(|_| 1.0), Guarantee::Alpha(alpha)),
            total: Tally::default(),
        });
        Self { began: now, alpha, least_failures, tests: tests.collect(), failed: None }
    }

    /// Whether there are no bounds.
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty()
    }

    /// When it began.
    pub fn began(&self) -> Duration {
        self.began
    }

    /// Adds the version's requests in a block that ended at `now`.
    pub fn observe(&mut self, errors: Tally, latencies: &Latencies, now: Duration) {
        for test in &mut self.tests {
            test.observe(match test.first_slow {
                None => errors,
                Some(first) => Tally::new(latencies.requests(), latencies.at_or_above(first)),
            });
        }
        let largest = self.tests.iter().max_by(|a, b| a.log().total_cmp(&b.log()));
        let enough = largest.is_some_and(|test| test.total.failures() >= self.least_failures);
        if self.failed.is_none() && enough && self.log_evidence() >= self.log_threshold() {
            self.failed = Some(Box::new(self.describe(Answer::Fail, now)));
        }
    }

    /// Sets another `alpha`, like [`Wealth::demand`], and the least failures; evidence and counts
    /// stay. A failure is final; if the version fails by the new values, that is found at the end
    /// of the next block.
    pub fn demand(&mut self, alpha: f64, least_failures: u64) {
        self.alpha = alpha;
        self.least_failures = least_failures;
        self.tests.iter_mut().for_each(|test| test.wealth.demand(alpha));
    }

    /// The current answer. A failure is final.
    pub fn answer(&self) -> Answer {
        if self.failed.is_some() { Answer::Fail } else { Answer::Undecided }
    }

    /// The answer with its numbers; for a failure, those that decided.
    pub fn verdict(&self, now: Duration) -> Verdict {
        let failed = self.failed.as_deref().cloned();
        failed.unwrap_or_else(|| self.describe(Answer::Undecided, now))
    }

    fn log_threshold(&self) -> f64 {
        Guarantee::Alpha(self.alpha).log_threshold()
    }

    /// Alpha and the least failures; nothing else is compared.
    pub(super) fn limits(&self) -> Limits {
        let nothing = Eject::default();
        let least_failures = self.least_failures;
        Limits { least_failures, ..Limits::of(&nothing, &nothing, self.alpha) }
    }

    /// The same judgement without observations, with another alpha and other least failures.
    pub(super) fn anew(&self, alpha: f64, least_failures: u64) -> Self {
        let bounds: Vec<_> = self.tests.iter().map(|test| test.bound).collect();
        Self::new(&bounds, alpha, least_failures, self.began)
    }

    /// Whether its parts fit each other, as those read from a file may not.
    pub(super) fn is_sound(&self) -> bool {
        let good = |test: &Test| {
            let share = test.bound.share;
            (LEAST_BOUND..=MOST).contains(&share) && test.wealth.has_components(FACTORS.len())
        };
        self.tests.iter().all(good)
    }

    /// Evidence of all bounds together, equally weighted, in nats.
    pub(super) fn log_evidence(&self) -> f64 {
        log_sum(self.tests.iter().map(Test::log)) - (self.tests.len() as f64).ln()
    }

    fn describe(&self, answer: Answer, now: Duration) -> Verdict {
        let compared_s = now.saturating_sub(self.began).as_secs_f64();
        let mut tests: Vec<_> = self.tests.iter().collect();
        tests.sort_by(|a, b| b.log().total_cmp(&a.log()));
        let findings: Vec<_> = tests.into_iter().map(Test::finding).collect();
        let suffices = self.log_evidence() >= self.log_threshold();
        let failures = findings.first().and_then(Finding::failures);
        let held = failures.filter(|_| answer == Answer::Undecided && suffices);
        let least = self.least_failures;
        let mut verdict = Verdict {
            answer,
            alone: true,
            since_s: if answer == Answer::Fail { compared_s } else { 0.0 },
            compared_s,
            log_evidence: known(self.log_evidence()),
            log_threshold: self.log_threshold(),
            health: None,
            held: held.map(|failures| HeldBack::MinimumFailures { failures, least }),
            findings,
            reason: String::new(),
        };
        verdict.reason = verdict.to_string();
        verdict
    }
}

impl Test {
    fn log(&self) -> f64 {
        self.wealth.log_evidence()
    }

    fn observe(&mut self, block: Tally) {
        if block.trials() == 0 {
            return;
        }
        self.total += block;
        self.wealth.stake();
        let m = self.bound.share;
        for (number, factor) in FACTORS.into_iter().enumerate() {
            let q = (factor * m).min(MOST);
            if q > m {
                let (bad, good) = ((q / m).ln(), ((1.0 - q) / (1.0 - m)).ln());
                let log_e = block.failures() as f64 * bad + block.successes() as f64 * good;
                self.wealth.grow(number, log_e);
            }
        }
        self.wealth.end_block(block.failures() > 0);
    }

    fn finding(&self) -> Finding {
        Finding {
            metric: self.bound.metric,
            amount: None,
            route: None,
            log_evidence: known(self.log()),
            component: None,
            onset_s: None,
            numbers: Numbers::Bound {
                counts: self.total.into(),
                source: self.bound.source,
                tolerated_share: self.bound.share,
                slow_ms: self.bound.slow_us.map(|us| us as f64 / 1e3),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn latencies(fast: u32, slow: u32, slow_us: u64) -> Latencies {
        let mut all = Latencies::default();
        (0..fast).for_each(|_| all.record(10_000));
        (0..slow).for_each(|_| all.record(slow_us));
        all
    }

    #[test]
    fn a_version_beyond_its_limit_fails_and_says_by_what() {
        let bounds = [
            Bound::errors(Source::Slo, 0.003),
            Bound::latency(Source::Slo, Quantile::P95, Duration::from_millis(250)),
        ];
        let mut alone = Alone::new(&bounds, 1e-3, 3, S(100));
        for second in 101..110 {
            alone.observe(Tally::new(1_000, 3), &latencies(960, 37, 400_000), S(second));
            assert_eq!(alone.answer(), Answer::Undecided);
        }
        for second in 110..113 {
            alone.observe(Tally::new(1_000, 60), &latencies(900, 40, 400_000), S(second));
        }
        assert_eq!(alone.answer(), Answer::Fail);
        let verdict = alone.verdict(S(200));
        assert_eq!((verdict.since_s, verdict.alone), (10.0, true));
        assert_eq!(verdict.findings[0].metric, Metric::Errors);
        assert_eq!(
            verdict.reason,
            "0.87 % of its requests failed (87 of 10000, judged for 10.0 s); allowed 0.3 % by slo. Wrong once in \
             1,000,000. No baseline serves beside it, so an outage that every version would share \
             looks the same."
        );
    }

    #[test]
    fn other_demands_lose_no_evidence() {
        let mut alone = Alone::new(&[Bound::errors(Source::Slo, 0.003)], 1e-20, 3, S(0));
        let observe = |alone: &mut Alone, failures, second| {
            alone.observe(Tally::new(10, failures), &Latencies::default(), S(second));
        };
        (1..4).for_each(|second| observe(&mut alone, 3, second));
        let evidence = alone.log_evidence();
        assert!(alone.answer() == Answer::Undecided && evidence > 1e3f64.ln());
        alone.demand(1e-3, 20);
        assert_eq!(alone.log_evidence(), evidence);
        observe(&mut alone, 0, 4);
        assert_eq!(alone.answer(), Answer::Undecided, "nine failures of twenty");
        alone.demand(1e-3, 3);
        observe(&mut alone, 0, 5);
        assert_eq!((alone.answer(), alone.verdict(S(9)).since_s), (Answer::Fail, 5.0));
    }

    #[test]
    fn a_slow_version_fails_by_the_limit_of_its_quantile() {
        let before = Bound::latency(Source::Before, Quantile::P99, Duration::from_millis(100));
        let mut alone = Alone::new(&[before], 1e-3, 3, S(0));
        for second in 1..60 {
            alone.observe(Tally::new(1_000, 0), &latencies(991, 9, 200_000), S(second));
        }
        assert_eq!(alone.answer(), Answer::Undecided);
        for second in 60..70 {
            alone.observe(Tally::new(1_000, 0), &latencies(950, 50, 200_000), S(second));
        }
        assert_eq!(alone.answer(), Answer::Fail);
        assert!(alone.verdict(S(70)).reason.contains("of the baseline before"));
    }

    /// Exactly at the bound, where it may fail with a probability of at most alpha.
    #[test]
    fn a_version_within_its_limit_fails_no_more_often_than_alpha_allows() {
        let mut failed = 0;
        for seed in 0..400 {
            let mut rng = Rng::with_seed(seed);
            let mut alone = Alone::new(&[Bound::errors(Source::Slo, 0.02)], 0.05, 1, S(0));
            for second in 0..1_000 {
                let bad = (0..50).filter(|_| rng.f64() < 0.02).count() as u64;
                alone.observe(Tally::new(50, bad), &Latencies::default(), S(second));
            }
            failed += u32::from(alone.answer() == Answer::Fail);
        }
        // At most 20 are expected, plus three and a half deviations.
        assert!(failed <= 35, "{failed} of 400");
    }

    proptest! {
        /// The expectation of every e-value, summed over all outcomes of a block.
        #[test]
        fn a_bet_is_fair_at_the_bound(n in 1_u64..40, share in 1e-4_f64..0.5, part in 0.0_f64..=1.0) {
            let p = share * part;
            for factor in FACTORS {
                let q = (factor * share).min(MOST);
                prop_assume!(q > share);
                let (mut expectation, mut chance) = (0.0, (1.0 - p).powi(n as i32));
                for k in 0..=n {
                    let e = (q / share).powi(k as i32) * ((1.0 - q) / (1.0 - share)).powi((n - k) as i32);
                    expectation += chance * e;
                    chance *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
                }
                prop_assert!(expectation <= 1.0 + 1e-9, "{} at {}", expectation, factor);
            }
        }

        #[test]
        fn numbers_stay_numbers(blocks in prop::collection::vec((0_u64..1_000_000_000, 0.0_f64..=1.0), 1..50)) {
            let bounds = [Bound::errors(Source::Slo, 0.0), Bound::errors(Source::Before, 1.0)];
            let mut alone = Alone::new(&bounds, 1e-3, 3, S(0));
            for (n, share) in blocks {
                let block = Tally::new(n, (n as f64 * share) as u64);
                alone.observe(block, &Latencies::default(), S(1));
                prop_assert!(!alone.log_evidence().is_nan());
            }
        }
    }
}
