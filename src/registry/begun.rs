//! Requests by when they began.
//!
//! Two versions that share an outage may tell it at different times: one gives up after 50 ms, the other
//! after a second. What ended at the same time then differs though what began at the same time does not.
//! So first attempts are counted in the slot of time in which they began, and a slot knows how many of
//! them have no outcome yet. Weights that change are a slot's border, too, so requests of different
//! splits are never compared with each other.
//!
//! A worker keeps a ring of slots for each version that is compared. Only that worker writes it; the
//! evaluator reads slots that are younger than the ring. A request that ends after its slot was given to
//! a later one counts nowhere.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    time::Duration,
};

use Ordering::{Acquire, Relaxed, Release};

use crate::analysis::{ENDPOINT_GROUPS, SlotCounts, Tally};

/// Slots of a ring: at the shortest length, 2.1 s.
pub const SLOTS: u32 = 256;
/// Microseconds of a slot, as a power of two, at least: 8 ms.
pub(super) const SHORTEST: u8 = 13;
/// The same, at most: 34 s.
const LONGEST: u8 = 25;
/// Bits of a number that hold the slot; above them stands its length.
const BITS: u32 = 27;

/// A slot of time: its number, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    /// The slot of length `2^shift` microseconds that holds the moment `at` since the process started.
    pub fn of(at: Duration, shift: u8) -> Self {
        let micros = at.as_secs() * 1_000_000 + u64::from(at.subsec_micros());
        Self((micros >> shift) as u32 & ((1 << BITS) - 1) | (u32::from(shift) + 1) << BITS)
    }

    /// The shift with which a ring is at least twice as long as `longest`.
    pub fn shift_for(longest: Duration) -> u8 {
        let fits = |shift: &u8| Self::ring(*shift) >= longest + longest / 20;
        (SHORTEST..LONGEST).find(fits).unwrap_or(LONGEST)
    }

    /// The time that a ring of slots of this length holds.
    pub fn ring(shift: u8) -> Duration {
        Duration::from_micros(u64::from(SLOTS - 2) << shift)
    }

    /// The slot after it.
    pub fn next(self) -> Self {
        let bits = (1 << BITS) - 1;
        Self((self.0.wrapping_add(1) & bits) | (self.0 & !bits))
    }

    fn index(self) -> usize {
        (self.0 % SLOTS) as usize
    }
}

/// How a first attempt ended, as far as its slot is concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// It says something of the version: not the client's doing, nor ours.
    pub counts: bool,
    /// It failed.
    pub failed: bool,
    /// The player's: whether it is a trial of errors.
    pub trial: bool,
    /// The same of requests that were not served, whether they failed or were left.
    pub served_trial: bool,
    /// It was not served.
    pub unserved: bool,
    /// Number of the endpoint's group.
    pub group: u8,
}

/// Ring of one version over some routes. Written by one worker.
#[derive(Debug, Default)]
pub struct Begun(OnceLock<Box<[Cells]>>);

/// 64 bytes: a line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cells {
    /// The slot that it is of; 0: of none.
    slot: AtomicU32,
    started: AtomicU16,
    ended: AtomicU16,
    requests: Pair,
    trials: Pair,
    served: Pair,
    groups: [Pair; ENDPOINT_GROUPS],
}

/// Trials and failures.
#[derive(Debug, Default)]
struct Pair(AtomicU16, AtomicU16);

impl Pair {
    fn add(&self, failed: bool) {
        // The reader looks at failures first.
        add(&self.0);
        if failed {
            add(&self.1);
        }
    }

    fn read(&self) -> Tally {
        let failures = self.1.load(Acquire);
        Tally::new(self.0.load(Relaxed).into(), failures.into())
    }

    fn clear(&self) {
        self.1.store(0, Relaxed);
        self.0.store(0, Relaxed);
    }
}

fn add(count: &AtomicU16) {
    count.store(count.load(Relaxed).saturating_add(1), Release);
}

impl Begun {
    /// Counts a request that begins in `slot`.
    pub fn begin(&self, slot: Slot) {
        let cells = self.0.get_or_init(|| (0..SLOTS).map(|_| Cells::default()).collect());
        let cells = &cells[slot.index()];
        if cells.slot.load(Relaxed) != slot.0 {
            cells.slot.store(0, Release);
            cells.started.store(0, Relaxed);
            cells.ended.store(0, Relaxed);
            let pairs = [&cells.requests, &cells.trials, &cells.served];
            pairs.into_iter().chain(&cells.groups).for_each(Pair::clear);
            cells.slot.store(slot.0, Release);
        }
        add(&cells.started);
    }

    /// Counts that a request which began in `slot` `ended`; whether the slot is still there.
    pub fn end(&self, slot: Slot, ended: Ended) -> bool {
        let Some(cells) = self.at(slot) else { return false };
        cells.count(ended);
        add(&cells.ended);
        true
    }

    /// Counts a failure of a request that had been taken for served: in its own slot, as long as that is
    /// there; whether it is.
    pub fn fail_later(&self, slot: Slot, ended: Ended) -> bool {
        let Some(cells) = self.at(slot) else { return false };
        let add_failure = |pair: &Pair, counts: bool| {
            if counts && pair.1.load(Relaxed) < pair.0.load(Relaxed) {
                add(&pair.1);
            }
        };
        add_failure(&cells.requests, ended.failed);
        add_failure(&cells.trials, ended.failed && ended.trial);
        add_failure(&cells.served, ended.unserved && ended.served_trial);
        let group = &cells.groups[usize::from(ended.group) % ENDPOINT_GROUPS];
        add_failure(group, ended.unserved && ended.served_trial);
        true
    }

    /// What was counted of `slot`.
    pub fn read(&self, slot: Slot) -> SlotCounts {
        let Some(cells) = self.at(slot) else { return SlotCounts::default() };
        // Ended first: one that ends between the two readings then seems to wait, which is the safe side.
        let ended = cells.ended.load(Acquire);
        let counts = SlotCounts {
            pending: u64::from(cells.started.load(Acquire)).saturating_sub(ended.into()),
            ended: ended.into(),
            requests: cells.requests.read(),
            players: cells.trials.read(),
            served: cells.served.read(),
            groups: std::array::from_fn(|group| cells.groups[group].read()),
        };
        // The worker may have given the cells to another slot meanwhile.
        if cells.slot.load(Acquire) == slot.0 { counts } else { SlotCounts::default() }
    }

    fn at(&self, slot: Slot) -> Option<&Cells> {
        let cells = &self.0.get()?[slot.index()];
        (cells.slot.load(Acquire) == slot.0).then_some(cells)
    }
}

impl Cells {
    fn count(&self, ended: Ended) {
        if ended.counts {
            self.requests.add(ended.failed);
        }
        if ended.trial {
            self.trials.add(ended.failed);
        }
        if ended.served_trial {
            self.served.add(ended.unserved);
            self.groups[usize::from(ended.group) % ENDPOINT_GROUPS].add(ended.unserved);
        }
    }
}
