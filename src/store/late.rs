//! Changes that did not wait for the journal, in their order, until the disk accepts them.
//!
//! At most [`MOST_LATE`] are kept. One more is merged into the last one of the same kind and service, so the
//! state that they lead to is kept, and the entry has the number of changes that it stands for. Only if
//! there is none, the new one is lost, which is counted.

use std::collections::VecDeque;

use super::entry::{Draft, Stamp, StateChange};

/// Most changes that wait for the disk.
pub const MOST_LATE: usize = 10_000;

/// A change that did not wait.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Late {
    pub(super) draft: Draft,
    pub(super) state: Vec<StateChange>,
    /// When it was made.
    pub(super) stamp: Stamp,
    /// Number of earlier changes that it stands for, too.
    pub(super) merged: u64,
}

impl Late {
    /// The content of its entry.
    pub(super) fn said(&self) -> Draft {
        let mut draft = self.draft.clone();
        if self.merged > 0 {
            let more = self.merged;
            draft.reason +=
                &format!(" (stands for {more} earlier changes of this kind, too: too many waited)");
        }
        draft
    }

    /// The same, short enough for a line whatever the change was.
    pub(super) fn shortened(&self) -> Draft {
        let short = |text: &str| text.chars().take(1000).collect::<String>();
        let optional = |text: &Option<String>| text.as_deref().map(short);
        let Draft { actor, second, kind, service, ticket, reason, config_hash, .. } = &self.draft;
        let mut draft = Draft::new(short(kind), actor.clone(), short(reason));
        draft.reason += " (shortened: the entry was too long)";
        draft.actor.name = short(&actor.name);
        draft.actor.role = short(&actor.role);
        draft.actor.address = optional(&actor.address);
        draft.second = optional(second);
        draft.service = optional(service);
        draft.ticket = optional(ticket);
        draft.config_hash = optional(config_hash);
        (draft.impact, draft.generation) = (self.draft.impact, self.draft.generation);
        (draft.epoch, draft.split) = (self.draft.epoch, self.draft.split);
        draft
    }

    fn merge(&mut self, newer: Self) {
        let Draft { before, .. } = std::mem::replace(&mut self.draft, newer.draft);
        self.draft.before = before;
        for change in newer.state {
            self.state.retain(|earlier| earlier.key != change.key);
            self.state.push(change);
        }
        self.merged = self.merged.saturating_add(1 + newer.merged);
    }
}

/// Changes that wait for the disk.
#[derive(Debug, Default)]
pub(super) struct LateQueue {
    waiting: VecDeque<Late>,
    /// Number of those at the front that are being written.
    in_hand: usize,
    merged: u64,
    lost: u64,
}

impl LateQueue {
    pub(super) fn push(&mut self, late: Late) {
        if self.waiting.len() < MOST_LATE {
            return self.waiting.push_back(late);
        }
        let same = |other: &&mut Late| {
            other.draft.kind == late.draft.kind && other.draft.service == late.draft.service
        };
        match self.waiting.iter_mut().skip(self.in_hand).rev().find(same) {
            Some(last) => {
                last.merge(late);
                self.merged += 1;
            }
            None => self.lost += 1,
        }
    }

    /// Those to be written next, at most `most`; they stay until they are done.
    pub(super) fn take(&mut self, most: usize) -> Vec<Late> {
        let taken: Vec<Late> = self.waiting.iter().take(most).cloned().collect();
        self.in_hand = taken.len();
        taken
    }

    /// Removes the first `count`, which are on the disk.
    pub(super) fn done(&mut self, count: usize) {
        self.waiting.drain(..count.min(self.waiting.len()));
        self.in_hand = 0;
    }

    /// Keeps those taken, which are not on the disk.
    pub(super) fn put_back(&mut self) {
        self.in_hand = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Number of changes that were merged into others.
    pub(super) fn merged(&self) -> u64 {
        self.merged
    }

    /// Number of changes of which no entry will tell.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;
    use crate::store::entry::Actor;

    fn late(kind: &str, n: usize) -> Late {
        let mut draft = Draft::new(kind, Actor::system(), format!("reason {n}"));
        (draft.before, draft.after) = (json!(n), json!(n + 1));
        let state =
            StateChange { key: format!("key {}", n % 3), value: Some(json!(n).to_string().into()) };
        let stamp = Stamp { at: SystemTime::UNIX_EPOCH, mono_ms: n as u64 };
        Late { draft, state: vec![state], stamp, merged: 0 }
    }

    #[test]
    fn what_is_too_many_is_merged_and_its_state_kept() {
        let mut queue = LateQueue::default();
        (0..MOST_LATE - 1).for_each(|n| queue.push(late("endpoint_ejected", n)));
        queue.push(late("ejected", 0));
        for n in 1..=4 {
            queue.push(late("ejected", n));
        }
        assert_eq!((queue.len(), queue.merged(), queue.lost()), (MOST_LATE, 4, 0));
        queue.push(late("other", 0));
        assert_eq!((queue.len(), queue.lost()), (MOST_LATE, 1));
        queue.done(MOST_LATE - 1);
        let left = queue.take(10);
        assert_eq!(left.len(), 1);
        let said = left[0].said();
        assert_eq!((said.before, said.after), (json!(0), json!(5)));
        assert!(said.reason.starts_with("reason 4 (stands for 4 earlier"), "{}", said.reason);
        assert_eq!(left[0].stamp.mono_ms, 0);
        let keys = left[0].state.iter().map(|change| (change.key.as_str(), change.value.clone()));
        let expected = [("key 2", json!(2)), ("key 0", json!(3)), ("key 1", json!(4))];
        assert!(keys.eq(expected.map(|(key, value)| (key, Some(value.to_string().into())))));
    }

    #[test]
    fn nothing_is_merged_into_what_is_being_written() {
        let mut queue = LateQueue::default();
        (0..MOST_LATE).for_each(|n| queue.push(late("ejected", n)));
        let taken = queue.take(MOST_LATE);
        queue.push(late("ejected", 7));
        assert_eq!((queue.len(), queue.lost()), (MOST_LATE, 1));
        assert_eq!(queue.take(MOST_LATE), taken);
        queue.put_back();
        queue.push(late("ejected", 8));
        assert_eq!((queue.merged(), queue.lost()), (1, 1));
    }

    #[test]
    fn an_entry_that_is_too_long_is_shortened() {
        let mut one = late("ejected", 1);
        one.draft.reason = "é".repeat(100_000);
        one.draft.after = json!("x".repeat(1_000_000));
        let short = one.shortened();
        assert!(short.reason.chars().count() < 1100 && short.after.is_null());
        assert_eq!(short.kind, "ejected");
    }
}
