//! Writes of what is read-only: they are refused, wait or go on, as their route says.
//!
//! A write is asked about before a version is chosen, so that what becomes of it is no evidence about any. Writes that
//! were sent before the mode began go on to their end.

use std::{future::poll_fn, sync::Arc, task::Poll, time::SystemTime};

use tokio::time::Instant;

use super::{
    admit::Admitted,
    channel::Channel,
    client::Client,
    problem::{Extra, Problem, RETRY_AFTER},
    rejected::Stop,
    waiting::{Passed, Wait},
};
use crate::{
    policy::class::Class,
    registry::{HeldWrite, HoldAdmission, HoldEvent, HoldTurn},
    snapshot::{Hold, OnReadOnly, Refusal, Route, Standing},
};

const fn problem(kind: &'static str, detail: &'static str) -> Problem {
    Problem { status: 503, kind, detail, retry_after: RETRY_AFTER }
}

const REFUSED: Problem =
    problem("read_only", "changes are not accepted for a while, only reads; nothing was done");
const FULL: Problem = problem(
    "read_only_full",
    "changes are not accepted for a while, and too many wait for that; nothing was done",
);
const LATE: Problem = problem(
    "read_only_late",
    "the request has waited for too long until changes are accepted again; nothing was done",
);
const LEFT: Problem = problem(
    "read_only_left",
    "the client ended its side of the connection while its request waited; nothing was done",
);
const LEAVING: Problem = problem(
    "read_only_moved",
    "the process that held the request ends; nothing was done, try again on a new connection",
);

/// A write that waits until changes are accepted again.
pub(super) struct HeldUntilWritable {
    place: HeldWrite,
    until: Instant,
    /// Most bytes of all that wait.
    bytes: usize,
    /// What it is told if it is refused after all.
    refusal: Option<Arc<Refusal>>,
}

/// What becomes of the `admitted` request of route number `number`, whose service has this `standing`.
#[cold]
#[inline(never)]
pub(super) fn enter(
    standing: Option<&Standing>,
    (number, route): (u32, &Route),
    admitted: &Admitted<'_, '_>,
    passed: &mut Passed,
) -> Result<(), Stop> {
    let class = route.class.unwrap_or_else(|| Class::of(admitted.head.method));
    if class == Class::Read {
        return Ok(());
    }
    let refusal = standing.and_then(|standing| standing.refusal(number));
    let own = route.policies.as_deref().and_then(|policies| policies.read_only.as_ref());
    match (own, refusal) {
        (Some(OnReadOnly::Hold(hold)), _) => queue(hold, refusal, passed),
        (Some(OnReadOnly::Pass), _) | (None, None) => Ok(()),
        (None, Some(refusal)) => Err(refuse(REFUSED, Some(refusal))),
    }
}

/// Lets a write wait if it must.
fn queue(hold: &Hold, refusal: Option<&Arc<Refusal>>, passed: &mut Passed) -> Result<(), Stop> {
    if refusal.is_none() && passed.is_writable {
        return Ok(());
    }
    if let Some(held) =
        passed.read_only.take_if(|held| Arc::ptr_eq(held.place.state(), &hold.state))
    {
        // The mode has begun again since it was called.
        held.place.wait_again();
        let refusal = refusal.cloned();
        return Err(Stop::Wait(Wait::Writable(Box::new(HeldUntilWritable { refusal, ..held }))));
    }
    match hold.state.admit(refusal.is_some(), hold.queue) {
        HoldAdmission::Pass => Ok(()),
        HoldAdmission::Hold(place) => {
            let until = Instant::now() + hold.deadline;
            let (bytes, refusal) = (hold.bytes, refusal.cloned());
            let held = HeldUntilWritable { place, until, bytes, refusal };
            Err(Stop::Wait(Wait::Writable(Box::new(held))))
        }
        HoldAdmission::Refuse(HoldEvent::Dismissed) => Err(refuse(LEAVING, refusal)),
        HoldAdmission::Refuse(_) => Err(refuse(FULL, refusal)),
    }
}

fn refuse(problem: Problem, refusal: Option<&Arc<Refusal>>) -> Stop {
    let (problem, extra) = told(problem, refusal.map(|refusal| &**refusal));
    Stop::Answer(problem, extra)
}

/// The response to a write that is refused as `problem`, with what the mode says.
fn told(problem: Problem, refusal: Option<&Refusal>) -> (Problem, Option<Box<Extra>>) {
    let Some(refusal) = refusal else { return (problem, None) };
    refusal.state.refused_read_only();
    let retry_after = match problem.kind {
        // Another process holds it.
        kind if kind == LEAVING.kind => RETRY_AFTER,
        _ => refusal.retry_after(SystemTime::now().into()),
    };
    let fields = refusal.field.clone().into_bytes();
    let members = format!("{},\"retry_after\":{retry_after}", refusal.members);
    (Problem { retry_after, ..problem }, Some(Box::new(Extra { fields, members })))
}

impl HeldUntilWritable {
    /// Waits until the write may begin. The error is the response if it is refused.
    pub(super) async fn called(
        self,
        client: &mut Client,
    ) -> Result<Self, (Problem, Option<Box<Extra>>)> {
        let Self { place, until, bytes, refusal } = &self;
        let refusal = refusal.as_deref();
        let refused = |event, problem| {
            place.give_up(event);
            Err(told(problem, refusal))
        };
        if !place.weigh(client.inbox.len() + client.inbox.space(), *bytes) {
            return refused(HoldEvent::Full, FULL);
        }
        client.deadline.set(*until);
        let called = poll_fn(|cx| {
            match place.poll_called(cx) {
                Poll::Ready(HoldTurn::Begin) => return Poll::Ready(Ok(())),
                Poll::Ready(HoldTurn::Leave) => {
                    return Poll::Ready(Err((HoldEvent::Dismissed, LEAVING)));
                }
                Poll::Pending => {}
            }
            // A write that has not begun is best not begun for somebody who has left.
            let has_left = match &mut client.stream {
                Channel::ServerStream(stream) => stream.poll_left(cx).is_ready(),
                Channel::Wire(_) | Channel::ClientStream(_) => {
                    !client.is_there(cx) || client.sent_all
                }
            };
            if has_left {
                return Poll::Ready(Err((HoldEvent::Left, LEFT)));
            }
            client.deadline.poll_passed(cx).map(|()| Err((HoldEvent::Late, LATE)))
        });
        match called.await {
            Ok(()) => Ok(self),
            Err((event, problem)) => refused(event, problem),
        }
    }
}
