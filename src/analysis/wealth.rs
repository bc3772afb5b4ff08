//! The wealth of a test: the wealth of its bets, and the cash that is not staked yet.
//!
//! A test begins with a wealth of 1. Before a block, part of the cash is staked on the components;
//! each block multiplies a component's wealth by its e-value. Stakes and cash together are a
//! nonnegative supermartingale under the hypothesis, so the probability that they ever reach `1 /
//! alpha` is at most `alpha`, however often the test is evaluated (Ville's inequality).
//!
//! Cash is kept because a fault may begin late. Wealth staked at the start shrinks during hours of
//! good service and would have to be regained before the fault shows; newly staked wealth works at
//! once. A new stake is made only after a block with a failure, since a ratio bet does not change
//! in blocks without failures. So the price of a late onset grows with the logarithm of the number
//! of such blocks, not of ticks: 0.7 nats at the start, 5 after ten of them, 10 after a thousand,
//! 13 after ten thousand. The same holds for changes of the weights, at which a stake is made, too:
//! with a fixed share of the cash, a ramp of 50 steps would leave 1e-5 of it.
//!
//! For monitoring without an end there is another guarantee: a new stake of 1 is added each time,
//! and the mean number of stakes before a false alarm is at least the threshold (a Shiryaev-Roberts
//! e-detector on the clock of failures; Shin, Ramdas, Rinaldo 2024). A cumulative sum, which keeps
//! the larger of the old and the new stake, was 11 to 13 % slower for moderate faults.
//!
//! Wealth is stored as logarithms, in nats. Minus infinity means never staked. There is no lower
//! bound, which would create wealth.

use serde::{Deserialize, Serialize};

use super::damping::Damping;

/// Share of the cash staked before the first block: most broken canaries are broken from the
/// beginning.
const STAKED_AT_START: f64 = 0.5;
/// The share after the change of weights number `s` is `0.2 / s`: more load is the likeliest onset
/// of a fault, but a ramp may have hundreds of steps, and the last ones need cash like the first.
const STAKED_AT_STEP: f64 = 0.2;
/// The share after block number `k` with a failure is `0.2 / (k + 4)`, so that the cash decreases
/// only polynomially and never runs out.
const STAKED_AFTER_FAILURE: f64 = 0.2;
/// Added to the number of blocks with failures, so that the first few do not take half of the cash.
const FAILURES_BEFORE: f64 = 4.0;

/// The guarantee of a test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Guarantee {
    /// The probability of ever failing a canary that is within the tolerance is at most this, more
    /// than 0 and below 1.
    Alpha(f64),
    /// The mean number of stakes before the first false alarm is at least this, more than 1. There
    /// is at most one stake per block, and only after failures.
    RunLength(f64),
}

impl Guarantee {
    /// Log wealth at which the hypothesis is rejected, in nats.
    pub fn log_threshold(self) -> f64 {
        match self {
            Self::Alpha(alpha) => (1.0 / alpha).ln(),
            Self::RunLength(stakes) => stakes.ln(),
        }
    }
}

/// Why a stake is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Due {
    Start,
    Step,
    AfterFailure,
}

/// Log wealth by component, and the cash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wealth {
    #[serde(with = "logs")]
    logs: Box<[f64]>,
    /// Logarithm of each component's share of a stake; the shares add up to 1.
    log_shares: Box<[f64]>,
    guarantee: Guarantee,
    cash: f64,
    /// Blocks with a failure so far.
    failing_blocks: u64,
    /// Stakes made for a change of weights so far. Records of older releases do not have it.
    #[serde(default)]
    steps: u64,
    due: Option<Due>,
    temper: Damping,
}

/// Logarithms in JSON: minus infinity is null.
mod logs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(logs: &[f64], s: S) -> Result<S::Ok, S::Error> {
        let finite: Vec<_> = logs.iter().map(|log| log.is_finite().then_some(*log)).collect();
        finite.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Box<[f64]>, D::Error> {
        let logs = Vec::<Option<f64>>::deserialize(d)?.into_iter();
        Ok(logs.map(|log| log.unwrap_or(f64::NEG_INFINITY)).collect())
    }
}

