//! Live state by identity: counters of versions, endpoints and series.
//!
//! A reload builds a new snapshot, but a version that stays keeps its counters, because the snapshot
//! holds an `Arc` to what the registry knows under the same identity. Each counter exists once per
//! worker, on cache lines of its own, and only that worker writes it: plain relaxed stores, no
//! read-modify-write. Readers add the workers up.

mod evidence;
mod outcomes;
mod players;
mod standing;

use std::{
    collections::HashMap,
    hash::Hash,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    analysis::{self, ENDPOINT_GROUPS},
    telemetry::seldom::Seldom,
};

pub use evidence::{AmountEvidenceCells, EvidenceCells, EvidenceState, StratumState};
pub use outcomes::{ENDPOINTS, Outcomes};
pub use players::{Player, PlayerSet};
pub use standing::Standing;

/// A count that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Called by the owning worker only: two writers would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count so far.
    pub fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A sum that one thread writes and others read: an `f64`, since amounts of money may be large and have
/// decimals.
#[derive(Debug, Default)]
pub struct Sum(AtomicU64);

impl Sum {
    /// Adds `amount`. Called by the owning worker only.
    pub fn add(&self, amount: f64) {
        self.0.store((self.read() + amount).to_bits(), Relaxed);
    }

    /// The sum so far.
    pub fn read(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// One `T` per worker, each on cache lines of its own (128 bytes: adjacent lines are fetched in pairs).
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Padded<T>]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerWorker<T> {
    /// A default `T` for each of `workers`.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Padded::default()).collect())
    }
}

impl<T> PerWorker<T> {
    /// The cell of worker number `worker`.
    pub fn of(&self, worker: usize) -> &T {
        &self.0[worker].0
    }

    /// The cells of all workers, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|cell| &cell.0)
    }

    /// The sum over all workers of what `count` reads.
    pub fn sum(&self, count: impl Fn(&T) -> u64) -> u64 {
        self.iter().map(count).fold(0, u64::wrapping_add)
    }
}

/// Why an upstream attempt failed; the `kind` label of `tidegate_upstream_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No connection.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Reset,
    /// The answer was not HTTP.
    Protocol,
    /// The answer was a 5xx.
    Status,
}

impl ErrorKind {
    /// All kinds, in the order of [`EndpointCells::errors`].
    pub const ALL: [Self; 5] =
        [Self::Connect, Self::Timeout, Self::Reset, Self::Protocol, Self::Status];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Status => "status",
        }
    }
}

/// Why an attempt was made again; the `reason` label of `tidegate_retries_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// The endpoint could not be connected, so nothing had been sent.
    Connect,
    /// A kept connection turned out to be closed before any byte of an answer.
    StaleConnection,
}

impl RetryReason {
    /// All reasons, in the order of [`VersionCells::retries`].
    pub const ALL: [Self; 2] = [Self::Connect, Self::StaleConnection];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::StaleConnection => "stale_connection",
        }
    }
}

/// Counts of a version, by worker.
#[derive(Debug, Default)]
pub struct VersionCells {
    /// Requests assigned.
    pub started: Counter,
    /// Of those, ended in any way.
    pub finished: Counter,
    /// Of those, answered 5xx, by the version or on its behalf.
    pub errors: Counter,
    /// Attempts made again, by [`RetryReason`].
    pub retries: [Counter; 2],
    /// Requests that began to wait for a connection.
    pub pending: Counter,
    /// Of those, that wait no more.
    pub connected: Counter,
    /// Requests answered by the circuit breaker: since too many were in flight, or waited.
    pub shed: [Counter; 2],
}

/// Counts of an endpoint, by worker.
#[derive(Debug, Default)]
pub struct EndpointCells {
    /// Attempts begun.
    pub started: Counter,
    /// Of those, ended in any way.
    pub finished: Counter,
    /// Failures by [`ErrorKind`].
    pub errors: [Counter; 5],
    /// New connections made.
    pub connected: Counter,
    /// Microseconds that it took to make them, TLS included.
    pub connecting_us: Counter,
    /// First attempts that ended, of those that are compared.
    pub trials: Counter,
    /// Of those, failed.
    pub failures: Counter,
}

/// First attempts at an endpoint by players who count, and those of them that failed. The evaluator decides
/// who counts, and alone writes.
#[derive(Debug, Default)]
pub struct Judged {
    trials: Counter,
    failures: Counter,
}

impl Judged {
    /// Adds what was counted. Called by the evaluator only.
    pub fn add(&self, counted: analysis::Counter) {
        self.trials.add(counted.trials);
        self.failures.add(counted.failures);
    }

    /// The counts so far.
    pub fn read(&self) -> analysis::Counter {
        // Failures first: read the other way around, there could be one more than trials.
        let failures = self.failures.read();
        analysis::Counter { trials: self.trials.read(), failures }
    }
}

impl EndpointCells {
    /// Attempts that got no connection.
    pub fn connect_faults(&self) -> u64 {
        self.errors[ErrorKind::Connect as usize].read()
    }
}

