//! What an event does to a rollout.

use std::sync::Arc;

use crate::rollout::{
    Action, Entry,
    On::{Bake, Finish, Grow},
    Rollout, Weights,
};

/// What an event makes of a rollout.
#[derive(Debug)]
pub(super) struct Rolled {
    /// The state before; `None` if it was started.
    pub(super) before: Option<Arc<Rollout>>,
    pub(super) rollout: Rollout,
    pub(super) actions: Vec<Action>,
    /// Replies that the event contained.
    pub(super) heard: Vec<u64>,
    /// The second person, if it is a command to which one agreed.
    pub(super) second: Option<String>,
}

impl Rolled {
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.actions.iter().filter_map(|action| match action {
            Action::Record(entry) => Some(&**entry),
            _ => None,
        })
    }

    /// The weights that it sets.
    pub(super) fn weights(&self) -> Option<&Weights> {
        self.actions.iter().rev().find_map(|action| match action {
            Action::SetWeights(weights) => Some(weights),
            _ => None,
        })
    }

    /// Whether the journal tells of it.
    pub(super) fn is_kept(&self) -> bool {
        self.before.is_none() || self.weights().is_some() || self.entries().any(Entry::is_kept)
    }

    /// Whether the state must have it: also where nothing is told, because a version was reinstated, or is no longer in
    /// the file.
    pub(super) fn changes_state(&self) -> bool {
        let Rollout { ejected, before: split, .. } = &self.rollout;
        let is_as_before = |was: &Arc<Rollout>| was.ejected == *ejected && was.before == *split;
        self.is_kept() || !self.before.as_ref().is_some_and(is_as_before)
    }

    /// Whether the version gets more players, or the rollout ends as done: such a step waits for the journal.
    pub(super) fn grows(&self) -> bool {
        self.entries().any(|entry| matches!(entry.on, Grow | Bake | Finish))
    }
}
