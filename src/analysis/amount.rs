//! Whether the canary earns less, or pays more, than the baseline.
//!
//! An amount belongs to one request: a stake, a payout. Measured amounts are not negative. Amounts
//! are clipped at `B`, about twice a high quantile of the baseline before the canary, and divided
//! by it; the hypothesis is about means of clipped amounts, with tolerance `rho`:
//!
//! ```text
//! low side:  mu_baseline <= mu_canary / (1 - rho)          high side:  mu_canary <= (1 + rho) * mu_baseline
//! ```
//!
//! The arm that must not be higher takes the role of the canary in [`super::Bet`], with all centers
//! at 0. That is exact for any values between 0 and 1, and grows with the amounts' second moment
//! rather than with `B`, so heavy tails cost little. Rejected: a normal approximation, which is 15
//! to 30 % faster but ejected 11 % of small canaries at an alpha of 5 %; two sums alone, which need
//! twice as many requests.
//!
//! A derived amount, such as stake minus payout, may be negative, so a ratio of its means is
//! meaningless: instead a difference is tolerated (see `difference`).

mod clipped;
mod difference;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::clipped::{AMOUNT_BUCKETS, Amounts, Clip, amount_bucket, rounded_bucket};
use self::difference::Difference;
use super::{
    bet::{Bet, Tolerance},
    counts::{Arms, Counted},
    onset::Onset,
    wealth::{Guarantee, Wealth},
};

/// Ratios of means that are bet on, with equal shares. Amounts differ less than error rates.
const FACTORS: [f64; 7] = [1.02, 1.05, 1.1, 1.2, 1.4, 2.0, 4.0];

/// In which direction the canary may be worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// It earns too little.
    Low,
    /// It pays too much.
    High,
}

/// Requests and clipped amounts over all blocks. Because of buckets, measured amounts are accurate
/// to a few percent, equally in both arms; derived ones are unbiased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Total {
    /// Requests counted.
    pub requests: u64,
    /// Sum of the clipped amounts, in the caller's money.
    pub sum: f64,
}

impl Total {
    /// Mean clipped amount of a request; `None` without requests.
    pub fn mean(self) -> Option<f64> {
        (self.requests > 0).then(|| self.sum / self.requests as f64)
    }
}

/// How much the means may differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerated {
    /// By this ratio, above 1, of the arm that must not be higher to the other one.
    Ratio(f64),
    /// By this amount of money; `None` before the first block.
    Difference(Option<f64>),
}

/// The hypothesis about the means.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Question {
    Ratio(Tolerance),
    Difference(Difference),
}

/// The test of one side.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AmountTest {
    side: Side,
    #[serde(rename = "tolerance")]
    question: Question,
    wealth: Wealth,
    /// The clip of the last block.
    clip: Option<Clip>,
    total: Arms<Total>,
    onsets: Vec<Onset>,
    /// The total at the onset of each bet; empty in records of earlier releases.
    #[serde(default)]
    before: Vec<Arms<Total>>,
    rejected_at: Option<Duration>,
}

impl AmountTest {
    /// A test of `side` that tolerates a difference of `rho`, from 0 to below 1. No block adds more
    /// than `burst_cap` nats to a bet, if there is one.
    pub fn new(side: Side, rho: f64, guarantee: Guarantee, burst_cap: Option<f64>) -> Self {
        let rho = rho.clamp(0.0, 0.99);
        let ratio = match side {
            Side::Low => 1.0 / (1.0 - rho),
            Side::High => 1.0 + rho,
        };
        let question = Question::Ratio(Tolerance { ratio, excess: 0.0 });
        Self::asking(question, FACTORS.len(), side, guarantee, burst_cap)
    }

    /// A test of `side` of a derived amount that tolerates a difference of `share`, from 0 to below
    /// 1, of the mean of the baseline's amounts without their signs.
    pub fn of_derived(
        side: Side,
        share: f64,
        guarantee: Guarantee,
        burst_cap: Option<f64>,
    ) -> Self {
        let question = Question::Difference(Difference::new(share.clamp(0.0, 0.99)));
        Self::asking(question, difference::PARTS.len(), side, guarantee, burst_cap)
    }

    fn asking(
        question: Question,
        bets: usize,
        side: Side,
        guarantee: Guarantee,
        burst_cap: Option<f64>,
    ) -> Self {
        let mut wealth = Wealth::new(vec![1.0; bets], guarantee);
        wealth.temper().cap(burst_cap);
        Self {
            side,
            question,
            wealth,
            clip: None,
            total: Arms::default(),
            onsets: vec![Onset::default(); bets],
            before: vec![Arms::default(); bets],
            rejected_at: None,
        }
    }

