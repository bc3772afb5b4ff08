//! Byte buffers of a worker: 16 KiB blocks that connections borrow while they need them.
//!
//! An idle connection has no block, so ten thousand idle connections are cheap. Blocks are zeroed once, when
//! they are created, and stay initialized, so reading into them needs neither zeroing nor `unsafe`.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a block: one read of this size empties most sockets.
const BLOCK_BYTES: usize = 16 * 1024;

/// Free blocks that a worker keeps, 16 MiB; others are returned to the allocator.
const FREE_BLOCKS: usize = 1024;

/// Bytes of the buffer for the request on a stream: most requests are only a head.
const SMALL_BYTES: usize = 2 * 1024;

/// Bytes that were received and not yet sent: `bytes[start..end]`.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A buffer without memory, as a placeholder.
    pub(super) fn hollow() -> Self {
        Self { bytes: Vec::new(), start: 0, end: 0 }
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn clear(&mut self) {
        self.consume(self.len());
    }

    /// Drops the first `n` bytes.
    pub(super) fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.start += n;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Appends `data`, and grows if necessary.
    pub(super) fn put(&mut self, data: &[u8]) {
        let end = self.end + data.len();
        if end > self.bytes.len() {
            return self.put_slow(data);
        }
        self.bytes[self.end..end].copy_from_slice(data);
        self.end = end;
    }

    /// Appends all `parts`, one behind the other: looks for room once.
    #[inline(always)]
    pub(super) fn put_all<const N: usize>(&mut self, parts: [&[u8]; N]) {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let Some(mut room) = self.bytes.get_mut(self.end..).filter(|room| room.len() >= length)
        else {
            return parts.into_iter().for_each(|part| self.put_slow(part));
        };
        for part in parts {
            let place;
            (place, room) = room.split_at_mut(part.len());
            place.copy_from_slice(part);
        }
        self.end += length;
    }

    #[cold]
    fn put_slow(&mut self, data: &[u8]) {
        self.make_space();
        let end = self.end + data.len();
        if end > self.bytes.len() {
            self.bytes.resize(end.next_power_of_two(), 0);
        }
        self.bytes[self.end..end].copy_from_slice(data);
        self.end = end;
    }

    /// Bytes that can be appended without growing.
    pub(super) fn space(&self) -> usize {
        self.bytes.len() - self.len()
    }

    /// Doubles the buffer, for a head larger than a block.
    pub(super) fn grow(&mut self) {
        self.make_space();
        self.bytes.resize(self.bytes.len() * 2, 0);
    }

    /// Makes room for `more` bytes.
    pub(super) fn reserve(&mut self, more: usize) {
        if self.space() < more {
            self.make_space();
            self.bytes.resize(self.len() + more, 0);
        }
    }

    /// Grows a buffer for a head so that it fits a body.
    pub(super) fn widen(&mut self) {
        if self.bytes.len() < BLOCK_BYTES {
            self.make_space();
            self.bytes.resize(BLOCK_BYTES, 0);
        }
    }

    fn make_space(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Appends the bytes that can be read at once; returns 0 at the end of the stream. The buffer must have
    /// space.
    pub(super) fn poll_fill<S>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut S,
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        if self.end == self.bytes.len() {
            self.make_space();
        }
        debug_assert!(self.end < self.bytes.len());
        let mut into = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(from).poll_read(cx, &mut into))?;
        let n = into.filled().len();
        self.end += n;
        Poll::Ready(Ok(n))
    }

    /// Writes until the buffer is empty.
    pub(super) fn poll_drain<S>(&mut self, cx: &mut Context<'_>, to: &mut S) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.is_empty() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, self.data()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.consume(n);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes until the buffer is empty, and flushes the session below.
    pub(super) fn poll_flush<S>(&mut self, cx: &mut Context<'_>, to: &mut S) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        ready!(self.poll_drain(cx, to))?;
        Pin::new(to).poll_flush(cx)
    }
}

/// Free blocks of a worker.
#[derive(Debug, Default)]
pub(super) struct Blocks(RefCell<Vec<Vec<u8>>>);

impl Blocks {
    pub(super) fn take(&self) -> Buffer {
        let block = self.0.borrow_mut().pop();
        Buffer { bytes: block.unwrap_or_else(|| vec![0; BLOCK_BYTES]), start: 0, end: 0 }
    }

    /// A smaller buffer, which grows if necessary.
    pub(super) fn take_small(&self) -> Buffer {
        Buffer { bytes: vec![0; SMALL_BYTES], start: 0, end: 0 }
    }

    /// Replaces the block of `buffer` by a small one, if its content fits into half of that.
    pub(super) fn shrink(&self, buffer: &mut Buffer) {
        if buffer.bytes.len() == BLOCK_BYTES && buffer.len() <= SMALL_BYTES / 2 {
            let mut small = self.take_small();
            small.put(buffer.data());
            self.give(std::mem::replace(buffer, small));
        }
    }

    #[inline]
    pub(super) fn give(&self, buffer: Buffer) {
        let mut free = self.0.borrow_mut();
        if buffer.bytes.len() == BLOCK_BYTES && free.len() < FREE_BLOCKS {
            free.push(buffer.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_keeps_its_bytes_in_order() {
        let blocks = Blocks::default();
        let mut buffer = blocks.take();
        let text: Vec<u8> = (0..40_000u32).map(|n| n as u8).collect();
        buffer.put(&text[..10_000]);
        buffer.consume(9_000);
        buffer.put(&text[10_000..]);
        assert_eq!(buffer.data(), &text[9_000..]);
        buffer.grow();
        assert_eq!(buffer.data(), &text[9_000..]);
        blocks.give(buffer);
        assert!(blocks.0.borrow().is_empty(), "a grown buffer is not kept");
        let fresh = blocks.take();
        assert_eq!((fresh.space(), fresh.is_empty()), (BLOCK_BYTES, true));
        blocks.give(fresh);
        assert_eq!(blocks.0.borrow().len(), 1);
    }

    #[test]
    fn a_buffer_that_holds_little_gives_its_block_back() {
        let blocks = Blocks::default();
        for (length, kept) in [(10, SMALL_BYTES), (1024, SMALL_BYTES), (1025, BLOCK_BYTES)] {
            let mut buffer = blocks.take();
            buffer.put(&vec![b'x'; length]);
            blocks.shrink(&mut buffer);
            assert_eq!((buffer.bytes.len(), buffer.len()), (kept, length));
        }
        assert_eq!(blocks.0.borrow().len(), 0, "the third has it");
    }
}
