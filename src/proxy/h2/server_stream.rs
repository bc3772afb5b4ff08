//! A stream on which a client asks: it reads as the client's request, and what is written to it is the
//! answer.

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
    /// The head of the request as text, as far as it was not read.
    head: Bytes,
    incoming: Incoming,
    /// The end of the body was not told by a length, so it is told by the end of the stream, once.
    tells_end: bool,
    respond: SendResponse<Bytes>,
    answer: Answer,
    trailers: Option<HeaderMap>,
    /// What the endpoint must accept if the stream asks for a WebSocket; the key was made here.
    accept: Option<String>,
}

enum Answer {
    /// No head was written yet.
    Awaited,
    /// A head that was not sent, since it may be all there is.
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
            tells_end: !incoming.is_ended() && lengthless,
            incoming,
            respond,
            answer: Answer::Awaited,
            trailers: None,
            accept: key.map(|key| websocket::accept(key.as_bytes())),
        }
    }

    /// Breaks the stream off, so that the client cannot take a cut answer for a whole one.
    pub(in crate::proxy) fn reset(&mut self) {
        match &mut self.answer {
            Answer::Begun(outgoing) if outgoing.is_ended() => {}
            Answer::Begun(outgoing) => outgoing.reset(Reason::INTERNAL_ERROR),
            _ => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Tells the client that nothing was done of its request, so that it may send it again whatever its
    /// method (RFC 9113 section 8.7).
    pub(in crate::proxy) fn refuse(&mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    /// Ready once the client has ended its request, or the stream. What it still sends is dropped.
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

    /// Takes over what came of the request although nobody reads it.
    pub(in crate::proxy) fn soak(&mut self, cx: &mut Context<'_>) {
        self.incoming.soak(cx);
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
        if std::mem::take(&mut self.tells_end) {
            return Poll::Ready(Ok(()));
        }
        // A client that has asked in full stays until it is answered, or breaks off.
        let left = match &mut self.answer {
            Answer::Begun(outgoing) => outgoing.poll_reset(cx),
            _ => self.respond.poll_reset(cx).map(drop),
        };
        left.map(|()| Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Takes the heads of an answer, each whole, then its body.
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
            // RFC 8441 section 5: on a stream it is an ordinary success, and DATA follows.
            *response.status_mut() = StatusCode::OK;
            self.tells_end = true;
        }
        if response.status().is_informational() {
            self.respond.send_informational(response).map_err(broken)?;
        } else {
            self.answer = Answer::Held(response);
        }
        Ok(length)
    }

    /// Sends the head if it was held back.
    fn begin(&mut self, ended: bool) -> io::Result<()> {
        if let Answer::Held(response) = &mut self.answer {
            let response = std::mem::take(response);
            let stream = self.respond.send_response(response, ended).map_err(broken)?;
            self.answer = Answer::Begun(Outgoing::new(stream, ended));
        }
        Ok(())
    }
}
