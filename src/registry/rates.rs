//! The due times of the keys of a rate limit, shared by the workers.
//!
//! A key is kept as a hash of 64 bits with a seed that strangers do not know. The table has a fixed number of slots, in
//! sets of eight, of which a hash names one set; so its memory does not grow, whatever keys strangers make up. A
//! new key takes a slot of its set whose due time has passed, for that says no more than no slot at all. If there is
//! none, it takes the slot whose due time is next: the key that loses it had the least left to wait for, and a key far
//! over its limit stays. Such losses are counted.
//!
//! Sets are behind locks, one for every few sets, each held for one look-up.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::policy::rate::{Rate, Said};

/// Slots of a set: two cache lines.
const WAYS: usize = 8;

/// Locks of a table, if it has that many sets.
const LOCKS: usize = 256;

/// The keys of one limit.
#[derive(Debug)]
pub struct RateTable {
    rate: Rate,
    seed: u64,
    /// When the clock of the due times began.
    began: Instant,
    sets: usize,
    locks: Box<[Mutex<Box<[Set]>>]>,
    refused: AtomicU64,
    advised: AtomicU64,
    lost: AtomicU64,
}

/// Who has the limit: what was found at one of its sources.
#[derive(Debug, Clone, Copy)]
pub struct RateKey<'a> {
    /// Number of the source: equal values of different sources are different keys.
    pub source: u16,
    /// The value.
    pub value: &'a [u8],
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Set([Slot; WAYS]);

/// A key and its due time; a free slot has the due time 0.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u64,
    due: u64,
}

impl RateTable {
    /// A table for about `keys` keys at once, 16 bytes each; `seed` is to be random.
    pub fn new(rate: Rate, keys: u32, seed: u64) -> Self {
        let sets = (keys as usize).div_ceil(WAYS).max(1);
        let locks = sets.min(LOCKS);
        let each = sets.div_ceil(locks);
        let of_lock = |_| Mutex::new(vec![Set::default(); each].into());
        Self {
            rate,
            seed,
            began: Instant::now(),
            sets: each * locks,
            locks: (0..locks).map(of_lock).collect(),
            refused: AtomicU64::new(0),
            advised: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Takes one request of `key` at `now`. One over the limit is counted as refused.
    pub fn take(&self, key: RateKey<'_>, now: Instant) -> Said {
        counted(self.said(key, now), &self.refused)
    }

    /// As [`Self::take`], for a limit that only advises: one over it is counted apart.
    pub fn advise(&self, key: RateKey<'_>, now: Instant) -> Said {
        counted(self.said(key, now), &self.advised)
    }

    fn said(&self, key: RateKey<'_>, now: Instant) -> Said {
        let now = now.saturating_duration_since(self.began).as_nanos() as u64 + 1;
        self.with(key, now, |slot| {
            let (due, said) = self.rate.take(slot.due, now);
            slot.due = due;
            said
        })
    }

    /// Gives back what `key` took just now, since another limit refused the request.
    pub fn give_back(&self, key: RateKey<'_>, now: Instant) {
        let now = now.saturating_duration_since(self.began).as_nanos() as u64 + 1;
        self.with(key, now, |slot| slot.due = self.rate.give_back(slot.due));
    }

    /// Requests refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Requests over the limit that were not refused so far, since it only advises.
    pub fn advised(&self) -> u64 {
        self.advised.load(Relaxed)
    }

    /// Keys that lost their slot before their due time, so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    fn with<T>(&self, key: RateKey<'_>, now: u64, act: impl FnOnce(&mut Slot) -> T) -> T {
        // A free slot has the hash 0.
        let hash = xxh3_64_with_seed(key.value, self.seed ^ u64::from(key.source)).max(1);
        // The upper bits, multiplied into the range: even for a number of sets that is no power of two.
        let set = ((u128::from(hash) * self.sets as u128) >> 64) as usize;
        let (lock, index) = (set % self.locks.len(), set / self.locks.len());
        // No panic leaves a half-done change: a slot is two numbers.
        let mut sets = self.locks[lock].lock().unwrap_or_else(PoisonError::into_inner);
        let slots = &mut sets[index].0;
        let slot = match slots.iter().position(|slot| slot.hash == hash) {
            Some(known) => &mut slots[known],
            None => {
                let next = (0..WAYS).min_by_key(|at| slots[*at].due).unwrap_or_default();
                let slot = &mut slots[next];
                if slot.due > now {
                    self.lost.fetch_add(1, Relaxed);
                }
                *slot = Slot { hash, due: 0 };
                slot
            }
        };
        act(slot)
    }
}

/// `said`, counted in `over` if it admits nothing.
fn counted(said: Said, over: &AtomicU64) -> Said {
    if !said.admitted {
        over.fetch_add(1, Relaxed);
    }
    said
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Duration};

