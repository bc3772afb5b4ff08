//! The baseline's latency over the last minutes.
//!
//! Counts have a half-life of a minute: long enough for many requests above a 99th percentile,
//! short enough to follow the load. It should run before a canary starts, so that it needs no
//! warm-up then.

use std::time::Duration;

use super::{
    Quantile,
    buckets::{BUCKETS, Latencies, lower_us},
};

/// Half-life of a request's weight.
pub const HALF_LIFE: Duration = Duration::from_secs(60);
/// Least decayed requests for a quantile. Fewer remain only after a long time without requests.
const LEAST_LEFT: f64 = 20.0;

/// A histogram of a baseline with exponential decay. Outlives any canary.
#[derive(Debug, Clone)]
pub struct Reference {
    counts: Box<[f64; BUCKETS]>,
    /// All requests, without decay.
    requests: u64,
}

impl Default for Reference {
    fn default() -> Self {
        Self { counts: Box::new([0.0; BUCKETS]), requests: 0 }
    }
}

impl Reference {
    /// Adds a block of the baseline that was `length` long. Called after the tests of that block.
    pub fn absorb(&mut self, baseline: &Latencies, length: Duration) {
        let kept = (-length.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        for (count, new) in self.counts.iter_mut().zip(baseline.counts()) {
            *count = *count * kept + *new as f64;
        }
        self.requests = self.requests.saturating_add(baseline.requests());
    }

    /// Number of all requests, without decay.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The upper edge of a quantile's bucket; `None` until there are enough requests.
    pub fn latency_of(&self, quantile: Quantile) -> Option<Duration> {
        let is_told = self.requests >= quantile.warm_up_requests();
        if is_told { self.about(quantile) } else { None }
    }

    /// Likewise, with far fewer requests: enough to choose a wait, but not to compare.
    pub fn about(&self, quantile: Quantile) -> Option<Duration> {
        let above = self.bucket_of(quantile.level())? + 1;
        Some(Duration::from_micros(lower_us(above)))
    }

    /// The bucket of the quantile `level`, 0 to 1; `None` if too few requests are left.
    pub(super) fn bucket_of(&self, level: f64) -> Option<usize> {
        let total: f64 = self.counts.iter().sum();
        if total < LEAST_LEFT {
            return None;
        }
        let mut below = 0.0;
        self.counts.iter().position(|count| {
            below += count;
            below >= level * total
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_fades_and_silence_ends_the_quantile() {
        let of = |latency_us| {
            let mut latencies = Latencies::default();
            (0..1000).for_each(|_| latencies.record(latency_us));
            latencies
        };
        let mut reference = Reference::default();
        assert_eq!(reference.bucket_of(0.5), None);
        reference.absorb(&of(10), Duration::from_secs(1));
        assert_eq!(reference.bucket_of(0.95), Some(10));
        assert_eq!(reference.about(Quantile::P99), Some(Duration::from_micros(11)));
        assert_eq!(reference.latency_of(Quantile::P99), None, "of 1,000 requests");
        reference.absorb(&of(20), Duration::from_secs(60));
        // A third of the weight is at 10, two thirds at 20.
        assert_eq!(reference.bucket_of(0.3), Some(10));
        assert_eq!(reference.bucket_of(0.4), Some(20));
        reference.absorb(&Latencies::default(), Duration::from_secs(600));
        assert_eq!((reference.bucket_of(0.95), reference.requests()), (None, 2000));
    }
}