/// Answers of a series by class: 1xx (never final), 2xx, 3xx, 4xx, 5xx; the sixth counts requests whose
/// client left before an answer.
#[derive(Debug, Default)]
pub struct SeriesCells {
    /// Counts by class of the status.
    pub classes: [Counter; 6],
}

/// A version's live state.
#[derive(Debug)]
pub struct VersionState {
    /// Dense number, never used twice in a process.
    pub id: u32,
    /// Its counts.
    pub cells: PerWorker<VersionCells>,
}

/// An endpoint's live state.
#[derive(Debug)]
pub struct EndpointState {
    /// Dense number, never used twice in a process; indexes the workers' pools.
    pub id: u32,
    /// The version it belongs to.
    pub version: u32,
    /// Its group among the endpoints of its version, by which the comparison tells them apart: with no more
    /// endpoints than groups, a group of its own.
    pub group: u8,
    /// Where it is reached.
    pub address: SocketAddr,
    /// The same as text.
    pub label: Box<str>,
    /// Its counts.
    pub cells: PerWorker<EndpointCells>,
    /// The same of players, by which it is compared with another version's.
    pub judged: Judged,
    /// Whether it serves.
    pub standing: Standing,
    /// Until when it warms up, in microseconds since the process started: its latency is not compared.
    warm_from_us: AtomicU64,
    /// Says that it does not speak TLS as it should.
    pub complaint: Seldom,
}

impl EndpointState {
    /// First attempts so far that are compared.
    pub fn attempts(&self) -> analysis::Counter {
        // Failures first: read the other way around, there could be one more than trials.
        let failures = self.cells.sum(|cells| cells.failures.read());
        analysis::Counter { trials: self.cells.sum(|cells| cells.trials.read()), failures }
    }

    /// Says that it has just joined, or come back, and warms up until `warm` since the process started.
    pub fn warm_up_until(&self, warm: Duration) {
        self.warm_from_us.store(warm.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    /// Attempts of `worker` that began and have not ended.
    pub fn in_flight_on(&self, worker: usize) -> u64 {
        let cells = self.cells.of(worker);
        cells.started.read().wrapping_sub(cells.finished.read())
    }

    /// Whether it may be warming up.
    pub fn warms_up(&self) -> bool {
        self.warm_from_us.load(Relaxed) != 0
    }

    /// Whether it is warm at `now` since the process started.
    pub fn is_warm(&self, now: Duration) -> bool {
        let us = self.warm_from_us.load(Relaxed);
        us == 0 || now >= Duration::from_micros(us)
    }
}

/// A service's live state.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// Players of a canary who are sent to the baseline for a while.
    pub diverted: PlayerSet,
}

/// State of one (service, version, route).
#[derive(Debug)]
pub struct SeriesState {
    /// Dense number, never used twice in a process.
    pub id: u32,
    /// Its counts.
    pub cells: PerWorker<SeriesCells>,
}

/// An amount of a version, by worker: that of all its answers.
#[derive(Debug, Default)]
pub struct AmountCells {
    /// Answers that carried it; of a derived one, any of those that it is made of.
    pub count: Counter,
    /// What they carried.
    pub sum: Sum,
    /// Answers in which it could not be read.
    pub malformed: Counter,
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

/// All live state. Owned by the controller; workers reach what they need through the snapshot.
///
/// Each map is locked for one look-up at a time, so that a snapshot of ten thousand routes is compiled beside
/// the controller, and an ejection does not wait for it.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    versions: States<(String, String), VersionState>,
    endpoints: States<(u32, SocketAddr), EndpointState>,
    series: States<(u32, String), SeriesState>,
    services: States<String, ServiceState>,
    strata: States<(String, Option<String>), StratumState>,
    evidence: States<(u32, Option<String>), EvidenceState>,
    amounts: States<(u32, String), AmountState>,
    amount_evidence: States<(u32, Option<String>, String), AmountEvidenceState>,
    outcomes: Arc<Outcomes>,
    next_id: [AtomicU32; 3],
    next_evidence: AtomicU32,
}

/// States by identity.
#[derive(Debug)]
struct States<K, S>(Mutex<HashMap<K, Arc<S>>>);

impl<K: Eq + Hash, S> States<K, S> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<S>>> {
        // A state is added or removed whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: K, new: impl FnOnce() -> S) -> Arc<S> {
        Arc::clone(self.lock().entry(key).or_insert_with(|| Arc::new(new())))
    }

    /// Removes states that nobody else holds, and drops them after the lock was let go.
    fn take_unused(&self) -> Vec<Arc<S>> {
        let is_unused = |_: &K, state: &mut Arc<S>| Arc::strong_count(state) == 1;
        self.lock().extract_if(is_unused).map(|(_, state)| state).collect()
    }
}

