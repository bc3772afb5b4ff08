//! Failures of commands, and exit codes.

use std::{fmt, process::ExitCode};

/// Why a command failed, with its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
}

/// Exit codes other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Exit {
    /// A smoke check failed.
    Failed = 1,
    /// Wrong arguments.
    Arguments = 2,
    /// The rollout that was waited for was rolled back or given up.
    RolledBack = 3,
    /// What was waited for has not ended: the rollout, or the requests on the version that a cutover left.
    Waiting = 4,
    /// The cutover was undone.
    Undone = 5,
    /// A bad file.
    File = 64,
    /// `EX_DATAERR`: the server rejected the request.
    Refused = 65,
    /// `EX_UNAVAILABLE`: cannot listen, or cannot reach.
    Unavailable = 69,
    /// `EX_SOFTWARE`: an error of the program.
    Fault = 70,
    /// `EX_IOERR`: the output cannot be written.
    Output = 74,
    /// `EX_TEMPFAIL`: the drain was cut short.
    Cut = 75,
    /// `EX_NOPERM`: the token is missing or not permitted.
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
