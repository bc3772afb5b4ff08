//! The idempotency keys of a route: which are under way, and how the others ended.
//!
//! All workers share one table, in shards with locks of their own that are held for one look-up. What is known of
//! a key, and what becomes of a request with it, is decided in `policy/idempotency.rs`.
//!
//! With a log (`state`) the disk has the truth: a key begins there before its request is sent, so no crash and no
//! other process makes it begin twice. The table then has the keys under way, and a bounded cache of others.
//! Without a log the table has all keys.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use super::{
    clock::Clock,
    kept_answer::KeptAnswer,
    key_log::{Fingerprint, KeyEnd, KeyId, KeyLog, KeyRow, RowState, Stored, Unstored},
};
use crate::{
    config::schema::{ErrorAnswers, Unsure},
    policy::idempotency::{Ending, Fate, Known, Verdict, fate, verdict},
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

/// What happens to keys and their requests; the `event` label of `tidegate_idempotency_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEvent {
    /// A key began.
    Begun,
    /// It ended with a final response.
    Answered,
    /// It ended without being processed.
    Freed,
    /// It ended unsure.
    Unsure,
    /// A request waited for the response to another one.
    Held,
    /// A response was replayed.
    Replayed,
    /// A request was sent although its key was unsure.
    Asked,
    /// A request without a key was refused.
    Missing,
    /// A request with a malformed key was refused.
    Malformed,
    /// A request with the key of another request was refused.
    Mismatch,
    /// A request with an unsure key was refused.
    RefusedUnsure,
    /// A request was refused since the response to its key is not kept.
    RefusedNotKept,
    /// A request waited for too long, or too many waited.
    RefusedBusy,
    /// A request was refused since there were too many keys.
    RefusedFull,
    /// A request was refused since its key could not be written.
    RefusedUnstored,
    /// A request was refused since its body is too large, or a stream.
    RefusedBody,
}

impl KeyEvent {
    /// All events, in the order of the counters.
    pub const ALL: [Self; 16] = [
        Self::Begun,
        Self::Answered,
        Self::Freed,
        Self::Unsure,
        Self::Held,
        Self::Replayed,
        Self::Asked,
        Self::Missing,
        Self::Malformed,
        Self::Mismatch,
        Self::RefusedUnsure,
        Self::RefusedNotKept,
        Self::RefusedBusy,
        Self::RefusedFull,
        Self::RefusedUnstored,
        Self::RefusedBody,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Answered => "answered",
            Self::Freed => "freed",
            Self::Unsure => "unsure",
            Self::Held => "held",
            Self::Replayed => "replayed",
            Self::Asked => "asked",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Mismatch => "mismatch",
            Self::RefusedUnsure => "refused_unsure",
            Self::RefusedNotKept => "refused_not_kept",
            Self::RefusedBusy => "refused_busy",
            Self::RefusedFull => "refused_full",
            Self::RefusedUnstored => "refused_unstored",
            Self::RefusedBody => "refused_body",
        }
    }
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
    /// There are too many keys.
    Full,
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
    print: Fingerprint,
    until: u32,
    /// Tells it from an earlier or later one with the same key.
    number: u64,
    state: State,
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
    waiting: AtomicUsize,
    next: AtomicU64,
    events: [AtomicU64; KeyEvent::ALL.len()],
    log: Option<KeyLog>,
    clock: Clock,
}

