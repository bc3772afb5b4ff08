//! Relays one body from one connection to another, a block at a time.
//!
//! Nothing is read while bytes wait to be written, so a slow receiver slows the sender down (back-pressure),
//! and a body of any size needs two blocks. Bytes are copied only where that saves a system call: a small body
//! is sent in the same write as the head before it.

use std::{
    io::Write,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::HeaderMap;

use super::{
    body::{Decoder, Framing},
    buffer::Buffer,
    channel::MessageIo,
    tap::Tap,
    trailers,
};

/// Room for the size line and the end of a chunk.
const CHUNK_FRAMING_BYTES: usize = 24;

/// The state of a body that is being relayed.
#[derive(Debug)]
pub(super) struct Relay {
    decoder: Decoder,
    /// Whether the body is sent in chunks.
    chunked: bool,
    /// Bytes at the front of the inbox that are written without copying.
    direct: usize,
    finished: bool,
    /// Bytes of the body received so far.
    pub(super) moved: u64,
    progressed: bool,
    /// Whether the receiver takes trailers; and the trailers received, if it gets chunks.
    trailers: Trailers,
    /// Keeps a copy of the body.
    tap: Option<Box<Tap>>,
}

/// The handling of trailers.
#[derive(Debug)]
enum Trailers {
    Dropped,
    Passed,
    Behind(Box<HeaderMap>),
}

/// Why a body was not relayed completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayError {
    /// The sender failed or left before the end.
    Sender,
    /// The receiver failed or left.
    Receiver,
    /// The sender's chunks are malformed.
    Malformed,
}

impl Relay {
    pub(super) fn new(framing: Framing, chunked: bool) -> Self {
        let decoder = Decoder::new(framing);
        // An absent body has no last chunk either.
        let (finished, chunked) = match framing {
            Framing::Length(0) => (true, false),
            _ => (false, chunked),
        };
        Self {
            decoder,
            chunked,
            direct: 0,
            finished,
            moved: 0,
            progressed: false,
            trailers: Trailers::Dropped,
            tap: None,
        }
    }

    /// Lets `tap` keep a copy of the body.
    pub(super) fn tap(&mut self, tap: Tap) {
        self.tap = Some(Box::new(tap));
    }

