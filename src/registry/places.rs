//! The places of a limit of requests in flight: shared by all workers and the controller.
//!
//! A request takes a place by one compare-and-swap, and gives it back by one subtraction. Only one that finds no place, or
//! others that wait and are as important, takes the lock of the queue. Places are given to those who wait under that
//! lock, so nobody overtakes them.
//!
//! No wake-up is lost: who begins to wait first says so and then looks for a place once more; who gives a place back
//! first does that and then looks whether somebody waits; and all four steps are in one order (`SeqCst`).

mod latencies;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

pub use self::latencies::LatencyState;
use crate::{
    policy::{
        adaptive::{Adaptive, Latencies, Rules, Seen},
        places::{Entry, Parts, Priority, Ticket, Waitlist},
    },
    telemetry::collector::Durations,
};

/// Why a request got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The queue was full of requests that are as important.
    Full,
    /// A more important one took its place in the queue.
    Displaced,
    /// It had waited for too long.
    Late,
    /// Its client left while it waited.
    Left,
}

impl Shed {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 4] = [Self::Full, Self::Displaced, Self::Late, Self::Left];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Displaced => "displaced",
            Self::Late => "late",
            Self::Left => "left",
        }
    }
}

/// The terms of a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlaceTerms {
    /// Most requests in flight.
    pub max: u32,
    /// Most requests that wait.
    pub queue: u32,
    /// The parts of the priorities.
    pub parts: Parts,
    /// How the limit follows the latency; `None`: it is `max`.
    pub adaptive: Option<Rules>,
}

/// The places of a limit.
#[derive(Debug)]
pub struct PlaceState {
    hot: Hot,
    line: Mutex<Line>,
    /// Requests without a place, by priority and [`Shed`].
    shed: [[AtomicU64; Shed::ALL.len()]; Priority::ALL.len()],
}

/// What every request reads or writes, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hot {
    taken: AtomicU32,
    /// The priorities of which requests wait, a bit for each.
    waits: AtomicU8,
    /// Requests in flight came near the limit since the last tick.
    reached: AtomicBool,
    /// Whether any may wait.
    queues: AtomicBool,
    /// Places in use from which on the limit counts as reached.
    near: AtomicU32,
    /// Places that requests of a priority may use.
    most: [AtomicU32; Priority::ALL.len()],
}

#[derive(Debug)]
struct Line {
    terms: PlaceTerms,
    limit: u32,
    list: Waitlist<Slot>,
    /// Requests that do not wait any more and do not know it yet.
    called: HashMap<Ticket, Called>,
    /// How long requests waited that got a place.
    waits: Durations,
    adaptive: Option<Adaptive>,
    /// Latencies by route at the last tick.
    before: HashMap<u32, Latencies>,
}

#[derive(Debug)]
struct Slot {
    since: Instant,
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Called {
    /// It has a place.
    Granted,
    /// It is refused.
    Displaced,
}

/// A place in use, until this is dropped.
#[derive(Debug)]
pub struct Place(Arc<PlaceState>);

/// A request that waits for a place. Dropped, it has left the queue.
#[derive(Debug)]
pub struct PlaceWait {
    state: Arc<PlaceState>,
    priority: Priority,
    ticket: Ticket,
    is_over: bool,
}

/// What becomes of a request that asks for a place.
#[derive(Debug)]
pub enum Asking {
    /// It has one.
    Taken(Place),
    /// It waits.
    Wait(PlaceWait),
    /// It is refused, since the queue is full.
    Full,
}

impl PlaceState {
    /// No place is in use.
    pub fn new(terms: PlaceTerms) -> Self {
        let state = Self {
            hot: Hot::default(),
            line: Mutex::new(Line {
                terms,
                limit: 0,
                list: Waitlist::default(),
                called: HashMap::new(),
                waits: Durations::default(),
                adaptive: None,
                before: HashMap::new(),
            }),
            shed: Default::default(),
        };
        state.adopt(terms, Duration::ZERO);
        state
    }

