//! The places of a request among those in flight, and the wait for one.

use std::{future::poll_fn, sync::Arc, task::Poll};

use tokio::time::Instant;

use super::{
    client::Client,
    problem::{Problem, RETRY_AFTER},
};
use crate::{
    registry::{Place, PlaceWait, Shed},
    snapshot::{ConcurrencyLimit, RouteConcurrency},
};

const fn problem(kind: &'static str, detail: &'static str) -> Problem {
    Problem { status: 503, kind, detail, retry_after: RETRY_AFTER }
}

pub(super) const FULL: Problem = problem(
    "concurrency",
    "as many requests are in flight, and wait, as the limit admits; nothing was done",
);
const DISPLACED: Problem = problem(
    "concurrency_displaced",
    "the request waited for others to end, and more important ones came; nothing was done",
);
const LATE: Problem = problem(
    "concurrency_late",
    "the request has waited for too long for others to end; nothing was done",
);
const LEFT: Problem = problem(
    "concurrency_left",
    "the client ended its side of the connection while its request waited; nothing was done",
);

/// The places of a request.
#[derive(Default)]
pub(super) struct Places {
    /// Of the limit of its route.
    pub(super) own: Option<Place>,
    /// Of the limit of its service.
    pub(super) shared: Option<Place>,
}

/// A request that waits for a place.
pub(super) struct WaitForPlace {
    pub(super) wait: PlaceWait,
    pub(super) until: Instant,
    /// Whether the limit is that of the service.
    pub(super) is_shared: bool,
}

impl Places {
    /// Gives back the places of limits that follow the latency.
    pub(super) fn give_back_adaptive(&mut self, limits: &RouteConcurrency) {
        let is_adaptive = |limit: &Option<Arc<ConcurrencyLimit>>| {
            limit.as_ref().is_some_and(|limit| limit.is_adaptive())
        };
        self.own.take_if(|_| is_adaptive(&limits.own));
        self.shared.take_if(|_| is_adaptive(&limits.shared));
    }
}

impl WaitForPlace {
    /// Waits until there is a place, which is added to `places`. The error is the response if there is none.
    pub(super) async fn end(self, client: &mut Client, places: &mut Places) -> Result<(), Problem> {
        let Self { mut wait, until, is_shared } = self;
        client.deadline.set(until);
        let called = poll_fn(|cx| {
            match wait.poll_called(cx) {
                Poll::Ready(Some(place)) => return Poll::Ready(Ok(place)),
                Poll::Ready(None) => return Poll::Ready(Err((Shed::Displaced, DISPLACED))),
                Poll::Pending => {}
            }
            // A request that has not begun is best not begun for somebody who has left.
            if client.has_left(cx) {
                return Poll::Ready(Err((Shed::Left, LEFT)));
            }
            client.deadline.poll_passed(cx).map(|()| Err((Shed::Late, LATE)))
        });
        match called.await {
            Ok(place) => {
                *(if is_shared { &mut places.shared } else { &mut places.own }) = Some(place);
                Ok(())
            }
            Err((reason, problem)) => {
                wait.give_up(reason);
                *places = Places::default();
                Err(problem)
            }
        }
    }
}
