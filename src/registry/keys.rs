//! The idempotency keys of a route: which are under way, and how the others ended.
//!
//! All workers share one table, in shards with locks of their own that are held for one look-up. What is known of
//! a key, and what becomes of a request with it, is decided in `policy/idempotency.rs`.
//!
//! With a log (`state`) the disk has the truth: a key begins there before its request is sent, so no crash and no
//! other process makes it begin twice. The table then has the keys under way, and a bounded cache of others.
//! Without a log the table has all keys.

mod event;
mod facts;
mod lease;
mod wait;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
};

use foldhash::HashMap;

pub use self::{
    event::KeyEvent,
    facts::{KeyFacts, KeyState},
    lease::KeyLease,
    wait::KeyWait,
};
use super::{
    kept_answer::KeptAnswer,
    key_log::{Fingerprint, KeyId, KeyLog, KeyWatch, KnownPrint},
    served_time::ServedTime,
};
use crate::{
    config::schema::{ErrorAnswers, Unsure},
    policy::idempotency::{Known, Verdict, verdict},
};

/// Shards of a table.
const SHARDS: usize = 16;

/// Memory of a key beside its response, about.
const ENTRY_BYTES: u64 = 192;

/// Bounds of a table, and how its keys end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRules {
    /// Seconds for which a key is remembered.
    pub window: u32,
    /// Most keys.
    pub most: u32,
    /// Memory for ended keys that are cached, or for responses without a log, in bytes.
    pub memory: u64,
    /// Most requests that wait.
    pub waiting: u32,
    /// What becomes of a request with an unsure key.
    pub unsure: Unsure,
    /// What a 5xx says.
    pub errors: ErrorAnswers,
}

/// What becomes of a request with a key.
#[derive(Debug)]
pub enum Entered {
    /// Its key begins.
    Begin(KeyLease),
    /// It waits for the end of another one.
    Wait(KeyWait),
    /// It gets this response.
    Replay(Arc<KeptAnswer>),
    /// It was processed, and the response is not kept.
    NotKept,
    /// It may have been processed.
    Unsure,
    /// The key is that of another request.
    Mismatch,
    /// There are too many keys; the first of them is forgotten in that many seconds.
    Full(u32),
    /// Too many requests wait.
    Crowded,
}

#[derive(Debug)]
enum State {
    Begun(Vec<(u64, Waker)>),
    Answered(Option<Arc<KeptAnswer>>),
    Unsure,
}

#[derive(Debug)]
struct Entry {
    print: KnownPrint,
    /// The second of the served time in which it is forgotten.
    until: u32,
    /// Tells it from an earlier or later one with the same key.
    number: u64,
    state: State,
    /// Whether it is among those that ended, and its memory is counted: a key that is asked about again ends
    /// more than once.
    listed: bool,
}

impl Entry {
    fn known(&self) -> Known {
        match &self.state {
            State::Begun(_) => Known::Begun,
            State::Answered(answer) => Known::Answered { kept: answer.is_some() },
            State::Unsure => Known::Unsure,
        }
    }

    fn is_begun(&self) -> bool {
        matches!(self.state, State::Begun(_))
    }

