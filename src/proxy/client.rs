//! A client: its identity, the bytes read from it, and the next state of its connection.

use std::{
    future::poll_fn,
    net::IpAddr,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    address::AddressText,
    buffer::Buffer,
    channel::Channel,
    deadline::Deadline,
    smoke_target::SmokeTarget,
    worker::{ConnectionGuard, Worker},
};
use crate::tls::Transport;

/// How long a client may take to read its last response before the connection is closed.
const LINGER: Duration = Duration::from_secs(2);

/// The same for a draining worker after the grace period of idle connections.
const LINGER_AT_END: Duration = Duration::from_secs(1);

/// Bytes from such a client that are read and dropped at most.
const LINGER_BYTES: usize = 1 << 20;

/// The start of an HTTP/2 connection, as an HTTP/1.1 parser sees it.
const PREFACE_START: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The properties of a client's connection, which its requests share.
pub(super) struct Connected {
    /// The address that the connection comes from, from the PROXY protocol if that is used. A request behind a
    /// trusted proxy may be of another client.
    pub(super) address: IpAddr,
    pub(super) address_text: AddressText,
    /// Subject of the client's verified certificate.
    pub(super) subject: Option<Box<str>>,
    pub(super) encrypted: bool,
    /// Where its requests go, if a smoke check sends them.
    pub(super) smoke: Option<Box<SmokeTarget>>,
    pub(super) open: ConnectionGuard,
}

impl Connected {
    /// The address of the socket that the client connected to.
    pub(super) fn listener(&self) -> &str {
        &self.open.listener().name
    }
}

/// A client's connection or stream, and the bytes read from it.
pub(super) struct Client {
    pub(super) stream: Channel,
    /// Bytes read of this request and of later ones; a placeholder while the client is idle.
    pub(super) inbox: Buffer,
    pub(super) deadline: Deadline,
    pub(super) connected: Rc<Connected>,
    /// The head of a response was sent, but not its end.
    pub(super) answering: bool,
    /// The client has closed its sending side: it sends no further request, but may wait for responses.
    pub(super) sent_all: bool,
    /// When the last request ended.
    pub(super) idle_since: Instant,
    /// No request has been awaited yet.
    fresh: bool,
    /// No request has been answered yet.
    pub(super) first: bool,
}

/// The next state of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextState {
    /// Open for another request.
    Keep,
    /// Closed.
    Close,
    /// Closed after the client has had time to read its response.
    Linger,
    /// Continued as HTTP/2.
    Http2,
}

impl Client {
    pub(super) fn new(stream: Channel, deadline: Deadline, connected: Rc<Connected>) -> Self {
        Self {
            stream,
            inbox: Buffer::hollow(),
            deadline,
            connected,
            answering: false,
            sent_all: false,
            idle_since: Instant::now(),
            fresh: true,
            first: true,
        }
    }

    /// Returns the buffer to the worker.
    pub(super) fn leave(mut self, worker: &Worker) {
        worker.blocks.give(std::mem::replace(&mut self.inbox, Buffer::hollow()));
    }

    /// Whether a head with the response `status` begins an HTTP/2 connection (RFC 9113 section 3.3).
    pub(super) fn begins_http2(&self, status: u16) -> bool {
        status == 505 && self.first && self.inbox.data().starts_with(PREFACE_START)
    }

    /// Waits for bytes to read; false if the client left or was idle for too long. Holds no buffer while it
    /// waits.
    ///
    /// A draining worker does not close an idle connection at once. The client may be sending a request, which
    /// would be lost, and most clients do not send a POST again. For a short grace period the next request is
    /// still served, and its response tells the client that the connection ends. Only a client that is silent
    /// for the whole grace period is disconnected without a response.
    pub(super) async fn next_request(&mut self, worker: &Worker) -> bool {
        if !self.inbox.is_empty() {
            return true;
        }
        worker.blocks.give(std::mem::replace(&mut self.inbox, Buffer::hollow()));
        if !std::mem::take(&mut self.fresh) {
            self.deadline.set(self.idle_since + worker.snapshot().limits.idle_timeout);
        }
        poll_fn(|cx| {
            if let Poll::Ready(ready) = self.poll_something(cx, worker) {
                return Poll::Ready(ready);
            }
            if let Some(until) = worker.idle_until.get() {
                self.deadline.sooner(until);
            }
            self.deadline.poll_passed(cx).map(|()| false)
        })
        .await
    }