impl KeyTable {
    /// The table of `route`, which is kept with `log` if there is one.
    pub fn new(route: &str, log: Option<KeyLog>) -> Self {
        Self {
            route: route.into(),
            shards: Default::default(),
            live: AtomicUsize::new(0),
            stored: Arc::default(),
            waiting: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            events: Default::default(),
            log,
            clock: Clock::start(),
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

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        let now = self.clock.now();
        if self.log.is_none() && self.live.load(Relaxed) >= rules.most as usize {
            for shard in &self.shards {
                self.forget_old(&mut lock(shard), now);
            }
        }
        let mut shard = self.shard(id);
        self.forget_old(&mut shard, now);
        let entry = shard.entries.get_mut(&id);
        let known = entry.as_ref().filter(|entry| entry.until > now || entry.is_begun());
        let known = known.map(|entry| (entry.known(), entry.print == print));
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
                entry.state = State::Begun(Vec::new());
                let number = entry.number;
                Entered::Begin(self.lease(id, print, number, rules, true))
            }
            (Verdict::Begin, _) => {
                if self.log.is_none() && self.live.load(Relaxed) >= rules.most as usize {
                    return Entered::Full;
                }
                let number = self.next.fetch_add(1, Relaxed);
                let until = now.saturating_add(rules.window);
                let state = State::Begun(Vec::new());
                let before = shard.entries.insert(id, Entry { print, until, number, state });
                // What is in its place was too old.
                if before.is_none() {
                    self.live.fetch_add(1, Relaxed);
                }
                Entered::Begin(self.lease(id, print, number, rules, false))
            }
            (Verdict::NotKept | Verdict::Replay | Verdict::Wait, _) => Entered::NotKept,
        }
    }

    fn lease(
        self: &Arc<Self>,
        id: KeyId,
        print: Fingerprint,
        number: u64,
        rules: &KeyRules,
        was_unsure: bool,
    ) -> KeyLease {
        let none = || Cell::new(false);
        let until = self.clock.now().saturating_add(rules.window);
        KeyLease {
            table: Arc::clone(self),
            id,
            print,
            number,
            until,
            rules: *rules,
            was_unsure,
            sent: none(),
            sent_before: none(),
            ended: none(),
        }
    }

    fn shard(&self, id: KeyId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::from(id.bytes()[15]) % SHARDS])
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
        let is_it = |entry: &Entry| entry.number == number && !entry.is_begun();
        if !shard.entries.get(&id).is_some_and(is_it) {
            return;
        }
        if let Some(entry) = shard.entries.remove(&id) {
            self.live.fetch_sub(1, Relaxed);
            let own = if self.log.is_some() { ENTRY_BYTES } else { 0 };
            shard.bytes = shard.bytes.saturating_sub(entry.answer_bytes() + own);
        }
    }

    /// The key with this number is `state` from now on, until `until`; with what was replaced of it those who
    /// wait are called.
    fn end(
        &self,
        (id, number): (KeyId, u64),
        state: Option<(State, u32, Fingerprint)>,
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
                shard.entries.remove(&id);
                self.live.fetch_sub(1, Relaxed);
            }
            Some((state, until, print)) => {
                (entry.state, entry.until, entry.print) = (state, until, print);
                let bytes = entry.answer_bytes();
                self.ended(&mut shard, (until, id, number), bytes, memory / SHARDS as u64);
            }
        }
        drop(shard);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Notes a key that ended, with `bytes` of a response, and makes room if there is not enough `memory`.
    fn ended(&self, shard: &mut Shard, ended: (u32, KeyId, u64), bytes: u64, memory: u64) {
        let (_, id, number) = ended;
        shard.ended.push_back(ended);
        shard.bytes += bytes;
        if self.log.is_some() {
            shard.bytes += ENTRY_BYTES;
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

/// A key that has begun. Dropped before it ended, it is freed if nothing was sent, and else unsure.
#[derive(Debug)]
pub struct KeyLease {
    table: Arc<KeyTable>,
    id: KeyId,
    print: Fingerprint,
    number: u64,
    until: u32,
    rules: KeyRules,
    /// It is the key of an earlier request that may have been processed.
    was_unsure: bool,
    /// The request may have been processed.
    sent: Cell<bool>,
    /// The same before the current attempt.
    sent_before: Cell<bool>,
    ended: Cell<bool>,
}

impl KeyLease {
    /// Writes that the key has begun. `None` once that is on the disk, or if there is no log; otherwise the
    /// request must ask again, and the lease is to be dropped.
    pub async fn store(&self) -> Result<Option<Stored>, Unstored> {
        let Some(log) = self.table.log.as_ref().filter(|_| !self.was_unsure) else {
            return Ok(None);
        };
        let row = KeyRow {
            id: self.id,
            route: Arc::clone(&self.table.route),
            print: self.print,
            until: self.until,
            most: self.rules.most,
            count: Arc::clone(&self.table.stored),
        };
        match log.begin(row).await {
            Ok(Stored::New) => Ok(None),
            Ok(known) => {
                self.known(&known);
                Ok(Some(known))
            }
            Err(unstored) => Err(unstored),
        }
    }

    /// Ends the lease since the key was known on the disk, or is none.
    fn known(&self, known: &Stored) {
        self.ended.set(true);
        let state = match known {
            Stored::Known { print, until, state } => {
                let state = match state {
                    RowState::Elsewhere => None,
                    RowState::Unsure => Some(State::Unsure),
                    RowState::Answered(answer) => {
                        Some(State::Answered(answer.clone().map(Arc::new)))
                    }
                };
                state.map(|state| (state, *until, *print))
            }
            Stored::New | Stored::Full => None,
        };
        self.table.end((self.id, self.number), state, self.rules.memory);
    }

    /// Notes that an attempt is made: from now on the request may be processed.
    pub fn attempting(&self) {
        self.sent_before.set(self.sent.replace(true));
    }

    /// Notes that the version cannot have processed the last attempt.
    pub fn unprocessed(&self) {
        self.sent.set(self.sent_before.get());
    }

    /// Whether an earlier request with the key may have been processed.
    pub fn was_unsure(&self) -> bool {
        self.was_unsure
    }

    /// Notes a whole response of this `status`; `kept` makes a copy of it, if it can be kept.
    pub fn answered(&self, status: u16, kept: impl FnOnce() -> Option<KeptAnswer>) {
        self.end(Ending::Answered(status), kept);
    }

    /// The table.
    pub fn table(&self) -> &Arc<KeyTable> {
        &self.table
    }

    fn end(&self, ending: Ending, kept: impl FnOnce() -> Option<KeptAnswer>) {
        if self.ended.replace(true) {
            return;
        }
        let Self { table, id, rules, .. } = self;
        let (event, state, end) =
            match fate(ending, self.was_unsure || self.sent_before.get(), rules.errors) {
                Fate::Answer => {
                    let kept = kept().map(Arc::new);
                    let end = KeyEnd::Answered(kept.clone());
                    (KeyEvent::Answered, Some(State::Answered(kept)), end)
                }
                Fate::Free => (KeyEvent::Freed, None, KeyEnd::Freed),
                Fate::Hold => (KeyEvent::Unsure, Some(State::Unsure), KeyEnd::Unsure),
            };
        table.note(event);
        // Before the key can begin again.
        if let Some(log) = &table.log {
            log.end(*id, end);
        }
        let state = state.map(|state| (state, self.until, self.print));
        table.end((*id, self.number), state, rules.memory);
    }
}

impl Drop for KeyLease {
    fn drop(&mut self) {
        self.end(if self.sent.get() { Ending::Lost } else { Ending::Unsent }, || None);
    }
}

/// The place of a request that waits until the key of another one ends.
#[derive(Debug)]
pub struct KeyWait {
    table: Arc<KeyTable>,
    id: KeyId,
    number: u64,
    ticket: u64,
}

impl KeyWait {
    /// Ready once the key has ended.
    pub fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        let mut shard = self.table.shard(self.id);
        let entry = shard.entries.get_mut(&self.id).filter(|entry| entry.number == self.number);
        let Some(Entry { state: State::Begun(wakers), .. }) = entry else { return Poll::Ready(()) };
        match wakers.iter_mut().find(|(ticket, _)| *ticket == self.ticket) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => wakers.push((self.ticket, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for KeyWait {
    fn drop(&mut self) {
        self.table.waiting.fetch_sub(1, Relaxed);
        let mut shard = self.table.shard(self.id);
        if let Some(Entry { state: State::Begun(wakers), .. }) = shard.entries.get_mut(&self.id) {
            wakers.retain(|(ticket, _)| *ticket != self.ticket);
        }
    }
}

#[cfg(test)]
mod tests;
