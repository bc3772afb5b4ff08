//! The two halves of a stream: bytes in and bytes out, within the windows of RFC 9113 section 5.2.
//!
//! A window opens again as bytes are taken out here, not as they arrive, so a slow reader at one end
//! slows the writer at the other. What was sent into an open window is taken over all the same, and
//! joined: many small frames that nobody reads would cost far more than the window allows.
//!
//! The last bytes written are held back until it is known whether more follow: then a small message and
//! its end leave in one frame.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use tokio::io::ReadBuf;

/// Bytes that come in.
pub(super) struct Incoming {
    stream: RecvStream,
    chunk: Bytes,
    /// What came behind the chunk while nobody read.
    backlog: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self { stream, chunk: Bytes::new(), backlog: BytesMut::new(), trailers: None, ended }
    }

    /// Whether all has been read.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Reads what is there; nothing is the end, and trailers are known then. Frames that came together are
    /// read together, so that many small ones do not go on as many.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), h2::Error>> {
        let mut read = 0;
        while into.remaining() > 0 && !self.ended {
            if self.chunk.is_empty() && !self.backlog.is_empty() {
                self.chunk = self.backlog.split().freeze();
            }
            if self.chunk.is_empty() {
                match self.stream.poll_data(cx) {
                    Poll::Ready(Some(Ok(chunk))) => self.chunk = chunk,
                    // Told again next time.
                    _ if read > 0 => break,
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => {
                        self.trailers = ready!(self.stream.poll_trailers(cx))?;
                        self.ended = true;
                    }
                }
            }
            let n = self.chunk.len().min(into.remaining());
            into.put_slice(&self.chunk[..n]);
            self.chunk.advance(n);
            read += n;
        }
        if read > 0 {
            self.stream.flow_control().release_capacity(read)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes over what is there although nobody reads it. The window stays as it is.
    pub(super) fn soak(&mut self, cx: &mut Context<'_>) {
        while !self.ended
            && let Poll::Ready(Some(Ok(chunk))) = self.stream.poll_data(cx)
        {
            self.backlog.extend_from_slice(&chunk);
        }
    }
}

/// Bytes that go out.
pub(super) struct Outgoing {
    stream: SendStream<Bytes>,
    held: Bytes,
    ended: bool,
}

impl Outgoing {
    /// A stream whose head was sent, and with it the end of the message if `ended`.
    pub(super) fn new(stream: SendStream<Bytes>, ended: bool) -> Self {
        Self { stream, held: Bytes::new(), ended }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.flush()?;
        self.stream.reserve_capacity(data.len());
        let mut room = self.stream.capacity();
        while room == 0 {
            room = match ready!(self.stream.poll_capacity(cx)) {
                Some(room) => room.map_err(broken)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
        }
        let n = room.min(data.len());
        self.held = Bytes::copy_from_slice(&data[..n]);
        Poll::Ready(Ok(n))
    }

    /// Lets go of what is held back.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        self.stream.send_data(std::mem::take(&mut self.held), false).map_err(broken)
    }

    /// Ends the message, with `trailers` if there are any.
    pub(super) fn end(&mut self, trailers: Option<HeaderMap>) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        match trailers {
            Some(trailers) => {
                self.flush()?;
                self.stream.send_trailers(trailers).map_err(broken)
            }
            None => self.stream.send_data(std::mem::take(&mut self.held), true).map_err(broken),
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Ready once the peer has reset the stream, or left.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }
}

/// An error of the connection or the stream, as reading or writing tells it.
pub(super) fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
