//! One canary against its baseline, all metrics together.
//!
//! The evidence of several metrics is averaged: `L = ln(sum of w_i * exp(L_i))`. An average of wealths
//! is one wealth, whatever the metrics have to do with each other, so alpha holds for all of them at
//! once. Dividing alpha between them is never better. Half of the weight is on errors, which costs them
//! 0.7 nats, about 8 % more requests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    amount::{AmountTest, Amounts, Side},
    bet::Tolerance,
    certificate::Certificate,
    counts::{Arms, Tally},
    engine::{Engine, Settings},
    grid::Grid,
    latency::{Latencies, LatencyTest, Quantile, Reference},
    limits::Limits,
    verdict::{Answer, Finding, HealthFinding, Metric, Verdict, known},
    wealth::{Guarantee, log_sum},
};

/// A running comparison. It begins with a canary's first weight and ends with the canary; a new one
/// has its own alpha.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    limits: Limits,
    began: Duration,
    errors: Option<Engine>,
    latency: Vec<LatencyTest>,
    /// Two of each amount, in the order of the limits: too low, too high.
    amounts: Vec<AmountTest>,
    certificate: Option<Certificate>,
    phi: f64,
    /// The verdict that failed the canary, with the numbers of that moment.
    failed: Option<Box<Verdict>>,
}

/// First buckets of latency that are slow in a baseline, by quantile; nothing where too little is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowFrom {
    p95: Option<usize>,
    p99: Option<usize>,
}

impl SlowFrom {
    /// As `reference` tells it.
    pub fn of(reference: &Reference) -> Self {
        let [p95, p99] = [Quantile::P95, Quantile::P99].map(|q| q.threshold(reference));
        Self { p95, p99 }
    }
}

/// The evidence of a metric.
struct Term {
    metric: Metric,
    /// Relative to those of the others.
    weight: f64,
    log_evidence: f64,
    /// Whether the canary was bad often enough to be judged.
    enough: bool,
}

impl Comparison {
    /// A comparison that begins `now`, of failures that come in clusters of `phi`, at least 1.
    pub fn new(limits: Limits, phi: f64, now: Duration) -> Self {
        let guarantee = Guarantee::Alpha(limits.alpha);
        let settings = |tolerance| Settings {
            tolerance,
            guarantee,
            grid: Grid::Full,
            least_failures: limits.least_failures,
            burst_cap: limits.burst_cap,
        };
        let latency = [(Quantile::P95, limits.p95), (Quantile::P99, limits.p99)];
        let amounts = limits.amounts.iter().flat_map(|limit| {
            let new = if limit.derived { AmountTest::of_derived } else { AmountTest::new };
            [Side::Low, Side::High]
                .map(|side| new(side, limit.tolerance, guarantee, limits.burst_cap))
        });
        Self {
            began: now,
            errors: limits.errors.map(|t| Engine::new(settings(t)).with_dispersion(phi)),
            latency: latency
                .into_iter()
                .filter_map(|(quantile, tolerance)| {
                    let settings = settings(Tolerance::NONE);
                    tolerance.map(|tolerance| LatencyTest::new(quantile, tolerance, settings))
                })
                .collect(),
            amounts: amounts.collect(),
            certificate: limits.health.map(|health| Certificate::new(health, phi)),
            phi,
            failed: None,
            limits,
        }
    }

    /// Takes in a closed block of requests and failures that ended at `now`.
    pub fn observe_errors(&mut self, block: Arms<Tally>, now: Duration) {
        if let Some(errors) = &mut self.errors {
            errors.observe(block, now);
        }
        if let Some(certificate) = &mut self.certificate {
            certificate.observe(block, now);
        }
        self.judge(now);
    }

    /// Takes in a block of latencies that ended at `now`. `reference` must not know the block yet.
    pub fn observe_latency(
        &mut self,
        block: Arms<&Latencies>,
        reference: &Reference,
        now: Duration,
    ) {
        self.observe_slow(block, SlowFrom::of(reference), now);
    }

    /// The same with the buckets from which on latencies of the baseline are slow.
    pub fn observe_slow(&mut self, block: Arms<&Latencies>, slow: SlowFrom, now: Duration) {
        if self.is_warm(now) {
            for test in &mut self.latency {
                let slow = match test.quantile() {
                    Quantile::P95 => slow.p95,
                    Quantile::P99 => slow.p99,
                };
                test.observe_above(block, slow, now);
            }
            self.judge(now);
        }
    }

    /// Takes in a block of the amount of that `number` in the limits. It ended at `now`.
    pub fn observe_amounts(&mut self, number: usize, block: Arms<&Amounts>, now: Duration) {
        if self.is_warm(now) {
            let sides = self.amounts.chunks_exact_mut(2).nth(number).into_iter().flatten();
            sides.for_each(|test| test.observe(block, now));
            self.judge(now);
        }
    }

    /// Says that the weights changed. What was certain about health at the old ones is asked anew.
    pub fn weight_step(&mut self) {
        self.errors.iter_mut().for_each(Engine::weight_step);
        self.latency.iter_mut().for_each(LatencyTest::weight_step);
        self.amounts.iter_mut().for_each(AmountTest::weight_step);
        self.certificate = self.limits.health.map(|health| Certificate::new(health, self.phi));
    }

    /// Says that failures come in clusters of `phi`, at least 1, from the next block on. Latencies and
    /// amounts have clusters of their own, which this does not know.
    pub fn set_dispersion(&mut self, phi: f64) {
        self.phi = phi;
        self.errors.iter_mut().for_each(|test| test.set_dispersion(phi));
        self.certificate.iter_mut().for_each(|test| test.set_dispersion(phi));
    }