    /// Adds a block that ended at `at`. Both arms must have the same clip.
    pub fn observe(&mut self, block: Arms<&Amounts>, at: Duration) {
        debug_assert_eq!(block.canary.clip, block.baseline.clip, "clips of both arms");
        debug_assert_eq!(block.canary.size(), block.baseline.size(), "sizes of both arms");
        if block.canary.requests == 0 || block.baseline.requests == 0 {
            return;
        }
        self.clip = Some(block.canary.clip);
        for (total, new) in
            [(&mut self.total.canary, block.canary), (&mut self.total.baseline, block.baseline)]
        {
            total.requests += new.requests;
            total.sum += new.sum;
        }
        let logs = match &mut self.question {
            Question::Ratio(tolerance) => ratios(block, self.side, *tolerance),
            Question::Difference(difference) => difference.log_e(block, self.side),
        };
        self.wealth.stake();
        for (number, (log_e, onset)) in logs.into_iter().zip(&mut self.onsets).enumerate() {
            let growth = self.wealth.grow(number, log_e);
            let begins_anew = onset.note(growth, at, Counted::default());
            if let Some(before) = self.before.get_mut(number).filter(|_| begins_anew) {
                *before = self.total;
            }
        }
        // Every block counts as one with evidence, as a block with failures does.
        self.wealth.end_block(true);
        if self.rejected_at.is_none() && self.log_evidence() >= self.wealth.log_threshold() {
            self.rejected_at = Some(at);
        }
    }

    /// Sets another alpha, like [`Wealth::demand`].
    pub fn demand(&mut self, alpha: f64) {
        self.wealth.demand(alpha);
    }

    /// Reports a change of the weights, like [`super::Engine::weight_step`].
    pub fn weight_step(&mut self) {
        self.wealth.weight_step();
    }

    /// Sets the size of clusters, like [`super::Engine::set_dispersion`].
    pub fn set_dispersion(&mut self, phi: f64) {
        self.wealth.temper().expect(phi);
    }

    /// Whether its parts are consistent; those read from a file may not be.
    pub(super) fn is_sound(&self) -> bool {
        let bets = match self.question {
            Question::Ratio(_) => FACTORS.len(),
            Question::Difference(_) => difference::PARTS.len(),
        };
        self.wealth.has_components(bets)
            && self.onsets.len() == bets
            && [0, bets].contains(&self.before.len())
    }

    /// In which direction the canary may be worse.
    pub fn side(&self) -> Side {
        self.side
    }

    /// How much the means may differ.
    pub fn tolerated(&self) -> Tolerated {
        match &self.question {
            Question::Ratio(tolerance) => Tolerated::Ratio(tolerance.ratio),
            Question::Difference(difference) => Tolerated::Difference(difference.tolerated()),
        }
    }

    /// Where amounts are clipped; `None` before the first block.
    pub fn clip(&self) -> Option<Clip> {
        self.clip
    }

    /// Logarithm of the evidence against the canary, in nats; minus infinity before the first
    /// block.
    pub fn log_evidence(&self) -> f64 {
        self.wealth.log_evidence()
    }

    /// The end of the block that rejected the canary, if one did. A rejection is final.
    pub fn rejected_at(&self) -> Option<Duration> {
        self.rejected_at
    }

    /// Requests and amounts of all blocks.
    pub fn total(&self) -> Arms<Total> {
        self.total
    }

    /// Requests and amounts since the likeliest onset of the difference; of all blocks if there are
    /// none since.
    pub fn total_since_onset(&self) -> Arms<Total> {
        let before = self.wealth.richest().and_then(|richest| self.before.get(richest));
        let since = |total: Total, before: Total| Total {
            requests: total.requests.saturating_sub(before.requests),
            sum: total.sum - before.sum,
        };
        let Arms { canary, baseline } = self.total;
        let found = before.map(|before| {
            Arms::new(since(canary, before.canary), since(baseline, before.baseline))
        });
        found
            .filter(|since| since.canary.requests > 0 && since.baseline.requests > 0)
            .unwrap_or(self.total)
    }

    /// The most successful bet: its ratio of means beyond the tolerance, if it has one, and its
    /// onset.
    pub fn strongest(&self) -> Option<(Option<f64>, Duration)> {
        let richest = self.wealth.richest()?;
        let factor = match self.question {
            Question::Ratio(_) => FACTORS.get(richest).copied(),
            Question::Difference(_) => None,
        };
        Some((factor, self.onsets.get(richest)?.since()))
    }
}

/// The gain of each bet on a ratio of the means in a block, in nats.
fn ratios(block: Arms<&Amounts>, side: Side, tolerance: Tolerance) -> Vec<f64> {
    let Arms { canary: up, baseline: down } = match side {
        Side::High => block,
        Side::Low => block.swapped(),
    };
    let trials = Arms::new(up.requests as f64, down.requests as f64);
    let bets = FACTORS.into_iter().map(|factor| Bet::ratio(factor, trials, tolerance));
    bets.map(|bet| bet.log_e_of_values(up.values(), down.values())).collect()
}

#[cfg(test)]
mod tests;
