//! Opens incidents. Nothing here waits: reports are written by the service thread.

use std::time::SystemTime;

use super::Controller;
use crate::{
    control::{
        event::{EventDetails, EventKind, IncidentRef},
        incidents::{Facts, Ledger, counted_now},
    },
    incident::{Happened, Id, Kind, Review},
    rollout::{On, Phase, Rollout},
};

impl Controller {
    /// Incidents since the start.
    pub fn incidents(&self) -> &Ledger {
        &self.incidents
    }

    /// The same, to take those that wait for their report.
    pub(in crate::control) fn incidents_mut(&mut self) -> &mut Ledger {
        &mut self.incidents
    }

    /// Opens the incident of an event, if it is one, and names it in the event.
    pub(super) fn open_incident_of(
        &mut self,
        kind: EventKind,
        matter: &mut EventDetails,
        at: SystemTime,
    ) {
        let kind = match kind {
            EventKind::Ejected => Kind::Ejected,
            EventKind::EndpointEjected => Kind::EndpointEjected,
            _ => return,
        };
        let (Some(service), Some(version)) = (&matter.service, &matter.version) else { return };
        // It was reported at its time, by the process before.
        if matter.carried_over {
            return;
        }
        let verdict = match (&matter.verdict, kind) {
            (None, Kind::Ejected) => self.comparison_of(service, version),
            (verdict, _) => verdict.clone(),
        };
        let happened = Happened {
            kind,
            service: service.clone(),
            version: version.clone(),
            endpoint: matter.endpoint.clone(),
            route: matter.route.clone(),
            by: matter.by.clone().unwrap_or_default(),
            reason: matter.reason.clone(),
            ejected_at: verdict.as_ref().and_then(|_| self.ejected_at(service, version)),
            verdict,
            rollout: None,
        };
        matter.incident = self.open_incident(happened, at).map(IncidentRef::from);
    }

    /// Name and path of the newest incident, for the line of the log on what caused it.
    pub(super) fn logged_incident(&self) -> (Option<&str>, Option<String>) {
        let newest = self.incidents.newest();
        (newest.map(Id::as_str), newest.map(Id::path))
    }

    /// How a version compares now, over all routes without limits of their own.
    fn comparison_of(&self, service: &str, version: &str) -> Option<crate::analysis::Verdict> {
        let mut verdicts = self.verdicts(service).into_iter();
        let of = verdicts.find(|(of, route, _)| of == version && route.is_none());
        of.map(|(_, _, verdict)| verdict)
    }

    /// When a verdict ejected the version, if it is ejected.
    fn ejected_at(&self, service: &str, version: &str) -> Option<SystemTime> {
        let ejection = self.state.ejection(service, version)?;
        ejection.verdict.is_some().then_some(ejection.since)
    }

    fn open_incident(&mut self, happened: Happened, at: SystemTime) -> Option<Id> {
        let snapshot = self.snapshot();
        let baseline = snapshot
            .service(&happened.service)
            .map(|service| service.versions[usize::from(service.baseline)].name.to_string());
        let counted = snapshot.service(&happened.service).map(counted_now).unwrap_or_default();
        let live = self.rollouts.get(&happened.service).filter(|_| happened.rollout.is_some());
        let facts = Facts {
            baseline,
            generation: snapshot.generation,
            config_hash: self.hash.to_string(),
            counted,
            begun: live.and_then(|live| live.begun.clone()),
        };
        self.incidents.open(happened, at, facts)
    }

    /// Opens the incident of a split that was rolled back `from` a version by a command. Its caller names it in
    /// the event.
    pub fn rolled_back(
        &mut self,
        (service, from): (&str, &str),
        by: &str,
        reason: &str,
    ) -> Option<IncidentRef> {
        let happened = Happened {
            kind: Kind::RolledBack,
            service: service.to_owned(),
            version: from.to_owned(),
            endpoint: None,
            route: None,
            by: by.to_owned(),
            reason: reason.to_owned(),
            verdict: self.comparison_of(service, from),
            ejected_at: self.ejected_at(service, from),
            rollout: None,
        };
        self.open_incident(happened, SystemTime::now()).map(IncidentRef::from)
    }

    /// Opens the incident of a rollout that has ended. `None` while it has not ended. Its caller names it in the
    /// event.
    pub fn finished_rollout(&mut self, rollout: &Rollout) -> Option<IncidentRef> {
        let kind = match rollout.phase {
            Phase::Done => Kind::RolloutDone,
            Phase::RolledBack => Kind::RolloutRolledBack,
            Phase::Aborted => Kind::RolloutAborted,
            _ => return None,
        };
        // That the split is restored follows from what somebody, or a gate, decided.
        let decided = rollout.entries.iter().rev().find(|entry| entry.on != On::Restored);
        let by = decided.map_or(&rollout.by, |entry| &entry.by);
        let happened = Happened {
            kind,
            service: rollout.service.clone(),
            version: rollout.to.clone(),
            endpoint: None,
            route: None,
            by: by.clone(),
            reason: rollout.cause.clone(),
            verdict: self.comparison_of(&rollout.service, &rollout.to),
            ejected_at: self.ejected_at(&rollout.service, &rollout.to),
            rollout: Some(Box::new(Review::new(rollout))),
        };
        self.open_incident(happened, SystemTime::now()).map(IncidentRef::from)
    }
}