    /// Ready with true when there is something to read, with false when there never will be. Takes a buffer
    /// only if it is ready.
    fn poll_something(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<bool> {
        if let Channel::Wire(Transport::Plain(stream)) = &self.stream {
            let ready = ready!(stream.poll_read_ready(cx)).is_ok();
            if ready {
                self.inbox = worker.blocks.take();
            }
            return Poll::Ready(ready);
        }
        // A readable socket does not show that there is data: the bytes may belong to TLS. Only reading shows
        // it.
        let mut inbox = worker.blocks.take();
        match inbox.poll_fill(cx, &mut self.stream) {
            Poll::Ready(Ok(n)) if n > 0 => {
                self.inbox = inbox;
                Poll::Ready(true)
            }
            Poll::Ready(_) => {
                worker.blocks.give(inbox);
                Poll::Ready(false)
            }
            Poll::Pending => {
                worker.blocks.give(inbox);
                Poll::Pending
            }
        }
    }

    /// Releases blocks that hold little, while the client or an endpoint may take long; `buffer` is the other
    /// buffer held at that time.
    pub(super) fn hold_little(&mut self, worker: &Worker, buffer: &mut Buffer) {
        worker.blocks.shrink(buffer);
        worker.blocks.shrink(&mut self.inbox);
    }

    /// Whether the client is still connected, as far as can be seen. Bytes that it sends ahead are kept for the
    /// next request. A client that closes only its sending side may still read (RFC 9112 section 9.6): `nc` and
    /// small HTTP clients do so after each request.
    pub(super) fn is_there(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.sent_all && self.inbox.space() > 0 {
            match self.inbox.poll_fill(cx, &mut self.stream) {
                // On a stream this is the end of the request, not of the stream.
                Poll::Ready(Ok(0)) => self.sent_all = !self.stream.is_stream(),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => break,
            }
        }
        true
    }

    /// Whether the client has left, or will send nothing more, while its request waits to begin. The body stays unread,
    /// and with it the end that its reader is told.
    pub(super) fn has_left(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.stream {
            Channel::ServerStream(stream) => stream.poll_left(cx).is_ready(),
            Channel::Wire(_) | Channel::ClientStream(_) => !self.is_there(cx) || self.sent_all,
        }
    }

    /// Closes the connection so that the client can read its last response: closing a socket with unread bytes
    /// would reset it (RFC 9112 section 9.6).
    pub(super) async fn linger(&mut self, worker: &Worker) {
        let is_end = worker.idle_until.get().is_some_and(|until| until <= Instant::now());
        let patience = if is_end { LINGER_AT_END } else { LINGER };
        let end = async {
            let mut dropped = 0;
            self.stream.shutdown().await?;
            let mut sink = [0u8; 1024];
            while dropped < LINGER_BYTES {
                match self.stream.read(&mut sink).await? {
                    0 => break,
                    n => dropped += n,
                }
            }
            std::io::Result::Ok(())
        };
        // A client that does not close in time, or has disconnected, needs nothing more.
        let _ = tokio::time::timeout(patience, end).await;
    }
}

impl Drop for Client {
    /// Closes the connection so that a truncated response cannot be taken for a complete one: without a length,
    /// a response to an HTTP/1.0 client ends at a regular end of its connection.
    fn drop(&mut self) {
        if self.answering {
            self.stream.break_off();
        }
    }
}
