//! A file that takes up space on the disk, so that there is some when the disk is full.
//!
//! It is deleted so that an ejection can still be written, and made again when there is space. While it is
//! missing, changes that can wait are refused: else they would use up what was kept for ejections.

use std::{fs, io, path::PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::folder::create;

/// Its size. An entry of an ejection needs some pages of 4 KiB.
pub(super) const BALLAST_BYTES: u64 = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    is_there: bool,
}

impl Ballast {
    /// The one at `path`, if it is there and whole.
    pub(super) fn at(path: PathBuf) -> Self {
        let is_there = fs::metadata(&path).is_ok_and(|data| data.len() == BALLAST_BYTES);
        Self { path, is_there }
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Deletes it; returns whether that made space.
    pub(super) fn drop_it(&mut self) -> bool {
        self.is_there = false;
        fs::remove_file(&self.path).is_ok()
    }

    /// Makes it unless it is there.
    pub(super) fn make(&mut self) -> io::Result<()> {
        if self.is_there {
            return Ok(());
        }
        // A part of one.
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let made = create(&self.path).and_then(|file| {
            match fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES) {
                Ok(()) => {}
                Err(rustix::io::Errno::OPNOTSUPP) => fill(&file)?,
                Err(error) => return Err(error.into()),
            }
            file.sync_all()
        });
        if made.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        self.is_there = made.is_ok();
        made
    }
}

fn fill(mut file: &fs::File) -> io::Result<()> {
    let block = [b'.'; 4096];
    (0..BALLAST_BYTES / 4096).try_for_each(|_| io::Write::write_all(&mut file, &block))
}
