//! Writes of a service whose writes are being moved to another version: they wait until they may begin.
//!
//! A write looks at the fence after it was assigned, and within the same poll it is counted as in flight. So
//! once each worker has acknowledged a command after the fence was raised, every write that did not see it is
//! counted. A write that finds the fence open must not have been assigned by an older snapshot than the one
//! in force: between its look at the snapshot and its look at the fence, the writes may have been moved.

use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll, time::Duration};

use tokio::time::Instant;

use super::{
    client::Client,
    problem::{Problem, RETRY_AFTER},
    worker::{Worker, WorkerSnapshot},
};
use crate::{
    registry::{Admission, Held},
    snapshot::Fence,
};

/// A write that is not called within this time after the deadline of the move is refused.
const PATIENCE: Duration = Duration::from_secs(30);

/// The response if the queue is full.
pub(super) const FULL: Problem = Problem {
    status: 503,
    kind: "fence_full",
    detail: "the writes of the service are being moved to another version, and too many wait for that",
    retry_after: RETRY_AFTER,
};

/// The response to a client that has ended its side, if it still reads.
const LEFT: Problem = Problem {
    status: 503,
    kind: "fence_left",
    detail: "the client ended its side of the connection while its write waited; this request was not sent",
    retry_after: RETRY_AFTER,
};

/// The response to a write that waited for too long.
const LATE: Problem = Problem {
    status: 503,
    kind: "fence_late",
    detail: "the write has waited for too long while writes were moved to another version; this request was not sent",
    retry_after: RETRY_AFTER,
};

/// What becomes of a write that was assigned by a snapshot.
pub(super) enum Entry {
    /// It goes on.
    Pass,
    /// The snapshot is no longer in force: it is planned again.
    Again,
    /// It waits.
    Hold(Held),
    /// It waits on at its place.
    HoldOn,
    /// The queue is full.
    Full,
}

/// What becomes of a write on `worker` that was assigned by `snapshot`; `own` is its place in a queue, if it has waited
/// already.
#[inline(never)]
pub(super) fn enter(
    worker: &Worker,
    snapshot: &Rc<WorkerSnapshot>,
    fence: &Fence,
    own: Option<&Held>,
) -> Entry {
    if let Some(held) = own.filter(|held| Arc::ptr_eq(held.fence(), &fence.state)) {
        return if held.is_called() { Entry::Pass } else { Entry::HoldOn };
    }
    if fence.state.is_closed() {
        match fence.state.admit(std::time::Instant::now()) {
            Admission::Hold(held) => return Entry::Hold(held),
            Admission::Full => return Entry::Full,
            // It was opened just now.
            Admission::Pass => {}
        }
    }
    if Rc::ptr_eq(&worker.snapshot(), snapshot) { Entry::Pass } else { Entry::Again }
}

/// Waits until the write at this place in the queue may begin, or is to be planned again since it may be refused now; then
/// the place is returned, and is to be dropped once it has begun. The error is the response if the client leaves, or waits for too long.
pub(super) async fn called(mut held: Held, client: &mut Client) -> Result<Held, Problem> {
    let state = Arc::clone(held.fence());
    let until = state.deadline().map_or_else(Instant::now, Instant::from_std);
    client.deadline.set(until);
    let mut is_late = false;
    let called = poll_fn(|cx| {
        if held.poll_called(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        // A write that has not begun is best not begun for somebody who has left.
        if client.has_left(cx) {
            return Poll::Ready(Err(LEFT));
        }
        while client.deadline.poll_passed(cx).is_ready() {
            if is_late {
                return Poll::Ready(Err(LATE));
            }
            is_late = true;
            client.deadline.set(Instant::now() + PATIENCE);
            // Whatever the controller does, the move is undone in time.
            state.tick(std::time::Instant::now());
            if held.poll_called(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    });
    called.await.map(|()| held)
}
