//! Whether a request that was assigned to a version begins now: its idempotency key, its body where places are limited, the
//! fence of its service and the limits of requests in flight, in this order. What it waits for longest comes first, so that it holds nothing of what
//! comes later meanwhile.

use std::rc::Rc;

use super::{
    admit::Admitted,
    arriving::Arriving,
    body::Framing,
    client::Client,
    concurrency,
    fence::{self, Entry},
    keyed,
    rare::RareOptions,
    rejected::Stop,
    waiting::{Passed, Wait},
    worker::{Worker, WorkerSnapshot},
};
use crate::{
    policy::class::Class,
    routing::RequestView,
    snapshot::{Route, Service},
};

/// Where a request was assigned to, as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct Place<'s> {
    pub(super) snapshot: &'s Rc<WorkerSnapshot>,
    pub(super) route: &'s Route,
    pub(super) service: &'s Service,
    pub(super) class: Class,
}

impl Place<'_> {
    /// Whether something is asked before a request begins.
    #[inline(always)]
    pub(super) fn asks(&self) -> bool {
        self.route.policies.is_some()
            || self.service.fence.is_some()
            || self.route.concurrency.is_some()
    }
}

/// What becomes of a request.
pub(super) enum Begin {
    /// It begins.
    Now,
    /// It is planned again: the snapshot is no longer in force, or its key changes its head.
    Again,
}

/// Asks whether the request that was `admitted`, of which `view` is a view, begins now; what it gets for that is added to
/// `rare`. What it has `passed` is not asked again.
#[inline(never)]
pub(super) fn begin(
    worker: &Worker,
    place: Place<'_>,
    (admitted, view): (&Admitted<'_, '_>, &RequestView<'_>),
    client: &Client,
    passed: &mut Passed,
    rare: &mut Option<Box<RareOptions>>,
) -> Result<Begin, Stop> {
    let Place { route, service, class, .. } = place;
    let is_player = client.connected.smoke.is_none();
    let keys = route.policies.as_deref().and_then(|policies| policies.idempotency.as_ref());
    let mut key = None;
    if let (Some(keys), Class::Write, true) = (keys, class, is_player) {
        // A player who is known by a claim has keys of their own.
        let claims = rare.as_ref().and_then(|rare| rare.additions.claims.clone());
        let view = RequestView { claims: claims.as_deref(), ..*view };
        key = keyed::begin(keys, (route, service), (admitted, &view), client, passed)?;
        if passed.key.is_none()
            && key.as_ref().is_some_and(|key| keyed::changes_head(key, admitted))
        {
            passed.key = key;
            return Ok(Begin::Again);
        }
    }
    if is_player
        && route.concurrency.is_some()
        && key.is_none()
        && !passed.arrived
        && let Some(arriving) = arriving(admitted, client, route)
    {
        return Err(Stop::Wait(Wait::Arriving(arriving)));
    }
    let begun = take_turn(worker, place, is_player, passed, rare);
    match (&begun, key) {
        (_, None) => {}
        (Ok(Begin::Now), key) => rare.get_or_insert_default().key = key,
        // It keeps its key while it waits.
        (Ok(Begin::Again) | Err(Stop::Wait(_)), key) => passed.key = key,
        (Err(Stop::Answer(..)), _) => {}
    }
    begun
}

/// What has yet to arrive of the body of the request that was `admitted` on a `route` where places are limited, if that is
/// waited for. A call, and a request to switch the protocol, may wait for what the version says.
fn arriving(admitted: &Admitted<'_, '_>, client: &Client, route: &Route) -> Option<Arriving> {
    let (head, head_bytes) = (admitted.head, admitted.head_bytes);
    let here = client.inbox.len().saturating_sub(head_bytes);
    let framing = client.stream.framing(head.framing);
    if matches!(framing, Framing::Length(length) if length <= here as u64) {
        return None;
    }
    let (expects_continue, limits) = (head.expects_continue, route.body);
    let waits = !admitted.mode.grpc && head.upgrade.is_none();
    waits.then_some(Arriving { head_bytes, framing, expects_continue, limits })
}

/// Asks the fence of the service and the limits of requests in flight.
fn take_turn(
    worker: &Worker,
    Place { snapshot, route, service, class }: Place<'_>,
    is_player: bool,
    passed: &mut Passed,
    rare: &mut Option<Box<RareOptions>>,
) -> Result<Begin, Stop> {
    if let (Some(fence), Class::Write) = (service.fence.as_deref(), class) {
        match fence::enter(worker, snapshot, fence, passed.fence.as_ref()) {
            Entry::Pass => {}
            Entry::Again => return Ok(Begin::Again),
            Entry::Hold(held) => return Err(Stop::Wait(Wait::Fence(held))),
            Entry::HoldOn => {
                let held = passed.fence.take();
                return held.map_or(Ok(Begin::Again), |held| Err(Stop::Wait(Wait::Fence(held))));
            }
            Entry::Full => return Err(fence::FULL.into()),
        }
    }
    if let (Some(limits), true) = (&route.concurrency, is_player) {
        rare.get_or_insert_default().places = Some(concurrency::take(limits, passed)?.into());
    }
    Ok(Begin::Now)
}
