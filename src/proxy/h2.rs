//! HTTP/2 (RFC 9113), towards clients and towards endpoints.
//!
//! Frames, HPACK, flow control and the states of streams are the `h2` crate's. What is here turns each
//! stream into a link that is read and written like an HTTP/1.1 connection with one message on it
//! (`channel.rs`), accepts streams on behalf of a worker, and bounds what a stranger can have the
//! connection do (`meter.rs`).

mod client_stream;
mod connection;
mod flow;
mod meter;
mod open;
mod screen;
mod server_stream;
mod sieve;
mod silence;
mod stream_permit;
mod text;

pub(super) use client_stream::ClientStream;
pub(super) use connection::serve;
pub(super) use open::AllConnections;
pub(super) use server_stream::ServerStream;
pub(super) use stream_permit::{H2Pool, open_shared};
