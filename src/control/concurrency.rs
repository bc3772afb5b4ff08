//! The control plane's side of limits of requests in flight: brings their terms into force, and lets adaptive ones
//! follow the latency.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Controller, tasks::ControlPlane};
use crate::snapshot::Snapshot;

/// Interval of the ticks of adaptive limits.
const TICK: Duration = Duration::from_millis(100);

/// The same while there are no responses.
const IDLE_TICK: Duration = Duration::from_secs(1);

impl Controller {
    /// Brings the terms of the limits of `next`, which is published, into force.
    pub(super) fn adopt_limits(&self, next: &Snapshot) {
        if Arc::ptr_eq(&self.snapshot().concurrency, &next.concurrency) {
            return;
        }
        for limit in next.concurrency.iter() {
            limit.state.adopt(limit.terms, self.started().0.elapsed());
        }
    }
}

impl ControlPlane {
    /// Lets adaptive limits follow the latency, as long as there are some.
    pub async fn adapt(self) {
        let mut published = self.controller().published();
        let began = self.controller().started().0;
        loop {
            published.mark_unchanged();
            let snapshot = self.controller().snapshot();
            let pause = tick(&snapshot, began.elapsed());
            drop(snapshot);
            let changed = published.changed();
            match pause {
                // Until the next tick, or until the next change.
                Some(pause) => drop(tokio::time::timeout(pause, changed).await),
                None if changed.await.is_err() => return,
                None => {}
            }
        }
    }
}

/// Lets the adaptive limits of `snapshot` follow the latency, and returns when they do so next; `None` if there are none.
fn tick(snapshot: &Snapshot, now: Duration) -> Option<Duration> {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut pause = None;
    for limit in snapshot.concurrency.iter().filter(|limit| limit.is_adaptive()) {
        let next = if limit.tick(unix, now) { TICK } else { IDLE_TICK };
        pause = Some(pause.map_or(next, |pause: Duration| pause.min(next)));
    }
    pause
}
