//! Whether failures come in clusters, learnt from the baseline itself.
//!
//! A client that tries again, or a stumble of one process that takes many requests with it, makes one
//! event look like several; if every failure is two, half of all equal canaries would be ejected at an
//! alpha of 5 %. Evidence is therefore divided by `phi`, the size of clusters as the spread between
//! the baseline's endpoints shows it (Pearson's statistic over its degrees of freedom):
//!
//! ```text
//! X += sum over endpoints of (k_i - K n_i / N)^2 / (K n_i / N)     D += endpoints - 1, if K > 0
//! phi = clamp((X + 50) / (D + 50), 1, 20)                    X and D halve in 30 minutes
//! ```
//!
//! `K` and `N` are sums over the endpoints, so an outage that all of them share says nothing. What
//! `phi` does not cure is a lasting difference between endpoints of one version.

use std::time::Duration;

use super::counts::Tally;

/// Time over which failures of endpoints are counted for one look: longer than a client goes on trying.
pub const DISPERSION_WINDOW: Duration = Duration::from_secs(10);
/// Age at which a look counts half: 180 looks are enough for one digit after the point, and a new
/// release of the clients is noticed within an hour.
const HALF_LIFE: Duration = Duration::from_secs(30 * 60);
/// Degrees of freedom in favor of no clusters at all, as after a minute of ten endpoints: a few looks
/// prove nothing.
const PRIOR: f64 = 50.0;
/// Largest size believed: beyond it, nothing would ever be found.
const MOST: f64 = 20.0;

/// The spread of failures between the endpoints of a baseline. Outlives any one canary.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dispersion {
    squares: f64,
    freedom: f64,
}

impl Dispersion {
    /// Takes in what each endpoint of the baseline counted over the last `elapsed`, which should be
    /// [`DISPERSION_WINDOW`].
    pub fn observe(&mut self, endpoints: &[Tally], elapsed: Duration) {
        let kept = (-elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.squares *= kept;
        self.freedom *= kept;
        let mut total = Tally::default();
        endpoints.iter().for_each(|endpoint| total += *endpoint);
        let Some(rate) = total.rate().filter(|rate| *rate > 0.0) else { return };
        let mut active = 0;
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.trials() > 0) {
            let expected = rate * endpoint.trials() as f64;
            self.squares += (endpoint.failures() as f64 - expected).powi(2) / expected;
            active += 1;
        }
        self.freedom += f64::from(active - 1);
    }

    /// The size of clusters, 1 to 20. 1 as long as nothing else is known.
    pub fn phi(&self) -> f64 {
        ((self.squares + PRIOR) / (self.freedom + PRIOR)).clamp(1.0, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::simulation::Traffic, *};

    /// Mean `phi` after half an hour of ten endpoints with 900 requests a window each.
    fn mean(mut failures: impl FnMut(&mut Traffic, u32) -> u64) -> f64 {
        let mut traffic = Traffic::new(11);
        let run = |_| {
            let mut dispersion = Dispersion::default();
            for window in 0..180 {
                let endpoints = [(); 10].map(|()| Tally::new(900, failures(&mut traffic, window)));
                dispersion.observe(&endpoints, Duration::from_secs(10));
            }
            dispersion.phi()
        };
        (0..20).map(run).sum::<f64>() / 20.0
    }

    #[test]
    fn the_size_of_clusters_is_found() {
        // Sizes and their slack are those of a thousand runs of the reference.
        let alone = mean(|traffic, _| traffic.poisson(2.7));
        assert!((1.0..1.05).contains(&alone), "{alone}");
        let threes = mean(|traffic, _| 3 * traffic.poisson(0.9));
        assert!((2.8..3.1).contains(&threes), "{threes}");
        let geometric = mean(|traffic, _| {
            let clusters = traffic.poisson(0.9);
            (0..clusters).map(|_| traffic.geometric(1.0 / 3.0)).sum()
        });
        assert!((4.1..4.8).contains(&geometric), "{geometric}");
    }

    #[test]
    fn an_outage_of_all_is_no_cluster() {
        let shared =
            mean(|traffic, window| traffic.binomial(900, if window > 170 { 0.3 } else { 0.003 }));
        assert!(shared < 1.05, "{shared}");
    }

    #[test]
    fn nothing_and_too_much() {
        let mut dispersion = Dispersion::default();
        dispersion.observe(&[], Duration::from_secs(10));
        dispersion.observe(&[Tally::default(), Tally::new(9, 0)], Duration::from_secs(10));
        assert_eq!(dispersion.phi(), 1.0);
        for _ in 0..500 {
            let broken = [Tally::new(1000, 1000), Tally::new(1000, 0), Tally::default()];
            dispersion.observe(&broken, Duration::from_secs(10));
        }
        assert_eq!(dispersion.phi(), MOST);
        dispersion.observe(&[], Duration::from_secs(24 * 3600));
        assert!(dispersion.phi() < 1.01, "a day forgets");
    }
}
