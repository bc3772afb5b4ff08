//! The life of a request, from its first byte to its record.
//!
//! [`plan`] is *admit*, *route*, *assign* and *render*, each in a file of its own; then come *forward*, *answer*
//! and *record*. A request may be forwarded several times: the one place where that is decided is [`decide`].

use std::{
    future::{Future as _, poll_fn},
    rc::Rc,
    task::Poll,
};

use tokio::time::Instant;

use super::{
    answer::answer,
    attempt::AttemptError,
    buffer::Buffer,
    client::{Client, NextState},
    forward::forward,
    gather_soon::gather_soon,
    head::HeadError,
    ousted::is_ousted,
    own::{Own, record_gone},
    pieces::Pieces,
    plan::{Plan, plan},
    problem::ProxyError,
    rejected::Rejected,
    replay::{REPLAYED, replay},
    reply::{fail, refuse},
    retry,
    sending::Sending,
    target::Target,
    tunnel::tunnel,
    turn::Turn,
    waiting::{Passed, Waited},
    whole_body::NoBody,
    worked::worked,
    worker::Worker,
};
use crate::{
    policy::retry::{Lost, Outcome, may_repeat},
    registry::RetryReason,
};

/// Serves the next request of `client`, of which at least one byte can be read.
pub(super) async fn handle(client: &mut Client, worker: &Rc<Worker>) -> NextState {
    // Gets its block when a head may be complete.
    let mut request = Buffer::hollow();
    // Built in place: moving a plan costs more than most of the work done with it.
    let mut planned = None;
    let mut passed = Passed::default();
    let read = read(client, worker, &mut request, &mut planned, &mut passed).await;
    match read.map(|()| planned.as_ref()) {
        Ok(Some(plan)) => serve(client, worker, plan, request).await,
        // The client left before it sent a whole head.
        Ok(None) | Err(None) => NextState::Close,
        Err(Some(refused)) => {
            worker.blocks.give(request);
            if refused.waiting.is_some() {
                return Box::pin(hold(client, worker, refused, passed)).await;
            }
            match client.begins_http2(refused.problem.status) {
                true => NextState::Http2,
                false => refuse(client, worker, &refused, passed.rates.as_deref()).await,
            }
        }
    }
}

/// Serves a planned request.
async fn serve(client: &mut Client, worker: &Worker, plan: &Plan, request: Buffer) -> NextState {
    let mut turn = Turn::new(client, worker, plan, request);
    let mut sending = Sending::begin(&mut turn);
    let mut gathered = Ok(());
    if plan.route().policies.is_some() {
        if let Some(bounds) = retry::begin(&turn, &mut sending) {
            // On the heap, as all that few requests need.
            gathered = Box::pin(gather_soon(&mut turn, &mut sending, bounds)).await;
        }
        retry::set_deadlines(&mut turn, &mut sending);
    }
    let forwarded = loop {
        let outcome = match std::mem::replace(&mut gathered, Ok(())) {
            Ok(()) => forward(&mut turn, &mut sending).await,
            Err(error) => Err(error),
        };
        match decide(&mut turn, &mut sending, outcome) {
            Next::Commit(came) => break Ok(came),
            Next::Again => {}
            Next::Later(begins) => {
                let paused = Box::pin(retry::pause(&mut turn, &sending, begins)).await;
                if let Err(error) = paused {
                    break Err(error);
                }
            }
            Next::Fail(error) => break Err(error),
        }
    };
    turn.commit();
    if let Some(taken) = turn.plan.places() {
        worked(&turn, taken);
    }
    let after = match forwarded {
        Ok(_) if turn.record.status == 101 => {
            turn.record.switched();
            // On the heap, so that the tasks of all other connections stay small.
            Box::pin(tunnel(&mut turn)).await;
            NextState::Close
        }
        Ok(came) => {
            let due = turn.plan.until(came, turn.plan.route().body.timeout);
            turn.client.deadline.set(due);
            answer(&mut turn, came).await
        }
        Err(error) => fail(&mut turn, error).await,
    };
    // In place, since a move is a copy of 200 bytes.
    turn.client.idle_since = turn.record.record();
    worker.blocks.give(std::mem::replace(&mut turn.response, Buffer::hollow()));
    after
}

