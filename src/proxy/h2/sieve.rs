//! Removes some of a peer's frames, and malformed fields, before the crate sees them.
//!
//! A DATA frame without bytes and without END_STREAM has no effect, and is legal (RFC 9113 section
//! 6.1). The crate ends a connection at the hundred-and-first such frame, but connections live for
//! days, and some servers and proxies send one per message. So they are removed; the meter charges
//! for them.
//!
//! Header blocks are screened for malformed fields (`screen.rs`), which must not end a connection
//! either.
//!
//! Frames are examined in the buffer into which they were read. Only an incomplete frame that must
//! be examined as a whole is held back, together with the bytes that follow.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::screen::Screen;

const HEAD_BYTES: usize = 9;

/// Largest payload of a frame without a setting that changes it.
const LARGEST: usize = 16_384;

/// Most frames of a header block that is held back until it is complete, and most bytes of a
/// response's. The crate's limits are lower.
const MOST_FRAMES: usize = 32;
const MOST_HELD: usize = 128 * 1024;

/// Bytes per read while a frame is held back.
const PIECE_BYTES: usize = 2048;

/// With less space than this, frames are not read into the caller's buffer.
const LEAST_SPACE: usize = 64;

/// Kinds of frames (RFC 9113 section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const CONTINUATION: u8 = 9;

/// Flags of frames.
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn read(bytes: &[u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    /// Whether the frame is empty DATA.
    pub(super) fn is_empty_data(&self) -> bool {
        let Self { length, kind, flags, stream } = *self;
        kind == DATA && length == 0 && flags & (END_STREAM | PADDED) == 0 && stream != 0
    }
}

/// Observes received frames and sent bytes.
pub(super) trait Watch {
    /// A frame was received. The error is the reason to end the connection.
    fn received(&mut self, _head: Head) -> Result<(), Reason> {
        Ok(())
    }

    /// `bytes` were sent.
    fn sent(&mut self, _bytes: &[u8]) {}

    /// The connection must end for `fault`, and nothing more is read from it.
    fn fail(&mut self, _fault: Reason) {}
}

/// Observes nothing: endpoints are trusted.
impl Watch for () {}

/// Follows frames, and removes some.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    /// Bytes that pass unchanged: the rest of a payload.
    pass: usize,
    /// A header block is incomplete; no other frame may come before its end (RFC 9113 section 6.2).
    in_block: bool,
    /// Highest stream that the peer has opened.
    highest: u32,
    /// Bytes that are held back: they need more bytes, or are `judged` and can pass.
    held: Vec<u8>,
    judged: bool,
    /// Bytes that `held` must have to continue; 0 if nothing is held.
    needs: usize,
    /// Most bytes of a header block that are held.
    most_held: usize,
    /// Screens header blocks, as long as the dynamic table is known.
    screen: Option<Screen>,
    /// The frames are an endpoint's.
    answers: bool,
    /// Why nothing more passes, if so.
    fault: Option<Reason>,
}

impl Sieve {
    /// A sieve for a client's bytes. The first `pass` bytes are no frames; heads have at most
    /// `head_bytes`.
    pub(super) fn new(pass: usize, head_bytes: usize) -> Self {
        // A block on the wire is no longer than the size of its fields plus the heads of its
        // frames.
        let most_held = head_bytes + MOST_FRAMES * HEAD_BYTES;
        Self { pass, most_held, screen: Some(Screen::default()), ..Self::default() }
    }

    /// A sieve for an endpoint's bytes, on streams that were opened here.
    pub(super) fn for_answers() -> Self {
        Self { highest: u32::MAX, answers: true, ..Self::new(0, MOST_HELD) }
    }