    /// The answer as it stands. A failure is for ever.
    pub fn answer(&self) -> Answer {
        if self.failed.is_some() {
            Answer::Fail
        } else if self.certificate.as_ref().is_some_and(|c| c.reached_at().is_some()) {
            Answer::Pass
        } else {
            Answer::Undecided
        }
    }

    /// The answer with its numbers. Of a failure, those that decided.
    pub fn verdict(&self, now: Duration) -> Verdict {
        self.failed.as_deref().cloned().unwrap_or_else(|| self.describe(self.answer(), now))
    }

    /// Whether its parts fit each other, as those read from a file may not.
    pub(super) fn is_sound(&self) -> bool {
        self.errors.iter().all(Engine::is_sound)
            && self.latency.iter().all(|test| test.engine().is_sound())
            && self.amounts.iter().all(AmountTest::is_sound)
            && self.amounts.len() == 2 * self.limits.amounts.len()
            && self.certificate.iter().all(Certificate::is_sound)
    }

    /// What is tolerated.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// When it began.
    pub fn began(&self) -> Duration {
        self.began
    }

    /// The size of the clusters that failures are taken to come in.
    pub fn dispersion(&self) -> f64 {
        self.phi
    }

    /// Evidence of all metrics together, in nats; minus infinity before the first block.
    pub fn log_evidence(&self) -> f64 {
        let terms = weighted(&self.terms());
        log_sum(terms.iter().copied())
    }

    /// Evidence as a part of what fails the canary, in nats both; 0 while there is none.
    pub fn part_of_threshold(&self) -> f64 {
        (self.log_evidence() / self.log_threshold()).max(0.0)
    }

    /// Evidence of each metric that is compared, in nats; of amounts one after the other.
    pub fn log_evidence_by_metric(&self) -> impl Iterator<Item = (Metric, f64)> {
        self.terms().into_iter().map(|term| (term.metric, term.log_evidence))
    }

    fn is_warm(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) >= self.limits.warm_up
    }

    fn judge(&mut self, now: Duration) {
        if self.failed.is_some() {
            return;
        }
        let terms = self.terms();
        let weighted = weighted(&terms);
        let Some(largest) = largest(&weighted) else { return };
        let evidence = log_sum(weighted.iter().copied());
        if terms[largest].enough && evidence >= self.log_threshold() {
            self.failed = Some(Box::new(self.describe(Answer::Fail, now)));
        }
    }

    fn log_threshold(&self) -> f64 {
        Guarantee::Alpha(self.limits.alpha).log_threshold()
    }

    fn terms(&self) -> Vec<Term> {
        let errors = self.errors.iter().map(|test| (Metric::Errors, test));
        let latency = self.latency.iter().map(|test| (test.quantile().into(), test.engine()));
        let counted = errors.chain(latency).map(|(metric, test)| Term {
            metric,
            weight: metric.weight(),
            log_evidence: test.log_evidence(),
            enough: test.has_enough_failures(),
        });
        let kinds = self.limits.amounts.len() as f64;
        let amounts = self.amounts.iter().map(|test| {
            let metric = test.side().metric();
            let log_evidence = test.log_evidence();
            Term { metric, weight: metric.weight() / kinds, log_evidence, enough: true }
        });
        counted.chain(amounts).collect()
    }

    fn describe(&self, answer: Answer, now: Duration) -> Verdict {
        let s = |at: Duration| at.saturating_sub(self.began).as_secs_f64();
        let names = self.limits.amounts.iter().flat_map(|limit| [&limit.name; 2]);
        let amounts = self.amounts.iter().zip(names);
        let findings = (self.errors.iter().map(|test| Finding::of_errors(test, self.began)))
            .chain(self.latency.iter().map(|test| Finding::of_latency(test, self.began)))
            .chain(amounts.map(|(test, name)| Finding::of_amount(name, test, self.began)));
        // Findings and terms are in the same order.
        let mut ranked: Vec<_> = weighted(&self.terms()).into_iter().zip(findings).collect();
        ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let reached = self.certificate.as_ref().and_then(Certificate::reached_at);
        let since_s = match answer {
            Answer::Fail => s(now),
            Answer::Pass => reached.map_or(0.0, s),
            Answer::Undecided => 0.0,
        };
        let mut verdict = Verdict {
            answer,
            alone: false,
            since_s,
            compared_s: s(now),
            log_evidence: known(self.log_evidence()),
            log_threshold: self.log_threshold(),
            health: self.certificate.as_ref().map(|certificate| {
                let (log_evidence, log_threshold) = certificate.log_evidence();
                let ratio = certificate.health().ratio();
                HealthFinding { ratio, log_evidence: known(log_evidence), log_threshold }
            }),
            findings: ranked.into_iter().map(|(_, finding)| finding).collect(),
            reason: String::new(),
        };
        verdict.reason = verdict.to_string();
        verdict
    }
}

impl Metric {
    /// Weight of its evidence; of amounts, of all together. Errors are certain to be harm; of the two
    /// quantiles and the two sides of amounts, one mostly speaks for both.
    fn weight(self) -> f64 {
        match self {
            Self::Errors => 0.5,
            Self::LatencyP95 | Self::LatencyP99 => 0.15,
            Self::AmountLow | Self::AmountHigh => 0.1,
        }
    }
}

/// Logarithms of the terms' wealths with their weights, which are made to add up to 1.
fn weighted(terms: &[Term]) -> Vec<f64> {
    let sum: f64 = terms.iter().map(|term| term.weight).sum();
    terms.iter().map(|term| (term.weight / sum).ln() + term.log_evidence).collect()
}

fn largest(logs: &[f64]) -> Option<usize> {
    (0..logs.len()).max_by(|a, b| logs[*a].total_cmp(&logs[*b]))
}

#[cfg(test)]
mod tests;