/// Serves a request that waits, once it may begin, as far as it is served.
#[cold]
async fn hold(
    client: &mut Client,
    worker: &Worker,
    mut held: Box<Rejected>,
    mut passed: Passed,
) -> NextState {
    passed.head_at = Some(held.head_at);
    while let Some(waiting) = held.waiting.take() {
        match waiting.end(client, worker, &mut passed).await {
            Waited::Again => {}
            Waited::Refused(problem, extra) => {
                (held.problem, held.extra) = (problem, extra);
                break;
            }
            Waited::NoBody(NoBody { response, bytes }) => {
                held.bytes_in = bytes;
                let Some(problem) = response else {
                    record_gone(worker, client, &held);
                    return NextState::Close;
                };
                held.problem = problem;
                break;
            }
            Waited::Replay(answer, waited) => {
                let added = passed.rates.as_deref().unwrap_or_default();
                let added = [added, REPLAYED].concat();
                let own = if waited { Own::Held } else { Own::Replayed };
                return replay(client, worker, &held, (&answer, own), &added).await;
            }
            Waited::Own(answer) => {
                let added = passed.rates.as_deref().unwrap_or_default();
                return replay(client, worker, &held, (&answer, Own::Notices), added).await;
            }
        }
        let (mut request, mut planned) = (worker.blocks.take(), None);
        match plan(client, worker, &mut request, &mut planned, &mut passed) {
            Ok(()) => {
                // The head was complete before.
                let Some(plan) = &planned else { return NextState::Close };
                let mut served = Box::pin(serve(client, worker, plan, request));
                // It is counted as in flight, and sent if there is a connection, before the next one is called.
                let begun = poll_fn(|cx| Poll::Ready(served.as_mut().poll(cx))).await;
                drop(passed);
                return match begun {
                    Poll::Ready(after) => after,
                    Poll::Pending => served.await,
                };
            }
            Err(again) => {
                worker.blocks.give(request);
                held = again;
            }
        }
    }
    refuse(client, worker, &held, passed.rates.as_deref()).await
}

/// Reads until a head is complete, and plans the request.
async fn read(
    client: &mut Client,
    worker: &Worker,
    request: &mut Buffer,
    planned: &mut Option<Plan>,
    passed: &mut Passed,
) -> Result<(), Option<Box<Rejected>>> {
    let (mut tried, mut pieces) = (false, Pieces::default());
    loop {
        if !client.inbox.is_empty() {
            if pieces.may_be_whole(client.inbox.data()) {
                *request = worker.blocks.take();
                plan(client, worker, request, planned, passed).map_err(Some)?;
                if planned.is_some() {
                    return Ok(());
                }
                pieces.wait(&mut client.inbox);
                // A slow client must not occupy blocks while the worker waits for it.
                worker.blocks.give(std::mem::replace(request, Buffer::hollow()));
                worker.blocks.shrink(&mut client.inbox);
            }
            let snapshot = worker.snapshot();
            let limits = &snapshot.limits;
            if client.inbox.len() as u64 >= limits.header_bytes.0 {
                let refused = Rejected::too_large(client.inbox.data(), limits.header_bytes.0);
                return Err(Some(Box::new(refused)));
            }
            if !std::mem::replace(&mut tried, true) {
                client.deadline.set(Instant::now() + limits.header_timeout);
            }
            if client.inbox.space() == 0 {
                client.inbox.grow();
            }
        }
        let read = poll_fn(|cx| {
            if let Poll::Ready(filled) = client.inbox.poll_fill(cx, &mut client.stream) {
                return Poll::Ready(Some(filled.unwrap_or(0)));
            }
            // While the worker drains, it waits for a head no longer than for an idle client.
            if let Some(until) = worker.idle_until.get() {
                client.deadline.sooner(until);
            }
            client.deadline.poll_passed(cx).map(|()| None)
        });
        match read.await {
            Some(0) => return Err(None),
            Some(_) => {}
            None if client.inbox.is_empty() => return Err(None),
            None => {
                let refusal = HeadError { status: 408, detail: "the head did not arrive in time" };
                return Err(Some(Box::new(Rejected::unread(refusal))));
            }
        }
    }
}

/// What follows an attempt.
enum Next {
    /// Its response, whose head arrived at that time, goes to the client.
    Commit(Instant),
    /// Another attempt is made.
    Again,
    /// Another attempt is made at this time.
    Later(Instant),
    /// The client gets an error, since no version responded.
    Fail(AttemptError),
}

