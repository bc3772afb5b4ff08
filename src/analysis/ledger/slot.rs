//! Slots of time: the requests that began in each, and whether the versions share an outage.
//!
//! Requests are compared with those that began at the same time. That is right for an outage that
//! affects both versions at the same moment of a request, whenever they report it. If it affects
//! them at different moments of a request, then for a short time requests of one version fail while
//! those of the other that began with them are served. But then both versions fail requests that
//! *end* at that time. So a canary is only blamed for failures beyond the baseline's both among
//! requests that began and among those that ended together: of its bad outcomes, as many are set
//! aside as the baseline's bad outcomes of that time explain. Those count only if the baseline was
//! bad about the time when the request began, as in the middle of an outage; at its edges they are
//! no evidence about the version.
//!
//! Rejected: setting all of them aside while the baseline is bad. A canary that always failed was
//! hidden by a baseline of which some requests always fail after a long time.

use std::{collections::VecDeque, ops::AddAssign, time::Duration};

use super::super::slots::SlotCounts;

/// Number of slots before and after one that count as about the same time.
pub(super) const ABOUT: usize = 2;
/// More than one unserved player in this many requests of the baseline is shared trouble.
const OF_TROUBLE: u64 = 10;
/// Likewise, for requests that end now. The limit is higher, so that a baseline with a constant
/// failure rate does not hide a canary's failures by chance.
const OF_OUTAGE: f64 = 0.2;
/// How long an outage is remembered: a version that needs the failed resource later reports it
/// later.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Requests of the baseline that are needed to detect trouble: neighbouring slots are added until
/// there are this many.
const KNOWS_TROUBLE: u64 = 20;
/// With fewer requests the result is unknown.
const LEAST_ABOUT: u64 = 5;
/// Most players that 64 bits can count reliably.
const MOST_DISTINCT: u64 = 30;

/// Requests that began during some evaluations, by version.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    pub(super) first_look: u32,
    pub(super) began: Duration,
    /// Requests counted as begun.
    pub(super) started: Vec<u64>,
    /// The counts that are compared.
    pub(super) arms: Vec<SlotCounts>,
    /// Bad outcomes that were set aside.
    pub(super) aside: Vec<SlotCounts>,
    /// Outcomes of the baseline's requests that began in it: players who failed, and players who
    /// were not served, since they failed or left.
    failed_by: Players,
    unserved_by: Players,
    /// Outcomes of each version's requests that ended while this was the newest slot.
    recent: Vec<Recent>,
}

impl Slot {
    /// A new slot for evaluation number `look`, which reuses the memory of this one.
    pub(super) fn renewed(mut self, look: u32, now: Duration, versions: usize) -> Self {
        self.started.clear();
        self.started.resize(versions, 0);
        for arms in [&mut self.arms, &mut self.aside] {
            arms.clear();
            arms.resize(versions, SlotCounts::default());
        }
        self.recent.clear();
        self.recent.resize(versions, Recent::default());
        let Self { started, arms, aside, recent, .. } = self;
        Self { first_look: look, began: now, started, arms, aside, recent, ..Self::default() }
    }

    /// Whether no request began in it, and none ended while it was the newest slot.
    pub(super) fn is_quiet(&self) -> bool {
        self.started.iter().all(|started| *started == 0)
            && self.arms.iter().chain(&self.aside).all(|counts| *counts == SlotCounts::default())
            && self.recent.iter().all(|recent| *recent == Recent::default())
            && self.unserved_by == Players::default()
    }

    /// Pending requests of `version`. A request that began between the count and the number of the
    /// next evaluation is counted in the next slot: `ahead` are those that ended here and are
    /// counted later.
    pub(super) fn pending(&self, version: usize, ahead: &mut u64) -> u64 {
        let (begun, ended) = (self.started[version], self.arms[version].ended + *ahead);
        *ahead = ended.saturating_sub(begun);
        begun.saturating_sub(ended)
    }

    /// Outcomes of the baseline's requests that began in it.
    fn about(&self, baseline: usize) -> About {
        let (started, ended) = (self.started[baseline], self.arms[baseline].ended);
        About { started, ended, failed_by: self.failed_by, unserved_by: self.unserved_by }
    }

    /// The counts of `version`, including those set aside if the baseline's requests were bad, too.
    pub(super) fn counts(&self, version: usize, is_shared: impl FnOnce() -> bool) -> SlotCounts {
        let (counts, aside) = (self.arms[version], &self.aside[version]);
        match *aside != SlotCounts::default() && is_shared() {
            true => counts.and(aside),
            false => counts,
        }
    }

    /// Records that a request of the baseline that began in it was not served to `player`.
    pub(super) fn fail_baseline(&mut self, player: u16, left: bool) {
        self.unserved_by.add(player);
        if !left {
            self.failed_by.add(player);
        }
    }

    /// Records that a request of `version` ended while this is the newest slot.
    pub(super) fn note(&mut self, version: usize, player: u16, is_bad: bool) {
        let recent = &mut self.recent[version];
        recent.ended += 1;
        if is_bad {
            recent.bad += 1;
            recent.bad_by.add(player);
        }
    }
}

/// A set of players with one bit each, which several may share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Players(u64);

impl Players {
    fn bit(player: u16) -> u64 {
        // Any bits of the hash are suitable.
        1 << (player % 64)
    }

    fn add(&mut self, player: u16) {
        self.0 |= Self::bit(player);
    }

