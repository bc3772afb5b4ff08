//! The evidence of comparisons, which the next process continues.
//!
//! The evaluator has a clock of its own, which goes on in the next process: times in the evidence stay as they
//! are.

use std::time::{Duration, SystemTime};

use super::Controller;
use crate::control::evaluator::{CarriedEvidence, Evaluator};

/// Memory of all recorded inputs that are handed over, in bytes. Clients wait meanwhile.
const RECORDS_BYTES: usize = 2 << 20;

impl Controller {
    /// The time on the evaluator's clock.
    pub(in crate::control) fn judging_time(&self) -> Duration {
        self.judged_before + self.started.0.elapsed()
    }

    /// When the evaluator's clock was at `time`.
    pub(super) fn when_judged(&self, time: Duration) -> SystemTime {
        let at = self.started.1 + time;
        at.checked_sub(self.judged_before).unwrap_or(self.started.1)
    }

    /// The evidence of all comparisons, for the next process.
    pub(in crate::control) fn carried_evidence(&self) -> Vec<CarriedEvidence> {
        self.evaluator.carried(&self.snapshot(), RECORDS_BYTES, |service| self.amounts_of(service))
    }

    /// Continues with the evidence of the process before, whose clock of the evaluator was at `time`. This process
    /// must not have judged.
    pub(in crate::control) fn inherit_evidence(
        &mut self,
        evidence: Vec<CarriedEvidence>,
        time: Duration,
    ) {
        self.judged_before = time.saturating_sub(self.started.0.elapsed());
        self.evaluator = Evaluator::resume(evidence, |service| self.amounts_of(service));
    }

    /// What the amounts of `service` are: another definition makes them other amounts.
    fn amounts_of(&self, service: &str) -> String {
        let service = self.config.services.get(service);
        service.map(|service| format!("{:?}", service.amounts)).unwrap_or_default()
    }
}
