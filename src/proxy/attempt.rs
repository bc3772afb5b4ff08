//! One attempt at one endpoint: sends the request while the response may already arrive.
//!
//! An attempt knows no client. Its caller takes the response's head from it, passes interim responses on, and
//! supplies the part of the request's body that did not arrive with the head. Both directions are polled from
//! one task, so an endpoint may respond before it has read the whole body (a 413, a `100 Continue`).

mod heads;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::AsyncWrite as _;

use super::{
    amounts::AmountValues,
    body::Framing,
    buffer::Buffer,
    channel::{Channel, MessageIo},
    grpc,
    pieces::Pieces,
    plan::Plan,
    problem::ProxyError,
    relay::{Relay, RelayError},
    tap::Tap,
    target::Target,
    worker::Worker,
};
use crate::tls::Transport;

/// Bytes of a request's body that are kept at most, so that the request can be sent again.
const KEPT_BYTES: usize = 16 * 1024;

/// An attempt in progress.
pub(super) struct Attempt<'a> {
    worker: &'a Worker,
    plan: &'a Plan,
    target: Target<'a>,
    upstream: Channel,
    /// The connection has served a request before.
    pub(super) reused: bool,
    /// Bytes received from the endpoint.
    inbox: Buffer,
    /// Pieces of an incomplete response head.
    pieces: Pieces,
    /// Bytes of the request's text that were sent.
    sent: usize,
    /// The part of the body that follows the request's text.
    upload: Option<Box<Upload>>,
    /// The uploaded body, if all of it could be kept.
    kept: Option<Vec<u8>>,
    /// All of the request's text was flushed to the TLS session or to the socket.
    flushed: bool,
    /// The request was not sent completely.
    cut: bool,
    /// Interim responses on their way to the client.
    interim: Buffer,
    /// Interim responses arrived that have not been reported to the caller.
    came_interim: bool,
    /// The client gets interim responses, or has got some.
    pub(super) has_interim: bool,
    /// The endpoint switches protocols and waits for the end of the request.
    switches: bool,
    /// At least one byte of a response has arrived.
    pub(super) answered: bool,
    /// Bytes of the request's body sent.
    pub(super) body_bytes: u64,
}

/// The part of a body that was not sent with the head. Boxed, since few requests have one, and since attempts
/// are moved.
struct Upload {
    relay: Relay,
    outbox: Buffer,
}

/// The next response head.
pub(super) enum Head {
    /// Interim responses, which [`Attempt::pass_interim`] passes on.
    Interim,
    /// The final response. Its head is in `response`, in the form for the client.
    Final,
}

/// A response whose head was read.
pub(super) struct Answer {
    pub(super) status: u16,
    relay: Relay,
    /// Whether the endpoint keeps the connection, and for how long if it says so.
    keep_upstream: Option<Option<Duration>>,
    /// Whether the client's connection can be kept.
    pub(super) keep_client: bool,
    /// The response may last indefinitely: events, or messages of a call.
    pub(super) is_stream: bool,
    /// Business amounts of the response, if the service has any; boxed, since most responses have none.
    pub(super) amounts: Option<Box<AmountValues>>,
}

impl Answer {
    /// Whether the body waits for the client to read; `response` holds the unread part.
    pub(super) fn waits_for_client(&self, response: &Buffer) -> bool {
        self.relay.waits_for_receiver(response)
    }

    /// Bytes of the response's body received so far.
    pub(super) fn body_bytes(&self) -> u64 {
        self.relay.moved
    }

    /// Whether any byte of the body was moved since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        self.relay.take_progress()
    }

    /// Whether the body is kept, as far as it has come: it is no stream, and not too large.
    pub(super) fn is_kept(&self) -> bool {
        !self.is_stream && self.relay.is_kept()
    }

    /// The body after its end, if all of it was kept.
    pub(super) fn take_copy(&mut self) -> Option<Vec<u8>> {
        self.relay.take_copy()
    }
}

/// Why an attempt ended without a complete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptError {
    /// The client left.
    ClientGone,
    /// The client's chunks are malformed.
    ClientBody,
    /// The endpoint did not process the request, which a client of HTTP/2 can send again.
    Refused,
    /// The client was too slow to send its body or to read its response.
    ClientSlow,
    /// There is no connection to the endpoint, so nothing was sent.
    Unconnected(ProxyError),
    /// The endpoint failed.
    Failed(ProxyError),
}

/// Progress of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Some bytes were sent.
    On,
    /// The whole body was sent.
    ToItsEnd,
}

