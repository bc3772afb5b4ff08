//! Connections of HTTP/2 to endpoints, which a worker's requests share.
//!
//! One per endpoint, and another only when the streams of all are in use. A connection that did not
//! answer in time is used no more: its other end may be gone without a word, and everything asked on
//! it would be lost.

use std::{cell::Cell, collections::HashMap, rc::Rc, time::Duration};

use bytes::Bytes;
use h2::{
    Ping,
    client::{Builder, SendRequest},
};
use tokio::{sync::Mutex, time::Instant};

use crate::tls::Transport;

/// Bytes that an endpoint may send ahead on a stream, and on all streams of a connection.
const WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes of a request's body that wait on a stream for the endpoint to take them.
const SEND_BUFFER: usize = 64 * 1024;

/// Largest head of an answer.
const HEAD_BYTES: u32 = 256 * 1024;

/// A worker's shared connections, by number of the endpoint.
#[derive(Default)]
pub(in crate::proxy) struct Streams(HashMap<u32, Endpoint>);

#[derive(Default)]
struct Endpoint {
    open: Vec<Shared>,
    opening: Rc<Mutex<()>>,
}

struct Shared {
    send: SendRequest<Bytes>,
    state: Rc<State>,
    encrypted: bool,
    idle_timeout: Duration,
    idle_since: Option<Instant>,
}

/// What leases know of the connection below.
#[derive(Default)]
struct State {
    leases: Cell<usize>,
    retired: Cell<bool>,
}

/// Leave to open one stream.
pub(in crate::proxy) struct Lease {
    pub(super) send: SendRequest<Bytes>,
    state: Rc<State>,
}

impl Lease {
    fn new(send: &SendRequest<Bytes>, state: &Rc<State>) -> Self {
        state.leases.set(state.leases.get() + 1);
        Self { send: send.clone(), state: Rc::clone(state) }
    }

    /// No further lease of this connection is given.
    pub(super) fn retire(&self) {
        self.state.retired.set(true);
    }
}

/// Dropped with the task of a connection, however that ends.
struct Retired(Rc<State>);

impl Drop for Retired {
    fn drop(&mut self) {
        self.0.retired.set(true);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.state.leases.set(self.state.leases.get() - 1);
    }
}

impl Streams {
    /// Whether there is no connection.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A stream on a connection to endpoint number `endpoint` that has one to spare, `encrypted` or not.
    pub(in crate::proxy) fn take(&mut self, endpoint: u32, encrypted: bool) -> Option<Lease> {
        let open = &self.0.get(&endpoint)?.open;
        let spare = |shared: &&Shared| {
            let State { leases, retired } = &*shared.state;
            shared.encrypted == encrypted
                && !retired.get()
                && leases.get() < shared.send.current_max_send_streams()
        };
        open.iter().find(spare).map(|shared| Lease::new(&shared.send, &shared.state))
    }

    /// Held by whoever opens a connection to the endpoint, so that others wait for it rather than open
    /// their own.
    pub(in crate::proxy) fn opening(&mut self, endpoint: u32) -> Rc<Mutex<()>> {
        Rc::clone(&self.0.entry(endpoint).or_default().opening)
    }

    /// Closes what ended, what was idle for too long, and what leads to endpoints that `serves` denies.
    /// Requests on their way finish.
    pub(in crate::proxy) fn sweep(&mut self, now: Instant, serves: impl Fn(u32) -> bool) {
        self.0.retain(|endpoint, Endpoint { open, opening }| {
            let keep = serves(*endpoint);
            open.retain_mut(|shared| {
                let State { leases, retired } = &*shared.state;
                let since = match leases.get() {
                    0 => *shared.idle_since.get_or_insert(now),
                    _ => *shared.idle_since.insert(now),
                };
                keep && !retired.get() && now.saturating_duration_since(since) < shared.idle_timeout
            });
            !open.is_empty() || Rc::strong_count(opening) > 1
        });
    }
}

/// Speaks HTTP/2 on `transport`, a new connection to endpoint number `endpoint`; answers its first
/// lease. Nothing if the endpoint does not take it.
pub(in crate::proxy) async fn share(
    streams: &std::cell::RefCell<Streams>,
    endpoint: u32,
    transport: Transport,
    idle_timeout: Duration,
) -> Result<Lease, h2::Error> {
    let encrypted = transport.is_encrypted();
    let (send, mut connection) = Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEAD_BYTES)
        .enable_push(false)
        .handshake(transport)
        .await?;
    let pings = connection.ping_pong();
    let state = Rc::new(State::default());
    let ended = Retired(Rc::clone(&state));
    tokio::task::spawn_local(async move {
        let _ended = ended;
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of HTTP/2 to an endpoint broke");
        }
    });
    if let Some(mut pings) = pings {
        // The endpoint's settings come ahead of its answer, so from then on it is known how many streams
        // it takes, and of which kinds.
        pings.ping(Ping::opaque()).await?;
    }
    let lease = Lease::new(&send, &state);
    let shared = Shared { send, state, encrypted, idle_timeout, idle_since: None };
    streams.borrow_mut().0.entry(endpoint).or_default().open.push(shared);
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::{net::TcpListener, net::TcpStream, task::LocalSet};

    use super::*;

    /// A connection to an endpoint that allows `limit` streams at once.
    async fn connection(limit: u32) -> (Transport, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("bound");
        let near = TcpStream::connect(address).await.expect("connect");
        let (far, _) = listener.accept().await.expect("accept");
        let serving = tokio::task::spawn_local(async move {
            let mut builder = h2::server::Builder::new();
            let server = builder.max_concurrent_streams(limit).handshake::<_, Bytes>(far);
            let mut server = server.await.expect("speaks HTTP/2");
            while let Some(Ok(_)) = server.accept().await {}
        });
        (near.into(), serving)
    }

    #[tokio::test]
    async fn streams_are_leased_up_to_the_endpoints_limit_and_given_back() {
        LocalSet::new()
            .run_until(async {
                let streams = RefCell::new(Streams::default());
                let (transport, _serving) = connection(2).await;
                let first =
                    share(&streams, 7, transport, Duration::from_secs(5)).await.expect("shared");
                let second = streams.borrow_mut().take(7, false).expect("one to spare");
                assert!(streams.borrow_mut().take(7, false).is_none(), "full");
                drop(second);
                assert!(streams.borrow_mut().take(7, true).is_none(), "in clear");
                assert!(streams.borrow_mut().take(8, false).is_none(), "of another endpoint");
                let again = streams.borrow_mut().take(7, false).expect("given back");
                again.retire();
                drop((first, again));
                assert!(streams.borrow_mut().take(7, false).is_none(), "retired");
                streams.borrow_mut().sweep(Instant::now(), |_| true);
                assert!(streams.borrow().is_empty());
            })
            .await;
    }

    #[tokio::test]
    async fn idle_connections_are_closed_in_time_and_with_their_endpoint() {
        LocalSet::new()
            .run_until(async {
                let streams = RefCell::new(Streams::default());
                let idle = Duration::from_secs(5);
                let (transport, serving) = connection(9).await;
                let lease = share(&streams, 1, transport, idle).await.expect("shared");
                let (now, later) = (Instant::now(), Instant::now() + idle);
                streams.borrow_mut().sweep(later, |_| true);
                assert!(!streams.borrow().is_empty(), "it was in use");
                drop(lease);
                streams.borrow_mut().sweep(now, |_| true);
                streams.borrow_mut().sweep(later, |_| false);
                assert!(streams.borrow().is_empty());
                // Nobody holds it any more, so it ends in order.
                serving.await.expect("the endpoint saw its end");
            })
            .await;
    }
}
