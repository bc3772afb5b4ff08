//! Tests whether the canary is certainly less than `ratio` times as bad as the baseline, so that it
//! may grow.
//!
//! Absence of evidence is no evidence of absence. This is the opposite test, with the arms swapped:
//! the hypothesis is `p_b <= p_c / ratio`, that the canary fails at least `ratio` times as often.
//! Once it is rejected, the canary is better than that, with an error of at most `beta` over any
//! number of evaluations. A healthy canary at a weight of 10 % and a base rate of 0.3 % needs 5,700
//! requests of its own for a ratio of 2, 2,100 for a ratio of 3.
//!
//! A baseline that never fails would never let it be certain. So the canary may fail an `excess` of
//! its requests on top: the hypothesis is `p_c >= ratio * p_b + excess`, or
//! `p_b <= p_c / ratio - excess / ratio`. That is the one of `bet` with a negative `tau`; its proof
//! does not depend on the sign. Where neither arm fails, it is rejected after about
//! `(ln(1 / beta) + 2.5) / excess` requests of the canary.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    bet::Tolerance,
    counts::{Arms, Tally},
    engine::{Engine, Settings},
    grid::Grid,
    wealth::Guarantee,
};

/// The parameters of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Health {
    ratio: f64,
    #[serde(default)]
    excess: f64,
    beta: f64,
}

/// So many times what is allowed, nobody would call healthy.
const TIMES_ALLOWED: f64 = 2.0;
/// Probability that a canary which fails as often as that is ever called healthy, between two changes of the
/// weights.
const BETA: f64 = 0.05;

impl Health {
    /// The canary must fail less than `ratio` (more than 1, finite) times as often as the baseline,
    /// with an error of at most `beta`, more than 0 and below 1; `None` if they are out of range.
    pub fn new(ratio: f64, beta: f64) -> Option<Self> {
        let possible = ratio > 1.0 && ratio.is_finite() && beta > 0.0 && beta < 1.0;
        possible.then_some(Self { ratio, excess: 0.0, beta })
    }

    /// That the canary fails less than twice as often as is `tolerated`, with an error of at most 5 %;
    /// nothing if less than the baseline's rate is.
    pub fn within_twice(tolerated: Tolerance) -> Option<Self> {
        let health = Self::new(TIMES_ALLOWED * tolerated.ratio, BETA)?;
        Some(Self { excess: TIMES_ALLOWED * tolerated.excess, ..health })
    }

    /// Multiple of the baseline's rate that is excluded.
    pub fn ratio(self) -> f64 {
        self.ratio
    }

    /// Share of failures on top of that, 0 to 1.
    pub fn excess(self) -> f64 {
        self.excess
    }

    /// Probability of a wrong certificate.
    pub fn beta(self) -> f64 {
        self.beta
    }

    /// The same ratio with the error of `other`.
    pub(super) fn with_beta_of(self, other: Self) -> Self {
        Self { beta: other.beta, ..self }
    }
}

/// A running certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Certificate {
    health: Health,
    /// The test, with the baseline in the role of the canary.
    engine: Engine,
}

impl Certificate {
    /// Creates a certificate of `health`, for failures in clusters of `phi`.
    pub fn new(health: Health, phi: f64) -> Self {
        let Health { ratio, excess, beta } = health;
        let tolerance = Tolerance { ratio: 1.0 / ratio, excess: -excess / ratio };
        let settings = Settings::new(tolerance, Guarantee::Alpha(beta));
        // No least number of the baseline's failures: the evidence alone decides.
        let settings = Settings { least_failures: 0, grid: Grid::Ratios, ..settings };
        Self { health, engine: Engine::new(settings).with_dispersion(phi) }
    }

    /// Whether its parts are consistent; those from another process may not be.
    pub(super) fn is_sound(&self) -> bool {
        self.engine.is_sound()
    }

    /// Adds a closed block that ended at `at`.
    pub fn observe(&mut self, block: Arms<Tally>, at: Duration) {
        self.engine.observe(block.swapped(), at);
    }

