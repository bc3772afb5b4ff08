//! The fence of a service at run time: shared by all workers and the controller.
//!
//! While it is open, a write reads one flag. Everything else, the queue among it, is behind a lock that is
//! taken only while the service's writes are being moved.

mod uploads;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

pub use self::uploads::Upload;
use self::uploads::Uploads;
use crate::{
    policy::fence::{Action, Event, Fence, Ticket},
    telemetry::collector::Durations,
};

/// How long after a move those who were held begin one by one, each as soon as there is room for it. Then the others fare as
/// all requests do: a service that has too much to do must not keep its fence closed.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// The fence of a service.
#[derive(Debug, Default)]
pub struct FenceState {
    /// Whether the fence is not open. Written under the lock.
    closed: AtomicBool,
    queue: Mutex<Queue>,
    uploads: Uploads,
}

#[derive(Debug, Default)]
struct Queue {
    fence: Fence,
    /// Of the writes that wait, once they were polled.
    wakers: HashMap<Ticket, Waker>,
    called: Option<Ticket>,
    /// How often those who wait were to ask again whether they may.
    asked: u64,
    /// When the first write was called, after the move under way or the last one.
    released: Option<Instant>,
    /// Of the move under way, or the last one.
    tally: Tally,
    /// Uploads that were ended before it.
    cut_before: u64,
    /// Why it was undone, if it was not the deadline.
    undone: Option<String>,
    /// How long writes were held, since the process started.
    holds: Durations,
}

/// The writes that a move held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that waited and then began.
    pub held: u64,
    /// The longest time that one of them waited.
    pub longest: Duration,
    /// Writes that were refused because the queue was full.
    pub refused: u64,
    /// Writes that were ended because their bodies had not arrived in time.
    pub cut: u64,
}

/// What becomes of a write that arrives.
#[derive(Debug)]
pub enum Admission {
    /// It goes on.
    Pass,
    /// It waits.
    Hold(Held),
    /// The queue is full.
    Full,
}

/// The place of a write in the queue. Dropped, it is free: the write has begun, or its client has left.
#[derive(Debug)]
pub struct Held {
    state: Arc<FenceState>,
    ticket: Ticket,
    /// As of its last question; see [`FenceState::ask_again`].
    asked: u64,
}

/// A raised fence. Dropped before the writes were moved, the move is undone.
#[derive(Debug)]
pub struct Raised(Arc<FenceState>);

impl FenceState {
    /// Whether writes must ask for [`FenceState::admit`].
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    /// Asks what becomes of a write that arrives.
    pub fn admit(self: &Arc<Self>, now: Instant) -> Admission {
        let mut queue = self.lock();
        let actions = self.act(&mut queue, Event::Arrive, now);
        for action in actions {
            match action {
                Action::Hold(ticket) => {
                    let (state, asked) = (Arc::clone(self), queue.asked);
                    return Admission::Hold(Held { state, ticket, asked });
                }
                Action::Refuse => {
                    queue.tally.refused += 1;
                    return Admission::Full;
                }
                _ => {}
            }
        }
        Admission::Pass
    }

    /// Raises the fence; `None` if it is not open.
    pub fn raise(self: &Arc<Self>, deadline: Duration, queue: usize) -> Option<Raised> {
        let mut inner = self.lock();
        let actions = self.act(&mut inner, Event::Raise { deadline, queue }, Instant::now());
        if actions != [Action::Raised] {
            return None;
        }
        (inner.tally, inner.undone, inner.released) = (Tally::default(), None, None);
        inner.cut_before = self.uploads.ended();
        Some(Raised(Arc::clone(self)))
    }

    /// Undoes the move under way, if there is one and the writes are not being moved yet.
    pub fn undo(&self, why: &str) {
        let mut queue = self.lock();
        if queue.fence.deadline().is_some() {
            queue.undone = Some(why.to_owned());
            self.act(&mut queue, Event::Undo, Instant::now());
        }
    }

    /// Lets the writes that wait ask again whether they may, since they may be refused now. Those that may keep their places.
    pub fn ask_again(&self) {
        let mut queue = self.lock();
        queue.asked += 1;
        queue.wakers.drain().for_each(|(_, waker)| waker.wake());
    }

    /// Notices that a deadline has passed.
    pub fn tick(&self, now: Instant) {
        let mut queue = self.lock();
        self.act(&mut queue, Event::Tick, now);
    }

    /// When the move under way is undone.
    pub fn deadline(&self) -> Option<Instant> {
        self.lock().fence.deadline()
    }

    /// Until when a write that is called may keep its turn while there is no room for it, so that those behind it wait.
    pub fn released_until(&self) -> Instant {
        self.lock().released.unwrap_or_else(Instant::now) + RELEASE_PATIENCE
    }

    /// Writes that wait now.
    pub fn waiting(&self) -> usize {
        self.lock().fence.waiting()
    }

    /// The writes that the move under way, or the last one, has held.
    pub fn tally(&self) -> Tally {
        let queue = self.lock();
        Tally { cut: self.uploads.ended() - queue.cut_before, ..queue.tally }
    }

    /// Writes that were ended because their bodies had not arrived in time, since the process started.
    pub fn uploads_cut(&self) -> u64 {
        self.uploads.ended()
    }

