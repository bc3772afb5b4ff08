//! The data plane: an acceptor, and workers that each own a core, a runtime and upstream pools.
//!
//! A request's life is `handle.rs`, read from top to bottom: admit, route, assign, forward,
//! answer, record. It takes no lock and writes no cache line that another core writes.

mod acceptor;
mod body;
mod buffer;
mod connection;
mod crowd;
mod deadline;
mod exchange;
mod forwarded;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod handle;
mod head;
mod introduction;
mod plan;
mod problem;
mod proxy_protocol;
mod record;
mod relay;
mod rewrite;
mod shared;
mod shed;
mod worker;

pub use acceptor::{Acceptor, Listener};
pub use crowd::Seat;
pub use shared::{ListenerState, Shared, WorkerCells};
pub use worker::{Accepted, Command, WorkerHandle, spawn};
