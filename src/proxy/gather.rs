//! Keeps a request's body with its head if the whole body has arrived, so that the request can be
//! repeated.
//!
//! Only requests sent on a stream need that: there an endpoint can state that it did not process a
//! request, whatever its method.

use std::task::{Context, Poll, Waker};

use super::{body::Framing, buffer::Buffer, client::Client};

/// Appends the body to the head in `request` if the whole body has arrived and fits. Returns its
/// length.
#[inline(never)]
pub(super) fn gather(client: &mut Client, framing: Framing, request: &mut Buffer) -> Option<usize> {
    let length = match framing {
        Framing::Chunked => return None,
        Framing::Length(length) if length > request.space() as u64 => return None,
        Framing::Length(length) if !client.stream.is_stream() => Some(length as usize),
        // A stream's body ends with the stream, so that trailers are seen.
        Framing::Length(_) | Framing::UntilClose => None,
    };
    // If the body is incomplete, the relay polls again and registers its waker.
    let mut cx = Context::from_waker(Waker::noop());
    let whole = loop {
        let read = client.inbox.len();
        match length {
            Some(length) if length <= read => break length,
            _ if read > request.space() || client.inbox.space() == 0 => return None,
            _ => {}
        }
        match client.inbox.poll_fill(&mut cx, &mut client.stream) {
            Poll::Ready(Ok(0)) if length.is_none() => break read,
            Poll::Ready(Ok(n)) if n > 0 => {}
            _ => return None,
        }
    };
    request.put(&client.inbox.data()[..whole]);
    client.inbox.consume(whole);
    Some(whole)
}
