//! Sends failed requests of routes with `retry` again: gathers what [`decide`](crate::policy::retry::decide)
//! asks for, and does what it says.
//!
//! Nothing of a response has been committed when this is asked, and the request's text is whole, so an answer
//! with an error can be dropped and another attempt be made: by another endpoint of the version, or by the
//! baseline. Requests of other routes pass by with one test, and smoke checks never come here: they ask what a
//! version answers, not what players get.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    attempt::AttemptError,
    attempts::Attempts,
    head_text,
    others::Others,
    ousted::{by_now, is_ousted},
    overload::retry_after,
    plan::Plan,
    problem::ProxyError,
    sending::Sending,
    turn::Turn,
    worker::Worker,
};
use crate::{
    config::units::Weight,
    policy::idempotency::parse_key,
    policy::retry::{
        self, Failed, Next, Outcome, Place, Request, RetryAfter, RetryReason, Withheld,
    },
    snapshot::{RetryPlan, Version},
};

/// The field of a call's remaining time.
const GRPC_TIMEOUT: &str = "grpc-timeout";

impl Plan {
    /// How the request is repeated, if its route says so.
    pub(super) fn retry(&self) -> Option<&RetryPlan> {
        self.route().policies.as_ref()?.retry.as_ref()
    }
}

/// Begins the attempts of a request of a route with policies. Returns the largest body that is to be kept
/// and the longest wait for it, if part of one has yet to arrive.
#[cold]
pub(super) fn begin(turn: &Turn<'_>, sending: &mut Sending) -> Option<(u64, Duration)> {
    let retry = turn.plan.retry()?;
    if turn.client.connected.smoke.is_some() {
        return None;
    }
    sending.attempts = Some(Box::new(Attempts::first(sending.due)));
    sending.rest.map(|_| (retry.body_bytes, retry.body_wait))
}

/// Sets the deadlines of a request that may be repeated, once its body has been waited for. A trusted proxy in
/// front may have given it less time than the route; what is no time counts as not said.
#[cold]
pub(super) fn set_deadlines(turn: &mut Turn<'_>, sending: &mut Sending) {
    let plan = turn.plan;
    let (Some(attempts), Some(retry)) = (&mut sending.attempts, plan.retry()) else { return };
    let timeout = plan.route().timeout;
    let told = head_text::only_field(turn.request.data(), RetryPlan::DEADLINE);
    let told = told.filter(|value| value.iter().all(u8::is_ascii_digit));
    let told = told.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    let told = told.filter(|milliseconds| *milliseconds > 0).map(Duration::from_millis);
    let time = told.map_or(timeout, |told| told.min(timeout));
    if told != Some(time) {
        let milliseconds = time.as_millis().to_string();
        let request = &mut turn.request;
        head_text::set_only_field(request, RetryPlan::DEADLINE, milliseconds.as_bytes());
    }
    attempts.ends = plan.until(sending.began, time);
    sending.due = attempts.due(retry, sending.began);
}

impl From<ProxyError> for Outcome {
    fn from(fault: ProxyError) -> Self {
        match fault {
            ProxyError::Connect | ProxyError::ConnectTimeout | ProxyError::Tls => Self::Unconnected,
            // The version was ejected before anything was sent to it.
            ProxyError::NoEndpoint | ProxyError::NoVersion => Self::Unconnected,
            ProxyError::Timeout => Self::Timeout,
            ProxyError::Reset | ProxyError::Protocol => Self::Reset,
            ProxyError::ManyFields | ProxyError::LargeHead => Self::Reset,
            ProxyError::NoRoute => Self::Ours,
            ProxyError::Want | ProxyError::TooManyRequests | ProxyError::TooManyPending => {
                Self::Ours
            }
        }
    }
}

/// Whether no attempt is left for the version after a lost connection, where the route says how many it makes: all were made,
/// or the last one is the baseline's.
#[cold]
pub(super) fn are_spent(turn: &Turn<'_>, sending: &Sending) -> bool {
    let (plan, worker) = (turn.plan, turn.worker);
    let (Some(attempts), Some(retry)) = (&sending.attempts, plan.retry()) else { return false };
    let rules = &retry.rules;
    rules.are_spent(attempts.made)
        || rules.are_spent(attempts.made + 1)
            && rules.rescues_lost(request(turn, sending.rest.is_none()))
            && has_rescuer(plan, worker, attempts)
}

/// Takes one sending after a lost connection out of the budget, if the route has one; false if there is none left.
#[cold]
pub(super) fn may_spend(plan: &Plan, worker: &Worker, sending: &Sending) -> bool {
    let (Some(_), Some(retry)) = (&sending.attempts, plan.retry()) else { return true };
    withdraw(plan, worker, retry, Instant::now())
}

