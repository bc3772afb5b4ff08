//! The file of the key that signs checkpoints.

use std::{fs, io::Write, path::Path};

use super::{
    error::StoreError,
    folder::{create, sync_folder},
    note::{NoteError, SigningKey},
};

/// Reads the key at `path`; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<SigningKey>, StoreError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::file(path)(error)),
    };
    let key = SigningKey::from_secret_text(&text);
    key.map(Some).map_err(|source| StoreError::Key { path: path.to_owned(), source })
}

/// Makes a key called `name` and keeps it at `path`, readable for its owner alone.
pub(super) fn make(path: &Path, name: &str) -> Result<SigningKey, StoreError> {
    let no_key = |source| StoreError::Key { path: path.to_owned(), source };
    let seed = random().ok_or(no_key(NoteError::MalformedKey))?;
    let key = SigningKey::from_seed(name, seed).map_err(no_key)?;
    // A crash must not leave half a key.
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let kept = create(&part).and_then(|mut file| {
        writeln!(file, "{}", key.secret_text())?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    kept.map_err(StoreError::file(path))?;
    if let Some(folder) = path.parent() {
        sync_folder(folder)?;
    }
    Ok(key)
}

/// Random bytes of the operating system; `None` if it has none.
pub(super) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes)
}
