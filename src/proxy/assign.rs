//! The stages *route* and *assign*: which version of which service a request gets, and whether that
//! version takes it. Run again, they decide anew by the snapshot that they are given.

use super::{
    breaker,
    problem::{Problem, ProxyError},
    worker::Worker,
};
use crate::{
    routing::RequestView,
    snapshot::{Decision, NoDecision, Snapshot},
};

/// Where the `request` goes by `snapshot`, or the response if it goes nowhere.
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