    /// How long writes were held, since the process started.
    pub fn holds(&self) -> Durations {
        self.lock().holds
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No panic leaves the queue half changed: the machine takes one event at a time.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the machine of `event`, and does what it says, except what is the caller's.
    fn act(&self, queue: &mut Queue, event: Event, now: Instant) -> Vec<Action> {
        let actions = queue.fence.on(event, now);
        for action in &actions {
            if let Action::Call(ticket, waited) = *action {
                queue.tally.held += 1;
                queue.tally.longest = queue.tally.longest.max(waited);
                queue.holds.record(waited.as_micros().try_into().unwrap_or(u32::MAX));
                queue.called = Some(ticket);
                queue.released.get_or_insert(now);
                if let Some(waker) = queue.wakers.remove(&ticket) {
                    waker.wake();
                }
            }
        }
        // Whoever finds it open also finds what was published before.
        self.closed.store(!queue.fence.is_open(), Release);
        actions
    }
}

impl Held {
    /// Ready when the write may begin, or is to ask again whether it may.
    pub fn poll_called(&mut self, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.state.lock();
        let asks = std::mem::replace(&mut self.asked, queue.asked) != queue.asked;
        if asks || queue.called == Some(self.ticket) {
            return Poll::Ready(());
        }
        queue.wakers.insert(self.ticket, cx.waker().clone());
        Poll::Pending
    }

    /// Whether the write may begin.
    pub fn is_called(&self) -> bool {
        self.state.lock().called == Some(self.ticket)
    }

    /// The fence in whose queue it is.
    pub fn fence(&self) -> &Arc<FenceState> {
        &self.state
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut queue = self.state.lock();
        queue.wakers.remove(&self.ticket);
        if queue.called == Some(self.ticket) {
            queue.called = None;
        }
        self.state.act(&mut queue, Event::Leave(self.ticket), Instant::now());
    }
}

impl Raised {
    /// The writes of the old version have ended. Returns whether they may be moved; if not, the move was undone.
    pub fn may_move(&self) -> bool {
        let mut queue = self.0.lock();
        self.0.act(&mut queue, Event::Quiet, Instant::now()).contains(&Action::Move)
    }

    /// The writes were moved: those that wait go on.
    pub fn moved(&self) {
        let mut queue = self.0.lock();
        self.0.act(&mut queue, Event::Moved, Instant::now());
    }

    /// Whether the move was undone.
    pub fn is_undone(&self) -> bool {
        self.0.tick(Instant::now());
        self.0.deadline().is_none()
    }

    /// Ends writes whose bodies are still arriving, except those to the version `except`, until the fence is dropped.
    pub fn cut_uploads(&self, except: Option<&str>) {
        self.0.uploads.cut(except);
    }

    /// Why the move was undone; `None` if it was the deadline.
    pub fn why_undone(&self) -> Option<String> {
        self.0.lock().undone.clone()
    }

    /// The fence.
    pub fn fence(&self) -> &Arc<FenceState> {
        &self.0
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.uploads.spare();
        let mut queue = self.0.lock();
        self.0.act(&mut queue, Event::Undo, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn hold(state: &Arc<FenceState>) -> Held {
        match state.admit(Instant::now()) {
            Admission::Hold(held) => held,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn writes_of_many_threads_begin_one_by_one_in_the_order_of_their_arrival() {
        let state = Arc::<FenceState>::default();
        let raised = state.raise(DEADLINE, 100).expect("it is open");
        assert!(state.is_closed() && state.raise(DEADLINE, 1).is_none());
        let (begun, order) = mpsc::channel();
        let threads: Vec<_> = (0..100)
            .map(|n| {
                // They arrive in this order, and wait on threads of their own.
                let (mut held, begun) = (hold(&state), begun.clone());
                thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build();
                    let called = std::future::poll_fn(|cx| held.poll_called(cx));
                    runtime.expect("a runtime").block_on(called);
                    begun.send(n).expect("somebody listens");
                })
            })
            .collect();
        assert!(matches!(state.admit(Instant::now()), Admission::Full));
        assert_eq!(state.waiting(), 100);
        assert!(raised.may_move() && !raised.may_move());
        raised.moved();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert!(order.try_iter().eq(0..100));
        assert!(!state.is_closed());
        let Tally { held, refused, .. } = state.tally();
        assert_eq!((held, refused, state.holds().count()), (100, 1, 100));
    }

    #[test]
    fn who_asks_again_and_may_wait_keeps_the_place() {
        let state = Arc::<FenceState>::default();
        let raised = state.raise(DEADLINE, 9).expect("it is open");
        let (mut first, mut second) = (hold(&state), hold(&state));
        let poll = |held: &mut Held| held.poll_called(&Context::from_waker(Waker::noop()));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        state.ask_again();
        for held in [&mut first, &mut second] {
            assert!(poll(held).is_ready() && !held.is_called() && poll(held).is_pending());
        }
        // The first one is refused.
        drop(first);
        assert!(raised.may_move());
        raised.moved();
        assert!(poll(&mut second).is_ready() && second.is_called());
        assert_eq!(state.tally().held, 1);
    }

    #[test]
    fn a_fence_that_is_dropped_or_undone_holds_nobody() {
        let state = Arc::<FenceState>::default();
        let raised = state.raise(DEADLINE, 9).expect("it is open");
        let (first, second) = (hold(&state), hold(&state));
        drop(raised);
        // The first was called.
        assert!(state.is_closed());
        drop(first);
        drop(second);
        assert!(!state.is_closed());
        let raised = state.raise(DEADLINE, 9).expect("it is open");
        state.undo("the process ends");
        assert!(raised.is_undone() && !raised.may_move());
        assert_eq!(raised.why_undone().as_deref(), Some("the process ends"));
        assert!(!state.is_closed());
        let raised = state.raise(Duration::ZERO, 9).expect("it is open");
        assert!(raised.is_undone() && raised.why_undone().is_none());
    }
}
