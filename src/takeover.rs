//! Replacement of a running process by another one, without a pause.
//!
//! The new process gets the *descriptors* of the listening sockets, so each socket, with the clients
//! that wait in its queue, outlives the old process. They speak over a Unix socket:
//!
//! ```text
//! new ── hello (protocol, release) ──────────────▶ old
//!     ◀─ offer (addresses, carried), sockets ─────
//!        reads its file, starts workers, accepts nothing yet
//!     ── ready ──────────────────────────────────▶
//!                                                  accepts nothing more, changes no weights
//!     ◀─ yours (carried) ─────────────────────────
//!     ── serving ────────────────────────────────▶
//!        accepts, at the takeover socket too       tells systemd
//!     ◀─ end of the connection, both ways ────────▶ closes the sockets, drains
//! ```
//!
//! Nothing belongs to the new process until it reads `yours`, and the old one gives nothing up until it
//! reads `serving`: whichever of them fails on the way, exactly one goes on. A `serving` that comes too late
//! is refused by the kernel, so its sender knows, and does not serve. Several processes may prepare at the
//! same time, so that one that connects and is silent keeps no other out; the first that is ready gets
//! `yours`. Between `ready` and `serving`, for the time of two messages, clients wait in the sockets' queues; none is refused. That
//! only one of them accepts and changes weights at any moment is what lets weights set while running
//! move without a gap: `yours` carries them as they are at the end, not as they were at the beginning.
//!
//! Each message is its length (4 bytes, big endian) and JSON; each socket follows the offer with one
//! byte of its own, as `SCM_RIGHTS`. The other end must run as the same user, or as root
//! (`SO_PEERCRED`); a process that was started for the purpose must be the one that was started.
//!
//! Rejected: descriptors by number through `exec`, which safe Rust cannot own, and which leaves no way
//! back once the old image is gone; `SO_REUSEPORT` sockets of their own, whose queues die with the old
//! process, and the clients in them.

mod door;
mod found;
mod message;
mod predecessor;
mod successor;

use std::{io, time::Duration};

pub use door::TakeoverSocket;
pub use found::InheritedSockets;
pub use predecessor::Predecessor;
pub use successor::{Handed, Offer, Program, Successor};

/// Tells a process that was started for it where to take over: `@NAME` of the abstract namespace.
pub const SOCKET_VARIABLE: &str = "TIDEGATE_TAKEOVER";

/// Longest time from the start of a new process to its word that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Longest time for a step in which nobody has to start anything.
const STEP_WITHIN: Duration = Duration::from_secs(2);

/// Why another process did not take over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("{program}: cannot be started: {source}")]
    Spawn {
        /// What was to be started.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It ended.
    #[error("the new process ended before it was ready ({0})")]
    Ended(std::process::ExitStatus),
    /// It says that it cannot.
    #[error("the new process cannot start: {0}")]
    Failed(String),
    /// The process that runs does not hand over.
    #[error("the running process does not hand over: {0}")]
    Refused(String),
    /// It took too long.
    #[error("the other process did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// It went away, or the connection to it failed.
    #[error("the connection to the other process broke: {0}")]
    Broken(io::Error),
    /// It runs as somebody else.
    #[error("process {0} runs as another user")]
    Stranger(i32),
    /// This process hands over to another one, or ends.
    #[error("the running process hands over to another one, or ends")]
    Ending,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late(READY_WITHIN),
            _ => Self::Broken(error),
        }
    }
}