    /// Sets another `beta`, more than 0 and below 1, for the evidence so far. A reached certificate
    /// is final.
    pub fn demand(&mut self, beta: f64) {
        self.health.beta = beta;
        self.engine.demand(beta, 0);
    }

    /// Sets the size of clusters, like [`Engine::set_dispersion`].
    pub fn set_dispersion(&mut self, phi: f64) {
        self.engine.set_dispersion(phi);
    }

    /// A test of what comes after it was reached: whether the canary is now worse than is allowed, half of what
    /// the certificate excludes. It forgets nothing and never ends, but is at most falsely alarmed once in
    /// `stakes` blocks with failures, in the mean, while the canary is within what is allowed; `phi` as of
    /// [`Certificate::new`].
    pub(super) fn doubt(&self, stakes: f64, phi: f64) -> Engine {
        let Health { ratio, excess, .. } = self.health;
        let (ratio, excess) = (ratio / TIMES_ALLOWED, excess / TIMES_ALLOWED);
        let settings = Settings::new(Tolerance { ratio, excess }, Guarantee::RunLength(stakes));
        Engine::new(settings).with_dispersion(phi)
    }

    /// When it was reached, if it was; that is final.
    pub fn reached_at(&self) -> Option<Duration> {
        self.engine.rejected_at()
    }

    /// Its parameters.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Logarithm of the evidence for health, and of the threshold, in nats.
    pub fn log_evidence(&self) -> (f64, f64) {
        (self.engine.log_evidence(), self.engine.log_threshold())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::simulation::Traffic, *};

    /// Mean canary requests until the certificate, and the number of `runs` without one.
    fn requests(ratio: f64, canary: f64, runs: u64, most: u64) -> (f64, u64) {
        let mut traffic = Traffic::new(31);
        let health = Health::new(ratio, 0.05).expect("a question");
        let (mut requests, mut without) = (0, 0);
        for _ in 0..runs {
            let mut certificate = Certificate::new(health, 1.0);
            let before = requests;
            while certificate.reached_at().is_none() && requests - before < most {
                let block = traffic.block(Arms::new(20.0, 180.0), Arms::new(canary, 0.003));
                requests += block.canary.trials();
                certificate.observe(block, Duration::ZERO);
            }
            without += u64::from(certificate.reached_at().is_none());
        }
        (requests as f64 / runs as f64, without)
    }

    #[test]
    fn a_healthy_canary_gets_it_as_fast_as_the_reference() {
        let (three, without) = requests(3.0, 0.003, 100, 100_000);
        assert!((three - 2_066.0).abs() < 500.0 && without == 0, "{three}");
        let (two, without) = requests(2.0, 0.003, 60, 100_000);
        assert!((two - 5_688.0).abs() < 1_700.0 && without == 0, "{two}");
    }

    #[test]
    fn a_canary_at_the_limit_rarely_gets_it() {
        let (_, without) = requests(3.0, 0.009, 100, 10_000);
        // 5 % and three standard deviations.
        assert!(without >= 88, "{without} of 100 without");
    }

    #[test]
    fn another_error_is_allowed_without_beginning_anew() {
        let health = Health::new(3.0, 1e-9).expect("a question");
        let mut certificate = Certificate::new(health, 1.0);
        let block = Arms::new(Tally::new(500, 0), Tally::new(500, 12));
        certificate.observe(block, Duration::ZERO);
        let (evidence, threshold) = certificate.log_evidence();
        assert!(evidence < threshold && certificate.reached_at().is_none());
        certificate.demand(0.05);
        assert_eq!((certificate.log_evidence().0, certificate.health().beta()), (evidence, 0.05));
        certificate.observe(block, Duration::from_secs(1));
        assert_eq!(certificate.reached_at(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn impossible_questions_are_refused() {
        assert!(Health::new(1.0, 0.05).is_none() && Health::new(2.0, 0.0).is_none());
        assert!(Health::new(f64::INFINITY, 0.05).is_none() && Health::new(2.0, 1.0).is_none());
    }
}
