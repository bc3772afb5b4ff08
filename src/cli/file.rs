//! The configuration file argument of `run` and `check`.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::config::{LoadError, Loaded, read, read_bytes};

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
        let mut bytes = Vec::new();
        let mut input = io::stdin().lock().take(STANDARD_INPUT_BYTES + 1);
        let read = input.read_to_end(&mut bytes);
        read.map_err(|source| LoadError::Read { path: name.to_owned(), source })?;
        let loaded = read_bytes(name, &bytes)?;
        Ok((loaded, Some(String::from_utf8_lossy(&bytes).into_owned())))
    }
}
