//! HTTP/2 (RFC 9113), towards clients and towards endpoints.
//!
//! Frames, HPACK, flow control and the states of streams are the `h2` crate's. What is here turns each
//! stream into a link that is read and written like an HTTP/1.1 connection with one message on it
//! (`link.rs`), accepts streams on behalf of a worker, and bounds what a stranger can have the
//! connection do (`meter.rs`).

mod answering;
mod asking;
mod connection;
mod flow;
mod lease;
mod meter;
mod open;
mod screen;
mod sieve;
mod silence;
mod text;

pub(super) use answering::Answering;
pub(super) use asking::Asking;
pub(super) use connection::serve;
pub(super) use lease::{Streams, share};
pub(super) use open::Crews;
