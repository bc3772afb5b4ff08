//! The way back after a failed commit.

use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use super::Writer;
#[cfg(test)]
use crate::store::health::Ending;
use crate::store::{
    chain::{self, Head},
    entry::{Actor, Draft, Stamp},
    error::StoreError,
    hash::Hash,
    sqlite::{self, Access, Undo},
};

/// The kind of the entry that annuls earlier ones.
const ANNULLED: &str = "annulled";

/// Why such an entry was written.
const WHY_ANNULLED: &str =
    "the disk failed while these changes were written, and they were refused";

/// A commit of which it is not known whether it was made.
#[derive(Debug)]
pub(in crate::store) struct Doubt {
    /// Its first entry.
    pub(super) first: Head,
    /// Its last one.
    pub(super) last: Head,
    /// Number of its late changes, which come first. The others were answered as not made.
    pub(super) late: usize,
    /// The state as it was before the others.
    pub(super) undo: Vec<Undo>,
}

impl Writer {
    /// Opens the connection unless it is open, and finds out about a commit in doubt.
    pub(super) fn open(&mut self) -> Result<(), StoreError> {
        if self.connection.is_some() {
            return Ok(());
        }
        self.open_again().inspect_err(|error| self.shared.fails(error.to_string()))
    }

    /// Opens the connection unless it is open, and begins a commit. Entries are sealed after this, since it
    /// may have to wait for another connection.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        self.look(false)?;
        self.open()?;
        let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
        let begun = sqlite::begin(connection);
        begun.map_err(|error| {
            self.connection = None;
            self.shared.fails(error.to_string());
            error.into()
        })
    }

    fn open_again(&mut self) -> Result<(), StoreError> {
        let path = self.folder.journal();
        let connection = self.connect(&path)?;
        let head = sqlite::head(&connection, &path)?;
        let Some(doubt) = &self.doubt else {
            if head != self.head {
                return Err(self.differs(head));
            }
            self.use_from_now(connection);
            return Ok(());
        };
        let line = sqlite::line(&connection, doubt.last.seq)?;
        if line.is_some_and(|line| Hash::of(line.as_bytes()) == doubt.last.hash) {
            sqlite::move_log(&connection)?;
            let from = doubt.first.seq + doubt.late as u64;
            let mut reached = head;
            if head == doubt.last && from <= head.seq {
                let mut draft = Draft::new(ANNULLED, Actor::system(), WHY_ANNULLED);
                draft.after = json!({ "from": from, "to": head.seq });
                let sealed = chain::seal(head, draft, Stamp::now(), &self.identity, None)?;
                sqlite::annul(&connection, &sealed, &doubt.undo)?;
                reached = sealed.head;
            }
            self.shared.late().done(doubt.late);
            self.head = reached;
            self.shared.reached(reached);
        } else if head == self.head {
            self.shared.late().put_back();
        } else {
            return Err(self.differs(head));
        }
        self.doubt = None;
        self.use_from_now(connection);
        Ok(())
    }

    /// Opens the connection anew after a failed commit that would have led to `last`; returns whether it was
    /// made all the same. An error means that this is not known.
    pub(super) fn is_made(&mut self, last: Head) -> Result<bool, StoreError> {
        self.connection = None;
        let path = self.folder.journal();
        let connection = self.connect(&path)?;
        let head = sqlite::head(&connection, &path)?;
        if head == last {
            // What is read may be in the memory of the kernel alone; this writes it once more.
            sqlite::move_log(&connection)?;
        } else if head != self.head {
            return Err(self.differs(head));
        }
        self.use_from_now(connection);
        Ok(head == last)
    }

    fn connect(&mut self, path: &Path) -> Result<Connection, StoreError> {
        #[cfg(test)]
        if matches!(self.shared.ending(), Ending::Unknown | Ending::Gone) {
            return Err(StoreError::Closed);
        }
        self.refuse_cut_off()?;
        let connection = sqlite::open(path, Access::Write)?;
        self.examine(&connection)?;
        Ok(connection)
    }

    fn differs(&self, found: Head) -> StoreError {
        let (found, expected) = (found.seq, self.head.seq);
        let why =
            format!("its last entry is {found}, and another one than the one written, {expected}");
        StoreError::Damaged { path: self.folder.journal(), why }
    }
}
