//! How far the means of an amount may be apart that may be negative.
//!
//! Amounts are clipped at `-C` and `C` and moved to between 0 and 1: `x = (X + C) / 2C`, with `-X` in the
//! place of `X` where the canary may be too low, so that it is always the arm that must not be higher.
//! The hypothesis is about the means of those:
//!
//! ```text
//! mu_canary <= mu_baseline + tolerated / 2C
//! ```
//!
//! It is the bet of [`super::super::Bet`] with a ratio of 1, whose centers are where the baseline's mean
//! was in the blocks before and the same plus what is tolerated. Any center is fair; a near one grows
//! fast. What is best staked depends on how the amounts spread, so several parts are, of the most that
//! leaves every factor above 0.
//!
//! What is tolerated is a share of the mean of `|X|` of the baseline, known and fixed like `C` before the
//! first block: a share of the mean itself would be none where that is 0, and a margin is the small
//! difference of large amounts.

use serde::{Deserialize, Serialize};

use super::{
    super::{bet::Bet, counts::Arms},
    Side,
    clipped::Amounts,
};

/// Parts of the most that can be staked, in equal shares.
pub(super) const PARTS: [f64; 5] = [0.01, 0.03, 0.1, 0.3, 0.8];
/// Requests of the baseline after which its mean of before is half forgotten.
const MEMORY: f64 = 1000.0;

/// The question, and what is known of the baseline.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Difference {
    /// Tolerated, of the mean amount without its sign.
    share: f64,
    /// That mean, of the last block.
    size: Option<f64>,
    /// Requests of the baseline in the blocks before, the older ones fewer.
    requests: f64,
    /// Of their amounts, in clips.
    sum: f64,
}

impl Difference {
    pub(super) fn new(share: f64) -> Self {
        Self { share, size: None, requests: 0.0, sum: 0.0 }
    }

    /// In the caller's money.
    pub(super) fn tolerated(&self) -> Option<f64> {
        self.size.map(|size| self.share * size)
    }

    /// What a block, which has requests in both arms, does to the bet of each part, in nats. Then
    /// learns from it.
    pub(super) fn log_e(&mut self, block: Arms<&Amounts>, side: Side) -> Vec<f64> {
        // Only of what is not derived; nothing is known of what is tolerated, so nothing is bet.
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
