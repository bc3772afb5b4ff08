//! What acceptor, workers and controller share.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{Semaphore, mpsc};

use super::{
    accept::Wants,
    barrier::Barrier,
    client_limits::{ClientLimits, ConnectionSlot},
    forwarded::contains,
    granted::{Bounds, Granted},
    limit::{LimitKind, SHED_AT_ONCE},
};
use crate::{
    registry::{Counter, PerWorker},
    snapshot::Snapshot,
    telemetry::collector::Sample,
    tls::TlsListener,
};

/// Statuses of answers that no version gave; the last place is for all others.
const UNROUTED: [u16; 10] = [400, 404, 408, 414, 417, 431, 501, 503, 505, 0];

/// Shared by acceptor, workers and controller.
#[derive(Debug)]
pub struct Shared {
    /// When the process started: what all times of the comparison are counted from.
    pub started: Instant,
    /// The snapshot in force. The controller swaps it; workers look at it once per request.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Opens once all workers plan by a snapshot.
    pub barrier: Barrier,
    /// Open client connections of each worker, by which the acceptor chooses.
    pub loads: PerWorker<AtomicUsize>,
    /// Counts of each worker that belong to no version.
    pub cells: PerWorker<WorkerCells>,
    /// Where workers hand over their samples.
    pub samples: mpsc::Sender<Vec<Sample>>,
    /// What the process is granted.
    pub granted: Granted,
    /// Connections of clients and to endpoints that could not be had for want of a resource.
    pub wants: Wants,
    /// Samples that were dropped after they had been handed over.
    pub samples_unheard: AtomicU64,
    pub(super) client_limits: ClientLimits,
    /// Connections that may be told at the same time that there are too many.
    pub(super) shedding: Semaphore,
}

/// Counts of one worker that belong to no version.
#[derive(Debug, Default)]
pub struct WorkerCells {
    unrouted: [Counter; UNROUTED.len()],
    /// Connections of HTTP/2 ended for a flood of frames, or for answers that their client does not read.
    pub floods: Counter,
    /// Panics survived.
    pub panics: Counter,
    /// Samples dropped because the collector did not keep up.
    pub samples_lost: Counter,
    /// Requests answered 503, since there were too many in flight.
    pub requests_shed: Counter,
    /// Likewise, since there were too many of their client.
    pub requests_shed_per_client: Counter,
}

impl WorkerCells {
    /// Counts an answer with `status` that no version gave.
    pub(super) fn count_unrouted(&self, status: u16) {
        let known = UNROUTED.iter().position(|s| *s == status);
        self.unrouted[known.unwrap_or(UNROUTED.len() - 1)].add(1);
    }

    /// Counts a request above a limit.
    pub(super) fn count_shed(&self, surplus: LimitKind) {
        match surplus {
            LimitKind::OfAll => self.requests_shed.add(1),
            LimitKind::OfClient => self.requests_shed_per_client.add(1),
        }
    }
}

impl Shared {
    /// Shared state of `workers` workers, that have what is `granted`.
    pub fn new(
        workers: usize,
        snapshot: Snapshot,
        samples: mpsc::Sender<Vec<Sample>>,
        granted: Granted,
    ) -> Self {
        Self {
            started: Instant::now(),
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            barrier: Barrier::new(workers),
            loads: PerWorker::new(workers),
            cells: PerWorker::new(workers),
            samples,
            granted,
            wants: Wants::default(),
            samples_unheard: AtomicU64::new(0),
            client_limits: ClientLimits::default(),
            shedding: Semaphore::new(SHED_AT_ONCE),
        }
    }

    /// How many workers there are.
    pub(super) fn workers(&self) -> usize {
        self.loads.iter().count()
    }

    /// Open client connections.
    pub fn connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(Relaxed)).sum()
    }

    /// The limits of connections as they hold.
    pub fn bounds(&self) -> Bounds {
        self.granted.bound(&self.snapshot.load().limits)
    }

    /// Reserves a connection slot for `client`. A trusted proxy stands for many clients and needs none.
    pub(super) fn slot(&self, client: IpAddr) -> Result<Option<ConnectionSlot>, LimitKind> {
        let snapshot = self.snapshot.load();
        if contains(&snapshot.trusted_proxies, client) {
            return Ok(None);
        }
        let limit = self.granted.bound(&snapshot.limits).connections_per_client;
        self.client_limits.enter(client, limit).map(Some).ok_or(LimitKind::OfClient)
    }

    /// Answers that no version gave, by status; 0 stands for statuses without a place of their own.
    pub fn unrouted(&self) -> Vec<(u16, u64)> {
        UNROUTED
            .iter()
            .enumerate()
            .map(|(place, status)| (*status, self.cells.sum(|c| c.unrouted[place].read())))
            .collect()
    }
}

/// What is known of a listening socket while it runs.
#[derive(Debug, Default)]
pub struct ListenerState {
    /// Address as bound.
    pub name: String,
    /// Peers whose connections begin with a PROXY protocol head.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Open client connections.
    pub open: AtomicU64,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections answered 503 and closed, since there were too many.
    pub shed: AtomicU64,
    /// Handshakes that failed.
    pub handshakes_failed: AtomicU64,
    /// Its certificates, if clients speak TLS.
    pub tls: Option<TlsListener>,
    /// Likewise, since there were too many of their address.
    pub shed_per_client: AtomicU64,
    /// Connections closed since they did not begin with the PROXY protocol head that they had to have.
    pub proxy_protocol_errors: AtomicU64,
}

impl ListenerState {
    /// Whether a connection of `peer` begins with a PROXY protocol head.
    pub(super) fn is_introduced_by(&self, peer: IpAddr) -> bool {
        contains(&self.proxy_protocol_from, peer)
    }

    /// Counts a connection above a limit.
    pub(super) fn count_shed(&self, surplus: LimitKind) {
        let count = match surplus {
            LimitKind::OfAll => &self.shed,
            LimitKind::OfClient => &self.shed_per_client,
        };
        count.fetch_add(1, Relaxed);
    }
}
