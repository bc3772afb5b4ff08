//! Passes the outcomes of first attempts from the workers to the evaluator.
//!
//! The evaluator decides which players and outcomes count (`analysis/ledger.rs`). A worker only
//! records an outcome: 24 bytes in a ring of its own, which the evaluator empties at each
//! evaluation. So the path of a request pays for three stores, and no cache line is written by two
//! cores. A full ring drops new outcomes and counts them, which does not change rates.
//!
//! Requests that began at the same time are compared. The time is the number of the evaluation: a
//! worker records it when a request begins, so that no clock is read.

use std::sync::{
    OnceLock,
    atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{Counter, PerWorker};
use crate::analysis::{ENDPOINT_GROUPS, Ending, What};

/// Outcomes that a ring holds: those of 100,000 requests a second in 160 ms.
const CAPACITY: u64 = 1 << 14;
/// Outcomes passed to the evaluator in one call.
const TAKEN_AT_ONCE: usize = 64;
/// Words of an outcome.
const WORDS: u64 = 3;

/// The rings of all workers, and the number of the current evaluation.
#[derive(Debug)]
pub struct Outcomes {
    look: AtomicU32,
    rings: PerWorker<Ring>,
}

impl Outcomes {
    /// Creates the rings of `workers` workers.
    pub(super) fn new(workers: usize) -> Self {
        Self { look: AtomicU32::new(1), rings: PerWorker::new(workers) }
    }

    /// The number of the current evaluation. A worker that reads this number and then counts a
    /// request was not counted by the evaluator when it began that evaluation.
    pub fn look(&self) -> u32 {
        self.look.load(Acquire)
    }

    /// The number of the next evaluation.
    pub fn next_look(&self) -> u32 {
        self.look().wrapping_add(1).max(1)
    }

    /// Begins evaluation number `next`. Called by the evaluator only.
    pub fn begin_look(&self, next: u32) {
        self.look.store(next, Release);
    }

    /// Records an outcome. Called by `worker` only.
    pub fn push(&self, worker: usize, ending: Ending) {
        self.rings.of(worker).push(ending);
    }

    /// Passes all new outcomes to `take`, some at a time. Called by the evaluator only.
    pub fn drain(&self, mut take: impl FnMut(&[Ending])) {
        self.rings.iter().for_each(|ring| ring.drain(&mut take));
    }

    /// Outcomes that were lost because a ring was full.
    pub fn lost(&self) -> u64 {
        self.rings.sum(|ring| ring.lost.read())
    }
}

#[derive(Debug, Default)]
struct Ring {
    words: OnceLock<Box<[AtomicU64]>>,
    written: AtomicU64,
    read: AtomicU64,
    lost: Counter,
}

impl Ring {
    fn push(&self, ending: Ending) {
        let words =
            self.words.get_or_init(|| (0..CAPACITY * WORDS).map(|_| AtomicU64::new(0)).collect());
        let written = self.written.load(Relaxed);
        if written - self.read.load(Acquire) >= CAPACITY {
            return self.lost.add(1);
        }
        let at = (written % CAPACITY * WORDS) as usize;
        if let Some([a, b, c]) = words.get(at..at + WORDS as usize) {
            let [x, y, z] = pack(ending);
            a.store(x, Relaxed);
            b.store(y, Relaxed);
            c.store(z, Relaxed);
            self.written.store(written + 1, Release);
        }
    }

    fn drain(&self, take: &mut impl FnMut(&[Ending])) {
        let Some(words) = self.words.get() else { return };
        let (read, written) = (self.read.load(Relaxed), self.written.load(Acquire));
        let ending = |number: u64| {
            let at = (number % CAPACITY * WORDS) as usize;
            let word = |n: usize| words[at + n].load(Relaxed);
            unpack([word(0), word(1), word(2)])
        };
        let mut some = Vec::with_capacity(TAKEN_AT_ONCE);
        for first in (read..written).step_by(TAKEN_AT_ONCE) {
            some.clear();
            some.extend((first..written).take(TAKEN_AT_ONCE).map(ending));
            take(&some);
        }
        self.read.store(written, Release);
    }
}

/// Numbers of evidence that are told apart; outcomes of others are dropped.
const ARMS: u32 = 1 << 24;

/// Ids of endpoints are recorded modulo this number: two endpoints of a version with the same
/// remainder are eight million endpoints apart.
pub const ENDPOINTS: u32 = 1 << 23;

const _: () = assert!(ENDPOINT_GROUPS <= 16 && What::ALL.len() <= 16, "four bits each");

fn pack(ending: Ending) -> [u64; 3] {
    let Ending { look, split, arm, player, network, endpoint, .. } = ending;
    let Ending { group, fresh, what, head_us, whole_us, .. } = ending;
    [
        u64::from(look) << 32 | u64::from(split) << 24 | u64::from(arm % ARMS),
        u64::from(player) << 48
            | u64::from(network) << 32
            | u64::from(endpoint % ENDPOINTS) << 9
            | u64::from(fresh) << 8
            | u64::from(group % 16) << 4
            | what as u64,
        u64::from(head_us) << 32 | u64::from(whole_us),
    ]
}

fn unpack([a, b, c]: [u64; 3]) -> Ending {
    Ending {
        look: (a >> 32) as u32,
        split: (a >> 24) as u8,
        arm: a as u32 % ARMS,
        player: (b >> 48) as u16,
        network: (b >> 32) as u16,
        endpoint: b as u32 >> 9,
        group: b as u8 >> 4,
        fresh: b >> 8 & 1 == 1,
        what: What::ALL[usize::from(b as u8 & 15) % What::ALL.len()],
        head_us: (c >> 32) as u32,
        whole_us: c as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(n: u32) -> Ending {
        Ending {
            look: n,
            split: n.wrapping_mul(7) as u8,
            arm: (n ^ 0xFFFF_FFFF) % ARMS,
            player: n as u16,
            network: !(n as u16),
            endpoint: n.wrapping_mul(2_654_435_761) % ENDPOINTS,
            group: (n % ENDPOINT_GROUPS as u32) as u8,
            fresh: n.is_multiple_of(3),
            what: What::ALL[n as usize % What::ALL.len()],
            head_us: n.wrapping_mul(40_503),
            whole_us: u32::MAX - n,
        }
    }

    fn drained(outcomes: &Outcomes) -> Vec<Ending> {
        let mut all = Vec::new();
        outcomes.drain(|endings| all.extend_from_slice(endings));
        all
    }

    #[test]
    fn outcomes_are_drained_once_and_unchanged() {
        let outcomes = Outcomes::new(2);
        assert_eq!(drained(&outcomes), []);
        let all: Vec<Ending> = (0..100).map(ending).collect();
        all.iter().for_each(|ending| outcomes.push(0, *ending));
        outcomes.push(1, ending(7));
        assert_eq!(drained(&outcomes), [&all[..], &[ending(7)]].concat());
        assert_eq!((drained(&outcomes), outcomes.lost()), (vec![], 0));
    }

    #[test]
    fn a_full_ring_drops_and_counts_outcomes() {
        let outcomes = Outcomes::new(1);
        (0..CAPACITY as u32 + 5).for_each(|n| outcomes.push(0, ending(n)));
        assert_eq!((drained(&outcomes).len() as u64, outcomes.lost()), (CAPACITY, 5));
        outcomes.push(0, ending(3));
        assert_eq!(drained(&outcomes), [ending(3)]);
    }

    #[test]
    fn a_worker_and_the_evaluator_agree_while_both_are_busy() {
        let outcomes = Outcomes::new(1);
        let (mut next, all) = (0, 200_000);
        std::thread::scope(|scope| {
            let pushing = scope.spawn(|| (0..all).for_each(|n| outcomes.push(0, ending(n))));
            loop {
                let is_last = pushing.is_finished();
                outcomes.drain(|endings| {
                    for seen in endings {
                        // Outcomes may be lost, but none is torn or read twice.
                        assert!(seen.look >= next, "{} after {next}", seen.look);
                        assert_eq!(*seen, ending(seen.look));
                        next = seen.look + 1;
                    }
                });
                if is_last {
                    break;
                }
            }
        });
        assert!(next > 0 && outcomes.lost() < u64::from(all));
    }

    #[test]
    fn evaluation_numbers_are_never_0() {
        let outcomes = Outcomes::new(1);
        let next = outcomes.next_look();
        assert_eq!((outcomes.look(), next), (1, 2));
        outcomes.begin_look(next);
        assert_eq!(outcomes.look(), 2);
    }
}