fn withdraw(plan: &Plan, worker: &Worker, retry: &RetryPlan, now: Instant) -> bool {
    let requests = plan.route().series.iter().flat_map(|series| series.cells.iter());
    let requests = requests.flat_map(|cells| &cells.classes).map(|class| class.read()).sum();
    retry.state.withdraw(worker.since_start(now).as_secs(), requests, retry.rules.allowance)
}

/// Asks whether the request is sent once more after an attempt with this `outcome`, which is recorded already.
/// If so, gives the attempt up, and returns when the next one begins.
#[cold]
pub(super) fn again(
    turn: &mut Turn<'_>,
    sending: &mut Sending,
    outcome: Outcome,
    now: Instant,
) -> Option<Instant> {
    let (plan, worker) = (turn.plan, turn.worker);
    let (Some(attempts), Some(retry)) = (&mut sending.attempts, plan.retry()) else { return None };
    let has_rescuer = has_rescuer(plan, worker, attempts);
    let unprocessed = match outcome {
        Outcome::Unconnected => true,
        Outcome::Status => false,
        _ => turn.attempt.as_ref().is_some_and(|attempt| attempt.is_unprocessed()),
    };
    let failed = Failed {
        request: request(turn, sending.rest.is_none() || outcome == Outcome::Unconnected),
        outcome,
        unprocessed: attempts.note(unprocessed),
        begun: turn.attempt.as_ref().is_some_and(|attempt| attempt.has_interim),
        attempts: attempts.made,
        has_rescuer,
        ousted: is_ousted(plan, worker, turn.record.target().map_or(plan.version(), |t| t.version)),
        retry_after: match (outcome, turn.record.status) {
            (Outcome::Status, 503) => retry_after(turn.response.data()),
            _ => RetryAfter::Unsaid,
        },
        left: attempts.ends.saturating_duration_since(now),
        random: fastrand::f64(),
    };
    let withdraw = || withdraw(plan, worker, retry, now);
    let (place, after, reason) = match retry::decide(&retry.rules, &failed, withdraw) {
        Next::Again { place, after, reason } => (place, after, reason),
        Next::GiveUp(reason) => {
            turn.record.withheld(reason);
            return None;
        }
    };
    attempts.made += 1;
    let (begins, left) = (now + after, failed.left - after);
    sending.due = attempts.due(retry, begins);
    attempts.is_rescued |= place == Place::Baseline;
    give_up(turn, sending, (place, reason), now);
    tell_deadline(turn, left);
    if plan.framing.is_open() && sending.rest.is_none() {
        head_text::measure(&mut turn.request);
        sending.measured = true;
    }
    sending.began = begins;
    Some(begins)
}

/// Waits until the next attempt begins. Whoever waits is told at once that the version is ejected.
///
/// # Errors
///
/// The client leaves before, or the version is ejected meanwhile.
#[cold]
pub(super) async fn pause(
    turn: &mut Turn<'_>,
    sending: &Sending,
    until: Instant,
) -> Result<(), AttemptError> {
    let (plan, worker) = (turn.plan, turn.worker);
    let others = sending.others.as_ref();
    let version = others.map_or(plan.version(), |others| others.target(plan).version);
    let client = &mut *turn.client;
    client.deadline.set(until);
    // The response to a key is kept for the client's return.
    let stays = plan.key().is_some();
    let mut news = pin!(worker.refreshed.notified());
    let is_there = poll_fn(|cx| {
        while news.as_mut().poll(cx).is_ready() {
            if is_ousted(plan, worker, version) {
                return Poll::Ready(true);
            }
            news.set(worker.refreshed.notified());
        }
        match client.is_there(cx) || stays {
            false => Poll::Ready(false),
            true if client.deadline.has_passed(Instant::now()) => Poll::Ready(true),
            true => client.deadline.poll_passed(cx).map(|()| true),
        }
    });
    if !is_there.await {
        return Err(AttemptError::ClientGone);
    }
    if is_ousted(plan, worker, version) {
        turn.record.withheld(Withheld::Ejected);
        turn.record.failed(ProxyError::NoVersion);
        return Err(AttemptError::Failed(ProxyError::NoVersion));
    }
    Ok(())
}

