//! Waits a short time for the rest of a small body, so that the request can be sent again.
//!
//! Only routes with `retry` wait. Most bodies arrive with their head or right behind it; those that do
//! not, or are too large, are passed on as they come, and such a request is not repeated. The bytes stay
//! in the client's inbox until the body is whole, so a body that is not is as if nobody had waited.

use std::{future::poll_fn, task::Poll, time::Duration};

use tokio::time::Instant;

use super::{
    attempt::AttemptError, body::Framing, channel::MessageIo as _, head_text, ousted::is_ousted,
    problem::ProxyError, sending::Sending, trailers::permitted, turn::Turn, uploading::Uploading,
    whole_body::WholeBody,
};

/// The body of `turn`'s request is waited for at most as long as `wait`, and kept if it has at most
/// `most` bytes. What remains to be sent of it is in `sending`.
///
/// # Errors
///
/// The request ends, since a move of writes waits for it, or its version was ejected meanwhile.
pub(super) async fn gather_soon(
    turn: &mut Turn<'_>,
    sending: &mut Sending,
    (most, wait): (u64, Duration),
) -> Result<(), AttemptError> {
    let Some(framing) = sending.rest else { return Ok(()) };
    let fits = !matches!(framing, Framing::Length(length) if length > most);
    // A client that waits to be asked for the body would wait here for nothing.
    if !fits || turn.plan.expects_continue {
        return Ok(());
    }
    let mut body = WholeBody::left(framing, most);
    let (client, plan, upload) = (&mut *turn.client, turn.plan, Uploading::begin(turn.plan));
    client.deadline.set(Instant::now() + wait);
    let whole = poll_fn(|cx| match body.poll(cx, client) {
        Poll::Ready(read) => Poll::Ready(Some(read.is_ok())),
        Poll::Pending if upload.as_ref().is_some_and(|upload| upload.is_cut(cx)) => {
            Poll::Ready(None)
        }
        Poll::Pending => client.deadline.poll_passed(cx).map(|()| Some(false)),
    });
    let whole = whole.await.ok_or(AttemptError::ClientSlow)?;
    if is_ousted(plan, turn.worker, plan.version()) {
        return Err(AttemptError::Unconnected(ProxyError::NoVersion));
    }
    if !whole {
        return Ok(());
    }
    let (body, read) = body.into_parts();
    turn.request.put(&body);
    client.inbox.consume(read);
    sending.trailers = client.stream.take_trailers().and_then(permitted).map(Box::new);
    if turn.plan.framing.is_open() {
        head_text::measure(&mut turn.request);
        sending.measured = true;
    }
    (sending.rest, sending.uploading, turn.unread_body) = (None, false, false);
    turn.record.gathered(body.len());
    // The client's time is not the version's.
    sending.began = Instant::now();
    Ok(())
}
