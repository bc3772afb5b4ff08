//! Slots of a canary and its baseline that are not final yet.

use std::time::Duration;

use crate::{
    analysis::{Arms, Attempts, ENDPOINT_GROUPS, Lineup, Look, Said, SlotCounts},
    registry::{EvidenceCells, PerWorker, Slot, StratumState},
};

/// How slots are looked at now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    /// Length of a slot as a power of two of microseconds.
    pub(super) shift: u8,
    /// How long a baseline request usually takes at most.
    pub(super) patience: Duration,
    /// Age from which on a slot is final, whatever waits.
    pub(super) horizon: Duration,
    /// Endpoints of the canary.
    pub(super) endpoints: usize,
    /// The time.
    pub(super) now: Duration,
}

/// The first slot that is not final, and the block that is open before it.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    shift: u8,
    begin: Duration,
    lineup: Lineup,
}

/// The age from which on a slot of `state` is final: its requests have failed by then, or ended.
pub(super) fn horizon(state: &StratumState) -> Duration {
    let ring = Slot::ring(state.shift());
    // A moment later, since a worker that is busy notices late.
    state.deadline().map_or(ring, |deadline| deadline + deadline / 50).min(ring)
}

impl Slots {
    /// From the slot on that follows `now`.
    pub(super) fn new(shift: u8, now: Duration) -> Self {
        let mut slots = Self { shift, begin: Duration::ZERO, lineup: Lineup::default() };
        slots.skip_to(now);
        slots
    }

    fn length(&self) -> Duration {
        Duration::from_micros(1 << self.shift)
    }

    /// Throws away what is not final, up to the slot that holds `now`.
    pub(super) fn skip_to(&mut self, now: Duration) {
        let micros = now.as_secs() * 1_000_000 + u64::from(now.subsec_micros());
        self.begin = Duration::from_micros(((micros >> self.shift) + 1) << self.shift);
        self.lineup.clear();
    }

    /// Blocks of slots that have become final, and those of the slots after them as they stand.
    pub(super) fn poll(
        &mut self,
        cells: Arms<&PerWorker<EvidenceCells>>,
        scope: &Scope,
    ) -> (Vec<Attempts>, Vec<Attempts>) {
        if self.shift != scope.shift {
            self.shift = scope.shift;
            self.skip_to(scope.now);
        }
        // What is older than the ring is lost: nobody looked for long.
        let oldest = scope.now.saturating_sub(Slot::ring(self.shift));
        if self.begin < oldest {
            self.skip_to(oldest);
        }
        let (mut last, mut so_far) = (Vec::new(), Vec::new());
        let mut ahead: Option<Lineup> = None;
        let groups = match scope.endpoints {
            0 | 1 => 0,
            endpoints => endpoints.min(ENDPOINT_GROUPS),
        };
        let mut begin = self.begin;
        while begin <= scope.now {
            let end = begin + self.length();
            let look = Look {
                age: scope.now.checked_sub(end),
                patience: scope.patience,
                horizon: scope.horizon,
                groups,
            };
            let said = look.at(read(cells, Slot::of(begin, self.shift)));
            match (said, &mut ahead) {
                (Said::Final(slot), None) => {
                    self.begin = end;
                    last.extend(self.lineup.add(&slot, end));
                }
                (Said::Final(slot) | Said::SoFar(slot), ahead) => {
                    let lineup = ahead.get_or_insert_with(|| self.lineup.clone());
                    so_far.extend(lineup.add(&slot, end));
                }
                (Said::Nothing, ahead) => {
                    ahead.get_or_insert_with(|| self.lineup.clone());
                }
            }
            begin = end;
        }
        so_far.extend(ahead.and_then(Lineup::rest));
        (last, so_far)
    }
}

fn read(cells: Arms<&PerWorker<EvidenceCells>>, slot: Slot) -> Arms<SlotCounts> {
    let of = |cells: &PerWorker<EvidenceCells>| {
        let mut counts = SlotCounts::default();
        cells.iter().for_each(|cells| counts += cells.begun.read(slot));
        counts
    };
    // The canary first: what fails between the two readings then counts on the baseline alone.
    let canary = of(cells.canary);
    Arms::new(canary, of(cells.baseline))
}
