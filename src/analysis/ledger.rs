//! Decides which requests count: converts outcomes of requests into the counts that are compared.
//!
//! Players are sticky, so the unit that is assigned at random is the player and not the request:
//! one player who fails on either version fails all day, on the version that the hash assigned. If
//! requests were counted, such a player would eject the version. So in each stratum
//!
//! 1. a request of a player who was bad in this cycle already is no trial, on either version;
//! 2. a request of another player is a trial if it is the player's first in that second, or bad; a
//!    bad one marks the player;
//! 3. a cycle ends when more than a quarter of its players were bad, at least three, and ten
//!    seconds have passed.
//!
//! Players who always fail are then on the canary in proportion to the split, whatever they do:
//! because of the hash, not of assumptions about traffic. Rule 2 is as important as rule 1:
//! failures are related to the canary's part of all trials, which a few busy players would change.
//! Rule 3 treats both versions alike, so it favors neither. A lasting minority is counted once per
//! cycle, while a cycle has a quarter of all players, so its excess is its share of the canary's
//! players divided by a quarter.
//!
//! A player is identified by a bucket of the hash of the cohort key. Players who share a bucket are
//! a coarser unit, which is still assigned at random.
//!
//! The same holds for slow requests, at each quantile by the baseline's limit: players who exceed
//! it leave the trials of both versions alike.
//!
//! Sources: the unit of randomization against the unit of analysis, Deng, Knoblich, Lu, *Applying
//! the Delta Method in Metric Analytics* (KDD 2018); the rest is derived in the project's
//! simulations.

mod arm;
mod ending;
mod players;
mod slot;
mod timing;

use std::{collections::VecDeque, time::Duration};

use self::{
    arm::Arm,
    players::{Marks, Way},
    slot::{ABOUT, About, Outage, Slot, is_amid_trouble},
};
pub use self::{
    arm::{Gauge, Latest},
    ending::{Ending, NO_TIME, What},
    players::Buckets,
};

use super::{
    counts::{Arms, Counter},
    latency::Span,
    slots::{ENDPOINT_GROUPS, SlotCounts},
};

/// Whether evaluation number `a` was before number `b`; numbers wrap.
pub fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > u32::MAX / 2
}

/// A slot: when it ended, `None` while it is open, and its counts.
pub type SlotView = (Option<Duration>, Arms<SlotCounts>);

/// Number of slots into which the longest wait for an outcome is divided.
const SLOTS: u32 = 128;
/// While there are fewer slots than this, they are as short as for a wait of a second: at first the
/// necessary wait is not known, and a fault of the first moments must not be in a single slot.
const SHORT_SLOTS: usize = 256;
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// Most slots without a request in a row.
const QUIET_SLOTS: usize = ABOUT + 1;

/// The account of a stratum.
#[derive(Debug, Clone)]
pub struct Ledger {
    baseline: usize,
    networks: bool,
    /// Whether latencies are counted.
    is_timed: bool,
    /// By version.
    pub arms: Vec<Arm>,
    marks: Marks,
    second: u64,
    slow_from: [Option<Arms<usize>>; 4],
    /// Oldest first.
    slots: VecDeque<Slot>,
    outage: Outage,
    /// The longest wait for an outcome.
    horizon: Duration,
    /// Started attempts at the last evaluation, by version.
    started: Vec<u64>,
    /// First evaluation of the current split.
    epoch_look: u32,
    /// Requests that began before this evaluation do not count, as long as slots are kept that
    /// began before it.
    void_until: Option<u32>,
    /// Slots that began before this time were judged.
    read_until: Duration,
    turned: Duration,
    /// Recent requests of the baseline, on pooled connections and on new ones.
    connections: [u64; 2],
}

impl Ledger {
    /// Creates the account of `versions` versions, of which one is the `baseline`, for requests
    /// that begin in evaluation number `look` or later.
    pub fn new(versions: usize, baseline: usize, networks: bool, look: u32, now: Duration) -> Self {
        let mut ledger = Self {
            baseline,
            networks,
            is_timed: true,
            arms: vec![Arm::default(); versions],
            marks: Marks::default(),
            second: 0,
            slow_from: [None; 4],
            slots: VecDeque::new(),
            outage: Outage::default(),
            horizon: Duration::from_secs(1),
            started: vec![0; versions],
            epoch_look: look,
            void_until: None,
            read_until: Duration::ZERO,
            turned: now,
            connections: [0; 2],
        };
        ledger.begin_cycles(now);
        ledger
    }

