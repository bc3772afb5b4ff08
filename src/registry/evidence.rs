//! Counters of versions that are compared.
//!
//! A worker counts first attempts that begin, and records the outcome of each; the evaluator
//! decides which outcomes and players count (`outcomes.rs`).

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{Counter, PerWorker, players::PlayerSet};
use crate::analysis::AMOUNT_BUCKETS;

/// Counts of one version over some routes, by worker.
#[derive(Debug, Default)]
pub struct EvidenceCells {
    /// First attempts begun.
    pub started: Counter,
}

/// Evidence of one version over some routes of its service.
#[derive(Debug)]
pub struct EvidenceState {
    /// Dense number, never used twice in a process.
    pub id: u32,
    /// Its counts.
    pub cells: PerWorker<EvidenceCells>,
}

/// State that the versions of a service share over some routes.
#[derive(Debug, Default)]
pub struct StratumState {
    deadline_us: AtomicU64,
    /// Players whose amounts were recorded lately.
    pub paid: PlayerSet,
}

impl StratumState {
    /// The time after which a request without a response counts as failed; `None`: only its timeout
    /// ends it.
    pub fn deadline(&self) -> Option<Duration> {
        match self.deadline_us.load(Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// Sets the deadline. Called by the evaluator only.
    pub fn set_deadline(&self, deadline: Duration) {
        self.deadline_us.store(deadline.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
    }
}

/// Evidence of an amount of one version over some routes, by worker: successful first attempts by
/// bucket of the amount.
#[derive(Debug)]
pub struct AmountEvidenceCells(Box<[AtomicU32; AMOUNT_BUCKETS]>);

impl Default for AmountEvidenceCells {
    fn default() -> Self {
        Self(Box::new([const { AtomicU32::new(0) }; AMOUNT_BUCKETS]))
    }
}

impl AmountEvidenceCells {
    /// Counts an amount in its [bucket](crate::analysis::amount_bucket). Called by the owning
    /// worker only.
    pub fn record(&self, bucket: u16) {
        let count = &self.0[usize::from(bucket)];
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Adds the amounts so far to `sums`, bucket by bucket.
    pub fn add_to(&self, sums: &mut [u32; AMOUNT_BUCKETS]) {
        for (sum, count) in sums.iter_mut().zip(self.0.iter()) {
            *sum = sum.wrapping_add(count.load(Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_counts_in_its_bucket() {
        let cells = AmountEvidenceCells::default();
        for bucket in [7, 7, 0] {
            cells.record(bucket);
        }
        let mut sums = [0; AMOUNT_BUCKETS];
        cells.add_to(&mut sums);
        assert_eq!((sums[7], sums[0], sums.iter().sum::<u32>()), (2, 1, 3));
    }
}
