//! What carries a request: an HTTP/1.1 connection, or one stream of a shared HTTP/2 connection.
//!
//! A stream of HTTP/2 is read and written as if it were an HTTP/1.1 connection with a single
//! message: heads have the one canonical form, bodies are passed as they are. So every message is
//! interpreted, rejected and rewritten in one place (`head.rs`, `rewrite.rs`), whatever the
//! protocols on both sides, and no second interpretation can differ. [`MessageIo`] has the
//! differences: a body on a stream ends by itself, without a length or chunks, and trailers may
//! follow it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    body::Framing,
    h2::{ClientStream, ServerStream},
};
use crate::tls::Transport;

/// One side of a relayed message: the client's or the endpoint's.
pub(super) trait MessageIo: AsyncRead + AsyncWrite + Unpin {
    /// Writes what is still buffered, and ends the message.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    /// Takes the trailers of the body, once its end was read.
    fn take_trailers(&mut self) -> Option<HeaderMap> {
        None
    }

    /// Sends `trailers` after the body.
    fn put_trailers(&mut self, _trailers: HeaderMap) {}

    /// Keeps reading into memory, as far as allowed, while the receiver does not read.
    fn read_ahead(&mut self, _cx: &mut Context<'_>) {}
}

/// What is sent nowhere.
impl MessageIo for tokio::io::Empty {}

/// A connection of its own, or a stream.
pub(super) enum Channel {
    /// An HTTP/1.1 connection.
    Wire(Transport),
    /// A stream on which a client sends a request.
    ServerStream(Box<ServerStream>),
    /// A stream on which a request is sent to an endpoint.
    ClientStream(Box<ClientStream>),
}

impl Channel {
    /// Whether this is a stream, on which a body ends by itself.
    pub(super) fn is_stream(&self) -> bool {
        !matches!(self, Self::Wire(_))
    }

    /// How a body ends here that is framed so: on a stream there are no chunks, it ends with the stream.
    #[inline]
    pub(super) fn framing(&self, framing: Framing) -> Framing {
        match framing {
            Framing::Chunked if self.is_stream() => Framing::UntilClose,
            framing => framing,
        }
    }

    /// Whether all of a message has come whose length was announced: on a stream more than that may follow, and then it is
    /// malformed (RFC 9113 section 8.1.1).
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::ServerStream(stream) => stream.has_ended(),
            Self::Wire(_) | Self::ClientStream(_) => true,
        }
    }

    /// Aborts the channel so that the peer cannot take a truncated message for a complete one.
    pub(super) fn break_off(&mut self) {
        match self {
            // Fails only if the connection has already ended.
            Self::Wire(stream) => {
                stream.tear();
                let _ = socket2::SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO));
            }
            Self::ServerStream(stream) => stream.reset(),
            // Dropping it resets the stream.
            Self::ClientStream(_) => {}
        }
    }
}

impl MessageIo for Channel {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Wire(stream) => Pin::new(stream).poll_flush(cx),
            Self::ServerStream(stream) => stream.poll_end(cx),
            Self::ClientStream(stream) => stream.poll_end(cx),
        }
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        match self {
            Self::Wire(_) => None,
            Self::ServerStream(stream) => stream.take_trailers(),
            Self::ClientStream(stream) => stream.take_trailers(),
        }
    }

    fn put_trailers(&mut self, trailers: HeaderMap) {
        match self {
            // They follow the last chunk (`relay.rs`).
            Self::Wire(_) => {}
            Self::ServerStream(stream) => stream.put_trailers(trailers),
            Self::ClientStream(stream) => stream.put_trailers(trailers),
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        match self {
            // The kernel's buffers do not grow.
            Self::Wire(_) => {}
            Self::ServerStream(stream) => stream.read_ahead(cx),
            Self::ClientStream(stream) => stream.read_ahead(cx),
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Wire(stream) => Pin::new(stream).poll_read(cx, into),
            Self::ServerStream(stream) => stream.poll_read(cx, into),
            Self::ClientStream(stream) => stream.poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Wire(stream) => Pin::new(stream).poll_write(cx, data),
            Self::ServerStream(stream) => stream.poll_write(cx, data),
            Self::ClientStream(stream) => stream.poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Wire(stream) => Pin::new(stream).poll_flush(cx),
            Self::ServerStream(stream) => stream.poll_flush(cx),
            Self::ClientStream(stream) => stream.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Wire(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::ServerStream(stream) => stream.poll_end(cx),
            Self::ClientStream(stream) => stream.poll_end(cx),
        }
    }
}
