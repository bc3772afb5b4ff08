//! The data plane: an acceptor, and workers that each own a core, a runtime and upstream pools.
//!
//! A request's life is `handle.rs`, read from top to bottom: admit, route, assign, forward,
//! answer, record. It takes no lock and writes no cache line that another core writes, except where
//! requests are counted by client: `crowd.rs` says when.

mod acceptor;
mod address;
mod amounts;
mod body;
mod breaker;
mod buffer;
mod cgroup;
mod client;
mod command;
mod connect;
mod connection;
#[cfg(test)]
mod cost;
mod crowd;
mod date;
mod deadline;
mod elapsed;
mod entrance;
mod exchange;
mod forwarded;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod gather;
mod granted;
mod grpc;
mod h2;
mod handle;
mod head;
mod in_flight;
mod introduction;
mod known;
mod limit;
mod link;
mod others;
mod pace;
mod pieces;
mod plan;
mod problem;
mod proxy_protocol;
mod record;
mod relay;
mod rewrite;
mod run;
mod shared;
mod shed;
mod trailers;
mod trial;
mod tunnel;
mod websocket;
mod worker;

pub use acceptor::{Acceptor, Listener};
pub use command::{Accepted, Command, Drain};
pub use crowd::Seat;
pub use entrance::{Wants, next_client};
pub use granted::Granted;
pub use run::{WorkerHandle, spawn};
pub use shared::{ListenerState, Shared, WorkerCells};
pub use tunnel::LAST_WORDS;
