//! Other endpoints, which are tried after a connection failed.
//!
//! Nothing was sent, so another try costs a connection and repeats no request, whatever its method.
//! A refused connection fails at once; with a silent endpoint the client waits. So tries are
//! bounded in number, and a further one is begun only while less than the connect timeout has
//! passed, or if it is the first: together they take at most twice that timeout. Each endpoint is
//! tried once, serving ones first: where most are out and used nevertheless (`snapshot/usable.rs`),
//! the request ends at one that is known to be good.

use std::time::Duration;

use tokio::time::Instant;

use super::worker::Worker;
use crate::{snapshot::Version, upstream::balance};

/// Most endpoints that a request may try, including the first one.
const TRIES: usize = 10;

/// Endpoints that a request tries after its first one.
pub(super) struct Others {
    /// When the first try began.
    began: Instant,
    /// Numbers of the endpoints that could not be connected.
    tried: Vec<usize>,
    /// The number of the endpoint to try now.
    pub(super) next: usize,
}

impl Others {
    /// Chooses an endpoint other than number `failed`, with which a try that began at `began`
    /// failed, and other than those that `before` has tried. Returns `None` if no endpoint is left,
    /// or it is too late.
    #[cold]
    pub(super) fn after(
        before: Option<Box<Self>>,
        worker: &Worker,
        version: &Version,
        failed: usize,
        (began, now): (Instant, Instant),
        patience: Duration,
    ) -> Option<Box<Self>> {
        let (began, mut tried) = before.map_or((began, Vec::new()), |o| (o.began, o.tried));
        tried.push(failed);
        if !may_go_on(tried.len(), now.saturating_duration_since(began), patience) {
            return None;
        }
        let endpoints = &version.endpoints;
        let serves = |n: usize| endpoints[n].standing.serves();
        let left = candidates(endpoints.len(), &tried, serves);
        let load = |n: usize| endpoints[left[n]].in_flight_on(worker.id);
        let share = |n: usize| endpoints[left[n]].standing.share();
        let at = balance::choose(left.len(), load, share, || fastrand::u64(..))?;
        Some(Box::new(Self { began, next: left[at], tried }))
    }
}

/// Whether another endpoint may be tried after `tries`, the first of which began `passed` ago.
fn may_go_on(tries: usize, passed: Duration, patience: Duration) -> bool {
    tries < TRIES && (tries < 2 || passed < patience)
}

/// The numbers of `endpoints` that were not `tried`: the serving ones, or all if none serves.
fn candidates(endpoints: usize, tried: &[usize], serves: impl Fn(usize) -> bool) -> Vec<usize> {
    let left = (0..endpoints).filter(|n| !tried.contains(n));
    let (good, others): (Vec<_>, Vec<_>) = left.partition(|n| serves(*n));
    if good.is_empty() { others } else { good }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_end_by_number_and_by_time() {
        let (none, all) = (Duration::ZERO, Duration::from_secs(1));
        assert!((1..TRIES).all(|tries| may_go_on(tries, none, all)));
        assert!(!may_go_on(TRIES, none, all));
        assert!(may_go_on(1, all, all), "the first may have been silent");
        assert!(!may_go_on(2, all, all));
    }

    #[test]
    fn each_is_tried_once_and_those_that_serve_come_first() {
        let serves = |n: usize| n == 3 || n == 5;
        assert_eq!(candidates(6, &[0], serves), [3, 5]);
        assert_eq!(candidates(6, &[0, 3], serves), [5]);
        assert_eq!(candidates(6, &[0, 5, 3], serves), [1, 2, 4]);
        assert!(candidates(2, &[1, 0], serves).is_empty());
    }
}
