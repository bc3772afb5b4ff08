//! A bet that the canary fails more than is tolerated: an e-variable for two arms.
//!
//! The hypothesis is `p_c <= r * p_b + tau` for the mean failure probabilities of one block; `p_b`
//! is unknown and may be anything. A bet stakes `eta_c` on failures of the canary and `eta_b`
//! against failures of the baseline:
//!
//! ```text
//! e = product over canary trials   of (1 + eta_c * (x - m_c))
//!   * product over baseline trials of (1 - eta_b * (y - m_b))        x, y in [0, 1]
//! m_c = r * m_b + tau        eta_b = eta_c * r * n_c / n_b
//! ```
//!
//! With independent trials, `1 + z <= exp(z)` bounds the expectation by
//! `exp(eta_c * n_c * (p_c - r * p_b - tau))`: the two stakes are coupled so that `p_b`, `m_b` and
//! the block's length cancel.
//! Under the hypothesis that is at most 1, so the wealth does not grow by chance, and a rate that
//! changes in both arms alike is no evidence. Trials of a block may have different probabilities,
//! since only the sums matter. All four numbers must be fixed before the block's outcomes are
//! known.
//!
//! Two-arm e-variables: Turner, Ly, Grünwald, arXiv 2106.02693; that only the arm of the next
//! failure is asked about when `tau` is 0: Lindon, Malek, arXiv 2011.03567.

use serde::{Deserialize, Serialize};

use super::counts::{Arms, Tally};

/// Largest `eta_c * tau` of a ratio bet, which keeps the factor of a canary success well above
/// zero. Not reached with an excess below 2 %.
const MOST_STAKED_ON_SUCCESS: f64 = 0.9;

/// How much worse the canary may be: `p_c <= ratio * p_b + excess`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    pub(super) ratio: f64,
    pub(super) excess: f64,
}

impl Tolerance {
    /// No difference is tolerated.
    pub const NONE: Self = Self { ratio: 1.0, excess: 0.0 };

    /// A tolerance of `ratio` times the baseline's rate, more than 0 and finite, plus `excess`, a
    /// probability from 0 to 1; `None` if they are out of range.
    pub fn new(ratio: f64, excess: f64) -> Option<Self> {
        let possible = ratio > 0.0 && ratio.is_finite() && (0.0..=1.0).contains(&excess);
        possible.then_some(Self { ratio, excess })
    }

    /// Tolerates whatever this or `other` tolerates.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        let (ratio, excess) = (self.ratio.max(other.ratio), self.excess.max(other.excess));
        Self { ratio, excess }
    }

    /// `r`: tolerated multiple of the baseline's rate.
    pub fn ratio(self) -> f64 {
        self.ratio
    }

    /// `tau`: tolerated share of failures on top of it.
    pub fn excess(self) -> f64 {
        self.excess
    }
}

/// The stakes and centers of one bet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bet {
    /// `eta_c` and `eta_b`.
    pub stake: Arms<f64>,
    /// `m_c` and `m_b`.
    pub center: Arms<f64>,
}

impl Bet {
    /// The bet that the canary fails `factor` (more than 1) times as often as is tolerated, for a
    /// block of `trials`, both at least 1. It does not depend on the baseline's rate.
    pub fn ratio(factor: f64, trials: Arms<f64>, tolerance: Tolerance) -> Self {
        let Arms { canary: n_c, baseline: n_b } = trials;
        let Tolerance { ratio: r, excess } = tolerance;
        let mut canary = (factor - 1.0) * n_b / (n_b + r * factor * n_c);
        if canary * excess > MOST_STAKED_ON_SUCCESS {
            canary = MOST_STAKED_ON_SUCCESS / excess;
        }
        Self { stake: Arms::new(canary, canary * r * n_c / n_b), center: Arms::new(excess, 0.0) }
    }

