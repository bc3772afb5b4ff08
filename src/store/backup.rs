//! Copies of the database as one new file, made while it may be written.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    chain::Head,
    error::StoreError,
    folder::{create, sync_folder},
    sqlite,
};

/// Copies the database of `from` to the new file `to`, which never is a part of a copy: all pages go to a file
/// beside it, which then gets its name unless something has it by now. Returns the last entry in the copy.
pub(super) fn copy(from: &Connection, to: &Path) -> Result<Head, StoreError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(StoreError::Exists(to.to_owned()));
    }
    let part = beside(to);
    let file = create(&part).map_err(StoreError::file(&part))?;
    let copied = copy_pages(from, &part, &file).and_then(|head| {
        rename_to_new(&part, to)?;
        sync_folder(match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        })?;
        Ok(head)
    });
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    copied
}

fn copy_pages(from: &Connection, part: &Path, file: &File) -> Result<Head, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut to = Connection::open_with_flags(part, flags)?;
    // All at once: a reader of a write-ahead log keeps no writer waiting, and pages that come later than the
    // first would start the copy anew.
    match Backup::new(from, &mut to)?.step(-1)? {
        StepResult::Done => {}
        other => return Err(StoreError::Refused(format!("the copy ended early: {other:?}"))),
    }
    // One file, without a log beside it.
    to.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    let head = sqlite::head(&to, part)?;
    to.close().map_err(|(_, error)| error)?;
    file.sync_all().map_err(StoreError::file(part))?;
    Ok(head)
}

/// Renames a file to a name that nothing has.
fn rename_to_new(part: &Path, to: &Path) -> Result<(), StoreError> {
    match renameat_with(CWD, part, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(StoreError::Exists(to.to_owned())),
        // Not every file system can; a link is the same in two steps.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::hard_link(part, to)
            .and_then(|()| fs::remove_file(part))
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => StoreError::Exists(to.to_owned()),
                _ => StoreError::file(to)(error),
            }),
        Err(error) => Err(StoreError::file(to)(error.into())),
    }
}

/// A name in the same folder that only this process uses.
fn beside(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    to.with_file_name(name)
}
