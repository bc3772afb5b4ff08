//! The stage *forward*: one attempt, from the choice of an endpoint to the head of its answer.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{
    attempt::{Answer, Attempt, AttemptError, Head, Moved},
    buffer::Buffer,
    channel::{Channel, MessageIo as _},
    client::Client,
    connect::{connect_or_join, take_pooled},
    gather::gather,
    pace,
    plan::Plan,
    problem::ProxyError,
    sending::Sending,
    trailers::permitted,
    turn::Turn,
};
use crate::{config::schema::Protocol, snapshot::Version};

/// Makes one attempt; it is in `turn` until the next. Returns the answer, whose head then stands in the turn's
/// response, and when it came.
pub(super) async fn forward<'a>(
    turn: &mut Turn<'a>,
    sending: &mut Sending,
) -> Result<(Answer, Instant), AttemptError> {
    let Turn { client, request, response, record, attempt, unread_body, .. } = turn;
    let (worker, plan): (_, &'a Plan) = (turn.worker, turn.plan);
    let version = plan.version();
    let target = sending.choose(worker, version);
    let target = target.ok_or(AttemptError::Failed(ProxyError::NoEndpoint))?;
    let began = sending.began;
    record.attempt(target, began);
    client.deadline.set(sending.due);

    // A request that cannot be sent again must not meet a dead connection.
    let thorough = !plan.idempotent || sending.rest.is_some();
    let (endpoint, encrypted) = (target.endpoint().id, version.tls.is_some());
    let pooled = match (sending.failed, version.protocol) {
        (Some(_), _) => None,
        (None, Protocol::H1) => {
            let mut pools = worker.pools.borrow_mut();
            pools.take(endpoint, encrypted, thorough, began).map(Channel::Wire)
        }
        (None, _) => {
            let switches = switches(plan, version);
            take_pooled(worker, endpoint, encrypted, thorough, began, switches)
        }
    };
    if !sending.uploading {
        record.asked(began, true);
    }
    let (mut upstream, reused) = match pooled {
        Some(upstream) => (upstream, true),
        None => {
            if sending.rest.is_none() {
                client.hold_little(worker, request);
            }
            let switches = switches(plan, version);
            let (failed, due) = (sending.failed, sending.due);
            let connected =
                connect_or_join(worker, plan.service(), target, failed, switches, due).await;
            let (upstream, reused) = connected.map_err(AttemptError::Unconnected)?;
            // Nor is a version slower because fewer of its connections are kept.
            if !reused {
                record.connected();
            }
            if !sending.uploading {
                record.asked(Instant::now(), false);
            }
            (upstream, reused)
        }
    };
    if sending.failed.is_some() && plan.framing.is_open() && !upstream.is_stream() {
        // The head announces chunks, and the body is here without.
        return Err(AttemptError::Failed(ProxyError::Reset));
    }
    if let Some(framing) = sending.rest
        && upstream.is_stream()
        && let Some(length) = gather(client, framing, request)
    {
        (sending.rest, sending.uploading, *unread_body) = (None, false, false);
        record.gathered(length);
        record.asked(Instant::now(), false);
        sending.trailers = client.stream.take_trailers().and_then(permitted).map(Box::new);
    }
    if let Some(trailers) = &sending.trailers {
        upstream.put_trailers((**trailers).clone());
    }

    let made = Attempt::new(worker, plan, target, upstream, reused, sending.rest);
    let attempt = attempt.insert(made);
    let patience = record.patience();
    // Where the route's own timeout is sooner, that ends the attempt first.
    let late_at = |asked: Instant| patience.map(|patience| asked + patience);
    client.deadline.notice_at(if sending.uploading { None } else { late_at(began) });
    let (mut sends, mut stall) = (false, None);
    let head = poll_fn(|cx| {
        let polled = poll_head(cx, attempt, client, plan, request, response);
        // A client that ends its side while it waits has left, most likely. It gets its answer, but the
        // comparison waits for it no longer.
        if std::mem::replace(&mut sends, !client.sent_all) && client.sent_all {
            record.parted();
        }
        if sending.uploading && attempt.request_is_read() {
            sending.uploading = false;
            let now = Instant::now();
            record.asked(now, false);
            client.deadline.notice_at(late_at(now));
        } else if sending.uploading && std::mem::replace(&mut stall, attempt.stall()) != stall {
            let since = stall.map(|_| Instant::now());
            record.stalls(since);
            client.deadline.notice_at(since.and_then(late_at));
        }
        if client.deadline.take_notice() {
            record.late();
        }
        polled
    });
    let head = head.await;
    client.deadline.notice_at(None);
    record.bytes_in = record.bytes_in.max(attempt.body_bytes);
    let mut answer = head?;
    record.amounts = answer.amounts.take();
    let now = Instant::now();
    record.answered(answer.status, now);
    Ok((answer, now))
}

/// The protocol that a connection to `version` must be able to go on in. HTTP/2 can for WebSocket alone, and not
/// all who speak it do; where the endpoint may speak HTTP/1.1, that can.
fn switches<'p>(plan: &'p Plan, version: &Version) -> Option<&'p str> {
    plan.upgrade().filter(|_| version.protocol == Protocol::Auto)
}

