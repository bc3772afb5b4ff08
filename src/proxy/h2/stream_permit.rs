//! HTTP/2 connections to endpoints, which a worker's requests share.
//!
//! There is one per endpoint, and another when all streams are in use, or when the endpoint stopped
//! reading one of them: streams share the window of their connection, so the others would wait as
//! well. A connection that did not respond in time, or whose endpoint sent GOAWAY, gets no further
//! request.

use std::{
    cell::Cell,
    collections::HashMap,
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, SendRequest},
};
use tokio::{
    sync::{Mutex, Notify, oneshot},
    time::{Instant, timeout},
};

use super::{
    sieve::{Sieve, Sifted},
    silence::{PONG, Silence},
};
use crate::tls::Transport;

/// Receive window of a stream.
const WINDOW: u32 = 64 * 1024;

/// Receive window of a connection: the largest possible, so that unread responses do not block
/// others (RFC 9113 section 6.9.1). The windows of the streams limit the memory.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Most streams of a connection: those that its window covers.
const MOST_STREAMS: usize = (CONNECTION_WINDOW / WINDOW) as usize;

/// Budget for the bookkeeping of unread small DATA frames. Frames are taken from the crate at once,
/// even if nobody reads them (`flow.rs`), so only frames of one read count.
const DATA_FRAME_BUDGET: usize = 64 * 1024 * 1024;

/// Streams that were reset and whose last frames may still arrive.
const RESET_STREAMS: usize = 1024;

/// An upload that waits for its window for this long keeps new requests off its connection.
const STALL: Duration = Duration::from_secs(1);

/// Most connections to an endpoint that get no new requests because of stalled uploads. With more,
/// the endpoint itself has stopped reading, and another connection does not help.
const MOST_STALLED: usize = 8;

/// Bytes of a request's body that may wait on a stream until the endpoint reads them.
const SEND_BUFFER: usize = 64 * 1024;

/// Largest head of a response.
const HEAD_BYTES: u32 = 256 * 1024;

/// A worker's shared connections, by endpoint id.
#[derive(Default)]
pub(in crate::proxy) struct H2Pool {
    endpoints: HashMap<u32, Endpoint>,
    /// Connections opened so far.
    opened: u64,
}

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

impl Shared {
    /// Whether a request may be sent on it now. Detects GOAWAY at once.
    fn has_room(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if let std::task::Poll::Ready(Err(_)) = self.send.poll_ready(&mut cx) {
            self.state.retired.set(true);
        }
        let most = self.send.current_max_send_streams().min(MOST_STREAMS);
        !self.state.retired.get() && self.state.permits.get() < most
    }
}

/// State of a connection, shared by its permits.
struct State {
    /// Larger than the number of any connection opened before.
    number: u64,
    permits: Cell<usize>,
    retired: Cell<bool>,
    /// Streams whose uploads wait for the endpoint to open a window.
    waiting: Cell<usize>,
    /// When the first of them began to wait, or when one last continued.
    moved: Cell<Instant>,
    /// Requests sent without a response so far.
    unanswered: Cell<usize>,
    /// A response began since the last sweep.
    answered: Cell<bool>,
    silence: Cell<Silence>,
    /// Signals that a PING is to be sent, or that the last permit is gone.
    doubt: Notify,
}

impl State {
    fn new(number: u64, now: Instant) -> Self {
        Self {
            number,
            permits: Cell::new(0),
            retired: Cell::new(false),
            waiting: Cell::new(0),
            moved: Cell::new(now),
            unanswered: Cell::new(0),
            answered: Cell::new(false),
            silence: Cell::new(Silence::new(now)),
            doubt: Notify::new(),
        }
    }

    /// Requests a PING if the endpoint has been silent for long.
    fn look(&self, now: Instant) {
        let mut silence = self.silence.get();
        if self.answered.take() {
            silence.end(now);
        } else if self.unanswered.get() == 0 {
            silence.rest(now);
        } else if silence.asks_for_long(now) {
            self.doubt.notify_one();
        }
        self.silence.set(silence);
    }

    /// Whether uploads wait and none has continued for a while.
    fn is_stalled(&self, now: Instant) -> bool {
        self.waiting.get() > 0 && now.saturating_duration_since(self.moved.get()) >= STALL
    }
}

/// Permission to open one stream.
pub(in crate::proxy) struct StreamPermit {
    pub(super) send: SendRequest<Bytes>,
    state: Rc<State>,
    /// The upload waits for a window.
    waits: bool,
    /// The request was sent, and no response has begun.
    open: bool,
}

impl StreamPermit {
    fn new(send: &SendRequest<Bytes>, state: &Rc<State>) -> Self {
        state.permits.set(state.permits.get() + 1);
        Self { send: send.clone(), state: Rc::clone(state), waits: false, open: false }
    }

