//! What a caller says of a change besides the reason, for its entry in the journal.

use crate::store::{Draft, Impact};

/// What a caller says of a change besides the reason, for its entry in the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Reference to another system.
    pub ticket: Option<String>,
    /// The class of the change; `None` if nobody said.
    pub impact: Option<Impact>,
}

impl Remarks {
    /// Longest ticket, in characters.
    pub const TICKET_CHARS: usize = 200;

    /// Writes them into an entry.
    pub(super) fn mark(&self, draft: &mut Draft) {
        draft.ticket.clone_from(&self.ticket);
        draft.impact = self.impact;
    }
}
