//! Slots of time: what began in each, and whether the versions share trouble.
//!
//! Requests are compared with those that began at the same time. That is the right time of an outage which
//! both versions meet at the same moment of a request, whenever they tell of it. If they meet it at
//! different moments, then for a while requests of one version fail that began when those of the other,
//! begun with them, were served. So a bad ending of a canary's request is put aside if it was told while
//! the baseline's requests ended badly, too. It counts if the baseline did badly about the time when the
//! request began, as it does in the midst of an outage; at its ends it says nothing of the version.

use std::{collections::VecDeque, ops::AddAssign, time::Duration};

use super::super::slots::SlotCounts;

/// Slots before and after one that are of about the same time.
const ABOUT: usize = 2;
/// One player of so many requests of the baseline, who was not served, is trouble that versions share.
const OF_TROUBLE: u64 = 10;
/// The same of what ends now. It takes more, so that a baseline that ever fails for so many does not hide a
/// canary's failures by chance.
const OF_OUTAGE: u64 = 5;
/// And it takes so many times what is usual: what a baseline ever does is no outage, as where clients leave
/// long polls, or where a few requests fail after a long time.
const TIMES_USUAL: f64 = 3.0;
/// Seconds after which half of what was usual is forgotten.
const USUAL_HALF_LIFE_S: f64 = 60.0;
/// Looks at what ends, a tenth of a second apart, without which nothing is usual.
const KNOWS_USUAL: u32 = 20;
const USUAL_PAUSE: Duration = Duration::from_millis(100);
/// How long an outage is remembered: a version that needs the same thing later tells of it later, too.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Requests of the baseline that tell whether there is trouble: further slots are asked until there are so many.
const KNOWS_TROUBLE: u64 = 20;
/// With fewer nothing is known.
const LEAST_ABOUT: u64 = 5;
/// Players that 64 bits can tell apart.
const MOST_TOLD_APART: u64 = 30;

/// Requests that began over some looks, by version.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    pub(super) first_look: u32,
    pub(super) began: Duration,
    /// Requests that began, as far as was counted.
    pub(super) started: Vec<u64>,
    /// What counts.
    pub(super) arms: Vec<SlotCounts>,
    /// Bad endings that were put aside.
    pub(super) aside: Vec<SlotCounts>,
    /// How the requests of the baseline ended that began in it. Players who failed, and such as were not
    /// served: they failed, or left.
    failed_by: Players,
    unserved_by: Players,
    /// How requests of the baseline ended while it was the newest slot.
    told: About,
}

impl Slot {
    /// A new slot, of the look number `look`, in the memory of this one.
    pub(super) fn renewed(mut self, look: u32, now: Duration, versions: usize) -> Self {
        self.started.clear();
        self.started.resize(versions, 0);
        for arms in [&mut self.arms, &mut self.aside] {
            arms.clear();
            arms.resize(versions, SlotCounts::default());
        }
        let Self { started, arms, aside, .. } = self;
        Self { first_look: look, began: now, started, arms, aside, ..Self::default() }
    }

    /// Requests of `version` that wait. One that began between the count and the number of the next look is
    /// counted in the next slot: those that ended here and are counted later are `ahead`.
    pub(super) fn pending(&self, version: usize, ahead: &mut u64) -> u64 {
        let (begun, ended) = (self.started[version], self.arms[version].ended + *ahead);
        *ahead = ended.saturating_sub(begun);
        begun.saturating_sub(ended)
    }

    /// How the requests of the baseline ended that began in it.
    fn about(&self, baseline: usize) -> About {
        let (started, ended) = (self.started[baseline], self.arms[baseline].ended);
        About { started, ended, failed_by: self.failed_by, unserved_by: self.unserved_by }
    }

    /// What counts of `version`: what was put aside as well where the baseline's requests fared so, too.
    pub(super) fn counts(&self, version: usize, is_shared: impl FnOnce() -> bool) -> SlotCounts {
        let (counts, aside) = (self.arms[version], &self.aside[version]);
        match *aside != SlotCounts::default() && is_shared() {
            true => counts.and(aside),
            false => counts,
        }
    }

    /// Notes that a request of the baseline that began in it was not served to `player`.
    pub(super) fn fail_baseline(&mut self, player: u16, left: bool) {
        self.unserved_by.add(player);
        if !left {
            self.failed_by.add(player);
        }
    }

    /// Notes that a request of the baseline ended while this is the newest slot.
    pub(super) fn hear_baseline(&mut self, player: u16, is_bad: bool) {
        self.told.ended += 1;
        if is_bad {
            self.told.unserved_by.add(player);
        }
    }
}

/// Players, by one bit each, which several may share.
#[derive(Debug, Clone, Copy, Default)]
struct Players(u64);

