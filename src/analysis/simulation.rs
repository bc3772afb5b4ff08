//! Random traffic for tests, from seeds.

use std::f64::consts::TAU;

use super::{
    bet::Tolerance,
    counts::{Arms, Tally},
};

/// Draws from one seed.
pub(super) struct Traffic(fastrand::Rng);

impl Traffic {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A uniform number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }

    /// Standard normal (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.0.f64()).ln()).sqrt();
        radius * (TAU * self.0.f64()).cos()
    }

    /// Successes of `n` trials, by inversion; for `n` up to a thousand, above which the sum
    /// underflows.
    pub(super) fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        let odds = p / (1.0 - p);
        let mut weight = (1.0 - p).powi(n as i32);
        let mut left = self.0.f64() - weight;
        let mut k = 0;
        while left > 0.0 && k < n {
            weight *= odds * (n - k) as f64 / (k + 1) as f64;
            left -= weight;
            k += 1;
        }
        k
    }

    /// Poisson by inversion, from 100 on by the normal approximation, which is sufficient for
    /// numbers of trials.
    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 100.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let mut weight = (-mean).exp();
        let mut left = self.0.f64() - weight;
        let mut k = 0;
        while left > 0.0 && k < 1000 {
            k += 1;
            weight *= mean / k as f64;
            left -= weight;
        }
        k
    }

    /// Trials up to and including the first success.
    pub(super) fn geometric(&mut self, p: f64) -> u64 {
        let mut trials = 1;
        while self.0.f64() >= p {
            trials += 1;
        }
        trials
    }

    /// A block of about `trials` requests that fail at `rates`.
    pub(super) fn block(&mut self, trials: Arms<f64>, rates: Arms<f64>) -> Arms<Tally> {
        let mut arm = |mean: f64, p: f64| {
            let n = self.poisson(mean);
            Tally::new(n, self.binomial(n, p))
        };
        Arms::new(arm(trials.canary, rates.canary), arm(trials.baseline, rates.baseline))
    }
}

/// The largest growth of evidence per block that any test can have: the least Kullback-Leibler
/// divergence, in nats, of blocks of `trials` that fail at `rates` from blocks within the
/// tolerance.
pub(super) fn best_growth(trials: Arms<f64>, rates: Arms<f64>, tolerance: Tolerance) -> f64 {
    let divergence = |p: f64, q: f64| {
        let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
        part(p, q) + part(1.0 - p, 1.0 - q)
    };
    let (r, tau) = (tolerance.ratio(), tolerance.excess());
    let at = |log_rate: f64| {
        let rate = log_rate.exp();
        trials.canary * divergence(rates.canary, (r * rate + tau).min(1.0 - 1e-15))
            + trials.baseline * divergence(rates.baseline, rate)
    };
    let (mut low, mut high) = (1e-12f64.ln(), ((1.0 - tau) / r - 1e-12).ln());
    for _ in 0..200 {
        let (a, b) = ((2.0 * low + high) / 3.0, (low + 2.0 * high) / 3.0);
        if at(a) < at(b) {
            high = b;
        } else {
            low = a;
        }
    }
    at((low + high) / 2.0)
}

#[test]
fn the_best_growth_agrees_with_the_reference() {
    let tolerance = Tolerance::new(1.1, 1e-4).expect("a tolerance");
    let growth = best_growth(Arms::new(1.0, 9.0), Arms::new(0.01, 0.001), tolerance);
    assert!((growth - 0.009723217).abs() < 1e-8, "{growth}");
}

#[test]
fn draws_have_their_means() {
    let mut traffic = Traffic::new(1);
    let mut mean = |of: &dyn Fn(&mut Traffic) -> f64| {
        (0..20_000).map(|_| of(&mut traffic)).sum::<f64>() / 20_000.0
    };
    // The bounds are five standard deviations.
    assert!((mean(&|t| t.binomial(100, 0.3) as f64) - 30.0).abs() < 0.17);
    assert!((mean(&|t| t.binomial(500, 0.9) as f64) - 450.0).abs() < 0.24);
    assert!((mean(&|t| t.poisson(5.0) as f64) - 5.0).abs() < 0.08);
    assert!((mean(&|t| t.poisson(900.0) as f64) - 900.0).abs() < 1.1);
    assert!(mean(&Traffic::normal).abs() < 0.04);
}
