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
//!
//! Latency depends on load, and a version that serves alone has the load that two had before. A good
//! version behind a queue (M/M/1) that gets twice the requests is several times as slow at p99 as its
//! baseline was at half of them. So latency is judged
//!
//! - once the version has warmed up, as in a comparison;
//! - by the past only while the version gets at most a tenth more requests a second than the
//!   baseline then got ([`COMPARABLE`]): the past is no bound for a larger load. A smaller load makes
//!   no good version slower. Limits of the configuration hold at any load.
//!
//! Slow requests come together: behind a queue that has four fifths of its capacity in use, for
//! seconds now and then. So their blocks are longer ([`SLOW_BLOCK`]), and one gains at most
//! [`BURST_CAP`], as in a comparison. With blocks of a second one of six good versions behind such a
//! queue was found to be worse.
//!
//! A version often turns bad long after it began to serve alone. What people are told are the counts
//! since the likeliest onset of that (`onset`), as in a comparison: those since the beginning would
//! say that it fails less than is allowed. To decide, all blocks count.

mod load;
mod standing;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::load::Load;
pub use self::{
    load::COMPARABLE,
    standing::{Standing, Unjudged},
};
use super::{
    counts::{Arms, Counted, Tally},
    engine::BURST_CAP,
    latency::{Latencies, Quantile, first_at_or_above},
    limits::Limits,
    onset::Onset,
    verdict::{Answer, Finding, HeldBack, Metric, Numbers, Source, Verdict, known},
    warming::Warming,
    wealth::{Guarantee, Wealth, log_sum},
};
use crate::config::schema::Eject;

/// Bets, as multiples of the bound.
const FACTORS: [f64; 8] = [1.2, 1.4, 1.8, 2.7, 5.0, 12.0, 50.0, 400.0];

/// Largest share that is bet on.
const MOST: f64 = 0.95;

/// Length of a block of latencies.
const SLOW_BLOCK: Duration = Duration::from_secs(10);

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
    /// The requests per second at which the bound was measured; `None` if it holds at any load.
    #[serde(default)]
    per_s: Option<f64>,
}

impl Bound {
    /// At most the share `share`, 0 to 1, of requests may fail.
    pub fn errors(source: Source, share: f64) -> Self {
        let share = share.clamp(LEAST_BOUND, MOST);
        Self { metric: Metric::Errors, source, share, slow_us: None, per_s: None }
    }

    /// At most the share beyond `quantile` may take longer than `longest`.
    pub fn latency(source: Source, quantile: Quantile, longest: Duration) -> Self {
        let slow_us = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        let share = 1.0 - quantile.level();
        Self { metric: quantile.into(), source, share, slow_us: Some(slow_us), per_s: None }
    }

    /// The same, measured at this load, in requests per second.
    pub fn measured_at(self, per_s: f64) -> Self {
        Self { per_s: Some(per_s), ..self }
    }
}

/// The running judgement of one version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Alone {
    began: Duration,
    alpha: f64,
    least_failures: u64,
    #[serde(default)]
    warm_up: Duration,
    /// All requests.
    #[serde(default)]
    requests: u64,
    #[serde(default)]
    load: Load,
    /// When the open block of latencies began.
    #[serde(default)]
    opened: Duration,
    tests: Vec<Test>,
    failed: Option<Box<Verdict>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Test {
    bound: Bound,
    /// First bucket that is slow.
    first_slow: Option<usize>,
    wealth: Wealth,
    /// The open block of latencies.
    #[serde(default)]
    open: Tally,
    total: Tally,
    /// Onset of each bet. Records of older releases have none.
    #[serde(default)]
    onsets: Vec<Onset>,
}

