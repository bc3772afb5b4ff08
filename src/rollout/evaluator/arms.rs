//! One canary against the baseline over the requests of one stratum.

use std::time::Duration;

use super::amounts::Seen;
use crate::{
    analysis::{Arms, Blocks, Comparison, Counter, LATENCY_BUCKETS, Latencies, Pace, Reference},
    registry::EvidenceState,
    snapshot::Stratum,
};

/// Latencies so far of one version, over all workers.
type Sums = [u32; LATENCY_BUCKETS];

/// The blocks that are open, and the comparison that takes the closed ones.
#[derive(Debug)]
pub(super) struct Line {
    arms: Arms<u16>,
    comparison: Comparison,
    blocks: Blocks,
    pace: Pace,
    /// What was seen of latencies when the open block began, by parity.
    latencies: [Arms<Box<Sums>>; 2],
    /// Trials then.
    trials: u64,
    reference: Reference,
    /// Of amounts, in the order of the limits.
    amounts: Vec<Seen>,
}

impl Line {
    /// A comparison of version number `canary` with number `baseline` from `now` on.
    pub(super) fn new(
        stratum: &Stratum,
        canary: u16,
        baseline: u16,
        phi: f64,
        now: Duration,
    ) -> Self {
        let arms = Arms::new(canary, baseline);
        let counters = counters(stratum, arms);
        Self {
            arms,
            comparison: Comparison::new(stratum.limits.clone(), phi, now),
            blocks: Blocks::open(counters, now),
            pace: Pace::new(now),
            latencies: [0, 1].map(|parity| latencies(stratum, arms, parity)),
            trials: trials(&counters),
            reference: Reference::default(),
            amounts: (0..stratum.limits.amounts.len())
                .map(|number| Seen::new(stratum, arms, number))
                .collect(),
        }
    }

    /// Closes the blocks that are full.
    pub(super) fn poll(&mut self, stratum: &Stratum, now: Duration) {
        let counters = counters(stratum, self.arms);
        for block in self.blocks.poll(counters, now) {
            self.comparison.observe_errors(block, now);
        }
        let new = trials(&counters).wrapping_sub(self.trials);
        let Some(length) = self.pace.due(new, now) else { return };
        self.trials = trials(&counters);
        for parity in [0, 1] {
            let sums = latencies(stratum, self.arms, parity);
            let before = std::mem::replace(&mut self.latencies[usize::from(parity)], sums);
            let sums = &self.latencies[usize::from(parity)];
            let canary = Latencies::between(&before.canary, &sums.canary);
            let baseline = Latencies::between(&before.baseline, &sums.baseline);
            let block = Arms::new(&canary, &baseline);
            self.comparison.observe_latency(block, &self.reference, now);
            // Both parities are of the same time, which passes once.
            let passed = if parity == 0 { length } else { Duration::ZERO };
            self.reference.absorb(&baseline, passed);
        }
        for (number, seen) in self.amounts.iter_mut().enumerate() {
            for Arms { canary, baseline } in seen.close(stratum, self.arms) {
                self.comparison.observe_amounts(number, Arms::new(&canary, &baseline), now);
            }
        }
    }

    /// What it has come to.
    pub(super) fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// Says that shares changed.
    pub(super) fn weight_step(&mut self) {
        self.comparison.weight_step();
    }

    /// Says that failures come in clusters of `phi`.
    pub(super) fn set_dispersion(&mut self, phi: f64) {
        self.comparison.set_dispersion(phi);
    }
}

fn state(stratum: &Stratum, version: u16) -> &EvidenceState {
    &stratum.arms[usize::from(version)].attempts
}

fn counters(stratum: &Stratum, arms: Arms<u16>) -> [Arms<Counter>; 2] {
    let of = |version, parity| {
        let cells = state(stratum, version).cells.iter();
        cells.map(|cells| cells.of(parity).counter()).fold(Counter::default(), Counter::with)
    };
    [0, 1].map(|parity| Arms::new(of(arms.canary, parity), of(arms.baseline, parity)))
}

fn trials(counters: &[Arms<Counter>; 2]) -> u64 {
    let both = |arms: &Arms<Counter>| arms.canary.trials.wrapping_add(arms.baseline.trials);
    both(&counters[0]).wrapping_add(both(&counters[1]))
}

fn latencies(stratum: &Stratum, arms: Arms<u16>, parity: u8) -> Arms<Box<Sums>> {
    let of = |version| {
        let mut sums = Box::new([0; LATENCY_BUCKETS]);
        let cells = state(stratum, version).cells.iter();
        cells.for_each(|cells| cells.of(parity).add_latencies(&mut sums));
        sums
    };
    Arms::new(of(arms.canary), of(arms.baseline))
}
