//! The controller and what workers sent, and the tasks that run beside it for as long as the process.
//!
//! Each task locks the controller for moments only. What takes long, counts of latency and the dropping of
//! old snapshots, is done outside of that lock.

use std::{
    collections::HashSet,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{Controller, supervision::Supervision};
use crate::{
    snapshot::Snapshot,
    telemetry::collector::{Collector, Sample},
};

/// Batches of samples that may wait for a scrape to end.
const HEARD: usize = 256;

/// How long a change waits for workers to acknowledge it.
const ACKNOWLEDGED: Duration = Duration::from_secs(1);

/// How often it is looked whether old snapshots can be dropped, while there are any.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// The controller and what the workers told, for those who look and those who change.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    controller: Arc<Mutex<Controller>>,
    /// What workers send, which the safety thread hears first.
    inbox: Arc<Mutex<mpsc::Receiver<Vec<Sample>>>>,
    heard: mpsc::Sender<Vec<Sample>>,
    /// Locked for as long as a scrape takes, so never by the safety thread.
    latencies: Arc<Mutex<Latencies>>,
    supervision: Supervision,
}

/// What the collector knows, and the samples that it was not told yet.
#[derive(Debug)]
pub(super) struct Latencies {
    pub(super) collector: Collector,
    pub(super) samples: mpsc::Receiver<Vec<Sample>>,
    /// Endpoints that the collector knows.
    endpoints: HashSet<u32>,
}

impl ControlPlane {
    /// Gathers from `controller` and from the samples that its workers send.
    pub fn new(controller: Controller, samples: mpsc::Receiver<Vec<Sample>>) -> Self {
        let collector = Collector::default();
        let (heard, forwarded) = mpsc::channel(HEARD);
        let latencies = Latencies { collector, samples: forwarded, endpoints: Default::default() };
        Self {
            controller: Arc::new(Mutex::new(controller)),
            inbox: Arc::new(Mutex::new(samples)),
            heard,
            latencies: Arc::new(Mutex::new(latencies)),
            supervision: Supervision::default(),
        }
    }

    /// The controller, locked: for a moment only, never across an await.
    pub fn controller(&self) -> MutexGuard<'_, Controller> {
        // A panic in one request of the admin API must not end all later ones; the controller's state
        // is replaced whole, so it is never half changed.
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until each worker plans by `generation`, so that every request planned by an older snapshot is
    /// counted as in flight. A worker that is busy for long is not waited for: a request that begins later
    /// is assigned by the new snapshot even there.
    pub async fn in_force(&self, generation: u64) {
        let shared = Arc::clone(self.controller().shared());
        if tokio::time::timeout(ACKNOWLEDGED, shared.barrier.passed(generation)).await.is_err() {
            tracing::warn!(
                generation,
                acknowledged = shared.barrier.acknowledged(),
                "a worker has not acknowledged the change yet"
            );
        }
    }

    pub(super) fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, mpsc::Receiver<Vec<Sample>>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of the tasks of the control plane.
    pub fn supervision(&self) -> &Supervision {
        &self.supervision
    }

    /// Hears of traffic, for as long as there are workers, and passes samples on.
    pub async fn hear(self) {
        loop {
            let batch = poll_fn(|cx| self.inbox().poll_recv(cx)).await;
            let Some(batch) = batch else { return };
            let lost = batch.len() as u64;
            let mut controller = self.controller();
            controller.note_traffic();
            if self.heard.try_send(batch).is_err() {
                controller.shared().samples_unheard.fetch_add(lost, Relaxed);
            }
        }
    }

    /// Takes in samples as they come.
    pub async fn absorb(self) {
        loop {
            let batch = poll_fn(|cx| self.latencies().samples.poll_recv(cx)).await;
            let Some(batch) = batch else { return };
            let snapshot = self.controller().snapshot();
            self.latencies().absorb(&snapshot, &batch);
        }
    }

    /// Compares versions while any are to be compared, and acts on what is found.
    pub async fn evaluate(self) {
        let mut published = {
            let mut controller = self.controller();
            controller.resume_evaluating();
            controller.published()
        };
        loop {
            let next = self.controller().evaluate();
            let changed = published.changed();
            match next {
                // Whichever comes first, it is time to look again.
                Some(pause) => drop(tokio::time::timeout(pause, changed).await),
                None if changed.await.is_err() => return,
                None => {}
            }
        }
    }

    /// After each publication, forgets what no snapshot names any more as soon as nobody holds it.
    pub async fn tidy(self) {
        let mut published = self.controller().published();
        while published.changed().await.is_ok() {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                if !self.tidy_now() {
                    break;
                }
            }
        }
    }

    /// Answers whether something is left to be forgotten later.
    fn tidy_now(&self) -> bool {
        let (retired, left) = self.controller().take_retired();
        // With many routes that takes a while, and the controller is not to be held meanwhile.
        drop(retired);
        let registry = Arc::clone(self.controller().registry());
        let forgotten = registry.forget_unused();
        let mut latencies = self.latencies();
        for endpoint in forgotten.endpoints {
            latencies.collector.forget_endpoint(endpoint);
            latencies.endpoints.remove(&endpoint);
        }
        forgotten.versions.into_iter().for_each(|v| latencies.collector.forget_version(v));
        forgotten.series.into_iter().for_each(|s| latencies.collector.forget_series(s));
        left
    }
}

impl Latencies {
    pub(super) fn absorb(&mut self, snapshot: &Snapshot, batch: &[Sample]) {
        // An endpoint is new to the collector at its first sample after a change, which is rare.
        if batch.iter().any(|s| !self.endpoints.contains(&s.endpoint)) {
            let versions = snapshot.services.iter().flat_map(|s| &s.versions);
            for endpoint in versions.flat_map(|v| &v.known).map(|known| &known.state) {
                if self.endpoints.insert(endpoint.id) {
                    self.collector.register_endpoint(endpoint.id, endpoint.version);
                }
            }
        }
        self.collector.absorb(batch, Instant::now());
    }
}
