//! A key that has begun, from its begin to its end.

use std::{cell::Cell, sync::Arc};

use super::{
    super::{
        kept_answer::KeptAnswer,
        key_log::{Fingerprint, KeyEnd, KeyId, KeyRow, KnownPrint, RowState, Stored, Unstored},
    },
    KeyEvent, KeyRules, KeyTable, State,
};
use crate::policy::idempotency::{Ending, Fate, Spelling, Verdict, fate};

/// A key that has begun. Dropped before it ended, it is freed if nothing was sent, and else unsure.
#[derive(Debug)]
pub struct KeyLease {
    table: Arc<KeyTable>,
    id: KeyId,
    print: Fingerprint,
    number: u64,
    until: Cell<u32>,
    rules: KeyRules,
    /// What an earlier request asked for, which may have been processed.
    first: Cell<Option<KnownPrint>>,
    /// The request may have been processed.
    sent: Cell<bool>,
    /// The same before the current attempt.
    sent_before: Cell<bool>,
    ended: Cell<bool>,
}

impl KeyLease {
    /// The key of `table` that has begun with its entry of that number, which is forgotten then.
    pub(super) fn new(
        table: Arc<KeyTable>,
        (id, print): (KeyId, Fingerprint),
        (number, until): (u64, u32),
        rules: KeyRules,
        first: Option<KnownPrint>,
    ) -> Self {
        let none = || Cell::new(false);
        Self {
            table,
            id,
            print,
            number,
            until: Cell::new(until),
            rules,
            first: Cell::new(first),
            sent: none(),
            sent_before: none(),
            ended: none(),
        }
    }

    /// Writes that the key has begun. `None` once that is on the disk, if there is no log, or if the key is unsure and the
    /// version is to be asked; otherwise what is known of it, and the lease has ended.
    pub async fn store(&self) -> Result<Option<Stored>, Unstored> {
        let Some(log) = self.table.log.as_ref().filter(|_| !self.was_unsure()) else {
            return Ok(None);
        };
        let row = KeyRow {
            id: self.id,
            route: Arc::clone(&self.table.route),
            print: self.print,
            window: self.rules.window,
            most: self.rules.most,
            count: Arc::clone(&self.table.stored),
        };
        match log.begin(row).await {
            Ok(Stored::New { until }) => {
                self.until.set(until);
                Ok(None)
            }
            Ok(known) => Ok((!self.goes_on(&known)).then(|| {
                self.known(&known);
                known
            })),
            Err(unstored) => Err(unstored),
        }
    }

    /// Whether the request may be sent although its key is `stored`: it is unsure, and the version is asked.
    fn goes_on(&self, stored: &Stored) -> bool {
        let Stored::Known { print, until, .. } = stored else { return false };
        let begins = stored.verdict(&self.print, self.rules.unsure) == Some(Verdict::Begin);
        if begins {
            self.first.set(Some(*print));
            self.until.set(*until);
            self.table.goes_on((self.id, self.number), *until, *print);
        }
        begins
    }

    /// Ends the lease since the key was known on the disk, or is none.
    fn known(&self, known: &Stored) {
        self.ended.set(true);
        let state = match known {
            Stored::Known { print, until, state } => {
                let state = match state {
                    RowState::Elsewhere => None,
                    RowState::Unsure => Some(State::Unsure),
                    RowState::Answered(answer) => {
                        Some(State::Answered(answer.clone().map(Arc::new)))
                    }
                };
                state.map(|state| (state, *until, *print))
            }
            Stored::New { .. } | Stored::Full { .. } => None,
        };
        self.table.end((self.id, self.number), state, self.rules.memory);
    }

    /// Notes that an attempt is made: from now on the request may be processed.
    pub fn attempting(&self) {
        self.sent_before.set(self.sent.replace(true));
    }

    /// Notes that the version cannot have processed the last attempt.
    pub fn unprocessed(&self) {
        self.sent.set(self.sent_before.get());
    }

    /// The key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether an earlier request with the key may have been processed.
    pub fn was_unsure(&self) -> bool {
        self.first.get().is_some()
    }

    /// How the first request with the key wrote it; `None` if this is the first one, or if that is not known.
    pub fn spelling(&self) -> Option<Spelling> {
        self.first.get()?.spelling
    }

    /// Notes a whole response of this `status`; `kept` makes a copy of it, if it can be kept.
    pub fn answered(&self, status: u16, kept: impl FnOnce() -> Option<KeptAnswer>) {
        self.end(Ending::Answered(status), kept);
    }

    /// The table.
    pub fn table(&self) -> &Arc<KeyTable> {
        &self.table
    }

    fn end(&self, ending: Ending, kept: impl FnOnce() -> Option<KeptAnswer>) {
        if self.ended.replace(true) {
            return;
        }
        let Self { table, id, rules, .. } = self;
        let (event, state, end) =
            match fate(ending, self.was_unsure() || self.sent_before.get(), rules.errors) {
                Fate::Answer => {
                    let kept = kept().map(Arc::new);
                    let end = KeyEnd::Answered(kept.clone());
                    (KeyEvent::Answered, Some(State::Answered(kept)), end)
                }
                Fate::Free => (KeyEvent::Freed, None, KeyEnd::Freed),
                Fate::Hold => (KeyEvent::Unsure, Some(State::Unsure), KeyEnd::Unsure),
            };
        table.note(event);
        // Before the key can begin again.
        if let Some(log) = &table.log {
            log.end(*id, end);
        }
        let state = state
            .map(|state| (state, self.until.get(), self.first.get().unwrap_or(self.print.known())));
        table.end((*id, self.number), state, rules.memory);
    }
}

impl Drop for KeyLease {
    fn drop(&mut self) {
        self.end(if self.sent.get() { Ending::Lost } else { Ending::Unsent }, || None);
    }
}
