//! One canary against the baseline over the requests of one stratum.

use std::time::Duration;

use super::{amounts::Seen, speed::Closed};
use crate::{
    analysis::{
        Arms, Blocks, Comparison, Counter, Entry, LATENCY_BUCKETS, Latencies, Pace, Record,
        Recorder, Reference, SlowFrom,
    },
    registry::EvidenceState,
    snapshot::Stratum,
};

/// Latencies so far of one version, over all workers.
pub(super) type Sums = [u32; LATENCY_BUCKETS];

/// The blocks that are open, and the comparison that takes the closed ones.
#[derive(Debug)]
pub(super) struct Line {
    arms: Arms<u16>,
    recorder: Recorder<Comparison>,
    blocks: Blocks,
    /// What was seen of the canary's latencies when the open block began, by parity; nothing before the
    /// first one that it is in from the beginning.
    latencies: Option<[Box<Sums>; 2]>,
    /// Of amounts, in the order of the limits.
    amounts: Vec<Seen>,
    /// When blocks of amounts close.
    pace: Pace,
    /// Requests of all versions when the open ones began.
    requests: u64,
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
        Self {
            arms,
            recorder: Recorder::new(Comparison::new(stratum.limits.clone(), phi, now)),
            blocks: Blocks::open(both(stratum, arms), now),
            latencies: None,
            amounts: (0..stratum.limits.amounts.len())
                .map(|number| Seen::new(stratum, arms, number))
                .collect(),
            pace: Pace::new(now),
            requests: super::requests(stratum),
        }
    }

    /// Closes the blocks that are full.
    pub(super) fn poll(&mut self, stratum: &Stratum, now: Duration) {
        for block in self.blocks.poll(both(stratum, self.arms), now) {
            self.recorder.tell(Entry::Errors { at: now, block });
        }
        if self.amounts.is_empty() {
            return;
        }
        let requests = super::requests(stratum);
        if self.pace.due(requests.wrapping_sub(self.requests), now).is_none() {
            return;
        }
        self.requests = requests;
        for (number, seen) in self.amounts.iter_mut().enumerate() {
            for block in seen.close(stratum, self.arms) {
                self.recorder.tell(Entry::Amounts { at: now, number, block: Box::new(block) });
            }
        }
    }

    /// Compares latencies with those of the `baseline` in the block that closes now.
    pub(super) fn compare_latency(
        &mut self,
        stratum: &Stratum,
        baseline: &Closed,
        reference: &Reference,
        now: Duration,
    ) {
        let after = latencies(stratum, self.arms.canary);
        let slow = SlowFrom::of(reference);
        if let Some(before) = &self.latencies {
            for (parity, baseline) in baseline.latencies.iter().enumerate() {
                let canary = Latencies::between(&before[parity], &after[parity]);
                let block = Arms::new((&canary).into(), baseline.into());
                self.recorder.tell(Entry::Latency { at: now, block, slow });
            }
        }
        self.latencies = Some(after);
    }

    /// What it has come to.
    pub(super) fn comparison(&self) -> &Comparison {
        self.recorder.judge()
    }

    /// That it can be judged again.
    pub(super) fn record(&self) -> Record {
        self.recorder.record()
    }

    /// Says that shares changed.
    pub(super) fn weight_step(&mut self) {
        self.recorder.tell(Entry::WeightStep);
    }

    /// Says that failures come in clusters of `phi`.
    pub(super) fn set_dispersion(&mut self, phi: f64) {
        self.recorder.tell(Entry::Dispersion(phi));
    }
}

fn state(stratum: &Stratum, version: u16) -> &EvidenceState {
    &stratum.arms[usize::from(version)].attempts
}

/// What `version` counted, by parity.
pub(super) fn counters(stratum: &Stratum, version: u16) -> [Counter; 2] {
    let cells = &state(stratum, version).cells;
    [0, 1].map(|parity| {
        let counters = cells.iter().map(|cells| cells.of(parity).counter());
        counters.fold(Counter::default(), Counter::with)
    })
}

fn both(stratum: &Stratum, arms: Arms<u16>) -> [Arms<Counter>; 2] {
    let (canary, baseline) = (counters(stratum, arms.canary), counters(stratum, arms.baseline));
    [0, 1].map(|parity| Arms::new(canary[parity], baseline[parity]))
}

/// Latencies so far of version number `version`, by parity.
pub(super) fn latencies(stratum: &Stratum, version: u16) -> [Box<Sums>; 2] {
    [0, 1].map(|parity| {
        let mut sums = Box::new([0; LATENCY_BUCKETS]);
        let cells = state(stratum, version).cells.iter();
        cells.for_each(|cells| cells.of(parity).add_latencies(&mut sums));
        sums
    })
}
