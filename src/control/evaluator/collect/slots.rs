//! Slots of a canary and its baseline that are not final yet.

use std::time::Duration;

use crate::analysis::{Attempts, ENDPOINT_GROUPS, Ledger, Lineup, Look, Said, SlotCounts};

/// Arguments of an evaluation of slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    /// How long a baseline request usually takes at most.
    pub(super) patience: Duration,
    /// Age from which on a slot is final, even if requests wait.
    pub(super) horizon: Duration,
    /// The group of the canary's endpoint, if it has only one.
    pub(super) alone: Option<u8>,
    /// The time.
    pub(super) now: Duration,
}

/// The first slot that is not final, and the block that is open before it.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    canary: usize,
    /// The earliest start of the first slot.
    from: Duration,
    lineup: Lineup,
    /// Times at which the split changed, oldest first, until the slots around them are judged.
    borders: Vec<Duration>,
    /// Number of the canary's failures in slots that were not final at the last try.
    tried: u64,
}

impl Slots {
    /// Slots of version number `canary`, beginning with the first that begins at `now` or later.
    pub(super) fn new(canary: u16, now: Duration) -> Self {
        Self {
            canary: canary.into(),
            from: now,
            lineup: Lineup::default(),
            borders: Vec::new(),
            tried: 0,
        }
    }

    /// Slots that began before this time were judged.
    pub(super) fn read_until(&self) -> Duration {
        self.from
    }

    /// Discards slots that are not final: the first slot is the next that begins at `now` or later.
    pub(super) fn skip_to(&mut self, now: Duration) {
        self.from = now;
        self.lineup.clear();
    }

    /// Notes that the split changed at `now`, or since the evaluation before. Requests that began before the change
    /// are judged as they end, in other blocks than later ones. The slot in which it changed belongs to both
    /// splits and is not used.
    pub(super) fn weight_step(&mut self, now: Duration) {
        self.borders.push(now);
    }

    /// Whether the split changed during a slot.
    fn is_mixed(&self, began: Duration, end: Option<Duration>) -> bool {
        let mut borders = self.borders.iter();
        borders.any(|border| began < *border && end.is_none_or(|end| end >= *border))
    }

    /// Whether it is worth trying the blocks `so_far`, after final blocks, if there are any. Only the canary's
    /// failures can make a difference, and a try costs a copy of the comparison.
    pub(super) fn tries(&mut self, so_far: &[Attempts], any_final: bool) -> bool {
        let bad = so_far.iter().map(Attempts::bad).sum();
        let before = std::mem::replace(&mut self.tried, bad);
        bad > 0 && (any_final || bad != before)
    }

    /// Whether the canary has failures in slots that are not final.
    pub(super) fn is_suspect(&self) -> bool {
        self.tried > 0
    }

    /// Blocks of slots that have become final, and blocks of the later slots as they are now.
    pub(super) fn poll(&mut self, ledger: &Ledger, scope: &Scope) -> [Vec<Attempts>; 2] {
        let (mut last, mut so_far) = (Vec::new(), Vec::new());
        let mut ahead: Option<Lineup> = None;
        for (began, (end, counts)) in ledger.slots(self.canary, self.from) {
            if self.is_mixed(began, end) {
                match (&mut ahead, end) {
                    (Some(ahead), _) => ahead.clear(),
                    (None, Some(end)) => {
                        self.from = end;
                        self.lineup.clear();
                    }
                    (None, None) => {}
                }
                continue;
            }
            let look = Look {
                age: end.map(|end| scope.now.saturating_sub(end)),
                patience: scope.patience,
                horizon: scope.horizon,
                groups: if is_alone(scope.alone, &counts.canary) { 0 } else { ENDPOINT_GROUPS },
            };
            let at = end.unwrap_or(scope.now);
            match (look.at(counts), &mut ahead) {
                (Said::Final(slot), None) => {
                    self.from = at;
                    last.extend(self.lineup.add(&slot, at));
                }
                (Said::Final(slot) | Said::SoFar(slot), ahead) => {
                    let lineup = ahead.get_or_insert_with(|| self.lineup.clone());
                    so_far.extend(lineup.add(&slot, at));
                }
                (Said::Nothing, ahead) => {
                    ahead.get_or_insert_with(|| self.lineup.clone());
                }
            }
        }
        so_far.extend(ahead.and_then(Lineup::rest));
        let from = self.from;
        self.borders.retain(|border| *border > from);
        [last, so_far]
    }
}

/// Whether everything in a slot was served by the only remaining endpoint, of group `alone`. Requests to
/// another endpoint that has since been removed are recognized by their group.
fn is_alone(alone: Option<u8>, canary: &SlotCounts) -> bool {
    let mut groups = canary.groups.iter().enumerate();
    alone.is_some_and(|alone| {
        groups.all(|(group, tally)| group == usize::from(alone) || tally.trials() == 0)
    })
}
