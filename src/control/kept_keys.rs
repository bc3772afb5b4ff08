//! Watches whether idempotency keys can be written, and whether issuers have keys.

use std::time::Duration;

use super::{controller::Found, tasks::ControlPlane};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl ControlPlane {
    /// Records what befalls keys, for the lifetime of the process.
    pub async fn watch_keys(self) {
        let mut found = Found::default();
        loop {
            self.controller().watch_keys(&mut found);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
