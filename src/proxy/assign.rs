//! The stages *route* and *assign*: the version for a request, and whether the version's breaker admits the
//! request. Called again, they decide again by the given snapshot.

use super::{
    breaker,
    problem::{Problem, ProxyError},
    worker::Worker,
};
use crate::{
    routing::RequestView,
    snapshot::{Decision, NoDecision, Snapshot},
};

/// The decision for `request` by `snapshot`, or the response if there is none.
#[inline(always)]
pub(super) fn assign(
    worker: &Worker,
    snapshot: &Snapshot,
    request: &RequestView<'_>,
) -> Result<Decision, Problem> {
    let decision = match snapshot.decide(request) {
        Ok(decision) => decision,
        Err(NoDecision::NoRoute) => return Err(ProxyError::NoRoute.problem()),
        Err(NoDecision::NoVersion(_)) => return Err(ProxyError::NoVersion.problem()),
    };
    let service = &snapshot.services[decision.service as usize];
    breaker::admit(worker, service, &service.versions[usize::from(decision.version)])?;
    Ok(decision)
}
