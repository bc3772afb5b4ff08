//! Detects that both arms fail at the same time. Only shown to people, never used to decide: a
//! shared outage changes no comparison, but explains why there is no verdict.
//!
//! Counts windows of a second. An outage begins when both arms failed far more often than the
//! baseline usually does, for several windows in a row, and ends when the baseline was normal again
//! for several windows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counts::{Arms, Tally};

/// Length of a window.
pub const OUTAGE_WINDOW: Duration = Duration::from_secs(1);

/// Rate of failures that counts as an outage.
const BAD_RATE: f64 = 0.05;
/// Likewise, as a multiple of the baseline's usual rate, if that is high.
const BAD_RATIO: f64 = 3.0;
/// Least failures of the baseline in a window of an outage.
const LEAST_FAILURES: u64 = 3;
/// Windows from which the usual rate is learned, before an outage can begin.
const TO_LEARN: u32 = 20;
/// Consecutive windows that begin an outage.
const TO_BEGIN: u32 = 2;
/// Consecutive windows that end it.
const TO_END: u32 = 5;
/// Half-life of the usual rate, in windows.
const MEMORY: f64 = 600.0;

/// Detector of shared outages.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Outage {
    /// Trials and failures of the baseline in normal windows, with exponential decay.
    usual: (f64, f64),
    /// Windows from which the usual rate was learned, up to [`TO_LEARN`].
    learnt: u32,
    /// Counts since the beginning of the current outage, if there is one.
    since_begin: Option<Arms<Tally>>,
    /// Consecutive windows that indicate a change.
    in_a_row: u32,
    /// Counts of those windows.
    pending: Arms<Tally>,
}

/// Begin or end of an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageChange {
    /// Both arms fail, with the counts that show it.
    Begins(Arms<Tally>),
    /// The baseline is normal again, with the counts of the whole outage.
    Ends(Arms<Tally>),
}

impl Outage {
    /// A detector that has learnt the same, and finds an outage that is on anew.
    pub fn afresh(self) -> Self {
        Self { usual: self.usual, learnt: self.learnt, ..Self::default() }
    }

    /// Adds the counts of a window.
    pub fn observe(&mut self, window: Arms<Tally>) -> Option<OutageChange> {
        let baseline_bad =
            self.is_bad(window.baseline) && window.baseline.failures() >= LEAST_FAILURES;
        match self.since_begin {
            None if !baseline_bad || self.learnt < TO_LEARN => {
                self.note_usual(window.baseline);
                (self.in_a_row, self.pending) = (0, Arms::default());
                None
            }
            None => {
                // A canary with a small share has few requests per window, so its rate is taken
                // over all consecutive windows together.
                self.in_a_row += 1;
                self.pending += window;
                let begins = self.in_a_row >= TO_BEGIN && self.is_bad(self.pending.canary);
                begins.then(|| {
                    self.in_a_row = 0;
                    let counts = std::mem::take(&mut self.pending);
                    self.since_begin = Some(counts);
                    OutageChange::Begins(counts)
                })
            }
            Some(mut counts) => {
                counts += window;
                self.in_a_row = if baseline_bad { 0 } else { self.in_a_row + 1 };
                let is_over = self.in_a_row >= TO_END;
                if is_over {
                    self.in_a_row = 0;
                }
                self.since_begin = (!is_over).then_some(counts);
                is_over.then_some(OutageChange::Ends(counts))
            }
        }
    }

    /// Whether there is an outage now.
    pub fn is_on(&self) -> bool {
        self.since_begin.is_some()
    }

    fn is_bad(&self, tally: Tally) -> bool {
        let (trials, failures) = self.usual;
        let usual = if trials > 0.0 { failures / trials } else { 0.0 };
        tally.rate().is_some_and(|rate| rate >= BAD_RATE.max(BAD_RATIO * usual))
    }

    fn note_usual(&mut self, baseline: Tally) {
        let keep = 0.5_f64.powf(1.0 / MEMORY);
        self.learnt = (self.learnt + 1).min(TO_LEARN);
        let (trials, failures) = self.usual;
        self.usual = (
            trials * keep + baseline.trials() as f64,
            failures * keep + baseline.failures() as f64,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(n_c: u64, k_c: u64, n_b: u64, k_b: u64) -> Arms<Tally> {
        Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b))
    }

    #[test]
    fn an_outage_begins_when_both_arms_fail_and_ends_when_the_baseline_does_not() {
        let mut outage = Outage::default();
        for _ in 0..100 {
            assert_eq!(outage.observe(window(50, 0, 950, 1)), None);
        }
        let bad = window(50, 15, 950, 285);
        assert_eq!(outage.observe(bad), None);
        assert_eq!(outage.observe(bad), Some(OutageChange::Begins(window(100, 30, 1_900, 570))));
        assert!(outage.is_on());
        assert_eq!(outage.observe(bad), None);
        for _ in 0..4 {
            assert_eq!(outage.observe(window(50, 0, 950, 1)), None);
        }
        assert_eq!(
            outage.observe(window(50, 0, 950, 1)),
            Some(OutageChange::Ends(window(400, 45, 7_600, 860)))
        );
        assert!(!outage.is_on());
    }

    #[test]
    fn a_canary_that_fails_alone_is_no_outage_and_neither_is_a_baseline() {
        let mut outage = Outage::default();
        for _ in 0..1_000 {
            assert_eq!(outage.observe(window(50, 25, 950, 1)), None);
            assert_eq!(outage.observe(window(50, 0, 950, 400)), None);
            assert_eq!(outage.observe(window(50, 0, 950, 400)), None);
        }
    }

    #[test]
    fn what_is_usual_is_no_outage_and_neither_is_one_request_of_two() {
        let mut outage = Outage::default();
        // A service with a high usual rate of failures.
        for _ in 0..100 {
            assert_eq!(outage.observe(window(100, 8, 1_000, 80)), None);
        }
        assert_eq!(outage.observe(window(100, 20, 1_000, 200)), None);
        assert_eq!(outage.observe(window(100, 20, 1_000, 200)), None);
        assert_eq!(outage.observe(window(100, 30, 1_000, 300)), None);
        assert!(outage.observe(window(100, 30, 1_000, 300)).is_some());
        let mut idle = Outage::default();
        for _ in 0..100 {
            assert_eq!(idle.observe(window(1, 1, 2, 1)), None);
        }
    }
}
