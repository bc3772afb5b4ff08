//! The baseline's latency over the requests of one stratum, of one span.
//!
//! It is learnt while a service is compared, whether or not a canary has a share, and from one rollout to
//! the next: a canary that begins finds a reference, and nothing has to warm up. It says from when on a
//! request is slow, and how long one without an answer is waited for.

use std::time::Duration;

use super::arms::{Sums, latencies, trials};
use crate::{
    analysis::{Arms, Latencies, Pace, Quantile, Reference, Span, slow_in_canary},
    registry::{Gauge, StratumState},
    snapshot::Stratum,
};

/// Least and largest time after which a request without an answer has failed, unless the file says so: ten
/// times the baseline's p99 between them.
const LEAST_DEADLINE: Duration = Duration::from_secs(1);
const LARGEST_DEADLINE: Duration = Duration::from_secs(30);
const OF_P99: u32 = 10;

/// What is known, and the block that is open. Its length is that of all comparisons of the stratum: a
/// threshold must not know the latencies that are compared with it.
#[derive(Debug)]
pub(super) struct Speed {
    span: Span,
    baseline: u16,
    pace: Pace,
    /// What was seen of latencies when the open block began: of all requests.
    before: Box<Sums>,
    /// The same of trials, of the quantiles that are compared.
    trials: Vec<(Quantile, Box<Sums>)>,
    /// Requests of all versions then.
    requests: u64,
    reference: Reference,
}

/// The baseline's latencies of a block.
#[derive(Debug)]
pub(super) struct Closed {
    all: Latencies,
    /// Of trials, by quantile.
    pub(super) trials: Vec<(Quantile, Latencies)>,
    length: Duration,
}

impl Speed {
    /// Begins `now` to learn of version number `baseline`.
    pub(super) fn new(stratum: &Stratum, span: Span, baseline: u16, now: Duration) -> Self {
        let limits = &stratum.limits;
        let compared = [(Quantile::P95, limits.p95), (Quantile::P99, limits.p99)];
        let compared = compared.into_iter().filter_map(|(quantile, limit)| limit.map(|_| quantile));
        let speed = Self {
            span,
            baseline,
            pace: Pace::new(now),
            before: latencies(stratum, baseline, span),
            trials: compared
                .map(|quantile| (quantile, trials(stratum, baseline, Gauge(span, quantile))))
                .collect(),
            requests: super::requests(stratum),
            reference: Reference::default(),
        };
        speed.publish(stratum);
        speed
    }

    /// The block, if it closes now. It is to be compared before it is [absorbed](Speed::absorb).
    pub(super) fn poll(&mut self, stratum: &Stratum, now: Duration) -> Option<Closed> {
        let requests = super::requests(stratum);
        let length = self.pace.due(requests.wrapping_sub(self.requests), now)?;
        self.requests = requests;
        Some(self.close(stratum, length))
    }

    fn close(&mut self, stratum: &Stratum, length: Duration) -> Closed {
        let after = latencies(stratum, self.baseline, self.span);
        let all = Latencies::between(&self.before, &after);
        self.before = after;
        let (baseline, span) = (self.baseline, self.span);
        let trials = self.trials.iter_mut().map(|(quantile, before)| {
            let after = trials(stratum, baseline, Gauge(span, *quantile));
            let block = Latencies::between(before, &after);
            *before = after;
            (*quantile, block)
        });
        Closed { all, trials: trials.collect(), length }
    }

    /// Throws the open block away: the weights changed in it.
    pub(super) fn skip(&mut self, stratum: &Stratum, now: Duration) {
        self.pace = Pace::new(now);
        self.requests = super::requests(stratum);
        let closed = self.close(stratum, Duration::ZERO);
        self.absorb(&closed, stratum);
    }

    /// What earlier blocks tell.
    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Learns from a block that has been compared, and tells the workers.
    pub(super) fn absorb(&mut self, block: &Closed, stratum: &Stratum) {
        self.reference.absorb(&block.all, block.length);
        self.publish(stratum);
    }

    /// How long a request of the baseline usually takes at most; nothing until enough is known.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.reference.latency_of(Quantile::P99)
    }

    /// Tells the workers from when on what is slow, and when what has no answer has failed.
    fn publish(&self, stratum: &Stratum) {
        for (quantile, tolerance) in
            [(Quantile::P95, stratum.limits.p95), (Quantile::P99, stratum.limits.p99)]
        {
            let slow = quantile.threshold(&self.reference).zip(tolerance);
            let slow =
                slow.map(|(first, tolerance)| Arms::new(slow_in_canary(first, tolerance), first));
            stratum.state.set_slow_from(Gauge(self.span, quantile), slow);
        }
        if self.span == Span::Head {
            let learnt = self.patience().map_or(LEAST_DEADLINE, |p99| {
                (p99 * OF_P99).clamp(LEAST_DEADLINE, LARGEST_DEADLINE)
            });
            stratum.state.set_deadline(stratum.deadline.unwrap_or(learnt));
        }
    }
}

/// The first bucket that is slow in the baseline at `gauge`, as the workers were told.
pub(super) fn slow_from(state: &StratumState, gauge: Gauge) -> Option<usize> {
    state.slow_from(gauge).map(|slow| slow.baseline)
}
