//! Latencies of a block in log-linear buckets.
//!
//! Whole microseconds below 64, then 32 buckets for each power of two, so a bucket is at most 1/32
//! of its value wide. 704 of them reach beyond 60 s; the last one holds all longer latencies, and
//! timeouts. Their edges are always the same for both arms, which is why they, and not the
//! histograms of the telemetry, are compared.

use serde::{Deserialize, Serialize};

/// Number of buckets.
pub const BUCKETS: usize = 704;
/// The bucket of longer latencies, and of requests without an end.
const LAST: usize = BUCKETS - 1;
/// Bits of a value that determine the bucket; the first of them is always set.
const BITS: u32 = 6;
/// Buckets per power of two.
const PER_OCTAVE: u64 = 1 << (BITS - 1);

/// The bucket of a latency in microseconds, if there were no last bucket.
fn index(value_us: u64) -> u64 {
    let shift = (u64::BITS - value_us.leading_zeros()).saturating_sub(BITS);
    u64::from(shift) * PER_OCTAVE + (value_us >> shift)
}

/// The bucket of a latency in microseconds.
pub fn bucket(latency_us: u64) -> usize {
    (index(latency_us) as usize).min(LAST)
}

/// The least latency of a bucket, in microseconds.
pub(super) fn lower_us(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * PER_OCTAVE {
        bucket
    } else {
        (bucket % PER_OCTAVE + PER_OCTAVE) << (bucket / PER_OCTAVE - 1)
    }
}

/// The first bucket in which all latencies are at least `latency_us` microseconds; it may be beyond
/// the last one.
pub(in crate::analysis) fn first_at_or_above(latency_us: u64) -> usize {
    let bucket = index(latency_us) as usize;
    if lower_us(bucket) >= latency_us { bucket } else { bucket + 1 }
}

/// A histogram of one arm's latencies without empty buckets: pairs of a bucket's number and its
/// count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseLatencies(Box<[(u16, u64)]>);

impl SparseLatencies {
    /// The number of buckets that are not empty.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there was no request.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&Latencies> for SparseLatencies {
    fn from(latencies: &Latencies) -> Self {
        let counts = (0..).zip(*latencies.counts).filter(|(_, count)| *count > 0);
        Self(counts.collect())
    }
}

impl From<&SparseLatencies> for Latencies {
    fn from(sparse: &SparseLatencies) -> Self {
        let mut latencies = Self::default();
        for (bucket, count) in &sparse.0 {
            // A file may contain buckets beyond the last one, which holds all longer latencies, and
            // larger counts than any block.
            let count = (*count).min(u32::MAX.into());
            latencies.counts[usize::from(*bucket).min(LAST)] += count;
            latencies.requests += count;
        }
        latencies
    }
}

/// A histogram of one arm's latencies.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: Box<[u64; BUCKETS]>,
    requests: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), requests: 0 }
    }
}

impl Latencies {
    /// The latencies between two readings of counters, which only grow, and wrap.
    pub fn between(before: &[u32; BUCKETS], after: &[u32; BUCKETS]) -> Self {
        let mut between = Self::default();
        for ((count, before), after) in between.counts.iter_mut().zip(before).zip(after) {
            *count = after.wrapping_sub(*before).into();
            between.requests += *count;
        }
        between
    }

    /// The sum of these and `others`.
    pub fn with(mut self, others: &Self) -> Self {
        self.counts.iter_mut().zip(others.counts.iter()).for_each(|(count, other)| *count += other);
        self.requests += others.requests;
        self
    }

    /// Counts a successful response that took `latency_us` microseconds. Fast failures belong to
    /// the test of errors.
    pub fn record(&mut self, latency_us: u64) {
        self.counts[bucket(latency_us)] += 1;
        self.requests += 1;
    }

    /// Counts a request that timed out.
    pub fn record_timeout(&mut self) {
        self.counts[LAST] += 1;
        self.requests += 1;
    }

    /// Empties it for the next block.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.requests = 0;
    }

    /// Requests counted.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Requests in bucket `first` or above.
    pub fn at_or_above(&self, first: usize) -> u64 {
        self.counts.get(first..).map_or(0, |slow| slow.iter().sum())
    }

    pub(super) fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::Slower, *};

    #[test]
    fn buckets_agree_with_the_reference() {
        let values = [0, 1, 63, 64, 65, 1000, 1024, 65_535, 1_000_000, 10_000_000];
        assert_eq!(values.map(index), [0, 1, 63, 64, 64, 190, 192, 383, 509, 614]);
        let buckets = [63, 64, 65, 190, 191, 192, 352, 511];
        let edges = [63, 64, 66, 992, 1008, 1024, 32_768, 1_032_192];
        assert_eq!(buckets.map(lower_us), edges);
        let fifth = Slower::by(0.2, Duration::ZERO);
        let thresholds = [40, 64, 190, 352, 500].map(|bucket| fifth.slow_in_canary(bucket));
        assert_eq!(thresholds, [48, 71, 198, 359, 511]);
        assert_eq!(index(60_000_000), 697);
    }

    #[test]
    fn edges_and_buckets_are_inverse() {
        for bucket in 0..BUCKETS {
            let lower = lower_us(bucket);
            assert_eq!(index(lower) as usize, bucket);
            assert!(lower == 0 || index(lower - 1) as usize == bucket - 1);
        }
    }

    #[test]
    fn the_tolerance_is_rounded_up_by_a_bucket_at_most() {
        for (relative, ms) in [(0.0, 0), (0.05, 0), (0.2, 1), (1.0, 500)] {
            let tolerated = Slower::by(relative, Duration::from_millis(ms));
            for baseline in 64..600 {
                let edges = lower_us(tolerated.slow_in_canary(baseline)) as f64;
                let asked = lower_us(baseline) as f64 * (1.0 + relative) + ms as f64 * 1e3;
                assert!(edges >= asked && edges <= asked * (1.0 + 1.0 / 32.0) + 1.0);
            }
        }
    }

    #[test]
    fn what_is_longer_than_all_counts_as_a_timeout() {
        let mut latencies = Latencies::default();
        latencies.record(u64::MAX);
        latencies.record(100);
        latencies.record_timeout();
        assert_eq!((latencies.requests(), latencies.at_or_above(LAST)), (3, 2));
        assert_eq!((latencies.at_or_above(0), latencies.at_or_above(BUCKETS + 9)), (3, 0));
        latencies.clear();
        assert_eq!((latencies.requests(), latencies.at_or_above(0)), (0, 0));
    }
}