impl Wealth {
    /// The wealth of a test whose components get stakes in proportion to `shares`.
    pub fn new(shares: impl IntoIterator<Item = f64>, guarantee: Guarantee) -> Self {
        let shares: Box<[f64]> = shares.into_iter().collect();
        let sum: f64 = shares.iter().sum();
        Self {
            logs: vec![f64::NEG_INFINITY; shares.len()].into(),
            log_shares: shares.iter().map(|share| (share / sum).ln()).collect(),
            guarantee,
            cash: 1.0,
            failing_blocks: 0,
            steps: 0,
            due: Some(Due::Start),
            temper: Damping::default(),
        }
    }

    /// Whether it has `number` components; one that was read from a file may not.
    pub(super) fn has_components(&self, number: usize) -> bool {
        self.logs.len() == number && self.log_shares.len() == number
    }

    /// Reports a change of the weights before the next block.
    pub fn weight_step(&mut self) {
        // The stake of the start is the larger one.
        if self.due != Some(Due::Start) {
            self.due = Some(Due::Step);
        }
    }

    /// Sets another `alpha`, more than 0 and below 1, for the evidence so far; stakes do not depend
    /// on it. The probability of a false rejection is then at most the largest alpha ever set. Has
    /// no effect on a guarantee of a run length, whose stakes are different.
    pub fn demand(&mut self, alpha: f64) {
        if let Guarantee::Alpha(now) = &mut self.guarantee {
            *now = alpha;
        }
    }

    /// Makes the stake that is due. Called before the block's e-values.
    pub(super) fn stake(&mut self) {
        let Some(due) = self.due.take() else { return };
        let stake = match self.guarantee {
            Guarantee::RunLength(_) => 1.0,
            Guarantee::Alpha(_) => {
                let share = match due {
                    Due::Start => STAKED_AT_START,
                    Due::Step => {
                        self.steps += 1;
                        STAKED_AT_STEP / self.steps as f64
                    }
                    Due::AfterFailure => {
                        STAKED_AFTER_FAILURE / (self.failing_blocks as f64 + FAILURES_BEFORE)
                    }
                };
                share * self.cash
            }
        };
        if matches!(self.guarantee, Guarantee::Alpha(_)) {
            self.cash -= stake;
        }
        let log_stake = stake.ln();
        for (log, share) in self.logs.iter_mut().zip(&self.log_shares) {
            *log = log_add(*log, log_stake + share);
        }
    }

    /// Multiplies the wealth of component `number` by an e-value given as its logarithm; returns
    /// the gain of the log wealth.
    pub(super) fn grow(&mut self, number: usize, log_e: f64) -> f64 {
        let growth = self.temper.apply(log_e);
        self.logs[number] += growth;
        growth
    }

    /// Ends a block; after a failing one a new stake is due before the next.
    pub(super) fn end_block(&mut self, failing: bool) {
        self.temper.next_block();
        if failing {
            self.failing_blocks += 1;
            self.due = Some(Due::AfterFailure);
        }
    }

    /// The size of clusters in the open block.
    pub(super) fn phi(&self) -> f64 {
        self.temper.phi()
    }

    /// How growth is damped.
    pub(super) fn temper(&mut self) -> &mut Damping {
        &mut self.temper
    }

    /// Logarithm of all wealth at stake, in nats; minus infinity before the first block.
    pub fn log_evidence(&self) -> f64 {
        log_sum(self.logs.iter().copied())
    }

    /// Number of the richest component, if anything is staked.
    pub fn richest(&self) -> Option<usize> {
        let richest =
            (0..self.logs.len()).max_by(|a, b| self.logs[*a].total_cmp(&self.logs[*b]))?;
        (self.logs[richest] > f64::NEG_INFINITY).then_some(richest)
    }

