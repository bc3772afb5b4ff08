//! Compares requests that began at the same time.
//!
//! Two versions may report the same outage at different times, one after 50 ms, the other after a second. Among
//! requests that *ended* at the same time, those of the faster version would be from the outage and those of
//! the slower one from before it, so a healthy canary would fail. So requests are compared by the slot of time
//! in which they began. Requests without an outcome are counted against the baseline, so that uncertainty does
//! not harm a canary:
//!
//! - while less than half of a slot's baseline requests have ended, the slot is not used;
//! - of the baseline's pending requests, the same fraction counts as failed as of the canary's requests;
//! - the baseline's requests that have been pending for longer than `patience` count as failed until they end.
//!
//! Pending requests of the canary count as served, since failures of a version that fails faster than it serves
//! arrive first; in a final slot they do not count. So a slot's evidence only decreases when the baseline's
//! outcomes are worse than assumed, and never depends on unknown outcomes.
//!
//! Slots that are over and complete are final. Later ones are evaluated repeatedly with their current counts,
//! because a canary that always fails should be ejected before the baseline's slowest response arrives.

use std::{ops::AddAssign, time::Duration};

use serde::{Deserialize, Serialize};

use super::counts::{Arms, Tally};

/// Number of groups of a version's endpoints; further endpoints share groups.
pub const ENDPOINT_GROUPS: usize = 8;

/// Trials of the canary that close a block; `block.rs` gives the reasons.
const ENOUGH_CANARY_TRIALS: u64 = 2;
/// Age at which one trial of each arm is enough.
const SETTLE: Duration = Duration::from_millis(200);
/// Age at which a block that lacks an arm is discarded, since its halves no longer belong to the same time.
const GIVE_UP: Duration = Duration::from_secs(5);

/// First attempts of one arm that began in a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Without an outcome.
    pub pending: u64,
    /// With an outcome of any kind.
    pub ended: u64,
    /// Requests, and failed ones.
    pub requests: Tally,
    /// Likewise, with one trial per player and second, and one failure per player and cycle.
    pub players: Tally,
    /// Likewise, with requests that were not served as failures: failed, or left by their clients.
    pub served: Tally,
    /// `served` by group of endpoints.
    pub groups: [Tally; ENDPOINT_GROUPS],
    /// Players who failed for the first time in the cycle, whether that was a trial or not.
    pub failers: u64,
}

impl SlotCounts {
    /// Requests begun.
    fn begun(&self) -> u64 {
        self.pending + self.ended
    }

    /// Adds `more`, which was counted separately; pending and ended requests are counted only in
    /// `self`.
    pub(super) fn and(mut self, more: &Self) -> Self {
        self.requests += more.requests;
        self.players += more.players;
        self.served += more.served;
        self.groups.iter_mut().zip(more.groups).for_each(|(group, more)| *group += more);
        self.failers += more.failers;
        self
    }

    /// The counts if all pending requests had failed.
    fn with_pending_failed(self) -> Self {
        self.with(Tally::new(self.pending, self.pending))
    }

    /// The counts if the same fraction of the pending requests had failed as of `others`, rounded up.
    fn with_pending_like(self, others: Tally) -> Self {
        let trials = others.trials().max(1);
        let failed = (self.pending * others.failures()).div_ceil(trials);
        self.with(Tally::new(self.pending, failed))
    }

    /// The counts if all pending requests had been served.
    fn with_pending_served(self) -> Self {
        self.with(Tally::new(self.pending, 0))
    }

    fn with(mut self, more: Tally) -> Self {
        for tally in [&mut self.requests, &mut self.players, &mut self.served] {
            *tally += more;
        }
        self
    }
}

/// A block of first attempts that began over the same stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempts {
    /// Requests with one trial per player and second, and one failure per player and cycle; these
    /// decide.
    pub players: Arms<Tally>,
    /// Likewise, with requests that were not served as failures: failed, or left by their clients.
    pub served: Arms<Tally>,
    /// All requests.
    pub requests: Arms<Tally>,
    /// `served` of the canary by group of endpoints; empty if it has one endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Tally>,
    /// Players of the canary who failed for the first time in the cycle.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failers: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Attempts {
    fn of(slot: Arms<SlotCounts>, groups: usize) -> Self {
        let Arms { canary, baseline } = slot;
        Self {
            players: Arms::new(canary.players, baseline.players),
            served: Arms::new(canary.served, baseline.served),
            requests: Arms::new(canary.requests, baseline.requests),
            groups: canary.groups.iter().copied().take(groups).collect(),
            failers: canary.failers,
        }
    }

    /// Attempts in which each request is of a different player, and no client leaves.
    pub fn of_strangers(requests: Arms<Tally>) -> Self {
        let failers = requests.canary.failures();
        Self { players: requests, served: requests, requests, groups: Vec::new(), failers }
    }

    fn trials(&self) -> [u64; 2] {
        let Self { players, served, .. } = self;
        [
            players.canary.trials().max(served.canary.trials()),
            players.baseline.trials().max(served.baseline.trials()),
        ]
    }

    /// Number of bad events of the canary in the block.
    pub fn bad(&self) -> u64 {
        self.requests.canary.failures() + self.served.canary.failures()
    }
}

