//! Estimates from the baseline whether failures come in clusters.
//!
//! A client that retries, or a hiccup of one process that fails many requests, makes one event look
//! like several; if every failure came twice, half of all equal canaries would be ejected at an
//! alpha of 5 %. Evidence is therefore divided by `phi`, the size of clusters, estimated from the
//! spread between the baseline's endpoints (Pearson's statistic over its degrees of freedom):
//!
//! ```text
//! X += min(sum over endpoints of (k_i - K n_i / N)^2 / (K n_i / N), most)    D += endpoints - 1
//! phi = clamp((X + 50) / (D + 50), 1, 3)                       X and D halve in 30 minutes
//! ```
//!
//! `K` and `N` are sums over the endpoints, so a shared outage has no effect. `phi` does not
//! account for a lasting difference between endpoints of one version.
//!
//! A short event must not have an effect for an hour. When each endpoint of a baseline in turn
//! failed all requests for a second, an unbounded sum was 8 to 20 an hour later, and a fault of the
//! canary cost 100 failed responses instead of 8. Four rules prevent that:
//!
//! - An endpoint that fails far more than most of its peers is broken, not clustered, and is left
//!   out of the window. The caller leaves out those that were ejected or down.
//! - A window adds at most what clusters of three would add in five of six windows.
//! - A window without failures counts in favor of 1. A window with one failure adds exactly 1 per
//!   degree of freedom, whatever the clusters; a window without is treated alike. Failures that are
//!   rarer than one per window are below the tolerance.
//! - `phi` is at most 3. Players count once, so larger clusters do not last.
//!
//! A median of windows was rejected: most windows of a good baseline have no failures, or one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counts::Tally;

/// Window over which failures of endpoints are counted: longer than a client retries.
pub const DISPERSION_WINDOW: Duration = Duration::from_secs(10);
/// Half-life of a window's weight: 180 windows are enough for one digit after the point, and a new
/// release of the clients is noticed within an hour.
const HALF_LIFE: Duration = Duration::from_secs(30 * 60);
/// Prior degrees of freedom in favor of no clusters, as after a minute of ten endpoints: a few
/// windows prove nothing.
const PRIOR: f64 = 50.0;
/// Largest estimate.
const MOST: f64 = 3.0;
/// Excess of an endpoint's failures over its peers', in standard deviations of clusters of
/// [`MOST`], from which on it is broken. With peers without failures, that takes nine failures.
const BROKEN: f64 = 5.0;

/// The spread of failures between the endpoints of a baseline. Outlives any one canary.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Dispersion {
    squares: f64,
    freedom: f64,
}

impl Dispersion {
    /// Adds the counts over the last `elapsed`, which should be [`DISPERSION_WINDOW`], of each
    /// endpoint of the baseline that served all the time.
    pub fn observe(&mut self, endpoints: &[Tally], elapsed: Duration) {
        let kept = (-elapsed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.squares *= kept;
        self.freedom *= kept;
        let sound = without_broken(endpoints);
        if sound.len() < 2 {
            return;
        }
        let freedom = (sound.len() - 1) as f64;
        // Mean plus one standard deviation of the statistic for clusters of `MOST`.
        let most = MOST * (freedom + (2.0 * freedom).sqrt());
        self.squares += pearson(&sound).map_or(freedom, |squares| squares.min(most));
        self.freedom += freedom;
    }

    /// The size of clusters, 1 to 3; 1 without data.
    pub fn phi(&self) -> f64 {
        ((self.squares + PRIOR) / (self.freedom + PRIOR)).clamp(1.0, MOST)
    }
}

/// The `endpoints` that had requests and do not fail far more than most.
fn without_broken(endpoints: &[Tally]) -> Vec<Tally> {
    let mut rated: Vec<_> =
        endpoints.iter().filter_map(|endpoint| Some((endpoint.rate()?, *endpoint))).collect();
    rated.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let Some((usual, _)) = rated.get(rated.len().saturating_sub(1) / 2).copied() else {
        return Vec::new();
    };
    let is_broken = |endpoint: Tally| {
        let expected = usual * endpoint.trials() as f64;
        endpoint.failures() as f64 > expected + BROKEN * (MOST * (expected + 1.0)).sqrt()
    };
    rated.into_iter().map(|(_, endpoint)| endpoint).filter(|e| !is_broken(*e)).collect()
}

/// Pearson's statistic of endpoints with requests; `None` without failures.
fn pearson(endpoints: &[Tally]) -> Option<f64> {
    let mut total = Tally::default();
    endpoints.iter().for_each(|endpoint| total += *endpoint);
    let rate = total.rate().filter(|rate| *rate > 0.0)?;
    let square = |endpoint: &Tally| {
        let expected = rate * endpoint.trials() as f64;
        (endpoint.failures() as f64 - expected).powi(2) / expected
    };
    Some(endpoints.iter().map(square).sum())
}

#[cfg(test)]
mod tests {
    use super::{super::simulation::Traffic, *};

