//! The grid of bets of one test.
//!
//! The size of a fault is not known beforehand, so the wealth is spread over nine ratios and two
//! gross faults, and the largest wealth shows the size. For faults from 2 times to total, at
//! weights of 1 to 50 %, the best bet grows at 0.90 to 1.00 of the best rate possible.

use serde::{Deserialize, Serialize};

use super::{
    bet::{Bet, Tolerance},
    counts::{Arms, Tally},
};

/// One bet of a grid: the fault that it finds fastest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The canary fails this many times as often as is tolerated.
    Ratio(f64),
    /// The canary fails this share of the requests that the baseline would have served.
    Gross(f64),
}

impl Component {
    /// This bet on a block of `trials`, with the baseline's rate in earlier blocks; `None` if it
    /// does not apply.
    pub fn bet(self, trials: Arms<f64>, tolerance: Tolerance, base_rate: f64) -> Option<Bet> {
        match self {
            Self::Ratio(factor) => Some(Bet::ratio(factor, trials, tolerance)),
            Self::Gross(share) => Bet::gross(share, base_rate, trials, tolerance),
        }
    }
}

/// Every component with its share of the wealth. The steps of the ratios grow with the ratio, since
/// the growth of a bet is flat around its best ratio. The middle ratios, which are common faults
/// and take long to find, have most of the wealth. The gross ones need little: they win within a
/// few requests.
const COMPONENTS: [(Component, f64); MOST_COMPONENTS] = [
    (Component::Ratio(1.1), 0.10),
    (Component::Ratio(1.2), 0.12),
    (Component::Ratio(1.4), 0.14),
    (Component::Ratio(1.8), 0.16),
    (Component::Ratio(2.7), 0.14),
    (Component::Ratio(5.0), 0.12),
    (Component::Ratio(12.0), 0.07),
    (Component::Ratio(50.0), 0.04),
    (Component::Ratio(400.0), 0.03),
    (Component::Gross(0.5), 0.04),
    (Component::Gross(0.95), 0.04),
];

/// Components of the largest grid.
pub(super) const MOST_COMPONENTS: usize = 11;
/// Number of ratios among the components; they come first.
const RATIOS: usize = 9;

/// Which components a test uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grid {
    /// All components: for errors, of which a canary may have any number.
    Full,
    /// Ratios only: where the baseline's rate is given, such as the share above a quantile.
    Ratios,
}

impl Grid {
    /// The components, each with its share of the wealth. The shares of [`Grid::Ratios`] add up to
    /// less than 1; the caller scales them.
    pub fn components(self) -> &'static [(Component, f64)] {
        match self {
            Self::Full => &COMPONENTS,
            Self::Ratios => &COMPONENTS[..RATIOS],
        }
    }
}

/// Weight of the past in the baseline's rate, in requests: enough for a good gross bet, few enough
/// to follow an outage within a second of traffic.
const MEMORY_TRIALS: f64 = 1000.0;
/// Lowest rate that a gross bet assumes: below it the bets hardly differ.
const LOWEST_RATE: f64 = 0.01;
/// Highest rate that a gross bet assumes: nothing is worse than a baseline that always fails.
const HIGHEST_RATE: f64 = 0.95;

/// The baseline's rate in earlier blocks. Only gross bets use it, and a wrong rate makes them
/// slower, never invalid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct BaseRate {
    pub(super) trials: f64,
    pub(super) failures: f64,
}

impl BaseRate {
    /// The rate to bet with on the next block.
    pub fn predicted(self) -> f64 {
        let rate = if self.trials > 0.0 { self.failures / self.trials } else { 0.0 };
        rate.clamp(LOWEST_RATE, HIGHEST_RATE)
    }

    /// Updates the rate after a block.
    pub fn learn(&mut self, baseline: Tally) {
        let trials = baseline.trials() as f64;
        let kept = MEMORY_TRIALS / (MEMORY_TRIALS + trials);
        self.trials = self.trials * kept + trials;
        self.failures = self.failures * kept + baseline.failures() as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_full_grid_add_up_to_one() {
        let sum: f64 = Grid::Full.components().iter().map(|(_, share)| share).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        let ratio = |c: &(Component, f64)| matches!(c.0, Component::Ratio(_));
        assert!(Grid::Ratios.components().iter().all(ratio));
        assert_eq!(Grid::Full.components().iter().filter(|c| ratio(c)).count(), RATIOS);
    }

    #[test]
    fn the_rate_follows_an_outage_within_its_memory() {
        let mut rate = BaseRate::default();
        assert_eq!(rate.predicted(), LOWEST_RATE);
        (0..100).for_each(|_| rate.learn(Tally::new(100, 0)));
        assert_eq!(rate.predicted(), LOWEST_RATE);
        (0..10).for_each(|_| rate.learn(Tally::new(100, 50)));
        assert!((0.25..0.45).contains(&rate.predicted()), "{}", rate.predicted());
        (0..100).for_each(|_| rate.learn(Tally::new(100, 100)));
        assert_eq!(rate.predicted(), HIGHEST_RATE);
    }

    #[test]
    fn a_component_says_what_it_is() {
        let text = serde_json::to_string(&[Component::Ratio(5.0), Component::Gross(0.5)]);
        assert_eq!(text.expect("JSON"), r#"[{"ratio":5.0},{"gross":0.5}]"#);
    }
}
