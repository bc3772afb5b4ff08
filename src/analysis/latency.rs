//! Tests whether the canary is slower at a quantile.
//!
//! The hypothesis is `P(canary > (1 + tolerance) * u) <= P(baseline > u)`, where `u` is the
//! baseline's quantile in earlier blocks. It holds for a canary that is no slower than a baseline
//! slowed down by the tolerance. Requests above the thresholds are counted as failures of the same
//! test as errors, without tolerance, which is part of the threshold. A slowdown of both arms
//! changes both counts, and a `u` that lags makes it a test at, say, the 94.6th percentile, but not
//! an invalid one.
//!
//! Slow requests come in clusters: the pause of a process is one event, however many requests wait,
//! and a canary with little traffic pauses alone. The spread of failures does not show the size of
//! these clusters, so the gain of a block is limited, and one pause never ejects. A canary twice as
//! slow adds a nat or two per block and does not reach that limit.
//!
//! Confidence sequences of quantiles (Howard, Ramdas 2022) were rejected. They are as fast, but
//! compare all requests since the beginning: a slowdown of both arms while the weight grows ejected
//! every equal canary.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    bet::Tolerance,
    counts::{Arms, Tally},
    engine::{BURST_CAP, Engine, Settings},
    grid::Grid,
};

mod buckets;
mod reference;

pub(super) use buckets::first_at_or_above;
pub use buckets::{
    BUCKETS as LATENCY_BUCKETS, Latencies, SparseLatencies, bucket as latency_bucket,
};
pub use reference::{HALF_LIFE as LATENCY_HALF_LIFE, Reference};

/// A quantile of latency that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantile {
    /// 95 % of the requests are faster.
    P95,
    /// 99 % of the requests are faster.
    P99,
}

impl Quantile {
    /// The share of requests that are faster.
    pub fn level(self) -> f64 {
        match self {
            Self::P95 => 0.95,
            Self::P99 => 0.99,
        }
    }

    /// The first bucket that is slow in the baseline, once there are enough requests.
    pub fn threshold(self, reference: &Reference) -> Option<usize> {
        if reference.requests() < self.warm_up_requests() {
            return None;
        }
        // The quantile's bucket has requests on both sides of it; only buckets above it are slower.
        reference.bucket_of(self.level()).map(|bucket| bucket + 1)
    }

    /// Least baseline requests before the quantile is used: about twenty are above it then.
    fn warm_up_requests(self) -> u64 {
        match self {
            Self::P95 => 500,
            Self::P99 => 2_000,
        }
    }
}

/// The part of a response that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// From when the endpoint had the request to the head of its response.
    Head,
    /// To its last byte.
    Whole,
}

/// How much slower a canary may be: this multiple of the baseline's latency, in millionths, and
/// this many microseconds more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slower {
    factor_ppm: u64,
    absolute_us: u64,
}

impl Slower {
    /// Slower by `relative` (0.2: a fifth) and `absolute`.
    pub fn by(relative: f64, absolute: Duration) -> Self {
        let factor_ppm = ((1.0 + relative.max(0.0)) * 1e6).round() as u64;
        let absolute_us = u64::try_from(absolute.as_micros()).unwrap_or(u64::MAX);
        Self { factor_ppm, absolute_us }
    }

    /// The multiple.
    pub fn factor(self) -> f64 {
        self.factor_ppm as f64 / 1e6
    }

    /// The absolute tolerance.
    pub fn absolute(self) -> Duration {
        Duration::from_micros(self.absolute_us)
    }

    /// The first bucket that is slow in a canary, if `baseline` is the first one in the baseline.
    /// Rounded up, so the tolerance is never less than configured, and at most 1/32 more. It may be
    /// beyond the last bucket; then nothing counts as slow.
    pub fn slow_in_canary(self, baseline: usize) -> usize {
        let scaled = u128::from(buckets::lower_us(baseline)) * u128::from(self.factor_ppm);
        let scaled_us = u64::try_from(scaled.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        first_at_or_above(scaled_us.saturating_add(self.absolute_us))
    }
}

/// The test of one quantile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LatencyTest {
    span: Span,
    quantile: Quantile,
    tolerated: Slower,
    engine: Engine,
    /// First slow buckets of the last block.
    thresholds: Option<Arms<usize>>,
}

impl LatencyTest {
    /// Creates a test whether latency at `quantile` exceeds the baseline's by more than is
    /// `tolerated`. Of `settings` the tolerance and the bets are replaced, and bursts are always
    /// capped.
    pub fn new(span: Span, quantile: Quantile, tolerated: Slower, settings: Settings) -> Self {
        let settings = Settings {
            tolerance: Tolerance::NONE,
            grid: Grid::Ratios,
            burst_cap: Some(settings.burst_cap.unwrap_or(BURST_CAP)),
            ..settings
        };
        Self { span, quantile, tolerated, engine: Engine::new(settings), thresholds: None }
    }

    /// Adds a block that ended at `at`. `reference` must not include it: a threshold that depends
    /// on the block's own latencies would favor one arm.
    pub fn observe(&mut self, block: Arms<&Latencies>, reference: &Reference, at: Duration) {
        self.observe_above(block, self.quantile.threshold(reference), at);
    }

    /// Likewise, with the first bucket that is slow in the baseline, as from
    /// [`Quantile::threshold`].
    pub fn observe_above(&mut self, block: Arms<&Latencies>, slow: Option<usize>, at: Duration) {
        let Some(baseline) = slow else { return };
        let canary = self.tolerated.slow_in_canary(baseline);
        self.thresholds = Some(Arms::new(canary, baseline));
        let count = |latencies: &Latencies, bucket| {
            Tally::new(latencies.requests(), latencies.at_or_above(bucket))
        };
        let counts = Arms::new(count(block.canary, canary), count(block.baseline, baseline));
        self.engine.observe(counts, at);
    }

    /// Latencies from which on a request counted as slow in the last block; the canary's is larger
    /// by the tolerance, rounded up to a bucket.
    pub fn thresholds(&self) -> Option<Arms<Duration>> {
        let edge = |bucket| Duration::from_micros(buckets::lower_us(bucket));
        self.thresholds.map(|t| Arms::new(edge(t.canary), edge(t.baseline)))
    }

    /// What is timed.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The quantile.
    pub fn quantile(&self) -> Quantile {
        self.quantile
    }

    /// How much slower a canary may be.
    pub fn tolerated(&self) -> Slower {
        self.tolerated
    }

    /// The test of the counts.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Sets another alpha and least slow requests, like [`Engine::demand`].
    pub fn demand(&mut self, alpha: f64, least_failures: u64) {
        self.engine.demand(alpha, least_failures);
    }

    /// Reports a change of the weights, like [`Engine::weight_step`].
    pub fn weight_step(&mut self) {
        self.engine.weight_step();
    }

    /// Sets the size of clusters, like [`Engine::set_dispersion`].
    pub fn set_dispersion(&mut self, phi: f64) {
        self.engine.set_dispersion(phi);
    }
}

#[cfg(test)]
mod tests;
