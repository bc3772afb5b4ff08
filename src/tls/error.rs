//! Errors of files, and of a handshake.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Why certificates or keys cannot be used. Can be cloned, since it is logged and shown later.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}; name a file that this process may read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A file does not hold what it should.
    #[error("{}: {why}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong, a semicolon, and what to do.
        why: String,
    },
    /// The system has no authorities to trust.
    #[error("the system has no certificate authorities ({0}); install them, or write `ca`")]
    NoSystemRoots(String),
    /// rustls rejects the settings.
    #[error("{0}")]
    Refused(#[from] rustls::Error),
}

impl TlsError {
    /// A file that does not hold what it should.
    pub(super) fn content(file: &Path, why: impl Into<String>) -> Self {
        Self::Content { file: file.to_owned(), why: why.into() }
    }

    /// The file at fault, if there is one, and the message.
    pub fn place(&self) -> (Option<&Path>, String) {
        (self.file(), self.to_string())
    }

    /// The file at fault, if there is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Read { file, .. } | Self::Content { file, .. } => Some(file),
            Self::NoSystemRoots(_) | Self::Refused(_) => None,
        }
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer took too long.
    #[error("no TLS handshake within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The peer closed or reset the connection: it only checked whether the port is open, or it
    /// gave up.
    #[error("closed during the TLS handshake: {0}")]
    Closed(io::Error),
    /// The two sides do not agree, or the peer does not speak TLS.
    #[error("the TLS handshake failed: {0}")]
    Failed(rustls::Error),
}

impl HandshakeError {
    /// One word for metrics and logs: `timeout`, `closed` or `failed`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TimedOut(_) => "timeout",
            Self::Closed(_) => "closed",
            Self::Failed(_) => "failed",
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match refused.cloned() {
            Some(refused) => Self::Failed(refused),
            None => Self::Closed(error),
        }
    }
}
