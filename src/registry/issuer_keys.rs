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

use crate::{config::jwks::KeySet, policy::token::TokenFault};

/// Least time between two fetches that tokens ask for: whoever makes up names of keys must not call the issuer.
const SPACING: Duration = Duration::from_secs(10);

/// The keys of an issuer.
#[derive(Debug)]
pub struct KeyStore {
    keys: ArcSwapOption<KeySet>,
    fetching: Mutex<Fetching>,
    /// Hash of the text of the keys, if they are in a file.
    text: AtomicU64,
    /// Wakes the task that fetches.
    wanted: Notify,
    /// Number of fetches that have ended, so that a request can wait for the next one.
    ended: watch::Sender<u64>,
    faults: [AtomicU64; TokenFault::ALL.len()],
    verified: AtomicU64,
    /// Sets without keys that were put in force.
    emptied: AtomicU64,
}

/// What was fetched, and when.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fetching {
    /// Whether a fetch is under way.
    pub under_way: bool,
    /// When the last one ended.
    pub ended: Option<Instant>,
    /// When the keys in force came.
    pub came: Option<Instant>,
    /// Fetches that gave keys, and those that failed.
    pub counts: [u64; 2],
}

impl Default for KeyStore {
    fn default() -> Self {
        Self {
            keys: ArcSwapOption::default(),
            fetching: Mutex::default(),
            text: AtomicU64::default(),
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

    /// Puts `keys` in force.
    pub fn set(&self, keys: KeySet) {
        if keys.is_empty() {
            self.emptied.fetch_add(1, Relaxed);
        }
        self.keys.store(Some(Arc::new(keys)));
        self.lock().came = Some(Instant::now());
    }

    /// Notes that the keys in force are still those of the issuer: tokens that were verified by them count.
    pub fn renew(&self) {
        self.lock().came = Some(Instant::now());
    }

    /// Notes the text of the keys; returns whether it is another one than before.
    pub fn note_text(&self, text: &str) -> bool {
        let hash = xxh3_64(text.as_bytes()).max(1);
        self.text.swap(hash, Relaxed) != hash
    }

    /// Asks at `now` for newer keys. Returns what changes when the next fetch has ended; `None` if the last one was just now, so that
    /// it is of no use to wait.
    pub fn want(&self, now: Instant) -> Option<watch::Receiver<u64>> {
        let fetching = self.lock();
        let is_due = |ended: Instant| now.saturating_duration_since(ended) >= SPACING;
        if !fetching.under_way {
            if !fetching.ended.is_none_or(is_due) {
                return None;
            }
            self.wanted.notify_one();
        }
        Some(self.ended.subscribe())
    }

    /// Waits until a worker asks for keys.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Notes that a fetch begins.
    pub fn begin(&self) {
        self.lock().under_way = true;
        // Whoever asked before gets what this one fetches.
        let _ = self.wanted.notified().now_or_never();
    }

    /// Notes that a fetch has ended, and wakes the requests that wait for it.
    pub fn end(&self, is_ok: bool) {
        let mut fetching = self.lock();
        fetching.under_way = false;
        fetching.ended = Some(Instant::now());
        fetching.counts[usize::from(!is_ok)] += 1;
        drop(fetching);
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// What was fetched so far.
    pub fn fetching(&self) -> Fetching {
        *self.lock()
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

    fn lock(&self) -> MutexGuard<'_, Fetching> {
        // No panic leaves a half-done change.
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys_that_strangers_make_up_are_asked_for_once_in_a_while() {
        let store = KeyStore::default();
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(store.want(later(0)).is_some(), "nothing was fetched yet");
        store.begin();
        assert!(store.want(later(0)).is_some(), "it is under way");
        store.end(false);
        assert!(store.want(later(0)).is_none() && store.want(later(9)).is_none());
        assert!(store.want(later(11)).is_some());
        assert_eq!(store.fetching().counts, [0, 1]);
    }
}
