//! Who gets a place where requests in flight are limited: how many places each priority may use, and the order in
//! which requests wait for one.
//!
//! A more important request is admitted where a less important one is not, in three ways. Part of the limit is kept
//! for it ([`Parts`]). It is called before those that wait and are less important, however long they have waited.
//! And if the queue is full, it takes the place in the queue of the least important one, the one that came last
//! among these, which is refused. So as long as a less important request waits, no more important one is
//! refused for want of room; and less important ones may get nothing at all while more important ones need everything.

use std::collections::BTreeMap;

pub use crate::config::schema::Priority;

impl Priority {
    /// All of them, the most important one first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// The parts of a limit that the priorities may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts {
    /// Kept for each more important priority, as a fraction of the limit.
    reserve: f64,
    /// Number of more important priorities that compete, by priority.
    above: [u8; Priority::ALL.len()],
}

impl Parts {
    /// The parts if requests of the priorities `competing` compete, and `reserve` of the limit, at most 0.4, is kept
    /// from each of them for each more important one.
    pub fn new(reserve: f64, competing: impl IntoIterator<Item = Priority>) -> Self {
        let mut compete = [false; Priority::ALL.len()];
        competing.into_iter().for_each(|priority| compete[priority as usize] = true);
        let above = Priority::ALL.map(|priority| {
            compete[..priority as usize].iter().filter(|competes| **competes).count() as u8
        });
        Self { reserve, above }
    }

    /// Most places of `limit` that are in use when a request of `priority` has got one: `limit` less
    /// the reserve for each more important priority, which is rounded down; at least 1.
    pub fn most(&self, limit: u32, priority: Priority) -> u32 {
        let above = f64::from(self.above[priority as usize]);
        // In binary fractions a share may come out a little below what is written.
        let kept = (f64::from(limit) * self.reserve * above + 1e-9).floor();
        limit.saturating_sub(kept as u32).max(1)
    }
}

/// Number of a request in a queue.
pub type Ticket = u64;

/// Requests that wait, each with a `T`: first by priority, then in the order of their arrival.
#[derive(Debug)]
pub struct Waitlist<T> {
    waiting: BTreeMap<(Priority, Ticket), T>,
    next: Ticket,
}

impl<T> Default for Waitlist<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), next: 0 }
    }
}

/// What becomes of a request that would wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<T> {
    /// It waits.
    Waits(Ticket),
    /// It waits in place of another one, which is refused.
    Displaces(Ticket, Displaced<T>),
    /// It is refused.
    Full,
}

/// A request that lost its place in a queue.
#[derive(Debug, PartialEq, Eq)]
pub struct Displaced<T> {
    /// Its priority.
    pub priority: Priority,
    /// Its number.
    pub ticket: Ticket,
    /// What belongs to it.
    pub own: T,
}

impl<T> Waitlist<T> {
    /// A request of `priority` arrives; at most `most` wait.
    pub fn enter(&mut self, priority: Priority, most: usize, own: T) -> Entry<T> {
        let mut displaced = None;
        if self.waiting.len() >= most {
            match self.waiting.last_entry() {
                Some(last) if last.key().0 > priority => {
                    let ((priority, ticket), own) = last.remove_entry();
                    displaced = Some(Displaced { priority, ticket, own });
                }
                _ => return Entry::Full,
            }
        }
        let ticket = self.next;
        self.next += 1;
        self.waiting.insert((priority, ticket), own);
        match displaced {
            Some(displaced) => Entry::Displaces(ticket, displaced),
            None => Entry::Waits(ticket),
        }
    }

    /// Priority of the request that is called next.
    pub fn first(&self) -> Option<Priority> {
        self.waiting.first_key_value().map(|((priority, _), _)| *priority)
    }

    /// Removes the request that is called next.
    pub fn call(&mut self) -> Option<(Ticket, T)> {
        self.waiting.pop_first().map(|((_, ticket), own)| (ticket, own))
    }

    /// What belongs to the request `ticket` of `priority`, while it waits.
    pub fn find(&mut self, priority: Priority, ticket: Ticket) -> Option<&mut T> {
        self.waiting.get_mut(&(priority, ticket))
    }

