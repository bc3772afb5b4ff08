//! The baseline's latency over the requests of one stratum, of one span.
//!
//! It is learnt while a service is compared, whether or not a canary has a share, and kept from one rollout to
//! the next. So a new canary has a reference at once, without a warm-up. It determines from which latency on a
//! request is slow, and the deadline of requests.

use std::time::Duration;

use super::account::{Account, requests};
use crate::{
    analysis::{Gauge, Latencies, Latest, Ledger, Pace, Quantile, Reference, Span},
    snapshot::Stratum,
};

/// The learnt latencies, and the open block, which is as long as those of all comparisons of the stratum. A
/// threshold must not depend on the latencies that it is applied to.
#[derive(Debug)]
pub(super) struct BaselineLatency {
    span: Span,
    baseline: u16,
    pace: Pace,
    /// Latencies of all requests at the start of the open block.
    before: Box<Latest>,
    /// Latencies of trials at the start of the open block, for each compared quantile.
    trials: Vec<(Quantile, Box<Latest>)>,
    /// Requests of all versions at the start of the open block.
    requests: u64,
    reference: Reference,
    /// The p99, which each evaluation reads.
    p99: Option<Duration>,
    /// A first estimate of the p99, known sooner and kept.
    about_p99: Option<Duration>,
}

/// The baseline's latencies of a block.
#[derive(Debug)]
pub(super) struct Closed {
    all: Latencies,
    /// Latencies of trials, by quantile.
    pub(super) trials: Vec<(Quantile, Latencies)>,
    length: Duration,
}

impl BaselineLatency {
    /// Begins at `now` to learn the latency of version number `baseline`.
    pub(super) fn new(
        stratum: &Stratum,
        ledger: &Ledger,
        span: Span,
        baseline: u16,
        now: Duration,
    ) -> Self {
        let limits = &stratum.limits;
        let compared = [(Quantile::P95, limits.p95), (Quantile::P99, limits.p99)];
        let compared = compared.into_iter().filter_map(|(quantile, limit)| limit.map(|_| quantile));
        Self {
            span,
            baseline,
            pace: Pace::new(now),
            before: ledger.arms[usize::from(baseline)].latencies(span),
            trials: compared
                .map(|quantile| (quantile, trials(ledger, baseline, Gauge(span, quantile))))
                .collect(),
            requests: requests(ledger),
            reference: Reference::default(),
            p99: None,
            about_p99: None,
        }
    }

    /// The block, if it closes now. Compare it before it is [absorbed](BaselineLatency::absorb).
    pub(super) fn poll(&mut self, ledger: &Ledger, now: Duration) -> Option<Closed> {
        let so_far = requests(ledger);
        let length = self.pace.due(so_far.wrapping_sub(self.requests), now)?;
        self.requests = so_far;
        Some(self.close(ledger, length))
    }

    fn close(&mut self, ledger: &Ledger, length: Duration) -> Closed {
        let after = ledger.arms[usize::from(self.baseline)].latencies(self.span);
        let all = Latencies::between(&self.before, &after);
        self.before = after;
        let (baseline, span) = (self.baseline, self.span);
        let trials = self.trials.iter_mut().map(|(quantile, before)| {
            let after = trials(ledger, baseline, Gauge(span, *quantile));
            let block = Latencies::between(before, &after);
            *before = after;
            (*quantile, block)
        });
        Closed { all, trials: trials.collect(), length }
    }

    /// Discards the open block, because the weights changed during it.
    pub(super) fn skip(&mut self, stratum: &Stratum, account: &mut Account, now: Duration) {
        self.pace = Pace::new(now);
        self.requests = requests(&account.all);
        let closed = self.close(&account.all, Duration::ZERO);
        self.absorb(&closed, stratum, account);
    }

    /// The latencies of earlier blocks.
    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Learns from a block after it was compared.
    pub(super) fn absorb(&mut self, block: &Closed, stratum: &Stratum, account: &mut Account) {
        self.reference.absorb(&block.all, block.length);
        self.p99 = self.reference.latency_of(Quantile::P99);
        self.about_p99 = self.reference.about(Quantile::P99).or(self.about_p99);
        for (quantile, _) in &self.trials {
            account.learn(stratum, Gauge(self.span, *quantile), &self.reference);
        }
        if self.span == Span::Head {
            account.wait_for(stratum, self.about_p99, &block.all);
        }
    }
}

/// Latencies of all trials of version number `version` at `gauge` so far.
pub(super) fn trials(ledger: &Ledger, version: u16, gauge: Gauge) -> Box<Latest> {
    ledger.arms[usize::from(version)].trials(gauge)
}

/// The baseline's latency over the requests of a stratum.
#[derive(Debug)]
pub(super) struct BaselineLatencies {
    pub(super) head: BaselineLatency,
    /// `None` where no latency is compared.
    whole: Option<BaselineLatency>,
}

impl BaselineLatencies {
    pub(super) fn new(stratum: &Stratum, account: &Account, baseline: u16, now: Duration) -> Self {
        let whole = stratum.limits.compares_latency();
        let new = |span| BaselineLatency::new(stratum, &account.all, span, baseline, now);
        Self { head: new(Span::Head), whole: whole.then(|| new(Span::Whole)) }
    }

    pub(super) fn by_span(&mut self) -> impl Iterator<Item = (Span, &mut BaselineLatency)> {
        let whole = self.whole.as_mut().map(|speed| (Span::Whole, speed));
        [(Span::Head, &mut self.head)].into_iter().chain(whole)
    }

    /// How long a baseline request usually takes at most.
    pub(super) fn patience(&self) -> Duration {
        let known = self.head.p99.map(|p99| p99 * 2);
        known.map_or(UNKNOWN_PATIENCE, |patience| patience.max(LEAST_PATIENCE))
    }
}

/// How long to wait for a request to the baseline before it counts as failed until it ends: twice the p99, but
/// at least this; and this while the p99 is unknown.
const LEAST_PATIENCE: Duration = Duration::from_millis(20);
const UNKNOWN_PATIENCE: Duration = Duration::from_millis(100);
