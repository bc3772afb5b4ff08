//! Whether the files of the journal are still those that its connection has open, and nobody else has written to them.
//!
//! SQLite goes on in a file that was deleted, and in one that another program cut off. What is written then is gone when the
//! process ends. So the writer looks at the files before and after each commit, and every few seconds without one.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::folder::{FileId, Folder};

/// Size to which SQLite cuts its log, in bytes (`journal_size_limit`).
pub(super) const LOG_LIMIT: u64 = 1_048_576;

/// A file as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    id: FileId,
    bytes: u64,
    /// When it was written last: seconds and nanoseconds.
    written: (i64, i64),
}

/// The files as they were seen; `None` for one that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    paths: [PathBuf; 3],
    database: Option<Seen>,
    log: Option<Seen>,
    /// SQLite writes to it without a trace.
    index: Option<FileId>,
}

/// What somebody did to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Harm {
    /// The log or its index is not in its place; the connection still has it.
    Aside(PathBuf),
    /// The database is not in its place, or another file is there.
    Gone(PathBuf),
    /// Another program wrote to the file, or cut it off.
    Written(PathBuf),
}

impl Seen {
    fn at(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        let written = (data.mtime(), data.mtime_nsec());
        Some(Self { id: FileId::from(&data), bytes: data.len(), written })
    }
}

impl Files {
    /// The files of `folder` as they are now.
    pub(super) fn of(folder: &Folder) -> Self {
        let paths = [folder.journal(), folder.log(), folder.index()];
        let (database, log) = (Seen::at(&paths[0]), Seen::at(&paths[1]));
        Self { database, log, index: FileId::of(&paths[2]), paths }
    }

    /// What others did to the files since they were `before`. `has_written`: the connection has written meanwhile, so only
    /// what it cannot have done counts.
    pub(super) fn harm_since(&self, before: &Self, has_written: bool) -> Option<Harm> {
        let id = |seen: &Option<Seen>| seen.map(|seen| seen.id);
        let bytes = |seen: &Option<Seen>| seen.map_or(0, |seen| seen.bytes);
        let [database, log, index] = self.paths.clone();
        if self.database.is_none() || id(&self.database) != id(&before.database) {
            return Some(Harm::Gone(database));
        }
        let is_same = |now: &Option<Seen>, then: &Option<Seen>, least: u64| match has_written {
            true => bytes(now) >= least,
            false => now == then,
        };
        if !is_same(&self.database, &before.database, bytes(&before.database)) {
            return Some(Harm::Written(database));
        }
        // One that was deleted before it was seen for the first time is not there, either.
        if self.log.is_none() || id(&self.log) != id(&before.log) {
            return Some(Harm::Aside(log));
        }
        if !is_same(&self.log, &before.log, bytes(&before.log).min(LOG_LIMIT)) {
            return Some(Harm::Written(log));
        }
        (self.index.is_none() || self.index != before.index).then_some(Harm::Aside(index))
    }

    /// Whether the database is the file that it was `before`, and shorter.
    pub(super) fn is_cut_off(&self, before: &Self) -> bool {
        let known = self.database.zip(before.database);
        known.is_some_and(|(now, then)| now.id == then.id && now.bytes < then.bytes)
    }
}
