//! A stream on which an endpoint is asked: what is written to it is the request, and it reads as the
//! endpoint's answer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, client::ResponseFuture};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::ReadBuf;

use super::{
    flow::{Incoming, Outgoing, broken},
    stream_permit::StreamPermit,
    text,
};
use crate::proxy::{grpc, websocket};

/// An endpoint's side of a stream.
pub(in crate::proxy) struct ClientStream {
    lease: StreamPermit,
    scheme: &'static str,
    /// Who asks gets the trailers of the answer.
    keeps_trailers: bool,
    request: Ask,
    answer: Answer,
    /// Heads of the answer as text, as far as they were not read.
    heads: Bytes,
    trailers: Option<HeaderMap>,
    key: Option<HeaderValue>,
    grpc_status: Option<u16>,
    unprocessed: bool,
    /// The request could not be sent.
    failed: bool,
    /// Nor could it on any other connection: HTTP/2 has no form for it.
    unsendable: bool,
}

enum Ask {
    /// No head was written yet.
    Awaited,
    /// A head that was not sent, since it may be all there is.
    Held(Request<()>),
    /// The head was sent.
    Begun(Outgoing),
}

enum Answer {
    /// The request was not sent.
    Unasked,
    /// The endpoint has the request.
    Asked(ResponseFuture),
    /// Its head came.
    Begun(Incoming),
}

impl ClientStream {
    pub(in crate::proxy) fn new(lease: StreamPermit, encrypted: bool) -> Self {
        Self {
            lease,
            scheme: if encrypted { "https" } else { "http" },
            keeps_trailers: false,
            request: Ask::Awaited,
            answer: Answer::Unasked,
            heads: Bytes::new(),
            trailers: None,
            key: None,
            grpc_status: None,
            unprocessed: true,
            failed: false,
            unsendable: false,
        }
    }

    /// Tells the endpoint, with the request, that trailers of its answer are not lost. Servers of gRPC
    /// look for that.
    pub(in crate::proxy) fn keep_trailers(&mut self) {
        self.keeps_trailers = true;
    }

    /// Whether the endpoint cannot have processed the request: it was never sent, or the endpoint said so.
    pub(in crate::proxy) fn is_unprocessed(&self) -> bool {
        self.unprocessed
    }

    /// Whether it was not processed and could be on another connection.
    pub(in crate::proxy) fn is_refused(&self) -> bool {
        self.unprocessed && !self.unsendable
    }

    /// Whether the answer came with its end: no byte of a body follows its head.
    pub(in crate::proxy) fn is_ended(&self) -> bool {
        matches!(&self.answer, Answer::Begun(body) if body.is_ended())
    }