    /// Log wealth at which the hypothesis is rejected, in nats.
    pub fn log_threshold(&self) -> f64 {
        self.guarantee.log_threshold()
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> (&[f64], f64, u64) {
        (&self.logs, self.cash, self.failing_blocks)
    }
}

/// `ln(exp(a) + exp(b))`.
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY {
        b
    } else if b == f64::NEG_INFINITY {
        a
    } else {
        a.max(b) + (-(a - b).abs()).exp().ln_1p()
    }
}

/// Logarithm of the sum of the exponentials.
pub(super) fn log_sum(logs: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = logs.clone().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + logs.map(|log| (log - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wealth_of_one_is_divided_and_never_grows_by_staking() {
        let mut wealth = Wealth::new([0.5, 0.25, 0.25], Guarantee::Alpha(0.01));
        assert_eq!((wealth.log_evidence(), wealth.richest()), (f64::NEG_INFINITY, None));
        for block in 0..1000 {
            if block % 100 == 0 {
                wealth.weight_step();
            }
            wealth.stake();
            wealth.end_block(block % 3 == 0);
            let total = wealth.log_evidence().exp() + wealth.cash;
            assert!((total - 1.0).abs() < 1e-9, "{total} after block {block}");
        }
        assert_eq!(wealth.richest(), Some(0));
        assert!(wealth.cash > 0.0);
    }

    #[test]
    fn a_long_ramp_leaves_cash_for_its_last_steps() {
        let mut wealth = Wealth::new([1.0], Guarantee::Alpha(1e-3));
        for step in 0..=600 {
            wealth.stake();
            wealth.end_block(false);
            wealth.weight_step();
            if step == 50 {
                assert!(wealth.cash > 0.18, "{} after 50 steps", wealth.cash);
            }
        }
        // The product of `1 - 0.2 / s` decreases with the fifth root of the number of steps.
        assert!((0.10..0.13).contains(&wealth.cash), "{} after 600 steps", wealth.cash);
    }

    #[test]
    fn wealth_of_an_older_release_has_no_steps() {
        let wealth = Wealth::new([1.0], Guarantee::Alpha(1e-3));
        let mut json = serde_json::to_value(&wealth).expect("JSON");
        json.as_object_mut().expect("an object").remove("steps").expect("a count");
        let read: Wealth = serde_json::from_value(json).expect("wealth");
        assert_eq!((read.steps, read.cash), (0, 1.0));
    }

    #[test]
    fn another_alpha_keeps_what_was_earned() {
        let mut wealth = Wealth::new([1.0], Guarantee::Alpha(1e-3));
        wealth.stake();
        wealth.grow(0, 3.0);
        let before = (wealth.log_evidence(), wealth.cash);
        wealth.demand(0.05);
        assert_eq!((wealth.log_evidence(), wealth.cash), before);
        assert!((wealth.log_threshold() - 20f64.ln()).abs() < 1e-12);
        let mut endless = Wealth::new([1.0], Guarantee::RunLength(1e6));
        endless.demand(0.05);
        assert!((endless.log_threshold() - 1e6f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn endless_watching_stakes_one_each_time() {
        let mut wealth = Wealth::new([1.0], Guarantee::RunLength(1e6));
        wealth.stake();
        wealth.stake();
        assert_eq!(wealth.log_evidence(), 0.0);
        wealth.end_block(true);
        wealth.stake();
        assert!((wealth.log_evidence() - 2.0f64.ln()).abs() < 1e-12);
        assert!((wealth.log_threshold() - 1e6f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn sums_of_logarithms() {
        // Values of an independent program.
        assert!((log_add(-3.0, -5.0) - -2.87307198895703).abs() < 1e-9);
        let logs = [-1.0, -2.0, f64::NEG_INFINITY];
        assert!((log_sum(logs.into_iter()) - -0.686738312481777).abs() < 1e-9);
        assert_eq!(log_sum([f64::NEG_INFINITY; 2].into_iter()), f64::NEG_INFINITY);
        assert_eq!(log_add(f64::NEG_INFINITY, f64::NEG_INFINITY), f64::NEG_INFINITY);
        assert_eq!(log_add(-1e6, 3.0), 3.0);
    }
}
