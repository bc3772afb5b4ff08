//! The keys of an issuer of tokens in force, and what its tokens were found to be.
//!
//! The control plane puts keys in, whole sets at a time; the last good set stays until the next one. A worker that misses a key asks
//! for it, which wakes the task that fetches.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwapOption, Guard};
use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};
use xxhash_rust::xxh3::xxh3_64;

use super::key_documents::KeyDocument;
use crate::{
    config::{jwks::KeySet, schema::JwtAlgorithm},
    policy::{
        token::TokenFault,
        unknown_key::{Outlook, UnknownKeys},
    },
};

/// The keys of an issuer.
#[derive(Debug)]
pub struct KeyStore {
    keys: ArcSwapOption<KeySet>,
    state: Mutex<State>,
    /// Wakes the task that fetches.
    wanted: Notify,
    /// Number of fetches that have ended, so that a request can wait for the next one.
    ended: watch::Sender<u64>,
    faults: [AtomicU64; TokenFault::ALL.len()],
    verified: AtomicU64,
    /// Sets without keys that were put in force.
    emptied: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    fetching: Fetching,
    unknown: UnknownKeys,
    /// Hash of the text of the keys.
    text: Option<u64>,
}

/// What was fetched, and when.
#[derive(Debug, Clone, Default)]
pub struct Fetching {
    /// When the keys in force came.
    pub came: Option<Instant>,
    /// Whether the issuer gave them to this process or to the one before; not so if a file of an earlier process has them.
    pub is_confirmed: bool,
    /// Fetches, or reads of the file again, that gave keys, and those that failed.
    pub counts: [u64; 2],
    /// Why the last of them failed; `None` if it did not, or none has ended.
    pub error: Option<Arc<str>>,
}

/// What becomes of a request whose token has a key that is not here.
#[derive(Debug)]
pub enum MissingKey {
    /// It is refused: its issuer does not have the key.
    Refused,
    /// It waits until this changes, when a fetch has ended.
    Waits(watch::Receiver<u64>),
    /// It may come again after this time.
    Later(Duration),
}

impl Default for KeyStore {
    fn default() -> Self {
        Self {
            keys: ArcSwapOption::default(),
            state: Mutex::default(),
            wanted: Notify::default(),
            ended: watch::Sender::new(0),
            faults: Default::default(),
            verified: AtomicU64::default(),
            emptied: AtomicU64::default(),
        }
    }
}

impl KeyStore {
    /// The keys in force; `None` before the first set came.
    pub fn keys(&self) -> Guard<Option<Arc<KeySet>>> {
        self.keys.load()
    }

    /// Whether the keys in force are those of this `text`.
    pub fn is_of(&self, text: &str) -> bool {
        self.lock().text == Some(xxh3_64(text.as_bytes()))
    }

    /// Puts `keys`, those of `text`, in force, which the issuer gives now. If they are in force already, tokens that were verified
    /// by them still count.
    pub fn set(&self, text: &str, keys: KeySet) {
        self.put(text, keys, Instant::now(), true);
    }

    /// Puts the keys of `document` that fit one of `algorithms` in force, unless there are none or newer ones are in force.
    pub fn adopt(&self, document: &KeyDocument, algorithms: &[JwtAlgorithm]) {
        if let Ok(keys) = KeySet::read(&document.text, algorithms) {
            self.put(&document.text, keys, document.came, document.is_confirmed);
        }
    }

    fn put(&self, text: &str, keys: KeySet, came: Instant, is_confirmed: bool) {
        let mut state = self.lock();
        if state.fetching.came.is_some_and(|known| known > came) {
            return;
        }
        state.fetching.came = Some(came);
        state.fetching.is_confirmed |= is_confirmed;
        let text = Some(xxh3_64(text.as_bytes()));
        if std::mem::replace(&mut state.text, text) == text {
            return;
        }
        if keys.is_empty() {
            self.emptied.fetch_add(1, Relaxed);
        }
        let keys = Arc::new(keys);
        if let Some(old) = self.keys.swap(Some(Arc::clone(&keys))) {
            state.unknown.replace(old.names(), keys.names(), came);
        }
    }