    /// Moves the bytes that pass to the front of `bytes`, and returns their number; the others are
    /// dropped or held back.
    fn sift(&mut self, bytes: &mut [u8], watch: &mut impl Watch) -> usize {
        let (mut at, mut kept) = (0, 0);
        self.needs = 0;
        while at < bytes.len() {
            if self.pass == 0 {
                let Some(head) = bytes[at..].first_chunk() else {
                    self.needs = HEAD_BYTES;
                    self.held.extend_from_slice(&bytes[at..]);
                    break;
                };
                let head = Head::read(head);
                if head.kind == HEADERS
                    && let Some(screen) = &mut self.screen
                {
                    let rest = &bytes[at..];
                    match block_end(rest) {
                        Block::Whole(end) => {
                            let trailers = !self.answers && head.stream <= self.highest;
                            if let Some(screened) = screened(screen, &rest[..end], trailers) {
                                self.fault = watch.received(head).err();
                                self.highest = self.highest.max(head.stream);
                                self.pass = screened.len();
                                self.held = screened;
                                self.held.extend_from_slice(&rest[end..]);
                                self.judged = true;
                                break;
                            }
                        }
                        Block::Needs(bytes) if bytes <= self.most_held => {
                            self.needs = bytes;
                            self.held.extend_from_slice(rest);
                            break;
                        }
                        // An error that the crate reports.
                        _ => self.screen = None,
                    }
                }
                self.fault = watch.received(head).err();
                if self.fault.is_some() {
                    break;
                }
                let idle = self.is_idle(head);
                self.note(head);
                if idle {
                    at += HEAD_BYTES;
                    continue;
                }
                self.pass = HEAD_BYTES + head.length;
            }
            let n = self.pass.min(bytes.len() - at);
            if kept < at {
                bytes.copy_within(at..at + n, kept);
            }
            self.pass -= n;
            (at, kept) = (at + n, kept + n);
        }
        kept
    }

    /// Whether the frame is empty DATA in a legal place. Elsewhere it is an error that the crate
    /// reports.
    fn is_idle(&self, head: Head) -> bool {
        head.is_empty_data() && !self.in_block && head.stream <= self.highest
    }

    fn note(&mut self, head: Head) {
        match head.kind {
            HEADERS | PUSH_PROMISE => {
                self.in_block = head.flags & END_HEADERS == 0;
                self.highest = self.highest.max(head.stream);
            }
            CONTINUATION => self.in_block = head.flags & END_HEADERS == 0,
            _ => {}
        }
    }
}

/// The frames of a header block.
enum Block {
    /// All of them have arrived, with this many bytes.
    Whole(usize),
    /// More bytes are needed: this many at least.
    Needs(usize),
    /// Another frame is between them, one is too large, or there are too many.
    Broken,
}

/// Finds the end of the header block whose frames are at the start of `bytes`.
fn block_end(bytes: &[u8]) -> Block {
    let mut end = 0;
    for n in 0..MOST_FRAMES {
        let Some(head) = bytes.get(end..).and_then(|rest| rest.first_chunk()) else {
            return Block::Needs(end + HEAD_BYTES);
        };
        let head = Head::read(head);
        if head.length > LARGEST || n > 0 && head.kind != CONTINUATION {
            return Block::Broken;
        }
        end += HEAD_BYTES + head.length;
        if head.flags & END_HEADERS != 0 {
            return if end > bytes.len() { Block::Needs(end) } else { Block::Whole(end) };
        }
    }
    Block::Broken
}

/// Returns the frames to pass to the crate if a field in the header block `frames` is malformed.
fn screened(screen: &mut Screen, frames: &[u8], trailers: bool) -> Option<Vec<u8>> {
    let first = Head::read(frames.first_chunk()?);
    let payload = &frames[HEAD_BYTES..HEAD_BYTES + first.length];
    let is = |flag| first.flags & flag != 0;
    let padding = if is(PADDED) { 1 + usize::from(*payload.first()?) } else { 0 };
    let start = usize::from(is(PADDED)) + if is(PRIORITY) { 5 } else { 0 };
    let end = (payload.len() + usize::from(is(PADDED))).checked_sub(padding)?;
    let fragment = payload.get(start..end)?;
    let block = match HEAD_BYTES + first.length {
        all if all == frames.len() => screen.screen(fragment, trailers)?,
        mut at => {
            let mut block = fragment.to_vec();
            while let Some(head) = frames[at..].first_chunk().map(Head::read) {
                at += HEAD_BYTES;
                block.extend_from_slice(&frames[at..at + head.length]);
                at += head.length;
            }
            screen.screen(&block, trailers)?
        }
    };
    let mut written = Vec::with_capacity(block.len() + HEAD_BYTES);
    let pieces = block.len().div_ceil(LARGEST);
    for (n, piece) in block.chunks(LARGEST).enumerate() {
        let kind = if n == 0 { HEADERS } else { CONTINUATION };
        let last = if n + 1 == pieces { END_HEADERS } else { 0 };
        let flags = last | if n == 0 { first.flags & END_STREAM } else { 0 };
        written.extend_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
        written.extend_from_slice(&[kind, flags]);
        written.extend_from_slice(&first.stream.to_be_bytes());
        written.extend_from_slice(piece);
    }
    Some(written)
}

