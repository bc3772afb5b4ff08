//! Live state of a version, an endpoint, a service, a series and an amount.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    cells::{Counter, PerWorker},
    counts::{AmountCells, EndpointCells, ErrorKind, Judged, Origin, SeriesCells, VersionCells},
    evidence::AmountEvidenceCells,
    fence::FenceState,
    players::PlayerSet,
    reads::Reads,
    standing::EndpointStatus,
};
use crate::{analysis, policy::class::Class, telemetry::seldom::Seldom};

/// A version's live state.
#[derive(Debug)]
pub struct VersionState {
    /// Dense number, unique in a process.
    pub id: u32,
    /// Its counts.
    pub cells: PerWorker<VersionCells>,
    /// Whether its reads are counted in the second counter. Written by the controller only.
    second: AtomicBool,
}

impl VersionState {
    /// The state of a version with this dense number.
    pub(super) fn new(id: u32, workers: usize) -> Self {
        Self { id, cells: PerWorker::new(workers), second: AtomicBool::new(false) }
    }

    /// Which counter counts its reads that begin.
    pub fn reads(&self) -> Reads {
        if self.second.load(Relaxed) { Reads::Second } else { Reads::First }
    }

    /// Has its reads that begin counted by this counter: those that the other one counts are writes from now on.
    pub fn count_reads_in(&self, reads: Reads) {
        self.second.store(reads == Reads::Second, Relaxed);
    }

    /// Requests in flight on all workers, of `class`. Reads that began before a file that may have made writes of them are
    /// writes.
    pub fn in_flight_of(&self, class: Class) -> u64 {
        let reads = self.reads();
        match class {
            Class::Read => self.in_flight_in(reads, class),
            Class::Write => {
                self.in_flight_in(reads, class) + self.in_flight_in(reads.other(), Class::Read)
            }
        }
    }

    /// Requests in flight on all workers that began as `class`, of reads those that `reads` counts.
    pub fn in_flight_in(&self, reads: Reads, class: Class) -> u64 {
        let counter = reads.counter(class);
        // Finished first: read the other way around, a request that ends in between would count below 0.
        let finished = self.cells.sum(|cells| cells.finished[counter].read());
        let started = self.cells.sum(|cells| cells.started[counter].read());
        started.saturating_sub(finished)
    }

    /// Requests in flight on all workers.
    pub fn in_flight(&self) -> u64 {
        Class::ALL.into_iter().map(|class| self.in_flight_of(class)).sum()
    }

    /// Requests assigned so far.
    pub fn started(&self) -> u64 {
        self.cells.sum(|cells| cells.started.iter().map(|counter| counter.read()).sum())
    }

    /// Requests of clients that have ended, and of these the ones answered 5xx, from these origins.
    pub fn ended(&self, origins: &[Origin]) -> (u64, u64) {
        let sum = |counts: &[Counter; 2]| -> u64 {
            origins.iter().map(|origin| counts[*origin as usize].read()).sum()
        };
        // Errors are read first: otherwise a request that ends in between could make them exceed the requests.
        let errors = self.cells.sum(|cells| sum(&cells.errors));
        (self.cells.sum(|cells| sum(&cells.ended)), errors)
    }

    /// Requests of its players that it failed and the baseline answered instead.
    pub fn rescued(&self) -> u64 {
        self.cells.sum(|cells| cells.rescued.read())
    }
}

/// An endpoint's live state.
#[derive(Debug)]
pub struct EndpointState {
    /// Dense number, unique in a process; indexes the workers' pools.
    pub id: u32,
    /// The version it belongs to.
    pub version: u32,
    /// Its group among the endpoints of its version, by which the comparison distinguishes them. If
    /// there are no more endpoints than groups, each has a group of its own.
    pub group: u8,
    /// Its address.
    pub address: SocketAddr,
    /// The address as text.
    pub label: Box<str>,
    /// Its counts.
    pub cells: PerWorker<EndpointCells>,
    /// First attempts by players who count, by which versions are compared.
    pub judged: Judged,
    /// Whether it serves.
    pub standing: EndpointStatus,
    /// End of its warm-up, in microseconds since the process started. Until then its latency is not
    /// compared.
    pub(super) warm_from_us: AtomicU64,
    /// Limits the log messages about failed TLS handshakes.
    pub complaint: Seldom,
}