impl AddAssign<&Self> for Attempts {
    fn add_assign(&mut self, more: &Self) {
        self.players += more.players;
        self.served += more.served;
        self.requests += more.requests;
        self.failers += more.failers;
        self.groups.resize(self.groups.len().max(more.groups.len()), Tally::default());
        self.groups.iter_mut().zip(&more.groups).for_each(|(group, more)| *group += *more);
    }
}

/// Parameters of the evaluation of a slot.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Time since the slot ended; `None` while it is open.
    pub age: Option<Duration>,
    /// Age from which on a pending baseline request counts as failed.
    pub patience: Duration,
    /// Age from which on a slot is final, even with pending requests.
    pub horizon: Duration,
    /// Groups of the canary's endpoints.
    pub groups: usize,
}

/// The result of a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// The final attempts.
    Final(Attempts),
    /// The attempts so far.
    SoFar(Attempts),
    /// No result yet.
    Nothing,
}

impl Look {
    /// Evaluates `slot`.
    pub fn at(self, slot: Arms<SlotCounts>) -> Said {
        let Arms { canary, baseline } = slot;
        let is_over = self.age.is_some();
        let age = self.age.unwrap_or_default();
        if is_over && (age >= self.horizon || (canary.pending == 0 && baseline.pending == 0)) {
            let baseline = baseline.with_pending_failed();
            return Said::Final(Attempts::of(Arms::new(canary, baseline), self.groups));
        }
        let is_late = age >= self.patience;
        if !is_late && 2 * baseline.ended < baseline.begun() {
            return Said::Nothing;
        }
        let canary = canary.with_pending_served();
        let baseline = match is_late {
            true => baseline.with_pending_failed(),
            false => baseline.with_pending_like(canary.served),
        };
        let so_far = Attempts::of(Arms::new(canary, baseline), self.groups);
        // These are shown to people, so assumptions about pending requests are not included.
        let requests = Arms::new(slot.canary.requests, slot.baseline.requests);
        Said::SoFar(Attempts { requests, ..so_far })
    }
}

/// Joins slots, in order, to blocks that are large enough.
///
/// The rule depends on counts of trials and on time, never on outcomes, and so cannot bias the
/// test. Closing early when failures pile up was rejected for that reason.
#[derive(Debug, Clone, Default)]
pub struct Lineup {
    block: Attempts,
    /// When the open block began.
    opened: Duration,
}

impl Lineup {
    /// Adds a slot that ended at `end`, in the caller's time; returns the block if that closes it.
    pub fn add(&mut self, slot: &Attempts, end: Duration) -> Option<Attempts> {
        if self.block.trials() == [0, 0] {
            // A block without trials does not age.
            self.opened = end;
        }
        self.block += slot;
        let age = end.saturating_sub(self.opened);
        let [canary, baseline] = self.block.trials();
        let both = canary >= 1 && baseline >= 1;
        if both && (canary >= ENOUGH_CANARY_TRIALS || age >= SETTLE) {
            return Some(std::mem::take(&mut self.block));
        }
        if age >= GIVE_UP {
            self.block = Attempts::default();
        }
        None
    }

    /// The open block so far, if it has trials of both arms.
    pub fn rest(self) -> Option<Attempts> {
        let [canary, baseline] = self.block.trials();
        (canary >= 1 && baseline >= 1).then_some(self.block)
    }