/// Moves an attempt on until the head of its answer is in: sends the request's text, and what the client sends
/// of the body; passes interim answers on to the client, and notices one that leaves.
fn poll_head(
    cx: &mut Context<'_>,
    attempt: &mut Attempt<'_>,
    client: &mut Client,
    plan: &Plan,
    request: &Buffer,
    response: &mut Buffer,
) -> Poll<Result<Answer, AttemptError>> {
    if !attempt.pass_interim(cx, &mut client.stream) {
        return Poll::Ready(Err(AttemptError::ClientGone));
    }
    let mut came_interim = false;
    loop {
        while let Poll::Ready(head) = attempt.poll_head(cx, request, response) {
            match head.map_err(AttemptError::Failed)? {
                Head::Final(answer) => return Poll::Ready(Ok(answer)),
                Head::Interim => came_interim = true,
            }
            if !attempt.pass_interim(cx, &mut client.stream) {
                return Poll::Ready(Err(AttemptError::ClientGone));
            }
        }
        // An endpoint that sends them without a pause leaves no turn for the timer.
        if came_interim && client.deadline.has_passed(Instant::now()) {
            return Poll::Ready(Err(AttemptError::Failed(ProxyError::Timeout)));
        }
        if !attempt.has_sent(request) {
            break;
        }
        let moved = attempt.poll_upload(cx, &mut client.stream, &mut client.inbox)?;
        let Some(moved) = moved else { break };
        let now = Instant::now();
        client.deadline.set(match moved {
            Moved::On => upload_due(attempt, plan, now),
            Moved::ToItsEnd => plan.until(now, plan.route().timeout),
        });
        if !attempt.may_switch() {
            break;
        }
    }
    if !attempt.uploads() && !client.is_there(cx) {
        return Poll::Ready(Err(AttemptError::ClientGone));
    }
    let uncalled = plan.expects_continue && !attempt.answered;
    client.deadline.poll_passed(cx).map(|()| match attempt.waits_for_body(&client.inbox) {
        true if !uncalled => Err(AttemptError::ClientSlow),
        _ => Err(AttemptError::Failed(ProxyError::Timeout)),
    })
}

/// When an attempt whose bodies moved `now` has stood still for too long, or its upload been too slow.
pub(super) fn upload_due(attempt: &Attempt<'_>, plan: &Plan, now: Instant) -> Instant {
    let limits = plan.route().body;
    let due = plan.until(now, limits.timeout);
    if !attempt.uploads() || plan.mode.grpc {
        return due;
    }
    pace::due(limits, plan.began, attempt.body_bytes).map_or(due, |slow| due.min(slow))
}