    /// Number of the connection: larger than that of any connection opened before.
    pub(super) fn connection(&self) -> u64 {
        self.state.number
    }

    /// Gives no further permits for this connection.
    pub(super) fn retire(&self) {
        self.state.retired.set(true);
    }

    /// The request was sent.
    pub(super) fn asked(&mut self) {
        self.open = true;
        self.state.unanswered.set(self.state.unanswered.get() + 1);
    }

    /// The head of the response arrived.
    pub(super) fn answered(&mut self) {
        self.close();
        self.state.answered.set(true);
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.state.unanswered.set(self.state.unanswered.get() - 1);
        }
    }

    /// Requests a PING, unless the endpoint just answered another request.
    pub(super) fn doubt(&self) {
        let mut silence = self.state.silence.get();
        if !self.state.answered.get() && silence.asks_for_leaving(Instant::now()) {
            self.state.silence.set(silence);
            self.state.doubt.notify_one();
        }
    }

    /// Called when the upload begins to wait for a window, and when it continues.
    pub(super) fn set_waiting(&mut self, waits: bool) {
        if self.waits == waits {
            return;
        }
        self.waits = waits;
        let State { waiting, moved, .. } = &*self.state;
        if !waits || waiting.get() == 0 {
            moved.set(Instant::now());
        }
        waiting.set(if waits { waiting.get() + 1 } else { waiting.get() - 1 });
    }
}

/// Retires the connection when its task ends, however it ends.
struct Retired(Rc<State>);

impl Drop for Retired {
    fn drop(&mut self) {
        self.0.retired.set(true);
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.set_waiting(false);
        self.close();
        let State { permits, retired, doubt, .. } = &*self.state;
        permits.set(permits.get() - 1);
        if retired.get() && permits.get() == 0 {
            doubt.notify_one();
        }
    }
}

impl H2Pool {
    /// Whether there is no connection.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Returns a stream of a connection to endpoint id `endpoint`, `encrypted` or not, that was
    /// opened after the connection `newer_than`; 0 allows all.
    pub(in crate::proxy) fn take(
        &mut self,
        endpoint: u32,
        encrypted: bool,
        newer_than: u64,
        now: Instant,
    ) -> Option<StreamPermit> {
        let open = &mut self.endpoints.get_mut(&endpoint)?.open;
        let (mut stalled, mut spare) = (0, None);
        for shared in open {
            if shared.encrypted != encrypted
                || shared.state.number <= newer_than
                || !shared.has_room()
            {
                continue;
            }
            if !shared.state.is_stalled(now) {
                return Some(StreamPermit::new(&shared.send, &shared.state));
            }
            stalled += 1;
            spare = Some(&*shared);
        }
        let spare = spare.filter(|_| stalled >= MOST_STALLED)?;
        Some(StreamPermit::new(&spare.send, &spare.state))
    }

    /// Lock that is held while a connection to the endpoint is opened, so that other requests wait
    /// for it rather than open their own.
    pub(in crate::proxy) fn opening(&mut self, endpoint: u32) -> Rc<Mutex<()>> {
        Rc::clone(&self.endpoints.entry(endpoint).or_default().opening)
    }

    /// Closes connections that have ended, were idle for too long, or lead to endpoints for which
    /// `serves` is false. Requests in flight finish.
    pub(in crate::proxy) fn sweep(&mut self, now: Instant, serves: impl Fn(u32) -> bool) {
        self.endpoints.retain(|endpoint, Endpoint { open, opening }| {
            let keep = serves(*endpoint);
            open.retain_mut(|shared| {
                shared.state.look(now);
                let State { permits, retired, .. } = &*shared.state;
                let since = match permits.get() {
                    0 => *shared.idle_since.get_or_insert(now),
                    _ => *shared.idle_since.insert(now),
                };
                keep && !retired.get() && now.saturating_duration_since(since) < shared.idle_timeout
            });
            !open.is_empty() || Rc::strong_count(opening) > 1
        });
    }
}

