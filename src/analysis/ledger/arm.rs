//! The counts of one version, and its latencies by bucket.

use super::{
    super::{
        counts::Counter,
        latency::{LATENCY_BUCKETS, Quantile, Span},
        slots::ENDPOINT_GROUPS,
    },
    players::Buckets,
};

/// Counts of latencies by bucket; they only grow, and wrap.
pub type Latest = [u32; LATENCY_BUCKETS];

/// A quantile of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge(pub Span, pub Quantile);

impl Gauge {
    /// All gauges.
    pub const ALL: [Self; 4] = [
        Self(Span::Head, Quantile::P95),
        Self(Span::Head, Quantile::P99),
        Self(Span::Whole, Quantile::P95),
        Self(Span::Whole, Quantile::P99),
    ];

    /// Its index in [`Self::ALL`].
    pub fn index(self) -> usize {
        2 * self.0 as usize + usize::from(self.1 == Quantile::P99)
    }
}

/// Counts of one version.
#[derive(Debug, Clone, Default)]
pub struct Arm {
    /// First attempts with an outcome, and failed ones.
    pub requests: Counter,
    /// Refusals by players.
    pub refusals: Counter,
    /// `None` before the first timed request.
    pub(super) timed: Option<Box<[Timed; LATENCY_BUCKETS]>>,
    /// Trials and failures of players, by group of endpoints.
    pub groups: [Counter; ENDPOINT_GROUPS],
    /// Players, or networks if they count, with a request that timed out.
    pub timed_out: Buckets,
    /// Players who failed on it in this cycle.
    pub failed: Buckets,
}

impl Arm {
    /// Latencies so far of all requests.
    pub fn latencies(&self, span: Span) -> Box<Latest> {
        self.times(|timed| timed.all[span as usize])
    }

    /// Latencies so far of the trials at `gauge`.
    pub fn trials(&self, gauge: Gauge) -> Box<Latest> {
        self.times(|timed| timed.trials[gauge.index()])
    }

    fn times(&self, of: impl Fn(&Timed) -> u32) -> Box<Latest> {
        let mut latest = Box::new([0; LATENCY_BUCKETS]);
        let timed = self.timed.iter().flat_map(|timed| timed.iter());
        latest.iter_mut().zip(timed).for_each(|(count, timed)| *count = of(timed));
        latest
    }
}

/// Requests whose latency is in one bucket. A response in one piece is in the same bucket by head
/// and as a whole, so it touches one cache line.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(32))]
pub(super) struct Timed {
    /// All requests, by [`Span`].
    pub(super) all: [u32; 2],
    /// Trials, by [`Gauge`].
    pub(super) trials: [u32; 4],
}
