//! What a route asks of its requests before they reach a version. Only requests of routes with policies come here.
//!
//! Each policy is decided by a function of `policy/`, from the request's head and what is shared by the workers.
//! They are asked in this order: who may come (addresses, tokens), how often (rates), and whether
//! somebody else has something against it (authorizers).

use std::time::Instant;

use super::{
    admit::Admitted,
    external, identity,
    problem::Problem,
    rare::{Additions, RareOptions},
    rates,
    rejected::Stop,
    waiting::Passed,
    worker::Worker,
};
use crate::{
    routing::{RequestView, header},
    snapshot::{RetryPlan, Route, RoutePolicies},
};

/// The response to a client whose address is not admitted. It says no more, so that it is of no help to a stranger.
const NOT_ADMITTED: Problem = Problem {
    status: 403,
    kind: "address",
    detail: "clients with this address are not admitted",
    retry_after: 0,
};

/// Asks the `policies` of a `route` about the request that was `admitted`, of which `request` is a view. It goes on if
/// they have nothing against it, with what they add to it. What it has `passed` is not asked again.
#[inline(never)]
pub(super) fn ask(
    worker: &Worker,
    (policies, route): (&RoutePolicies, &Route),
    admitted: &Admitted<'_, '_>,
    request: &RequestView<'_>,
    passed: &mut Passed,
) -> Result<Option<Box<RareOptions>>, Stop> {
    if let Some(access) = &policies.access
        && !access.admits(admitted.address)
    {
        return Err(NOT_ADMITTED.into());
    }
    let mut additions = Additions::default();
    if let Some(asked) = &policies.identity
        && let Some(claims) = identity::check(asked, worker, request, passed)?
    {
        identity::put_headers(&asked.issuer, &claims, &mut additions.request);
        additions.claims = Some(claims);
    }
    let claims = additions.claims.clone();
    if admitted.log.is_some() && claims.is_some() {
        // The log names the player also if the request is refused.
        passed.claims.clone_from(&claims);
    }
    let request = &RequestView { claims: claims.as_deref(), ..*request };
    if !policies.rates.is_empty() {
        let lines = match &passed.rates {
            Some(lines) => lines.to_vec(),
            None => {
                let taken = rates::take(&policies.rates, route, admitted, request, Instant::now())?;
                if taken.over.is_some() {
                    passed.over = taken.over;
                }
                taken.lines
            }
        };
        passed.rates.get_or_insert_with(|| lines.as_slice().into());
        if let (Some(log), Some(over)) = (&admitted.log, &passed.over) {
            let _ = log.advised.set(over.clone());
        }
        additions.answer = lines;
    }
    if let Some(authorizer) = &policies.external {
        let asked = (admitted, request);
        external::ask(authorizer, worker, asked, route, passed, &mut additions.request)?;
    }
    // A call has a deadline of its own, and may be a stream.
    if let (Some(retry), false) = (&policies.retry, admitted.mode.grpc)
        && !is_told(admitted)
    {
        additions.request.extend_from_slice(&retry.deadline_line);
    }
    let adds = !additions.is_empty();
    Ok(adds.then(|| Box::new(RareOptions { additions, ..RareOptions::default() })))
}

/// Whether a trusted proxy in front tells the version how much time is left for the request.
fn is_told(admitted: &Admitted<'_, '_>) -> bool {
    admitted.forwarded.is_some() && header(admitted.head.headers, RetryPlan::DEADLINE).is_some()
}
