//! State that the acceptor, the workers and the controller share.

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
    accept::ResourceExhaustion,
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

/// Statuses of responses made by the proxy; the last place counts all other statuses.
const UNROUTED: [u16; 17] =
    [400, 401, 403, 404, 405, 408, 409, 413, 414, 417, 422, 429, 431, 501, 503, 505, 0];

/// State shared by the acceptor, the workers and the controller.
#[derive(Debug)]
pub struct Shared {
    /// When the process started; all times of the comparison are relative to it.
    pub started: Instant,
    /// The snapshot in force. The controller swaps it; workers load it once per request.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Opens once all workers plan by a snapshot.
    pub barrier: Barrier,
    /// Open client connections of each worker; the acceptor chooses the worker with the fewest.
    pub loads: PerWorker<AtomicUsize>,
    /// Counts of each worker that belong to no version.
    pub cells: PerWorker<WorkerCells>,
    /// The channel by which workers hand over their samples.
    pub samples: mpsc::Sender<Vec<Sample>>,
    /// The resources that the process is granted.
    pub granted: Granted,
    /// Connections of clients and to endpoints that failed because this process had no resource
    /// left.
    pub exhaustion: ResourceExhaustion,
    /// Samples that were dropped after they had been handed over.
    pub samples_dropped: AtomicU64,
    pub(super) client_limits: ClientLimits,
    /// Permits to send a 503 to a connection above a limit.
    pub(super) shedding: Semaphore,
}

/// Counts of one worker that belong to no version.
#[derive(Debug, Default)]
pub struct WorkerCells {
    unrouted: [Counter; UNROUTED.len()],
    /// HTTP/2 connections ended because of a flood of frames, or of responses that the client does
    /// not read.
    pub floods: Counter,
    /// Panics survived.
    pub panics: Counter,
    /// Samples dropped because the collector did not keep up.
    pub samples_lost: Counter,
    /// Requests that were cut short: the deadline of a shutdown passed, or their task panicked.
    pub requests_cut: Counter,
    /// Requests answered 503 because too many were in flight.
    pub requests_shed: Counter,
    /// Requests answered 503 because too many of the same client were in flight.
    pub requests_shed_per_client: Counter,
}

impl WorkerCells {
    /// Counts a response with `status` made by the proxy.
    pub(super) fn count_unrouted(&self, status: u16) {
        let known = UNROUTED.iter().position(|s| *s == status);
        self.unrouted[known.unwrap_or(UNROUTED.len() - 1)].add(1);
    }

    /// Counts a request above a limit.
    pub(super) fn count_shed(&self, limit: LimitKind) {
        match limit {
            LimitKind::OfAll => self.requests_shed.add(1),
            LimitKind::OfClient => self.requests_shed_per_client.add(1),
        }
    }
}

impl Shared {
    /// Creates the state of `workers` workers with the resources `granted`.
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
            exhaustion: ResourceExhaustion::default(),
            samples_dropped: AtomicU64::new(0),
            client_limits: ClientLimits::default(),
            shedding: Semaphore::new(SHED_AT_ONCE),
        }
    }

    /// The number of workers.
    pub(super) fn workers(&self) -> usize {
        self.loads.iter().count()
    }

    /// Open client connections.
    pub fn connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(Relaxed)).sum()
    }

    /// The limits in force.
    pub fn bounds(&self) -> Bounds {
        self.granted.bound(&self.snapshot.load().limits)
    }

    /// Reserves a connection slot for `client`. A trusted proxy stands for many clients and needs
    /// none.
    pub(super) fn slot(&self, client: IpAddr) -> Result<Option<ConnectionSlot>, LimitKind> {
        let snapshot = self.snapshot.load();
        if contains(&snapshot.trusted_proxies, client) {
            return Ok(None);
        }
        let limit = self.granted.bound(&snapshot.limits).connections_per_client;
        self.client_limits.enter(client, limit).map(Some).ok_or(LimitKind::OfClient)
    }

    /// Counts of responses made by the proxy, by status; 0 stands for all statuses not listed.
    pub fn unrouted(&self) -> Vec<(u16, u64)> {
        UNROUTED
            .iter()
            .enumerate()
            .map(|(place, status)| (*status, self.cells.sum(|c| c.unrouted[place].read())))
            .collect()
    }
}

/// State of a listening socket at run time.
#[derive(Debug, Default)]
pub struct ListenerState {
    /// Address as bound.
    pub name: String,
    /// Peers whose connections begin with a PROXY protocol header.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Open client connections.
    pub open: AtomicU64,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections closed, most after a 503, because there were too many.
    pub shed: AtomicU64,
    /// Handshakes that failed.
    pub handshakes_failed: AtomicU64,
    /// Certificates and settings, if clients speak TLS.
    pub tls: Option<TlsListener>,
    /// Connections closed, most after a 503, because there were too many of the same client.
    pub shed_per_client: AtomicU64,
    /// Connections closed because they did not begin with the PROXY protocol header that is
    /// required.
    pub proxy_protocol_errors: AtomicU64,
}

impl ListenerState {
    /// Whether a connection of `peer` begins with a PROXY protocol header.
    pub(super) fn is_introduced_by(&self, peer: IpAddr) -> bool {
        contains(&self.proxy_protocol_from, peer)
    }

    /// Counts a connection above a limit.
    pub(super) fn count_shed(&self, limit: LimitKind) {
        let count = match limit {
            LimitKind::OfAll => &self.shed,
            LimitKind::OfClient => &self.shed_per_client,
        };
        count.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refusals of tokens, keys and bodies were all counted as `0`.
    #[test]
    fn refusals_of_policies_are_counted_by_their_status() {
        let cells = WorkerCells::default();
        let other = || cells.unrouted[UNROUTED.len() - 1].read();
        for status in [401, 405, 409, 413, 422] {
            cells.count_unrouted(status);
        }
        assert_eq!(other(), 0);
        cells.count_unrouted(302);
        assert_eq!(other(), 1);
    }
}