impl Alone {
    /// Creates the judgement of a version that serves alone from `now` on, by `bounds`, and by
    /// latency once it was warmed up for `warm_up`. The probability that a version within all of
    /// them ever fails is at most `alpha`.
    pub fn new(
        bounds: &[Bound],
        alpha: f64,
        least_failures: u64,
        warm_up: Duration,
        now: Duration,
    ) -> Self {
        let tests = bounds.iter().map(|bound| {
            let mut wealth = Wealth::new(FACTORS.map(|_| 1.0), Guarantee::Alpha(alpha));
            wealth.temper().cap(bound.slow_us.map(|_| BURST_CAP));
            // The bucket of the limit has requests on both sides of it; only buckets above it are
            // slow.
            let first_slow = bound.slow_us.map(first_at_or_above);
            let (open, total) = (Tally::default(), Tally::default());
            let onsets = vec![Onset::default(); FACTORS.len()];
            Test { bound: *bound, first_slow, wealth, open, total, onsets }
        });
        Self {
            began: now,
            alpha,
            least_failures,
            warm_up,
            requests: 0,
            load: Load::new(now),
            opened: now,
            tests: tests.collect(),
            failed: None,
        }
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
        // As of the block's begin: a block that is partly cold is not judged.
        let is_warm = self.warming(self.load.until()).is_none();
        self.requests = self.requests.saturating_add(errors.trials());
        self.load.absorb(errors.trials(), now);
        let load = self.load;
        for test in &mut self.tests {
            match test.first_slow {
                None => test.observe(errors, now),
                Some(first) if is_warm && load.is_comparable(test.bound.per_s) => {
                    let slow = latencies.at_or_above(first);
                    test.open += Tally::new(latencies.requests(), slow);
                }
                Some(_) => {}
            }
        }
        if now.saturating_sub(self.opened) >= SLOW_BLOCK {
            self.opened = now;
            for test in &mut self.tests {
                let block = std::mem::take(&mut test.open);
                test.observe(block, now);
            }
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
        Self::new(&bounds, alpha, least_failures, self.warm_up, self.began)
    }

    /// Whether its parts fit each other, as those read from a file may not.
    pub(super) fn is_sound(&self) -> bool {
        let good = |test: &Test| {
            let share = test.bound.share;
            (LEAST_BOUND..=MOST).contains(&share)
                && test.wealth.has_components(FACTORS.len())
                && (test.onsets.is_empty() || test.onsets.len() == FACTORS.len())
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
        let findings: Vec<_> = tests.into_iter().map(|test| test.finding(self.began)).collect();
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
            warm_up_s: Some(self.warm_up.as_secs_f64()),
            findings,
            reason: String::new(),
        };
        verdict.reason = verdict.to_string();
        if let Some(unjudged) = self.unjudged(now) {
            let gap = if verdict.reason.ends_with('.') { " Besides, " } else { "; " };
            verdict.reason.push_str(&format!("{gap}{unjudged}"));
            if answer == Answer::Fail {
                verdict.reason.push('.');
            }
        }
        verdict
    }

    /// What is left `now` of the warm-up.
    fn warming(&self, now: Duration) -> Option<Warming> {
        Warming::left(now.saturating_sub(self.began), self.requests, self.warm_up)
    }
}

impl Test {
    fn log(&self) -> f64 {
        self.wealth.log_evidence()
    }

    /// Adds a block that ended at `at`.
    fn observe(&mut self, block: Tally, at: Duration) {
        if block.trials() == 0 {
            return;
        }
        self.total += block;
        let total = self.counted();
        self.onsets.resize(FACTORS.len(), Onset::default());
        self.wealth.stake();
        let m = self.bound.share;
        for (number, factor) in FACTORS.into_iter().enumerate() {
            let q = (factor * m).min(MOST);
            let mut growth = 0.0;
            if q > m {
                let (bad, good) = ((q / m).ln(), ((1.0 - q) / (1.0 - m)).ln());
                let log_e = block.failures() as f64 * bad + block.successes() as f64 * good;
                growth = self.wealth.grow(number, log_e);
            }
            self.onsets[number].note(growth, at, total);
        }
        self.wealth.end_block(block.failures() > 0);
    }

    /// All that it has counted; there is no baseline.
    fn counted(&self) -> Counted {
        let trials = Arms::new(self.total, Tally::default());
        Counted { trials, requests: trials }
    }

    /// The finding of a judgement that `began` then.
    fn finding(&self, began: Duration) -> Finding {
        let onset = self.wealth.richest().and_then(|richest| self.onsets.get(richest));
        let since =
            onset.map_or(Tally::default(), |onset| onset.counts(self.counted()).trials.canary);
        Finding {
            metric: self.bound.metric,
            amount: None,
            route: None,
            log_evidence: known(self.log()),
            component: None,
            onset_s: onset.map(|onset| onset.since().saturating_sub(began).as_secs_f64()),
            numbers: Numbers::Bound {
                counts: self.total.into(),
                since_onset: since.into(),
                source: self.bound.source,
                tolerated_share: self.bound.share,
                slow_ms: self.bound.slow_us.map(|us| us as f64 / 1e3),
            },
        }
    }
}

#[cfg(test)]
mod tests;
