//! The comparison of one canary over the requests of one stratum.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::blocks::Collected;
use crate::analysis::{
    Answer, CarriedRecorder, Comparison, Entry, Gate, Judge, Limits, Record, Recorder,
};

/// Evidence against the canary, and for it.
#[derive(Debug, Clone)]
pub(super) struct StratumComparison {
    recorder: Recorder<Comparison>,
    gate: Gate,
    /// Whether the evidence that one block of errors adds is capped.
    capped: bool,
}

/// A comparison on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CarriedLine {
    recorder: CarriedRecorder<Comparison>,
    gate: Gate,
    capped: bool,
}

impl StratumComparison {
    /// A comparison that begins at `now`; failures come in clusters of size `phi`.
    pub(super) fn new(limits: &Limits, phi: f64, now: Duration) -> Self {
        Self {
            recorder: Recorder::new(Comparison::new(limits.clone(), phi, now)),
            gate: Gate::new(limits, phi),
            capped: false,
        }
    }

    /// Everything that another process needs to continue; a record beyond the `budget` is left out.
    pub(super) fn carried(&self, budget: &mut usize) -> CarriedLine {
        let recorder = self.recorder.carried(budget);
        CarriedLine { recorder, gate: self.gate.clone(), capped: self.capped }
    }

    /// Continues by the same `limits`; `None` if it has others.
    pub(super) fn resume(carried: CarriedLine, limits: &Limits) -> Option<Self> {
        let CarriedLine { recorder, gate, capped } = carried;
        let fits = recorder.judge().limits() == limits && gate.is_sound(limits);
        let recorder = recorder.resume().filter(|_| fits)?;
        Some(Self { recorder, gate, capped })
    }

    /// Takes what was collected.
    pub(super) fn take_in(&mut self, collected: Collected) {
        match collected {
            Collected::Final(entry) => self.add(entry),
            Collected::SoFar(entries) => {
                if self.fails_with(&entries) {
                    entries.into_iter().for_each(|entry| self.add(entry));
                }
            }
        }
    }

    /// Whether the canary fails with `entries`, and has not failed before.
    fn fails_with(&self, entries: &[Entry]) -> bool {
        if self.comparison().has_failed() {
            return false;
        }
        let mut tried = self.comparison().clone();
        entries.iter().for_each(|entry| tried.apply(entry));
        tried.has_failed()
    }

    /// Ignores entries after a failure.
    fn add(&mut self, entry: Entry) {
        if let Entry::CapBursts(capped) = entry {
            self.capped = capped;
        }
        if !self.comparison().has_failed() {
            self.gate.apply(&entry);
            self.recorder.add(entry);
        }
    }

    /// Adopts the required certainty of `limits`.
    pub(super) fn demand(&mut self, limits: &Limits) {
        if self.comparison().limits() == limits {
            return;
        }
        self.add(Entry::Demand(Box::new(limits.clone())));
        // The cap depends on alpha.
        if self.capped {
            self.add(Entry::CapBursts(true));
        }
    }

    /// Sets the size `phi` of clusters of failures.
    pub(super) fn set_dispersion(&mut self, phi: f64) {
        self.add(Entry::Dispersion(phi));
    }

    /// The comparison.
    pub(super) fn comparison(&self) -> &Comparison {
        self.recorder.judge()
    }

    /// Evidence for the canary.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether the canary is worse, healthy, or neither yet, at `now`.
    pub(super) fn answer(&self, now: Duration) -> Answer {
        self.gate.answer(self.comparison(), now)
    }

    /// The recorded inputs, which can be judged again.
    pub(super) fn record(&self) -> Record {
        self.recorder.record()
    }
}
