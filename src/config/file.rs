//! Reads configured files: only regular ones, up to a limit.
//!
//! Reading must end whatever the path is: a named pipe would block, a device has no end, and a log
//! that was renamed over a configuration may not fit into memory.

use std::{
    fs::{self, File, FileType, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

/// Largest configuration, and largest file of a token, in bytes.
pub const MOST_BYTES: u64 = 8 << 20;

/// The content of the regular file at `path`, of at most `most` bytes.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Checked before opening, since opening a device may have an effect.
    judge(&fs::metadata(path)?, most)?;
    let file =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    // Checked again, since the file may have been replaced.
    read_open(file, most)
}

/// Like [`read_file`], as text.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
    String::from_utf8(read_file(path, most)?).map_err(not_text)
}

fn read_open(file: File, most: u64) -> io::Result<Vec<u8>> {
    let meta = file.metadata()?;
    judge(&meta, most)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    // The file may grow meanwhile.
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(too_large(most)),
        false => Ok(bytes),
    }
}

fn judge(meta: &Metadata, most: u64) -> io::Result<()> {
    if !meta.is_file() {
        let why = format!("it is {}; name a regular file", kind(meta.file_type()));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    match meta.len() > most {
        true => Err(too_large(most)),
        false => Ok(()),
    }
}

fn too_large(most: u64) -> io::Error {
    let why = format!("it has more than {} MiB", most >> 20);
    io::Error::new(io::ErrorKind::FileTooLarge, why)
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_the_place_of_a_file_is_told_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status();
        assert!(made.expect("mkfifo runs").success());
        std::os::unix::fs::symlink("/dev/zero", at("zero")).expect("a link");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
        fs::write(at("small"), "12345678").expect("a file");
        File::create(at("large")).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        let why = |name: &str, most| match read_file(&at(name), most) {
            Ok(bytes) => String::from_utf8(bytes).expect("text"),
            Err(error) => error.to_string(),
        };
        for (name, most, expected) in [
            ("small", 8, "12345678"),
            ("small", 7, "it has more than 0 MiB"),
            ("large", MOST_BYTES, "it has more than 8 MiB"),
            ("pipe", 8, "it is a pipe; name a regular file"),
            ("zero", 8, "it is a device; name a regular file"),
            ("socket", 8, "it is a socket; name a regular file"),
            (".", 8, "it is a folder; name a regular file"),
        ] {
            assert_eq!(why(name, most), expected, "{name}");
        }
        let missing = read_file(&at("missing"), 8).expect_err("missing");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_grows_while_it_is_read_is_read_no_further() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        // This file has size 0 but content, like a file that grows.
        let endless = File::open("/proc/self/maps").expect("Linux");
        assert_eq!(endless.metadata().expect("a file").len(), 0);
        assert!(read_open(endless, 16).is_err());
        assert_eq!(read_open(file.into_file(), 16).expect("empty"), b"");
    }
}
