//! What is done when somebody deletes, replaces, cuts off or writes to a file of the journal while this process has it.

use rusqlite::Connection;

use super::Writer;
use crate::store::{
    error::StoreError,
    files::{Files, Harm},
    reader::Reader,
    sqlite,
};

impl Writer {
    /// Looks at the files. If the log is not in its place, what it has is brought into the database, and nothing is lost. In
    /// any other case the connection is closed, and the journal must be found intact before anything is written again.
    /// `has_written`: the connection has written since the last look.
    pub(super) fn look(&mut self, has_written: bool) -> Result<(), StoreError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let now = Files::of(&self.folder);
        let Some(harm) = now.harm_since(&self.files, has_written) else {
            self.files = now;
            return Ok(());
        };
        let (path, why) = match harm {
            Harm::Aside(path) => {
                // The connection is all that has it, and stays if this fails.
                sqlite::move_log(connection).inspect_err(|error| {
                    self.shared
                        .fails(format!("{} was deleted or replaced: {error}", path.display()));
                })?;
                tracing::error!(
                    path = %path.display(),
                    "a file of the journal was deleted or replaced while it was written; nothing was lost"
                );
                self.connection = None;
                return Ok(());
            }
            Harm::Gone(path) => (path, "its file was deleted or replaced while it was written"),
            Harm::Written(path) => {
                // What the log has does not belong to what is in the database now.
                let _ = sqlite::keep_log(connection, true);
                (path, "another program wrote to its file, or cut it off, while it was written")
            }
        };
        self.connection = None;
        self.is_suspect = true;
        let error = StoreError::Damaged { path, why: why.to_owned() };
        self.shared.fails(error.to_string());
        Err(error)
    }

    /// Refuses to open a database that was cut off: SQLite would delete its log.
    pub(super) fn refuse_cut_off(&self) -> Result<(), StoreError> {
        let path = self.folder.journal();
        match self.is_suspect && Files::of(&self.folder).is_cut_off(&self.files) {
            true => Err(StoreError::Damaged { path, why: "it was cut off".to_owned() }),
            false => Ok(()),
        }
    }

    /// Looks for damage in all of a journal that somebody else wrote to. It takes about a second per GiB.
    /// `connection` leaves the log as it is until it is used.
    pub(super) fn examine(&self, connection: &Connection) -> Result<(), StoreError> {
        if !self.is_suspect {
            return Ok(());
        }
        sqlite::keep_log(connection, true)?;
        let reader = Reader::open(self.folder.path())?;
        reader.check_integrity()?;
        if let Some(fault) = reader.verify(None, None).faults.first() {
            return Err(StoreError::Damaged {
                path: self.folder.journal(),
                why: fault.to_string(),
            });
        }
        Ok(())
    }

    /// Writes by `connection` from now on.
    pub(super) fn use_from_now(&mut self, connection: Connection) {
        if std::mem::take(&mut self.is_suspect) {
            // Else the next start moves the log.
            let _ = sqlite::keep_log(&connection, false);
        }
        self.files = Files::of(&self.folder);
        self.connection = Some(connection);
    }
}