/// A connection whose frames pass a sieve before the crate reads them.
pub(super) struct Sifted<S, W> {
    below: S,
    watch: W,
    sieve: Sieve,
    /// Bytes that passed and were not read yet.
    passed: Vec<u8>,
    failed: bool,
}

impl<S, W> Sifted<S, W> {
    pub(super) fn new(below: S, watch: W, sieve: Sieve) -> Self {
        Self { below, watch, sieve, passed: Vec::new(), failed: false }
    }
}

impl<S: AsyncRead + Unpin, W: Watch> Sifted<S, W> {
    /// Reads into `into`, and keeps the bytes that pass; ready without a byte at the end.
    fn poll_in_place(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        loop {
            ready!(Pin::new(&mut self.below).poll_read(cx, into))?;
            let fresh = &mut into.filled_mut()[before..];
            if fresh.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let kept = self.sieve.sift(fresh, &mut self.watch);
            into.set_filled(before + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
            if let Some(fault) = self.sieve.fault {
                return self.fail(fault);
            }
            if !self.sieve.held.is_empty() {
                return self.poll_behind_held(cx, into);
            }
        }
    }

    /// Likewise, if a part of a frame is held back, or there is little space.
    #[cold]
    fn poll_behind_held(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.passed.is_empty() {
            if let Some(fault) = self.sieve.fault {
                return self.fail(fault);
            }
            let (mut piece, judged) = ([0; PIECE_BYTES], std::mem::take(&mut self.sieve.judged));
            let mut piece = ReadBuf::new(&mut piece);
            if !judged {
                ready!(Pin::new(&mut self.below).poll_read(cx, &mut piece))?;
            }
            let Sieve { held, needs, .. } = &mut self.sieve;
            // Reserves no more than needed, since every connection may have such a buffer.
            held.reserve_exact(needs.saturating_sub(held.len()).max(piece.filled().len()));
            held.extend_from_slice(piece.filled());
            let ended = !judged && piece.filled().is_empty();
            if !ended && self.sieve.held.len() < self.sieve.needs {
                continue;
            }
            let mut bytes = std::mem::take(&mut self.sieve.held);
            if ended {
                // A truncated frame, which the crate reports.
                self.passed = bytes;
                break;
            }
            let kept = self.sieve.sift(&mut bytes, &mut self.watch);
            if kept > 0 {
                bytes.truncate(kept);
                self.passed = bytes;
            }
        }
        self.hand_over(into);
        Poll::Ready(Ok(()))
    }

    fn hand_over(&mut self, into: &mut ReadBuf<'_>) {
        let n = self.passed.len().min(into.remaining());
        into.put_slice(&self.passed[..n]);
        self.passed.drain(..n);
        if self.passed.is_empty() {
            self.passed = Vec::new();
        }
    }

    fn fail(&mut self, fault: Reason) -> Poll<io::Result<()>> {
        self.failed = true;
        self.watch.fail(fault);
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin, W: Watch + Unpin> AsyncRead for Sifted<S, W> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.failed {
            // The connection's task shares the waker, and checks the fault.
            return Poll::Pending;
        }
        if !this.passed.is_empty() {
            this.hand_over(into);
            return Poll::Ready(Ok(()));
        }
        let in_place = this.sieve.held.is_empty() && this.sieve.fault.is_none();
        match in_place && into.remaining() >= LEAST_SPACE {
            true => this.poll_in_place(cx, into),
            false => this.poll_behind_held(cx, into),
        }
    }
}

impl<S: AsyncWrite + Unpin, W: Watch + Unpin> AsyncWrite for Sifted<S, W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.below).poll_write(cx, data))?;
        this.watch.sent(&data[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().below).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().below).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
