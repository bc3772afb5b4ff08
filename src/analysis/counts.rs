//! Counts of two arms over one stretch of traffic.
//!
//! A trial is the first attempt of a request; each test defines its failures: an error, a slow
//! response. If an endpoint is compared with its peers, it takes the role of the canary, and its
//! peers that of the baseline.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Something that both sides of a comparison have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arms<T> {
    /// The side that may be worse.
    pub canary: T,
    /// The side to which it is compared.
    pub baseline: T,
}

impl<T> Arms<T> {
    /// Creates both sides, canary first.
    pub fn new(canary: T, baseline: T) -> Self {
        Self { canary, baseline }
    }

    /// Swaps the sides, for the opposite hypothesis.
    pub fn swapped(self) -> Self {
        Self { canary: self.baseline, baseline: self.canary }
    }
}

/// Trials and failures of one arm over a block; never more failures than trials. Written as a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Tally {
    trials: u64,
    failures: u64,
}

impl From<(u64, u64)> for Tally {
    fn from((trials, failures): (u64, u64)) -> Self {
        Self::new(trials, failures)
    }
}

impl From<Tally> for (u64, u64) {
    fn from(tally: Tally) -> Self {
        (tally.trials, tally.failures)
    }
}

impl Tally {
    /// Creates a tally. Failures beyond the trials are dropped, since the two counters are not read
    /// at the same instant.
    pub fn new(trials: u64, failures: u64) -> Self {
        Self { trials, failures: failures.min(trials) }
    }

    /// Counts a trial.
    pub(super) fn add(&mut self, failed: bool) {
        self.trials += 1;
        self.failures += u64::from(failed);
    }

    /// Counts a failure: of a trial that is counted already if it `is_there`, otherwise of an
    /// additional one.
    pub(super) fn fail_later(&mut self, is_there: bool) {
        if !is_there || self.failures >= self.trials {
            self.trials += 1;
        }
        self.failures += 1;
    }

    /// Requests that count.
    pub fn trials(self) -> u64 {
        self.trials
    }

    /// Failed trials.
    pub fn failures(self) -> u64 {
        self.failures
    }

    /// Trials that did not fail.
    pub fn successes(self) -> u64 {
        self.trials - self.failures
    }

    /// Failures per trial, 0 to 1; `None` without trials.
    pub fn rate(self) -> Option<f64> {
        (self.trials > 0).then(|| self.failures as f64 / self.trials as f64)
    }

    /// The part after `earlier`, a tally of the beginning of the same stretch.
    pub(super) fn after(self, earlier: Self) -> Self {
        Self::new(
            self.trials.saturating_sub(earlier.trials),
            self.failures.saturating_sub(earlier.failures),
        )
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.trials = self.trials.saturating_add(more.trials);
        self.failures = self.failures.saturating_add(more.failures);
    }
}

/// Cumulative counters of one arm as read: they only grow, and wrap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counter {
    /// Completed trials.
    pub trials: u64,
    /// Failed trials.
    pub failures: u64,
}

impl Counter {
    /// Counts a trial.
    pub(super) fn add(&mut self, failed: bool) {
        self.trials = self.trials.wrapping_add(1);
        self.failures = self.failures.wrapping_add(failed.into());
    }

    /// Counts a failure of a trial that is counted already.
    pub(super) fn fail_later(&mut self) {
        self.failures = self.failures.wrapping_add(1);
    }

    /// The counts since the reading `earlier`.
    pub fn since(self, earlier: Self) -> Tally {
        Tally::new(
            self.trials.wrapping_sub(earlier.trials),
            self.failures.wrapping_sub(earlier.failures),
        )
    }

    /// The sum of this counter and `other`.
    pub fn with(self, other: Self) -> Self {
        Self {
            trials: self.trials.wrapping_add(other.trials),
            failures: self.failures.wrapping_add(other.failures),
        }
    }

    /// The counter of the rest, if this is the counter of `part` and the rest together.
    pub(super) fn without(self, part: Self) -> Self {
        Self {
            trials: self.trials.wrapping_sub(part.trials),
            failures: self.failures.wrapping_sub(part.failures),
        }
    }
}

impl Arms<Counter> {
    /// The counts of both arms since the reading `earlier`.
    pub fn since(self, earlier: Self) -> Arms<Tally> {
        Arms::new(self.canary.since(earlier.canary), self.baseline.since(earlier.baseline))
    }
}

impl Arms<Tally> {
    /// Whether the block can be used: both arms had trials.
    pub fn comparable(self) -> bool {
        self.canary.trials > 0 && self.baseline.trials > 0
    }

    /// Whether either arm failed at least once.
    pub fn any_failure(self) -> bool {
        self.canary.failures > 0 || self.baseline.failures > 0
    }

    /// Trials of both arms.
    pub(super) fn trials(self) -> Arms<f64> {
        Arms::new(self.canary.trials as f64, self.baseline.trials as f64)
    }

    pub(super) fn after(self, earlier: Self) -> Self {
        Self::new(self.canary.after(earlier.canary), self.baseline.after(earlier.baseline))
    }
}

/// Trials of a test, and the requests that they were taken from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Trials of the test: each player once per second, with one failure per cycle.
    pub trials: Arms<Tally>,
    /// All requests over the same time.
    pub requests: Arms<Tally>,
}

impl Counted {
    pub(super) fn after(self, earlier: Self) -> Self {
        let trials = self.trials.after(earlier.trials);
        Self { trials, requests: self.requests.after(earlier.requests) }
    }
}

impl AddAssign for Arms<Tally> {
    fn add_assign(&mut self, more: Self) {
        self.canary += more.canary;
        self.baseline += more.baseline;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_wrap_and_failures_never_exceed_trials() {
        let before = Counter { trials: u64::MAX - 1, failures: 7 };
        let after = Counter { trials: 3, failures: 9 };
        assert_eq!(after.since(before), Tally::new(5, 2));
        assert_eq!(Tally::new(2, 5), Tally::new(2, 2));
    }

    #[test]
    fn a_block_of_one_arm_says_nothing() {
        assert!(!Arms::new(Tally::new(5, 5), Tally::default()).comparable());
        assert!(!Arms::new(Tally::default(), Tally::new(5, 5)).comparable());
        assert!(Arms::new(Tally::new(1, 0), Tally::new(1, 0)).comparable());
        assert_eq!(Tally::default().rate(), None);
        assert_eq!(Tally::new(8, 2).rate(), Some(0.25));
    }
}