    const WINDOW: Duration = DISPERSION_WINDOW;

    /// Mean `phi` after half an hour of ten endpoints with 900 requests a window each.
    fn mean(mut failures: impl FnMut(&mut Traffic, u32) -> u64) -> f64 {
        let mut traffic = Traffic::new(11);
        let run = |_| {
            let mut dispersion = Dispersion::default();
            for window in 0..180 {
                let endpoints = [(); 10].map(|()| Tally::new(900, failures(&mut traffic, window)));
                dispersion.observe(&endpoints, WINDOW);
            }
            dispersion.phi()
        };
        (0..20).map(run).sum::<f64>() / 20.0
    }

    #[test]
    fn the_size_of_clusters_is_found() {
        let alone = mean(|traffic, _| traffic.poisson(2.7));
        assert!((1.0..1.05).contains(&alone), "{alone}");
        let twos = mean(|traffic, _| 2 * traffic.poisson(1.35));
        assert!((1.8..2.0).contains(&twos), "{twos}");
        let threes = mean(|traffic, _| 3 * traffic.poisson(0.9));
        assert!((2.6..3.0).contains(&threes), "{threes}");
        // 4.4 without bounds.
        let geometric = mean(|traffic, _| {
            let clusters = traffic.poisson(0.9);
            (0..clusters).map(|_| traffic.geometric(1.0 / 3.0)).sum()
        });
        assert!(geometric > 2.9, "{geometric}");
    }

    #[test]
    fn an_outage_of_all_is_no_cluster() {
        let shared =
            mean(|traffic, window| traffic.binomial(900, if window > 170 { 0.3 } else { 0.003 }));
        assert!(shared < 1.05, "{shared}");
    }

    /// `phi` after `before` good windows and a restart of `endpoints` endpoints, one after the
    /// other, at 950 requests a second, each of which fails all it gets for a second, `together` in
    /// one window.
    fn after_restart(endpoints: usize, before: u32, together: usize, base: f64) -> f64 {
        let mut traffic = Traffic::new(12);
        let mut dispersion = Dispersion::default();
        let trials = 9_500 / endpoints as u64;
        let mut window = |down: &[usize]| {
            let all: Vec<_> = (0..endpoints)
                .map(|number| {
                    let failures = traffic.poisson(base * trials as f64);
                    let lost = if down.contains(&number) { trials / 10 } else { 0 };
                    Tally::new(trials, failures + lost)
                })
                .collect();
            dispersion.observe(&all, WINDOW);
        };
        (0..before).for_each(|_| window(&[]));
        let order: Vec<_> = (0..endpoints).collect();
        order.chunks(together).for_each(&mut window);
        dispersion.phi()
    }

    #[test]
    fn a_rolling_restart_leaves_no_trace() {
        for base in [0.0, 5e-4, 3e-3] {
            for (endpoints, together) in [(2, 1), (4, 1), (10, 1), (4, 2), (10, 3)] {
                for before in [0, 10, 180] {
                    let phi = after_restart(endpoints, before, together, base);
                    assert!(phi < 1.3, "{endpoints} by {together}, {base}, {before}: {phi}");
                }
            }
        }
    }

    /// Most endpoints fail at the same time, but not all: none differs much from most of the
    /// others.
    #[test]
    fn a_partial_outage_is_forgotten_within_minutes() {
        let mut dispersion = Dispersion::default();
        let good = [Tally::new(950, 0); 10];
        (0..10).for_each(|_| dispersion.observe(&good, WINDOW));
        let mut bad = good;
        bad[..6].fill(Tally::new(950, 95));
        (0..2).for_each(|_| dispersion.observe(&bad, WINDOW));
        assert!((1.2..1.6).contains(&dispersion.phi()), "{}", dispersion.phi());
        (0..30).for_each(|_| dispersion.observe(&good, WINDOW));
        assert!(dispersion.phi() < 1.2, "{} after five minutes", dispersion.phi());
    }

    #[test]
    fn nothing_and_too_much() {
        let mut dispersion = Dispersion::default();
        dispersion.observe(&[], WINDOW);
        dispersion.observe(&[Tally::default(), Tally::new(9, 0)], WINDOW);
        dispersion.observe(&[Tally::new(9, 9)], WINDOW);
        assert_eq!(dispersion.phi(), 1.0);
        for _ in 0..500 {
            let uneven = [Tally::new(1000, 60), Tally::new(1000, 30), Tally::default()];
            dispersion.observe(&uneven, WINDOW);
        }
        assert_eq!(dispersion.phi(), MOST);
        dispersion.observe(&[], Duration::from_secs(24 * 3600));
        assert!(dispersion.phi() < 1.01, "a day forgets");
    }
}
