//! The test of a difference of means, for amounts that may be negative.
//!
//! Amounts are clipped at `-C` and `C` and mapped to between 0 and 1: `x = (X + C) / 2C`, with `-X`
//! in the place of `X` where the canary may be too low, so that the canary is always the arm that
//! must not be higher. The hypothesis is about the means of `x`:
//!
//! ```text
//! mu_canary <= mu_baseline + tolerated / 2C
//! ```
//!
//! The bet is [`super::super::Bet`] with a ratio of 1, whose centers are the baseline's mean in
//! earlier blocks, and that mean plus the tolerance. Any center is fair; a close one grows fast.
//! The best stake depends on the spread of the amounts, so several parts of the largest possible
//! stake, which keeps every factor above 0, are bet.
//!
//! The tolerance is a share of the baseline's mean `|X|`, which is fixed, like `C`, before the
//! first block. A share of the mean itself would be 0 where that is 0, and a margin is the small
//! difference of large amounts.

use serde::{Deserialize, Serialize};

use super::{
    super::{bet::Bet, counts::Arms},
    Side,
    clipped::Amounts,
};

/// Parts of the largest stake, with equal shares of the wealth.
pub(super) const PARTS: [f64; 5] = [0.01, 0.03, 0.1, 0.3, 0.8];
/// Half-life of the baseline's mean, in requests of the baseline.
const MEMORY: f64 = 1000.0;

/// The tolerance, and the baseline's data.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Difference {
    /// Tolerated share of the mean absolute amount.
    share: f64,
    /// That mean in the last block.
    size: Option<f64>,
    /// Requests of the baseline in earlier blocks, with exponential decay.
    requests: f64,
    /// Sum of their amounts, in clips.
    sum: f64,
}

impl Difference {
    pub(super) fn new(share: f64) -> Self {
        Self { share, size: None, requests: 0.0, sum: 0.0 }
    }

    /// The tolerated difference in the caller's money.
    pub(super) fn tolerated(&self) -> Option<f64> {
        self.size.map(|size| self.share * size)
    }

    /// The gain of each part's bet in a block, which must have requests in both arms, in nats. Then
    /// updates the baseline's mean.
    pub(super) fn log_e(&mut self, block: Arms<&Amounts>, side: Side) -> Vec<f64> {
        // Amounts that are not derived have no size, so the tolerance is unknown and nothing is
        // bet.
        let Some(size) = block.baseline.size() else { return vec![0.0; PARTS.len()] };
        self.size = Some(size);
        let sign = match side {
            Side::High => 1.0,
            Side::Low => -1.0,
        };
        let moved = |value: f64| (1.0 + sign * value) / 2.0;
        let mean = if self.requests > 0.0 { self.sum / self.requests } else { 0.0 };
        let excess = self.share * size / (2.0 * block.baseline.clip.amount());
        let trials = Arms::new(block.canary.requests as f64, block.baseline.requests as f64);
        let values = |arm: &Amounts| arm.values().map(|(v, n)| (moved(v), n)).collect::<Vec<_>>();
        let (canary, baseline) = (values(block.canary), values(block.baseline));
        let of = |part: f64| {
            Bet::difference(part, moved(mean), trials, excess)
                .log_e_of_values(canary.iter().copied(), baseline.iter().copied())
        };
        let logs = PARTS.map(of).to_vec();
        self.learn(block.baseline);
        logs
    }

    fn learn(&mut self, baseline: &Amounts) {
        let requests = baseline.requests as f64;
        let kept = MEMORY / (MEMORY + requests);
        self.requests = self.requests * kept + requests;
        let sum: f64 = baseline.values().map(|(value, count)| value * count as f64).sum();
        self.sum = self.sum * kept + sum;
    }
}

#[cfg(test)]
mod tests;
