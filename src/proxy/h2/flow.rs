//! The two halves of a stream: received and sent bytes, within the windows of RFC 9113 section 5.2.
//!
//! A window opens again when bytes are taken out here, not when they arrive, so a slow reader at
//! one end slows the writer at the other. While nobody reads, bytes that fit into the open window
//! are taken from the crate and joined: many small unread frames would cost far more memory than
//! the window allows.
//!
//! The last bytes written are held back until it is known whether more follow, so that a small
//! message and its end leave in one frame.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use tokio::io::ReadBuf;

/// Received bytes.
pub(super) struct Incoming {
    stream: RecvStream,
    chunk: Bytes,
    /// Bytes after the chunk that arrived while nobody read.
    backlog: BytesMut,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl Incoming {
    pub(super) fn new(stream: RecvStream) -> Self {
        let ended = stream.is_end_stream();
        Self { stream, chunk: Bytes::new(), backlog: BytesMut::new(), trailers: None, ended }
    }

    /// Whether everything has been read.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Reads the bytes that have arrived; no bytes mean the end, when the trailers are known, too.
    /// Frames that arrived together are read together, so that many small ones are not forwarded
    /// one by one.
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
                    // The next poll returns it again.
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

    /// Takes the bytes that have arrived from the crate although nobody reads them. The window does
    /// not open.
    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while !self.ended
            && let Poll::Ready(Some(Ok(chunk))) = self.stream.poll_data(cx)
        {
            self.backlog.extend_from_slice(&chunk);
        }
    }
}

/// Sent bytes.
pub(super) struct Outgoing {
    stream: SendStream<Bytes>,
    held: Bytes,
    ended: bool,
}

impl Outgoing {
    /// Creates the half of a stream whose head was sent, with the end of the message if `ended`.
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

    /// Sends the bytes that are held back.
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

/// Converts an error of the connection or the stream into one of reading or writing.
pub(super) fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