    /// What becomes, at `now`, of a request with a `token` whose key is not here; `None` if no keys have come. Asks for newer
    /// ones.
    pub fn miss(&self, token: Option<&[u8]>, now: Instant) -> MissingKey {
        let mut state = self.lock();
        self.wanted.notify_one();
        let outlook = match token {
            // The issuer has revoked all keys.
            Some(_) if self.keys.load().as_ref().is_some_and(|keys| keys.is_empty()) => {
                Outlook::Refused
            }
            Some(token) => state.unknown.see(token, now),
            None => state.unknown.without_keys(now),
        };
        match outlook {
            Outlook::Refused => MissingKey::Refused,
            Outlook::Waits => MissingKey::Waits(self.ended.subscribe()),
            Outlook::Later(after) => MissingKey::Later(after),
        }
    }

    /// Waits until a worker asks for keys.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Time from `now` until a fetch that workers ask for may begin.
    pub fn due_in(&self, now: Instant) -> Duration {
        self.lock().unknown.due_in(now)
    }

    /// Notes that a fetch begins.
    pub fn begin(&self) {
        let mut state = self.lock();
        state.unknown.begin();
        // Whoever asked before gets what this one fetches.
        let _ = self.wanted.notified().now_or_never();
    }

    /// Notes that a fetch has ended, with an error or without, and wakes the requests that wait for it.
    pub fn end(&self, error: Option<&str>) {
        let mut state = self.lock();
        state.unknown.end(error.is_none(), Instant::now());
        state.fetching.counts[usize::from(error.is_some())] += 1;
        state.fetching.error = error.map(Into::into);
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Notes that the fetch under way is given up, so that nobody waits for it.
    pub fn interrupt(&self) {
        self.lock().unknown.end(false, Instant::now());
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// What was fetched so far.
    pub fn fetching(&self) -> Fetching {
        self.lock().fetching.clone()
    }

    /// Counts a token that was verified, and not only found again.
    pub fn note_verified(&self) {
        self.verified.fetch_add(1, Relaxed);
    }

    /// Counts a request without a token that counts.
    pub fn note_fault(&self, fault: TokenFault) {
        self.faults[fault as usize].fetch_add(1, Relaxed);
    }

    /// Tokens verified so far.
    pub fn verified(&self) -> u64 {
        self.verified.load(Relaxed)
    }

    /// Sets without keys that were put in force so far.
    pub fn emptied(&self) -> u64 {
        self.emptied.load(Relaxed)
    }

    /// Requests without a token that counts, by the fault, so far.
    pub fn faults(&self) -> impl Iterator<Item = (TokenFault, u64)> + '_ {
        TokenFault::ALL.into_iter().map(|fault| (fault, self.faults[fault as usize].load(Relaxed)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic leaves a half-done change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALGORITHMS: [JwtAlgorithm; 1] = [JwtAlgorithm::ES256];

    fn document(text: &str, age_s: u64) -> KeyDocument {
        let came = Instant::now().checked_sub(Duration::from_secs(age_s)).expect("it ran so long");
        KeyDocument { text: text.into(), came, is_confirmed: false }
    }

    #[test]
    fn newer_keys_stay_whatever_a_file_or_another_process_has() {
        let store = KeyStore::default();
        store.adopt(&document("{\"keys\":[{}]}", 1), &ALGORITHMS);
        assert!(store.keys().is_none(), "no key fits");
        store.adopt(&document("{\"keys\":[]}", 60), &ALGORITHMS);
        assert!(store.keys().as_ref().is_some_and(|keys| keys.is_empty()));
        assert!(!store.fetching().is_confirmed);
        let number = |store: &KeyStore| store.keys().as_ref().map(|keys| keys.number);
        let before = number(&store);
        store.adopt(&document("{\"keys\": []}", 90), &ALGORITHMS);
        assert_eq!(number(&store), before, "they are older");
        let text = "{\"keys\":[]}";
        store.set(text, KeySet::read(text, &ALGORITHMS).expect("a set"));
        assert_eq!(number(&store), before, "they are the same");
        assert!(store.fetching().is_confirmed && store.is_of(text));
        assert_eq!(store.emptied(), 1);
    }

    #[test]
    fn after_a_fetch_was_interrupted_nobody_waits_for_its_end() {
        let store = KeyStore::default();
        let now = Instant::now();
        assert!(matches!(store.miss(None, now), MissingKey::Waits(_)), "nothing was fetched yet");
        store.begin();
        let MissingKey::Waits(mut ended) = store.miss(None, now) else { panic!("it is under way") };
        store.interrupt();
        assert!(ended.changed().now_or_never().is_some());
        assert!(matches!(store.miss(None, now), MissingKey::Later(_)));
        assert_eq!(store.fetching().counts, [0, 0]);
    }
}
