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
    problem::Extra,
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
pub(super) fn take(limits: &RouteConcurrency, passed: &mut Passed) -> Result<Box<Places>, Stop> {
    let mut places = passed.take_places().unwrap_or_default();
    let asking = (limits.priority, passed.turn_until(Instant::now()));
    let taken = take_one(limits.own.as_deref(), asking, &mut places.own, false)
        .and_then(|()| take_one(limits.shared.as_deref(), asking, &mut places.shared, true));
    match taken {
        Ok(()) => Ok(places),
        Err(stop) => {
            // It keeps what it has while it waits.
            if let Stop::Wait(_) = stop {
                passed.places = Some(places);
            }
            Err(stop)
        }
    }
}

/// Takes a place of `limit`, unless `place` is one. `turn_until`: the request's turn has come in another queue, and it is
/// kept until then.
fn take_one(
    limit: Option<&ConcurrencyLimit>,
    (priority, turn_until): (Priority, Option<Instant>),
    place: &mut Option<Place>,
    is_shared: bool,
) -> Result<(), Stop> {
    // After a reload the limit may be another one.
    let is_of = |place: &mut Place| limit.is_some_and(|limit| place.is_of(&limit.state));
    place.take_if(|place| !is_of(place));
    let (Some(limit), None) = (limit, &place) else { return Ok(()) };
    let asked = match turn_until {
        None => limit.state.ask(priority),
        Some(_) => limit.state.ask_in_turn(),
    };
    match asked {
        Asking::Taken(taken) => *place = Some(taken),
        Asking::Wait(wait) => {
            let until = Instant::now() + limit.queue_timeout;
            let until = turn_until.map_or(until, |turn| turn.max(until));
            let wait = WaitForPlace { wait, until, turn_until, is_shared };
            return Err(Stop::Wait(Wait::Place(Box::new(wait))));
        }
        Asking::Full => return Err(Stop::Answer(FULL, Some(Extra::of_limit(is_shared)))),
    }
    Ok(())
}