/// Starts HTTP/2 on `transport`, a new connection to endpoint id `endpoint`, and returns its first
/// permit.
pub(in crate::proxy) async fn open_shared(
    streams: &std::cell::RefCell<H2Pool>,
    endpoint: u32,
    transport: Transport,
    idle_timeout: Duration,
) -> Result<StreamPermit, h2::Error> {
    let encrypted = transport.is_encrypted();
    let (send, mut connection) = Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(DATA_FRAME_BUDGET)
        // Frames that still arrive on streams whose clients left must not end the connection.
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(None)
        .max_header_list_size(HEAD_BYTES)
        .enable_push(false)
        .handshake(Sifted::new(transport, (), Sieve::for_answers()))
        .await?;
    let pings = connection.ping_pong();
    let (hand_over, handed) = oneshot::channel();
    let number = {
        let mut streams = streams.borrow_mut();
        streams.opened += 1;
        streams.opened
    };
    let state = Rc::new(State::new(number, Instant::now()));
    let ended = Retired(Rc::clone(&state));
    tokio::task::spawn_local(async move {
        tokio::select! {
            served = connection => if let Err(error) = served {
                tracing::debug!(%error, "an HTTP/2 connection to an endpoint failed");
            },
            () = await_silence(handed, &ended.0) => {
                tracing::debug!("an endpoint did not answer a PING on an HTTP/2 connection");
            }
        }
    });
    if let Some(mut pings) = pings {
        // The endpoint's settings precede its PONG, so the limit of streams and their kinds are
        // known then.
        pings.ping(Ping::opaque()).await?;
        // Fails only if the connection's task has ended.
        let _ = hand_over.send(pings);
    }
    let permit = StreamPermit::new(&send, &state);
    let shared = Shared { send, state, encrypted, idle_timeout, idle_since: None };
    streams.borrow_mut().endpoints.entry(endpoint).or_default().open.push(shared);
    Ok(permit)
}

/// Sends a PING on request, and retires the connection when it is not answered. Ends once no
/// request uses the connection.
async fn await_silence(handed: oneshot::Receiver<PingPong>, state: &State) {
    let Ok(mut pings) = handed.await else { return std::future::pending().await };
    loop {
        state.doubt.notified().await;
        let answered = timeout(PONG, pings.ping(Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            break;
        }
    }
    state.retired.set(true);
    while state.permits.get() > 0 {
        state.doubt.notified().await;
    }
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
    async fn streams_are_permitted_up_to_the_endpoints_limit_and_given_back() {
        LocalSet::new()
            .run_until(async {
                let (streams, now) = (RefCell::new(H2Pool::default()), Instant::now());
                let (transport, _serving) = connection(2).await;
                let first = open_shared(&streams, 7, transport, Duration::from_secs(5))
                    .await
                    .expect("shared");
                let second = streams.borrow_mut().take(7, false, 0, now).expect("one to spare");
                assert!(streams.borrow_mut().take(7, false, 0, now).is_none(), "full");
                drop(second);
                assert!(streams.borrow_mut().take(7, true, 0, now).is_none(), "in clear");
                assert!(
                    streams.borrow_mut().take(8, false, 0, now).is_none(),
                    "of another endpoint"
                );
                let again = streams.borrow_mut().take(7, false, 0, now).expect("given back");
                again.retire();
                drop((first, again));
                assert!(streams.borrow_mut().take(7, false, 0, now).is_none(), "retired");
                streams.borrow_mut().sweep(Instant::now(), |_| true);
                assert!(streams.borrow().is_empty());
            })
            .await;
    }

    #[tokio::test]
    async fn a_stalled_upload_keeps_new_requests_off_until_it_moves_and_not_off_all_connections() {
        LocalSet::new()
            .run_until(async {
                let streams = RefCell::new(H2Pool::default());
                let now = Instant::now();
                let take = |newer, at| streams.borrow_mut().take(7, false, newer, at);
                let (mut permits, mut serving) = (Vec::new(), Vec::new());
                for n in 1..=MOST_STALLED {
                    let (transport, task) = connection(9).await;
                    let shared = open_shared(&streams, 7, transport, Duration::from_secs(5)).await;
                    permits.push(shared.expect("shared"));
                    serving.push(task);
                    assert_eq!(permits[n - 1].connection(), n as u64);
                    permits[n - 1].set_waiting(true);
                    assert!(take(0, now + STALL / 2).is_some(), "it may yet move");
                    let later = now + 2 * STALL;
                    assert_eq!(take(0, later).is_some(), n == MOST_STALLED, "{n} are stalled");
                }
                let later = now + 2 * STALL;
                permits[2].set_waiting(false);
                assert_eq!(take(0, later).map(|permit| permit.connection()), Some(3));
                assert!(take(3, later).is_none(), "what failed there is not tried there");
                assert_eq!(serving.len(), MOST_STALLED);
            })
            .await;
    }

    #[tokio::test]
    async fn idle_connections_are_closed_in_time_and_with_their_endpoint() {
        LocalSet::new()
            .run_until(async {
                let streams = RefCell::new(H2Pool::default());
                let idle = Duration::from_secs(5);
                let (transport, serving) = connection(9).await;
                let permit = open_shared(&streams, 1, transport, idle).await.expect("shared");
                let (now, later) = (Instant::now(), Instant::now() + idle);
                streams.borrow_mut().sweep(later, |_| true);
                assert!(!streams.borrow().is_empty(), "it was in use");
                drop(permit);
                streams.borrow_mut().sweep(now, |_| true);
                streams.borrow_mut().sweep(later, |_| false);
                assert!(streams.borrow().is_empty());
                // No permit is left, so the connection ends cleanly.
                serving.await.expect("the endpoint saw its end");
            })
            .await;
    }
}
