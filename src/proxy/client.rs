//! A client: what is known of it, what was read of it, and what becomes of its connection.

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
    worker::{ConnectionGuard, Worker},
};
use crate::tls::Transport;

/// A client that is told to go may take this long to read what it was told.
const LINGER: Duration = Duration::from_secs(2);

/// The same while the worker drains and waits for nobody else.
const LINGER_AT_END: Duration = Duration::from_secs(1);

/// Bytes of a client that is told to go which are read and dropped at most.
const LINGER_BYTES: usize = 1 << 20;

/// How a connection of HTTP/2 begins, as far as an HTTP/1.1 parser can tell.
const PREFACE_START: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What is known of a client from its connection, which its requests share.
pub(super) struct Connected {
    /// The address that the connection comes from, by the PROXY protocol where that is spoken. A
    /// request behind a trusted proxy may be of another client.
    pub(super) address: IpAddr,
    pub(super) address_text: AddressText,
    /// Subject of the client's verified certificate.
    pub(super) subject: Option<Box<str>>,
    pub(super) encrypted: bool,
    pub(super) open: ConnectionGuard,
}

impl Connected {
    /// The address of the socket that the client connected to.
    pub(super) fn listener(&self) -> &str {
        &self.open.listener().name
    }
}

/// A client's connection, or a stream of it, and what has been read of it.
pub(super) struct Client {
    pub(super) stream: Channel,
    /// Bytes read that belong to this request or to later ones; hollow while the client is idle.
    pub(super) inbox: Buffer,
    pub(super) deadline: Deadline,
    pub(super) connected: Rc<Connected>,
    /// The head of an answer is out and its end is not.
    pub(super) answering: bool,
    /// The client has ended its sending side: it asks no more than what was read, and may wait for answers.
    pub(super) sent_all: bool,
    /// When the last request ended.
    pub(super) idle_since: Instant,
    /// No request was waited for yet.
    fresh: bool,
    /// No request was answered yet.
    pub(super) first: bool,
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextState {
    /// It stays.
    Keep,
    /// It ends.
    Close,
    /// It ends once the client had time to read its answer.
    Linger,
    /// It begins as one of HTTP/2 does.
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

    /// Gives back what the worker lent.
    pub(super) fn leave(mut self, worker: &Worker) {
        worker.blocks.give(std::mem::replace(&mut self.inbox, Buffer::hollow()));
    }

    /// Whether a head that was answered `status` begins a connection of HTTP/2 (RFC 9113 section 3.3).
    pub(super) fn begins_http2(&self, status: u16) -> bool {
        status == 505 && self.first && self.inbox.data().starts_with(PREFACE_START)
    }

    /// Waits until there is something to read; false if the client left or stayed idle too long.
    /// Holds no buffer while it waits.
    ///
    /// A worker that drains does not close an idle connection at once: the client may be sending a
    /// request on it, which would be lost, and most clients do not send a POST again. For a short
    /// grace the next request is still served, and its answer ends the connection in a way that
    /// cannot be missed. Whoever is busy ends that way; only a client that was silent for all of the
    /// grace is closed without an answer.
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

    /// Ready with true when there is something to read, with false when there never will be; takes a
    /// buffer only then.
    fn poll_something(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<bool> {
        if let Channel::Wire(Transport::Plain(stream)) = &self.stream {
            let ready = ready!(stream.poll_read_ready(cx)).is_ok();
            if ready {
                self.inbox = worker.blocks.take();
            }
            return Poll::Ready(ready);
        }
        // That bytes came in tells nothing of a session: they may be its own. Only reading shows.
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

    /// Gives blocks back that hold little, while the client or an endpoint may take long; `buffer` is the
    /// other one that is held meanwhile.
    pub(super) fn hold_little(&mut self, worker: &Worker, buffer: &mut Buffer) {
        worker.blocks.shrink(buffer);
        worker.blocks.shrink(&mut self.inbox);
    }

    /// Whether the client is there, as far as can be seen: a client that breaks off is not. What it sends
    /// ahead is kept for the next request. One that ends its sending side may still read (RFC 9112 section
    /// 9.6): `nc` and small HTTP clients do so after each request.
    pub(super) fn is_there(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.sent_all && self.inbox.space() > 0 {
            match self.inbox.poll_fill(cx, &mut self.stream) {
                // The end of a request on a stream is not that of the stream.
                Poll::Ready(Ok(0)) => self.sent_all = !self.stream.is_stream(),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => break,
            }
        }
        true
    }

    /// Ends the connection so that the client can read its last answer: closing a socket with unread
    /// bytes would reset it (RFC 9112 section 9.6).
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
        // A client that does not end in time, or broke off, has nothing more to be told.
        let _ = tokio::time::timeout(patience, end).await;
    }
}

impl Drop for Client {
    /// Ends the connection so that the client cannot take a cut answer for a whole one: without a
    /// length, an answer to an old client ends where its connection ends in order.
    fn drop(&mut self) {
        if self.answering {
            self.stream.break_off();
        }
    }
}
