//! The answers of an authorizer that count for a while, shared by the workers, and how often it was asked.
//!
//! Answers are found by a SHA-256 of what they are about, so that no token is kept, and in two maps per lock: new ones go into the
//! young map; when that is full it becomes the old one, and the old one is dropped. So memory is bounded whatever clients send.
//! While one request asks, others about the same wait for its answer.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{Context, SHA256};
use foldhash::HashMap;
use tokio::sync::watch;

use crate::{policy::external::Verdict, telemetry::seldom::Seldom, tls};

/// Locks of the answers.
const LOCKS: usize = 16;

/// How a request fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The authorizer let it go on.
    Allowed,
    /// The authorizer refused it.
    Denied,
    /// The authorizer failed.
    Failed,
    /// An earlier answer counted.
    Cached,
}

impl Asked {
    /// All ways, with their names in metrics.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Allowed, "allowed"),
        (Self::Denied, "denied"),
        (Self::Failed, "failed"),
        (Self::Cached, "cached"),
    ];
}

/// What an answer is about.
pub type AnswerKey = [u8; 32];

/// The live state of an authorizer.
#[derive(Debug)]
pub struct AuthorizerState {
    shards: Box<[Mutex<Shard>]>,
    /// Answers of a map.
    most: usize,
    counts: [AtomicU64; Asked::ALL.len()],
    /// Settings of TLS; `None` before its files were read, and without TLS.
    tls: ArcSwapOption<tls::Client>,
    /// Whether its files were read.
    opened: watch::Sender<bool>,
    /// Limits the log messages about failures.
    pub complaint: Seldom,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashMap<AnswerKey, Answer>,
    old: HashMap<AnswerKey, Answer>,
    /// Questions under way.
    asked: HashMap<AnswerKey, watch::Receiver<Option<Arc<Verdict>>>>,
}

#[derive(Debug)]
struct Answer {
    until: Instant,
    verdict: Arc<Verdict>,
}

/// What a request is to do that has a question.
#[derive(Debug)]
pub enum AskTurn {
    /// The answer is known.
    Known(Arc<Verdict>),
    /// It asks.
    Ask(AskRight),
    /// Another request asks the same: the answer comes here. Closed before, the other one has left.
    Wait(watch::Receiver<Option<Arc<Verdict>>>),
}

/// The right to ask a question, which others wait for. Dropped before it was answered, one of them asks.
#[derive(Debug)]
pub struct AskRight {
    state: Arc<AuthorizerState>,
    key: AnswerKey,
    answer: watch::Sender<Option<Arc<Verdict>>>,
}

impl AskRight {
    /// Tells those who wait, and remembers the answer until `until`, if it has an end.
    pub fn answered(self, verdict: &Arc<Verdict>, until: Option<Instant>) {
        if let Some(until) = until {
            self.state.put(self.key, Arc::clone(verdict), until);
        }
        self.answer.send_replace(Some(Arc::clone(verdict)));
    }
}

impl Drop for AskRight {
    fn drop(&mut self) {
        let shard = self.state.shard(&self.key);
        shard.lock().unwrap_or_else(PoisonError::into_inner).asked.remove(&self.key);
    }
}

impl Shard {
    fn find(&self, key: &AnswerKey, now: Instant) -> Option<Arc<Verdict>> {
        let counts = |answer: &&Answer| now < answer.until;
        let found = self.young.get(key).or_else(|| self.old.get(key)).filter(counts)?;
        Some(Arc::clone(&found.verdict))
    }
}

impl AuthorizerState {
    /// State that remembers about `most` answers.
    pub fn new(most: u32) -> Self {
        Self {
            shards: (0..LOCKS).map(|_| Mutex::default()).collect(),
            // Two maps each.
            most: (most as usize).div_ceil(2 * LOCKS).max(1),
            counts: Default::default(),
            tls: ArcSwapOption::default(),
            opened: watch::Sender::new(false),
            complaint: Seldom::default(),
        }
    }

    /// Puts the settings of TLS in force, and wakes the requests that wait for them.
    pub fn open(&self, tls: Option<Arc<tls::Client>>) {
        self.tls.store(tls);
        self.opened.send_replace(true);
    }

    /// The settings of TLS, if there are some.
    pub fn tls(&self) -> Option<Arc<tls::Client>> {
        self.tls.load_full()
    }

