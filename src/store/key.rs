//! The files of the key that signs checkpoints, and of a checkpoint of the journal before.

use std::{fs, io::Write, path::Path};

use super::{
    entry::Replaced,
    error::StoreError,
    folder::{create, sync_folder},
    note::{Checkpoint, NoteError, SigningKey},
};

/// Reads the key at `path`; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<SigningKey>, StoreError> {
    let Some(text) = text(path)? else { return Ok(None) };
    let key = SigningKey::from_secret_text(&text);
    key.map(Some).map_err(|source| StoreError::Key { path: path.to_owned(), source })
}

/// Makes a key called `name`, to be kept at `path`.
pub(super) fn new(name: &str, path: &Path) -> Result<SigningKey, StoreError> {
    let no_key = |source| StoreError::Key { path: path.to_owned(), source };
    let seed = random().ok_or(no_key(NoteError::MalformedKey))?;
    SigningKey::from_seed(name, seed).map_err(no_key)
}

/// Keeps `key` at `path`, readable for its owner alone.
pub(super) fn keep(key: &SigningKey, path: &Path) -> Result<(), StoreError> {
    // A crash must not leave half a key.
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let kept = create(&part).and_then(|mut file| {
        writeln!(file, "{}", key.secret_text())?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    kept.map_err(StoreError::file(path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// The journal that the checkpoint at `path` is of; `None` if there is none.
pub(super) fn replaced(path: &Path) -> Result<Option<Replaced>, StoreError> {
    let Some(text) = text(path)? else { return Ok(None) };
    let read = Checkpoint::read(&text);
    let Checkpoint { origin, head, .. } =
        read.map_err(|source| StoreError::Key { path: path.to_owned(), source })?;
    Ok(Some(Replaced { origin: Some(origin), seq: head.seq, hash: head.hash }))
}

/// The text of a file; `None` if there is none.
fn text(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::file(path)(error)),
    }
}

/// Random bytes of the operating system; `None` if it has none.
pub(super) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes)
}
