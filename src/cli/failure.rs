//! How a command fails, and its exit code.

use std::{fmt, process::ExitCode};

/// How a command ends that could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
}

/// Exit codes other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// Wrong arguments.
    Arguments = 2,
    /// A bad file.
    File = 64,
    /// `EX_DATAERR`: the server refused.
    Refused = 65,
    /// `EX_UNAVAILABLE`: cannot listen, or cannot reach.
    Unavailable = 69,
    /// `EX_SOFTWARE`: ours.
    Fault = 70,
    /// `EX_TEMPFAIL`: the drain was cut.
    Cut = 75,
    /// `EX_NOPERM`: no token, or another one is wanted.
    Unauthorized = 77,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