/// The request of `turn` as far as repeating it is concerned; `whole`: all of it can still be sent.
fn request<'t>(turn: &'t Turn<'_>, whole: bool) -> Request<'t> {
    let (plan, text) = (turn.plan, turn.request.data());
    Request {
        class: plan.class,
        method: head_text::method(text),
        // A version that cannot read the key may take the request for one without.
        keyed: head_text::only_field(text, "Idempotency-Key")
            .is_some_and(|key| parse_key(key).is_ok()),
        whole,
        once: plan.key().is_some(),
        fenced: plan.service().fence.is_some(),
        // What begins or ends a pin happens on the version that has it.
        bound: !plan.is_by_chance() || plan.pin().is_some() || plan.upgrade().is_some(),
    }
}

/// Whether a request that went to a canary can go to the baseline.
fn has_rescuer(plan: &Plan, worker: &Worker, attempts: &Attempts) -> bool {
    let service = plan.service();
    let baseline = &service.versions[usize::from(service.baseline)];
    let has_room = service
        .breaker
        .as_ref()
        .is_none_or(|breaker| baseline.state.cells.of(worker.id).in_flight() < breaker.requests);
    plan.decision.version != service.baseline
        && !attempts.is_rescued
        && baseline.share_weight() > Weight::ZERO
        && baseline.works()
        && has_room
        && is_still_baseline(plan, worker, baseline)
}

/// Whether `baseline` has players also by the snapshot in force, if the request was planned by an older one: it may
/// have been drained since, and whoever waited for that may have ended it.
fn is_still_baseline(plan: &Plan, worker: &Worker, baseline: &Version) -> bool {
    by_now(plan, worker, true, |service| {
        let version = &service.versions[usize::from(service.baseline)];
        version.name == baseline.name && version.share_weight() > Weight::ZERO
    })
}

/// Gives the failed attempt up, and prepares the next one.
fn give_up(
    turn: &mut Turn<'_>,
    sending: &mut Sending,
    (place, reason): (Place, RetryReason),
    now: Instant,
) {
    let (plan, worker) = (turn.plan, turn.worker);
    let failed = turn.record.target();
    let before = sending.others.take();
    sending.others = match (place, failed) {
        (Place::Baseline, _) => Others::rescue(worker, plan.service(), now),
        (Place::SameVersion, Some(failed)) => Others::again(before, worker, failed, now),
        (Place::SameVersion, None) => None,
    };
    sending.failed = None;
    drop_attempt(turn);
    turn.record.again(reason);
    if place == Place::Baseline {
        let service = plan.service();
        turn.record.rescue(&service.versions[usize::from(service.baseline)]);
    }
    turn.unread_body = sending.rest.is_some();
}

/// Drops the attempt and what came of its answer. Its connection is kept if the answer is here to its end:
/// most errors are short. Otherwise the connection is closed, since what follows on it belongs to the answer.
fn drop_attempt(turn: &mut Turn<'_>) {
    let answer = turn.answer.take();
    let (Some(mut attempt), Some(mut answer)) = (turn.attempt.take(), answer) else {
        return turn.discard_attempt();
    };
    let mut response = std::mem::replace(&mut turn.response, super::buffer::Buffer::hollow());
    let mut cx = Context::from_waker(Waker::noop());
    let nowhere = &mut tokio::io::empty();
    let drained = attempt.poll_body(&mut cx, nowhere, &mut response, &mut answer);
    let is_whole = matches!(drained, Poll::Ready(Ok(())));
    turn.worker.blocks.give(response);
    if !is_whole {
        return attempt.discard();
    }
    if let Some((upstream, offered)) = attempt.into_reusable(&answer) {
        let (bounds, endpoint) = (&turn.plan.service().pool, turn.record.endpoint_id());
        let mut pools = turn.worker.pools.borrow_mut();
        pools.put(endpoint, upstream, bounds, offered, Instant::now());
    }
}

/// Tells the next endpoint the time that is left.
fn tell_deadline(turn: &mut Turn<'_>, left: Duration) {
    let milliseconds = left.as_millis().max(1);
    if turn.plan.mode.grpc {
        // Eight digits are more than a day.
        let value = format!("{}m", milliseconds.min(99_999_999));
        head_text::set_field(&mut turn.request, GRPC_TIMEOUT, value.as_bytes());
    } else {
        let value = milliseconds.to_string();
        head_text::set_field(&mut turn.request, RetryPlan::DEADLINE, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_lacks_is_no_failure_of_an_endpoint() {
        for fault in [ProxyError::Want, ProxyError::TooManyRequests, ProxyError::TooManyPending] {
            assert_eq!(Outcome::from(fault), Outcome::Ours, "{fault:?}");
        }
        assert_eq!(Outcome::from(ProxyError::ConnectTimeout), Outcome::Unconnected);
        assert_eq!(Outcome::from(ProxyError::Timeout), Outcome::Timeout);
        assert_eq!(Outcome::from(ProxyError::Protocol), Outcome::Reset);
    }
}
