//! Requests and failures of each second of the last ten minutes.
//!
//! Counters only know sums since the start. Whoever reads them each second notes the sums here; what is kept are
//! the differences, 12 bytes for each second in which requests ended. A second without requests has no entry,
//! so a version without traffic takes no memory and needs no clock.

use std::collections::VecDeque;

/// Seconds that are kept: ten minutes and a half.
const KEPT_S: u32 = 630;

/// Requests and failures by second.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    /// Sums as of the last reading.
    sums: (u64, u64),
    seconds: VecDeque<Second>,
}

/// What ended within a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Second {
    /// The number of the second, on the caller's clock.
    pub at_s: u32,
    /// Requests that ended.
    pub requests: u32,
    /// Of these, failed ones.
    pub failures: u32,
}

impl Rates {
    /// Notes the sums of `requests` and `failures` since the start, read within second `at_s`. Sums of another
    /// reading in the same second are added to the same entry.
    pub fn note(&mut self, at_s: u32, requests: u64, failures: u64) {
        let more =
            |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        let (requests_more, failures_more) =
            (more(requests, self.sums.0), more(failures, self.sums.1));
        if (requests_more, failures_more) == (0, 0) {
            return;
        }
        self.sums = (self.sums.0.max(requests), self.sums.1.max(failures));
        match self.seconds.back_mut().filter(|last| last.at_s >= at_s) {
            Some(last) => {
                last.requests = last.requests.saturating_add(requests_more);
                last.failures = last.failures.saturating_add(failures_more);
            }
            None => {
                let (requests, failures) = (requests_more, failures_more);
                self.seconds.push_back(Second { at_s, requests, failures });
            }
        }
        while self.seconds.front().is_some_and(|first| first.at_s + KEPT_S <= at_s) {
            self.seconds.pop_front();
        }
    }

    /// Requests and failures since the start, by the end of second `at_s`, which is one of those that are kept.
    pub fn until(&self, at_s: u32) -> (u64, u64) {
        let later = self.since(at_s.saturating_add(1));
        later.fold(self.sums, |(requests, failures), second| {
            let less = |sum: u64, later: u32| sum.saturating_sub(u64::from(later));
            (less(requests, second.requests), less(failures, second.failures))
        })
    }

    /// The seconds with requests from `at_s` on, the oldest first.
    pub fn since(&self, at_s: u32) -> impl Iterator<Item = Second> {
        let first = self.seconds.partition_point(|second| second.at_s < at_s);
        self.seconds.range(first..).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_become_seconds_and_idle_ones_take_no_place() {
        let mut rates = Rates::default();
        rates.note(3, 0, 0);
        assert_eq!(rates.since(0).count(), 0);
        rates.note(5, 10, 1);
        rates.note(5, 12, 1);
        rates.note(6, 12, 1);
        rates.note(9, 40, 6);
        let second = |at_s, requests, failures| Second { at_s, requests, failures };
        assert_eq!(rates.since(0).collect::<Vec<_>>(), [second(5, 12, 1), second(9, 28, 5)]);
        assert_eq!(rates.since(6).collect::<Vec<_>>(), [second(9, 28, 5)]);
        let until = [4, 5, 8, 9, 10].map(|at_s| rates.until(at_s));
        assert_eq!(until, [(0, 0), (12, 1), (12, 1), (40, 6), (40, 6)]);
        // A clock that stands still or a sum that shrinks adds nothing.
        rates.note(8, 41, 0);
        assert_eq!(rates.since(6).collect::<Vec<_>>(), [second(9, 29, 5)]);
    }

    #[test]
    fn ten_minutes_are_kept() {
        let mut rates = Rates::default();
        (0..5_000).for_each(|n| rates.note(n, u64::from(n) + 1, 0));
        let kept: Vec<_> = rates.since(0).map(|second| second.at_s).collect();
        assert_eq!((kept.len(), kept[0]), (630, 4_370));
        assert_eq!(size_of::<Second>(), 12);
    }
}
