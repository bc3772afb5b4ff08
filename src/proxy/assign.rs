//! The stages *route* and *assign*: the route of a request and what it asks of the request, the version for it, and
//! whether the version's breaker admits it. Called again, they decide again by the given snapshot.

use std::time::SystemTime;

use super::{
    admit::Admitted,
    breaker, identity, notices,
    pin::{self, PinTurn},
    policies::{self, Additions},
    problem::ProxyError,
    read_only,
    rejected::Stop,
    waiting::Passed,
    worker::Worker,
};
use crate::{
    routing::RequestView,
    snapshot::{Decision, Snapshot, Standing},
};

/// What comes with a decision, for few requests.
#[derive(Default)]
pub(super) struct Assigned {
    /// What the response of the version may do to pins.
    pub(super) pin: Option<Box<PinTurn>>,
    /// What the route's policies add to the request and to its response.
    pub(super) additions: Option<Box<Additions>>,
}

/// The decision for the `admitted` request by `snapshot`, or why there is none. `request` is a view of it.
#[inline(always)]
pub(super) fn assign(
    worker: &Worker,
    snapshot: &Snapshot,
    admitted: &Admitted<'_, '_>,
    request: &RequestView<'_>,
    passed: &mut Passed,
) -> Result<(Decision, Assigned), Stop> {
    let number = match &snapshot.routing_issuer {
        None => snapshot.route_of(request),
        Some(issuer) => {
            let claims = identity::early(issuer, worker, request);
            snapshot.route_of(&RequestView { claims: claims.as_deref(), ..*request })
        }
    };
    let Some(number) = number else { return Err(ProxyError::NoRoute.problem().into()) };
    let route = &snapshot.routes[number as usize];
    let (mut additions, mut queues) = (None, false);
    if let Some(policies) = &route.policies {
        additions = policies::ask(worker, (policies, route), admitted, request, passed)?;
        if policies.notices {
            return Err(notices::answer(&snapshot.notices, admitted));
        }
        queues = policies.hold().is_some_and(|hold| hold.state.is_closed());
    }
    let service = &snapshot.services[route.service as usize];
    if service.standing.is_some() || queues {
        let standing = service.standing.as_deref();
        read_only::enter(standing, (number, route), admitted, passed)?;
        announce(standing, &mut additions);
    }
    let claimed;
    let request = match additions.as_deref() {
        Some(Additions { claims: Some(claims), .. }) => {
            claimed = RequestView { claims: Some(claims), ..*request };
            &claimed
        }
        _ => request,
    };
    let (mut decided, mut pin) = (snapshot.decide(number, request), None);
    if let Some(pins) = &service.pins {
        (decided, pin) = pin::assign(snapshot, pins, (number, request), decided);
    }
    let Some(decision) = decided else { return Err(ProxyError::NoVersion.problem().into()) };
    breaker::admit(worker, service, &service.versions[usize::from(decision.version)])?;
    Ok((decision, Assigned { pin, additions }))
}

/// Adds to the response what clients of a service with this `standing` are told in advance.
#[cold]
fn announce(standing: Option<&Standing>, additions: &mut Option<Box<Additions>>) {
    let Some(standing) = standing.filter(|standing| standing.has_notices()) else { return };
    for line in standing.lines(SystemTime::now().into()) {
        additions.get_or_insert_default().answer.extend_from_slice(line.as_bytes());
    }
}