    use super::*;

    fn key(value: &[u8]) -> RateKey<'_> {
        RateKey { source: 0, value }
    }

    fn table(requests: u32, keys: u32) -> RateTable {
        RateTable::new(Rate::new(requests, Duration::from_secs(1), requests), keys, 7)
    }

    #[test]
    fn each_key_has_a_limit_of_its_own() {
        let (table, now) = (table(2, 100), Instant::now());
        let admitted = |value: &[u8]| table.take(key(value), now).admitted;
        assert!(admitted(b"a") && admitted(b"a") && !admitted(b"a"));
        assert!(admitted(b"b") && admitted(b""));
        let of_cookie = RateKey { source: 1, value: b"a" };
        assert!(table.take(of_cookie, now).admitted, "the same value of another source");
        assert_eq!(table.refused(), 1);
        table.give_back(key(b"a"), now);
        assert!(admitted(b"a"));
        assert!(!admitted(b"a"));
        assert!(
            table.take(key(b"a"), now + Duration::from_millis(500)).admitted,
            "half a second later"
        );
    }

    #[test]
    fn a_flood_of_keys_takes_no_slot_of_a_key_that_is_over_its_limit() {
        let rate = Rate::new(1, Duration::from_secs(60), 5);
        let table = RateTable::new(rate, 800, 7);
        let now = Instant::now();
        for _ in 0..5 {
            assert!(table.take(key(b"abuser"), now).admitted);
        }
        for other in 0..50_000u32 {
            assert!(table.take(key(&other.to_le_bytes()), now).admitted, "{other}");
        }
        assert!(!table.take(key(b"abuser"), now).admitted);
        assert!(table.lost() > 40_000, "{}", table.lost());
    }

    #[test]
    fn keys_whose_time_has_passed_are_no_loss() {
        let (table, now) = (table(1, 80), Instant::now());
        for second in 0..100u32 {
            for number in 0..40 {
                let value = (second * 40 + number).to_le_bytes();
                table.take(key(&value), now + Duration::from_secs((second * 2).into()));
            }
        }
        // Sets do not fill evenly, so some are full of live keys.
        assert!(table.lost() < 400, "{}", table.lost());
    }

    /// A minute of 100,000 new keys a second, of the clock that the table is told: the one who is over the limit stays
    /// refused, nobody else is, and the table is as large as it was made.
    #[test]
    fn a_minute_of_a_hundred_thousand_new_keys_a_second_changes_nothing() {
        const EACH_SECOND: u32 = 100_000;
        let table = RateTable::new(Rate::new(1, Duration::from_secs(3600), 5), 100_000, 7);
        let (begin, began) = (Instant::now(), Instant::now());
        let bytes = || -> usize {
            let of = |sets: &Mutex<Box<[Set]>>| size_of_val(&**sets.lock().expect("no panic"));
            table.locks.iter().map(of).sum()
        };
        let before = bytes();
        for _ in 0..5 {
            assert!(table.take(key(b"abuser"), begin).admitted);
        }
        for number in 0..60 * EACH_SECOND {
            let now = begin + Duration::from_secs(1) * (number / EACH_SECOND);
            assert!(table.take(key(&number.to_le_bytes()), now).admitted, "{number}");
            if number % 1000 == 0 {
                assert!(!table.take(key(b"abuser"), now).admitted, "after {number} keys");
            }
        }
        println!("measured: {} keys in {:?}, {before} bytes", 60 * EACH_SECOND, began.elapsed());
        assert_eq!(bytes(), before);
        // 16 bytes a key, rounded up to whole sets of all locks.
        assert!((1_600_000..1_610_000).contains(&before), "{before}");
        assert_eq!(table.refused(), 6_000);
    }

    #[test]
    fn threads_together_get_no_more_than_the_limit() {
        let table = Arc::new(table(1000, 100));
        let now = Instant::now();
        let asked = |table: Arc<RateTable>| {
            move || (0..2000).filter(|_| table.take(key(b"player"), now).admitted).count()
        };
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(asked(Arc::clone(&table)))).collect();
        let admitted: usize = threads.into_iter().map(|t| t.join().expect("no panic")).sum();
        assert_eq!((admitted, table.refused()), (1000, 7000));
    }
}
