//! What workers count of a version, to be compared with another one's.
//!
//! What two versions are compared by is kept twice: of all first attempts, which people read, and of
//! players, which decides. A player who failed counts no more until the cycle ends, and else is one trial a
//! second; the sets that say so belong to the stratum and are shared by its versions. Which attempts are
//! compared with which is the matter of `begun.rs`.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    Counter, PerWorker,
    begun::{Begun, Ended, SHORTEST, Slot},
    players::{Player, PlayerSet, Seen, Spent},
};
use crate::analysis::{self, AMOUNT_BUCKETS, Arms, LATENCY_BUCKETS, Span, latency_bucket};

/// Evidence of one version over some routes, by worker.
#[derive(Debug, Default)]
pub struct EvidenceCells {
    /// First attempts with an outcome, and those of them that failed.
    all: Pair,
    /// The same of players: trials of answers that refuse the request (4xx), and those that do.
    refusals: Pair,
    /// By when they began.
    pub begun: Begun,
    /// By [`Span`]: latencies of all attempts.
    latencies: [Buckets<LATENCY_BUCKETS>; 2],
    /// By [`Gauge`]: of those that are trials of a quantile.
    trials: [Buckets<LATENCY_BUCKETS>; 4],
}

#[derive(Debug, Default)]
struct Pair {
    trials: Counter,
    failures: Counter,
}

impl Pair {
    fn add(&self, failed: bool) {
        self.trials.add(1);
        if failed {
            self.failures.add(1);
        }
    }

    fn read(&self) -> analysis::Counter {
        // Failures first: read the other way around, there could be more of them than trials.
        let failures = self.failures.read();
        analysis::Counter { trials: self.trials.read(), failures }
    }
}

/// Evidence of an amount of one version over some routes, by worker: first attempts that were served, by
/// what they carried.
#[derive(Debug, Default)]
pub struct AmountEvidenceCells(Buckets<AMOUNT_BUCKETS>);

/// How often what was counted fell into which bucket; no memory until something is.
#[derive(Debug)]
struct Buckets<const N: usize>(OnceLock<Box<[AtomicU32; N]>>);

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<const N: usize> Buckets<N> {
    fn add(&self, bucket: usize) {
        let counts = self.0.get_or_init(|| Box::new([const { AtomicU32::new(0) }; N]));
        let count = &counts[bucket];
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn add_to(&self, sums: &mut [u32; N]) {
        let Some(counts) = self.0.get() else { return };
        for (sum, count) in sums.iter_mut().zip(counts.iter()) {
            *sum = sum.wrapping_add(count.load(Relaxed));
        }
    }
}

/// A quantile of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge(pub Span, pub analysis::Quantile);

impl Gauge {
    /// Its place among all four.
    pub fn index(self) -> usize {
        let Self(span, quantile) = self;
        2 * span as usize + usize::from(quantile == analysis::Quantile::P99)
    }
}

/// How a first attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer whose head took so many microseconds.
    Served {
        /// From when the request was with the endpoint; nothing where that says little of the version.
        latency_us: Option<u32>,
        /// The answer refuses the request: a status of 400 to 499.
        refused: bool,
    },
    /// With a failure, which may have come fast.
    Failed,
    /// With no answer in time.
    TimedOut,
    /// With a client that left so many microseconds after it was with the endpoint.
    Left(u32),
    /// In a way that says nothing of the version.
    Void,
}

/// Who asks, and when it is known how it ended.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The worker that counts.
    pub worker: usize,
    /// The player.
    pub player: Player,
    /// The player's network, where that is asked too.
    pub network: Option<Player>,
    /// It is one of the baseline.
    pub is_baseline: bool,
    /// The slot in which the request began.
    pub slot: Slot,
    /// Whole seconds since the process started, now.
    pub second: u64,
    /// The endpoint's group.
    pub endpoint: u8,
}

