//! What the baseline did: a version without a baseline is judged by that.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::blocks::{ALONE_FOR, BaselineBlock},
    StratumTerms, Terms,
};
use crate::analysis::{Bound, LATENCY_HALF_LIFE, Quantile, Source, Tally, Usual};

/// The smallest multiple of an earlier baseline's rate that is tolerated: traffic differs by the hour.
const LEAST_RATIO: f64 = 1.5;

/// The same of its latency, which differs by load: of good versions behind a queue with four fifths of its capacity
/// in use, that got 5 % more requests than was measured, one of 60 was found to be worse with 1.5.
const LEAST_SLOWER: f64 = 2.0;

/// The history of the current baseline and of the one before it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct BaselineHistory {
    present: Option<PastBaseline>,
    before: Option<PastBaseline>,
}

/// The history of an earlier baseline.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PastBaseline {
    version: Arc<str>,
    /// The last time at which it had a share.
    until: Duration,
    /// By the label of the stratum's route.
    strata: Vec<(Option<Box<str>>, PastStratum)>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct PastStratum {
    usual: Usual,
    most_failures: Option<f64>,
    #[serde(default)]
    load: PastLoad,
    p95: Option<Duration>,
    p99: Option<Duration>,
}

/// Requests and seconds of a baseline, with the half-life that its latencies have.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct PastLoad {
    requests: f64,
    seconds: f64,
}

impl PastLoad {
    fn absorb(&mut self, requests: u64, length: Duration) {
        let kept = (-length.as_secs_f64() / LATENCY_HALF_LIFE.as_secs_f64()).exp2();
        self.requests = self.requests * kept + requests as f64;
        self.seconds = self.seconds * kept + length.as_secs_f64();
    }

    /// Requests per second.
    fn per_s(self) -> f64 {
        if self.seconds > 0.0 { self.requests / self.seconds } else { 0.0 }
    }
}

impl BaselineHistory {
    /// Learns from a `block` of the baseline that closed at `now`; its failures come in clusters of size `phi`.
    pub(super) fn learn(&mut self, block: BaselineBlock, terms: &Terms, phi: f64, now: Duration) {
        let mut last = match self.present.take() {
            Some(present) if present.version == block.version => Some(present),
            other => {
                self.before = other.or(self.before.take());
                None
            }
        };
        let passed = last.as_ref().map_or(Duration::ZERO, |last| now.saturating_sub(last.until));
        let strata = terms.strata.iter().zip(block.strata);
        let strata = strata.map(|(stratum, block)| {
            let known = last.as_mut().and_then(|last| {
                let at = last.strata.iter().position(|(route, _)| *route == stratum.route)?;
                Some(last.strata.swap_remove(at).1)
            });
            // The length of the first block is unknown.
            let requests = if known.is_some() { block.requests } else { Tally::default() };
            let mut past = known.unwrap_or_default();
            past.usual.absorb(requests, passed);
            past.load.absorb(requests.trials(), passed);
            past.most_failures = past.usual.most(phi);
            (past.p95, past.p99) = (block.p95, block.p99);
            (stratum.route.clone(), past)
        });
        let strata = strata.collect();
        self.present = Some(PastBaseline { version: block.version, until: now, strata });
    }

    /// The history of the baseline before `version` on the requests of `stratum`, if it is recent.
    fn before(&self, version: &str, stratum: &StratumTerms, now: Duration) -> Option<&PastStratum> {
        let pasts = self.present.iter().chain(&self.before);
        let past = pasts.filter(|past| *past.version != *version).max_by_key(|past| past.until)?;
        let is_fresh = now.saturating_sub(past.until) < ALONE_FOR;
        let mut strata =
            past.strata.iter().filter(|(route, _)| is_fresh && *route == stratum.route);
        strata.next().map(|(_, past)| past)
    }

    /// The bounds by which `version` is judged on the requests of `stratum`.
    pub(super) fn bounds(
        &self,
        version: &str,
        stratum: &StratumTerms,
        now: Duration,
    ) -> Vec<Bound> {
        let slo = &stratum.slo;
        let mut bounds = Vec::new();
        bounds.extend(slo.errors.map(|share| Bound::errors(Source::Slo, share.0)));
        let latency = |source, quantile, longest: Option<Duration>| {
            longest.map(|longest| Bound::latency(source, quantile, longest))
        };
        bounds.extend(latency(Source::Slo, Quantile::P95, slo.p95));
        bounds.extend(latency(Source::Slo, Quantile::P99, slo.p99));
        let Some(past) = self.before(version, stratum, now) else { return bounds };
        let limits = &stratum.limits;
        let longest = |past: Option<Duration>, tolerance: Option<f64>| {
            Some(past?.mul_f64((1.0 + tolerance?).max(LEAST_SLOWER)) + limits.latency_absolute)
        };
        let before = |quantile, past_latency, tolerance| {
            let bound = latency(Source::Before, quantile, longest(past_latency, tolerance));
            bound.map(|bound| bound.measured_at(past.load.per_s()))
        };
        bounds.extend(before(Quantile::P95, past.p95, limits.p95));
        bounds.extend(before(Quantile::P99, past.p99, limits.p99));
        if let Some((most, tolerance)) = past.most_failures.zip(limits.errors) {
            let share = most * tolerance.ratio().max(LEAST_RATIO) + tolerance.excess();
            bounds.push(Bound::errors(Source::Before, share));
        }
        bounds
    }
}
