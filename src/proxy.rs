//! The data plane: an acceptor, and workers that each own a core, a runtime and upstream pools.
//!
//! `handle.rs` shows the life of a request from top to bottom: admit, route, assign, forward, answer, record.
//! It takes no lock and writes no cache line that another core writes, except where requests are counted by
//! client (`client_limits.rs`).

mod accept;
mod acceptor;
mod address;
mod admit;
mod amounts;
mod answer;
mod assign;
mod attempt;
mod attempts;
mod barrier;
mod body;
mod breaker;
mod buffer;
mod cgroup;
mod channel;
mod client;
mod client_limits;
mod command;
mod connect;
mod connection;
#[cfg(test)]
mod cost;
mod date;
mod deadline;
mod elapsed;
mod external;
mod fence;
mod field_kind;
mod forward;
mod forwarded;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod gather;
mod gather_soon;
mod granted;
mod grpc;
mod h2;
mod handle;
mod head;
mod head_text;
mod identity;
mod in_flight;
mod known_tokens;
mod limit;
mod others;
mod pace;
mod pieces;
mod pin;
mod plan;
mod policies;
mod preamble;
mod problem;
mod proxy_protocol;
mod question;
mod rates;
mod record;
mod rejected;
mod relay;
mod render;
mod reply;
mod response_mode;
mod retry;
mod rewrite;
mod run;
mod sending;
mod shared;
mod shed;
mod smoke;
mod smoke_target;
mod tap;
mod target;
mod trailers;
mod trial;
mod tunnel;
mod turn;
mod waiting;
mod websocket;
mod worker;

pub use accept::{ResourceExhaustion, accept_next};
pub use acceptor::{Acceptor, Listener};
pub use barrier::Barrier;
pub use client_limits::ConnectionSlot;
pub use command::{Accepted, Command, Drain};
pub use granted::Granted;
pub use run::{WorkerHandle, spawn};
pub use shared::{ListenerState, Shared, WorkerCells};
pub use smoke::connect_for_smoke;
pub use smoke_target::SmokeTarget;
pub use tunnel::LAST_WORDS;
