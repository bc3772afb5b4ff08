//! The part of the state that is about read-only modes and notices.

use super::{Change, Planned};
use crate::policy::read_only::Mark;

impl Planned {
    /// Applies a change; one that is about something else changes nothing.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::ModeSet { scope, mode, settled } => {
                for (notice, from) in settled {
                    self.mark(notice, from).settled.insert(scope.clone());
                }
                match mode {
                    Some(mode) => drop(self.modes.insert(scope, mode)),
                    None => drop(self.modes.remove(&scope)),
                }
            }
            Change::NoticeSent { notice, from, receiver, lead } => {
                let sent = self.mark(notice, from).sent.entry(receiver).or_insert(lead);
                *sent = lead.min(*sent);
            }
            Change::NoticeSet { name, notice: Some(notice) } => {
                self.notices.insert(name, notice);
            }
            Change::NoticeSet { name, notice: None } => {
                self.notices.remove(&name);
                self.marks.remove(&name);
            }
            _ => {}
        }
    }

    /// The mark of a notice that begins at `from`; that of another beginning does not count any more.
    fn mark(&mut self, notice: String, from: crate::config::schema::UtcTime) -> &mut Mark {
        let mark = self.marks.entry(notice).or_default();
        if mark.from != from {
            *mark = Mark { from, ..Mark::default() };
        }
        mark
    }
}