    /// The bet that the canary fails `share` (0 to 1) of the requests that the baseline would have
    /// served, for a baseline that fails at `base_rate` (0 to 1, known before the block). `None` if
    /// that is within the tolerance.
    ///
    /// `m_b` is the baseline's rate in the point of the hypothesis that is nearest to the
    /// alternative (the reverse information projection, exact for an excess of 0), so the bet grows
    /// as fast as any can. The root is written so that nothing cancels.
    pub fn gross(
        share: f64,
        base_rate: f64,
        trials: Arms<f64>,
        tolerance: Tolerance,
    ) -> Option<Self> {
        let Arms { canary: n_c, baseline: n_b } = trials;
        let r = tolerance.ratio;
        let feared = base_rate + (1.0 - base_rate) * share;
        let a = r * (n_c + n_b);
        let b = n_c * (r + feared) + n_b * (1.0 + r * base_rate);
        let c = n_c * feared + n_b * base_rate;
        let m_b = 2.0 * c / (b + (b * b - 4.0 * a * c).sqrt());
        let m_c = r * m_b + tolerance.excess;
        // Also rejects NaN.
        if !(m_c < feared && feared < 1.0) {
            return None;
        }
        let canary = (feared - m_c) / (m_c * (1.0 - m_c));
        let stake = Arms::new(canary, canary * r * n_c / n_b);
        Some(Self { stake, center: Arms::new(m_c, m_b) })
    }

    /// The bet that the canary's mean is higher by more than `excess`, with the `part`, above 0 and
    /// below 1, of the largest possible stake, for a baseline of mean `mean` (both 0 to 1, known
    /// before the block). Values must only be between 0 and 1.
    pub fn difference(part: f64, mean: f64, trials: Arms<f64>, excess: f64) -> Self {
        let Arms { canary: n_c, baseline: n_b } = trials;
        let center = Arms::new(mean + excess, mean);
        let most = (1.0 / center.canary).min(n_b / (n_c * (1.0 - center.baseline)));
        let canary = part * most;
        Self { stake: Arms::new(canary, canary * n_c / n_b), center }
    }

    /// `ln e` of one failure and of one success in each arm, in nats.
    pub fn factors(self) -> Factors {
        let Self { stake, center } = self;
        Factors {
            failure: Arms::new(
                (stake.canary * (1.0 - center.canary)).ln_1p(),
                (-stake.baseline * (1.0 - center.baseline)).ln_1p(),
            ),
            success: Arms::new(
                (-stake.canary * center.canary).ln_1p(),
                (stake.baseline * center.baseline).ln_1p(),
            ),
        }
    }

    /// `ln e`, in nats, of outcomes between 0 and 1, given as values with their counts.
    pub fn log_e_of_values(
        self,
        canary: impl IntoIterator<Item = (f64, u64)>,
        baseline: impl IntoIterator<Item = (f64, u64)>,
    ) -> f64 {
        let Self { stake, center } = self;
        let up = canary
            .into_iter()
            .map(|(x, n)| n as f64 * (stake.canary * (x - center.canary)).ln_1p())
            .sum::<f64>();
        let down = baseline
            .into_iter()
            .map(|(y, n)| n as f64 * (-stake.baseline * (y - center.baseline)).ln_1p())
            .sum::<f64>();
        up + down
    }
}

/// The gain of a bet's log wealth for each outcome, in nats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Factors {
    failure: Arms<f64>,
    success: Arms<f64>,
}

impl Factors {
    /// No bet: nothing is gained or lost.
    pub const ABSTAIN: Self = Self {
        failure: Arms { canary: 0.0, baseline: 0.0 },
        success: Arms { canary: 0.0, baseline: 0.0 },
    };

    /// `ln e` of a block, in nats.
    pub fn log_e(&self, block: Arms<Tally>) -> f64 {
        let arm = |tally: Tally, failure: f64, success: f64| {
            tally.failures() as f64 * failure + tally.successes() as f64 * success
        };
        arm(block.canary, self.failure.canary, self.success.canary)
            + arm(block.baseline, self.failure.baseline, self.success.baseline)
    }
}

#[cfg(test)]
mod tests;
