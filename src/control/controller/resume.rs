//! Repairs what a task that panicked left half done, before the task is restarted.

use std::collections::BTreeSet;

use super::Controller;
use crate::control::events::{EventDetails, EventKind};

impl Controller {
    /// Restarts all comparisons, because a panic may have left them inconsistent, and publishes an ejection
    /// that was decided but not published. Has no effect when the process starts.
    pub fn resume_evaluating(&mut self) {
        let in_force = self.snapshot();
        let ejected = in_force.services.iter().flat_map(|service| {
            let versions = service.versions.iter().filter(|version| version.ejected);
            versions.map(|version| (service.name.to_string(), version.name.to_string()))
        });
        if !self.ejections().into_keys().eq(&ejected.collect::<BTreeSet<_>>()) {
            self.refresh();
        }
        if !self.evaluator.has_begun() {
            return;
        }
        let (snapshot, now) = (self.snapshot(), self.judging_time());
        let before = std::mem::take(&mut self.evaluator);
        for service in &snapshot.services {
            if before.has_shared_outage(&service.name) == Some(true) {
                let reason = "the comparison was restarted".to_owned();
                let service = Some(service.name.to_string());
                self.record(
                    EventKind::SharedOutageOver,
                    EventDetails { service, reason, ..EventDetails::default() },
                );
            }
        }
        for found in before.end(&snapshot) {
            self.act(found, now);
        }
    }

    /// Forgets the probes in progress: the task that waited for them is gone.
    pub fn resume_attending(&mut self) {
        self.endpoints.forget_probes();
    }
}

#[cfg(test)]
use crate::control::state::Change;

#[cfg(test)]
impl Controller {
    /// Lets the next poll panic between the decision to eject `version` of `service` and its publication.
    pub(crate) fn panic_at_next_look(&mut self, service: &str, version: &str) {
        let ejection = super::Ejection {
            since: std::time::SystemTime::now(),
            by: "verdict".to_owned(),
            reason: "a test".to_owned(),
            verdict: None,
        };
        let (service, version) = (service.to_owned(), version.to_owned());
        self.note(Change::VersionEjected { service, version, ejection });
        self.evaluator.has_bug = true;
    }
}
