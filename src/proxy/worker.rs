//! The state of a worker: its snapshot, buffers and connections, and the data to hand over.
//!
//! Only the worker's own thread accesses it; `run.rs` has the loop.

use std::{
    cell::{Cell, Ref, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Waker,
    thread,
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    buffer::Blocks,
    client_limits::ConnectionSlot,
    date::Date,
    h2::{AllConnections, H2Pool},
    known_tokens::KnownTokens,
    shared::{ListenerState, Shared},
};
use crate::{
    snapshot::Snapshot,
    telemetry::{
        access_log::Lines,
        collector::{BATCH, Sample},
    },
    upstream::pool::Pools,
};

/// A snapshot in a worker. Requests hold it by an `Rc`, so that the reference count of the `Arc`, which all
/// workers share, is written once per snapshot and not once per request.
pub(super) struct WorkerSnapshot {
    snapshot: Arc<Snapshot>,
    /// This worker's part of `limits.requests`.
    pub(super) requests: u32,
    /// `limits.requests_per_client`.
    pub(super) requests_per_client: u32,
}

impl WorkerSnapshot {
    fn new(snapshot: &Arc<Snapshot>, shared: &Shared) -> Self {
        let bounds = shared.granted.bound(&snapshot.limits);
        Self {
            snapshot: Arc::clone(snapshot),
            requests: part(bounds.requests, shared.workers()),
            requests_per_client: bounds.requests_per_client,
        }
    }
}

impl std::ops::Deref for WorkerSnapshot {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// One worker's part of a limit, rounded up so that no worker's part is 0.
fn part(limit: u32, workers: usize) -> u32 {
    limit.div_ceil(u32::try_from(workers).unwrap_or(u32::MAX).max(1))
}

/// The state of a worker; only its own thread accesses it.
pub(super) struct Worker {
    pub(super) id: usize,
    pub(super) shared: Arc<Shared>,
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    /// The same snapshot, with a reference count that no other core writes.
    current: RefCell<Rc<WorkerSnapshot>>,
    pub(super) blocks: Blocks,
    pub(super) pools: RefCell<Pools>,
    pub(super) streams: RefCell<H2Pool>,
    /// HTTP/2 connections of clients.
    pub(super) h2_clients: AllConnections,
    pub(super) samples: RefCell<Vec<Sample>>,
    pub(super) lines: RefCell<Lines>,
    /// Wakes the periodic task when there is work.
    pub(super) busy: Notify,
    /// Notifies requests that wait to be sent once more of each snapshot.
    pub(super) refreshed: Notify,
    date: RefCell<Date>,
    /// Whether responses close their connections.
    pub(super) parting: Cell<bool>,
    /// When idle connections are closed, while the worker drains.
    pub(super) idle_until: Cell<Option<Instant>>,
    /// When connections that switched protocols are closed, while the worker drains.
    pub(super) upgraded_until: watch::Sender<Option<Instant>>,
    /// Requests in flight.
    pub(super) requests: Cell<u32>,
    pub(super) clients: RefCell<Clients>,
    /// Tokens of clients that were verified.
    pub(super) tokens: RefCell<KnownTokens>,
    /// Clients of authorizers, by number.
    pub(super) authorizers: RefCell<HashMap<u64, reqwest::Client>>,
    pub(super) drained: RefCell<Vec<std::sync::mpsc::Sender<()>>>,
}

impl Worker {
    pub(super) fn new(id: usize, shared: Arc<Shared>) -> Self {
        let mut snapshot = Cache::new(Arc::clone(&shared.snapshot));
        let current = Rc::new(WorkerSnapshot::new(snapshot.load(), &shared));
        shared.barrier.acknowledge(id, current.generation);
        Self {
            id,
            shared,
            snapshot: RefCell::new(snapshot),
            current: RefCell::new(current),
            blocks: Blocks::default(),
            pools: RefCell::default(),
            streams: RefCell::default(),
            h2_clients: AllConnections::default(),
            samples: RefCell::default(),
            lines: RefCell::default(),
            busy: Notify::new(),
            refreshed: Notify::new(),
            date: RefCell::new(Date::new()),
            parting: Cell::new(false),
            idle_until: Cell::new(None),
            upgraded_until: watch::Sender::new(None),
            requests: Cell::new(0),
            clients: RefCell::default(),
            tokens: RefCell::default(),
            authorizers: RefCell::default(),
            drained: RefCell::default(),
        }
    }

    /// Time since the process started.
    pub(super) fn since_start(&self, now: Instant) -> Duration {
        now.into_std().saturating_duration_since(self.shared.started)
    }

    /// A guard that counts a panic of the task that holds it.
    pub(super) fn count_panic(self: &Rc<Self>) -> PanicCounter {
        PanicCounter(Rc::clone(self))
    }

    /// The snapshot in force. Read once per request, when its head is complete.
    pub(super) fn snapshot(&self) -> Rc<WorkerSnapshot> {
        let mut cache = self.snapshot.borrow_mut();
        let latest = cache.load();
        let mut current = self.current.borrow_mut();
        if !Arc::ptr_eq(latest, &current.snapshot) {
            *current = Rc::new(WorkerSnapshot::new(latest, &self.shared));
        }
        Rc::clone(&current)
    }

    /// Records a finished request.
    pub(super) fn record(&self, sample: Sample) {
        let mut samples = self.samples.borrow_mut();
        if samples.is_empty() {
            self.busy.notify_one();
        }
        samples.push(sample);
        if samples.len() >= BATCH {
            drop(samples);
            self.hand_over_samples();
        }
    }

    /// Wakes the periodic task.
    pub(super) fn keep_ticking(&self) {
        self.busy.notify_one();
    }

    fn hand_over_samples(&self) {
        let batch = std::mem::take(&mut *self.samples.borrow_mut());
        if batch.is_empty() {
            return;
        }
        let lost = batch.len() as u64;
        if self.shared.samples.try_send(batch).is_err() {
            self.shared.cells.of(self.id).samples_lost.add(lost);
        }
    }

    pub(super) fn hand_over(&self) {
        self.hand_over_samples();
        if let Some(log) = &self.snapshot().access_log {
            log.sender.try_send(&mut self.lines.borrow_mut());
        }
    }

    /// The current date in the format of HTTP (RFC 9110 section 5.6.7), rendered once per second.
    pub(super) fn date(&self, now: Instant) -> Ref<'_, str> {
        self.date.borrow_mut().renew(now);
        Ref::map(self.date.borrow(), |date| date.text.as_str())
    }

    pub(super) fn answer_drained(&self) {
        let clients = self.clients.borrow();
        if clients.free.len() == clients.wakers.len() {
            for done in self.drained.borrow_mut().drain(..) {
                let _ = done.send(());
            }
        }
    }
}

/// Open client connections: a slot for each, with the waker of its task after the first poll, so that idle
/// connections notice a drain.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// Counts an open client connection until it is dropped.
pub(super) struct ConnectionGuard {
    worker: Rc<Worker>,
    listener: Arc<ListenerState>,
    place: usize,
    slot: Option<ConnectionSlot>,
}

impl ConnectionGuard {
    pub(super) fn new(
        worker: &Rc<Worker>,
        listener: Arc<ListenerState>,
        slot: Option<ConnectionSlot>,
    ) -> Self {
        let mut clients = worker.clients.borrow_mut();
        let place = clients.free.pop().unwrap_or_else(|| {
            clients.wakers.push(None);
            clients.wakers.len() - 1
        });
        Self { worker: Rc::clone(worker), listener, place, slot }
    }

    /// The worker that serves it.
    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Its slot; `None` if it acts for many clients.
    pub(super) fn slot(&self) -> Option<&ConnectionSlot> {
        self.slot.as_ref()
    }

    /// The listening socket.
    pub(super) fn listener(&self) -> &ListenerState {
        &self.listener
    }

    /// Stores the slot, which is reserved when the client's address is known.
    pub(super) fn set_slot(&mut self, slot: Option<ConnectionSlot>) {
        self.slot = slot;
    }

    /// Registers the waker of the connection's task for a drain.
    pub(super) fn wake_by(&self, waker: &Waker) {
        self.worker.clients.borrow_mut().wakers[self.place] = Some(waker.clone());
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut clients = self.worker.clients.borrow_mut();
        clients.wakers[self.place] = None;
        clients.free.push(self.place);
        drop(clients);
        self.worker.shared.loads.of(self.worker.id).fetch_sub(1, Relaxed);
        self.listener.open.fetch_sub(1, Relaxed);
        if self.worker.idle_until.get().is_some() {
            self.worker.answer_drained();
        }
    }
}

/// Counts a panic of the task that holds it.
pub(super) struct PanicCounter(Rc<Worker>);

impl Drop for PanicCounter {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.shared.cells.of(self.0.id).panics.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_limit_make_up_at_least_the_limit() {
        for (limit, workers, expected) in
            [(65_536, 1, 65_536), (65_536, 3, 21_846), (1, 64, 1), (u32::MAX, 2, 1 << 31)]
        {
            assert_eq!(part(limit, workers), expected, "{limit} among {workers}");
        }
    }
}
