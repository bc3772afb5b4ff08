//! How much worse the canary is, for people to read. Never used to decide.
//!
//! The ratio of rates after Mantel and Haenszel (1959): each block is a stratum, so a change of the
//! weights or a common outage does not tilt it as it tilts a ratio of sums.
//!
//! ```text
//! ratio = sum(k_c * n_b / (n_c + n_b)) / sum(k_b * n_c / (n_c + n_b))
//! ```

use super::counts::{Arms, Tally};

/// Sums over all blocks that were compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Estimate {
    total: Arms<Tally>,
    weighted: Arms<f64>,
}

impl Estimate {
    /// Adds a block that has trials in both arms.
    pub(super) fn add(&mut self, block: Arms<Tally>) {
        let trials = block.trials();
        let both = trials.canary + trials.baseline;
        self.weighted.canary += block.canary.failures() as f64 * trials.baseline / both;
        self.weighted.baseline += block.baseline.failures() as f64 * trials.canary / both;
        self.total += block;
    }

    /// Counts of all blocks together.
    pub fn total(&self) -> Arms<Tally> {
        self.total
    }

    /// The canary's rate of failures as a multiple of the baseline's; nothing while the baseline has
    /// not failed.
    pub fn ratio(&self) -> Option<f64> {
        (self.weighted.baseline > 0.0).then(|| self.weighted.canary / self.weighted.baseline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_weight_does_not_tilt_the_ratio() {
        let block = |n_c, k_c, n_b, k_b| Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b));
        let mut estimate = Estimate::default();
        assert_eq!(estimate.ratio(), None);
        // Equal rates: 0.1 % at a weight of 10 %, then 10 % at a weight of 50 %.
        estimate.add(block(10_000, 10, 90_000, 90));
        estimate.add(block(50_000, 5_000, 50_000, 5_000));
        assert!((estimate.ratio().expect("failures") - 1.0).abs() < 1e-12);
        let total = estimate.total();
        let naive = total.canary.rate().expect("trials") / total.baseline.rate().expect("trials");
        assert!(naive > 2.0, "sums alone would say {naive}");
    }
}
