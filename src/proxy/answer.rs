//! The stage *answer*: relays an endpoint's response to the client, from its head to its last byte.

use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    attempt::{Answer, Attempt, AttemptError},
    buffer::Buffer,
    channel::MessageIo as _,
    client::{Client, NextState},
    forward::upload_due,
    grpc, pace,
    plan::Plan,
    problem::ProxyError,
    turn::Turn,
    uploading::Uploading,
};

/// Relays the response whose head arrived at `began` and is in the turn's `response`, and returns the endpoint's
/// connection to its pool if it can be used again.
pub(super) async fn answer(turn: &mut Turn<'_>, began: Instant) -> NextState {
    let Turn { client, worker, plan, response, record, attempt: made, answer, .. } = turn;
    let (Some(attempt), Some(answer)) = (&mut *made, answer) else { return NextState::Close };
    client.answering = true;
    if answer.is_stream {
        record.streams();
    }
    let mut stall = None;
    let mut upload = if attempt.uploads() { Uploading::begin(plan) } else { None };
    let relayed = poll_fn(|cx| {
        let polled = poll_answer(cx, attempt, client, plan, response, answer, began);
        if polled.is_pending() {
            if let (true, Some(upload)) = (attempt.uploads(), &mut upload)
                && upload.makes_way(cx, attempt, client)
            {
                return Poll::Ready(Err(AttemptError::ClientSlow));
            }
            record.goes_on();
            let waits_for_client = answer.waits_for_client(response);
            if waits_for_client && attempt.request_is_read() {
                client.hold_little(worker, response);
            }
            let stall = stall.get_or_insert_with(|| Stall::new(record.patience()));
            // A response that waits for the client is not late.
            if !answer.is_stream && stall.is_due(client, answer.body_bytes()) && !waits_for_client {
                record.late();
            }
        }
        polled
    });
    let relayed = relayed.await;
    if stall.is_some() {
        client.deadline.notice_at(None);
    }
    record.bytes_in = record.bytes_in.max(attempt.body_bytes);
    record.bytes_out = answer.body_bytes();
    if plan.mode.grpc
        && let Some(status) = attempt.grpc_status(answer.status, relayed.is_ok())
    {
        record.grpc_ended(status);
    }
    if let Some(key) = plan.key() {
        let left = matches!(relayed, Err(AttemptError::ClientGone | AttemptError::ClientSlow));
        if relayed.is_ok() || left && receive(attempt, client, plan, response, answer).await {
            key.answered(answer.take_copy().filter(|_| !answer.is_stream));
        }
    }
    if let Err(broken) = relayed {
        turn.discard_attempt();
        return cut(turn, broken);
    }
    client.answering = false;
    let now = record.end();
    let read = attempt.request_is_read();
    let keep = answer.keep_client && read;
    let reusable = made.take().and_then(|attempt| attempt.into_reusable(answer));
    if let Some((upstream, offered)) = reusable {
        let (bounds, endpoint) = (&plan.service().pool, record.endpoint_id());
        worker.pools.borrow_mut().put(endpoint, upstream, bounds, offered, now);
    }
    match (keep, read) {
        (true, _) => NextState::Keep,
        (false, true) => NextState::Close,
        (false, false) => NextState::Linger,
    }
}