impl Registry {
    /// An empty registry for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            versions: States::new(),
            endpoints: States::new(),
            series: States::new(),
            services: States::new(),
            strata: States::new(),
            evidence: States::new(),
            amounts: States::new(),
            amount_evidence: States::new(),
            outcomes: Arc::new(Outcomes::new(workers)),
            next_id: Default::default(),
            next_evidence: AtomicU32::new(0),
        }
    }

    /// Where workers say how attempts ended.
    pub fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// How many workers count.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The state of `version` of `service`, new if unknown.
    pub fn version(&self, service: &str, version: &str) -> Arc<VersionState> {
        self.versions.find((service.to_owned(), version.to_owned()), || VersionState {
            id: take(&self.next_id[0]),
            cells: PerWorker::new(self.workers),
        })
    }

    /// The state of the endpoint at `address` of the version numbered `version`, new if unknown.
    pub fn endpoint(&self, version: u32, address: SocketAddr) -> Arc<EndpointState> {
        let mut known = self.endpoints.lock();
        if let Some(state) = known.get(&(version, address)) {
            return Arc::clone(state);
        }
        let before = known.keys().filter(|(of, _)| *of == version).count();
        let state = Arc::new(EndpointState {
            id: take(&self.next_id[1]),
            version,
            group: (before % ENDPOINT_GROUPS) as u8,
            address,
            label: address.to_string().into(),
            cells: PerWorker::new(self.workers),
            judged: Judged::default(),
            standing: Standing::default(),
            warm_from_us: AtomicU64::new(0),
            complaint: Seldom::default(),
        });
        known.insert((version, address), Arc::clone(&state));
        state
    }

    /// The state of `route` on the version numbered `version`, new if unknown.
    pub fn series(&self, version: u32, route: &str) -> Arc<SeriesState> {
        self.series.find((version, route.to_owned()), || SeriesState {
            id: take(&self.next_id[2]),
            cells: PerWorker::new(self.workers),
        })
    }

    /// The state of `service` as a whole, new if unknown.
    pub fn service(&self, service: &str) -> Arc<ServiceState> {
        self.services.find(service.to_owned(), ServiceState::default)
    }

    /// What the versions of `service` share over `route`, or over all routes without limits of their own;
    /// new if unknown.
    pub fn stratum(&self, service: &str, route: Option<&str>) -> Arc<StratumState> {
        let key = (service.to_owned(), route.map(str::to_owned));
        self.strata.find(key, StratumState::default)
    }

    /// The evidence of the version numbered `version` over `route`, or over all routes of its service
    /// without limits of their own; new if unknown.
    pub fn evidence(&self, version: u32, route: Option<&str>) -> Arc<EvidenceState> {
        self.evidence.find((version, route.map(str::to_owned)), || EvidenceState {
            id: take(&self.next_evidence),
            cells: PerWorker::new(self.workers),
        })
    }

    /// The state of the amount called `name` of the version numbered `version`, new if unknown.
    pub fn amount(&self, version: u32, name: &str) -> Arc<AmountState> {
        let key = (version, name.to_owned());
        self.amounts.find(key, || AmountState { cells: PerWorker::new(self.workers) })
    }

    /// The evidence of the amount that `what` stands for, a field or several with their signs, as
    /// [`Self::evidence`] has that of failures.
    pub fn amount_evidence(
        &self,
        version: u32,
        route: Option<&str>,
        what: &str,
    ) -> Arc<AmountEvidenceState> {
        let key = (version, route.map(str::to_owned), what.to_owned());
        let new = || AmountEvidenceState { cells: PerWorker::new(self.workers) };
        self.amount_evidence.find(key, new)
    }

    /// Forgets what no snapshot holds any more; answers the numbers forgotten.
    pub fn forget_unused(&self) -> Forgotten {
        self.services.take_unused();
        self.strata.take_unused();
        self.evidence.take_unused();
        self.amounts.take_unused();
        self.amount_evidence.take_unused();
        Forgotten {
            versions: self.versions.take_unused().iter().map(|state| state.id).collect(),
            endpoints: self.endpoints.take_unused().iter().map(|state| state.id).collect(),
            series: self.series.take_unused().iter().map(|state| state.id).collect(),
        }
    }
}

/// Numbers of what left, for those who keep something by number.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Of versions.
    pub versions: Vec<u32>,
    /// Of endpoints.
    pub endpoints: Vec<u32>,
    /// Of series.
    pub series: Vec<u32>,
}

fn take(next: &AtomicU32) -> u32 {
    next.fetch_add(1, Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_keeps_its_counts_and_what_left_is_forgotten() {
        let registry = Registry::new(2);
        let version = registry.version("game-api", "v1");
        version.cells.of(0).started.add(2);
        version.cells.of(1).started.add(3);
        let address = SocketAddr::from(([127, 0, 0, 1], 9001));
        let endpoint = registry.endpoint(version.id, address);
        assert_eq!(registry.forget_unused(), Forgotten::default());
        assert_eq!(registry.version("game-api", "v1").cells.sum(|c| c.started.read()), 5);
        let (versions, endpoints) = (vec![version.id], vec![endpoint.id]);
        drop((version, endpoint));
        assert_eq!(registry.forget_unused(), Forgotten { versions, endpoints, series: vec![] });
        let again = registry.version("game-api", "v1");
        assert_eq!((again.id, again.cells.sum(|c| c.started.read())), (1, 0));
    }
}