    fn answer_bytes(&self) -> u64 {
        match &self.state {
            State::Answered(Some(answer)) => answer.bytes() as u64,
            _ => 0,
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<KeyId, Entry>,
    /// Ended keys, in the order of their ends: when each is forgotten, and its number.
    ended: VecDeque<(u32, KeyId, u64)>,
    /// Those of them that have a response; without a log.
    answers: VecDeque<(KeyId, u64)>,
    /// Memory of ended keys with a log, and of responses without.
    bytes: u64,
}

/// The idempotency keys of a route.
#[derive(Debug)]
pub struct KeyTable {
    route: Arc<str>,
    shards: [Mutex<Shard>; SHARDS],
    /// Keys in the table.
    live: AtomicUsize,
    /// Keys on the disk.
    stored: Arc<AtomicU64>,
    /// Keys of which nobody knows whether their requests were processed.
    unsure: Arc<AtomicU64>,
    /// Whether the thread that keeps keys counts them.
    watched: AtomicBool,
    waiting: AtomicUsize,
    next: AtomicU64,
    events: [AtomicU64; KeyEvent::ALL.len()],
    log: Option<KeyLog>,
    time: Arc<ServedTime>,
}

impl KeyTable {
    /// The table of `route`, which is kept with `log` if there is one.
    pub fn new(route: &str, log: Option<KeyLog>) -> Self {
        Self {
            route: route.into(),
            shards: Default::default(),
            live: AtomicUsize::new(0),
            stored: Arc::default(),
            unsure: Arc::default(),
            watched: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            events: Default::default(),
            time: log.as_ref().map(|log| Arc::clone(log.time())).unwrap_or_default(),
            log,
        }
    }

    /// The key `key` of the player who is known as `player.1` by the source `player.0`, on the route.
    pub fn id(&self, player: (&str, &[u8]), key: &[u8]) -> KeyId {
        KeyId::of(&self.route, player, key)
    }

    /// Whether keys begin on a disk.
    pub fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// Number of keys that are remembered.
    pub fn len(&self) -> u64 {
        match self.log {
            Some(_) => self.stored.load(Relaxed),
            None => self.live.load(Relaxed) as u64,
        }
    }

    /// Number of keys that are unsure; with a log as of the last few seconds, and also those of earlier processes.
    pub fn unsure(&self) -> u64 {
        self.unsure.load(Relaxed)
    }

    /// Has the keys on the disk counted from now on, which are remembered for `window` seconds.
    pub fn watch(&self, window: u32) {
        if let Some(log) = self.log.as_ref().filter(|_| !self.watched.swap(true, Relaxed)) {
            let (route, count) = (Arc::clone(&self.route), Arc::clone(&self.stored));
            log.watch(KeyWatch { route, window, count, unsure: Arc::clone(&self.unsure) });
        }
    }

    /// Notes that a key has become unsure, or is so no more. The keys of a log are counted on the disk.
    fn count_unsure(&self, state: &State, is_now: bool) {
        if self.log.is_some() || !matches!(state, State::Unsure) {
            return;
        }
        match is_now {
            true => self.unsure.fetch_add(1, Relaxed),
            false => self.unsure.fetch_sub(1, Relaxed),
        };
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it knows no key that is nowhere else.
    pub fn is_spent(&self) -> bool {
        if self.log.is_none() {
            let now = self.time.now();
            self.shards.iter().for_each(|shard| self.forget_old(&mut lock(shard), now));
        }
        self.log.is_some() || self.live.load(Relaxed) == 0
    }

    /// Number of requests that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Memory of what is cached, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).bytes).sum()
    }

    /// Counts `event`.
    pub fn note(&self, event: KeyEvent) {
        self.events[event as usize].fetch_add(1, Relaxed);
    }

    /// What happened, by kind, since the process started.
    pub fn events(&self) -> impl Iterator<Item = (KeyEvent, u64)> + '_ {
        KeyEvent::ALL.into_iter().map(|event| (event, self.events[event as usize].load(Relaxed)))
    }

    /// What becomes of a request with key `id` that asks for `print`.
    pub fn enter(self: &Arc<Self>, id: KeyId, print: Fingerprint, rules: &KeyRules) -> Entered {
        let now = self.time.now();
        if self.log.is_none() && self.live.load(Relaxed) >= rules.most as usize {
            for shard in &self.shards {
                self.forget_old(&mut lock(shard), now);
            }
        }
        let mut shard = self.shard(id);
        self.forget_old(&mut shard, now);
        let entry = shard.entries.get_mut(&id);
        let known = entry.as_ref().filter(|entry| entry.until > now || entry.is_begun());
        let known = known.map(|entry| (entry.known(), entry.print.is_of(&print)));
        match (verdict(known, rules.unsure), entry) {
            (Verdict::Wait, Some(entry)) => {
                if self.waiting.load(Relaxed) >= rules.waiting as usize {
                    return Entered::Crowded;
                }
                self.waiting.fetch_add(1, Relaxed);
                let ticket = self.next.fetch_add(1, Relaxed);
                let (table, number) = (Arc::clone(self), entry.number);
                Entered::Wait(KeyWait { table, id, number, ticket })
            }
            (Verdict::Replay, Some(Entry { state: State::Answered(Some(answer)), .. })) => {
                Entered::Replay(Arc::clone(answer))
            }
            (Verdict::Mismatch, _) => Entered::Mismatch,
            (Verdict::Unsure, _) => Entered::Unsure,
            (Verdict::Begin, Some(entry)) if known.is_some() => {
                self.count_unsure(&entry.state, false);
                entry.state = State::Begun(Vec::new());
                let (number, until, first) = (entry.number, entry.until, entry.print);
                Entered::Begin(self.lease((id, print), (number, until), rules, Some(first)))
            }
            (Verdict::Begin, _) => {
                if self.log.is_none() && self.live.load(Relaxed) >= rules.most as usize {
                    drop(shard);
                    return Entered::Full(self.next_forgotten(now));
                }
                let number = self.next.fetch_add(1, Relaxed);
                let until = self.time.end_of(rules.window);
                let (state, known) = (State::Begun(Vec::new()), print.known());
                let entry = Entry { print: known, until, number, state, listed: false };
                // What is in its place was too old.
                match shard.entries.insert(id, entry) {
                    None => drop(self.live.fetch_add(1, Relaxed)),
                    Some(before) => {
                        self.count_unsure(&before.state, false);
                        self.give_back(&mut shard, &before);
                    }
                }
                Entered::Begin(self.lease((id, print), (number, until), rules, None))
            }
            (Verdict::NotKept | Verdict::Replay | Verdict::Wait, _) => Entered::NotKept,
        }
    }

    fn lease(
        self: &Arc<Self>,
        of: (KeyId, Fingerprint),
        entry: (u64, u32),
        rules: &KeyRules,
        first: Option<KnownPrint>,
    ) -> KeyLease {
        KeyLease::new(Arc::clone(self), of, entry, *rules, first)
    }

    fn shard(&self, id: KeyId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(id.bytes()[15]) % SHARDS])
    }

    /// Seconds after `now` until the first of the keys that have ended is forgotten; 0 if none has ended.
    fn next_forgotten(&self, now: u32) -> u32 {
        let first = |shard: &Mutex<Shard>| Some(lock(shard).ended.front()?.0);
        let next = self.shards.iter().filter_map(first).min();
        next.map_or(0, |until| until.saturating_sub(now))
    }

    /// Forgets the keys of `shard` whose time has passed.
    fn forget_old(&self, shard: &mut Shard, now: u32) {
        while shard.ended.front().is_some_and(|(until, ..)| *until <= now) {
            self.forget_first(shard);
        }
    }

    /// Forgets the key of `shard` that ended first, unless it has begun again.
    fn forget_first(&self, shard: &mut Shard) {
        let Some((_, id, number)) = shard.ended.pop_front() else { return };
        let Some(entry) = shard.entries.get_mut(&id).filter(|entry| entry.number == number) else {
            return;
        };
        if entry.is_begun() {
            entry.listed = false;
            shard.bytes = shard.bytes.saturating_sub(self.entry_bytes());
        } else if let Some(entry) = shard.entries.remove(&id) {
            self.live.fetch_sub(1, Relaxed);
            self.count_unsure(&entry.state, false);
            self.give_back(shard, &entry);
        }
    }

    /// Memory of a listed key beside its response, as far as it is counted.
    fn entry_bytes(&self) -> u64 {
        if self.log.is_some() { ENTRY_BYTES } else { 0 }
    }

    /// Counts the memory of a removed `entry` no more.
    fn give_back(&self, shard: &mut Shard, entry: &Entry) {
        let own = if entry.listed { self.entry_bytes() } else { 0 };
        shard.bytes = shard.bytes.saturating_sub(entry.answer_bytes() + own);
    }

    /// The key with this number has begun before: it asks for `print` until `until`, and goes on as that of the
    /// request that has it now.
    fn goes_on(&self, (id, number): (KeyId, u64), until: u32, print: KnownPrint) {
        let mut shard = self.shard(id);
        if let Some(entry) = shard.entries.get_mut(&id).filter(|entry| entry.number == number) {
            (entry.until, entry.print) = (until, print);
        }
    }

    /// The key with this number is `state` from now on, until `until`; with what was replaced of it those who
    /// wait are called.
    fn end(
        &self,
        (id, number): (KeyId, u64),
        state: Option<(State, u32, KnownPrint)>,
        memory: u64,
    ) {
        let mut shard = self.shard(id);
        let Some(entry) = shard.entries.get_mut(&id).filter(|entry| entry.number == number) else {
            return;
        };
        let wakers = match std::mem::replace(&mut entry.state, State::Unsure) {
            State::Begun(wakers) => wakers,
            _ => Vec::new(),
        };
        match state {
            None => {
                // It has never ended, so none of its memory is counted.
                shard.entries.remove(&id);
                self.live.fetch_sub(1, Relaxed);
            }
            Some((state, until, print)) => {
                (entry.state, entry.until, entry.print) = (state, until, print);
                self.count_unsure(&entry.state, true);
                let bytes = entry.answer_bytes();
                if !std::mem::replace(&mut entry.listed, true) {
                    shard.ended.push_back((until, id, number));
                    shard.bytes += self.entry_bytes();
                }
                self.ended(&mut shard, (id, number), bytes, memory / SHARDS as u64);
            }
        }
        drop(shard);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Notes a key that ended, with `bytes` of a response, and makes room if there is not enough `memory`.
    fn ended(&self, shard: &mut Shard, (id, number): (KeyId, u64), bytes: u64, memory: u64) {
        shard.bytes += bytes;
        if self.log.is_some() {
            // They are on the disk.
            while shard.bytes > memory && !shard.ended.is_empty() {
                self.forget_first(shard);
            }
            return;
        }
        if bytes > 0 {
            shard.answers.push_back((id, number));
        }
        while shard.bytes > memory {
            let Some((id, number)) = shard.answers.pop_front() else { return };
            let entry = shard.entries.get_mut(&id).filter(|entry| entry.number == number);
            if let Some(entry) = entry.filter(|entry| !entry.is_begun()) {
                shard.bytes = shard.bytes.saturating_sub(entry.answer_bytes());
                entry.state = State::Answered(None);
            }
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // No panic leaves a shard half changed: what can panic comes before its changes.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
