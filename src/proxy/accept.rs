//! Waits for the next client at a listening socket, for as long as somebody may be accepted there.
//!
//! An accept can fail for two reasons. Its client had already left: that is the client's affair, and the
//! next one is looked at. Or a resource is missing, such as a file descriptor: then the next accept would
//! fail as well, so there is a pause before it, in which others may give theirs back. It is told once a minute,
//! as is that endpoints cannot be connected for the same reason.

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

/// Pause after an accept that failed for want of a resource.
const BACK_OFF: Duration = Duration::from_millis(50);

/// What could not be had for want of a resource of this process, such as a descriptor.
#[derive(Debug, Default)]
pub struct Wants {
    /// Connections of clients that were not accepted, or were closed at once.
    pub clients: AtomicU64,
    /// Connections to endpoints.
    pub endpoints: AtomicU64,
    said: Seldom,
}

impl Wants {
    /// A connection of a client could not be had, at the socket that the log knows as `listener`.
    pub(super) fn of_client(&self, listener: &str, error: &io::Error) {
        self.clients.fetch_add(1, Relaxed);
        if let Some(more) = self.said.due(Instant::now()) {
            tracing::error!(listener, %error, more, "{NO_CLIENTS}");
        }
    }

    /// A connection to the endpoint at `address` could not be had.
    pub(super) fn of_endpoint(&self, address: SocketAddr, error: &io::Error) {
        self.endpoints.fetch_add(1, Relaxed);
        if let Some(more) = self.said.due(Instant::now()) {
            tracing::error!(%address, %error, more, "{NO_ENDPOINTS}");
        }
    }
}

const NO_CLIENTS: &str =
    "this process has no resource left to accept clients; raise its limit of open files";

const NO_ENDPOINTS: &str = "this process has no resource left to connect endpoints, which is held against none of \
     them; raise its limit of open files";

/// The next client of `socket`, once it `is_open`; nothing if nobody is left to open it. The log knows
/// the socket as `listener`.
pub async fn accept_next(
    socket: &TcpListener,
    is_open: &mut watch::Receiver<bool>,
    listener: &str,
    wants: &Wants,
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
                wants.of_client(listener, &error);
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

/// Whether an accept failed because its client had already left.
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
    fn a_client_that_left_is_told_from_a_resource_that_is_missing() {
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
    async fn clients_are_taken_in_while_it_is_open_and_wait_while_it_is_not() {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        let (door, mut is_open) = watch::channel(true);
        let wants = Wants::default();
        for open in [true, false, true] {
            door.send_replace(open);
            let waiting = TcpStream::connect(address).await.expect("a queue");
            let mut next = pin!(accept_next(&socket, &mut is_open, "test", &wants));
            if !open {
                // The client is in the queue already, so an accept would be ready.
                let polled = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
                assert!(polled.is_pending());
                door.send_replace(true);
            }
            let (_, peer) = next.await.expect("a client");
            assert_eq!(peer, waiting.local_addr().expect("connected"));
        }
        door.send_replace(false);
        drop(door);
        assert!(accept_next(&socket, &mut is_open, "test", &wants).await.is_none());
    }
}
