//! Asks endpoints and looks after them, for as long as the process lives.

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::tasks::ControlPlane;

/// Probes under way at once: they share a thread with what ejects.
const AT_ONCE: usize = 64;

impl ControlPlane {
    /// Asks endpoints when they are due, acts on what is found, and sleeps while there is nothing to
    /// watch.
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
                    // A panic must not leave the endpoint asked for ever.
                    let asked = tokio::spawn(probe.ask()).await;
                    (id, asked.unwrap_or_else(|error| Err(error.to_string())))
                });
            }
            tokio::select! {
                Some(ended) = under_way.join_next() => {
                    // Those that came together are published together.
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

/// Waits until `at`, or for ever.
async fn passed(at: Option<std::time::Instant>) {
    match at {
        Some(at) => sleep_until(Instant::from_std(at)).await,
        None => std::future::pending().await,
    }
}
