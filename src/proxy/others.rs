//! Other endpoints: those that are tried after a connection failed, and those to which a request is sent again.
//!
//! After a connection failed, nothing was sent, so another try costs a connection and repeats no request, whatever its method.
//! A refused connection fails at once; with a silent endpoint the client waits. So tries are
//! bounded in number, and a further one is begun only while less than the connect timeout has
//! passed, or if it is the first: together they take at most twice that timeout. Each endpoint is
//! tried once, serving ones first: where most are out and used nevertheless (`snapshot/usable.rs`),
//! the request ends at one that is known to be good.

use std::time::Duration;

use tokio::time::Instant;

use super::{plan::Plan, target::Target, worker::Worker};
use crate::{
    snapshot::{Service, Version},
    upstream::balance,
};

/// Most endpoints that a request may try, including the first one.
const TRIES: usize = 10;

/// Endpoints that a request tries after its first one.
pub(super) struct Others {
    /// When the first try began.
    began: Instant,
    /// Numbers of the endpoints that could not be connected.
    tried: Vec<usize>,
    /// The number of the endpoint to try now.
    next: usize,
    /// Index of the version that answers instead of the request's own, if one does.
    rescuer: Option<u16>,
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
        let rescuer = before.as_ref().and_then(|before| before.rescuer);
        let (began, mut tried) = before.map_or((began, Vec::new()), |o| (o.began, o.tried));
        tried.push(failed);
        if !may_go_on(tried.len(), now.saturating_duration_since(began), patience) {
            return None;
        }
        let next = choose(worker, version, &tried)?;
        Some(Box::new(Self { began, next, tried, rescuer }))
    }

    /// Chooses the endpoint to which a request is sent again after `failed`: one that it has not tried, then
    /// any other one, then the same one.
    #[cold]
    pub(super) fn again(
        before: Option<Box<Self>>,
        worker: &Worker,
        failed: Target<'_>,
        now: Instant,
    ) -> Option<Box<Self>> {
        let Target { version, number } = failed;
        let rescuer = before.as_ref().and_then(|before| before.rescuer);
        let mut tried = before.map_or(Vec::new(), |before| before.tried);
        tried.push(number);
        let next = choose(worker, version, &tried).or_else(|| {
            tried = vec![number];
            choose(worker, version, &tried)
        });
        let next = next.unwrap_or_else(|| {
            tried.clear();
            number
        });
        Some(Box::new(Self { began: now, next, tried, rescuer }))
    }

    /// Chooses an endpoint of the baseline of `service` for a request that another version failed.
    #[cold]
    pub(super) fn rescue(worker: &Worker, service: &Service, now: Instant) -> Option<Box<Self>> {
        let baseline = &service.versions[usize::from(service.baseline)];
        let next = choose(worker, baseline, &[])?;
        let rescuer = Some(service.baseline);
        Some(Box::new(Self { began: now, next, tried: Vec::new(), rescuer }))
    }

    /// The endpoint to try now.
    pub(super) fn target<'a>(&self, plan: &'a Plan) -> Target<'a> {
        let version = match self.rescuer {
            Some(index) => &plan.service().versions[usize::from(index)],
            None => plan.version(),
        };
        Target { version, number: self.next }
    }
}

/// The number of an endpoint of `version` that was not `tried`.
fn choose(worker: &Worker, version: &Version, tried: &[usize]) -> Option<usize> {
    let endpoints = &version.endpoints;
    let serves = |n: usize| endpoints[n].standing.serves();
    let left = candidates(endpoints.len(), tried, serves);
    let load = |n: usize| endpoints[left[n]].in_flight_on(worker.id);
    let share = |n: usize| endpoints[left[n]].standing.share();
    let at = balance::choose(left.len(), load, share, || fastrand::u64(..))?;
    Some(left[at])
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
