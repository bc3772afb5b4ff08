//! A watched file: the hash of its last content, and since when it is missing.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use xxhash_rust::xxh3::xxh3_64;

use crate::config::file::read_file;

/// A file that is missing for this time counts as removed.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(1);

/// Largest file whose content is read: certificates may be larger than configurations.
const LARGEST: u64 = 16 << 20;

pub(super) struct File {
    pub(super) path: PathBuf,
    /// Hash of the content last seen.
    pub(super) content: Option<u64>,
    /// Since when it is missing, until that is reported.
    pub(super) gone: Option<Instant>,
}

impl File {
    /// Whether the content has changed. An editor may remove a file before it writes the new one,
    /// so a missing file counts only after [`GONE_AFTER`].
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let content = hash(&self.path);
        if content.is_none() && self.content.is_some() {
            let gone = *self.gone.get_or_insert(now);
            if now.duration_since(gone) < GONE_AFTER {
                return false;
            }
        }
        self.gone = None;
        std::mem::replace(&mut self.content, content) != content
    }
}

/// Hash of the content; `None` if the file is missing. An unreadable file counts as a content of
/// its own: the reload reports the reason.
pub(super) fn hash(path: &Path) -> Option<u64> {
    match read_file(path, LARGEST) {
        Ok(bytes) => Some(xxh3_64(&bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(0),
    }
}
