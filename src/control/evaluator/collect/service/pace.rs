//! When blocks are collected: soon if something may count against a canary.

use std::time::Duration;

use super::{super::super::IDLE_LOOK, ServiceCollector, canary::CanaryCollector};

/// Requests between two evaluations while no version is compared, and the shortest interval between them.
const REQUESTS_AT_ONCE: f64 = 8_000.0;
const SHORTEST_IDLE_LOOK: Duration = Duration::from_millis(50);

/// Polling interval of a canary, and the shorter one while it has failures. An evaluation costs the safety thread
/// about as much as a hundred requests, mostly for cache misses.
const LOOK: Duration = Duration::from_millis(10);
const SUSPECT_LOOK: Duration = Duration::from_millis(2);
/// How long outcomes wait for a comparison if none of them counts against a canary: their blocks are the same
/// whenever they are judged, and no other evidence grows. This saves half of the cost of an evaluation.
const JUDGED_AT_LAST: Duration = Duration::from_millis(50);

impl ServiceCollector {
    /// Whether blocks should be collected and judged at `now`.
    pub(in crate::control::evaluator) fn is_due(&self, now: Duration) -> bool {
        self.has_news
            || now.saturating_sub(self.collected) >= JUDGED_AT_LAST
            || self.open().any(CanaryCollector::is_suspect)
    }

    /// Time until the next evaluation; `follows`: players are followed after an ejection.
    pub(in crate::control::evaluator) fn next_look(&self, follows: bool) -> Duration {
        // Requests that fail within this time are the cost of waiting.
        match self.open().next().is_some() {
            true if self.open().any(CanaryCollector::is_suspect) => SUSPECT_LOOK,
            true => LOOK,
            false if follows => SHORTEST_IDLE_LOOK,
            // Soon enough that the workers' rings do not overflow.
            false => Duration::from_secs_f64(REQUESTS_AT_ONCE / self.traffic.per_s().max(1.0))
                .clamp(SHORTEST_IDLE_LOOK, IDLE_LOOK),
        }
    }
}
