//! The task that notes rates.
//!
//! Workers announce traffic with their samples. Only then does the task read the counters, at the end of each
//! second; a process without traffic sleeps. Nothing of this is on the path of a request.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::control::tasks::ControlPlane;

impl ControlPlane {
    /// Notes the rates of all versions at the end of each second with traffic.
    pub async fn keep_history(self) {
        let heard = self.latencies().heard();
        let started = Instant::from_std(self.controller().started().0);
        loop {
            heard.notified().await;
            let second = started.elapsed().as_secs();
            // If this wakes a little late, the requests since then count for the second that has ended.
            sleep_until(started + Duration::from_secs(second + 1)).await;
            self.note_second(second);
        }
    }

    /// Notes the rates up to now.
    pub(super) fn note_rates(&self) {
        let started = self.controller().started().0;
        self.note_second(started.elapsed().as_secs());
    }

    fn note_second(&self, second: u64) {
        let snapshot = self.controller().snapshot();
        let at_s = u32::try_from(second).unwrap_or(u32::MAX);
        self.history().note(&snapshot, at_s);
    }
}