/// Decides what follows an attempt: its response is committed to the client, another attempt is made, or the
/// request fails. Up to this point the client has received nothing but interim responses.
fn decide(
    turn: &mut Turn<'_>,
    sending: &mut Sending,
    outcome: Result<Instant, AttemptError>,
) -> Next {
    match outcome {
        Ok(came) if turn.record.status < 500 => Next::Commit(came),
        Ok(came) => after_error(turn, sending, came),
        Err(AttemptError::Unconnected(fault)) => after_no_connection(turn, sending, fault),
        Err(error) => after_no_answer(turn, sending, error),
    }
}

/// The version answered with an error, at that time. The client gets it unless the request is repeated.
#[cold]
fn after_error(turn: &mut Turn<'_>, sending: &mut Sending, came: Instant) -> Next {
    match retry::again(turn, sending, Outcome::Status, came) {
        Some(begins) => Next::Later(begins),
        None => Next::Commit(came),
    }
}

/// Nothing was sent, so another endpoint may be tried whatever the method is.
#[cold]
fn after_no_connection(turn: &mut Turn<'_>, sending: &mut Sending, fault: ProxyError) -> Next {
    let (record, worker) = (&mut turn.record, turn.worker);
    let patience = turn.plan.service().connect_timeout;
    let is_smoke = turn.client.connected.smoke.is_some();
    let elsewhere = !is_smoke
        && record.target().is_some_and(|failed: Target<'_>| {
            !is_ousted(turn.plan, worker, failed.version)
                && sending.goes_elsewhere(worker, failed, fault, Instant::now(), patience)
        });
    if !elsewhere {
        record.failed(fault);
        return match retry::again(turn, sending, fault.into(), Instant::now()) {
            Some(begins) => Next::Later(begins),
            None => Next::Fail(AttemptError::Unconnected(fault)),
        };
    }
    record.unconnected(fault);
    record.retry(RetryReason::Connect);
    Next::Again
}

/// The endpoint closed a pooled connection while the request was being sent, or stated that it did not process
/// the request, or failed.
#[cold]
fn after_no_answer(turn: &mut Turn<'_>, sending: &mut Sending, error: AttemptError) -> Next {
    let spent = retry::are_spent(turn, sending);
    let Turn { plan, request, record, attempt: made, unread_body, .. } = turn;
    let Some(attempt) = made else {
        let AttemptError::Failed(fault) = error else { return Next::Fail(error) };
        record.failed(fault);
        return match retry::again(turn, sending, fault.into(), Instant::now()) {
            Some(begins) => Next::Later(begins),
            None => Next::Fail(error),
        };
    };
    if let Some(key) = plan.key()
        && attempt.is_unprocessed()
    {
        key.unprocessed();
    }
    let lost = error == AttemptError::Failed(ProxyError::Reset) && !attempt.answered;
    let refused = lost && attempt.is_refused();
    if refused
        && sending.rest.is_some()
        && let Some(body) = attempt.take_body().filter(|body| body.len() <= request.space())
    {
        request.put(&body);
        sending.rest = None;
    }
    match error {
        AttemptError::Failed(ProxyError::Timeout) if record.is_given_up() => attempt.doubt(),
        AttemptError::Failed(ProxyError::Timeout) => attempt.suspect(),
        AttemptError::ClientGone => attempt.doubt(),
        _ => {}
    }
    let is_counted = !attempt.is_unprocessed();
    let again =
        lost && may_repeat(Lost {
            whole: sending.rest.is_none(),
            idempotent: plan.idempotent,
            unprocessed: !is_counted,
            reused: attempt.reused,
            refused,
            repeated: sending.failed.is_some(),
            spent,
        }) && !record.target().is_some_and(|target| is_ousted(plan, turn.worker, target.version))
            && (!is_counted || retry::may_spend(plan, turn.worker, sending));
    if again {
        if let Some(attempts) = &mut sending.attempts {
            attempts.note(!is_counted);
            attempts.made += u32::from(is_counted);
        }
        sending.failed = Some(attempt.connection());
        sending.began = Instant::now();
        record.retry(RetryReason::StaleConnection);
        turn.discard_attempt();
        return Next::Again;
    }
    *unread_body = !attempt.request_is_read();
    if let AttemptError::Failed(fault) = error {
        record.failed(fault);
        if let Some(begins) = retry::again(turn, sending, fault.into(), Instant::now()) {
            return Next::Later(begins);
        }
    }
    let error =
        if refused && turn.client.stream.is_stream() { AttemptError::Refused } else { error };
    Next::Fail(error)
}