    /// Brings `terms` into force, at `now` of the clock of [`PlaceState::tick`].
    pub fn adopt(&self, terms: PlaceTerms, now: Duration) {
        let mut line = self.lock();
        line.terms = terms;
        line.adaptive = terms
            .adaptive
            .map(|rules| line.adaptive.take().unwrap_or_else(|| Adaptive::new(&rules, now)));
        self.hot.queues.store(terms.queue > 0, Relaxed);
        self.set_limit(&mut line);
    }

    /// Asks for a place for a request of `priority`.
    #[inline]
    pub fn ask(self: &Arc<Self>, priority: Priority) -> Asking {
        let as_important = (2 << priority as u8) - 1;
        if self.hot.waits.load(SeqCst) & as_important == 0 && self.take(priority) {
            return Asking::Taken(Place(Arc::clone(self)));
        }
        self.wait(priority, None)
    }

    /// Asks for a place for a request whose turn has come in another queue, where others wait behind it. It waits however
    /// many wait, and nobody displaces it.
    #[cold]
    pub fn ask_in_turn(self: &Arc<Self>) -> Asking {
        self.wait(Priority::High, Some(usize::MAX))
    }

    /// Takes a place if there is one for `priority`.
    #[inline]
    fn take(&self, priority: Priority) -> bool {
        let most = self.hot.most[priority as usize].load(Relaxed);
        let took = self
            .hot
            .taken
            .fetch_update(SeqCst, SeqCst, |taken| (taken < most).then_some(taken + 1));
        let Ok(before) = took else { return false };
        if before + 1 >= self.hot.near.load(Relaxed) {
            self.reach();
        }
        true
    }

    fn reach(&self) {
        // Mostly it is known, and a cache line that is only read is not passed around.
        if !self.hot.reached.load(Relaxed) {
            self.hot.reached.store(true, Relaxed);
        }
    }

    /// Takes a place or waits for one, unless `most` wait already; `None`: as many as the terms say.
    #[cold]
    fn wait(self: &Arc<Self>, priority: Priority, most: Option<usize>) -> Asking {
        self.reach();
        if most.is_none() && !self.hot.queues.load(Relaxed) {
            self.count(priority, Shed::Full);
            return Asking::Full;
        }
        let mut line = self.lock();
        let most = most.unwrap_or(line.terms.queue as usize);
        let ticket =
            match line.list.enter(priority, most, Slot { since: Instant::now(), waker: None }) {
                Entry::Waits(ticket) => ticket,
                Entry::Displaces(ticket, other) => {
                    self.count(other.priority, Shed::Displaced);
                    line.called.insert(other.ticket, Called::Displaced);
                    other.own.waker.into_iter().for_each(Waker::wake);
                    ticket
                }
                Entry::Full => {
                    self.count(priority, Shed::Full);
                    return Asking::Full;
                }
            };
        self.call(&mut line);
        // A place may have become free since the first look.
        if line.called.remove(&ticket).is_some() {
            return Asking::Taken(Place(Arc::clone(self)));
        }
        Asking::Wait(PlaceWait { state: Arc::clone(self), priority, ticket, is_over: false })
    }

    /// Gives places to those who wait, as long as there are some.
    fn call(&self, line: &mut Line) {
        self.tell(line);
        while let Some(priority) = line.list.first()
            && self.take(priority)
        {
            let Some((ticket, slot)) = line.list.call() else { break };
            let waited = slot.since.elapsed().as_micros();
            line.waits.record(waited.try_into().unwrap_or(u32::MAX));
            line.called.insert(ticket, Called::Granted);
            slot.waker.into_iter().for_each(Waker::wake);
        }
        self.tell(line);
    }

    /// Tells all which priorities wait.
    fn tell(&self, line: &Line) {
        let waits =
            Priority::ALL.map(|priority| u8::from(line.list.has(priority)) << priority as u8);
        self.hot.waits.store(waits.iter().sum(), SeqCst);
    }

    /// Computes what follows from terms and adaptation.
    fn set_limit(&self, line: &mut Line) {
        let max = line.terms.max;
        line.limit =
            line.adaptive.as_ref().map_or(max, |adaptive| adaptive.limit().min(max)).max(1);
        let near = match line.adaptive {
            // Four fifths.
            Some(_) => (u64::from(line.limit) * 4 / 5).max(1) as u32,
            None => u32::MAX,
        };
        self.hot.near.store(near, Relaxed);
        for priority in Priority::ALL {
            let most = line.terms.parts.most(line.limit, priority);
            self.hot.most[priority as usize].store(most, Relaxed);
        }
        self.call(line);
    }