impl<'a> Attempt<'a> {
    /// An attempt at `target` over `upstream`. The part of the body that is not in the request's text (`rest`)
    /// is uploaded as it arrives.
    #[inline(always)]
    pub(super) fn new(
        worker: &'a Worker,
        plan: &'a Plan,
        target: Target<'a>,
        mut upstream: Channel,
        reused: bool,
        rest: Option<Framing>,
    ) -> Self {
        if let Channel::ClientStream(stream) = &mut upstream
            && plan.mode.trailers
        {
            stream.keep_trailers();
        }
        let upload = rest.map(|framing| {
            let is_stream = upstream.is_stream();
            let mut relay = Relay::new(framing, framing.is_open() && !is_stream);
            // Trailers of a request are passed on only from stream to stream; and not where a version that
            // merges them into the head would find fields there that no client may send.
            let is_trusted = plan.snapshot.reserved.is_empty();
            if framing == Framing::UntilClose && is_stream && is_trusted {
                relay.pass_trailers();
            }
            // Only on a stream can an endpoint report that it did not process a request, whatever its method.
            if is_stream {
                relay.tap(Tap::new(KEPT_BYTES));
            }
            Box::new(Upload { relay, outbox: worker.blocks.take() })
        });
        Self {
            worker,
            plan,
            target,
            upstream,
            reused,
            inbox: worker.blocks.take(),
            pieces: Pieces::default(),
            sent: 0,
            flushed: false,
            upload,
            kept: None,
            cut: false,
            interim: Buffer::hollow(),
            came_interim: false,
            has_interim: false,
            switches: false,
            answered: false,
            body_bytes: 0,
        }
    }

    /// Returns the buffers to the worker.
    pub(super) fn discard(self) {
        self.worker.blocks.give(self.inbox);
        if let Some(upload) = self.upload {
            self.worker.blocks.give(upload.outbox);
        }
    }

    /// Interim responses that the client has yet to get.
    pub(super) fn interim(&self) -> &[u8] {
        self.interim.data()
    }

    /// Whether the request's body has been read from the client to its end.
    pub(super) fn request_is_read(&self) -> bool {
        self.upload.is_none() && !self.cut
    }

    /// Whether the endpoint cannot have processed the request: nothing was sent, or it refused the stream.
    pub(super) fn is_unprocessed(&self) -> bool {
        match &self.upstream {
            Channel::ClientStream(stream) => stream.is_unprocessed(),
            _ => self.sent == 0,
        }
    }

    /// Whether the endpoint refused the stream, so that the request can be sent on another.
    pub(super) fn is_refused(&self) -> bool {
        matches!(&self.upstream, Channel::ClientStream(stream) if stream.is_refused())
    }

    /// The uploaded body, if all of it was kept.
    pub(super) fn take_body(&mut self) -> Option<Vec<u8>> {
        self.kept.take()
    }

    /// Notes that the client left before the response.
    pub(super) fn doubt(&self) {
        if let Channel::ClientStream(stream) = &self.upstream
            && !self.answered
        {
            stream.doubt();
        }
    }

    /// Number of the shared connection; 0 if the attempt has a connection of its own.
    pub(super) fn connection(&self) -> u64 {
        match &self.upstream {
            Channel::ClientStream(stream) => stream.connection(),
            _ => 0,
        }
    }

    /// Notes that the endpoint did not respond in time.
    pub(super) fn suspect(&self) {
        if let Channel::ClientStream(stream) = &self.upstream {
            stream.suspect();
        }
    }

    /// The status that counts for a gRPC call with a `whole` response of status `http`; `None` if `http`
    /// counts.
    pub(super) fn grpc_status(&self, http: u16, whole: bool) -> Option<u16> {
        // Trailers of HTTP/1.1 are not examined.
        let Channel::ClientStream(stream) = &self.upstream else { return None };
        let status = stream.grpc_status();
        status.or_else(|| grpc::without_status(http).filter(|_| whole))
    }

