//! A body that is read whole before anything of its request is sent: so that the request can be sent again, or can be
//! told from another one with its idempotency key.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{
    body::{Decoder, Framing},
    buffer::Buffer,
    client::Client,
    head::HeadError,
    pace,
    problem::Problem,
};
use crate::snapshot::BodyLimits;

/// A body as far as it has arrived.
pub(super) struct WholeBody {
    decoder: Decoder,
    body: Vec<u8>,
    /// Most bytes of it.
    most: u64,
    /// Bytes of the inbox up to what has yet to be read of it, if they stay there.
    read: Option<usize>,
    /// Bytes of the inbox before it.
    behind: usize,
}

/// Why a body is not whole and never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It has more bytes than may be read.
    TooLarge,
    /// Its chunks are malformed.
    Malformed,
    /// It is slower than may be.
    Late,
    /// The client has left.
    Gone,
}

impl WholeBody {
    /// A body of at most `most` bytes, whose bytes are taken out of the inbox.
    pub(super) fn taken(framing: Framing, most: u64) -> Self {
        Self { decoder: Decoder::new(framing), body: Vec::new(), most, read: None, behind: 0 }
    }

    /// A body whose bytes stay in the inbox, so that one that is not whole can be passed on as if nobody had waited.
    pub(super) fn left(framing: Framing, most: u64) -> Self {
        Self::left_behind(0, framing, most)
    }

    /// As [`Self::left`], behind that many bytes of the inbox.
    pub(super) fn left_behind(behind: usize, framing: Framing, most: u64) -> Self {
        Self { read: Some(behind), behind, ..Self::taken(framing, most) }
    }

    /// Bytes of it that have arrived.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// The body, and the bytes of the inbox that belong to it and stay there.
    pub(super) fn into_parts(self) -> (Vec<u8>, usize) {
        (self.body, self.read.unwrap_or(0))
    }

    /// Takes in what arrives from `client`, until the body is whole, or is known never to be, or is slower than `limits`
    /// admit.
    pub(super) async fn arrive(
        &mut self,
        client: &mut Client,
        limits: BodyLimits,
    ) -> Result<(), Broken> {
        let began = Instant::now();
        let due = |bytes: usize| {
            let due = Instant::now() + limits.timeout;
            pace::due(limits, began, bytes as u64).map_or(due, |slow| slow.min(due))
        };
        client.deadline.set(due(0));
        poll_fn(|cx| {
            let before = self.len();
            if let Poll::Ready(read) = self.poll(cx, client) {
                return Poll::Ready(read);
            }
            if self.len() > before {
                client.deadline.set(due(self.len()));
            }
            client.deadline.poll_passed(cx).map(|()| Err(Broken::Late))
        })
        .await
    }

    /// Takes in what arrives from `client`. Ready once the body is whole, or is known never to be.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match self.take_in(&mut client.inbox) {
                Err(broken) => return Poll::Ready(Err(broken)),
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) if client.inbox.space() == 0 => client.inbox.grow(),
                Ok(false) => {}
            }
            match client.inbox.poll_fill(cx, &mut client.stream) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                // Where the end of the stream does not end the body, it is found again by what sends the body.
                Poll::Ready(Ok(_)) if self.decoder.ends_with_connection() => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(_) => return Poll::Ready(Err(Broken::Gone)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes in what `inbox` has beyond the last time; returns whether the body is whole now.
    fn take_in(&mut self, inbox: &mut Buffer) -> Result<bool, Broken> {
        loop {
            let rest = &inbox.data()[self.read.unwrap_or(0)..];
            let found = self.decoder.decode(rest).map_err(|_| Broken::Malformed)?;
            if (self.body.len() + found.data) as u64 > self.most {
                return Err(Broken::TooLarge);
            }
            self.body.extend_from_slice(&rest[found.skip..][..found.data]);
            match &mut self.read {
                Some(read) => *read += found.skip + found.data,
                None => inbox.consume(found.skip + found.data),
            }
            if self.decoder.is_done() {
                return Ok(true);
            }
            if self.read.is_some_and(|read| (read - self.behind) as u64 > self.longest()) {
                return Err(Broken::TooLarge);
            }
            if found.data == 0 {
                return Ok(false);
            }
        }
    }

    /// Most bytes that stay in the inbox for the body with its chunks.
    fn longest(&self) -> u64 {
        2 * self.most + 4096
    }
}