    /// The same account without latencies.
    pub fn untimed(self) -> Self {
        Self { is_timed: false, ..self }
    }

    /// Begins all cycles: all players count in a new comparison.
    pub fn begin_cycles(&mut self, now: Duration) {
        self.marks.begin_all(now);
        self.arms.iter_mut().for_each(|arm| arm.failed.clear());
    }

    /// Sets the longest wait for an outcome.
    pub fn wait_for(&mut self, horizon: Duration) {
        self.horizon = horizon;
    }

    /// Sets the first bucket of slow latencies at `gauge`.
    pub fn set_slow_from(&mut self, gauge: Gauge, first: Option<Arms<usize>>) {
        self.slow_from[gauge.index()] = first;
    }

    /// The first bucket that is slow in the baseline at `gauge`.
    pub fn slow_from(&self, gauge: Gauge) -> Option<usize> {
        self.slow_from[gauge.index()].map(|first| first.baseline)
    }

    /// Reports a change of the split: requests that began before evaluation number `look` belong to
    /// the old split.
    pub fn weight_step(&mut self, look: u32) {
        self.epoch_look = look;
    }

    /// Reports that the process did not run before evaluation number `look`: requests that began
    /// before and have not ended do not count.
    pub fn forget_before(&mut self, look: u32) {
        (self.epoch_look, self.void_until) = (look, Some(look));
    }

    /// Whether requests that began in evaluation number `look` do not count.
    pub fn forgets(&self, look: u32) -> bool {
        self.void_until.is_some_and(|until| is_before(look, until))
    }

    /// Records that slots which began before `until` were judged: later outcomes of them count in
    /// the current slot.
    pub fn read_until(&mut self, until: Duration) {
        self.read_until = self.read_until.max(until);
    }

    /// Begins evaluation number `look` at `now`; `started` are the requests begun so far, by
    /// version.
    pub fn look(&mut self, look: u32, started: impl Iterator<Item = u64>, now: Duration) {
        let mut open = self.slots.back_mut();
        for (version, (so_far, after)) in self.started.iter_mut().zip(started).enumerate() {
            let since = after.wrapping_sub(std::mem::replace(so_far, after));
            if let Some(slot) = &mut open {
                slot.started[version] += since;
            }
        }
        let is_short = self.slots.len() < SHORT_SLOTS;
        let length = if is_short { self.horizon.min(SHORT_WAIT) } else { self.horizon } / SLOTS;
        // One slot more than the wait, so that the oldest has ended.
        let longest = self.horizon + self.horizon / 16;
        let mut old = None;
        while self.slots.get(1).is_some_and(|next| now.saturating_sub(next.began) > longest) {
            old = self.slots.pop_front();
        }
        if self.slots.front().is_none_or(|slot| !self.forgets(slot.first_look)) {
            self.void_until = None;
        }
        if self.slots.back().is_none_or(|slot| now.saturating_sub(slot.began) >= length) {
            let slot = self.take_quiet().or(old).unwrap_or_default();
            self.slots.push_back(slot.renewed(look, now, self.arms.len()));
        }
        if now.saturating_sub(self.turned) >= Duration::from_secs(1) {
            self.turned = now;
            if self.marks.turn(now) {
                self.arms.iter_mut().for_each(|arm| arm.failed.clear());
            }
        }
    }

    /// Removes the newest slot, if there was no request in it and in those before it: a service without requests, of
    /// which there may be hundreds, has a handful of slots instead of hundreds. As many stay as are looked at to find
    /// out what was about the same time. Of those the last one then ends when the next one begins.
    fn take_quiet(&mut self) -> Option<Slot> {
        let newest = self.slots.iter().rev().take(QUIET_SLOTS);
        let are_quiet = newest.len() == QUIET_SLOTS && { newest }.all(Slot::is_quiet);
        are_quiet.then(|| self.slots.pop_back()).flatten()
    }

