//! Encrypted connections: certificates by name, and streams that may be under TLS.

pub mod transport;

pub use transport::Transport;
