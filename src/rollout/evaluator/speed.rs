//! The baseline's latency over the requests of one stratum.
//!
//! It is learnt while a service is compared, whether or not a canary has a share, and from one rollout to
//! the next: a canary that begins finds a reference, and nothing has to warm up.

use std::time::Duration;

use super::arms::{Sums, latencies};
use crate::{
    analysis::{Latencies, Pace, Reference},
    snapshot::Stratum,
};

/// What is known, and the block that is open. Its length is that of all comparisons of the stratum: a
/// threshold must not know the latencies that are compared with it.
#[derive(Debug)]
pub(super) struct Speed {
    baseline: u16,
    pace: Pace,
    /// What was seen of latencies when the open block began, by parity.
    before: [Box<Sums>; 2],
    /// Requests of all versions then.
    requests: u64,
    reference: Reference,
}

/// The baseline's latencies of a block, by parity, and how long it was.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) latencies: [Latencies; 2],
    length: Duration,
}

impl Speed {
    /// Begins `now` to learn of version number `baseline`; nothing if no latency is compared.
    pub(super) fn new(stratum: &Stratum, baseline: u16, now: Duration) -> Option<Self> {
        stratum.limits.compares_latency().then(|| Self {
            baseline,
            pace: Pace::new(now),
            before: latencies(stratum, baseline),
            requests: super::requests(stratum),
            reference: Reference::default(),
        })
    }

    /// The block, if it closes now. It is to be compared with [`Speed::reference`] before it is
    /// [absorbed](Speed::absorb).
    pub(super) fn poll(&mut self, stratum: &Stratum, now: Duration) -> Option<Closed> {
        let requests = super::requests(stratum);
        let length = self.pace.due(requests.wrapping_sub(self.requests), now)?;
        self.requests = requests;
        let after = latencies(stratum, self.baseline);
        let new = |parity: usize| Latencies::between(&self.before[parity], &after[parity]);
        let latencies = [0, 1].map(new);
        self.before = after;
        Some(Closed { latencies, length })
    }

    /// What earlier blocks tell.
    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Learns from a block that has been compared.
    pub(super) fn absorb(&mut self, block: &Closed) {
        // Both parities are of the same time, which passes once.
        for (latencies, passed) in block.latencies.iter().zip([block.length, Duration::ZERO]) {
            self.reference.absorb(latencies, passed);
        }
    }
}
