//! Commands to a worker.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{client_limits::ConnectionSlot, shared::ListenerState, smoke_target::SmokeTarget};

/// A command to a worker.
#[derive(Debug)]
pub enum Command {
    /// Serve this client.
    Connection(Accepted),
    /// Drop the old snapshot, because a new one was published, and acknowledge that.
    Refresh,
    /// Notify the sender: what was planned before is counted as in flight.
    Pass(oneshot::Sender<()>),
    /// Hand over samples and log lines now, then notify the sender.
    Flush(oneshot::Sender<()>),
    /// From now on, close every connection after its next response.
    Part,
    /// Close every connection gracefully, and notify the sender when all are closed.
    Drain(Drain),
    /// Panic, for tests.
    #[cfg(test)]
    Panic,
}

/// How connections are closed: each after its next response.
#[derive(Debug)]
pub struct Drain {
    /// Connections that stay idle for this time are closed.
    pub idle: Duration,
    /// After this time, connections that switched protocols are closed gracefully.
    pub upgraded: Duration,
    /// Notified when all connections are closed.
    pub done: std::sync::mpsc::Sender<()>,
}

/// A connection that the acceptor, or a smoke check, hands to a worker.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: std::net::TcpStream,
    /// The peer's address; an IPv4-mapped address as IPv4.
    pub peer: IpAddr,
    /// The listener that accepted it.
    pub listener: Arc<ListenerState>,
    /// Its slot among those of its address; `None` while the client's address is not known, behind a balancer.
    pub slot: Option<ConnectionSlot>,
    /// Where its requests go, if a smoke check sends them.
    pub smoke: Option<Box<SmokeTarget>>,
}
