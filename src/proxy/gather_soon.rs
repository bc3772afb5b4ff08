//! Waits a short time for the rest of a small body, so that the request can be sent again.
//!
//! Only routes with `retry` wait. Most bodies arrive with their head or right behind it; those that do
//! not, or are too large, are passed on as they come, and such a request is not repeated. The bytes stay
//! in the client's inbox until the body is whole, so a body that is not is as if nobody had waited.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    body::{Decoder, Framing},
    channel::MessageIo as _,
    client::Client,
    head_text,
    sending::Sending,
    trailers::permitted,
    turn::Turn,
};

/// The body of `turn`'s request is waited for at most as long as `wait`, and kept if it has at most
/// `most` bytes. What remains to be sent of it is in `sending`.
pub(super) async fn gather_soon(
    turn: &mut Turn<'_>,
    sending: &mut Sending,
    (most, wait): (u64, Duration),
) {
    let Some(framing) = sending.rest else { return };
    let fits = !matches!(framing, Framing::Length(length) if length > most);
    // A client that waits to be asked for the body would wait here for nothing.
    if !fits || turn.plan.expects_continue {
        return;
    }
    let mut found = Found::new(framing, most);
    let client = &mut *turn.client;
    client.deadline.set(Instant::now() + wait);
    let whole = poll_fn(|cx| poll_whole(cx, client, &mut found));
    if !whole.await {
        return;
    }
    turn.request.put(&found.body);
    client.inbox.consume(found.read);
    sending.trailers = client.stream.take_trailers().and_then(permitted).map(Box::new);
    if turn.plan.framing.is_open() {
        head_text::measure(&mut turn.request);
        sending.measured = true;
    }
    (sending.rest, sending.uploading, turn.unread_body) = (None, false, false);
    turn.record.gathered(found.body.len());
    // The client's time is not the version's.
    sending.began = Instant::now();
}

/// Whether the body is whole; pending while it may become so in time.
fn poll_whole(cx: &mut Context<'_>, client: &mut Client, found: &mut Found) -> Poll<bool> {
    loop {
        match found.take_in(client.inbox.data()) {
            Some(whole) => return Poll::Ready(whole),
            None if client.inbox.space() == 0 => client.inbox.grow(),
            None => {}
        }
        match client.inbox.poll_fill(cx, &mut client.stream) {
            Poll::Ready(Ok(n)) if n > 0 => {}
            // Where the end of the stream does not end the body, it is found again by what sends the body.
            Poll::Ready(Ok(_)) => return Poll::Ready(found.decoder.ends_with_connection()),
            Poll::Ready(Err(_)) => return Poll::Ready(false),
            Poll::Pending => break,
        }
    }
    client.deadline.poll_passed(cx).map(|()| false)
}

/// What was found of a body among the bytes read ahead.
struct Found {
    decoder: Decoder,
    body: Vec<u8>,
    /// Bytes of the inbox that belong to it.
    read: usize,
    most: u64,
}

impl Found {
    fn new(framing: Framing, most: u64) -> Self {
        Self { decoder: Decoder::new(framing), body: Vec::new(), read: 0, most }
    }

    /// Takes in what `inbox` has beyond the last time; returns whether the body is whole, or `None` if
    /// more is needed to know.
    fn take_in(&mut self, inbox: &[u8]) -> Option<bool> {
        loop {
            // Malformed chunks are rejected by what sends the body.
            let Ok(found) = self.decoder.decode(&inbox[self.read..]) else { return Some(false) };
            self.read += found.skip;
            if (self.body.len() + found.data) as u64 > self.most || self.read > self.longest() {
                return Some(false);
            }
            self.body.extend_from_slice(&inbox[self.read..self.read + found.data]);
            self.read += found.data;
            if self.decoder.is_done() {
                return Some(true);
            }
            if found.data == 0 {
                return None;
            }
        }
    }

    /// Most bytes that are read ahead for the body with its chunks.
    fn longest(&self) -> usize {
        2 * self.most as usize + 4096
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes in `wire` as it grows by `step` bytes; returns the result, the body and the bytes used.
    fn read(
        framing: Framing,
        most: u64,
        wire: &[u8],
        step: usize,
    ) -> (Option<bool>, Vec<u8>, usize) {
        let mut found = Found::new(framing, most);
        let mut end = 0;
        loop {
            end = (end + step).min(wire.len());
            let whole = found.take_in(&wire[..end]);
            if whole.is_some() || end == wire.len() {
                return (whole, found.body, found.read);
            }
        }
    }

    #[test]
    fn a_body_is_whole_at_its_end_and_what_follows_is_left() {
        for step in 1..40 {
            let (whole, body, read_bytes) =
                read(Framing::Chunked, 9, b"4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\nGET /", step);
            assert_eq!((whole, &body[..], read_bytes), (Some(true), &b"Wikipedia"[..], 24));
            let (whole, body, read_bytes) = read(Framing::Length(4), 4, b"WikiGET /", step);
            assert_eq!((whole, &body[..], read_bytes), (Some(true), &b"Wiki"[..], 4));
            assert_eq!(read(Framing::Length(9), 9, b"Wiki", step).0, None);
            assert_eq!(read(Framing::UntilClose, 9, b"Wiki", step).0, None);
            assert_eq!(read(Framing::UntilClose, 3, b"Wiki", step).0, Some(false));
            assert_eq!(
                read(Framing::Chunked, 8, b"4\r\nWiki\r\n5\r\npedia\r\n", step).0,
                Some(false)
            );
            assert_eq!(read(Framing::Chunked, 8, b"4\r\nWikiX", step).0, Some(false), "malformed");
        }
    }

    proptest! {
        #[test]
        fn the_bound_holds_whatever_the_chunks(
            chunks in prop::collection::vec(1usize..40, 0..60), most in 0u64..900, step in 1usize..300,
        ) {
            let mut wire = Vec::new();
            for length in &chunks {
                wire.extend_from_slice(format!("{length:x}\r\n{}\r\n", "x".repeat(*length)).as_bytes());
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let length: usize = chunks.iter().sum();
            let (whole, body, _) = read(Framing::Chunked, most, &wire, step);
            prop_assert_eq!(whole, Some(length as u64 <= most && body.len() == length));
            prop_assert!(body.len() as u64 <= most);
        }
    }
}