    /// Approximate number, by linear counting (Whang, Vander-Zanden, Taylor, 1990).
    fn count(self) -> f64 {
        -64.0 * (f64::from(self.0.count_zeros()) / 64.0).ln()
    }

    fn others_than(self, player: u16) -> Self {
        Self(self.0 & !Self::bit(player))
    }

    /// Whether they are more than one in `of` requests of `ended`. The bits are half full before as
    /// many have failed as that takes of very many.
    fn are_many(self, of: u64, ended: u64) -> bool {
        of * u64::from(self.0.count_ones()) > ended.min(of * MOST_DISTINCT)
    }
}

/// The baseline's outcomes about some time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct About {
    started: u64,
    ended: u64,
    failed_by: Players,
    unserved_by: Players,
}

impl AddAssign for About {
    fn add_assign(&mut self, more: Self) {
        self.started += more.started;
        self.ended += more.ended;
        self.failed_by.0 |= more.failed_by.0;
        self.unserved_by.0 |= more.unserved_by.0;
    }
}

impl About {
    /// Outcomes of the baseline's requests that began about the time of slot number `at`.
    pub(super) fn begun(slots: &VecDeque<Slot>, at: usize, baseline: usize) -> Self {
        sum(
            (0..slots.len()).map(|distance| {
                let after = (distance > 0).then_some(at + distance);
                let numbers = at.checked_sub(distance).into_iter().chain(after);
                let mut both = Self::default();
                numbers.filter_map(|n| slots.get(n)).for_each(|slot| both += slot.about(baseline));
                both
            }),
            |about| about.ended,
        )
    }

    /// Whether other players than `player` were served, except for at most one in ten.
    pub(super) fn serves(self, player: u16) -> bool {
        let is_known = self.ended >= LEAST_ABOUT && 2 * self.ended >= self.started;
        is_known && !self.failed_by.others_than(player).are_many(OF_TROUBLE, self.ended)
    }

    /// Whether many were not served.
    fn is_trouble(self) -> bool {
        self.ended >= LEAST_ABOUT && self.unserved_by.are_many(OF_TROUBLE, self.ended)
    }
}

/// Outcomes of a version's requests at some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Recent {
    ended: u64,
    bad: u64,
    bad_by: Players,
}

impl AddAssign for Recent {
    fn add_assign(&mut self, more: Self) {
        self.ended += more.ended;
        self.bad += more.bad;
        self.bad_by.0 |= more.bad_by.0;
    }
}

impl Recent {
    /// The latest outcomes of `version`.
    fn lately(slots: &VecDeque<Slot>, version: usize) -> Self {
        sum(slots.iter().rev().map(|slot| slot.recent[version]), |recent| recent.ended)
    }

    /// Unserved players per request; `None` for too few requests.
    fn rate(self) -> Option<f64> {
        let players = self.bad_by.count().min(self.bad as f64);
        (self.ended >= LEAST_ABOUT).then(|| players / self.ended as f64)
    }
}

/// The sum over `slots`, the nearest first, until there are enough requests.
fn sum<T: AddAssign + Default>(slots: impl Iterator<Item = T>, ended: impl Fn(&T) -> u64) -> T {
    let mut sum = T::default();
    for (distance, slot) in slots.enumerate() {
        if distance > ABOUT && ended(&sum) >= KNOWS_TROUBLE {
            break;
        }
        sum += slot;
    }
    sum
}

/// The baseline's current outage, or one of a moment ago.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outage {
    /// The baseline's rate of bad outcomes.
    rate: f64,
    since: Duration,
    /// When it is forgotten.
    until: Duration,
    /// Number of further bad outcomes of canaries that it explains.
    credit: f64,
}

impl Outage {
    /// Whether it explains another bad outcome of `version` at `now`: any while the outage is new,
    /// since the rates are then from before it; later, the baseline's rate as a part of the
    /// version's own.
    pub(super) fn explains(
        &mut self,
        slots: &VecDeque<Slot>,
        (version, baseline): (usize, usize),
        now: Duration,
    ) -> bool {
        let rate = Recent::lately(slots, baseline).rate().filter(|rate| *rate > OF_OUTAGE);
        if let Some(rate) = rate {
            if now >= self.until {
                (self.since, self.rate) = (now, 0.0);
            }
            self.rate = self.rate.max(rate);
            self.until = now + REMEMBERED;
        }
        if now >= self.until {
            return false;
        }
        let own = Recent::lately(slots, version).rate().unwrap_or(0.0);
        let is_new = now < self.since + REMEMBERED;
        let part = if is_new || own == 0.0 { 1.0 } else { self.rate / own };
        self.credit += part.min(1.0);
        let explains = self.credit >= 1.0;
        self.credit -= f64::from(u8::from(explains));
        explains
    }
}

/// Whether slot number `at` is in the middle of an outage of the baseline: it began before the
/// slot, and did not end with it, as far as is known.
pub(super) fn is_amid_trouble(slots: &VecDeque<Slot>, at: usize, baseline: usize) -> bool {
    fn of<'a>(slots: impl Iterator<Item = &'a Slot>, baseline: usize) -> About {
        sum(slots.map(|slot| slot.about(baseline)), |about| about.ended)
    }
    let (before, after) = (of(slots.range(..=at).rev(), baseline), of(slots.range(at..), baseline));
    before.is_trouble() && (after.ended < LEAST_ABOUT || after.is_trouble())
}
