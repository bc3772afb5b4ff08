//! Why a file cannot be used as a configuration.

use std::{io, path::PathBuf};

use super::problem::Problems;

/// Why a file cannot be used as a configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is invalid. One line per problem, `FILE:LINE:COLUMN: FIELD.PATH: what is wrong;
    /// what would be right`.
    #[error("{}", problems.in_file(path))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Its problems.
        problems: Problems,
    },
    /// A file that it names cannot be used.
    #[error("{why}")]
    Named {
        /// Which file, what is wrong and what would be right.
        why: String,
    },
}
