//! A barrier over the workers: which snapshot each worker plans requests by.
//!
//! A worker acknowledges a snapshot in its own loop, between two polls of its tasks. A request is planned and
//! counted as in flight within one poll. So once every worker has acknowledged a generation, each request that
//! was planned by an older snapshot is counted, and no later request is planned by an older one.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use tokio::sync::Notify;

use crate::registry::PerWorker;

/// The generation that each worker has acknowledged.
#[derive(Debug)]
pub struct Barrier {
    acknowledged: PerWorker<AtomicU64>,
    changed: Notify,
}

impl Barrier {
    /// A barrier over `workers` workers, none of which has acknowledged a generation.
    pub(super) fn new(workers: usize) -> Self {
        Self { acknowledged: PerWorker::new(workers), changed: Notify::new() }
    }

    /// Notes that worker number `worker` plans requests by `generation` or a later one from now on.
    pub(super) fn acknowledge(&self, worker: usize, generation: u64) {
        self.acknowledged.of(worker).fetch_max(generation, Release);
        self.changed.notify_waiters();
    }

    /// The newest generation that all workers have acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.iter().map(|generation| generation.load(Acquire)).min().unwrap_or(0)
    }

    /// Waits until all workers have acknowledged `generation`. A worker that is busy or has ended delays it
    /// indefinitely, so bound the wait.
    pub async fn passed(&self, generation: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no acknowledgement is missed.
            changed.as_mut().enable();
            if self.acknowledged() >= generation {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn it_opens_when_the_last_worker_has_acknowledged_that_generation_or_a_later_one() {
        let barrier = Barrier::new(3);
        assert_eq!(barrier.acknowledged(), 0);
        for (worker, generation, all) in [(0, 7, 0), (1, 9, 0), (2, 8, 7), (0, 3, 7), (0, 9, 8)] {
            barrier.acknowledge(worker, generation);
            assert_eq!(barrier.acknowledged(), all, "after {worker} acknowledged {generation}");
        }
    }

    #[test]
    fn who_waits_misses_no_acknowledgement_whenever_it_comes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let barrier = Arc::new(Barrier::new(2));
        for generation in 1..=2000 {
            let workers: Vec<_> = (0..2)
                .map(|worker| {
                    let barrier = Arc::clone(&barrier);
                    thread::spawn(move || barrier.acknowledge(worker, generation))
                })
                .collect();
            runtime.block_on(barrier.passed(generation));
            assert!(barrier.acknowledged() >= generation);
            workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
        }
    }
}
