//! A running judgement with its record, as another process continues it.

use serde::{Deserialize, Serialize};

use super::{Entry, FORMAT, Half, Judge, Judged, RULES, Recorder};

/// The form of what is recorded, and the rules by which it was counted and judged. A process continues only a
/// judgement with the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordForm {
    form: u32,
    rules: u32,
}

impl RecordForm {
    /// The one of this release.
    pub const OWN: Self = Self { form: FORMAT, rules: RULES };
}

/// A [`Recorder`] on its way to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CarriedRecorder<J> {
    judge: J,
    /// The recorded inputs, the older half first; none if they were too many to hand over.
    halves: Vec<CarriedHalf<J>>,
}

/// A half of the record with inputs.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CarriedHalf<J> {
    began: J,
    entries: Vec<Entry>,
}

impl<J: Judge> Recorder<J> {
    /// Everything that another process needs to continue. `budget` is the memory that recorded inputs may have, in
    /// bytes; it decreases by those of this recorder. If they are too many, only the judgement is handed over, and
    /// its record begins anew there.
    pub fn carried(&self, budget: &mut usize) -> CarriedRecorder<J> {
        let bytes: usize = self.halves.iter().map(|half| half.bytes).sum();
        let left = budget.checked_sub(bytes);
        *budget = left.unwrap_or(*budget);
        let with_inputs = self.halves.iter().filter(|half| !half.entries.is_empty());
        let halves = with_inputs
            .filter(|_| left.is_some())
            .map(|half| CarriedHalf { began: half.began.clone(), entries: half.entries.clone() });
        CarriedRecorder { judge: self.judge.clone(), halves: halves.collect() }
    }
}

impl<J: Judge> CarriedRecorder<J> {
    /// The judgement.
    pub fn judge(&self) -> &J {
        &self.judge
    }

    /// Continues it; `None` if its parts do not fit each other.
    pub fn resume(self) -> Option<Recorder<J>> {
        let is_sound = |judge: &J| Into::<Judged>::into(judge.clone()).is_sound();
        let Self { judge, halves } = self;
        if !is_sound(&judge) || !halves.iter().all(|half| is_sound(&half.began)) {
            return None;
        }
        let half = |CarriedHalf { began, entries }: CarriedHalf<J>| Half {
            bytes: entries.iter().map(Entry::bytes).sum(),
            began,
            entries,
        };
        let mut halves = halves.into_iter().map(half);
        let halves = match (halves.next(), halves.next(), halves.next()) {
            (None, ..) => [0, 1].map(|_| Half::new(judge.clone())),
            // An older half without inputs began as the newer one did.
            (Some(newer), None, _) => [Half::new(newer.began.clone()), newer],
            (Some(older), Some(newer), None) => [older, newer],
            (Some(_), Some(_), Some(_)) => return None,
        };
        Some(Recorder { judge, halves })
    }
}
