//! What a request travels on: a connection of its own, or one stream of a connection that is shared.
//!
//! A stream of HTTP/2 is read and written as if it were an HTTP/1.1 connection with a single message on
//! it: its head comes and goes in the one canonical form, its body as it is. So every message is
//! understood, refused and written anew in one place (`head.rs`, `rewrite.rs`), whatever it arrived on
//! and leaves on, and there is no second reading of it that could differ. What the two kinds of link do
//! not share stands in [`MessageIo`]: a body on a stream ends by itself, without a length or chunks, and
//! fields may follow it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::h2::{ClientStream, ServerStream};
use crate::tls::Transport;

/// One side of an exchange.
pub(super) trait MessageIo: AsyncRead + AsyncWrite + Unpin {
    /// Writes what is held back, and tells the peer that the message ends here.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    /// Fields that followed the body read, once its end was.
    fn take_trailers(&mut self) -> Option<HeaderMap> {
        None
    }

    /// Has `trailers` follow the body written.
    fn put_trailers(&mut self, _trailers: HeaderMap) {}

    /// The receiver of what is read here does not read.
    fn soak(&mut self, _cx: &mut Context<'_>) {}
}

/// A connection of its own, or a stream.
pub(super) enum Channel {
    /// An HTTP/1.1 connection.
    Wire(Transport),
    /// A stream on which a client asks.
    ServerStream(Box<ServerStream>),
    /// A stream on which an endpoint is asked.
    ClientStream(Box<ClientStream>),
}

impl Channel {
    /// Whether it is a stream, on which a body ends by itself.
    pub(super) fn is_stream(&self) -> bool {
        !matches!(self, Self::Wire(_))
    }

    /// Ends it so that the other side cannot take a cut message for a whole one.
    pub(super) fn break_off(&mut self) {
        match self {
            // Fails only on a socket that is already gone.
            Self::Wire(stream) => {
                stream.tear();
                let _ = socket2::SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO));
            }
            Self::ServerStream(stream) => stream.reset(),
            // Dropped, it is broken off.
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

    fn soak(&mut self, cx: &mut Context<'_>) {
        match self {
            // The kernel's buffers do not grow.
            Self::Wire(_) => {}
            Self::ServerStream(stream) => stream.soak(cx),
            Self::ClientStream(stream) => stream.soak(cx),
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
