//! Requests per second of a version: whether what was measured at another load is a bound for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A load is comparable up to this multiple of the other one. The bounds from the past tolerate at least twice
/// its latency, and a queue with four fifths of its capacity in use is 1.67 times as slow with a tenth more.
pub const COMPARABLE: f64 = 1.1;

/// Half-life of a request's weight: the load of a moment, but of more than a few requests.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// Least weight of the time over which a load is known, in seconds.
const LEAST_S: f64 = 3.0;

/// Requests and seconds, with exponential decay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Load {
    until: Duration,
    requests: f64,
    seconds: f64,
}

impl Load {
    /// Begins `now`.
    pub(super) fn new(now: Duration) -> Self {
        Self { until: now, requests: 0.0, seconds: 0.0 }
    }

    /// When the last block ended.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    /// Adds the requests of a block that ended at `now`.
    pub(super) fn absorb(&mut self, requests: u64, now: Duration) {
        let length = now.saturating_sub(self.until);
        self.until = self.until.max(now);
        let kept = (-length.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.requests = self.requests * kept + requests as f64;
        self.seconds = self.seconds * kept + length.as_secs_f64();
    }

    /// Requests per second, once that is known.
    pub(super) fn per_s(&self) -> Option<f64> {
        (self.seconds >= LEAST_S).then(|| self.requests / self.seconds)
    }

    /// Whether it is comparable with a load of `per_s`; anything is with `None`.
    pub(super) fn is_comparable(&self, per_s: Option<f64>) -> bool {
        let is_known = |before: f64| self.per_s().is_some_and(|now| now <= before * COMPARABLE);
        per_s.is_none_or(is_known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_that_of_the_last_seconds() {
        let s = Duration::from_secs;
        let mut load = Load::new(s(100));
        assert!(load.is_comparable(None) && !load.is_comparable(Some(1e9)), "it is unknown");
        (101..=103).for_each(|at| load.absorb(200, s(at)));
        assert_eq!(load.per_s(), None);
        (104..=130).for_each(|at| load.absorb(200, s(at)));
        assert!((load.per_s().expect("known") - 200.0).abs() < 1e-6);
        assert!(load.is_comparable(Some(182.0)) && !load.is_comparable(Some(180.0)));
        (131..=170).for_each(|at| load.absorb(50, s(at)));
        assert!(load.is_comparable(Some(60.0)), "{load:?}");
        // Blocks of two processes that end together.
        let mut both = Load::new(s(0));
        (1..=20).for_each(|at| {
            both.absorb(60, s(at));
            both.absorb(40, s(at));
        });
        assert!((both.per_s().expect("known") - 100.0).abs() < 1e-6);
    }
}
