//! The way back from a backup to a journal that goes on.

use std::{fs, io, path::Path};

use super::{
    backup::copy, error::StoreError, fault::Verification, folder::Folder, note::PublicKey,
    reader::Reader,
};

/// Puts the backup at `from` into `folder`, which must be empty or missing, after verifying it, with `note`
/// and `key` if they are given; returns the result of the verification, which found nothing. Blocks.
///
/// A new key of checkpoints is made when the journal is opened, and an entry names it.
///
/// # Errors
///
/// If the folder is not empty, or the backup is damaged, does not verify, or cannot be copied.
pub fn restore(
    from: &Path,
    folder: &Path,
    note: Option<&str>,
    key: Option<&PublicKey>,
) -> Result<Verification, StoreError> {
    let reader = Reader::of_file(from)?;
    reader.check_integrity()?;
    let verification = reader.verify(note, key);
    if !verification.is_intact() {
        let faults: Vec<String> =
            verification.faults.iter().take(3).map(ToString::to_string).collect();
        let faults = faults.join("; ");
        return Err(StoreError::Unverified { path: from.to_owned(), faults });
    }
    let is_taken = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(StoreError::file(folder)(error)),
    };
    if is_taken {
        return Err(StoreError::NotEmpty(folder.to_owned()));
    }
    let folder = Folder::at(folder);
    folder.make()?;
    // First: whoever finds the journal finds the mark.
    let mark = folder.restored();
    fs::write(&mark, "").map_err(StoreError::file(&mark))?;
    match copy(reader.connection(), &folder.journal()) {
        Ok(_) => Ok(verification),
        Err(error) => {
            // The folder is as it was, so that the next attempt finds it empty.
            let _ = fs::remove_file(&mark);
            Err(error)
        }
    }
}

/// Whether the journal in `folder` was restored from a backup and has not been opened since: what happened after the
/// backup is not in it. Blocks.
pub fn is_restored(folder: &Path) -> bool {
    fs::symlink_metadata(Folder::at(folder).restored()).is_ok()
}

/// Forgets that the journal in `folder` was restored. Blocks.
///
/// # Errors
///
/// If the mark cannot be removed.
pub fn forget_restored(folder: &Path) -> Result<(), StoreError> {
    let mark = Folder::at(folder).restored();
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::file(&mark)(error))
        }
        _ => Ok(()),
    }
}
