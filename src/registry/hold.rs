//! Writes of a route that wait until a read-only mode ends: shared by all workers and the controller.
//!
//! They begin one by one, in the order in which they arrived; one that arrives while others still wait goes behind
//! them. While nothing is read-only and nobody waits, a write reads one flag.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

use crate::telemetry::collector::Durations;

/// What happened to a write that was to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEvent {
    /// It went on.
    Released,
    /// It was refused, since too many waited, or too many bytes.
    Full,
    /// It was refused, since it had waited for too long.
    Late,
    /// Its client left.
    Left,
    /// It was refused, since the process ends or another one took over.
    Dismissed,
}

impl HoldEvent {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 5] =
        [Self::Released, Self::Full, Self::Late, Self::Left, Self::Dismissed];

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Full => "full",
            Self::Late => "late",
            Self::Left => "left",
            Self::Dismissed => "dismissed",
        }
    }
}

/// The writes of a route that wait.
#[derive(Debug, Default)]
pub struct HoldState {
    /// Whether a write must ask for [`HoldState::admit`]. Written under the lock.
    closed: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whether the route is read-only.
    read_only: bool,
    /// Whether nobody may wait, since the process is about to end.
    leaving: bool,
    next: u64,
    waiting: BTreeMap<u64, Place>,
    bytes: usize,
    called: Option<u64>,
    counts: [u64; HoldEvent::ALL.len()],
    holds: Durations,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    bytes: usize,
    waker: Option<Waker>,
}

/// What becomes of a write that arrives.
#[derive(Debug)]
pub enum HoldAdmission {
    /// It goes on.
    Pass,
    /// It waits.
    Hold(HeldWrite),
    /// It is refused.
    Refuse(HoldEvent),
}

/// What a write that waits is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldTurn {
    /// It may begin.
    Begin,
    /// It is refused, since the process is about to end.
    Leave,
}

/// The place of a write in the queue. Dropped, it is free: the write has begun, or will not.
#[derive(Debug)]
pub struct HeldWrite {
    state: Arc<HoldState>,
    number: u64,
}

impl HoldState {
    /// Whether writes must ask for [`HoldState::admit`].
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    /// Asks what becomes of a write; `is_refused` if its route is read-only as far as the caller knows. At most
    /// `most` wait.
    pub fn admit(self: &Arc<Self>, is_refused: bool, most: usize) -> HoldAdmission {
        let mut queue = self.lock();
        if !is_refused && !queue.read_only && queue.waiting.is_empty() {
            return HoldAdmission::Pass;
        }
        if queue.leaving {
            return HoldAdmission::Refuse(queue.count(HoldEvent::Dismissed));
        }
        if queue.waiting.len() >= most {
            return HoldAdmission::Refuse(queue.count(HoldEvent::Full));
        }
        let number = queue.next;
        queue.next += 1;
        queue.waiting.insert(number, Place { since: Instant::now(), bytes: 0, waker: None });
        self.call(&mut queue);
        HoldAdmission::Hold(HeldWrite { state: Arc::clone(self), number })
    }

    /// Notes whether the route is read-only. A route becomes read-only here before requests find that in the
    /// snapshot, and ends it here after they do: so whoever is called finds that the mode has ended.
    pub fn set_read_only(&self, read_only: bool) {
        let mut queue = self.lock();
        queue.read_only = read_only;
        self.call(&mut queue);
    }

    /// Notes whether the process is about to end: then all who wait are refused, and nobody waits any more.
    pub fn set_leaving(&self, leaving: bool) {
        let mut queue = self.lock();
        queue.leaving = leaving;
        if leaving {
            queue.waiting.values_mut().filter_map(|place| place.waker.take()).for_each(Waker::wake);
        }
    }

    /// Writes that wait now.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Bytes of those that wait now.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// What happened since the process started.
    pub fn counts(&self) -> [(HoldEvent, u64); HoldEvent::ALL.len()] {
        let counts = self.lock().counts;
        HoldEvent::ALL.map(|event| (event, counts[event as usize]))
    }

