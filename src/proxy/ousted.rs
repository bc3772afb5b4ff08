//! What the snapshot in force says of a request that was planned by an older one, such as whether its version has been
//! ejected since. A request may be sent once more long after it was planned.

use super::{plan::Plan, worker::Worker};
use crate::{
    config::schema::PinOnEject,
    snapshot::{AssignedBy, Service, Version},
};

/// Whether `holds` of the service of `plan` by now; `unchanged` if the request was planned by the snapshot in force. It
/// holds of no service that has left the file.
pub(super) fn by_now(
    plan: &Plan,
    worker: &Worker,
    unchanged: bool,
    holds: impl FnOnce(&Service) -> bool,
) -> bool {
    let now = worker.snapshot();
    if now.generation == plan.snapshot.generation {
        return unchanged;
    }
    now.services.iter().find(|service| service.name == plan.service().name).is_some_and(holds)
}

/// Whether `version`, which the request of `plan` was sent to, has been ejected since, and a request like it would
/// not be sent there any more. A version that has left the file is none: what began there ends there.
#[cold]
pub(super) fn is_ousted(plan: &Plan, worker: &Worker, version: &Version) -> bool {
    by_now(plan, worker, false, |service| {
        let place = service.versions.iter().position(|known| known.name == version.name);
        place.is_some_and(|place| service.versions[place].ejected && !keeps(plan, service, place))
    })
}

/// Whether requests like that of `plan` go to the version number `place` of `service` although it is ejected.
fn keeps(plan: &Plan, service: &Service, place: usize) -> bool {
    match plan.decision.by {
        AssignedBy::Route => plan.route().keeps_ejected,
        // Without those whose version is ejected, unless the file keeps them.
        AssignedBy::Rule => service.rules.iter().any(|rule| usize::from(rule.version) == place),
        AssignedBy::Pin => {
            service.pins.as_ref().is_some_and(|pins| pins.rules.terms.on_eject == PinOnEject::Hold)
        }
        AssignedBy::Smoke => true,
        AssignedBy::Cohort(_) | AssignedBy::Only => false,
    }
}