    /// The marks of `player`; reading them also brings them into the cache.
    pub fn marks_of(&self, player: u16) -> u16 {
        self.marks.of(player)
    }

    /// Adds the outcome of an attempt at version number `version`, which ended before `now`.
    /// Returns what it adds to the trials and failures of players.
    pub fn add(&mut self, version: usize, ending: &Ending, now: Duration) -> Counter {
        if version >= self.arms.len() {
            return Counter::default();
        }
        let second = now.as_secs();
        if self.second != second {
            self.second = second;
            self.marks.begin_second();
        }
        // Searched from the end, since most attempts began lately.
        let slot = self.slots.iter().rposition(|slot| !is_before(ending.look, slot.first_look));
        match ending.what {
            What::Whole | What::Broke | What::LeftLater if self.forgets(ending.look) => {}
            What::AskedServed | What::AskedFailed => {}
            what if what == What::Void || self.forgets(ending.look) => {
                if let Some(slot) = slot {
                    self.slots[slot].arms[version].ended += 1;
                }
            }
            What::Whole => self.time(version, Span::Whole, ending, true),
            What::Broke | What::LeftLater => return self.regret(version, slot, ending, now),
            _ => return self.settle(version, slot, ending, now),
        }
        Counter::default()
    }

    /// Whether the baseline serves other players than `player` whose requests began about
    /// evaluation number `look`; otherwise a failure of that time is not the player's own. Pending
    /// requests count against it, and so does a time with too few requests.
    pub fn baseline_serves(&self, look: u32, player: u16) -> bool {
        let at = self.slots.partition_point(|slot| !is_before(look, slot.first_look));
        let about = |at| About::begun(&self.slots, at, self.baseline);
        at.checked_sub(1).is_some_and(|at| about(at).serves(player))
    }

    /// Records the outcome of a request of `version` in slot number `slot`.
    fn note(&mut self, version: usize, slot: Option<usize>, player: u16, is_bad: bool, left: bool) {
        if let Some(newest) = self.slots.back_mut() {
            newest.note(version, player, is_bad);
        }
        if let Some(slot) = slot.filter(|_| is_bad && version == self.baseline) {
            self.slots[slot].fail_baseline(player, left);
        }
    }

    /// The counts for a bad outcome of `version` in slot number `slot`: separate ones if an outage
    /// explains it.
    fn counts_of_bad(&mut self, version: usize, slot: usize, now: Duration) -> &mut SlotCounts {
        let versions = (version, self.baseline);
        let is_explained =
            version != self.baseline && self.outage.explains(&self.slots, versions, now);
        let Slot { arms, aside, .. } = &mut self.slots[slot];
        let counts = if is_explained { aside } else { arms };
        &mut counts[version]
    }

    /// The slot in which an outcome of `slot` counts: its own, unless that was judged already, or
    /// is gone. Then it counts in the current slot, if the split is the same.
    fn open(&self, slot: Option<usize>, ending: &Ending) -> Option<usize> {
        let own = slot.filter(|number| self.slots[*number].began >= self.read_until);
        let last = || self.slots.len().checked_sub(1);
        own.or_else(|| last().filter(|_| !is_before(ending.look, self.epoch_look)))
    }