    /// Sends the `request`'s text and reads response heads until one is to be passed on. The final head is
    /// written into `response`, in the form for the client, and what it says of the body and the connections
    /// into `answer`; no byte of it has been sent to the client yet.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        request: &Buffer,
        response: &mut Buffer,
        answer: &mut Option<Answer>,
    ) -> Poll<Result<Head, ProxyError>> {
        self.poll_send(cx, request);
        loop {
            if !self.switches {
                match ready!(self.inbox.poll_fill(cx, &mut self.upstream)) {
                    Ok(n) if n > 0 => self.answered = true,
                    _ => return Poll::Ready(Err(ProxyError::Reset)),
                }
            } else if self.upload.is_some() {
                return Poll::Pending;
            }
            self.switches = false;
            self.read_heads(request, response, answer)?;
            if answer.is_some() {
                return Poll::Ready(Ok(Head::Final));
            }
            if std::mem::take(&mut self.came_interim) {
                return Poll::Ready(Ok(Head::Interim));
            }
        }
    }

    /// Writes interim responses to the client, as far as it reads them; false if the client is gone.
    #[inline]
    pub(super) fn pass_interim(&mut self, cx: &mut Context<'_>, to: &mut Channel) -> bool {
        self.interim.is_empty() || !matches!(self.interim.poll_flush(cx, to), Poll::Ready(Err(_)))
    }

    /// Whether the response head only waits for the end of the request, because the endpoint switches
    /// protocols.
    pub(super) fn may_switch(&self) -> bool {
        self.switches && self.upload.is_none()
    }

    /// Whether all of the request's text was sent.
    pub(super) fn has_sent(&self, request: &Buffer) -> bool {
        self.sent == request.len()
    }

    /// Sends more of the request's body, of which `ahead` has arrived. `None` if nothing was sent.
    pub(super) fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Channel,
        ahead: &mut Buffer,
    ) -> Result<Option<Moved>, AttemptError> {
        let Some(Upload { relay, outbox }) = self.upload.as_deref_mut() else { return Ok(None) };
        let polled = relay.poll(cx, from, ahead, outbox, &mut self.upstream);
        self.body_bytes = relay.moved;
        match polled {
            Poll::Pending => Ok(relay.take_progress().then_some(Moved::On)),
            Poll::Ready(Ok(())) => {
                self.kept = relay.take_copy();
                self.end_upload();
                Ok(Some(Moved::ToItsEnd))
            }
            Poll::Ready(Err(RelayError::Receiver)) => {
                self.stop_upload();
                Ok(None)
            }
            Poll::Ready(Err(RelayError::Sender)) => Err(AttemptError::ClientGone),
            Poll::Ready(Err(RelayError::Malformed)) => Err(AttemptError::ClientBody),
        }
    }

    /// Whether part of the request's body is still to be uploaded.
    pub(super) fn uploads(&self) -> bool {
        self.upload.is_some()
    }

    /// Bytes of the body sent so far, if the body waits for the endpoint to read.
    pub(super) fn stall(&self) -> Option<u64> {
        let stalls = |u: &&Upload| u.relay.waits_for_receiver(&u.outbox);
        self.upload.as_deref().filter(stalls).map(|_| self.body_bytes)
    }

    /// Whether the upload waits for more bytes than `ahead` holds.
    pub(super) fn waits_for_body(&self, ahead: &Buffer) -> bool {
        let waits = |u: &Upload| ahead.is_empty() && !u.relay.waits_for_receiver(&u.outbox);
        self.upload.as_deref().is_some_and(waits)
    }

    /// Relays the body of `answer` to where it goes, after its head in `response`.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut impl MessageIo,
        response: &mut Buffer,
        answer: &mut Answer,
    ) -> Poll<Result<(), AttemptError>> {
        let relayed = answer.relay.poll(cx, &mut self.upstream, &mut self.inbox, response, to);
        relayed.map_err(|cut| match cut {
            RelayError::Sender => AttemptError::Failed(ProxyError::Reset),
            RelayError::Malformed => AttemptError::Failed(ProxyError::Protocol),
            RelayError::Receiver => AttemptError::ClientGone,
        })
    }

    /// The connection, if it can be used again after `answer`, and how long the endpoint keeps it.
    #[inline(always)]
    pub(super) fn into_reusable(self, answer: &Answer) -> Option<(Transport, Option<Duration>)> {
        // Unrequested bytes after the response show that the connection is out of step.
        let clean = self.request_is_read() && self.inbox.is_empty();
        self.worker.blocks.give(self.inbox);
        let offered = answer.keep_upstream?;
        match self.upstream {
            Channel::Wire(upstream) if clean => Some((upstream, offered)),
            _ => None,
        }
    }

    /// The endpoint's side, and the unread bytes from it, after the protocol was switched.
    pub(super) fn into_parts(self) -> (Channel, Buffer) {
        (self.upstream, self.inbox)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, request: &Buffer) {
        while !self.cut && self.sent < request.len() {
            let rest = &request.data()[self.sent..];
            match Pin::new(&mut self.upstream).poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => self.sent += n,
                Poll::Pending => return,
                // The endpoint may have responded before it closed; reading will show that.
                Poll::Ready(_) => self.stop_upload(),
            }
        }
        if !self.flushed && !self.cut {
            // The body that follows ends the message.
            let flushed = match self.upload {
                None => self.upstream.poll_end(cx),
                Some(_) => Pin::new(&mut self.upstream).poll_flush(cx),
            };
            match flushed {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Pending => {}
                Poll::Ready(Err(_)) => self.stop_upload(),
            }
        }
    }

    /// Stops sending: the endpoint does not read the rest of the request.
    fn stop_upload(&mut self) {
        self.cut = true;
        self.end_upload();
    }

    fn end_upload(&mut self) {
        if let Some(upload) = self.upload.take() {
            self.worker.blocks.give(upload.outbox);
        }
    }
}