    /// The `grpc-status` of the answer, once it came: behind the body, or in the head of one without a body.
    pub(in crate::proxy) fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }

    /// Whether the stream can go on in `protocol` (RFC 8441).
    pub(in crate::proxy) fn carries(&self, protocol: &str) -> bool {
        protocol.eq_ignore_ascii_case("websocket")
            && self.lease.send.is_extended_connect_protocol_enabled()
    }

    /// Number of the connection below.
    pub(in crate::proxy) fn connection(&self) -> u64 {
        self.lease.connection()
    }

    /// Sends no further request on the connection below: it did not answer this one in time, and may be
    /// one whose other end is gone.
    pub(in crate::proxy) fn suspect(&self) {
        self.lease.retire();
    }

    pub(in crate::proxy) fn take_trailers(&mut self) -> Option<HeaderMap> {
        let Answer::Begun(body) = &mut self.answer else { return None };
        let trailers = body.take_trailers()?;
        self.grpc_status = grpc::status_in(&trailers);
        Some(trailers)
    }

    pub(in crate::proxy) fn put_trailers(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }

    pub(in crate::proxy) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.heads.is_empty() {
                let n = self.heads.len().min(into.remaining());
                into.put_slice(&self.heads.split_to(n));
                return Poll::Ready(Ok(()));
            }
            match &mut self.answer {
                Answer::Unasked if self.failed => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Answer::Unasked => return Poll::Pending,
                Answer::Asked(response) => {
                    if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
                        let interim = interim.map_err(|error| self.blame(error))?;
                        let (head, ()) = interim.into_parts();
                        self.heads = text::from_response(&head, None).into();
                        continue;
                    }
                    let answered = ready!(Pin::new(response).poll(cx));
                    let answered = answered.map_err(|error| self.blame(error))?;
                    self.take_answer(answered);
                }
                Answer::Begun(body) => {
                    let before = into.filled().len();
                    let read = body.poll_read(cx, into).map_err(broken);
                    if into.filled().len() > before {
                        // Clients look for one behind the messages then.
                        self.grpc_status = None;
                    }
                    return read;
                }
            }
        }
    }

    fn take_answer(&mut self, answered: Response<h2::RecvStream>) {
        let (head, body) = answered.into_parts();
        self.unprocessed = false;
        self.lease.answered();
        self.grpc_status = grpc::status_in(&head.headers);
        let accept = match &self.key {
            Some(key) if head.status.is_success() => Some(websocket::accept(key.as_bytes())),
            _ => None,
        };
        self.heads = text::from_response(&head, accept.as_deref()).into();
        self.answer = Answer::Begun(Incoming::new(body));
    }

    /// Takes the head of a request, whole, then its body.
    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Ask::Awaited = self.request {
            (self.failed, self.unsendable) = (true, true);
            let unsendable = |_| io::Error::from(io::ErrorKind::InvalidData);
            let (found, length) =
                text::to_request(data, self.scheme, self.keeps_trailers).map_err(unsendable)?;
            (self.failed, self.unsendable) = (false, false);
            self.request = Ask::Held(found.request);
            self.key = found.key;
            return Poll::Ready(Ok(length));
        }
        ready!(self.poll_begin(cx, false))?;
        match &mut self.request {
            Ask::Begun(outgoing) => {
                let written = outgoing.poll_write(cx, data);
                self.lease.set_waiting(written.is_pending());
                written
            }
            _ => Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
        }
    }

    /// Asks whether the endpoint is still there: a client left the request unanswered.
    pub(in crate::proxy) fn doubt(&self) {
        self.lease.doubt();
    }

    /// Takes over what came of the answer although nobody reads it.
    pub(in crate::proxy) fn soak(&mut self, cx: &mut Context<'_>) {
        if let Answer::Begun(body) = &mut self.answer {
            body.soak(cx);
        }
    }

    pub(in crate::proxy) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_begin(cx, false))?;
        Poll::Ready(match &mut self.request {
            Ask::Begun(outgoing) => outgoing.flush(),
            _ => Ok(()),
        })
    }

    pub(in crate::proxy) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.key.is_some() && !matches!(self.answer, Answer::Begun(_)) {
            // What asks for another protocol goes on in it.
            return self.poll_flush(cx);
        }
        ready!(self.poll_begin(cx, self.trailers.is_none()))?;
        Poll::Ready(match &mut self.request {
            Ask::Begun(outgoing) => outgoing.end(self.trailers.take()),
            _ => Ok(()),
        })
    }

    fn poll_begin(&mut self, cx: &mut Context<'_>, ended: bool) -> Poll<io::Result<()>> {
        let Ask::Held(request) = &mut self.request else { return Poll::Ready(Ok(())) };
        let ready = ready!(self.lease.send.poll_ready(cx));
        let request = std::mem::take(request);
        // Read by whoever waits for the answer, unless it is sent.
        self.failed = true;
        ready.map_err(|error| self.blame(error))?;
        if self.key.is_some() && !self.lease.send.is_extended_connect_protocol_enabled() {
            self.unsendable = true;
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        }
        let sent = self.lease.send.send_request(request, ended);
        let (response, stream) = sent.map_err(|error| self.blame(error))?;
        self.lease.asked();
        self.request = Ask::Begun(Outgoing::new(stream, ended));
        self.answer = Answer::Asked(response);
        (self.unprocessed, self.failed) = (false, false);
        Poll::Ready(Ok(()))
    }

    /// Why a stream ended, and whether that proves that the endpoint did not process the request: it refused
    /// the stream, or it sent GOAWAY and this stream is above the last one that it processed, whatever the
    /// reason (RFC 9113 sections 6.8 and 8.7). The crate reports GOAWAY to no other stream.
    fn blame(&mut self, error: h2::Error) -> io::Error {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        if !error.is_reset() {
            self.lease.retire();
        }
        let never_sent = !matches!(self.request, Ask::Begun(_));
        self.unprocessed = never_sent || refused || (error.is_go_away() && error.is_remote());
        broken(error)
    }
}
