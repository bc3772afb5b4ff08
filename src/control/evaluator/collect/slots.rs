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

    /// Lets the time until `began` pass, in which nothing began: its slots were renewed. Returns the block that it closes.
    fn pass_quiet_time(&mut self, began: Duration) -> Option<Attempts> {
        let from = std::mem::replace(&mut self.from, began);
        if self.borders.iter().any(|border| from < *border && *border <= began) {
            self.lineup.clear();
        }
        self.lineup.add(&Attempts::default(), began)
    }

    /// Blocks of slots that have become final, and blocks of the later slots as they are now.
    pub(super) fn poll(&mut self, ledger: &Ledger, scope: &Scope) -> [Vec<Attempts>; 2] {
        let (mut last, mut so_far) = (Vec::new(), Vec::new());
        let mut ahead: Option<Lineup> = None;
        for (began, (end, counts)) in ledger.slots(self.canary, self.from) {
            if ahead.is_none() && began > self.from {
                last.extend(self.pass_quiet_time(began));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Ending, NO_TIME, What};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A request of each version in turn, with time between them in which nothing happens. `border`: when the split changes.
    fn blocks(pause: Duration, border: Option<Duration>) -> Vec<[u64; 2]> {
        let (mut now, mut look, mut started) = (Duration::from_secs(9), 1, [0_u64; 2]);
        let mut ledger = Ledger::new(2, 0, false, look, now);
        ledger.wait_for(MS(30_000));
        let mut slots = Slots::new(1, now);
        let (mut found, end) = (Vec::new(), now + Duration::from_secs(20));
        let mut due = [(0, now + MS(50)), (1, now + MS(50) + pause)].into_iter().peekable();
        let mut border = border.map(|after| now + after);
        while now < end {
            (now, look) = (now + MS(10), look + 1);
            ledger.look(look, started.into_iter(), now);
            while let Some((version, _)) = due.next_if(|(_, at)| *at <= now) {
                started[version] += 1;
                let ending = Ending {
                    look,
                    split: 0,
                    arm: 0,
                    player: version as u16,
                    network: 0,
                    endpoint: 0,
                    group: 0,
                    fresh: false,
                    what: What::Served,
                    head_us: 1_000,
                    whole_us: NO_TIME,
                };
                ledger.add(version, &ending, now);
            }
            if border.take_if(|at| *at <= now).is_some() {
                slots.weight_step(now);
            }
            let scope = Scope { patience: MS(100), horizon: MS(30_000), alone: None, now };
            let [last, _] = slots.poll(&ledger, &scope);
            ledger.read_until(slots.read_until());
            let requests = |block: &Attempts| [block.requests.baseline, block.requests.canary];
            found.extend(last.iter().map(|block| requests(block).map(|tally| tally.trials())));
        }
        found
    }

    #[test]
    fn requests_with_a_quiet_time_between_them_are_of_one_block_unless_too_much_is_between_them() {
        for (pause, together) in [(0, true), (300, true), (4_500, true), (5_500, false)] {
            let expected = if together { vec![[1, 1]] } else { vec![] };
            assert_eq!(blocks(MS(pause), None), expected, "{pause} ms apart");
        }
    }

    #[test]
    fn requests_before_and_after_a_change_of_the_split_in_a_quiet_time_are_never_of_one_block() {
        for border in [100, 500, 1_000, 1_900] {
            assert_eq!(blocks(MS(2_000), Some(MS(border))), Vec::<[u64; 2]>::new(), "{border} ms");
        }
    }
}
