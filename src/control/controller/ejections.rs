//! Ejections and reinstatements by an operator: arguments, results, and what the journal says of them.

use std::time::SystemTime;

use indexmap::IndexMap;
use serde_json::json;

use super::{ChangeHead, Controller, Moment, Operation, Plan, Rejected};
use crate::{
    control::{
        overtaken::{Concern, Kind, Retreat},
        state::{Change, ControlState, Ejection, ManualEjection},
    },
    store::Draft,
};

/// A version, or one of its endpoints, to eject or reinstate.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The endpoint's address; `None` for the whole version.
    pub endpoint: Option<String>,
    /// Who asks, why, and under which conditions.
    pub head: ChangeHead,
}

/// The ejection of a version or an endpoint, by an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Eject(pub Target);

/// The reinstatement of a version or an endpoint, by an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Reinstate(pub Target);

/// The result of an ejection or a reinstatement.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// Generation in force afterwards.
    pub generation: u64,
    /// Who had ejected it before; in that case nothing was changed.
    pub already: Option<ManualEjection>,
    /// The share of players that a reinstated version gets, 0 to 1.
    pub share: Option<f64>,
    /// The effect of the ejection of a version.
    pub effect: Option<Effect>,
    /// Why its entry is not in the journal yet; `None` if it is, or there is no journal.
    pub unwritten: Option<String>,
}

/// The effect of the ejection of a version on the shares of its service.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// Shares of players before, 0 to 1, by version.
    pub before: IndexMap<String, f64>,
    /// Shares of players after, 0 to 1, by version.
    pub after: IndexMap<String, f64>,
    /// Versions that were compared with the baseline, and have nothing left to be compared with.
    pub uncompared: Vec<String>,
}

impl Moved {
    pub(super) fn to(generation: u64) -> Self {
        Self { generation, already: None, share: None, effect: None, unwritten: None }
    }
}

impl Operation for Eject {
    type Outcome = Moved;
    type Error = Rejected;
    // Safety does not wait for a disk.
    const ACTS_FIRST: bool = true;

    fn entry_waits(outcome: &mut Moved, why: String) {
        outcome.unwritten = Some(why);
    }

    fn plan(&self, controller: &Controller, at: SystemTime) -> Result<Option<Plan>, Rejected> {
        let Self(subject) = self;
        if let Some(endpoint) = &subject.endpoint {
            return controller.plan_endpoint(subject, endpoint, Some(at)).map(Some);
        }
        controller.admit(subject)?;
        if controller.state.ejection(&subject.service, &subject.version).is_some() {
            let draft = controller.entry_of("ejected", subject, [true, true]);
            return Ok(Some(Plan { draft, then: None }));
        }
        let prepared = controller.prepare(ejected(subject, at))?;
        Ok(Some(controller.planned("ejected", subject, [false, true], prepared.state().clone())))
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<Moved, Rejected> {
        controller.eject_at(self.0, moment)
    }

    fn retreat(&self) -> Option<Retreat> {
        let Target { service, version, endpoint, head } = &self.0;
        let of = endpoint.as_ref().map(|endpoint| format!("{endpoint} of "));
        let what =
            format!("the ejection of {}{version} by {}", of.unwrap_or_default(), head.by.name);
        let only = endpoint.as_ref().map(|_| version.clone());
        Some(Retreat { service: service.clone(), what, only, ejects: true })
    }
}

impl Operation for Reinstate {
    type Outcome = Moved;
    type Error = Rejected;

    fn plan(&self, controller: &Controller, _: SystemTime) -> Result<Option<Plan>, Rejected> {
        let Self(subject) = self;
        if let Some(endpoint) = &subject.endpoint {
            return controller.plan_endpoint(subject, endpoint, None).map(Some);
        }
        let (_, change) = controller.reinstated(subject, false)?;
        // With the endpoints as they are: those that come back with it are found out when it is made.
        let prepared = controller.prepare(change)?;
        let place = (&*subject.service, prepared.state());
        controller.refuse_reinstating_alone(place, &subject.head)?;
        Ok(Some(controller.planned("reinstated", subject, [true, false], prepared.state().clone())))
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<Moved, Rejected> {
        controller.reinstate_at(self.0, moment)
    }

    fn concerns(&self) -> Option<Concern> {
        let Target { service, version, head, .. } = &self.0;
        let what = format!("the reinstatement of {version} by {}", head.by.name);
        let kind = Kind::Reinstates(version.clone());
        Some(Concern { service: Some(service.clone()), what, kind })
    }
}

impl Controller {
    /// The plan of a change of `subject` that leads to the state `then`.
    pub(super) fn planned(
        &self,
        kind: &str,
        subject: &Target,
        is_ejected: [bool; 2],
        then: ControlState,
    ) -> Plan {
        let mut draft = self.entry_of(kind, subject, is_ejected);
        draft.generation = then.generation();
        self.date(&mut draft, &subject.service, &then);
        Plan { draft, then: Some(then) }
    }

    /// The entry of a change of `subject`; `is_ejected` says whether it was and whether it will be.
    pub(super) fn entry_of(&self, kind: &str, subject: &Target, is_ejected: [bool; 2]) -> Draft {
        let Target { service, version, endpoint, head } = subject;
        let mut draft = self.draft_asked(kind, head, (service, &self.state));
        [draft.before, draft.after] = is_ejected.map(|is_ejected| match endpoint {
            Some(endpoint) => {
                json!({ "version": version, "endpoint": endpoint, "ejected": is_ejected })
            }
            None => json!({ "version": version, "ejected": is_ejected }),
        });
        draft
    }
}

/// The change that ejects the version of `subject`.
pub(super) fn ejected(subject: &Target, at: SystemTime) -> Change {
    let Target { service, version, head, .. } = subject.clone();
    let ChangeHead { by, reason, .. } = head;
    let ejection = Ejection { since: at, by: by.name, reason, verdict: None };
    Change::VersionEjected { service, version, ejection }
}
