//! Why the journal could not do what was asked.

use std::{io, path::PathBuf};

use super::{chain::Unfit, note::NoteError};

/// Why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the folder.
    #[error("{}: another process uses this journal{}", .folder.display(), holder(*.process))]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The other process, if it is known.
        process: Option<u32>,
    },
    /// A later release wrote the journal.
    #[error(
        "{}: a later release of Tidegate wrote this journal (schema {found}; this one knows up to {known}): \
         start that release again, or one after it", .path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The latest that this program knows.
        known: i64,
    },
    /// The file is something else.
    #[error("{}: this file is no journal of Tidegate", .0.display())]
    NotAJournal(PathBuf),
    /// The database is there, and nothing is in it.
    #[error(
        "{}: nothing is in this journal, although it was begun: all that it had was in its log `journal.db-wal`, which was \
         deleted or cut off. Put the log back, or restore a backup into an empty folder. To begin a new journal, remove \
         `journal.db` and `checkpoint.key`; the last checkpoint of the old one as the file `replaces` in this folder makes \
         the new one name it", .0.display()
    )]
    Emptied(PathBuf),
    /// The bundled SQLite has a known defect that corrupts files.
    #[error("SQLite {0} can corrupt a journal; 3.51.3 or later is needed")]
    OldSqlite(&'static str),
    /// The file is damaged.
    #[error("{}: the journal is damaged: {why}; restore a backup into an empty folder", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The disk is full.
    #[error("the disk of the journal is full ({0})")]
    Full(String),
    /// The database refused.
    #[error("the journal cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    /// The file system refused.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder is open to others, and its permissions cannot be changed.
    #[error(
        "{}: other users can read this folder (mode {mode:03o}), and it belongs to somebody else; \
         its mode must be 0700", .folder.display()
    )]
    Open {
        /// The folder.
        folder: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Something else uses the folder.
    #[error("{}: `{name}` is no file of a journal; a journal needs a folder of its own", .folder.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// A file in it.
        name: String,
    },
    /// The journal is gone, and its key is there.
    #[error(
        "{}: `checkpoint.key` is there, and the journal `{name}` that it belongs to is not: it was deleted or \
         moved. Put `journal.db` back, or restore a backup into an empty folder. To begin a new journal, remove \
         `checkpoint.key`; the last checkpoint of the old one as the file `replaces` in this folder makes the \
         new one name it", .folder.display()
    )]
    Gone {
        /// The folder.
        folder: PathBuf,
        /// The name of the journal in its checkpoints.
        name: String,
    },
    /// A backup was being put into the folder, and is not there.
    #[error(
        "{}: a `restore` into this folder was interrupted: its mark `restored` is there, and the journal is not. Empty \
         the folder and restore the backup again; to begin a new journal, empty it only", .0.display()
    )]
    HalfRestored(PathBuf),
    /// The key of checkpoints cannot be used.
    #[error("{}: {source}", .path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: NoteError,
    },
    /// The entry has no line.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Whether the entry was written is not known: the disk failed at the end of the commit, and the journal
    /// cannot be opened. As soon as it can be opened, a change that is there is annulled by an
    /// entry `annulled`. If the process ends before that, a change that is there counts as made.
    #[error("it is not known whether the change is in the journal ({0})")]
    Unknown(String),
    /// The same error for each of several changes that were to be written together.
    #[error("the change is not in the journal: {0}")]
    Refused(String),
    /// Too many changes wait.
    #[error("too many changes wait for the journal")]
    Busy,
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
    /// What was to be new is there.
    #[error("{}: exists already, and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// The folder has content.
    #[error("{}: the folder is not empty; a journal is restored into an empty one", .0.display())]
    NotEmpty(PathBuf),
    /// The chain does not hold.
    #[error("{}: the journal does not verify: {faults}", .path.display())]
    Unverified {
        /// The file.
        path: PathBuf,
        /// What is wrong, in one line.
        faults: String,
    },
}

impl StoreError {
    /// Attaches `path` to an error of the file system.
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Whether a full disk is the reason.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Database(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            Self::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }
}

fn holder(process: Option<u32>) -> String {
    process.map(|id| format!(" (process {id})")).unwrap_or_default()
}
