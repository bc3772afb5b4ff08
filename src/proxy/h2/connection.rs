//! A client's HTTP/2 connection: accepts its streams, each of which is a request with its own task.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    ServerStream,
    meter::Meter,
    open::ConnectionStreams,
    sieve::{Head, Sieve, Sifted, Watch},
};
use crate::{
    config::schema::Limits,
    proxy::{
        buffer::Buffer,
        channel::Channel,
        client::{Client, Connected, NextState},
        deadline::Deadline,
        handle::handle,
        limit::LimitKind,
        worker::Worker,
    },
};

/// Receive window of a stream. The window of the connection covers all streams that are allowed, so
/// that uploads which an endpoint does not read do not block others.
const WINDOW: u32 = 128 * 1024;

/// Bytes of a response that may wait on a stream until the client reads them.
const SEND_BUFFER: usize = 32 * 1024;

/// Limit of open streams of all connections of a worker, per request that the worker may have in
/// flight, plus those that one connection may have: as many responses as requests may wait to be
/// read.
const OPEN_PER_REQUEST: u32 = 2;

/// Time for the client to close its connection after GOAWAY.
const LINGER: Duration = Duration::from_secs(2);

/// Resets of streams that were not accepted yet. The meter limits them.
const RESETS_BEFORE_ACCEPT: usize = 200;

/// Length of the client's preface (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;

/// The client's connection below the frames, whose first bytes may have been read already.
struct Below(Client);

impl AsyncRead for Below {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Client { stream, inbox: ahead, .. } = &mut self.get_mut().0;
        if ahead.is_empty() {
            return Pin::new(stream).poll_read(cx, into);
        }
        let n = ahead.len().min(into.remaining());
        into.put_slice(&ahead.data()[..n]);
        ahead.consume(n);
        if ahead.is_empty() {
            *ahead = Buffer::hollow();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Below {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0.stream).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0.stream).poll_shutdown(cx)
    }
}

/// Meters the client's frames.
struct Metered {
    meter: Meter,
    worker: Rc<Worker>,
    streams: Rc<ConnectionStreams>,
    /// Why nothing more is read from the client.
    fault: Rc<Cell<Option<Reason>>>,
}

impl Watch for Metered {
    fn received(&mut self, head: Head) -> Result<(), Reason> {
        if let Some(fault) = self.fault.get() {
            return Err(fault);
        }
        let passed = self.meter.received(head, Instant::now);
        self.worker.h2_clients.count(&self.streams, self.meter.open());
        passed
    }

    fn sent(&mut self, bytes: &[u8]) {
        // Checked here as well, since the client may send nothing more.
        if let Err(fault) = self.meter.sent(bytes, Instant::now) {
            self.fault.set(Some(fault));
        }
        self.worker.h2_clients.count(&self.streams, self.meter.open());
    }

    fn fail(&mut self, fault: Reason) {
        self.fault.set(Some(fault));
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.worker.h2_clients.leave(&self.streams);
    }
}

/// Counts the task of a stream while it runs.
struct StreamGuard {
    streams: Rc<ConnectionStreams>,
    worker: Rc<Worker>,
}

impl StreamGuard {
    fn join(streams: &Rc<ConnectionStreams>, worker: &Rc<Worker>) -> Self {
        streams.served.set(streams.served.get() + 1);
        Self { streams: Rc::clone(streams), worker: Rc::clone(worker) }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let left = self.streams.served.get() - 1;
        self.streams.served.set(left);
        if left == 0 {
            self.streams.idle_since.set(Instant::now());
            self.streams.wake();
        }
    }
}

/// Serves a client from the preface until its connection ends.
pub(in crate::proxy) async fn serve(worker: Rc<Worker>, client: Client) {
    let now = Instant::now();
    let connected = Rc::clone(&client.connected);
    let fault = Rc::new(Cell::new(None));
    let streams = worker.h2_clients.join(now);
    let metered = Metered {
        meter: Meter::new(now),
        worker: Rc::clone(&worker),
        streams: Rc::clone(&streams),
        fault: Rc::clone(&fault),
    };
    let limits = worker.snapshot().limits.clone();
    let head_bytes = usize::try_from(limits.header_bytes.0).unwrap_or(usize::MAX);
    let io = Sifted::new(Below(client), metered, Sieve::new(PREFACE_BYTES, head_bytes));
    let mut builder = server::Builder::new();
    // Schema: at most 1000 streams.
    let window = WINDOW.saturating_mul(limits.streams).min((1 << 31) - 1);
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(window)
        // The same budget for the bookkeeping of unread small DATA frames.
        .data_frame_budget(window as usize)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(RESETS_BEFORE_ACCEPT)
        // The crate counts these over the life of a connection, which may be weeks; the meter
        // limits them instead.
        .max_local_error_reset_streams(None)
        .max_header_list_size(u32::try_from(limits.header_bytes.0).unwrap_or(u32::MAX))
        .enable_connect_protocol();
    let mut greeting = std::pin::pin!(builder.handshake(io));
    let mut deadline = Deadline::new(now + limits.header_timeout);
    let greeted = std::future::poll_fn(|cx| {
        if let Poll::Ready(greeted) = greeting.as_mut().poll(cx) {
            return Poll::Ready(greeted.ok());
        }
        // A worker that drains waits for the preface only as long as for an idle client.
        if let Some(until) = worker.idle_until.get() {
            deadline.sooner(until);
        }
        deadline.poll_passed(cx).map(|()| None)
    });
    let Some(connection) = greeted.await else { return };
    deadline.set(now + limits.idle_timeout);
    let mut serving = Serving {
        worker,
        connection,
        connected,
        limits,
        streams,
        fault,
        deadline,
        goaway_sent: None,
        broken: false,
    };
    std::future::poll_fn(|cx| serving.poll(cx)).await;
}

