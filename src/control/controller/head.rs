//! What every change on request has besides its subject.

use crate::store::{Actor, Draft, Impact};

/// What every change on request has besides its subject: who asks, why, and under which conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeHead {
    /// The caller.
    pub by: Actor,
    /// A second person who agrees, if a token of theirs came with the request.
    pub second: Option<String>,
    /// Why, for the log; empty if nobody said.
    pub reason: String,
    /// Reference to another system, for the journal.
    pub ticket: Option<String>,
    /// The class of the change, for the journal; `None` if nobody said.
    pub impact: Option<Impact>,
    /// The generation that the caller saw; the change is refused if somebody made a change since.
    pub if_generation: Option<u64>,
    /// Only report what would change.
    pub dry_run: bool,
}

impl ChangeHead {
    /// Longest reason, in characters: it becomes part of one line of the log.
    pub const REASON_CHARS: usize = 1000;

    /// Longest ticket, in characters.
    pub const TICKET_CHARS: usize = 200;

    /// The head of a change that `by` makes, without a reason and on no condition.
    pub fn of(by: Actor) -> Self {
        let (second, ticket, impact, if_generation) = (None, None, None, None);
        let reason = String::new();
        Self { by, second, reason, ticket, impact, if_generation, dry_run: false }
    }

    /// Writes into an entry what is said of the change besides its reason.
    pub(super) fn mark(&self, draft: &mut Draft) {
        if self.second.is_some() {
            draft.second.clone_from(&self.second);
        }
        draft.ticket.clone_from(&self.ticket);
        draft.impact = self.impact;
    }
}
