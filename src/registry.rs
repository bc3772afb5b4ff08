//! Live state by identity: counters of versions, endpoints and series.
//!
//! A reload builds a new snapshot, but a version that stays keeps its counters, because the
//! snapshot holds an `Arc` of the registry's state with the same identity. Each counter exists once
//! per worker, on cache lines of its own, and only that worker writes it: plain relaxed stores, no
//! read-modify-write. Readers sum over the workers.

mod authorizers;
mod cells;
mod clock;
mod counts;
mod evidence;
mod fence;
mod hold;
mod issuer_keys;
mod kept_answer;
mod key_documents;
mod key_health;
mod key_log;
mod keys;
mod outcomes;
mod pins;
mod places;
mod players;
mod rates;
mod reads;
mod refusals;
mod retries;
mod served_time;
mod standing;
mod states;

use std::{
    collections::HashMap,
    hash::Hash,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

pub use self::{
    authorizers::{AnswerKey, AskRight, AskTurn, Asked, AuthorizerState},
    cells::{Counter, PerWorker, Sum},
    counts::{AmountCells, EndpointCells, ErrorKind, Judged, Origin, SeriesCells, VersionCells},
    evidence::{AmountEvidenceCells, EvidenceCells, EvidenceState, StratumState},
    fence::{Admission, FenceState, Held, Raised, Tally, Upload},
    hold::{HeldWrite, HoldAdmission, HoldEvent, HoldState, HoldTurn},
    issuer_keys::{KeyStore, MissingKey},
    kept_answer::KeptAnswer,
    key_documents::{KeyDocument, KeyDocuments},
    key_health::{KeyHealth, KeyTrouble},
    key_log::{
        Fingerprint, KeyEnd, KeyId, KeyJob, KeyLog, KeyRow, KeyWatch, KnownHash, KnownPrint,
        RowState, Stored, Unstored,
    },
    keys::{Entered, KeyEvent, KeyFacts, KeyLease, KeyRules, KeyState, KeyTable, KeyWait},
    outcomes::{ENDPOINTS, Outcomes},
    pins::{KeptPin, PinChanges, PinCount, PinEvent, PinKey, PinTable, PinnedVersion},
    places::{Asking, LatencyState, Place, PlaceState, PlaceTerms, PlaceWait, Shed},
    players::{Player, PlayerSet},
    rates::{RateKey, RateTable},
    reads::Reads,
    refusals::RefusalCounts,
    retries::RetryState,
    served_time::{ServedTime, up_ms},
    standing::EndpointStatus,
    states::{
        AmountEvidenceState, AmountState, EndpointState, SeriesState, ServiceState, VersionState,
    },
};
pub use crate::policy::retry::{RetryReason, Withheld};
use crate::{
    analysis::ENDPOINT_GROUPS,
    config::schema::{Authorizer, Jwt, JwtAlgorithm},
    policy::rate::Rate,
    telemetry::seldom::Seldom,
};

/// All live state. Owned by the controller; workers reach it through the snapshot.
///
/// Each map is locked for one look-up at a time, so that an ejection does not wait while a snapshot
/// of ten thousand routes is compiled.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    versions: States<(String, String), VersionState>,
    endpoints: States<(u32, SocketAddr), EndpointState>,
    series: States<(u32, String), SeriesState>,
    retries: States<(String, String), RetryState>,
    services: States<String, ServiceState>,
    pins: States<String, PinTable>,
    holds: States<(String, String), HoldState>,
    keys: States<(String, String), KeyTable>,
    key_log: OnceLock<KeyLog>,
    rates: States<(String, String, Rate, u32), RateTable>,
    refusals: States<(String, String), RefusalCounts>,
    places: States<(String, Option<String>), PlaceState>,
    latencies: States<(String, String), LatencyState>,
    issuers: States<(String, String, Vec<JwtAlgorithm>), KeyStore>,
    key_documents: KeyDocuments,
    authorizers: States<(String, String), AuthorizerState>,
    strata: States<(String, Option<String>), StratumState>,
    evidence: States<(u32, Option<String>), EvidenceState>,
    amounts: States<(u32, String), AmountState>,
    amount_evidence: States<(u32, Option<String>, String), AmountEvidenceState>,
    outcomes: Arc<Outcomes>,
    next_id: [AtomicU32; 4],
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
        // No panic leaves a half-done change: states are added or removed as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: K, new: impl FnOnce() -> S) -> Arc<S> {
        Arc::clone(self.lock().entry(key).or_insert_with(|| Arc::new(new())))
    }

    /// Removes states without other owners. The caller drops them after the lock is released.
    fn take_unused(&self) -> Vec<Arc<S>> {
        self.take_unused_if(|_| true)
    }

    /// As [`Self::take_unused`], those that `may` go.
    fn take_unused_if(&self, may: impl Fn(&S) -> bool) -> Vec<Arc<S>> {
        let is_unused = |_: &K, state: &mut Arc<S>| Arc::strong_count(state) == 1 && may(state);
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
            retries: States::new(),
            services: States::new(),
            pins: States::new(),
            holds: States::new(),
            keys: States::new(),
            key_log: OnceLock::new(),
            rates: States::new(),
            refusals: States::new(),
            places: States::new(),
            latencies: States::new(),
            issuers: States::new(),
            key_documents: KeyDocuments::default(),
            authorizers: States::new(),
            strata: States::new(),
            evidence: States::new(),
            amounts: States::new(),
            amount_evidence: States::new(),
            outcomes: Arc::new(Outcomes::new(workers)),
            next_id: Default::default(),
            next_evidence: AtomicU32::new(0),
        }
    }

    /// The rings in which workers record outcomes.
    pub fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The state of `version` of `service`; created if unknown.
    pub fn version(&self, service: &str, version: &str) -> Arc<VersionState> {
        self.versions.find((service.to_owned(), version.to_owned()), || {
            VersionState::new(take(&self.next_id[0]), self.workers)
        })
    }

    /// The versions of `service` other than `but`, also those that are in no file any more and still have
    /// requests in flight.
    pub fn other_versions(
        &self,
        service: &str,
        but: Option<&str>,
    ) -> Vec<(String, Arc<VersionState>)> {
        let known = self.versions.lock();
        let others =
            known.iter().filter(|((of, version), _)| of == service && but != Some(version));
        others.map(|((_, version), state)| (version.clone(), Arc::clone(state))).collect()
    }

    /// The state of the endpoint at `address` of the version with id `version`; created if unknown.
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
            standing: EndpointStatus::default(),
            warm_from_us: AtomicU64::new(0),
            complaint: Seldom::default(),
        });
        known.insert((version, address), Arc::clone(&state));
        state
    }

    /// The state of `route` on the version with id `version`; created if unknown.
    pub fn series(&self, version: u32, route: &str) -> Arc<SeriesState> {
        self.series.find((version, route.to_owned()), || SeriesState {
            id: take(&self.next_id[2]),
            cells: PerWorker::new(self.workers),
        })
    }

    /// The retries of `route` to `service`; created if unknown.
    pub fn retries(&self, service: &str, route: &str) -> Arc<RetryState> {
        self.retries.find((service.to_owned(), route.to_owned()), RetryState::default)
    }

    /// The state of `service` as a whole; created if unknown.
    pub fn service(&self, service: &str) -> Arc<ServiceState> {
        self.services.find(service.to_owned(), ServiceState::default)
    }

    /// The pins of `service`; created if unknown.
    pub fn pins(&self, service: &str) -> Arc<PinTable> {
        self.pins.find(service.to_owned(), PinTable::default)
    }

    /// The writes of `route` of `service` that wait while it is read-only; created if unknown.
    pub fn hold(&self, service: &str, route: &str) -> Arc<HoldState> {
        self.holds.find((service.to_owned(), route.to_owned()), HoldState::default)
    }

    /// All writes that wait, by service and route.
    pub fn holds(&self) -> Vec<Arc<HoldState>> {
        self.holds.lock().values().cloned().collect()
    }

    /// Keeps the keys of tables that are created from now on with `log`, too.
    pub fn keep_keys(&self, log: KeyLog) {
        // A second one would be another folder, and the first one is kept.
        let _ = self.key_log.set(log);
    }

    /// The idempotency keys of `route` of `service`; created if unknown.
    pub fn keys(&self, service: &str, route: &str) -> Arc<KeyTable> {
        let new = || KeyTable::new(&format!("{service}\n{route}"), self.key_log.get().cloned());
        self.keys.find((service.to_owned(), route.to_owned()), new)
    }

    /// What keeps keys, if they are kept.
    pub fn key_log(&self) -> Option<&KeyLog> {
        self.key_log.get()
    }

    /// The number of idempotency keys of `route` of `service` that are known; `None` within if that is not known, since the
    /// disk may have more, and `None` if there are none.
    pub fn keys_known(&self, service: &str, route: &str) -> Option<Option<u64>> {
        let known = self.keys.lock().get(&(service.to_owned(), route.to_owned())).map(|t| t.len());
        match self.key_log.get() {
            Some(_) => Some(known.filter(|count| *count > 0)),
            None => known.map(Some),
        }
    }

    /// The keys of the rate limit `limit` of `route` with these terms; created if unknown, as they are for other terms.
    pub fn rates(&self, route: &str, limit: &str, rate: Rate, keys: u32) -> Arc<RateTable> {
        let identity = (route.to_owned(), limit.to_owned(), rate, keys);
        self.rates.find(identity, || RateTable::new(rate, keys, fastrand::u64(..)))
    }

    /// The refused requests of `route` of `service`; created if unknown.
    pub fn refusals(&self, service: &str, route: &str) -> Arc<RefusalCounts> {
        self.refusals.find((service.to_owned(), route.to_owned()), RefusalCounts::default)
    }

    /// The places of the requests of `service`, or of its `route` alone; created with `terms` if unknown.
    pub fn places(&self, service: &str, route: Option<&str>, terms: PlaceTerms) -> Arc<PlaceState> {
        let identity = (service.to_owned(), route.map(str::to_owned));
        self.places.find(identity, || PlaceState::new(terms))
    }

    /// The latencies of `route` of `service`; created if unknown.
    pub fn latencies(&self, service: &str, route: &str) -> Arc<LatencyState> {
        let new = || LatencyState::new(take(&self.next_id[3]), self.workers);
        self.latencies.find((service.to_owned(), route.to_owned()), new)
    }

    /// The keys of the issuer `name`, which come from where `jwt` says; created if unknown, with what its URL gave last.
    pub fn issuer_keys(&self, name: &str, jwt: &Jwt) -> Arc<KeyStore> {
        let identity = (name.to_owned(), jwt.jwks.clone(), jwt.algorithms.clone());
        self.issuers.find(identity, || {
            let store = KeyStore::default();
            if let Some(document) = self.key_documents.find(&jwt.jwks) {
                store.adopt(&document, &jwt.algorithms);
            }
            store
        })
    }

    /// What URLs of issuers gave last.
    pub fn key_documents(&self) -> &KeyDocuments {
        &self.key_documents
    }

    /// Continues with what `url` gave to another process, unless newer keys are here.
    pub fn adopt_keys(&self, url: &str, document: KeyDocument) {
        self.key_documents.put(url, document.clone());
        let known = self.issuers.lock();
        for ((_, _, algorithms), store) in known.iter().filter(|((_, of, _), _)| of == url) {
            store.adopt(&document, algorithms);
        }
    }

    /// The state of the authorizer `name` as it is `written`; created if unknown, as it is when it is written otherwise.
    pub fn authorizer(&self, name: &str, written: &Authorizer) -> Arc<AuthorizerState> {
        let most = written.cache.as_ref().map_or(1, |cache| cache.most);
        let identity = (name.to_owned(), format!("{written:?}"));
        self.authorizers.find(identity, || AuthorizerState::new(most))
    }

    /// The state that the versions of `service` share over `route`, or over all routes without
    /// limits of their own; created if unknown.
    pub fn stratum(&self, service: &str, route: Option<&str>) -> Arc<StratumState> {
        let key = (service.to_owned(), route.map(str::to_owned));
        self.strata.find(key, StratumState::default)
    }

    /// The evidence of the version with id `version` over `route`, or over all routes of its
    /// service without limits of their own; created if unknown.
    pub fn evidence(&self, version: u32, route: Option<&str>) -> Arc<EvidenceState> {
        self.evidence.find((version, route.map(str::to_owned)), || EvidenceState {
            id: take(&self.next_evidence),
            cells: PerWorker::new(self.workers),
        })
    }

    /// The state of the amount `name` of the version with id `version`; created if unknown.
    pub fn amount(&self, version: u32, name: &str) -> Arc<AmountState> {
        let key = (version, name.to_owned());
        self.amounts.find(key, || AmountState { cells: PerWorker::new(self.workers) })
    }

    /// The evidence of an amount, by its field or formula `what`; otherwise like
    /// [`Self::evidence`].
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

    /// Forgets states that no snapshot holds any more; returns their ids.
    pub fn forget_unused(&self) -> Forgotten {
        self.services.take_unused();
        self.retries.take_unused();
        self.pins.take_unused();
        self.holds.take_unused();
        // A route may get its policy back.
        self.keys.take_unused_if(KeyTable::is_spent);
        self.rates.take_unused();
        self.refusals.take_unused();
        self.places.take_unused();
        self.latencies.take_unused();
        self.issuers.take_unused();
        self.authorizers.take_unused();
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

/// Ids of forgotten states, for tables that are indexed by id.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Ids of versions.
    pub versions: Vec<u32>,
    /// Ids of endpoints.
    pub endpoints: Vec<u32>,
    /// Ids of series.
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
        version.cells.of(0).started[0].add(2);
        version.cells.of(1).started[1].add(3);
        let address = SocketAddr::from(([127, 0, 0, 1], 9001));
        let endpoint = registry.endpoint(version.id, address);
        assert_eq!(registry.forget_unused(), Forgotten::default());
        assert_eq!(registry.version("game-api", "v1").in_flight(), 5);
        let (versions, endpoints) = (vec![version.id], vec![endpoint.id]);
        drop((version, endpoint));
        assert_eq!(registry.forget_unused(), Forgotten { versions, endpoints, series: vec![] });
        let again = registry.version("game-api", "v1");
        assert_eq!((again.id, again.in_flight()), (1, 0));
    }
}
