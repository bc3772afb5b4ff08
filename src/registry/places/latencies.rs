//! Latencies of the responses to a route, which a limit of requests in flight follows.

use super::super::cells::{Counter, PerWorker};
use crate::policy::adaptive::Latencies;

/// Latencies of a route, by worker.
#[derive(Debug)]
pub struct LatencyState {
    /// Dense number, unique in a process.
    pub id: u32,
    cells: PerWorker<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    count: Counter,
    sum_us: Counter,
}

impl LatencyState {
    /// No response yet, on `workers` workers.
    pub fn new(id: u32, workers: usize) -> Self {
        Self { id, cells: PerWorker::new(workers) }
    }

    /// Adds a latency. Called by `worker` only.
    pub fn add(&self, worker: usize, latency_us: u32) {
        let cells = self.cells.of(worker);
        cells.count.add(1);
        cells.sum_us.add(latency_us.into());
    }

    /// All of them so far.
    pub fn all(&self) -> Latencies {
        Latencies {
            count: self.cells.sum(|cells| cells.count.read()),
            sum_us: self.cells.sum(|cells| cells.sum_us.read()),
        }
    }
}
