//! Writes that wait until what is read-only accepts changes again, and what those are told that are refused.

use std::{future::poll_fn, sync::Arc, task::Poll, time::SystemTime};

use tokio::time::Instant;

use super::{
    client::Client,
    problem::{Extra, Problem, RETRY_AFTER},
};
use crate::{
    registry::{HeldWrite, HoldEvent, HoldState, HoldTurn},
    snapshot::{Hold, Refusal},
};

const fn problem(kind: &'static str, detail: &'static str) -> Problem {
    Problem { status: 503, kind, detail, retry_after: RETRY_AFTER }
}

pub(super) const REFUSED: Problem = problem(
    "read_only",
    "changes are not accepted for a while, only reads; this request was not sent",
);
pub(super) const FULL: Problem = problem(
    "read_only_full",
    "changes are not accepted for a while, and too many wait for that; this request was not sent",
);
const LATE: Problem = problem(
    "read_only_late",
    "the request has waited for too long until changes are accepted again; this request was not sent",
);
const LEFT: Problem = problem(
    "read_only_left",
    "the client ended its side of the connection while its request waited; this request was not sent",
);
pub(super) const LEAVING: Problem = problem(
    "read_only_moved",
    "the process that held the request ends; this request was not sent, try again on a new connection",
);

/// Whether no further request of the connection can be served where `problem` comes from.
pub(super) fn ends_connection(problem: &Problem) -> bool {
    problem.kind == LEAVING.kind
}

/// A write that waits until changes are accepted again.
pub(super) struct HeldUntilWritable {
    place: HeldWrite,
    until: Instant,
    /// Most bytes of all that wait.
    bytes: usize,
    /// What it is told if it is refused after all.
    refusal: Option<Arc<Refusal>>,
}

/// The response to a write that is refused as `problem`, with what the mode says.
pub(super) fn told(problem: Problem, refusal: Option<&Refusal>) -> (Problem, Option<Box<Extra>>) {
    let Some(refusal) = refusal else { return (problem, None) };
    refusal.state.refused_read_only();
    let retry_after = match problem.kind {
        // Another process holds it.
        kind if kind == LEAVING.kind => RETRY_AFTER,
        _ => refusal.retry_after(SystemTime::now().into()),
    };
    let fields = refusal.fields.clone().into_bytes();
    let members = format!("{},\"retry_after\":{retry_after}", refusal.members);
    (
        Problem { retry_after, ..problem },
        Some(Box::new(Extra { fields, members, by: Some(refusal.scope.into()) })),
    )
}

impl HeldUntilWritable {
    /// A write with this `place` in the queue of `hold`.
    pub(super) fn new(hold: &Hold, place: HeldWrite, refusal: Option<Arc<Refusal>>) -> Self {
        Self { place, until: Instant::now() + hold.deadline, bytes: hold.bytes, refusal }
    }

    /// Until when it waits.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Whether it is in this queue.
    pub(super) fn is_in(&self, state: &Arc<HoldState>) -> bool {
        Arc::ptr_eq(self.place.state(), state)
    }

    /// The same write, that waits on at its place since the mode has begun again.
    pub(super) fn again(self, refusal: Option<Arc<Refusal>>) -> Self {
        self.place.wait_again();
        Self { refusal, ..self }
    }

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
            if client.has_left(cx) {
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