    /// Lets the limit follow the latencies of all responses so far, by number of the route; `interval` is that of
    /// measurements. Returns whether there were responses since the last tick.
    pub fn tick(
        &self,
        latencies: impl Iterator<Item = (u32, Latencies)>,
        interval: u64,
        now: Duration,
    ) -> bool {
        let mut line = self.lock();
        let Line {
            terms: PlaceTerms { adaptive: Some(rules), .. },
            adaptive: Some(adaptive),
            before,
            ..
        } = &mut *line
        else {
            return false;
        };
        let new: Vec<_> = latencies
            .map(|(route, all)| (route, all.since(before.insert(route, all).unwrap_or_default())))
            .collect();
        let seen = Seen {
            latencies: &new,
            reached: self.hot.reached.swap(false, Relaxed),
            in_flight: self.in_flight(),
            interval,
        };
        adaptive.tick(rules, seen, now);
        self.set_limit(&mut line);
        new.iter().any(|(_, latencies)| latencies.count > 0)
    }

    /// Places in use.
    pub fn in_flight(&self) -> u32 {
        self.hot.taken.load(SeqCst)
    }

    /// The limit in force.
    pub fn limit(&self) -> u32 {
        self.lock().limit
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.lock().list.len()
    }

    /// How long requests waited that got a place, since the process started.
    pub fn waits(&self) -> Durations {
        self.lock().waits
    }

    /// Requests without a place since the process started, by priority and reason.
    pub fn shed(&self) -> impl Iterator<Item = (Priority, Shed, u64)> + '_ {
        let each = Priority::ALL.into_iter().flat_map(|p| Shed::ALL.map(|reason| (p, reason)));
        each.map(|(p, reason)| (p, reason, self.shed[p as usize][reason as usize].load(Relaxed)))
    }

    fn count(&self, priority: Priority, reason: Shed) {
        self.shed[priority as usize][reason as usize].fetch_add(1, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // No panic leaves the queue half changed.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place is free again.
    #[inline]
    fn give_back(&self) {
        self.hot.taken.fetch_sub(1, SeqCst);
        if self.hot.waits.load(SeqCst) != 0 {
            self.call(&mut self.lock());
        }
    }
}

impl Place {
    /// Whether it is one of `state`.
    pub fn is_of(&self, state: &Arc<PlaceState>) -> bool {
        Arc::ptr_eq(&self.0, state)
    }

    /// Whether others wait for a place of its limit, or the least important ones would find none.
    pub fn is_wanted(&self) -> bool {
        let hot = &self.0.hot;
        let most = hot.most[Priority::Low as usize].load(Relaxed);
        hot.waits.load(Relaxed) != 0 || hot.taken.load(Relaxed) >= most
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl PlaceWait {
    /// Ready with the place, or with `None` if the request is refused, since a more important one took its place in the
    /// queue.
    pub fn poll_called(&mut self, cx: &Context<'_>) -> Poll<Option<Place>> {
        let mut line = self.state.lock();
        if let Some(called) = line.called.remove(&self.ticket) {
            self.is_over = true;
            let granted = called == Called::Granted;
            return Poll::Ready(granted.then(|| Place(Arc::clone(&self.state))));
        }
        if let Some(slot) = line.list.find(self.priority, self.ticket) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Leaves the queue for this reason.
    pub fn give_up(mut self, reason: Shed) {
        self.leave(reason);
    }

    fn leave(&mut self, reason: Shed) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let mut line = self.state.lock();
        match line.called.remove(&self.ticket) {
            Some(Called::Displaced) => {}
            Some(Called::Granted) => {
                self.state.count(self.priority, reason);
                drop(line);
                self.state.give_back();
            }
            None => {
                self.state.count(self.priority, reason);
                line.list.leave(self.priority, self.ticket);
                self.state.tell(&line);
            }
        }
    }
}

impl Drop for PlaceWait {
    fn drop(&mut self) {
        self.leave(Shed::Left);
    }
}
