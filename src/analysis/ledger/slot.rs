//! Slots of time: what began in each, and whether the versions share trouble.
//!
//! Requests are compared with those that began at the same time. That is the right time of an outage which
//! both versions meet at the same moment of a request, whenever they tell of it. If they meet it at
//! different moments, then for a while requests of one version fail that began when those of the other,
//! begun with them, were served. But then both fail of what *ends* at that time. So a canary is blamed for
//! what it fails more often than the baseline both of what began and of what ended together: of its bad endings,
//! as many are put aside as the baseline's bad endings explain that were told then. They count where the
//! baseline did badly about the time when the request began, as it does in the midst of an outage; at its
//! ends they say nothing of the version.
//!
//! Rejected: to put all of them aside while the baseline does badly. A canary that failed altogether was hidden
//! by a baseline of which some requests ever fail after a long time.

use std::{collections::VecDeque, ops::AddAssign, time::Duration};

use super::super::slots::SlotCounts;

/// Slots before and after one that are of about the same time.
const ABOUT: usize = 2;
/// One player of so many requests of the baseline, who was not served, is trouble that versions share.
const OF_TROUBLE: u64 = 10;
/// The same of what ends now. It takes more, so that a baseline that ever fails for so many does not hide a
/// canary's failures by chance.
const OF_OUTAGE: f64 = 0.2;
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
    /// How requests of each version ended while it was the newest slot.
    told: Vec<Told>,
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
        self.told.clear();
        self.told.resize(versions, Told::default());
        let Self { started, arms, aside, told, .. } = self;
        Self { first_look: look, began: now, started, arms, aside, told, ..Self::default() }
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

    /// Notes that a request of `version` ended while this is the newest slot.
    pub(super) fn hear(&mut self, version: usize, player: u16, is_bad: bool) {
        let told = &mut self.told[version];
        told.ended += 1;
        if is_bad {
            told.bad += 1;
            told.bad_by.add(player);
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

    /// About how many they are, by linear counting (Whang, Vander-Zanden, Taylor, 1990).
    fn count(self) -> f64 {
        -64.0 * (f64::from(self.0.count_zeros()) / 64.0).ln()
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
    /// Of requests of the baseline that began about as those of slot number `at` did.
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

    /// Whether others than `player` were served, but for one in ten at most.
    pub(super) fn serves(self, player: u16) -> bool {
        let is_known = self.ended >= LEAST_ABOUT && 2 * self.ended >= self.started;
        is_known && !self.failed_by.others_than(player).are_many(OF_TROUBLE, self.ended)
    }

    /// Whether many were not served.
    fn is_trouble(self) -> bool {
        self.ended >= LEAST_ABOUT && self.unserved_by.are_many(OF_TROUBLE, self.ended)
    }
}

/// How requests of a version ended at some time.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    ended: u64,
    bad: u64,
    bad_by: Players,
}

impl AddAssign for Told {
    fn add_assign(&mut self, more: Self) {
        self.ended += more.ended;
        self.bad += more.bad;
        self.bad_by.0 |= more.bad_by.0;
    }
}

impl Told {
    /// How requests of `version` ended last.
    fn lately(slots: &VecDeque<Slot>, version: usize) -> Self {
        sum(slots.iter().rev().map(|slot| slot.told[version]), |told| told.ended)
    }

    /// Players who were not served, per request; nothing of too few requests.
    fn rate(self) -> Option<f64> {
        let players = self.bad_by.count().min(self.bad as f64);
        (self.ended >= LEAST_ABOUT).then(|| players / self.ended as f64)
    }
}

/// All that `slots` say, the nearest first, until enough is known.
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

/// The outage that the baseline tells of now, or told of a moment ago.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outage {
    /// The baseline's rate of bad endings.
    rate: f64,
    since: Duration,
    /// It is remembered until then.
    until: Duration,
    /// Bad endings of canaries that it explains and that were not put aside yet.
    credit: f64,
}

impl Outage {
    /// Whether it explains one more bad ending of `version`, told `now`: all of them while it is new, since the
    /// rates are then of requests before it; later the baseline's rate as a part of the version's own.
    pub(super) fn explains(
        &mut self,
        slots: &VecDeque<Slot>,
        (version, baseline): (usize, usize),
        now: Duration,
    ) -> bool {
        let rate = Told::lately(slots, baseline).rate().filter(|rate| *rate > OF_OUTAGE);
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
        let own = Told::lately(slots, version).rate().unwrap_or(0.0);
        let is_new = now < self.since + REMEMBERED;
        let part = if is_new || own == 0.0 { 1.0 } else { self.rate / own };
        self.credit += part.min(1.0);
        let explains = self.credit >= 1.0;
        self.credit -= f64::from(u8::from(explains));
        explains
    }
}

/// Whether the baseline's requests that began with those of slot number `at` are amid trouble: it was there
/// before, and did not end with them, as far as is known.
pub(super) fn is_amid_trouble(slots: &VecDeque<Slot>, at: usize, baseline: usize) -> bool {
    fn of<'a>(slots: impl Iterator<Item = &'a Slot>, baseline: usize) -> About {
        sum(slots.map(|slot| slot.about(baseline)), |about| about.ended)
    }
    let (before, after) = (of(slots.range(..=at).rev(), baseline), of(slots.range(at..), baseline));
    before.is_trouble() && (after.ended < LEAST_ABOUT || after.is_trouble())
}