/// Relays the response's body after its head in `response`, and the rest of the request's body.
fn poll_answer(
    cx: &mut Context<'_>,
    attempt: &mut Attempt<'_>,
    client: &mut Client,
    plan: &Plan,
    response: &mut Buffer,
    answer: &mut Answer,
    began: Instant,
) -> Poll<Result<(), AttemptError>> {
    if let Poll::Ready(relayed) = attempt.poll_body(cx, &mut client.stream, response, answer) {
        return Poll::Ready(relayed);
    }
    let uploaded = attempt.poll_upload(cx, &mut client.stream, &mut client.inbox)?.is_some();
    if answer.take_progress() || uploaded {
        let due = upload_due(attempt, plan, Instant::now());
        let slow = match answer.is_stream {
            true => None,
            false => pace::due(plan.route().body, began, answer.body_bytes()),
        };
        client.deadline.set(slow.map_or(due, |slow| due.min(slow)));
    }
    if !attempt.uploads() && !client.is_there(cx) {
        return Poll::Ready(Err(AttemptError::ClientGone));
    }
    client.deadline.poll_passed(cx).map(|()| {
        if answer.waits_for_client(response) || attempt.waits_for_body(&client.inbox) {
            return Err(AttemptError::ClientSlow);
        }
        Err(AttemptError::Failed(ProxyError::Timeout))
    })
}

/// Receives the rest of a response that is kept, although its client has left; returns whether it is whole, or will not
/// be kept: a stream, and a body that is too large, may never end. It has as long as the route gives a response.
#[cold]
async fn receive(
    attempt: &mut Attempt<'_>,
    client: &mut Client,
    plan: &Plan,
    response: &mut Buffer,
    answer: &mut Answer,
) -> bool {
    let ends = Instant::now() + plan.route().timeout;
    let due = || plan.until(Instant::now(), plan.route().body.timeout).min(ends);
    client.deadline.set(due());
    poll_fn(|cx| {
        if !answer.is_kept() {
            return Poll::Ready(true);
        }
        if let Poll::Ready(received) =
            attempt.poll_body(cx, &mut tokio::io::empty(), response, answer)
        {
            return Poll::Ready(received.is_ok());
        }
        if !answer.is_kept() {
            return Poll::Ready(true);
        }
        if answer.take_progress() {
            client.deadline.set(due());
        }
        client.deadline.poll_passed(cx).map(|()| false)
    })
    .await
}

/// Ends a response that cannot be completed. Its head was sent, so only a broken connection can tell the client.
fn cut(turn: &mut Turn<'_>, broken: AttemptError) -> NextState {
    let Turn { client, plan, record, .. } = turn;
    match broken {
        AttemptError::Failed(fault) | AttemptError::Unconnected(fault) => {
            record.failed(fault);
            if plan.mode.grpc {
                let problem = fault.problem();
                record.outcome = Some(problem.status);
                cut_call(client, grpc::trailers(problem.status, problem.detail));
            }
        }
        AttemptError::ClientGone => record.gone = true,
        // An endpoint that has begun its response cannot refuse the request any more.
        AttemptError::ClientBody | AttemptError::ClientSlow | AttemptError::Refused => {
            record.acquit();
            record.gone = true;
        }
    }
    NextState::Close
}

/// Ends a gRPC call whose response has begun and cannot be completed: its status says why.
fn cut_call(client: &mut Client, status: http::HeaderMap) {
    client.stream.put_trailers(status);
    // A stream takes its end at once; if it does not, the client's stream is reset.
    let mut cx = Context::from_waker(Waker::noop());
    client.answering = !matches!(client.stream.poll_end(&mut cx), Poll::Ready(Ok(())));
}

/// Notices a response that stands still for so long that it counts as failed.
struct Stall {
    patience: Option<Duration>,
    /// Bytes of the body when the current wait began.
    bytes: Option<u64>,
}

impl Stall {
    fn new(patience: Option<Duration>) -> Self {
        Self { patience, bytes: None }
    }

    /// Whether the response to `client` has stood still at this number of `bytes`. A timer is used only if a
    /// response does not arrive at once.
    fn is_due(&mut self, client: &mut Client, bytes: u64) -> bool {
        let Some(patience) = self.patience else { return false };
        match self.bytes {
            Some(_) if !client.deadline.take_notice() => false,
            Some(before) if before == bytes => {
                self.patience = None;
                true
            }
            _ => {
                self.bytes = Some(bytes);
                client.deadline.notice_at(Some(Instant::now() + patience));
                false
            }
        }
    }
}
