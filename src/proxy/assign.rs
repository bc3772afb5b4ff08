//! The stages *route* and *assign*: the route of a request and what it asks of the request, the version for it, and
//! whether the version's breaker admits it. Called again, they decide again by the given snapshot.

use std::time::SystemTime;

use super::{
    admit::Admitted, breaker, identity, notices, pin, policies, problem::ProxyError,
    rare::RareOptions, read_only, rejected::Stop, waiting::Passed, worker::Worker,
};
use crate::{
    routing::RequestView,
    snapshot::{Decision, Snapshot, Standing},
};

/// A request without a decision.
pub(super) struct Unassigned {
    /// Number of its route, if it has one.
    pub(super) route: Option<u32>,
    /// Why it does not go on.
    pub(super) stop: Stop,
}

/// The decision for the `admitted` request by `snapshot`, with what few requests get beside it; or its route, if it has
/// one, and why there is none. `request` is a view of it.
#[inline(always)]
pub(super) fn assign(
    worker: &Worker,
    snapshot: &Snapshot,
    admitted: &Admitted<'_, '_>,
    request: &RequestView<'_>,
    passed: &mut Passed,
) -> Result<(Decision, Option<Box<RareOptions>>), Unassigned> {
    let number = match &snapshot.routing_issuer {
        None => snapshot.route_of(request),
        Some(issuer) => {
            let claims = identity::early(issuer, worker, request);
            snapshot.route_of(&RequestView { claims: claims.as_deref(), ..*request })
        }
    };
    let Some(number) = number else {
        return Err(Unassigned { route: None, stop: ProxyError::NoRoute.problem().into() });
    };
    assign_on(number, worker, snapshot, admitted, request, passed)
        .map_err(|stop| Unassigned { route: Some(number), stop })
}

/// The decision for a request on the route with this `number`.
#[inline(always)]
fn assign_on(
    number: u32,
    worker: &Worker,
    snapshot: &Snapshot,
    admitted: &Admitted<'_, '_>,
    request: &RequestView<'_>,
    passed: &mut Passed,
) -> Result<(Decision, Option<Box<RareOptions>>), Stop> {
    let route = &snapshot.routes[number as usize];
    let (mut rare, mut queues) = (None, false);
    if let Some(policies) = &route.policies {
        rare = policies::ask(worker, (policies, route), admitted, request, passed)?;
        if policies.notices {
            return Err(notices::answer(&snapshot.notices, admitted));
        }
        queues = policies.hold().is_some_and(|hold| hold.state.is_closed());
    }
    let service = &snapshot.services[route.service as usize];
    if service.standing.is_some() || queues {
        let standing = service.standing.as_deref();
        read_only::enter(standing, (number, route), admitted, passed)?;
        announce(standing, &mut rare);
    }
    let claimed;
    let request = match rare.as_ref().and_then(|rare| rare.additions.claims.as_deref()) {
        Some(claims) => {
            claimed = RequestView { claims: Some(claims), ..*request };
            &claimed
        }
        None => request,
    };
    let mut decided = snapshot.decide(number, request);
    let mut pin = None;
    if let Some(pins) = &service.pins {
        (decided, pin) = pin::assign(snapshot, pins, (number, request), decided);
    }
    let Some(decision) = decided else { return Err(ProxyError::NoVersion.problem().into()) };
    let version = &service.versions[usize::from(decision.version)];
    breaker::admit_in_turn(worker, service, version, passed)?;
    if pin.is_some() {
        rare.get_or_insert_default().pin = pin;
    }
    Ok((decision, rare))
}

/// Adds to the response what clients of a service with this `standing` are told in advance.
#[cold]
fn announce(standing: Option<&Standing>, rare: &mut Option<Box<RareOptions>>) {
    let Some(standing) = standing.filter(|standing| standing.has_notices()) else { return };
    for line in standing.lines(SystemTime::now().into()) {
        rare.get_or_insert_default().additions.answer.extend_from_slice(line.as_bytes());
    }
}
