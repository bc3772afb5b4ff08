//! The circuit breaker of a version: rejects requests above its limits at once.
//!
//! As with the limit of all requests (`in_flight.rs`), each worker has its part of a limit and
//! counts for itself, in cells that it alone writes. A rejected request is no fault of the version,
//! so it is not part of the evidence.

use tokio::time::Instant;

use super::{
    problem::{Problem, ProxyError, RETRY_AFTER},
    rejected::Stop,
    waiting::{Passed, Wait},
    worker::Worker,
};
use crate::{
    registry::VersionCells,
    snapshot::{Service, Version},
};

/// The limit that a request exceeds; index of [`VersionCells::shed`].
#[derive(Clone, Copy)]
enum Limit {
    Requests,
    Pending,
}

/// Returns the problem to send if the worker's part of the version's requests in flight is used up.
pub(super) fn admit(worker: &Worker, service: &Service, version: &Version) -> Result<(), Problem> {
    match has_room(worker, service, version) {
        true => Ok(()),
        false => Err(refuse(worker, service, version)),
    }
}

/// As [`admit`] for a request of a player, which waits for room if its turn has come in another queue.
#[inline]
pub(super) fn admit_in_turn(
    worker: &Worker,
    service: &Service,
    version: &Version,
    passed: &Passed,
) -> Result<(), Stop> {
    if has_room(worker, service, version) {
        return Ok(());
    }
    match passed.turn_until(Instant::now()) {
        Some(_) => Err(Stop::Wait(Wait::Room)),
        None => Err(refuse(worker, service, version).into()),
    }
}

#[inline]
fn has_room(worker: &Worker, service: &Service, version: &Version) -> bool {
    let Some(breaker) = &service.breaker else { return true };
    version.state.cells.of(worker.id).in_flight() < breaker.requests
}

#[cold]
fn refuse(worker: &Worker, service: &Service, version: &Version) -> Problem {
    problem(shed(version.state.cells.of(worker.id), Limit::Requests), service)
}

/// The response to a request that ended in `fault`. `Retry-After` is added here so that an error
/// stays one byte.
pub(super) fn problem(fault: ProxyError, service: &Service) -> Problem {
    let breaker = service.breaker.as_ref().filter(|_| fault.is_shed());
    let retry_after = breaker.map_or(RETRY_AFTER, |breaker| breaker.retry_after);
    Problem { retry_after, ..fault.problem() }
}

/// A request that waits for a connection, counted until this is dropped.
pub(super) struct Pending<'a>(&'a VersionCells);

impl<'a> Pending<'a> {
    /// Counts the request, or returns the error if the worker's part of waiting requests is used
    /// up.
    pub(super) fn begin(
        worker: &Worker,
        service: &Service,
        version: &'a Version,
    ) -> Result<Self, ProxyError> {
        let cells = version.state.cells.of(worker.id);
        let pending = cells.pending.read().wrapping_sub(cells.connected.read());
        match &service.breaker {
            Some(breaker) if pending >= breaker.pending => Err(shed(cells, Limit::Pending)),
            _ => {
                cells.pending.add(1);
                Ok(Self(cells))
            }
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.connected.add(1);
    }
}

#[cold]
fn shed(cells: &VersionCells, limit: Limit) -> ProxyError {
    cells.shed[limit as usize].add(1);
    match limit {
        Limit::Requests => ProxyError::TooManyRequests,
        Limit::Pending => ProxyError::TooManyPending,
    }
}
