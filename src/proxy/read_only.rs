//! Writes of what is read-only: they are refused, wait or go on, as their route says.
//!
//! A write is asked about before a version is chosen, so that what becomes of it is no evidence about any. Writes that
//! were sent before the mode began go on to their end.

use std::sync::Arc;

use super::{
    admit::Admitted,
    problem::Problem,
    rejected::Stop,
    waiting::{Passed, Wait},
    writable::{FULL, HeldUntilWritable, LEAVING, REFUSED, told},
};
use crate::{
    policy::class::Class,
    registry::{HoldAdmission, HoldEvent},
    snapshot::{Hold, OnReadOnly, Refusal, Route, Standing},
};

/// What becomes of the `admitted` request of route number `number`, whose service has this `standing`.
#[cold]
#[inline(never)]
pub(super) fn enter(
    standing: Option<&Standing>,
    (number, route): (u32, &Route),
    admitted: &Admitted<'_, '_>,
    passed: &mut Passed,
) -> Result<(), Stop> {
    let class = route.class.unwrap_or_else(|| Class::of(admitted.head.method));
    if class == Class::Read {
        return Ok(());
    }
    let refusal = standing.and_then(|standing| standing.refusal(number));
    let own = route.policies.as_deref().and_then(|policies| policies.read_only.as_ref());
    match (own, refusal) {
        (Some(OnReadOnly::Hold(hold)), _) => queue(hold, refusal, passed),
        (Some(OnReadOnly::Pass), _) | (None, None) => Ok(()),
        (None, Some(refusal)) => Err(refuse(REFUSED, Some(refusal))),
    }
}

/// Lets a write wait if it must.
fn queue(hold: &Hold, refusal: Option<&Arc<Refusal>>, passed: &mut Passed) -> Result<(), Stop> {
    if refusal.is_none() && passed.is_writable {
        return Ok(());
    }
    let wait = |held| Err(Stop::Wait(Wait::Writable(Box::new(held))));
    if let Some(held) = passed.read_only.take_if(|held| held.is_in(&hold.state)) {
        return wait(held.again(refusal.cloned()));
    }
    match hold.state.admit(refusal.is_some(), hold.queue) {
        HoldAdmission::Pass => Ok(()),
        HoldAdmission::Hold(place) => wait(HeldUntilWritable::new(hold, place, refusal.cloned())),
        HoldAdmission::Refuse(HoldEvent::Dismissed) => Err(refuse(LEAVING, refusal)),
        HoldAdmission::Refuse(_) => Err(refuse(FULL, refusal)),
    }
}

fn refuse(problem: Problem, refusal: Option<&Arc<Refusal>>) -> Stop {
    let (problem, extra) = told(problem, refusal.map(|refusal| &**refusal));
    Stop::Answer(problem, extra)
}
