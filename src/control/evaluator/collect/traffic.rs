//! The request rate of a service: a busier service is polled more often.

use std::time::Duration;

/// Shortest interval over which requests are counted: a burst of a few requests is no rate.
const INTERVAL: Duration = Duration::from_millis(250);

/// The rate of the last interval, and the start of the open one.
#[derive(Debug)]
pub(super) struct Traffic {
    opened: Duration,
    requests: u64,
    per_s: f64,
}

impl Traffic {
    /// Begins at `now`, with counts of `requests` so far.
    pub(super) fn new(requests: impl Iterator<Item = u64>, now: Duration) -> Self {
        Self { opened: now, requests: sum(requests), per_s: 0.0 }
    }

    /// Updates the rate with the counts of `requests` so far.
    pub(super) fn look(&mut self, requests: impl Iterator<Item = u64>, now: Duration) {
        let age = now.saturating_sub(self.opened);
        if age >= INTERVAL {
            let requests = sum(requests);
            self.per_s = requests.wrapping_sub(self.requests) as f64 / age.as_secs_f64();
            (self.opened, self.requests) = (now, requests);
        }
    }

    /// Requests per second.
    pub(super) fn per_s(&self) -> f64 {
        self.per_s
    }
}

fn sum(requests: impl Iterator<Item = u64>) -> u64 {
    requests.fold(0, u64::wrapping_add)
}
