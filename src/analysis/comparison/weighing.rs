//! Weighs the evidence of all metrics together, and describes it.

use std::time::Duration;

use super::{
    super::{
        engine::Engine,
        spared::Spared,
        verdict::{Answer, Finding, HeldBack, Metric, Verdict, known},
        wealth::log_sum,
    },
    Comparison, RouteTest,
};

/// Weights of the metrics. Errors are certainly harmful. Spans and quantiles of latency mostly
/// agree with each other, and so do the two sides of an amount. A fault of one route shows in all
/// routes together, too, unless the route is small.
const ERRORS: f64 = 0.5;
const UNSERVED: f64 = 0.1;
const ROUTES: f64 = 0.1;
const RECOVERY: f64 = 0.1;
const LATENCY: f64 = 0.1;
const AMOUNT: f64 = 0.1;

/// The evidence of a metric.
#[derive(Clone, Copy)]
pub(super) struct Term {
    /// Weight relative to those of the others.
    pub(super) weight: f64,
    pub(super) log_evidence: f64,
    /// The evidence without the canary's worst endpoint, if it has several and the metric
    /// distinguishes them.
    pub(super) spared: Option<f64>,
    /// Whether the canary was bad often enough to be judged.
    pub(super) enough: bool,
}

impl Comparison {
    pub(super) fn judge(&mut self, now: Duration) {
        let terms = self.terms();
        let weighted = weighted(&terms);
        let evidence = log_sum(weighted.iter().copied());
        self.evidence = Some(evidence);
        let Some(largest) = largest(&weighted) else { return };
        if self.failed.is_none()
            && terms[largest].enough
            && evidence >= self.log_threshold()
            && !(self.has_groups && self.is_one_endpoint(&terms, largest))
        {
            self.failed = Some(Box::new(self.describe(Answer::Fail, now)));
        }
    }

    /// Whether the evidence, most of which is term number `largest`, is that of one of several
    /// endpoints, which the comparison of endpoints will eject.
    fn is_one_endpoint(&self, terms: &[Term], largest: usize) -> bool {
        if terms[largest].spared.is_none() {
            return false;
        }
        let without = |term: &Term| {
            let spared = term.spared.unwrap_or(f64::INFINITY);
            Term { log_evidence: term.log_evidence.min(spared), ..*term }
        };
        let without: Vec<Term> = terms.iter().map(without).collect();
        log_sum(weighted(&without).into_iter()) < self.log_threshold()
    }

    /// The terms in the order of [`Comparison::findings`].
    pub(super) fn terms(&self) -> Vec<Term> {
        let of = |weight: f64, test: &Engine| Term {
            weight,
            log_evidence: test.log_evidence(),
            spared: None,
            enough: test.has_enough_failures(),
        };
        let spared = self.spared.as_ref().and_then(Spared::least_log_evidence);
        let all = |term| Term { spared, ..term };
        let errors = self.errors.iter().map(|test| all(of(ERRORS, test)));
        let unserved = self.unserved.iter().map(|test| all(of(UNSERVED, test)));
        let weight = ROUTES / self.routes.len().max(1) as f64;
        let routes = self.routes.iter().map(|RouteTest { errors, spared }| Term {
            spared: spared.least_log_evidence(),
            ..of(weight, errors)
        });
        let latency = self.latency.iter().map(|test| of(LATENCY, test.engine()));
        let amount = AMOUNT / self.limits.amounts.len().max(1) as f64;
        let certain =
            |weight, log_evidence| Term { weight, log_evidence, spared: None, enough: true };
        let recovery = self.recovery.iter().map(|test| certain(RECOVERY, test.evidence_so_far()));
        let amounts = self.amounts.iter().map(|test| certain(amount, test.log_evidence()));
        let rates = errors.chain(unserved).chain(routes).chain(recovery);
        rates.chain(latency).chain(amounts).collect()
    }

    fn findings(&self) -> impl Iterator<Item = Finding> {
        let began = self.began;
        let errors = self.errors.iter();
        let errors = errors.map(move |test| Finding::of_rate(Metric::Errors, None, test, began));
        let unserved = self.unserved.iter();
        let unserved =
            unserved.map(move |test| Finding::of_rate(Metric::Unserved, None, test, began));
        let routes = self.routes.iter().zip(&self.limits.routes);
        let routes = routes.map(move |(test, route)| {
            Finding::of_rate(Metric::Errors, Some(route.clone()), &test.errors, began)
        });
        let latency = self.latency.iter().map(move |test| Finding::of_latency(test, began));
        let names = self.limits.amounts.iter().flat_map(|limit| [&limit.name; 2]);
        let amounts = self.amounts.iter().zip(names);
        let amounts = amounts.map(move |(test, name)| Finding::of_amount(name, test, began));
        let recovery = self.recovery.iter().map(Finding::of_recovery);
        let rates = errors.chain(unserved).chain(routes).chain(recovery);
        rates.chain(latency).chain(amounts)
    }

    /// Whether anything is compared only once the canary is warm.
    fn warms_up(&self) -> bool {
        !self.latency.is_empty() || !self.amounts.is_empty()
    }

    pub(super) fn describe(&self, answer: Answer, now: Duration) -> Verdict {
        let s = |at: Duration| at.saturating_sub(self.began).as_secs_f64();
        let terms = self.terms();
        let weighted = weighted(&terms);
        let largest = largest(&weighted);
        let mut ranked: Vec<_> = weighted.into_iter().zip(self.findings()).collect();
        ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let findings: Vec<_> = ranked.into_iter().map(|(_, finding)| finding).collect();
        let suffices = self.log_evidence() >= self.log_threshold();
        let held =
            largest.filter(|_| answer == Answer::Undecided && suffices).map(
                |largest| match findings[0].failures().filter(|_| !terms[largest].enough) {
                    Some(failures) => {
                        HeldBack::MinimumFailures { failures, least: self.limits.least_failures }
                    }
                    None => HeldBack::OneEndpoint,
                },
            );
        let mut verdict = Verdict {
            answer,
            alone: false,
            since_s: if answer == Answer::Fail { s(now) } else { 0.0 },
            compared_s: s(now),
            log_evidence: known(self.log_evidence()),
            log_threshold: self.log_threshold(),
            health: None,
            held,
            warm_up_s: self.warms_up().then_some(self.limits.warm_up.as_secs_f64()),
            findings,
            reason: String::new(),
        };
        verdict.reason = verdict.to_string();
        verdict
    }
}

/// Logarithms of the weighted wealths of the terms; the weights are scaled to a sum of 1.
pub(super) fn weighted(terms: &[Term]) -> Vec<f64> {
    let sum: f64 = terms.iter().map(|term| term.weight).sum();
    terms.iter().map(|term| (term.weight / sum).ln() + term.log_evidence).collect()
}

pub(super) fn largest(logs: &[f64]) -> Option<usize> {
    (0..logs.len()).max_by(|a, b| logs[*a].total_cmp(&logs[*b]))
}
