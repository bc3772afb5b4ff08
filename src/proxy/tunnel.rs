//! A connection that switched to another protocol: bytes pass both ways until both sides have
//! ended.
//!
//! As with bodies, nothing is read while bytes wait to be written. The frames of a WebSocket are
//! followed, so that a worker that drains can close it as RFC 6455 section 7.1 requires: both sides
//! get `1001 Going Away` between two frames, rather than a broken connection, and reconnect.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::AsyncWrite as _,
    time::{Instant, sleep_until},
};

use super::{
    buffer::Buffer,
    channel::{Channel, MessageIo as _},
    client::Client,
    turn::Turn,
    websocket::{self, Frames},
};

/// Once one side has ended, the other may be silent for this long.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// Time to send a close frame to both sides of a WebSocket, and for the client to end; taken from
/// the end of the drain.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// One direction.
struct Pipe {
    buffer: Buffer,
    /// Follows the frames of a WebSocket; `None` for other protocols.
    frames: Option<Frames>,
    /// The sender has ended.
    ended: bool,
    /// The end was sent to the receiver.
    done: bool,
    bytes: u64,
    progressed: bool,
}

/// Passes bytes between the client and the endpoint of the turn's attempt; the turn's response holds
/// the 101.
pub(super) async fn tunnel(turn: &mut Turn<'_>) {
    let Turn { client, worker, plan, response, record, attempt, .. } = turn;
    let Some(attempt) = attempt.take() else { return };
    // The request ends with the switch; its duration does not include the tunnel.
    record.end();
    let is_websocket = plan.asked_for(Some(b"websocket"));
    let (mut upstream, ahead) = attempt.into_parts();
    let mut down = Pipe::new(std::mem::replace(response, Buffer::hollow()), is_websocket);
    down.put(ahead.data());
    worker.blocks.give(ahead);
    let mut up = Pipe::new(worker.blocks.take(), is_websocket);
    up.put(client.inbox.data());
    client.inbox.clear();

    let mut drained = worker.upgraded_until.subscribe();
    let mut drain_ends = pin!(async move {
        let until = drained.wait_for(Option::is_some).await.ok().and_then(|until| *until);
        // A worker that has ended ends its tasks.
        sleep_until(until.unwrap_or_else(Instant::now)).await;
    });
    let limit = plan.route().upgrade_timeout;
    client.deadline.set(Instant::now() + limit);
    let passing = poll_fn(|cx| {
        let Client { stream, deadline, .. } = &mut *client;
        let passed = down.poll(cx, &mut upstream, stream)?;
        let passed = (passed, up.poll(cx, stream, &mut upstream)?);
        if let (Poll::Ready(()), Poll::Ready(())) = passed {
            return Poll::Ready(io::Result::Ok(false));
        }
        if down.take_progress() | up.take_progress() {
            let half = down.done || up.done;
            deadline.set(Instant::now() + if half { limit.min(HALF_CLOSED) } else { limit });
        }
        if drain_ends.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(true));
        }
        deadline.poll_passed(cx).map(|()| Ok(false))
    });
    if let Ok(true) = passing.await {
        let last_words = poll_fn(|cx| {
            let stream = &mut client.stream;
            let closed =
                down.poll_close(cx, &mut upstream, stream, &websocket::close_from_server());
            let mask = fastrand::u32(..).to_ne_bytes();
            let close = websocket::close_from_client(mask);
            let closed = (closed?, up.poll_close(cx, stream, &mut upstream, &close)?);
            match closed {
                (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(io::Result::Ok(())),
                _ => Poll::Pending,
            }
        });
        // If a side does not read in time, its connection breaks without the close frame.
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
    }
    record.bytes_in = up.bytes;
    record.bytes_out = down.bytes;
    worker.blocks.give(down.buffer);
    worker.blocks.give(up.buffer);
}

impl Pipe {
    fn new(buffer: Buffer, is_websocket: bool) -> Self {
        let frames = is_websocket.then(Frames::default);
        Self { buffer, frames, ended: false, done: false, bytes: 0, progressed: false }
    }

    /// Appends bytes that were read before the tunnel began.
    fn put(&mut self, data: &[u8]) {
        self.buffer.put(data);
        self.follow(data.len());
    }

    /// Counts the last `n` bytes of the buffer.
    fn follow(&mut self, n: usize) {
        self.bytes += n as u64;
        if let Some(frames) = &mut self.frames {
            frames.follow(&self.buffer.data()[self.buffer.len() - n..]);
        }
    }

    fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
    }

    /// Moves the bytes that can be moved now; ready when the sender has ended and the receiver was
    /// closed. The outer result is an error if a connection broke.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Channel,
        to: &mut Channel,
    ) -> io::Result<Poll<()>> {
        let moved = self.poll_moved(cx, from, to);
        match moved {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn poll_moved(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Channel,
        to: &mut Channel,
    ) -> Poll<io::Result<()>> {
        while !self.done {
            let Poll::Ready(written) = self.poll_out(cx, to) else {
                from.read_ahead(cx);
                return Poll::Pending;
            };
            written?;
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                break;
            }
            let n = ready!(self.buffer.poll_fill(cx, from))?;
            self.progressed = true;
            self.ended = n == 0;
            self.follow(n);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, to: &mut Channel) -> Poll<io::Result<()>> {
        let before = self.buffer.len();
        let flushed = self.buffer.poll_flush(cx, to);
        self.progressed |= self.buffer.len() < before;
        flushed
    }

    /// Ends the direction with `close` after the current frame; other protocols are ended at once.
    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Channel,
        to: &mut Channel,
        close: &[u8],
    ) -> io::Result<Poll<()>> {
        while !self.ended {
            match &self.frames {
                Some(frames) if !frames.is_between() => {
                    // Passes the rest of the frame, and frames that follow it in the same read.
                    match self.poll_one(cx, from, to)? {
                        Poll::Ready(()) => {}
                        Poll::Pending => return Ok(Poll::Pending),
                    }
                }
                frames => {
                    if frames.is_some() {
                        self.buffer.put(close);
                    }
                    self.ended = true;
                }
            }
        }
        self.poll(cx, from, to)
    }

    /// Writes the buffer and reads once.
    fn poll_one(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Channel,
        to: &mut Channel,
    ) -> io::Result<Poll<()>> {
        if self.poll_out(cx, to)?.is_pending() {
            return Ok(Poll::Pending);
        }
        match self.buffer.poll_fill(cx, from) {
            Poll::Ready(n) => {
                let n = n?;
                self.ended = n == 0;
                self.follow(n);
                Ok(Poll::Ready(()))
            }
            Poll::Pending => Ok(Poll::Pending),
        }
    }
}