    /// How long writes waited that then began, since the process started.
    pub fn holds(&self) -> Durations {
        self.lock().holds
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No panic leaves the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the first one if it may begin, and says whether others must ask.
    fn call(&self, queue: &mut Queue) {
        if !queue.read_only && queue.called.is_none() {
            let first = queue.waiting.first_entry();
            queue.called = first.as_ref().map(|first| *first.key());
            if let Some(waker) = first.and_then(|first| first.into_mut().waker.take()) {
                waker.wake();
            }
        }
        self.closed.store(queue.read_only || !queue.waiting.is_empty(), Release);
    }
}

impl Queue {
    fn count(&mut self, event: HoldEvent) -> HoldEvent {
        self.counts[event as usize] += 1;
        event
    }
}

impl HeldWrite {
    /// Ready when the write may begin, or is refused.
    pub fn poll_called(&self, cx: &Context<'_>) -> Poll<HoldTurn> {
        let mut queue = self.state.lock();
        if queue.leaving {
            return Poll::Ready(HoldTurn::Leave);
        }
        if queue.called == Some(self.number) {
            return Poll::Ready(HoldTurn::Begin);
        }
        if let Some(place) = queue.waiting.get_mut(&self.number) {
            place.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Says how many bytes of the write are in memory; false if those who wait would have more than `most`.
    pub fn weigh(&self, bytes: usize, most: usize) -> bool {
        let mut queue = self.state.lock();
        let Some(before) = queue.waiting.get(&self.number).map(|place| place.bytes) else {
            return true;
        };
        let all = queue.bytes - before + bytes;
        if all > most {
            return false;
        }
        queue.bytes = all;
        if let Some(place) = queue.waiting.get_mut(&self.number) {
            place.bytes = bytes;
        }
        true
    }

    /// The route is read-only again: the write keeps its place, and waits on.
    pub fn wait_again(&self) {
        let mut queue = self.state.lock();
        if queue.called == Some(self.number) {
            queue.called = None;
        }
        self.state.call(&mut queue);
    }

    /// The write is refused, or its client has left: it gives its place up.
    pub fn give_up(&self, event: HoldEvent) {
        let mut queue = self.state.lock();
        if let Some(place) = queue.waiting.remove(&self.number) {
            queue.bytes -= place.bytes;
            queue.count(event);
        }
        if queue.called == Some(self.number) {
            queue.called = None;
        }
        self.state.call(&mut queue);
    }

    /// The queue in which it is.
    pub fn state(&self) -> &Arc<HoldState> {
        &self.state
    }
}

impl Drop for HeldWrite {
    fn drop(&mut self) {
        let mut queue = self.state.lock();
        let Some(place) = queue.waiting.remove(&self.number) else { return };
        queue.bytes -= place.bytes;
        if queue.called == Some(self.number) {
            queue.called = None;
            let waited = place.since.elapsed().as_micros();
            queue.holds.record(waited.try_into().unwrap_or(u32::MAX));
            queue.count(HoldEvent::Released);
        }
        self.state.call(&mut queue);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    fn hold(state: &Arc<HoldState>) -> HeldWrite {
        match state.admit(true, 1000) {
            HoldAdmission::Hold(held) => held,
            other => panic!("{other:?}"),
        }
    }

    fn turn(held: &HeldWrite) -> Poll<HoldTurn> {
        held.poll_called(&Context::from_waker(Waker::noop()))
    }

    fn count(state: &HoldState, event: HoldEvent) -> u64 {
        state.counts()[event as usize].1
    }

    #[test]
    fn writes_of_many_threads_begin_one_by_one_in_the_order_of_their_arrival() {
        let state = Arc::<HoldState>::default();
        assert!(!state.is_closed());
        state.set_read_only(true);
        let (begun, order) = mpsc::channel();
        let threads: Vec<_> = (0..100)
            .map(|n| {
                let (held, begun) = (hold(&state), begun.clone());
                thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build();
                    let called = std::future::poll_fn(|cx| held.poll_called(cx));
                    let turn = runtime.expect("a runtime").block_on(called);
                    assert_eq!(turn, HoldTurn::Begin);
                    begun.send(n).expect("somebody listens");
                })
            })
            .collect();
        assert!(matches!(state.admit(true, 100), HoldAdmission::Refuse(HoldEvent::Full)));
        assert_eq!(state.waiting(), 100);
        state.set_read_only(false);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert!(order.try_iter().eq(0..100));
        assert!(!state.is_closed());
        assert_eq!((count(&state, HoldEvent::Released), state.holds().count()), (100, 100));
        assert!(matches!(state.admit(false, 1), HoldAdmission::Pass));
    }

    #[test]
    fn who_arrives_while_others_wait_goes_behind_them() {
        let state = Arc::<HoldState>::default();
        state.set_read_only(true);
        let (first, second) = (hold(&state), hold(&state));
        state.set_read_only(false);
        let HoldAdmission::Hold(third) = state.admit(false, 9) else { panic!("it overtakes") };
        assert_eq!(turn(&first), Poll::Ready(HoldTurn::Begin));
        assert!(turn(&second).is_pending() && turn(&third).is_pending());
        drop(second);
        assert!(turn(&third).is_pending(), "the first one has not begun");
        drop(first);
        assert_eq!(turn(&third), Poll::Ready(HoldTurn::Begin));
        assert_eq!(count(&state, HoldEvent::Released), 1, "the second one left");
        drop(third);
        assert!(!state.is_closed());
    }

    #[test]
    fn a_mode_that_begins_again_keeps_the_order() {
        let state = Arc::<HoldState>::default();
        state.set_read_only(true);
        let (first, second) = (hold(&state), hold(&state));
        state.set_read_only(false);
        assert_eq!(turn(&first), Poll::Ready(HoldTurn::Begin));
        state.set_read_only(true);
        first.wait_again();
        assert!(turn(&first).is_pending() && turn(&second).is_pending());
        state.set_read_only(false);
        assert_eq!(turn(&first), Poll::Ready(HoldTurn::Begin));
        assert!(turn(&second).is_pending());
    }

    #[test]
    fn bytes_are_bounded_and_a_process_that_ends_holds_nobody() {
        let state = Arc::<HoldState>::default();
        state.set_read_only(true);
        let (first, second) = (hold(&state), hold(&state));
        assert!(first.weigh(60, 100) && !second.weigh(41, 100) && second.weigh(40, 100));
        assert!(first.weigh(60, 100), "weighed again, it weighs the same");
        first.give_up(HoldEvent::Late);
        drop(first);
        assert_eq!((count(&state, HoldEvent::Late), count(&state, HoldEvent::Released)), (1, 0));
        assert_eq!(state.bytes(), 40);
        state.set_leaving(true);
        assert_eq!(turn(&second), Poll::Ready(HoldTurn::Leave));
        assert!(matches!(state.admit(true, 9), HoldAdmission::Refuse(HoldEvent::Dismissed)));
        drop(second);
        assert_eq!((state.bytes(), state.waiting()), (0, 0));
        state.set_leaving(false);
        assert!(turn(&hold(&state)).is_pending(), "the process goes on");
    }
}
