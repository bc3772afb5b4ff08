//! The task that probes endpoints and publishes changes of their state, for the lifetime of the process.

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::tasks::ControlPlane;

/// Probes in progress at once: they share a thread with the evaluator.
const AT_ONCE: usize = 64;

impl ControlPlane {
    /// Probes endpoints when they are due and acts on the results. Sleeps while there is nothing to watch.
    pub async fn attend(self) {
        let stirred = {
            let mut controller = self.controller();
            controller.resume_attending();
            controller.stirred()
        };
        let mut under_way: JoinSet<(u32, Result<(), String>)> = JoinSet::new();
        loop {
            let (probes, next) = self.controller().attend(AT_ONCE - under_way.len());
            for (id, probe) in probes {
                under_way.spawn(async move {
                    // If the probe panics, the endpoint must not stay marked as being probed.
                    let asked = tokio::spawn(probe.ask()).await;
                    (id, asked.unwrap_or_else(|error| Err(error.to_string())))
                });
            }
            tokio::select! {
                Some(ended) = under_way.join_next() => {
                    // Results that arrived together are published together.
                    let mut ended = Some(ended);
                    while let Some(one) = ended {
                        if let Ok((id, answer)) = one {
                            self.controller().endpoint_probed(id, answer);
                        }
                        ended = under_way.try_join_next();
                    }
                }
                () = stirred.notified() => {}
                () = passed(next) => {}
            }
        }
    }
}

/// Waits until `at`; without it, forever.
async fn passed(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(Instant::from_std(at)).await,
        None => std::future::pending().await,
    }
}