impl Players {
    fn bit(player: u16) -> u64 {
        // Any bits of the hash will do.
        1 << (player % 64)
    }

    fn add(&mut self, player: u16) {
        self.0 |= Self::bit(player);
    }

    fn others_than(self, player: u16) -> Self {
        Self(self.0 & !Self::bit(player))
    }

    /// Whether they are more than one in `of` requests of `ended`. The bits are half full before as many have
    /// failed as that takes of very many.
    fn are_many(self, of: u64, ended: u64) -> bool {
        of * u64::from(self.0.count_ones()) > ended.min(of * MOST_TOLD_APART)
    }
}

/// How the baseline did about some time.
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
    /// All that `slots` say, in that order, until enough is known.
    fn of(slots: impl Iterator<Item = Self>) -> Self {
        let mut about = Self::default();
        for (number, slot) in slots.enumerate() {
            if number > ABOUT && about.ended >= KNOWS_TROUBLE {
                break;
            }
            about += slot;
        }
        about
    }

    /// Of requests of the baseline that began about as those of slot number `at` did.
    pub(super) fn begun(slots: &VecDeque<Slot>, at: usize, baseline: usize) -> Self {
        let nearest = (0..slots.len()).flat_map(|distance| {
            let after = (distance > 0).then_some(at + distance);
            [at.checked_sub(distance), after].into_iter().flatten()
        });
        Self::of(nearest.filter_map(|number| Some(slots.get(number)?.about(baseline))))
    }

    /// Of requests of the baseline that ended last.
    pub(super) fn ended(slots: &VecDeque<Slot>) -> Self {
        Self::of(slots.iter().rev().map(|slot| slot.told))
    }

    /// Whether others than `player` were served, but for one in ten at most.
    pub(super) fn serves(self, player: u16) -> bool {
        let is_known = self.ended >= LEAST_ABOUT && 2 * self.ended >= self.started;
        is_known && !self.failed_by.others_than(player).are_many(OF_TROUBLE, self.ended)
    }

    /// Whether many were not served.
    fn is_trouble(self) -> bool {
        self.ended >= LEAST_ABOUT && self.unserved_by.are_many(OF_TROUBLE, self.ended)
    }

    /// Players who were not served, per request, as far as bits tell players apart.
    fn unserved(self) -> f64 {
        let told_apart = self.ended.clamp(1, OF_OUTAGE * MOST_TOLD_APART);
        f64::from(self.unserved_by.0.count_ones()) / told_apart as f64
    }

    /// Whether so many were not served, where `usual` is usual, that no version's failure of now is certain to be
    /// its own.
    fn is_outage(self, usual: f64) -> bool {
        self.ended >= LEAST_ABOUT
            && self.unserved_by.are_many(OF_OUTAGE, self.ended)
            && self.unserved() > TIMES_USUAL * usual
    }
}

/// Whether the baseline's requests end as badly as they do in an outage.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trouble {
    /// How many are usually not served, and from how many looks that is known.
    usual: f64,
    known: u32,
    looked: Duration,
    /// An outage is on, or was on a moment ago.
    until: Duration,
}

impl Trouble {
    /// Learns what is usual.
    pub(super) fn look(&mut self, slots: &VecDeque<Slot>, now: Duration) {
        let passed = now.saturating_sub(self.looked);
        let lately = About::ended(slots);
        if passed < USUAL_PAUSE || lately.ended < LEAST_ABOUT {
            return;
        }
        self.looked = now;
        self.known = (self.known + 1).min(KNOWS_USUAL);
        // The first looks count alike; after a pause one look is not everything.
        let fading = 1.0 - 0.5_f64.powf(passed.as_secs_f64().min(1.0) / USUAL_HALF_LIFE_S);
        let weight = if self.known < KNOWS_USUAL { 1.0 / f64::from(self.known) } else { fading };
        self.usual += weight * (lately.unserved() - self.usual);
    }

    /// Whether a bad ending of `now` may be an outage's.
    pub(super) fn is_on(&mut self, slots: &VecDeque<Slot>, now: Duration) -> bool {
        if self.known >= KNOWS_USUAL && About::ended(slots).is_outage(self.usual) {
            self.until = now + REMEMBERED;
        }
        now < self.until
    }
}

/// Whether the baseline's requests that began with those of slot number `at` are amid trouble: it was there
/// before, and did not end with them, as far as is known.
pub(super) fn is_amid_trouble(slots: &VecDeque<Slot>, at: usize, baseline: usize) -> bool {
    let before = About::of(slots.range(..=at).rev().map(|slot| slot.about(baseline)));
    let after = About::of(slots.range(at..).map(|slot| slot.about(baseline)));
    before.is_trouble() && (after.ended < LEAST_ABOUT || after.is_trouble())
}
