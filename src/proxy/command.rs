//! What a worker is told.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{client_limits::ConnectionSlot, shared::ListenerState};

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Serve this client.
    Connection(Accepted),
    /// Let go of the old snapshot, since a new one was published, and acknowledge that.
    Refresh,
    /// Hand over samples and log lines now, then answer.
    Flush(oneshot::Sender<()>),
    /// From now on, end every connection with its next answer.
    Part,
    /// End every connection in order, and answer when all are closed.
    Drain(Drain),
    /// Have a bug.
    #[cfg(test)]
    Panic,
}

/// How connections end: each with its next answer.
#[derive(Debug)]
pub struct Drain {
    /// Those that stay idle for this time are closed.
    pub idle: Duration,
    /// Those that went on in another protocol may do so for this time, and are then closed in order.
    pub upgraded: Duration,
    /// Is told when all are closed.
    pub done: std::sync::mpsc::Sender<()>,
}

/// A connection as the acceptor hands it to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: std::net::TcpStream,
    /// The address at its other end, an IPv4 address as such.
    pub peer: IpAddr,
    /// Where it was accepted.
    pub listener: Arc<ListenerState>,
    /// Its slot among those of its address; none yet if a balancer has still to say whose it is.
    pub slot: Option<ConnectionSlot>,
}
