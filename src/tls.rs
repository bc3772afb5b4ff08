//! TLS by rustls with the provider aws-lc-rs, towards clients and towards endpoints.
//!
//! Files are read as a whole ([`Material`]); everything else is a function of their bytes: certificates with
//! their names ([`certificates`]), the choice among them ([`sni`]), the settings of rustls ([`server`],
//! [`client`]). [`TlsListener`] holds the settings in force and takes over changed files without interrupting a
//! connection; broken files are reported and change nothing.
//!
//! Deliberately absent: early data (0-RTT), which can be replayed; TLS 1.1 and older, and suites without
//! forward secrecy or authenticated encryption, which rustls does not have; OCSP responses and revocation
//! lists.

mod alpn;
pub mod certificates;
pub mod client;
mod error;
mod expiry;
mod faults;
mod listener;
mod material;
pub mod server;
mod session;
pub mod sni;
mod subject;
mod transport;
mod versions;

pub use alpn::{H2, HTTP_1_0, HTTP_1_1};
pub use certificates::Certificate;
pub use client::{Client, Clients};
pub use error::{HandshakeError, TlsError};
pub use expiry::{EXPIRY_WARNING, Expiry, expiring, warn_expiring};
pub use faults::{faults, listener_faults};
pub use listener::{Fault, Refreshed, TlsListener};
pub use material::Material;
pub use session::Session;
pub use transport::Transport;
pub use versions::{TlsClients, open_clients};

#[cfg(test)]
mod tests;
