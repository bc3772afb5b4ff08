//! The configuration file argument of `run` and `check`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::failure::{Exit, Failure};
use crate::config::{
    LoadError, Loaded,
    file::{MOST_BYTES, read_file},
    read, read_bytes,
};

/// Largest text that is read from standard input: the limit of the YAML reader.
const STANDARD_INPUT_BYTES: u64 = 8 << 20;

/// The configuration file.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FileArguments {
    /// The configuration file; `-` is standard input.
    #[arg(value_name = "FILE", required_unless_present = "config")]
    file: Option<PathBuf>,
    /// The configuration file, as an option.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
}

/// The text of `file`; `-` is standard input.
pub(super) fn text_of(file: &Path) -> Result<String, Failure> {
    let bytes = match file == Path::new("-") {
        true => standard_input(),
        false => read_file(file, MOST_BYTES),
    };
    let text = bytes.and_then(|bytes| {
        String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8; save the file in UTF-8"))
    });
    text.map_err(|error| Failure::new(Exit::File, format!("{}: {error}", file.display())))
}

fn standard_input() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(STANDARD_INPUT_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl FileArguments {
    /// The name as given.
    pub(super) fn name(&self) -> &Path {
        let name = self.file.as_deref().or(self.config.as_deref());
        name.expect("one of the two is required")
    }

    /// The path; `None` for standard input, which can only be read once.
    pub(super) fn path(&self) -> Option<&Path> {
        Some(self.name()).filter(|name| *name != Path::new("-"))
    }

    /// Reads and checks the file; also returns its text if it cannot be read again.
    pub(super) fn read(&self) -> Result<(Loaded, Option<String>), LoadError> {
        let name = self.name();
        if let Some(path) = self.path() {
            return Ok((read(path)?, None));
        }
        let bytes = standard_input();
        let bytes = bytes.map_err(|source| LoadError::Read { path: name.to_owned(), source })?;
        let loaded = read_bytes(name, &bytes)?;
        Ok((loaded, Some(String::from_utf8_lossy(&bytes).into_owned())))
    }
}
