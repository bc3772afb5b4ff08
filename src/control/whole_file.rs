//! Replaces files such that whoever reads one finds a whole one. Blocks.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Replaces the file at `path` by one of these `bytes`, which is written beside it and renamed. It has this `mode`,
/// less what the process's umask takes away.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut part = path.file_name().unwrap_or_default().to_owned();
    part.push(".part");
    let part = path.with_file_name(part);
    let mut options = OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(mode).open(&part);
    let written = written.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    });
    written.inspect_err(|_| drop(fs::remove_file(&part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_always_a_whole_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("note");
        for text in ["a longer one", "short"] {
            replace(&file, text.as_bytes(), 0o600).expect("written");
            assert_eq!(fs::read_to_string(&file).expect("a file"), text);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert!(replace(&folder.path().join("no/where"), b"x", 0o600).is_err());
    }
}
