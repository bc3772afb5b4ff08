//! Limits of requests in flight on the path: a request takes a place of each limit of its route, waits for one, or is
//! refused.
//!
//! It is asked last, after everything for which a request may wait: who waits for a body, a key, a fence or the end of a
//! mode has no place meanwhile, and what is replayed needs none. The place is the request's until its response has
//! ended, over all its attempts. A connection that switched to another protocol, and a response that is a stream, keep
//! their places to their ends where the limit is a number, and give them back where it follows the latency: what they
//! are worked on is over with the head.

use tokio::time::Instant;

use super::{
    places::{FULL, Places, WaitForPlace},
    rejected::Stop,
    waiting::{Passed, Wait},
};
use crate::{
    policy::places::Priority,
    registry::{Asking, Place},
    snapshot::{ConcurrencyLimit, RouteConcurrency},
};

/// Takes the places that `limits` ask for, beside those that the request has `passed` with already.
#[inline(never)]
pub(super) fn take(
    limits: &RouteConcurrency,
    passed: &mut Passed,
) -> Result<Option<Box<Places>>, Stop> {
    let mut places = passed.take_places().unwrap_or_default();
    let taken =
        take_one(limits.own.as_deref(), limits.priority, &mut places.own, false).and_then(|()| {
            take_one(limits.shared.as_deref(), limits.priority, &mut places.shared, true)
        });
    match taken {
        Ok(()) => Ok(Some(places)),
        Err(stop) => {
            // It keeps what it has while it waits.
            if let Stop::Wait(_) = stop {
                passed.places = Some(places);
            }
            Err(stop)
        }
    }
}

/// Takes a place of `limit`, unless `place` is one.
fn take_one(
    limit: Option<&ConcurrencyLimit>,
    priority: Priority,
    place: &mut Option<Place>,
    is_shared: bool,
) -> Result<(), Stop> {
    // After a reload the limit may be another one.
    let is_of = |place: &mut Place| limit.is_some_and(|limit| place.is_of(&limit.state));
    place.take_if(|place| !is_of(place));
    let (Some(limit), None) = (limit, &place) else { return Ok(()) };
    match limit.state.ask(priority) {
        Asking::Taken(taken) => *place = Some(taken),
        Asking::Wait(wait) => {
            let until = Instant::now() + limit.queue_timeout;
            return Err(Stop::Wait(Wait::Place(Box::new(WaitForPlace { wait, until, is_shared }))));
        }
        Asking::Full => return Err(FULL.into()),
    }
    Ok(())
}
