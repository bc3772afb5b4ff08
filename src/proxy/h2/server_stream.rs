//! A stream on which a client sends a request: reading it returns the request, and the response is
//! written to it.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, ext::Protocol, server::SendResponse};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::ReadBuf;

use super::{
    flow::{Incoming, Outgoing, broken},
    text,
};
use crate::proxy::websocket;

/// A client's side of a stream.
pub(in crate::proxy) struct ServerStream {
    /// The unread part of the request's head as text.
    head: Bytes,
    incoming: Incoming,
    /// The reader does not know the body's length, so its end must be returned once as an empty read.
    reports_end: bool,
    respond: SendResponse<Bytes>,
    answer: Answer,
    trailers: Option<HeaderMap>,
    /// The `Sec-WebSocket-Accept` that the endpoint must return if the stream opens a WebSocket;
    /// the key was made here.
    accept: Option<String>,
}

enum Answer {
    /// No head was written yet.
    Awaited,
    /// A head that is held back, since the message may end with it.
    Held(Response<()>),
    /// The head was sent.
    Begun(Outgoing),
}

impl ServerStream {
    pub(super) fn new(request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Self {
        let (head, body) = request.into_parts();
        let protocol = head.extensions.get::<Protocol>();
        let asks_websocket = head.method == Method::CONNECT
            && protocol.is_some_and(|p| p.as_str().eq_ignore_ascii_case("websocket"));
        let key = asks_websocket.then(|| websocket::key(fastrand::u128(..)));
        let incoming = Incoming::new(body);
        let text = text::from_request(&head, incoming.is_ended(), key.as_deref());
        let lengthless = !head.headers.contains_key(http::header::CONTENT_LENGTH);
        Self {
            head: text.into(),
            reports_end: !incoming.is_ended() && lengthless,
            incoming,
            respond,
            answer: Answer::Awaited,
            trailers: None,
            accept: key.map(|key| websocket::accept(key.as_bytes())),
        }
    }

    /// Resets the stream, so that the client cannot take a truncated response for a complete one.
    pub(in crate::proxy) fn reset(&mut self) {
        match &mut self.answer {
            Answer::Begun(outgoing) if outgoing.is_ended() => {}
            Answer::Begun(outgoing) => outgoing.reset(Reason::INTERNAL_ERROR),
            _ => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Refuses the stream: the request was not processed, so the client may repeat it whatever its
    /// method (RFC 9113 section 8.7).
    pub(in crate::proxy) fn refuse(&mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// Ready once the client has ended its request, or the stream. Bytes that still arrive are
    /// dropped.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut sink = [0; 256];
        while !self.incoming.is_ended() {
            let mut sink = ReadBuf::new(&mut sink);
            if ready!(self.incoming.poll_read(cx, &mut sink)).is_err() {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Ready once the client has reset the stream; reads nothing. Before the response begins.
    pub(in crate::proxy) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.respond.poll_reset(cx).map(drop)
    }

    /// Takes the received bytes of the request from the crate although nobody reads them.
    pub(in crate::proxy) fn read_ahead(&mut self, cx: &mut Context<'_>) {
        self.incoming.read_ahead(cx);
    }

    /// Whether the client has ended its request.
    pub(in crate::proxy) fn has_ended(&self) -> bool {
        self.incoming.is_ended()
    }

    /// Has the end of the request returned as an empty read, even if its length was announced.
    pub(in crate::proxy) fn report_end(&mut self) {
        self.reports_end = true;
    }

    pub(in crate::proxy) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.incoming.take_trailers()
    }

    pub(in crate::proxy) fn put_trailers(&mut self, trailers: HeaderMap) {
        self.trailers = Some(trailers);
    }

    pub(in crate::proxy) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.head.is_empty() {
            let n = self.head.len().min(into.remaining());
            into.put_slice(&self.head.split_to(n));
            return Poll::Ready(Ok(()));
        }
        if !self.incoming.is_ended() {
            let before = into.filled().len();
            ready!(self.incoming.poll_read(cx, into)).map_err(broken)?;
            if into.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        if std::mem::take(&mut self.reports_end) {
            return Poll::Ready(Ok(()));
        }
        // The request is complete: ready only if the client resets the stream.
        let left = match &mut self.answer {
            Answer::Begun(outgoing) => outgoing.poll_reset(cx),
            _ => self.respond.poll_reset(cx).map(drop),
        };
        left.map(|()| Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Takes the heads of a response, each complete, then its body.
    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Answer::Awaited = self.answer {
            return Poll::Ready(self.take_head(data));
        }
        self.begin(false)?;
        match &mut self.answer {
            Answer::Begun(outgoing) => outgoing.poll_write(cx, data),
            _ => Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
        }
    }

    pub(in crate::proxy) fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.begin(false)?;
        Poll::Ready(match &mut self.answer {
            Answer::Begun(outgoing) => outgoing.flush(),
            _ => Ok(()),
        })
    }

    pub(in crate::proxy) fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.begin(self.trailers.is_none())?;
        Poll::Ready(match &mut self.answer {
            Answer::Begun(outgoing) => outgoing.end(self.trailers.take()),
            _ => Ok(()),
        })
    }

    fn take_head(&mut self, data: &[u8]) -> io::Result<usize> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let parsed = text::to_response(data).map_err(|_| invalid())?;
        let (mut response, length) = parsed.ok_or_else(invalid)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let accept = self.accept.as_ref().ok_or_else(invalid)?;
            let accepted = response.headers_mut().remove("sec-websocket-accept");
            if accepted.is_none_or(|value| value.as_bytes() != accept.as_bytes()) {
                return Err(invalid());
            }
            // RFC 8441 section 5: on a stream the switch is an ordinary success, and DATA follows.
            *response.status_mut() = StatusCode::OK;
            self.reports_end = true;
        }
        if response.status().is_informational() {
            self.respond.send_informational(response).map_err(broken)?;
        } else {
            self.answer = Answer::Held(response);
        }
        Ok(length)
    }

    /// Sends the head if it is held back.
    fn begin(&mut self, ended: bool) -> io::Result<()> {
        if let Answer::Held(response) = &mut self.answer {
            let response = std::mem::take(response);
            let stream = self.respond.send_response(response, ended).map_err(broken)?;
            self.answer = Answer::Begun(Outgoing::new(stream, ended));
        }
        Ok(())
    }
}
