//! Which requests are compared with which: those that began at the same time.
//!
//! Two versions may tell of one outage at different times, the one after 50 ms, the other after a second.
//! Of requests that *ended* together, the quicker version's are of the outage while the slower version's
//! are of the time before it, and a healthy canary fails. So requests are compared by the slot of time
//! in which they began. The rule for those that have no outcome yet is against the baseline, since a
//! doubt must not cost a canary: while less than half of a slot's baseline requests have ended the slot
//! says nothing; of the others so many count as failed as of the canary's; and what waits longer than
//! `patience` counts as failed until it ends. What waits on the
//! canary counts as served, since of a version that serves more slowly than it fails the failures are heard
//! first; in a slot that is final it counts as nothing. So a slot's evidence only falls as the baseline's
//! outcomes come in worse than assumed, and never rests on what is unknown.
//!
//! Slots that are over and complete are final. Those after them are looked at as they stand, again and
//! again, since a canary that fails altogether is not to wait for the baseline's slowest answer.

use std::{ops::AddAssign, time::Duration};

use serde::{Deserialize, Serialize};

use super::counts::{Arms, Tally};

/// In how many groups the endpoints of a version are told apart; more share groups.
pub const ENDPOINT_GROUPS: usize = 8;

/// Trials of the canary that close a block. With fewer the arms are hardly seen at the same time: the
/// growth of the evidence is 0.52 of the best possible at a quarter of a request per block, 0.83 at
/// one, 0.90 at two, 0.94 at five. With more, a canary that fails altogether fills the blocks while
/// nobody looks: of 100 requests a second, 17 failed at worst of 400 runs with five, 12 with two; those
/// that fail at 5 % cost nine either way.
const ENOUGH_CANARY_TRIALS: u64 = 2;
/// Age at which one trial of each arm is enough.
const SETTLE: Duration = Duration::from_millis(200);
/// Age at which a block that lacks an arm is thrown away: its halves are no longer of the same time.
const GIVE_UP: Duration = Duration::from_secs(5);

/// First attempts of one arm that began in a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// Without an outcome.
    pub pending: u64,
    /// With one, whatever it says.
    pub ended: u64,
    /// Requests, and those that failed.
    pub requests: Tally,
    /// The same, of which each player is one trial a second and fails once a cycle.
    pub players: Tally,
    /// The same of requests that were not served: failed, or left by their clients.
    pub served: Tally,
    /// `served` by group of endpoints.
    pub groups: [Tally; ENDPOINT_GROUPS],
    /// Players who failed for the first time in the cycle, whether or not that was a trial.
    pub failers: u64,
}

impl SlotCounts {
    /// Requests that began.
    fn begun(&self) -> u64 {
        self.pending + self.ended
    }

    /// With `more` that was counted apart; what waits and what has ended is counted here alone.
    pub(super) fn and(mut self, more: &Self) -> Self {
        self.requests += more.requests;
        self.players += more.players;
        self.served += more.served;
        self.groups.iter_mut().zip(more.groups).for_each(|(group, more)| *group += more);
        self.failers += more.failers;
        self
    }

    /// As if all that wait had failed.
    fn with_pending_failed(self) -> Self {
        self.with(Tally::new(self.pending, self.pending))
    }

    /// As if of those that wait as many had failed as of `others`, and one more where that is no whole number.
    fn with_pending_like(self, others: Tally) -> Self {
        let trials = others.trials().max(1);
        let failed = (self.pending * others.failures()).div_ceil(trials);
        self.with(Tally::new(self.pending, failed))
    }

    /// As if all that wait had been served.
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
    /// Requests of which each player is one trial a second and fails once a cycle: what decides.
    pub players: Arms<Tally>,
    /// The same of requests that were not served: failed, or left by their clients.
    pub served: Arms<Tally>,
    /// All of them.
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

    /// Requests each of which is of a player of its own, and whose clients stay.
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

    /// How often the canary did anything badly in it.
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

/// How a slot is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Time since the slot ended; nothing while it goes on.
    pub age: Option<Duration>,
    /// Age from which on a baseline request that waits counts as failed.
    pub patience: Duration,
    /// Age from which on a slot is final, whatever waits.
    pub horizon: Duration,
    /// Groups of the canary's endpoints.
    pub groups: usize,
}

/// What a slot says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// This, for good.
    Final(Attempts),
    /// This, as far as is known.
    SoFar(Attempts),
    /// Nothing yet.
    Nothing,
}

impl Look {
    /// What `slot` says.
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
        // People read these, and what is assumed of requests that wait has not happened.
        let requests = Arms::new(slot.canary.requests, slot.baseline.requests);
        Said::SoFar(Attempts { requests, ..so_far })
    }
}

/// Slots in order, put together to blocks that are large enough to say something.
///
/// The rule looks at counts of trials and at time, never at outcomes, and so cannot bias the test.
/// Closing early when failures pile up was rejected for that reason.
#[derive(Debug, Clone, Default)]
pub struct Lineup {
    block: Attempts,
    /// When the open block began.
    opened: Duration,
}

impl Lineup {
    /// Adds a slot that ended at `end`, in the caller's time: the block, if that closes it.
    pub fn add(&mut self, slot: &Attempts, end: Duration) -> Option<Attempts> {
        if self.block.trials() == [0, 0] {
            // A block without any trial does not age: nobody has waited in it.
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

    /// The open block as it stands, if it has trials of both arms.
    pub fn rest(self) -> Option<Attempts> {
        let [canary, baseline] = self.block.trials();
        (canary >= 1 && baseline >= 1).then_some(self.block)
    }

    /// Throws the open block away: the weights changed in it.
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
        // An outage that the canary tells at once and the baseline much later.
        let outage = Arms::new(counts(0, 5, 5), counts(40, 0, 0));
        assert_eq!(look(None).at(outage), Said::Nothing);
        assert_eq!(look(Some(19)).at(outage), Said::Nothing);
        assert_eq!(players(&look(Some(20)).at(outage)), Some([5, 5, 40, 40]));
        assert_eq!(players(&look(Some(1_000)).at(outage)), Some([5, 5, 40, 40]));
        // An outage of a part of the requests, of which the canary tells sooner.
        let part = |failed| Arms::new(counts(0, 5, failed), counts(10, 30, 0));
        for (failed, of_those_that_wait) in [(5, 10), (2, 4), (1, 2), (0, 0)] {
            let so_far = players(&look(Some(10)).at(part(failed)));
            assert_eq!(so_far, Some([5, failed, 40, of_those_that_wait]));
        }
        assert_eq!(players(&look(Some(30)).at(part(1))), Some([5, 1, 40, 10]));
        // A verdict named failures of the baseline that its backend had not made.
        let Said::SoFar(so_far) = look(Some(10)).at(part(5)) else { panic!("it waits") };
        assert_eq!(so_far.requests, Arms::new(Tally::new(5, 5), Tally::new(30, 0)));
    }

    #[test]
    fn a_canary_that_hangs_says_nothing_until_its_deadline() {
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
        // The baseline's 51 requests are gone.
        assert_eq!(lineup.add(&attempts(5, 0, 1), MS(6_010)), Some(attempts(5, 0, 1)));
        lineup.add(&attempts(1, 0, 7), MS(6_020));
        lineup.clear();
        assert_eq!(lineup.add(&attempts(2, 0, 1), MS(6_030)), Some(attempts(2, 0, 1)));
    }
}
