//! Replaces a running process by another one, without an interruption.
//!
//! The new process gets the *descriptors* of the listening sockets, so each socket outlives the old process,
//! together with the connections in its queue. The processes communicate over a Unix socket:
//!
//! ```text
//! new ── hello (protocol, release) ──────────────▶ old
//!     ◀─ offer (addresses, carried), sockets ─────
//!        reads its file, starts workers, accepts nothing yet
//!     ── ready ──────────────────────────────────▶
//!                                                  accepts nothing more, changes no weights
//!     ◀─ pins (of services), several ──────────────
//!     ◀─ past (evidence, histograms), several ─────
//!     ◀─ yours (carried) ─────────────────────────
//!     ── serving ────────────────────────────────▶
//!        accepts, at the takeover socket too       notifies systemd
//!     ◀─ end of the connection, both ways ────────▶ closes the sockets, drains
//! ```
//!
//! The new process owns nothing until it reads `yours`, and the old one gives nothing up until it reads
//! `serving`: if either fails, exactly one continues. The kernel refuses a `serving` that comes too late, so
//! its sender knows, and does not serve. Several processes may prepare at the same time, so a process that
//! connects and stays silent does not block others; the first that is ready gets `yours`. Between `ready` and
//! `serving`, for the time of two messages, clients wait in the sockets' queues; none is refused. At any moment
//! only one process accepts and changes weights, so weights set at runtime are never lost: `yours` carries the
//! state at the end, not at the beginning.
//!
//! Each message is its length (4 bytes, big endian) and JSON. After the offer, each socket is sent with one
//! byte of its own, as `SCM_RIGHTS`. The other process must run as the same user or as root (`SO_PEERCRED`); a
//! process that was started for the takeover must be the one that connects.
//!
//! Rejected: passing descriptors by number through `exec`, because safe Rust cannot own them and there is no
//! way back once the old image is gone; `SO_REUSEPORT` sockets of the new process, because the queues of the
//! old process are lost with the clients in them.

mod door;
mod found;
mod message;
mod pins;
mod predecessor;
mod successor;

use std::{io, time::Duration};

pub use door::TakeoverSocket;
pub use found::InheritedSockets;
pub use predecessor::{Offered, Predecessor};
pub use successor::{Handed, LetGo, Offer, Program, Successor};

/// Names the takeover socket for a process that was started for a takeover: `@NAME` in the abstract namespace.
pub const SOCKET_VARIABLE: &str = "TIDEGATE_TAKEOVER";

/// Longest time from the start of a new process to its `ready`.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Longest time of a step in which no process is started.
const STEP_WITHIN: Duration = Duration::from_secs(2);

/// Why another process did not take over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The new process cannot be started.
    #[error("{program}: cannot be started: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// The system's error.
        source: io::Error,
    },
    /// The new process ended early.
    #[error("the new process ended before it was ready ({0})")]
    Ended(std::process::ExitStatus),
    /// The new process reported that it cannot start.
    #[error("the new process cannot start: {0}")]
    Failed(String),
    /// The running process refused to hand over.
    #[error("the running process does not hand over: {0}")]
    Refused(String),
    /// The other process did not respond in time.
    #[error("the other process did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The connection to the other process failed.
    #[error("the connection to the other process broke: {0}")]
    Broken(io::Error),
    /// The other process runs as another user.
    #[error("process {0} runs as another user")]
    Stranger(i32),
    /// This process hands over to another one already, or ends.
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
