//! The stage *forward*: one attempt, from the choice of an endpoint to the head of its response.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{
    attempt::{Answer, Attempt, AttemptError, Head, Moved},
    body::Framing,
    buffer::Buffer,
    channel::{Channel, MessageIo as _},
    client::Client,
    connect::{connect_or_join, take_pooled},
    gather::gather,
    ousted::is_ousted,
    pace,
    plan::Plan,
    problem::ProxyError,
    sending::Sending,
    trailers::permitted,
    turn::Turn,
    uploading::Uploading,
};
use crate::{config::schema::Protocol, snapshot::Version};

/// Makes one attempt. The attempt and its answer stay in `turn` until the next attempt; the response's head is
/// in the turn's `response`. Returns when that head arrived.
pub(super) async fn forward<'a>(
    turn: &mut Turn<'a>,
    sending: &mut Sending,
) -> Result<Instant, AttemptError> {
    let Turn { client, request, response, record, attempt, answer, unread_body, .. } = turn;
    let (worker, plan): (_, &'a Plan) = (turn.worker, turn.plan);
    let target = sending.choose(worker, plan);
    let target = target.ok_or(AttemptError::Failed(ProxyError::NoEndpoint))?;
    let version = target.version;
    let began = sending.began;
    record.attempt(target, began);
    client.deadline.set(sending.due);

    // A request that cannot be sent again, or only so often, must not be sent on a dead connection.
    let thorough = !plan.idempotent || sending.rest.is_some() || sending.attempts.is_some();
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
            // Nothing was sent yet, and whoever ejected the version was told that nothing will be.
            if is_ousted(plan, worker, version) {
                return Err(AttemptError::Unconnected(ProxyError::NoVersion));
            }
            // A version does not count as slower because it keeps fewer connections.
            if !reused {
                record.connected();
            }
            if !sending.uploading {
                record.asked(Instant::now(), false);
            }
            (upstream, reused)
        }
    };
    let is_bare = sending.rest.is_none() && plan.framing.is_open() && !sending.measured;
    if is_bare && !upstream.is_stream() {
        // The head announces chunks, but the body that was kept has none.
        return Err(AttemptError::Failed(ProxyError::Reset));
    }
    if let Some(framing) = sending.rest
        && upstream.is_stream()
    {
        if let Channel::ServerStream(stream) = &mut client.stream {
            // From stream to stream a body ends with the stream, so that trailers are seen.
            stream.report_end();
            sending.rest = Some(Framing::UntilClose);
        }
        if let Some(length) = gather(client, framing, request) {
            (sending.rest, sending.uploading, *unread_body) = (None, false, false);
            record.gathered(length);
            record.asked(Instant::now(), false);
            sending.trailers = client.stream.take_trailers().and_then(permitted).map(Box::new);
        }
    }
    if let Some(trailers) = &sending.trailers
        && plan.snapshot.reserved.is_empty()
    {
        upstream.put_trailers((**trailers).clone());
    }

    let made = Attempt::new(worker, plan, target, upstream, reused, sending.rest);
    let attempt = attempt.insert(made);
    if let Some(key) = plan.key() {
        key.attempting();
    }
    if sending.uploading && !plan.expects_continue {
        client.deadline.set(upload_due(attempt, plan, Instant::now()));
    }
    let patience = record.patience();
    // Where the route's own timeout is sooner, that ends the attempt first.
    let late_at = |asked: Instant| patience.map(|patience| asked + patience);
    client.deadline.notice_at(if sending.uploading { None } else { late_at(began) });
    let (mut sends, mut stall) = (false, None);
    let mut upload = if sending.uploading { Uploading::begin(plan) } else { None };
    let head = poll_fn(|cx| {
        let polled = poll_head(cx, attempt, client, plan, request, response, answer);
        if let (Poll::Pending, true, Some(upload)) = (&polled, attempt.uploads(), &mut upload)
            && upload.makes_way(cx, attempt, client)
        {
            return Poll::Ready(Err(AttemptError::ClientSlow));
        }
        // A client that ends its side while it waits has probably left. It gets its response, but the
        // comparison no longer waits for the outcome.
        if std::mem::replace(&mut sends, !client.sent_all) && client.sent_all {
            record.parted();
        }
        if sending.uploading && attempt.request_is_read() {
            let now = Instant::now();
            // Also of a further attempt: the time of the upload was the client's.
            (sending.uploading, sending.due) = (false, plan.until(now, plan.route().timeout));
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
    head?;
    let now = Instant::now();
    if let Some(answer) = answer {
        record.amounts = answer.amounts.take();
        record.answered(answer.status, response.data(), now);
    }
    Ok(now)
}

/// The protocol that a connection to `version` must be able to switch to. HTTP/2 can carry only WebSocket, and
/// not every HTTP/2 server supports that; an endpoint that may also speak HTTP/1.1 is then asked in HTTP/1.1.
fn switches<'p>(plan: &'p Plan, version: &Version) -> Option<&'p str> {
    plan.upgrade().filter(|_| version.protocol == Protocol::Auto)
}

/// Continues an attempt until the head of its response has arrived: sends the request's text and the body as the
/// client sends it, passes interim responses to the client, and notices when the client leaves.
fn poll_head(
    cx: &mut Context<'_>,
    attempt: &mut Attempt<'_>,
    client: &mut Client,
    plan: &Plan,
    request: &Buffer,
    response: &mut Buffer,
    answer: &mut Option<Answer>,
) -> Poll<Result<(), AttemptError>> {
    if !attempt.pass_interim(cx, &mut client.stream) && !plan.is_awaited() {
        return Poll::Ready(Err(AttemptError::ClientGone));
    }
    let mut came_interim = false;
    loop {
        while let Poll::Ready(head) = attempt.poll_head(cx, request, response, answer) {
            match head.map_err(AttemptError::Failed)? {
                Head::Final => return Poll::Ready(Ok(())),
                Head::Interim => came_interim = true,
            }
            if !attempt.pass_interim(cx, &mut client.stream) && !plan.is_awaited() {
                return Poll::Ready(Err(AttemptError::ClientGone));
            }
        }
        // An endpoint that sends interim responses without a pause would keep the timer from being polled.
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
    if !attempt.uploads() && !client.is_there(cx) && !plan.is_awaited() {
        return Poll::Ready(Err(AttemptError::ClientGone));
    }
    let uncalled = plan.expects_continue && !attempt.answered;
    client.deadline.poll_passed(cx).map(|()| match attempt.waits_for_body(&client.inbox) {
        true if !uncalled => Err(AttemptError::ClientSlow),
        _ => Err(AttemptError::Failed(ProxyError::Timeout)),
    })
}

/// When an attempt times out whose bodies moved `now`: because nothing moves, or because the upload is too slow.
pub(super) fn upload_due(attempt: &Attempt<'_>, plan: &Plan, now: Instant) -> Instant {
    let limits = plan.route().body;
    let due = plan.until(now, limits.timeout);
    if !attempt.uploads() || plan.mode.grpc {
        return due;
    }
    pace::due(limits, plan.began, attempt.body_bytes).map_or(due, |slow| due.min(slow))
}
