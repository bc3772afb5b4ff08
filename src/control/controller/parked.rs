//! Fenced cutovers that wait for writes in flight, while other changes pass.
//!
//! Such a cutover is in the journal, and not in force. Changes of other services do not concern it. A change of its own
//! service is refused if it can wait as well; one that cannot, as an ejection, undoes the cutover, and so does a file
//! that describes the service differently.

use std::{collections::BTreeMap, sync::Arc};

use super::{Controller, Rejected, fencing::unready, splits::splits};
use crate::{config::Config, snapshot::Snapshot, store::Head};

/// Cutovers that wait, by service, each with what was in force when it was planned.
pub(super) type Parked = BTreeMap<String, Option<Arc<Snapshot>>>;

/// A cutover that waits no longer.
#[derive(Debug)]
pub(in crate::control) struct Unparked {
    service: String,
    planned_on: Option<Arc<Snapshot>>,
}

impl Controller {
    /// Lets other changes pass while the cutover of `service`, which was written, waits for writes in flight.
    /// [`Controller::unpark`] and [`Controller::settle_parked`] follow.
    pub(in crate::control) fn park(&mut self, service: &str) {
        let planned_on = self.keeper.park(service);
        self.parked.insert(service.to_owned(), planned_on);
        self.write_deferred();
    }

    /// The cutover of `service` waits no longer: it is made or given up before the controller is free for others.
    pub(in crate::control) fn unpark(&mut self, service: &str) -> Unparked {
        let planned_on = self.parked.remove(service).flatten();
        Unparked { service: service.to_owned(), planned_on }
    }

    /// As [`Controller::settle`], for a change that was parked. Without a journal it has no `entry`.
    pub(in crate::control) fn settle_parked(
        &mut self,
        unparked: Unparked,
        entry: Option<Head>,
        refused: Option<String>,
    ) {
        let Unparked { service, planned_on } = unparked;
        let rest = self.keeper.rows.settle_parked(&service, &self.state.rows());
        if let Some(entry) = entry {
            let moved = planned_on.map(|before| {
                // What others did to other services meanwhile is in their entries.
                let own = |snapshot: &Snapshot| {
                    let mut splits = splits(snapshot);
                    splits.retain(|name, _| *name == service);
                    splits
                };
                (own(&before), own(&self.snapshot()))
            });
            self.tell_settled((entry, Some(service), refused), rest, moved);
        }
        self.write_deferred();
    }

    /// Whether a cutover of `service` waits for writes in flight.
    pub(in crate::control) fn is_parked(&self, service: &str) -> bool {
        self.parked.contains_key(service)
    }

    /// Refuses a change of who has the players of `service` while a cutover of it waits for writes in flight.
    pub(super) fn refuse_while_parked(&self, service: &str) -> Result<(), Rejected> {
        if !self.is_parked(service) {
            return Ok(());
        }
        let fence = self.config.services.get(service).and_then(|known| known.fence.as_ref());
        let within = fence.map(|fence| humantime::format_duration(fence.deadline).to_string());
        let why = format!(
            "another cutover of it waits for writes in flight, for {} at most; try again when it has ended. An \
             ejection waits for nothing, and undoes it",
            within.as_deref().unwrap_or("a moment")
        );
        Err(unready(service, &why))
    }

    /// Undoes the cutovers that wait of services that `new` describes differently: their writes may be others, or no
    /// longer held.
    pub(super) fn undo_fences_of_changed(&self, new: &Config) {
        let snapshot = self.snapshot();
        for name in self.parked.keys().filter(|name| differs(name, &self.config, new)) {
            let fence = snapshot.service(name).and_then(|service| service.fence.as_ref());
            if let Some(fence) = fence {
                fence.state.undo("a file with another description of it came into force");
            }
        }
    }
}

/// Whether two files describe `service`, or its routes, differently.
fn differs(service: &str, old: &Config, new: &Config) -> bool {
    let routes = |config: &Config| -> Vec<_> {
        let routes = config.routes.iter().filter(|route| route.service == service);
        routes.cloned().collect()
    };
    old.services.get(service) != new.services.get(service) || routes(old) != routes(new)
}