/// Waits for the end of a stream whose request was read completely and answered. The client may
/// send the end in a frame of its own after the last byte, and the stream must not be reset before.
async fn await_end(client: &mut Client) {
    let Channel::ServerStream(stream) = &mut client.stream else { return };
    let ended = std::future::poll_fn(|cx| stream.poll_ended(cx));
    // After the timeout the stream is reset without an error (RFC 9113 section 8.1).
    let _ = tokio::time::timeout(LINGER, ended).await;
}

struct Serving {
    worker: Rc<Worker>,
    connection: server::Connection<Sifted<Below, Metered>, Bytes>,
    connected: Rc<Connected>,
    limits: Limits,
    streams: Rc<ConnectionStreams>,
    fault: Rc<Cell<Option<Reason>>>,
    deadline: Deadline,
    /// When GOAWAY was sent, if it was.
    goaway_sent: Option<Instant>,
    /// The client broke the protocol.
    broken: bool,
}

impl Serving {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.poll_streams(cx).is_ready() {
                return Poll::Ready(());
            }
            if self.streams.must_go.get() {
                // Unread responses are what must be freed, so the connection is dropped at once.
                self.blame(Reason::ENHANCE_YOUR_CALM);
                return Poll::Ready(());
            }
            if let Some(fault) = self.fault.get().filter(|_| !self.broken) {
                self.broken = true;
                self.blame(fault);
                self.connection.abrupt_shutdown(fault);
                self.goaway_sent = None;
            } else if self.goaway_sent.is_none() && (self.worker.parting.get() || self.is_idle(cx))
            {
                self.connection.graceful_shutdown();
            } else if self.goaway_sent.is_some() && self.is_idle(cx) {
                return Poll::Ready(());
            } else {
                return Poll::Pending;
            }
            // The next round sends the frames.
            self.goaway_sent.get_or_insert_with(Instant::now);
        }
    }

    /// Accepts streams, and drives the connection; ready when it has ended.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let accepted = {
                let accept = std::pin::pin!(self.connection.accept());
                ready!(accept.poll(cx))
            };
            match accepted {
                Some(Ok((request, respond))) => self.start(request, respond),
                Some(Err(error)) => {
                    error.reason().into_iter().for_each(|reason| self.blame(reason));
                    tracing::debug!(client = %self.connected.address, %error, "an HTTP/2 connection failed");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }

    /// Counts a flood of frames that ended the connection.
    fn blame(&self, reason: Reason) {
        if reason == Reason::ENHANCE_YOUR_CALM {
            self.worker.shared.cells.of(self.worker.id).floods.add(1);
            tracing::debug!(client = %self.connected.address, "a flood of frames was ended");
        }
    }

    /// Whether the connection was idle for too long, or the client did not close it after GOAWAY.
    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        let mut waker = self.streams.waker.borrow_mut();
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        if self.streams.served.get() > 0 && !self.broken {
            return false;
        }
        let since = self.streams.idle_since.get();
        self.deadline.set(match self.goaway_sent {
            Some(goaway_sent) => since.max(goaway_sent) + LINGER,
            None => since + self.limits.idle_timeout,
        });
        self.deadline.poll_passed(cx).is_ready()
    }

    fn start(&self, request: Request<RecvStream>, mut respond: server::SendResponse<Bytes>) {
        let answered = OPEN_PER_REQUEST.saturating_mul(self.worker.snapshot().requests);
        let most = answered.saturating_add(self.limits.streams);
        if !self.worker.h2_clients.admit(most as usize) {
            self.worker.shared.cells.of(self.worker.id).count_shed(LimitKind::OfAll);
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let guard = StreamGuard::join(&self.streams, &self.worker);
        let stream = Channel::ServerStream(Box::new(ServerStream::new(request, respond)));
        let patience = Instant::now() + self.limits.header_timeout;
        let client = Client::new(stream, Deadline::new(patience), Rc::clone(&self.connected));
        tokio::task::spawn_local(async move {
            let _panics = guard.worker.count_panic();
            let mut client = client;
            client.inbox = guard.worker.blocks.take_small();
            // The connection's own task decides whether the connection stays open.
            let after = handle(&mut client, &guard.worker).await;
            if after != NextState::Linger && !client.answering {
                await_end(&mut client).await;
            }
            client.leave(&guard.worker);
        });
    }
}