/// What the versions of a service share over some routes: who counts, and from when on what is slow.
#[derive(Debug)]
pub struct StratumState {
    /// Players who failed.
    pub failed: Spent,
    /// Players who were not served.
    pub unserved: Spent,
    /// Players who were refused.
    pub refused: Spent,
    /// Players who were slow, by [`Gauge`].
    slow: [Spent; 4],
    /// Players whose amounts counted.
    pub paid: PlayerSet,
    seen: PerWorker<Seen>,
    /// First slow buckets, by [`Gauge`] and arm: of the canary above, of the baseline below.
    slow_from: [AtomicU32; 4],
    shift: AtomicU8,
    deadline_us: AtomicU64,
}

impl StratumState {
    /// A state of nothing yet, of so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            failed: Spent::default(),
            unserved: Spent::default(),
            refused: Spent::default(),
            slow: Default::default(),
            paid: PlayerSet::default(),
            seen: PerWorker::new(workers),
            slow_from: [const { AtomicU32::new(0) }; 4],
            shift: AtomicU8::new(SHORTEST),
            deadline_us: AtomicU64::new(0),
        }
    }

    /// The slot of a request that begins at `at` since the process started.
    pub fn slot(&self, at: Duration) -> Slot {
        Slot::of(at, self.shift.load(Relaxed))
    }

    /// Length of a slot as a power of two of microseconds.
    pub fn shift(&self) -> u8 {
        self.shift.load(Relaxed)
    }

    /// The time after which a request without an answer has failed; nothing: when it times out.
    pub fn deadline(&self) -> Option<Duration> {
        match self.deadline_us.load(Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// Sets that time, and slots that hold it. Called by the controller only.
    pub fn set_deadline(&self, deadline: Duration) {
        self.deadline_us.store(deadline.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
        self.shift.store(Slot::shift_for(deadline), Relaxed);
    }

    /// Sets the first buckets of latency that are slow. Called by the controller only.
    pub fn set_slow_from(&self, gauge: Gauge, first: Option<Arms<usize>>) {
        let bucket = |first: usize| first.min(LATENCY_BUCKETS) as u32;
        let both = first.map_or(0, |first| bucket(first.canary) << 16 | bucket(first.baseline));
        self.slow_from[gauge.index()].store(both, Relaxed);
    }

    /// The first buckets of latency that are slow.
    pub fn slow_from(&self, gauge: Gauge) -> Option<Arms<usize>> {
        self.slow_from_of(gauge.index())
    }

    fn slow_from_of(&self, gauge: usize) -> Option<Arms<usize>> {
        match self.slow_from[gauge].load(Relaxed) {
            0 => None,
            both => Some(Arms::new((both >> 16) as usize, (both & 0xFFFF) as usize)),
        }
    }

    /// Players who were slow, by [`Gauge`].
    pub fn slow(&self) -> &[Spent; 4] {
        &self.slow
    }

    /// Counts how a first attempt ended in the `cells` of its version; whether it was a trial of the
    /// player, and failed.
    pub fn settle(&self, cells: &EvidenceCells, asker: &Asker, outcome: Outcome) -> Settled {
        let Asker { player, network, .. } = *asker;
        if outcome == Outcome::Void {
            cells.begun.end(asker.slot, Ended::default());
            return Settled::default();
        }
        let failed = matches!(outcome, Outcome::Failed | Outcome::TimedOut);
        let left = matches!(outcome, Outcome::Left(_));
        self.failed.note(player);
        let first = self.seen.of(asker.worker).is_first(player, asker.second);
        let trial = !left && self.failed.admits(player, network, first, failed);
        let ended = Ended {
            counts: !left,
            failed,
            trial,
            served_trial: self.unserved.admits(player, network, first, failed || left),
            unserved: failed || left,
            group: asker.endpoint,
        };
        cells.begun.end(asker.slot, ended);
        if !left {
            cells.all.add(failed);
        }
        if let Outcome::Served { refused, .. } = outcome
            && self.refused.admits(player, network, first, refused)
        {
            cells.refusals.add(refused);
        }
        match outcome {
            Outcome::Served { latency_us: Some(us), .. } => {
                self.time(cells, asker, Span::Head, Timed::Took(us), first);
            }
            Outcome::TimedOut => self.time(cells, asker, Span::Head, Timed::Never, first),
            Outcome::Left(us) => self.time(cells, asker, Span::Head, Timed::AtLeast(us), first),
            Outcome::Served { .. } | Outcome::Failed | Outcome::Void => {}
        }
        Settled { first, trial, failed }
    }

    /// Counts that a request which was taken for served was not, after all: in its own slot, or else
    /// where requests begin at the moment, `now`.
    pub fn regret(&self, cells: &EvidenceCells, asker: &Asker, left: bool, now: Slot) {
        let Asker { player, network, .. } = *asker;
        let failed = !left;
        let ended = Ended {
            counts: failed,
            failed,
            trial: failed && self.failed.admits(player, network, false, true),
            served_trial: self.unserved.admits(player, network, false, true),
            unserved: true,
            group: asker.endpoint,
        };
        if failed {
            cells.all.failures.add(1);
        }
        if !cells.begun.fail_later(asker.slot, ended) {
            cells.begun.begin(now);
            cells.begun.end(now, ended);
        }
    }

    /// Counts how long it took to the last byte. `first`: it was a player's first one of a second.
    pub fn time_whole(&self, cells: &EvidenceCells, asker: &Asker, timed: Timed, first: bool) {
        self.time(cells, asker, Span::Whole, timed, first);
    }

    fn time(&self, cells: &EvidenceCells, asker: &Asker, span: Span, timed: Timed, first: bool) {
        let (us, known) = match timed {
            Timed::Took(us) => (Some(us), true),
            Timed::AtLeast(us) => (Some(us), false),
            Timed::Never => (None, true),
        };
        let bucket = us.map_or(LATENCY_BUCKETS - 1, |us| latency_bucket(us.into()));
        if known {
            cells.latencies[span as usize].add(bucket);
        }
        for gauge in 2 * span as usize..2 * span as usize + 2 {
            let Some(Arms { canary, baseline }) = self.slow_from_of(gauge) else { continue };
            // Of a client that left it is only certain that it was slow, if it was.
            let own = if asker.is_baseline { baseline } else { canary };
            if !known && bucket < own {
                continue;
            }
            self.slow[gauge].note(asker.player);
            // Who is slow by the baseline's mark leaves the counts of either version alike.
            if self.slow[gauge].admits(asker.player, asker.network, first, bucket >= baseline) {
                cells.trials[gauge].add(bucket);
            }
        }
    }
}

/// How long something took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timed {
    /// This.
    Took(u32),
    /// This or longer: the client left.
    AtLeast(u32),
    /// It never came.
    Never,
}

/// What a settled attempt was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// The first of its player in its second.
    pub first: bool,
    /// A trial of its player.
    pub trial: bool,
    /// And it failed.
    pub failed: bool,
}

impl EvidenceCells {
    /// First attempts so far, and those of them that failed.
    pub fn counter(&self) -> analysis::Counter {
        self.all.read()
    }

    /// Trials of refusals so far, by players, and those that were refused.
    pub fn refusals(&self) -> analysis::Counter {
        self.refusals.read()
    }

    /// Adds the latencies so far of all attempts to `sums`, bucket by bucket.
    pub fn add_latencies(&self, span: Span, sums: &mut [u32; LATENCY_BUCKETS]) {
        self.latencies[span as usize].add_to(sums);
    }

    /// The same of those that are trials at `gauge`.
    pub fn add_trials(&self, gauge: Gauge, sums: &mut [u32; LATENCY_BUCKETS]) {
        self.trials[gauge.index()].add_to(sums);
    }
}

impl AmountEvidenceCells {
    /// Counts an amount in its [`analysis::amount_bucket`]. Called by the owning worker only.
    pub fn record(&self, bucket: u16) {
        self.0.add(usize::from(bucket));
    }

    /// Adds the amounts so far to `sums`, bucket by bucket.
    pub fn add_to(&self, sums: &mut [u32; AMOUNT_BUCKETS]) {
        self.0.add_to(sums);
    }
}

#[cfg(test)]
mod tests;
