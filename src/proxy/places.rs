//! The places of a request among those in flight, and the wait for one.

use std::{future::poll_fn, sync::Arc, task::Poll};

use tokio::time::Instant;

use super::{
    client::Client,
    problem::{Problem, RETRY_AFTER},
};
use crate::{
    registry::{Held, Place, PlaceWait, Shed},
    snapshot::{ConcurrencyLimit, RouteConcurrency},
};

const fn problem(kind: &'static str, detail: &'static str) -> Problem {
    Problem { status: 503, kind, detail, retry_after: RETRY_AFTER }
}

pub(super) const FULL: Problem = problem(
    "concurrency",
    "as many requests are in flight, and wait, as the limit admits; this request was not sent",
);
const DISPLACED: Problem = problem(
    "concurrency_displaced",
    "the request waited for others to end, and more important ones came; this request was not sent",
);
const LATE: Problem = problem(
    "concurrency_late",
    "the request has waited for too long for others to end; this request was not sent",
);
pub(super) const LEFT: Problem = problem(
    "concurrency_left",
    "the client ended its side of the connection while its request waited; this request was not sent",
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
    /// Until when it keeps its turn in a fence's queue, so that those behind it wait.
    pub(super) turn_until: Option<Instant>,
    /// Whether the limit is that of the service.
    pub(super) is_shared: bool,
}

impl Places {
    /// Whether others wait for one of them, or would find none.
    pub(super) fn are_wanted(&self) -> bool {
        self.own.iter().chain(&self.shared).any(Place::is_wanted)
    }

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
    /// Waits until there is a place, which is added to `places`; `turn` is given up if it takes long. The error is the
    /// response if there is none.
    pub(super) async fn end(
        self,
        client: &mut Client,
        places: &mut Places,
        turn: &mut Option<Held>,
    ) -> Result<(), Problem> {
        let Self { mut wait, until, turn_until, is_shared } = self;
        client.deadline.set(turn_until.map_or(until, |turn| turn.min(until)));
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
            while client.deadline.poll_passed(cx).is_ready() {
                if until <= Instant::now() {
                    return Poll::Ready(Err((Shed::Late, LATE)));
                }
                *turn = None;
                client.deadline.set(until);
            }
            Poll::Pending
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