    fn settle(
        &mut self,
        version: usize,
        slot: Option<usize>,
        ending: &Ending,
        now: Duration,
    ) -> Counter {
        let (networks, what) = (self.networks, ending.what);
        let failed = matches!(what, What::Failed | What::TimedOut);
        let left = what == What::Left;
        let network = networks.then_some(ending.network);
        let first = self.marks.see(ending.player, network);
        let trial = !left && self.marks.admits(Way::Failed, ending, networks, first, failed);
        let is_bad = failed || left;
        let served_trial = self.marks.admits(Way::Unserved, ending, networks, first, is_bad);
        let group = usize::from(ending.group) % ENDPOINT_GROUPS;
        let arm = &mut self.arms[version];
        if what == What::TimedOut {
            arm.timed_out.add(network.unwrap_or(ending.player));
        }
        if !left {
            arm.requests.add(failed);
        }
        if trial {
            arm.groups[group].add(failed);
        }
        let failer = failed && arm.failed.add(ending.player);
        let open = self.open(slot, ending);
        if let Some(slot) = slot {
            self.slots[slot].arms[version].ended += 1;
        }
        self.note(version, slot, ending.player, is_bad, left);
        if let Some(slot) = open {
            let counts = match is_bad {
                true => self.counts_of_bad(version, slot, now),
                false => &mut self.slots[slot].arms[version],
            };
            counts.failers += u64::from(failer);
            if !left {
                counts.requests.add(failed);
            }
            if trial {
                counts.players.add(failed);
            }
            if served_trial {
                counts.served.add(is_bad);
                counts.groups[group].add(is_bad);
            }
        }
        if matches!(what, What::Served | What::Refused) {
            let refused = what == What::Refused;
            if self.marks.admits(Way::Refused, ending, networks, first, refused) {
                self.arms[version].refusals.add(refused);
            }
        }
        self.time(version, Span::Head, ending, first);
        if ending.whole_us != NO_TIME {
            self.time(version, Span::Whole, ending, first);
        }
        Counter { trials: u64::from(trial), failures: u64::from(trial && failed) }
    }

    /// Corrects an attempt that was counted as served but failed: in its own slot or, if that is
    /// gone, in the current one.
    fn regret(
        &mut self,
        version: usize,
        slot: Option<usize>,
        ending: &Ending,
        now: Duration,
    ) -> Counter {
        let (networks, left) = (self.networks, ending.what == What::LeftLater);
        let trial = !left && self.marks.admits(Way::Failed, ending, networks, false, true);
        let served = self.marks.admits(Way::Unserved, ending, networks, false, true);
        let group = usize::from(ending.group) % ENDPOINT_GROUPS;
        let arm = &mut self.arms[version];
        if !left {
            arm.requests.fail_later();
        }
        if trial {
            arm.groups[group].fail_later();
        }
        let failer = !left && arm.failed.add(ending.player);
        let open = self.open(slot, ending);
        let is_there = slot.is_some() && open == slot;
        self.note(version, open, ending.player, true, left);
        if let Some(slot) = open {
            let counts = self.counts_of_bad(version, slot, now);
            counts.failers += u64::from(failer);
            let mut add = |tally: fn(&mut SlotCounts) -> &mut super::counts::Tally,
                           counted: bool| {
                if counted {
                    tally(counts).fail_later(is_there);
                }
            };
            add(|counts| &mut counts.requests, !left);
            add(|counts| &mut counts.players, trial);
            add(|counts| &mut counts.served, served);
            if served {
                counts.groups[group].fail_later(is_there);
            }
        }
        if left {
            self.time(version, Span::Whole, ending, false);
        }
        Counter { trials: 0, failures: u64::from(trial) }
    }

    /// Slots that began at `from` or later, of version number `canary` and the baseline: the
    /// beginning and the counts of each.
    pub fn slots(
        &self,
        canary: usize,
        from: Duration,
    ) -> impl Iterator<Item = (Duration, SlotView)> {
        let first = self.slots.partition_point(|slot| slot.began < from);
        let mut ahead = Arms::new(0, 0);
        // The excess of earlier slots is found by going through them.
        for slot in self.slots.range(..first) {
            slot.pending(canary, &mut ahead.canary);
            slot.pending(self.baseline, &mut ahead.baseline);
        }
        (first..self.slots.len()).map(move |number| {
            let slot = &self.slots[number];
            let shared = || is_amid_trouble(&self.slots, number, self.baseline);
            let of = |version: usize, ahead: &mut u64| {
                let pending = slot.pending(version, ahead);
                SlotCounts { pending, ..slot.counts(version, shared) }
            };
            let canary = of(canary, &mut ahead.canary);
            let counts = Arms::new(canary, of(self.baseline, &mut ahead.baseline));
            let end = self.slots.get(number + 1).map(|next| next.began);
            (slot.began, (end, counts))
        })
    }
}

#[cfg(test)]
mod tests;
