//! The data plane: an acceptor, and workers that each own a core, a runtime and upstream pools.
//!
//! A request's life is `handle::handle`, read from top to bottom: admit, route, assign, forward,
//! answer, record. It takes no lock and writes no cache line that another core writes.

mod acceptor;
mod body;
mod buffer;
mod connection;
mod deadline;
mod exchange;
mod handle;
mod head;
mod plan;
mod problem;
mod record;
mod relay;
mod rewrite;
mod shared;
mod worker;

pub use acceptor::{Acceptor, Listener};
pub use shared::{ListenerState, Shared, WorkerCells};
pub use worker::{Command, WorkerHandle, spawn};
