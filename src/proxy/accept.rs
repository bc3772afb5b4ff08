//! Accepts the next client of a listening socket while the acceptor is open.
//!
//! An accept fails for one of two reasons. The client has left already: the next one is accepted at
//! once. Or this process lacks a resource, such as a file descriptor: the next accept would fail as
//! well, so it follows after a pause, in which connections may end. The lack is logged once a
//! minute, together with that of connections to endpoints.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    time::sleep,
};

use crate::telemetry::seldom::Seldom;

/// Pause after an accept that failed because a resource is exhausted.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Connections that failed because this process had no resource left, such as a descriptor.
#[derive(Debug, Default)]
pub struct ResourceExhaustion {
    /// Connections of clients that were not accepted, or were closed at once.
    pub clients: AtomicU64,
    /// Connections to endpoints.
    pub endpoints: AtomicU64,
    log: Seldom,
}

impl ResourceExhaustion {
    /// Counts a client that could not be accepted, and logs it. `listener` names the socket in the
    /// log.
    pub(super) fn count_client(&self, listener: &str, error: &io::Error) {
        self.clients.fetch_add(1, Relaxed);
        if let Some(more) = self.log.due(Instant::now()) {
            tracing::error!(listener, %error, more, "{NO_CLIENTS}");
        }
    }

    /// Counts a connection to the endpoint at `address` that could not be opened, and logs it.
    pub(super) fn count_endpoint(&self, address: SocketAddr, error: &io::Error) {
        self.endpoints.fetch_add(1, Relaxed);
        if let Some(more) = self.log.due(Instant::now()) {
            tracing::error!(%address, %error, more, "{NO_ENDPOINTS}");
        }
    }
}

const NO_CLIENTS: &str =
    "this process has no resource left to accept clients; raise its limit of open files";

const NO_ENDPOINTS: &str = "this process has no resource left to connect to endpoints, which is no fault of \
     theirs; raise its limit of open files";

/// Accepts the next client of `socket` while `is_open`. Returns `None` once the sender of `is_open`
/// is dropped. `listener` names the socket in the log.
pub async fn accept_next(
    socket: &TcpListener,
    is_open: &mut watch::Receiver<bool>,
    listener: &str,
    exhaustion: &ResourceExhaustion,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = select! {
            biased;
            _ = is_open.wait_for(|open| !open) => None,
            accepted = socket.accept() => Some(accepted),
        };
        match accepted {
            Some(Ok(client)) => return Some(client),
            Some(Err(error)) if is_of_one_client(&error) => {}
            Some(Err(error)) => {
                exhaustion.count_client(listener, &error);
                sleep(BACK_OFF).await;
            }
            None => {
                let opened =
                    is_open.has_changed().is_ok() && is_open.wait_for(|open| *open).await.is_ok();
                if !opened {
                    return None;
                }
            }
        }
    }
}

/// Whether an accept failed because the client had already left.
pub(super) fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use std::{
        future::{Future, poll_fn},
        pin::pin,
        task::Poll,
    };

    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_client_that_left_is_distinguished_from_a_missing_resource() {
        for (error, of_one_client) in [
            (Errno::CONNABORTED, true),
            (Errno::CONNRESET, true),
            (Errno::INTR, true),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::NOBUFS, false),
            (Errno::NOMEM, false),
        ] {
            assert_eq!(is_of_one_client(&error.into()), of_one_client, "{error}");
        }
    }

    #[tokio::test]
    async fn clients_are_accepted_while_open_and_wait_while_closed() {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        let (gate, mut is_open) = watch::channel(true);
        let exhaustion = ResourceExhaustion::default();
        for open in [true, false, true] {
            gate.send_replace(open);
            let waiting = TcpStream::connect(address).await.expect("a queue");
            let mut next = pin!(accept_next(&socket, &mut is_open, "test", &exhaustion));
            if !open {
                // The client is in the queue already, so an accept would be ready.
                let polled = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
                gate.send_replace(true);
            }
            let (_, peer) = next.await.expect("a client");
            assert_eq!(peer, waiting.local_addr().expect("connected"));
        }
        gate.send_replace(false);
        drop(gate);
        assert!(accept_next(&socket, &mut is_open, "test", &exhaustion).await.is_none());
    }
}
