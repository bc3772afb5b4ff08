//! A stream to an endpoint: the request is written to it, and reading it returns the response.

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
    permit: StreamPermit,
    scheme: &'static str,
    /// The trailers of the response are passed to the client.
    keeps_trailers: bool,
    request: Ask,
    answer: Answer,
    /// The unread part of the response's heads as text.
    heads: Bytes,
    trailers: Option<HeaderMap>,
    key: Option<HeaderValue>,
    grpc_status: Option<u16>,
    unprocessed: bool,
    /// The request could not be sent.
    failed: bool,
    /// HTTP/2 has no form for the request, so it cannot be sent on any connection.
    unsendable: bool,
}

enum Ask {
    /// No head was written yet.
    Awaited,
    /// A head that is held back, since the message may end with it.
    Held(Request<()>),
    /// The head was sent.
    Begun(Outgoing),
}

enum Answer {
    /// The request was not sent.
    Unasked,
    /// The request was sent.
    Asked(ResponseFuture),
    /// The head of the response arrived.
    Begun(Incoming),
}

impl ClientStream {
    pub(in crate::proxy) fn new(permit: StreamPermit, encrypted: bool) -> Self {
        Self {
            permit,
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

    /// Sends `TE: trailers` with the request, which gRPC servers require.
    pub(in crate::proxy) fn keep_trailers(&mut self) {
        self.keeps_trailers = true;
    }

    /// Whether the endpoint cannot have processed the request: it was never sent, or the endpoint
    /// refused it.
    pub(in crate::proxy) fn is_unprocessed(&self) -> bool {
        self.unprocessed
    }

    /// Whether the request was not processed and can be repeated on another connection.
    pub(in crate::proxy) fn is_refused(&self) -> bool {
        self.unprocessed && !self.unsendable
    }

    /// Whether the response has ended: after the head alone, it has no body.
    pub(in crate::proxy) fn is_ended(&self) -> bool {
        matches!(&self.answer, Answer::Begun(body) if body.is_ended())
    }

    /// The `grpc-status` of the response, once it arrived: in the trailers, or in the head of a
    /// response without a body.
    pub(in crate::proxy) fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }

    /// Whether the stream can switch to `protocol` (RFC 8441).
    pub(in crate::proxy) fn carries(&self, protocol: &str) -> bool {
        protocol.eq_ignore_ascii_case("websocket")
            && self.permit.send.is_extended_connect_protocol_enabled()
    }

    /// Number of the stream's connection.
    pub(in crate::proxy) fn connection(&self) -> u64 {
        self.permit.connection()
    }

    /// Sends no further request on the stream's connection: the endpoint did not respond in time,
    /// and may be gone.
    pub(in crate::proxy) fn suspect(&self) {
        self.permit.retire();
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
                        // After messages, clients expect the status in the trailers.
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
        self.permit.answered();
        self.grpc_status = grpc::status_in(&head.headers);
        let accept = match &self.key {
            Some(key) if head.status.is_success() => Some(websocket::accept(key.as_bytes())),
            _ => None,
        };
        self.heads = text::from_response(&head, accept.as_deref()).into();
        self.answer = Answer::Begun(Incoming::new(body));
    }

    /// Takes the complete head of a request, then its body.
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
                self.permit.set_waiting(written.is_pending());
                written
            }
            _ => Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
        }
    }

    /// Checks whether the endpoint is alive, since a client left the request unanswered.
    pub(in crate::proxy) fn doubt(&self) {
        self.permit.doubt();
    }

    /// Takes the received bytes of the response from the crate although nobody reads them.
    pub(in crate::proxy) fn read_ahead(&mut self, cx: &mut Context<'_>) {
        if let Answer::Begun(body) = &mut self.answer {
            body.read_ahead(cx);
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
            // The stream stays open for the other protocol.
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
        let ready = ready!(self.permit.send.poll_ready(cx));
        let request = std::mem::take(request);
        // Makes reading the response fail, unless the request is sent below.
        self.failed = true;
        ready.map_err(|error| self.blame(error))?;
        if self.key.is_some() && !self.permit.send.is_extended_connect_protocol_enabled() {
            self.unsendable = true;
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        }
        let sent = self.permit.send.send_request(request, ended);
        let (response, stream) = sent.map_err(|error| self.blame(error))?;
        self.permit.asked();
        self.request = Ask::Begun(Outgoing::new(stream, ended));
        self.answer = Answer::Asked(response);
        (self.unprocessed, self.failed) = (false, false);
        Poll::Ready(Ok(()))
    }

    /// Records whether `error` proves that the endpoint did not process the request, and converts
    /// it. It does if the endpoint refused the stream, or sent GOAWAY with a last stream below this
    /// one, whatever the reason (RFC 9113 sections 6.8 and 8.7). The crate reports GOAWAY to no
    /// other stream.
    fn blame(&mut self, error: h2::Error) -> io::Error {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        if !error.is_reset() {
            self.permit.retire();
        }
        let never_sent = !matches!(self.request, Ask::Begun(_));
        self.unprocessed = never_sent || refused || (error.is_go_away() && error.is_remote());
        broken(error)
    }
}
