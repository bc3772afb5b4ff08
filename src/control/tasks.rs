//! The controller, the samples of the workers, and the tasks of the control plane.
//!
//! Each task locks the controller only for a moment. Slow work, such as counting latencies and dropping old
//! snapshots, is done outside of that lock.

use std::{
    collections::HashSet,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};

use super::{
    Controller,
    callers::Callers,
    incidents::{Book, History},
    overtaken::Waiting,
    smoke_counts::SmokeCounts,
    supervision::Supervision,
};
use crate::{
    snapshot::Snapshot,
    telemetry::collector::{Collector, Sample},
};

/// Batches of samples that may wait for a scrape to end.
const WAITING_BATCHES: usize = 256;

/// How long a change waits for workers to acknowledge it.
const ACKNOWLEDGED: Duration = Duration::from_secs(1);

/// Interval of looks at a process before this one.
const LOOK_BESIDE: Duration = Duration::from_millis(20);

/// Interval of the attempts to drop old snapshots, while there are any.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// The controller and the samples of the workers.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    controller: Arc<Mutex<Controller>>,
    /// Samples from the workers, which the safety thread receives first.
    inbox: Arc<Mutex<mpsc::Receiver<Vec<Sample>>>>,
    outbox: mpsc::Sender<Vec<Sample>>,
    /// Locked for as long as a scrape takes, so never by the safety thread.
    latencies: Arc<Mutex<Latencies>>,
    supervision: Supervision,
    smoke_counts: Arc<SmokeCounts>,
    callers: Arc<Callers>,
    /// Held by a change on request from its plan until it is in force; by a fenced cutover until its fence is raised.
    turnstile: Arc<tokio::sync::Mutex<()>>,
    /// Changes on request that wait for their turn, or for the disk.
    waiting: Waiting,
    /// Read by each fenced cutover from its turn to its end, also while others pass the turnstile.
    moving: Arc<tokio::sync::RwLock<()>>,
    /// Rates of the last minutes; not locked by the safety thread.
    history: Arc<Mutex<History>>,
    /// Reports of incidents; not locked by the safety thread.
    book: Arc<Mutex<Book>>,
}

/// The collector, and the samples that it has not received yet.
#[derive(Debug)]
pub(super) struct Latencies {
    pub(super) collector: Collector,
    pub(super) samples: mpsc::Receiver<Vec<Sample>>,
    /// Endpoints that the collector knows.
    endpoints: HashSet<u32>,
    /// Wakes the task that notes rates.
    heard: Arc<Notify>,
}

impl ControlPlane {
    /// Created from `controller` and the channel of its workers' samples.
    pub fn new(controller: Controller, samples: mpsc::Receiver<Vec<Sample>>) -> Self {
        let collector = Collector::default();
        let (outbox, forwarded) = mpsc::channel(WAITING_BATCHES);
        let (endpoints, heard) = Default::default();
        let latencies = Latencies { collector, samples: forwarded, endpoints, heard };
        Self {
            controller: Arc::new(Mutex::new(controller)),
            inbox: Arc::new(Mutex::new(samples)),
            outbox,
            latencies: Arc::new(Mutex::new(latencies)),
            supervision: Supervision::default(),
            smoke_counts: Arc::default(),
            callers: Arc::default(),
            turnstile: Arc::default(),
            waiting: Waiting::default(),
            moving: Arc::default(),
            history: Arc::default(),
            book: Arc::default(),
        }
    }

    /// Locks the controller; hold the lock only for a moment, and never across an await.
    pub fn controller(&self) -> MutexGuard<'_, Controller> {
        // A panic in one request of the admin API must not fail all later ones. The controller's state is
        // replaced as a whole, so it is never half changed.
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until each worker plans requests by `generation`, so that every request planned by an older
    /// snapshot is counted as in flight, and until a process before this one has closed its idle connections, which it
    /// would serve by the split of the takeover. It does not wait for a worker that is busy for long: there, too, a
    /// later request is assigned by the new snapshot.
    pub async fn in_force(&self, generation: u64) {
        let shared = Arc::clone(self.controller().shared());
        if tokio::time::timeout(ACKNOWLEDGED, shared.barrier.passed(generation)).await.is_err() {
            tracing::warn!(
                generation,
                acknowledged = shared.barrier.acknowledged(),
                "a worker has not acknowledged the change yet"
            );
        }
        while self.controller().is_beside() {
            tokio::time::sleep(LOOK_BESIDE).await;
        }
    }

    /// Callers of the admin endpoint that were refused.
    pub fn callers(&self) -> &Callers {
        &self.callers
    }

    pub(super) fn smoke_counts(&self) -> &SmokeCounts {
        &self.smoke_counts
    }

    pub(super) fn turnstile(&self) -> &Arc<tokio::sync::Mutex<()>> {
        &self.turnstile
    }

    pub(super) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    pub(super) fn moving(&self) -> &Arc<tokio::sync::RwLock<()>> {
        &self.moving
    }

    pub(super) fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, mpsc::Receiver<Vec<Sample>>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the tasks of the control plane.
    pub fn supervision(&self) -> &Supervision {
        &self.supervision
    }

    /// Receives samples from the workers until they end, notes the traffic and passes the samples on.
    pub async fn hear(self) {
        loop {
            let batch = poll_fn(|cx| self.inbox().poll_recv(cx)).await;
            let Some(batch) = batch else { return };
            let lost = batch.len() as u64;
            let mut controller = self.controller();
            controller.note_traffic();
            if self.outbox.try_send(batch).is_err() {
                controller.shared().samples_dropped.fetch_add(lost, Relaxed);
            }
        }
    }

    /// Takes the samples as they come.
    pub async fn absorb(self) {
        loop {
            let batch = poll_fn(|cx| self.latencies().samples.poll_recv(cx)).await;
            let Some(batch) = batch else { return };
            let snapshot = self.controller().snapshot();
            self.latencies().absorb(&snapshot, &batch);
        }
    }

    /// Compares versions while there are any to compare, and acts on the findings.
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
                // Polls after the pause or at the next change, whichever comes first.
                Some(pause) => drop(tokio::time::timeout(pause, changed).await),
                None if changed.await.is_err() => return,
                None => {}
            }
        }
    }

    /// After each publication, drops old snapshots as soon as they are unused.
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

    /// Returns whether something remains to be dropped later.
    fn tidy_now(&self) -> bool {
        let (retired, left) = self.controller().take_retired();
        // With many routes this takes long, so it is done without holding the controller.
        drop(retired);
        let registry = Arc::clone(self.controller().registry());
        let forgotten = registry.forget_unused();
        let mut latencies = self.latencies();
        for endpoint in forgotten.endpoints {
            latencies.collector.forget_endpoint(endpoint);
            latencies.endpoints.remove(&endpoint);
            self.history().forget_endpoint(endpoint);
        }
        for version in forgotten.versions {
            latencies.collector.forget_version(version);
            self.history().forget(version);
        }
        forgotten.series.into_iter().for_each(|s| latencies.collector.forget_series(s));
        left
    }
}

impl Latencies {
    /// Notifies of traffic.
    pub(super) fn heard(&self) -> Arc<Notify> {
        Arc::clone(&self.heard)
    }

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
        self.heard.notify_one();
    }
}
