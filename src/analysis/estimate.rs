//! Estimates how much worse the canary is. Only shown to people, never used to decide.
//!
//! The ratio of rates is that of Mantel and Haenszel (1959): each block is a stratum, so a change
//! of the weights or a shared outage does not bias it, unlike a ratio of sums.
//!
//! ```text
//! ratio = sum(k_c * n_b / (n_c + n_b)) / sum(k_b * n_c / (n_c + n_b))
//! ```
//!
//! Its interval is that of Greenland and Robins (1985), whose variance is valid for many small
//! strata, too.

use serde::{Deserialize, Serialize};

use super::counts::{Arms, Counted, Tally};

/// Sums over all compared blocks.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Estimate {
    total: Arms<Tally>,
    requests: Arms<Tally>,
    weighted: Arms<f64>,
    /// Sum over blocks of `((k_c + k_b) n_c n_b - k_c k_b (n_c + n_b)) / (n_c + n_b)^2`.
    spread: f64,
}

/// Half the width of a 95 % interval, in standard deviations.
const DEVIATIONS: f64 = 1.96;

impl Estimate {
    /// Adds a block with trials in both arms, which were taken from `requests`.
    pub(super) fn add(&mut self, block: Arms<Tally>, requests: Arms<Tally>) {
        self.requests += requests;
        let trials = block.trials();
        let both = trials.canary + trials.baseline;
        let (k_c, k_b) = (block.canary.failures() as f64, block.baseline.failures() as f64);
        self.weighted.canary += k_c * trials.baseline / both;
        self.weighted.baseline += k_b * trials.canary / both;
        self.spread += ((k_c + k_b) * trials.canary * trials.baseline / both - k_c * k_b) / both;
        self.total += block;
    }

    /// Counts of all blocks.
    pub fn total(&self) -> Arms<Tally> {
        self.total
    }

    /// Counts of all blocks, with the requests from which they were taken.
    pub fn counted(&self) -> Counted {
        Counted { trials: self.total, requests: self.requests }
    }

    /// The canary's rate of failures as a multiple of the baseline's; `None` while the baseline has
    /// no failures.
    pub fn ratio(&self) -> Option<f64> {
        (self.weighted.baseline > 0.0).then(|| self.weighted.canary / self.weighted.baseline)
    }
}

impl Estimate {
    /// The 95 % confidence interval of the ratio, for failures in clusters of `phi`; `None` while
    /// either arm has no failures.
    pub fn ratio_interval(&self, phi: f64) -> Option<[f64; 2]> {
        let Arms { canary, baseline } = self.weighted;
        if canary <= 0.0 || baseline <= 0.0 {
            return None;
        }
        let ratio = canary / baseline;
        let deviation = (phi * self.spread / (canary * baseline)).sqrt();
        let factor = (DEVIATIONS * deviation).exp();
        // Numbers that JSON cannot hold would be useless.
        let interval = [ratio / factor, ratio * factor];
        interval.iter().all(|end| end.is_finite()).then_some(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(estimate: &mut Estimate, block: Arms<Tally>) {
        estimate.add(block, block);
    }

    #[test]
    fn a_growing_weight_does_not_tilt_the_ratio() {
        let block = |n_c, k_c, n_b, k_b| Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b));
        let mut estimate = Estimate::default();
        assert_eq!(estimate.ratio(), None);
        // Equal rates: 0.1 % at a weight of 10 %, then 10 % at a weight of 50 %.
        add(&mut estimate, block(10_000, 10, 90_000, 90));
        add(&mut estimate, block(50_000, 5_000, 50_000, 5_000));
        assert!((estimate.ratio().expect("failures") - 1.0).abs() < 1e-12);
        let total = estimate.total();
        let naive = total.canary.rate().expect("trials") / total.baseline.rate().expect("trials");
        assert!(naive > 2.0, "sums alone would say {naive}");
    }

    /// Computed by hand for one stratum: the variance of Greenland and Robins is then that of the
    /// textbooks, `1/k_c - 1/n_c + 1/k_b - 1/n_b`.
    #[test]
    fn the_interval_of_one_block_is_that_of_a_ratio_of_two_rates() {
        let mut estimate = Estimate::default();
        assert_eq!(estimate.ratio_interval(1.0), None);
        add(&mut estimate, Arms::new(Tally::new(200, 20), Tally::new(1_000, 40)));
        let deviation = (1.0 / 20.0 - 1.0 / 200.0 + 1.0 / 40.0 - 1.0 / 1_000.0_f64).sqrt();
        let [low, high] = estimate.ratio_interval(1.0).expect("both failed");
        assert!((low - 2.5 * (-1.96 * deviation).exp()).abs() < 1e-12, "{low}");
        assert!((high - 2.5 * (1.96 * deviation).exp()).abs() < 1e-12, "{high}");
        let [wider, _] = estimate.ratio_interval(4.0).expect("both failed");
        assert!((wider - 2.5 * (-1.96 * 2.0 * deviation).exp()).abs() < 1e-12, "{wider}");
    }

    #[test]
    fn an_interval_holds_the_truth_as_often_as_it_says() {
        let (mut held, mut rng) = (0, fastrand::Rng::with_seed(11));
        for _ in 0..1_000 {
            let mut estimate = Estimate::default();
            for block in 0..400 {
                // A rate that changes, at two weights.
                let rate = 0.02 + 0.02 * f64::from(block % 7) / 7.0;
                let canary = if block < 200 { 5 } else { 20 };
                let mut drawn = |n: u64, rate: f64| {
                    Tally::new(n, (0..n).filter(|_| rng.f64() < rate).count() as u64)
                };
                let block = Arms::new(drawn(canary, 2.0 * rate), drawn(40 - canary, rate));
                add(&mut estimate, block);
            }
            let [low, high] = estimate.ratio_interval(1.0).expect("both failed");
            held += u32::from((low..high).contains(&2.0));
        }
        assert!((930..=968).contains(&held), "{held} of 1,000 intervals hold the truth");
    }
}