/// What becomes of a request whose body never arrives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoBody {
    /// The response; `None` if the client has left.
    pub(super) response: Option<Problem>,
    /// Bytes of the body that have arrived.
    pub(super) bytes: u64,
}

impl Broken {
    /// What becomes of a request with such a body, of which `bytes` have arrived; `None` if it is too large, which is no
    /// fault everywhere.
    pub(super) fn ends(self, bytes: usize) -> Option<NoBody> {
        let error = |status, detail| Some(HeadError { status, detail }.into());
        let response = match self {
            Self::TooLarge => return None,
            Self::Malformed => error(400, "the chunks of the body are malformed"),
            Self::Late => error(408, "the body did not arrive in time"),
            Self::Gone => None,
        };
        Some(NoBody { response, bytes: bytes as u64 })
    }
}

/// Calls for the body of a client that waits to be asked for it.
///
/// # Errors
///
/// What becomes of the request, if the client does not read.
pub(super) async fn call(client: &mut Client, limits: BodyLimits) -> Result<(), NoBody> {
    let mut interim = Buffer::hollow();
    interim.put(b"HTTP/1.1 100 Continue\r\n\r\n");
    client.deadline.set(Instant::now() + limits.timeout);
    let called = poll_fn(|cx| {
        if let Poll::Ready(written) = interim.poll_flush(cx, &mut client.stream) {
            return Poll::Ready(written.map_err(|_| None));
        }
        client.deadline.poll_passed(cx).map(|()| Err(Some(LATE)))
    });
    const LATE: HeadError = HeadError { status: 408, detail: "the client does not read" };
    let called = called.await;
    called.map_err(|late| NoBody { response: late.map(Problem::from), bytes: 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::buffer::Blocks, *};

    /// Takes in `wire` as it arrives by `step` bytes; returns the result, the body, and what is left in the inbox.
    fn read(
        mut found: WholeBody,
        wire: &[u8],
        step: usize,
    ) -> (Result<bool, Broken>, Vec<u8>, Vec<u8>) {
        let (mut inbox, mut whole) = (Blocks::default().take(), Ok(false));
        for piece in wire.chunks(step) {
            inbox.put(piece);
            if whole == Ok(false) {
                whole = found.take_in(&mut inbox);
            }
        }
        let (body, read) = found.into_parts();
        inbox.consume(read);
        (whole, body, inbox.data().to_vec())
    }

    #[test]
    fn a_body_is_whole_at_its_end_and_what_follows_is_left() {
        for make in [WholeBody::taken, WholeBody::left] {
            for step in 1..40 {
                let (whole, body, rest) = read(
                    make(Framing::Chunked, 9),
                    b"4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\nGET /",
                    step,
                );
                assert_eq!(
                    (whole, &body[..], &rest[..]),
                    (Ok(true), &b"Wikipedia"[..], &b"GET /"[..])
                );
                let (whole, body, rest) = read(make(Framing::Length(4), 4), b"WikiGET /", step);
                assert_eq!((whole, &body[..], &rest[..]), (Ok(true), &b"Wiki"[..], &b"GET /"[..]));
                for (framing, most, wire, expected) in [
                    (Framing::Length(9), 9, &b"Wiki"[..], Ok(false)),
                    (Framing::UntilClose, 9, b"Wiki", Ok(false)),
                    (Framing::UntilClose, 3, b"Wiki", Err(Broken::TooLarge)),
                    (Framing::Chunked, 8, b"4\r\nWiki\r\n5\r\npedia\r\n", Err(Broken::TooLarge)),
                    (Framing::Chunked, 8, b"4\r\nWikiX", Err(Broken::Malformed)),
                ] {
                    assert_eq!(read(make(framing, most), wire, step).0, expected, "{framing:?}");
                }
            }
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
            for make in [WholeBody::taken, WholeBody::left] {
                let (whole, body, _) = read(make(Framing::Chunked, most), &wire, step);
                let expected = if length as u64 <= most { Ok(true) } else { Err(Broken::TooLarge) };
                prop_assert_eq!(whole, expected);
                prop_assert!(body.len() as u64 <= most && (whole.is_err() || body.len() == length));
            }
        }
    }
}
