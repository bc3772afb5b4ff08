//! What a worker counts of a version, to be compared with another one's.
//!
//! Counts are kept by the parity of the epoch in which a request began; it turns at every change of the
//! weights. Requests that began under the same weights have the same mix of ages in all versions,
//! wherever they end.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::Counter;
use crate::analysis::{self, AMOUNT_BUCKETS, LATENCY_BUCKETS, latency_bucket};

/// Evidence of one version over some routes, by worker.
#[derive(Debug, Default)]
pub struct EvidenceCells([EpochCells; 2]);

/// The part of requests that began in epochs of one parity.
#[derive(Debug, Default)]
pub struct EpochCells {
    /// First attempts that ended.
    pub trials: Counter,
    /// Of those, failed.
    pub failures: Counter,
    latencies: Buckets<LATENCY_BUCKETS>,
}

/// Evidence of an amount of one version over some routes, by worker: first attempts that were served, by
/// what they carried.
#[derive(Debug, Default)]
pub struct AmountEvidenceCells([Buckets<AMOUNT_BUCKETS>; 2]);

/// How often what was counted fell into which bucket.
#[derive(Debug)]
struct Buckets<const N: usize>(Box<[AtomicU32; N]>);

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self(Box::new([const { AtomicU32::new(0) }; N]))
    }
}

impl<const N: usize> Buckets<N> {
    fn add(&self, bucket: usize) {
        let count = &self.0[bucket];
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn add_to(&self, sums: &mut [u32; N]) {
        for (sum, count) in sums.iter_mut().zip(self.0.iter()) {
            *sum = sum.wrapping_add(count.load(Relaxed));
        }
    }
}

/// How a first attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer whose head took so many microseconds.
    Served(u32),
    /// With a failure, which may have come fast.
    Failed,
    /// With no answer in time.
    TimedOut,
}

impl EvidenceCells {
    /// Counts a first attempt of a request that began in an epoch of `parity`. Called by the owning
    /// worker only.
    pub fn record(&self, parity: u8, outcome: Outcome) {
        let cells = self.of(parity);
        cells.trials.add(1);
        match outcome {
            Outcome::Served(latency_us) => cells.latencies.add(latency_bucket(latency_us.into())),
            Outcome::Failed => cells.failures.add(1),
            Outcome::TimedOut => {
                cells.failures.add(1);
                cells.latencies.add(LATENCY_BUCKETS - 1);
            }
        }
    }

    /// The part of `parity`.
    pub fn of(&self, parity: u8) -> &EpochCells {
        &self.0[usize::from(parity & 1)]
    }
}

impl EpochCells {
    /// Trials and failures so far.
    pub fn counter(&self) -> analysis::Counter {
        // Failures first: read the other way around, there could be more of them than trials.
        let failures = self.failures.read();
        analysis::Counter { trials: self.trials.read(), failures }
    }

    /// Adds the latencies so far to `sums`, bucket by bucket.
    pub fn add_latencies(&self, sums: &mut [u32; LATENCY_BUCKETS]) {
        self.latencies.add_to(sums);
    }
}

impl AmountEvidenceCells {
    /// Counts an amount in its [`analysis::amount_bucket`], of a request that began in an epoch of
    /// `parity`. Called by the owning worker only.
    pub fn record(&self, parity: u8, bucket: u16) {
        self.0[usize::from(parity & 1)].add(usize::from(bucket));
    }

    /// Adds the amounts so far of the epochs of `parity` to `sums`, bucket by bucket.
    pub fn add_to(&self, parity: u8, sums: &mut [u32; AMOUNT_BUCKETS]) {
        self.0[usize::from(parity & 1)].add_to(sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_attempt_counts_in_its_epoch() {
        let cells = EvidenceCells::default();
        cells.record(0, Outcome::Served(1_000));
        cells.record(0, Outcome::Failed);
        cells.record(1, Outcome::TimedOut);
        let count = |parity| {
            let mut latencies = [0; LATENCY_BUCKETS];
            cells.of(parity).add_latencies(&mut latencies);
            let analysis::Counter { trials, failures } = cells.of(parity).counter();
            (trials, failures, latencies.iter().sum::<u32>(), latencies[LATENCY_BUCKETS - 1])
        };
        assert_eq!(count(0), (2, 1, 1, 0));
        assert_eq!(count(1), (1, 1, 1, 1));
    }

    #[test]
    fn an_amount_counts_in_its_epoch() {
        let cells = AmountEvidenceCells::default();
        let amounts = [(0, 7), (0, 7), (1, 0)];
        amounts.into_iter().for_each(|(parity, bucket)| cells.record(parity, bucket));
        let mut sums = [[0; AMOUNT_BUCKETS]; 2];
        (0..2).for_each(|parity| cells.add_to(parity, &mut sums[usize::from(parity)]));
        assert_eq!((sums[0][7], sums[0].iter().sum::<u32>()), (2, 2));
        assert_eq!((sums[1][0], sums[1].iter().sum::<u32>()), (1, 1));
    }
}
