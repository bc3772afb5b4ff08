//! The stages *route* and *assign*: the version for a request, and whether the version's breaker admits the
//! request. Called again, they decide again by the given snapshot.

use super::{
    breaker,
    pin::{self, PinTurn},
    problem::{Problem, ProxyError},
    worker::Worker,
};
use crate::{
    routing::RequestView,
    snapshot::{Decision, NoDecision, Snapshot},
};

/// The decision for `request` by `snapshot`, or the response if there is none; and what the response of the
/// version may do to pins.
#[inline(always)]
pub(super) fn assign(
    worker: &Worker,
    snapshot: &Snapshot,
    request: &RequestView<'_>,
) -> Result<(Decision, Option<Box<PinTurn>>), Problem> {
    let (mut decided, mut turn) = (snapshot.decide(request), None);
    let service = match decided {
        Ok(decision) => decision.service,
        Err(NoDecision::NoVersion(route)) => snapshot.routes[route as usize].service,
        Err(NoDecision::NoRoute) => return Err(ProxyError::NoRoute.problem()),
    };
    let service = &snapshot.services[service as usize];
    if let Some(pins) = &service.pins {
        (decided, turn) = pin::assign(snapshot, pins, request, decided);
    }
    let Ok(decision) = decided else { return Err(ProxyError::NoVersion.problem()) };
    breaker::admit(worker, service, &service.versions[usize::from(decision.version)])?;
    Ok((decision, turn))
}
