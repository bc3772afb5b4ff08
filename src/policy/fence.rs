//! The fence of a service: which writes wait while its writes move from one version to another.
//!
//! A pure machine: it is told what happens and the time, and says what is to be done. It is *raised* before a
//! move. Writes that arrive then wait, each with a ticket, in the order of their arrival. Once the old version
//! has no write in flight, the machine allows the move, at most once and only before the deadline; when the
//! deadline has passed it is *undone* instead. In both cases it then calls the waiting writes one by one, and
//! opens when the last of them has begun. Until then arrivals queue up behind them, so nobody overtakes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A place in the queue. Numbers grow in the order of arrival.
pub type Ticket = u64;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A move begins. It must be possible before `deadline` has passed, and at most `queue` writes wait.
    Raise {
        /// From now on.
        deadline: Duration,
        /// Most writes that wait.
        queue: usize,
    },
    /// A write arrives.
    Arrive,
    /// The write with this ticket needs it no more: it has begun, or its client has left.
    Leave(Ticket),
    /// The old version has no write in flight.
    Quiet,
    /// The writes were moved.
    Moved,
    /// The move is given up.
    Undo,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The fence stands.
    Raised,
    /// Another move is under way.
    Busy,
    /// The write goes on.
    Pass,
    /// The write waits.
    Hold(Ticket),
    /// The queue is full: the write is refused.
    Refuse,
    /// The writes may be moved now; [`Event::Moved`] or [`Event::Undo`] follows.
    Move,
    /// The move is undone: the writes stay where they were.
    Undone,
    /// The write with this ticket begins now. It has waited for this time.
    Call(Ticket, Duration),
    /// Nothing waits any more.
    Opened,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Open,
    /// Writes wait, until the old version is quiet or this time has come.
    Raised(Instant),
    /// The writes are being moved.
    Moving,
    /// The waiting writes begin, one by one.
    Releasing,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence {
    phase: Phase,
    queue: usize,
    next: Ticket,
    /// In the order of arrival, with the times.
    waiting: VecDeque<(Ticket, Instant)>,
    /// The write that was called, and has not begun.
    called: Option<Ticket>,
}

impl Default for Fence {
    fn default() -> Self {
        Self { phase: Phase::Open, queue: 0, next: 0, waiting: VecDeque::new(), called: None }
    }
}

impl Fence {
    /// Whether writes pass without waiting.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// When the move is undone, while it waits for the old version.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Raised(until) => Some(until),
            _ => None,
        }
    }

    /// Writes that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What is to be done after `event` at `now`, in this order; mostly one thing.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match (event, self.phase) {
            (Event::Raise { deadline, queue }, Phase::Open) => {
                (self.phase, self.queue) = (Phase::Raised(now + deadline), queue);
                actions.push(Action::Raised);
            }
            (Event::Raise { .. }, _) => actions.push(Action::Busy),
            (Event::Arrive, Phase::Open) => actions.push(Action::Pass),
            (Event::Arrive, _) if self.waiting.len() >= self.queue => actions.push(Action::Refuse),
            (Event::Arrive, _) => {
                let ticket = self.next;
                self.next += 1;
                self.waiting.push_back((ticket, now));
                actions.push(Action::Hold(ticket));
            }
            (Event::Leave(ticket), _) => {
                self.waiting.retain(|(other, _)| *other != ticket);
                if self.called == Some(ticket) {
                    self.called = None;
                }
            }
            (Event::Quiet, Phase::Raised(until)) if now < until => {
                self.phase = Phase::Moving;
                actions.push(Action::Move);
            }
            (Event::Moved, Phase::Moving) => self.phase = Phase::Releasing,
            (Event::Undo, Phase::Raised(_) | Phase::Moving) => self.undo(&mut actions),
            (_, Phase::Raised(until)) if now >= until => self.undo(&mut actions),
            _ => {}
        }
        self.call(&mut actions, now);
        actions
    }

    fn undo(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Releasing;
        actions.push(Action::Undone);
    }

    /// Calls the next write, or opens if there is none.
    fn call(&mut self, actions: &mut Vec<Action>, now: Instant) {
        if self.phase != Phase::Releasing || self.called.is_some() {
            return;
        }
        match self.waiting.pop_front() {
            Some((ticket, since)) => {
                self.called = Some(ticket);
                actions.push(Action::Call(ticket, now.saturating_duration_since(since)));
            }
            None => {
                self.phase = Phase::Open;
                actions.push(Action::Opened);
            }
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
