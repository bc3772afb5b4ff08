//! Blocks: the stretches of traffic that are compared.
//!
//! A block closes as soon as it holds enough trials, since the cost of a total failure is mostly
//! the wait for the next evaluation: of 10,000 requests a second at equal weights, 5,000 fail
//! within a second and 25 within 5 ms. The rule depends on counts of trials and on time, never on
//! outcomes, and so cannot bias the test. Closing early when failures pile up was rejected for that
//! reason.
//!
//! A canary and its baseline are compared by when their requests began (`slots.rs`). Endpoints of
//! one version are compared by when they ended, as here: they are chosen at random for each
//! request.
//!
//! Times are durations since an origin that the caller chooses.

use std::time::Duration;

use super::counts::{Arms, Counter, Tally};

/// Trials of the canary that close a block. With fewer, blocks rarely contain both arms: the growth
/// of the evidence is 0.52 of the best possible at a quarter of a request per block, 0.83 at one,
/// 0.90 at two, 0.94 at five. With more, a canary that always fails has more failures until a block
/// closes: at 100 requests a second, the worst of 400 runs had 17 failures with five trials, 12
/// with two; a canary that fails at 5 % has nine either way.
const ENOUGH_CANARY_TRIALS: u64 = 2;
/// Age at which one trial of each arm is enough.
const SETTLE: Duration = Duration::from_millis(200);
/// Age at which a block that lacks an arm is discarded, since its halves are not of the same time
/// any more.
const GIVE_UP: Duration = Duration::from_secs(5);

/// An open block of two arms.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    start: Arms<Counter>,
    opened: Duration,
}

impl Block {
    /// A block that begins at the reading `counters`.
    pub fn open(counters: Arms<Counter>, now: Duration) -> Self {
        Self { start: counters, opened: now }
    }

    /// Updates the block; returns its counts if it closes now, which opens the next one.
    pub fn poll(&mut self, counters: Arms<Counter>, now: Duration) -> Option<Arms<Tally>> {
        let counts = counters.since(self.start);
        let age = now.saturating_sub(self.opened);
        let (canary, baseline) = (counts.canary.trials(), counts.baseline.trials());
        let both = canary >= 1 && baseline >= 1;
        if both && (canary >= ENOUGH_CANARY_TRIALS || age >= SETTLE) {
            *self = Self::open(counters, now);
            return Some(counts);
        }
        // The age of a block without trials does not matter.
        if age >= GIVE_UP || (canary == 0 && baseline == 0) {
            *self = Self::open(counters, now);
        }
        None
    }
}

/// Length of a block of latencies or amounts, which need many requests.
const INTERVAL: Duration = Duration::from_secs(1);
/// Shortest length of such a block, for a service with enough traffic.
const SHORT_INTERVAL: Duration = Duration::from_millis(250);
/// Requests that are enough for the shortest block: 1,000 a second.
const ENOUGH_TRIALS: u64 = 250;

/// When blocks of latencies and of amounts close.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    opened: Duration,
}

impl Pace {
    /// A block that begins `now`.
    pub fn new(now: Duration) -> Self {
        Self { opened: now }
    }

    /// Returns the length of the block if it closes now, with `trials` requests of both arms
    /// together; closing opens the next one.
    pub fn due(&mut self, trials: u64, now: Duration) -> Option<Duration> {
        let age = now.saturating_sub(self.opened);
        let due = age >= INTERVAL || (age >= SHORT_INTERVAL && trials >= ENOUGH_TRIALS);
        due.then(|| {
            self.opened = now;
            age
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(n_c: u64, k_c: u64, n_b: u64, k_b: u64) -> Arms<Counter> {
        Arms::new(Counter { trials: n_c, failures: k_c }, Counter { trials: n_b, failures: k_b })
    }

    fn counts(n_c: u64, k_c: u64, n_b: u64, k_b: u64) -> Option<Arms<Tally>> {
        Some(Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b)))
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn two_of_the_canary_close_a_block_at_once() {
        let mut block = Block::open(counters(100, 1, 900, 3), MS(0));
        assert_eq!(block.poll(counters(101, 2, 940, 3), MS(10)), None);
        assert_eq!(block.poll(counters(102, 3, 945, 4), MS(20)), counts(2, 2, 45, 1));
        assert_eq!(block.poll(counters(107, 3, 945, 4), MS(30)), None, "no baseline yet");
        assert_eq!(block.poll(counters(107, 3, 946, 4), MS(40)), counts(5, 0, 1, 0));
    }

    #[test]
    fn age_closes_a_block_of_one_each() {
        let mut block = Block::open(counters(0, 0, 0, 0), MS(0));
        assert_eq!(block.poll(counters(1, 1, 1, 0), MS(199)), None);
        assert_eq!(block.poll(counters(1, 1, 1, 0), MS(200)), counts(1, 1, 1, 0));
    }

    #[test]
    fn a_block_that_lacks_an_arm_is_thrown_away() {
        let mut block = Block::open(counters(0, 0, 0, 0), MS(0));
        assert_eq!(block.poll(counters(0, 0, 50, 9), MS(4_999)), None);
        assert_eq!(block.poll(counters(0, 0, 51, 9), MS(5_000)), None);
        // The baseline's 51 requests were discarded.
        assert_eq!(block.poll(counters(5, 0, 52, 9), MS(5_010)), counts(5, 0, 1, 0));
    }

    #[test]
    fn an_idle_block_does_not_age() {
        let mut block = Block::open(counters(0, 0, 0, 0), MS(0));
        (0..600).for_each(|n| assert_eq!(block.poll(counters(0, 0, 0, 0), MS(n * 10)), None));
        assert_eq!(block.poll(counters(1, 0, 1, 0), MS(6_000)), None, "not 200 ms old");
        assert_eq!(block.poll(counters(1, 0, 1, 0), MS(6_200)), counts(1, 0, 1, 0));
    }

    #[test]
    fn latencies_are_compared_every_second_or_sooner() {
        let mut pace = Pace::new(MS(0));
        assert_eq!(pace.due(200, MS(250)), None);
        assert_eq!(pace.due(250, MS(260)), Some(MS(260)));
        assert_eq!(pace.due(0, MS(1_259)), None);
        assert_eq!(pace.due(0, MS(1_260)), Some(MS(1_000)));
    }
}
