//! Slots of a canary and its baseline that are not final yet.

use std::time::Duration;

use crate::analysis::{Attempts, ENDPOINT_GROUPS, Ledger, Lineup, Look, Said, SlotCounts};

/// How slots are looked at now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    /// How long a baseline request usually takes at most.
    pub(super) patience: Duration,
    /// Age from which on a slot is final, whatever waits.
    pub(super) horizon: Duration,
    /// The group of the canary's endpoint, if it has one alone.
    pub(super) alone: Option<u8>,
    /// The time.
    pub(super) now: Duration,
}

/// The first slot that is not final, and the block that is open before it.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    canary: usize,
    /// When it began, at the earliest.
    from: Duration,
    lineup: Lineup,
    /// When the split changed, as far as slots about these times are not judged: the older first.
    borders: Vec<Duration>,
    /// What the canary did badly in those that are not final when they were tried last.
    tried: u64,
}

impl Slots {
    /// Slots of version number `canary`, from the one on that begins at `now` or later.
    pub(super) fn new(canary: u16, now: Duration) -> Self {
        Self {
            canary: canary.into(),
            from: now,
            lineup: Lineup::default(),
            borders: Vec::new(),
            tried: 0,
        }
    }

    /// Slots that began before were judged.
    pub(super) fn read_until(&self) -> Duration {
        self.from
    }

    /// Throws away what is not final: the slot that begins at `now` or later is the first one.
    pub(super) fn skip_to(&mut self, now: Duration) {
        self.from = now;
        self.lineup.clear();
    }

    /// Says that the split changed at `now`, or since the look before. What began before is judged as it ends,
    /// and stands in no block with what begins later; the slot in which it changed is of both splits, and says
    /// nothing.
    pub(super) fn weight_step(&mut self, now: Duration) {
        self.borders.push(now);
    }

    /// Whether the split changed in a slot.
    fn is_mixed(&self, began: Duration, end: Option<Duration>) -> bool {
        let mut borders = self.borders.iter();
        borders.any(|border| began < *border && end.is_none_or(|end| end >= *border))
    }

    /// Whether it is worth trying what `so_far` would add, after blocks that became final, if any did: only
    /// what the canary did badly makes the difference, and a try costs a copy of the comparison.
    pub(super) fn tries(&mut self, so_far: &[Attempts], any_final: bool) -> bool {
        let bad = so_far.iter().map(Attempts::bad).sum();
        let before = std::mem::replace(&mut self.tried, bad);
        bad > 0 && (any_final || bad != before)
    }

    /// Whether the canary did anything badly in slots that are not final.
    pub(super) fn is_suspect(&self) -> bool {
        self.tried > 0
    }

    /// Blocks of slots that have become final, and those of the slots after them as they stand.
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

/// Whether all that a slot counts is of the endpoint that is left, of group `alone`. Another one that was there
/// when requests began is told apart, also once it is out.
fn is_alone(alone: Option<u8>, canary: &SlotCounts) -> bool {
    let mut groups = canary.groups.iter().enumerate();
    alone.is_some_and(|alone| {
        groups.all(|(group, tally)| group == usize::from(alone) || tally.trials() == 0)
    })
}