    /// Discards the open block, since the weights changed in it.
    pub fn clear(&mut self) {
        self.block = Attempts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn counts(pending: u64, ended: u64, failed: u64) -> SlotCounts {
        let tally = Tally::new(ended, failed);
        SlotCounts {
            pending,
            ended,
            requests: tally,
            players: tally,
            served: tally,
            groups: Default::default(),
            failers: 0,
        }
    }

    fn look(age: Option<u64>) -> Look {
        Look { age: age.map(MS), patience: MS(20), horizon: MS(1_000), groups: 0 }
    }

    fn players(said: &Said) -> Option<[u64; 4]> {
        let (Said::Final(attempts) | Said::SoFar(attempts)) = said else { return None };
        let Arms { canary, baseline } = attempts.players;
        Some([canary.trials(), canary.failures(), baseline.trials(), baseline.failures()])
    }

    #[test]
    fn a_slot_is_final_when_it_is_over_and_nothing_waits_or_too_long() {
        let done = Arms::new(counts(0, 2, 1), counts(0, 20, 0));
        assert!(matches!(look(Some(0)).at(done), Said::Final(_)));
        assert!(matches!(look(None).at(done), Said::SoFar(_)), "more may begin in it");
        let waits = Arms::new(counts(1, 2, 1), counts(0, 20, 0));
        assert!(matches!(look(Some(5)).at(waits), Said::SoFar(_)));
        assert!(matches!(look(Some(1_000)).at(waits), Said::Final(_)));
    }

    #[test]
    fn a_baseline_that_hangs_speaks_for_the_canary() {
        // An outage that the canary reports at once and the baseline much later.
        let outage = Arms::new(counts(0, 5, 5), counts(40, 0, 0));
        assert_eq!(look(None).at(outage), Said::Nothing);
        assert_eq!(look(Some(19)).at(outage), Said::Nothing);
        assert_eq!(players(&look(Some(20)).at(outage)), Some([5, 5, 40, 40]));
        assert_eq!(players(&look(Some(1_000)).at(outage)), Some([5, 5, 40, 40]));
        // An outage of a part of the requests, which the canary reports earlier.
        let part = |failed| Arms::new(counts(0, 5, failed), counts(10, 30, 0));
        for (failed, of_those_that_wait) in [(5, 10), (2, 4), (1, 2), (0, 0)] {
            let so_far = players(&look(Some(10)).at(part(failed)));
            assert_eq!(so_far, Some([5, failed, 40, of_those_that_wait]));
        }
        assert_eq!(players(&look(Some(30)).at(part(1))), Some([5, 1, 40, 10]));
        // Regression: a verdict included failures of the baseline that had not happened.
        let Said::SoFar(so_far) = look(Some(10)).at(part(5)) else { panic!("it waits") };
        assert_eq!(so_far.requests, Arms::new(Tally::new(5, 5), Tally::new(30, 0)));
    }

    #[test]
    fn a_canary_that_hangs_has_no_result_until_its_deadline() {
        let hangs = Arms::new(counts(5, 0, 0), counts(0, 40, 0));
        assert_eq!(players(&look(Some(30)).at(hangs)), Some([5, 0, 40, 0]));
        assert_eq!(players(&look(Some(1_000)).at(hangs)), Some([0, 0, 40, 0]));
    }

    #[test]
    fn a_canary_that_fails_sooner_than_it_serves_has_not_failed_altogether() {
        let serves_slowly = Arms::new(counts(18, 2, 2), counts(0, 400, 20));
        assert_eq!(players(&look(Some(10)).at(serves_slowly)), Some([20, 2, 400, 20]));
    }

    fn attempts(n_c: u64, k_c: u64, n_b: u64) -> Attempts {
        Attempts::of_strangers(Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, 0)))
    }

    #[test]
    fn two_of_the_canary_close_a_block() {
        let mut lineup = Lineup::default();
        assert_eq!(lineup.add(&attempts(1, 1, 30), MS(16)), None);
        assert_eq!(lineup.add(&attempts(1, 0, 5), MS(32)), Some(attempts(2, 1, 35)));
        assert_eq!(lineup.add(&attempts(5, 0, 0), MS(48)), None, "no baseline yet");
        assert_eq!(lineup.add(&attempts(0, 0, 1), MS(64)), Some(attempts(5, 0, 1)));
    }

    #[test]
    fn age_closes_a_block_of_one_each_and_throws_away_one_that_lacks_an_arm() {
        let mut lineup = Lineup::default();
        assert_eq!(lineup.add(&attempts(1, 1, 1), MS(100)), None);
        assert_eq!(lineup.add(&attempts(0, 0, 0), MS(299)), None);
        assert_eq!(lineup.add(&attempts(0, 0, 0), MS(300)), Some(attempts(1, 1, 1)));
        assert_eq!(lineup.add(&attempts(0, 0, 50), MS(1_000)), None);
        assert_eq!(lineup.add(&attempts(0, 0, 1), MS(6_000)), None);
        // The baseline's 51 requests were discarded.
        assert_eq!(lineup.add(&attempts(5, 0, 1), MS(6_010)), Some(attempts(5, 0, 1)));
        lineup.add(&attempts(1, 0, 7), MS(6_020));
        lineup.clear();
        assert_eq!(lineup.add(&attempts(2, 0, 1), MS(6_030)), Some(attempts(2, 0, 1)));
    }
}
