//! A client's connection: waits for requests, hands each to [`handle`], and ends in order.

use std::{
    fmt::Write,
    future::poll_fn,
    net::IpAddr,
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{
    buffer::Buffer,
    deadline::Deadline,
    h2,
    handle::{After, handle},
    introduction::introduce,
    link::Link,
    shared::ListenerState,
    worker::{Open, Worker},
};
use crate::tls::{self, Transport};

/// A client that is told to go may take this long to read what it was told.
const LINGER: Duration = Duration::from_secs(2);

/// The same while the worker drains and waits for nobody else.
const LINGER_AT_END: Duration = Duration::from_secs(1);

/// Bytes of a client that is told to go which are read and dropped at most.
const LINGER_BYTES: usize = 1 << 20;

/// What is known of a client from its connection, which its requests share.
pub(super) struct Connected {
    /// The address that the connection comes from, by the PROXY protocol where that is spoken. A
    /// request behind a trusted proxy may be of another client.
    pub(super) address: IpAddr,
    pub(super) address_text: AddressText,
    /// Subject of the client's verified certificate.
    pub(super) subject: Option<Box<str>>,
    pub(super) encrypted: bool,
    pub(super) open: Open,
}

impl Connected {
    /// The address of the socket that the client connected to.
    pub(super) fn listener(&self) -> &str {
        &self.open.listener().name
    }
}

/// A client's connection, or a stream of it, and what has been read of it.
pub(super) struct Client {
    pub(super) stream: Link,
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
    first: bool,
}

/// An address as text, without allocation.
#[derive(Clone, Copy)]
pub(super) struct AddressText {
    text: [u8; 46],
    length: u8,
}

impl AddressText {
    pub(super) fn new(address: IpAddr) -> Self {
        let mut this = Self { text: [0; 46], length: 0 };
        // The longest form of an address is 45 bytes.
        let _ = write!(this, "{address}");
        this
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }
}

impl Write for AddressText {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        let (from, to) = (usize::from(self.length), usize::from(self.length) + part.len());
        self.text.get_mut(from..to).ok_or(std::fmt::Error)?.copy_from_slice(part.as_bytes());
        self.length = to as u8;
        Ok(())
    }
}

/// Serves one client until its connection ends.
pub(super) async fn serve(worker: Rc<Worker>, mut stream: TcpStream, peer: IpAddr, mut open: Open) {
    // Fails only if the connection is already gone, which the first read will tell.
    let _ = stream.set_nodelay(true);
    let _witness = worker.witness();
    poll_fn(|cx| {
        open.wake_by(cx.waker());
        Poll::Ready(())
    })
    .await;
    let patience = worker.snapshot().limits.header_timeout;
    let mut deadline = Deadline::new(Instant::now() + patience);
    let introduced = introduce(&worker, &mut open, &mut stream, peer, &mut deadline).await;
    let Some(address) = introduced else { return };
    let spoken = speak(&worker, stream, open.listener(), patience, &mut deadline).await;
    let Some((stream, subject)) = spoken else { return };
    let chose_h2 = stream.alpn() == Some(tls::H2);
    let connected = Rc::new(Connected {
        address,
        address_text: AddressText::new(address),
        subject,
        encrypted: stream.is_encrypted(),
        open,
    });
    let mut client = Client::new(Link::Wire(stream), deadline, connected);
    if chose_h2 {
        return Box::pin(h2::serve(worker, client)).await;
    }
    while client.next_request(&worker).await {
        match handle(&mut client, &worker).await {
            // Also while the worker drains: the answer had left before it could say that it is the last.
            After::Keep => client.first = false,
            After::Close => break,
            After::Linger => {
                client.linger(&worker).await;
                break;
            }
            After::Http2 => return Box::pin(h2::serve(worker, client)).await,
        }
    }
    client.leave(&worker);
}

/// The connection as the listener has it, in clear or under TLS, and the subject of the client's
/// certificate. Nothing if the handshake failed, which is the client's affair.
async fn speak(
    worker: &Worker,
    stream: TcpStream,
    listener: &ListenerState,
    patience: Duration,
    deadline: &mut Deadline,
) -> Option<(Transport, Option<Box<str>>)> {
    let Some(tls) = &listener.tls else { return Some((stream.into(), None)) };
    // On the heap, so that a connection does not hold its handshake's space for as long as it lives.
    let mut handshake = Box::pin(tls::server::accept(tls.config(), stream, patience));
    let began = Instant::now();
    let spoken = poll_fn(|cx| {
        if let Poll::Ready(spoken) = handshake.as_mut().poll(cx) {
            return Poll::Ready(Some(spoken));
        }
        // Who is amid one is let go as if he were idle.
        let Some(until) = worker.idle_until.get() else { return Poll::Pending };
        deadline.set(until);
        deadline.poll_passed(cx).map(|()| None)
    });
    let spoken = spoken.await;
    deadline.set(began + patience);
    match spoken? {
        Ok(stream) => {
            let subject = tls::server::client_subject(stream.get_ref().1).map(Into::into);
            Some((stream.into(), subject))
        }
        Err(error) => {
            listener.handshakes_failed.fetch_add(1, Relaxed);
            tracing::debug!(listener = listener.name, %error, "a client did not come to speak TLS");
            None
        }
    }
}

impl Client {
    pub(super) fn new(stream: Link, deadline: Deadline, connected: Rc<Connected>) -> Self {
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
        status == 505 && self.first && self.inbox.data().starts_with(h2::PREFACE_START)
    }

    /// Waits until there is something to read; false if the client left or stayed idle too long.
    /// Holds no buffer while it waits.
    ///
    /// A worker that drains does not close an idle connection at once: the client may be sending a
    /// request on it, which would be lost, and most clients do not send a POST again. For a short
    /// grace the next request is still served, and its answer ends the connection in a way that
    /// cannot be missed. Whoever is busy ends that way; only a client that was silent for all of the
    /// grace is closed without an answer.
    async fn next_request(&mut self, worker: &Worker) -> bool {
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
        if let Link::Wire(Transport::Plain(stream)) = &self.stream {
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

    /// Ends the connection so that the client can read its last answer: closing a socket with unread
    /// bytes would reset it (RFC 9112 section 9.6).
    async fn linger(&mut self, worker: &Worker) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_addresses_fit() {
        for text in ["127.0.0.1", "::1", "2001:db8:1111:2222:3333:4444:5555:6666"] {
            assert_eq!(
                AddressText::new(text.parse().expect("an address")).as_bytes(),
                text.as_bytes()
            );
        }
    }
}