    /// Removes the request `ticket` of `priority`, if it waits.
    pub fn leave(&mut self, priority: Priority, ticket: Ticket) -> Option<T> {
        self.waiting.remove(&(priority, ticket))
    }

    /// Whether a request of `priority` waits.
    pub fn has(&self, priority: Priority) -> bool {
        self.waiting.range((priority, 0)..=(priority, Ticket::MAX)).next().is_some()
    }

    /// Number of those that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Priority::{High, Low, Normal},
        *,
    };

    #[test]
    fn a_part_is_kept_only_for_priorities_that_compete() {
        let all = Parts::new(0.1, Priority::ALL);
        assert_eq!(Priority::ALL.map(|priority| all.most(200, priority)), [200, 180, 160]);
        let two = Parts::new(0.1, [Normal, High]);
        assert_eq!(Priority::ALL.map(|priority| two.most(30, priority)), [30, 27, 24]);
        let one = Parts::new(0.4, [Normal]);
        assert_eq!(one.most(30, Normal), 30);
        assert_eq!(Parts::new(0.4, Priority::ALL).most(1, Low), 1, "nobody is shut out");
        assert_eq!(all.most(9, Low), 8, "0.9 and 1.8 places are rounded down");
    }

    #[test]
    fn the_important_wait_before_the_unimportant_and_in_their_place() {
        let mut list = Waitlist::default();
        assert_eq!(list.enter(Low, 3, "a"), Entry::Waits(0));
        assert_eq!(list.enter(Normal, 3, "b"), Entry::Waits(1));
        assert_eq!(list.enter(Low, 3, "c"), Entry::Waits(2));
        assert_eq!(list.enter(Low, 3, "d"), Entry::Full);
        let displaced = |ticket, own| Displaced { priority: Low, ticket, own };
        assert_eq!(list.enter(High, 3, "e"), Entry::Displaces(3, displaced(2, "c")));
        assert_eq!(list.enter(Normal, 3, "f"), Entry::Displaces(4, displaced(0, "a")));
        assert_eq!(list.enter(Normal, 3, "g"), Entry::Full, "those that wait are as important");
        let order: Vec<_> = std::iter::from_fn(|| list.call()).collect();
        assert_eq!(order, [(3, "e"), (1, "b"), (4, "f")]);
    }

    proptest! {
        /// By a list that is sorted at every step.
        #[test]
        fn the_order_is_by_priority_and_then_by_arrival(
            steps in prop::collection::vec((0u8..3, 0usize..3, 0u64..40), 1..200), most in 0usize..8,
        ) {
            let mut list = Waitlist::default();
            let mut model: Vec<(Priority, Ticket)> = Vec::new();
            for (step, priority, ticket) in steps {
                let priority = Priority::ALL[priority];
                match step {
                    0 => match list.enter(priority, most, ()) {
                        Entry::Full => {
                            prop_assert!(model.len() >= most && model.iter().all(|(p, _)| *p <= priority));
                        }
                        Entry::Waits(ticket) => {
                            prop_assert!(model.len() < most);
                            model.push((priority, ticket));
                        }
                        Entry::Displaces(ticket, displaced) => {
                            prop_assert_eq!(model.len(), most);
                            let last = model.pop().expect("one waits");
                            prop_assert_eq!(last, (displaced.priority, displaced.ticket));
                            prop_assert!(last.0 > priority);
                            model.push((priority, ticket));
                        }
                    },
                    1 => {
                        let first = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(list.first(), first.map(|(priority, _)| priority));
                        prop_assert_eq!(list.call().map(|(ticket, ())| ticket), first.map(|(_, ticket)| ticket));
                    }
                    _ => {
                        let at = model.iter().position(|waiting| *waiting == (priority, ticket));
                        prop_assert_eq!(list.leave(priority, ticket).is_some(), at.is_some());
                        at.map(|at| model.remove(at));
                    }
                }
                model.sort_unstable();
                prop_assert_eq!(list.len(), model.len());
            }
        }
    }
}