    /// Whether the body is kept, as far as it has come.
    pub(super) fn is_kept(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.is_whole())
    }

    /// The copy of the body after its end, if the tap could keep all of it.
    pub(super) fn take_copy(&mut self) -> Option<Vec<u8>> {
        self.tap.take()?.into_body()
    }

    /// Passes trailers on.
    pub(super) fn pass_trailers(&mut self) {
        self.decoder.keep_trailers();
        self.trailers = Trailers::Passed;
    }

    /// Whether any byte was moved since the last call.
    pub(super) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
    }

    /// Whether received bytes have yet to be written.
    pub(super) fn waits_for_receiver(&self, outbox: &Buffer) -> bool {
        self.direct > 0 || !outbox.is_empty()
    }

    /// Relays as much as possible now; ready when all of `outbox` and the body are written.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        inbox: &mut Buffer,
        outbox: &mut Buffer,
        to: &mut W,
    ) -> Poll<Result<(), RelayError>>
    where
        R: MessageIo,
        W: MessageIo,
    {
        loop {
            self.take_in(inbox, outbox, to)?;
            match self.write_out(cx, inbox, outbox, to) {
                Poll::Ready(written) => written.map_err(|_| RelayError::Receiver)?,
                Poll::Pending => {
                    from.read_ahead(cx);
                    return Poll::Pending;
                }
            }
            if self.finished && outbox.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if !inbox.is_empty() || self.decoder.is_done() || !outbox.is_empty() {
                continue;
            }
            match ready!(inbox.poll_fill(cx, from)) {
                Ok(0) if self.decoder.ends_with_connection() => {
                    self.decoder = Decoder::new(Framing::Length(0));
                    if let Some(fields) = from.take_trailers() {
                        self.pass_on(fields, to);
                    }
                }
                Ok(n) if n > 0 => self.progressed = true,
                _ => return Poll::Ready(Err(RelayError::Sender)),
            }
        }
    }

    /// Converts the bytes in the inbox to the form in which they are written.
    fn take_in<W: MessageIo>(
        &mut self,
        inbox: &mut Buffer,
        outbox: &mut Buffer,
        to: &mut W,
    ) -> Result<(), RelayError> {
        while self.direct == 0 && !self.finished && outbox.space() > CHUNK_FRAMING_BYTES {
            let found = self.decoder.decode(inbox.data()).map_err(|_| RelayError::Malformed)?;
            inbox.consume(found.skip);
            self.moved += found.data as u64;
            if found.data > 0 {
                if let Some(tap) = &mut self.tap {
                    tap.put(&inbox.data()[..found.data]);
                }
                self.place(found.data, inbox, outbox);
            } else if self.decoder.is_done() {
                if let Some(fields) = self.decoder.take_trailers().and_then(trailers::read) {
                    self.pass_on(fields, to);
                }
                if self.chunked {
                    outbox.put(b"0\r\n");
                    if let Trailers::Behind(fields) = &self.trailers {
                        trailers::write(outbox, fields);
                    }
                    outbox.put(b"\r\n");
                }
                self.finished = true;
            } else {
                break;
            }
        }
        if self.direct == 0 && !self.chunked && self.decoder.is_done() {
            self.finished = true;
        }
        Ok(())
    }

    /// Sends `fields` as trailers, if the receiver takes them.
    #[inline(never)]
    fn pass_on<W: MessageIo>(&mut self, fields: HeaderMap, to: &mut W) {
        let Trailers::Passed = self.trailers else { return };
        let Some(fields) = trailers::permitted(fields) else { return };
        if let Some(tap) = &mut self.tap {
            tap.give_up();
        }
        match self.chunked {
            true => self.trailers = Trailers::Behind(Box::new(fields)),
            false => to.put_trailers(fields),
        }
    }

    /// Copies `data` bytes of the inbox into the outbox if they then leave in one write with others; otherwise
    /// marks them to be written from the inbox.
    #[inline(always)]
    fn place(&mut self, data: usize, inbox: &mut Buffer, outbox: &mut Buffer) {
        if self.chunked {
            let mut line = [0u8; CHUNK_FRAMING_BYTES];
            let mut rest = &mut line[..];
            // A size has at most 16 digits.
            let _ = write!(rest, "{data:x}\r\n");
            let unused = rest.len();
            outbox.put(&line[..CHUNK_FRAMING_BYTES - unused]);
        }
        let fits = data + 2 <= outbox.space();
        if fits && (self.chunked || !outbox.is_empty()) {
            outbox.put(&inbox.data()[..data]);
            inbox.consume(data);
            if self.chunked {
                outbox.put(b"\r\n");
            }
        } else {
            self.direct = data;
        }
    }

    fn write_out<W: MessageIo>(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &mut Buffer,
        outbox: &mut Buffer,
        to: &mut W,
    ) -> Poll<std::io::Result<()>> {
        if !outbox.is_empty() {
            let before = outbox.len();
            let drained = outbox.poll_drain(cx, to);
            self.progressed |= outbox.len() < before;
            ready!(drained)?;
        }
        while self.direct > 0 {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &inbox.data()[..self.direct]))?;
            if n == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.progressed = true;
            inbox.consume(n);
            self.direct -= n;
            if self.direct == 0 && self.chunked {
                outbox.put(b"\r\n");
            }
        }
        // A TLS session may hold the last bytes back until its socket accepts them, and a stream until it knows
        // that they are the last.
        let framed = self.chunked && !self.finished;
        if self.decoder.is_done() && outbox.is_empty() && !framed {
            to.poll_end(cx)
        } else {
            Pin::new(to).poll_flush(cx)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::{super::buffer::Blocks, *};

    impl MessageIo for DuplexStream {}

    async fn relay(
        framing: Framing,
        chunked: bool,
        wire: Vec<u8>,
        pipe: usize,
        head: &[u8],
    ) -> (Result<(), RelayError>, Vec<u8>) {
        let (mut sender, mut from) = duplex(pipe);
        let (mut to, mut receiver): (DuplexStream, DuplexStream) = duplex(pipe);
        let blocks = Blocks::default();
        let (mut inbox, mut outbox) = (blocks.take(), blocks.take());
        outbox.put(head);
        let sending = async move {
            let _ = sender.write_all(&wire).await;
        };
        let moving = async move {
            let mut relay = Relay::new(framing, chunked);
            poll_fn(|cx| relay.poll(cx, &mut from, &mut inbox, &mut outbox, &mut to)).await
        };
        let receiving = async move {
            let mut got = Vec::new();
            receiver.read_to_end(&mut got).await.expect("read");
            got
        };
        let (_, result, got) = tokio::join!(sending, moving, receiving);
        (result, got)
    }

    fn chunks_of(body: &[u8], size: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        for chunk in body.chunks(size) {
            wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"0\r\n\r\n");
        wire
    }

    fn joined(wire: &[u8]) -> Vec<u8> {
        let (mut decoder, mut at, mut body) = (Decoder::new(Framing::Chunked), 0, Vec::new());
        while !decoder.is_done() && at < wire.len() {
            let found = decoder.decode(&wire[at..]).expect("well formed");
            body.extend_from_slice(&wire[at + found.skip..at + found.skip + found.data]);
            at += found.skip + found.data;
        }
        assert!(decoder.is_done() && at == wire.len(), "ends with its last chunk");
        body
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_framing_arrives_whole_through_any_pipe(
            length in 0usize..70_000, size in 1usize..40_000, pipe in 1usize..50_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let body: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
            let pipe = pipe.max(length / 1000 + 1);
            let size = size.max(length / 1000 + 1);
            runtime.block_on(async {
                let (result, got) = relay(Framing::Length(length as u64), false, body.clone(), pipe, b"head").await;
                assert_eq!((result, &got[..4], &got[4..]), (Ok(()), &b"head"[..], &body[..]));
                let (result, got) = relay(Framing::Chunked, true, chunks_of(&body, size), pipe, b"").await;
                assert_eq!((result, joined(&got)), (Ok(()), body.clone()));
                let (result, got) = relay(Framing::Chunked, false, chunks_of(&body, size), pipe, b"").await;
                assert_eq!((result, got), (Ok(()), body.clone()));
                let (result, got) = relay(Framing::UntilClose, true, body.clone(), pipe, b"").await;
                assert_eq!((result, joined(&got)), (Ok(()), body.clone()));
            });
        }
    }

    #[tokio::test]
    async fn a_body_cut_short_is_not_passed_for_whole() {
        let (result, got) = relay(Framing::Length(10), false, b"short".to_vec(), 64, b"").await;
        assert_eq!((result, &got[..]), (Err(RelayError::Sender), &b"short"[..]));
        let (result, got) =
            relay(Framing::Chunked, true, b"5\r\nshort\r\n".to_vec(), 64, b"").await;
        assert_eq!((result, &got[..]), (Err(RelayError::Sender), &b"5\r\nshort\r\n"[..]));
        let (result, _) = relay(Framing::Chunked, true, b"5\r\nshortX".to_vec(), 64, b"").await;
        assert_eq!(result, Err(RelayError::Malformed));
    }
}