impl EndpointState {
    /// Compared first attempts so far.
    pub fn attempts(&self) -> analysis::Counter {
        // Failures are read first: otherwise they could exceed the trials.
        let failures = self.cells.sum(|cells| cells.failures.read());
        analysis::Counter { trials: self.cells.sum(|cells| cells.trials.read()), failures }
    }

    /// Failed attempts so far, in the order of [`ErrorKind::ALL`].
    pub fn failed_attempts(&self) -> [u64; ErrorKind::ALL.len()] {
        ErrorKind::ALL.map(|kind| self.cells.sum(|cells| cells.errors[kind as usize].read()))
    }

    /// Responses so far that say that it has too much to do.
    pub fn overloaded(&self) -> u64 {
        self.cells.sum(|cells| cells.overloaded.read())
    }

    /// The latest time until which such a response asks to wait, since the process started.
    pub fn rests_until(&self) -> Duration {
        let latest = self.cells.iter().map(|cells| cells.rests_until_ms.read()).max();
        Duration::from_millis(latest.unwrap_or(0))
    }

    /// Whether a check succeeded, or a connection was made, since the process started.
    pub fn was_reached(&self) -> bool {
        self.standing.checks[0].read() > 0 || self.cells.sum(|cells| cells.connected.read()) > 0
    }

    /// Whether it has answered a check or accepted a connection, or has failed to, since the process started.
    pub fn was_asked(&self) -> bool {
        let tried = |cells: &EndpointCells| cells.connected.read() + cells.connect_faults();
        self.standing.checks.iter().any(|count| count.read() > 0) || self.cells.sum(tried) > 0
    }

    /// Sets the end of its warm-up, since the process started; called when it joined or came back.
    pub fn warm_up_until(&self, warm: Duration) {
        self.warm_from_us.store(warm.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    /// Attempts in flight on all workers.
    pub fn in_flight(&self) -> u64 {
        // Finished first, as of a version.
        let finished = self.cells.sum(|cells| cells.finished.read());
        self.cells.sum(|cells| cells.started.read()).saturating_sub(finished)
    }

    /// Attempts of `worker` in flight.
    pub fn in_flight_on(&self, worker: usize) -> u64 {
        let cells = self.cells.of(worker);
        cells.started.read().wrapping_sub(cells.finished.read())
    }

    /// Whether a warm-up was set.
    pub fn warms_up(&self) -> bool {
        self.warm_from_us.load(Relaxed) != 0
    }

    /// Whether its warm-up is over at `now`, since the process started.
    pub fn is_warm(&self, now: Duration) -> bool {
        let us = self.warm_from_us.load(Relaxed);
        us == 0 || now >= Duration::from_micros(us)
    }
}

/// A service's live state.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// Holds writes while they move to another version.
    pub fence: Arc<FenceState>,
    /// Players of a canary who are sent to the baseline for a time.
    pub diverted: PlayerSet,
    /// Writes that were refused because the service is read-only.
    pub read_only_refused: AtomicU64,
}

impl ServiceState {
    /// Counts a write that was refused because the service is read-only.
    pub fn refused_read_only(&self) {
        self.read_only_refused.fetch_add(1, Relaxed);
    }
}

/// State of one (service, version, route).
#[derive(Debug)]
pub struct SeriesState {
    /// Dense number, unique in a process.
    pub id: u32,
    /// Its counts.
    pub cells: PerWorker<SeriesCells>,
}

/// State of an amount of a version.
#[derive(Debug)]
pub struct AmountState {
    /// Its counts.
    pub cells: PerWorker<AmountCells>,
}

/// Evidence of an amount of one version over some routes of its service.
#[derive(Debug)]
pub struct AmountEvidenceState {
    /// Its counts.
    pub cells: PerWorker<AmountEvidenceCells>,
}