    /// Becomes true when the files of its settings were read.
    pub fn opened(&self) -> watch::Receiver<bool> {
        self.opened.subscribe()
    }

    /// What an answer about `value` on the route of this label is found by.
    pub fn key(route: &str, value: &[u8]) -> AnswerKey {
        let mut context = Context::new(&SHA256);
        context.update(route.as_bytes());
        context.update(&[0]);
        context.update(value);
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    /// The answer that counts at `now`, if there is one.
    pub fn find(&self, key: &AnswerKey, now: Instant) -> Option<Arc<Verdict>> {
        self.shard(key).lock().unwrap_or_else(PoisonError::into_inner).find(key, now)
    }

    /// Whether a request asks the question `key` at `now`, or waits for the answer to another one.
    pub fn turn(self: &Arc<Self>, key: AnswerKey, now: Instant) -> AskTurn {
        let mut shard = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = shard.find(&key, now) {
            return AskTurn::Known(verdict);
        }
        if let Some(answer) = shard.asked.get(&key) {
            return AskTurn::Wait(answer.clone());
        }
        let (answer, receiver) = watch::channel(None);
        shard.asked.insert(key, receiver);
        AskTurn::Ask(AskRight { state: Arc::clone(self), key, answer })
    }

    /// Remembers an answer until then.
    fn put(&self, key: AnswerKey, verdict: Arc<Verdict>, until: Instant) {
        let mut shard = self.shard(&key).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.young.len() >= self.most {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(key, Answer { until, verdict });
    }

    /// Counts a request.
    pub fn note(&self, asked: Asked) {
        self.counts[asked as usize].fetch_add(1, Relaxed);
    }

    /// Requests so far, by how they fared.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let count = |(asked, label)| (label, self.counts[asked as usize].load(Relaxed));
        Asked::ALL.map(count).to_vec()
    }

    fn shard(&self, key: &AnswerKey) -> &Mutex<Shard> {
        &self.shards[usize::from(key[0]) % LOCKS]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_of_many_asks_and_the_others_get_its_answer_or_ask_if_it_leaves() {
        let (state, now) = (Arc::new(AuthorizerState::new(32)), Instant::now());
        let key = AuthorizerState::key("a", b"token");
        let AskTurn::Ask(first) = state.turn(key, now) else { panic!("nobody asks") };
        let AskTurn::Wait(left) = state.turn(key, now) else { panic!("two ask") };
        drop(first);
        assert!(left.has_changed().is_err(), "the first one has left");
        let AskTurn::Ask(second) = state.turn(key, now) else { panic!("nobody asks") };
        let AskTurn::Wait(waits) = state.turn(key, now) else { panic!("two ask") };
        let denied = Arc::new(Verdict::Denied(403, Box::default()));
        second.answered(&denied, Some(now + Duration::from_secs(5)));
        assert_eq!(*waits.borrow(), Some(Arc::clone(&denied)));
        assert!(matches!(state.turn(key, now), AskTurn::Known(verdict) if verdict == denied));
        let AskTurn::Ask(third) = state.turn(key, now + Duration::from_secs(5)) else {
            panic!("the answer still counts")
        };
        third.answered(&Arc::new(Verdict::Failed), None);
        assert!(matches!(state.turn(key, now + Duration::from_secs(6)), AskTurn::Ask(_)));
    }

    #[test]
    fn an_answer_counts_for_its_route_and_its_time_and_floods_take_no_memory() {
        let (state, now) = (AuthorizerState::new(320), Instant::now());
        let allowed = Arc::new(Verdict::Allowed(Box::default()));
        let until = now + Duration::from_secs(5);
        let key = |route: &str, number: u32| AuthorizerState::key(route, &number.to_le_bytes());
        state.put(key("a", 1), Arc::clone(&allowed), until);
        assert_eq!(state.find(&key("a", 1), now), Some(Arc::clone(&allowed)));
        assert_eq!(state.find(&key("b", 1), now), None);
        assert_eq!(state.find(&key("a", 2), now), None);
        assert_eq!(state.find(&key("a", 1), until), None);
        for number in 0..50_000 {
            state.put(key("a", number), Arc::clone(&allowed), until);
        }
        let kept = (0..50_000).filter(|n| state.find(&key("a", *n), now).is_some()).count();
        assert!((160..=320).contains(&kept), "{kept}");
        assert!(state.find(&key("a", 49_999), now).is_some(), "the newest");
    }
}
