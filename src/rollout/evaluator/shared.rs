//! Counts of the baseline and of all canaries together, window by window.

use std::time::Duration;

use super::arms::counter;
use crate::{
    analysis::{Arms, Counter, OUTAGE_WINDOW, Outage, OutageChange},
    snapshot::Compared,
};

/// The open window, and what the ones before it have shown.
#[derive(Debug)]
pub(super) struct SharedOutage {
    opened: Duration,
    before: Arms<Counter>,
    outage: Outage,
}

impl SharedOutage {
    pub(super) fn new(compared: &Compared, baseline: u16, now: Duration) -> Self {
        Self { opened: now, before: read(compared, baseline), outage: Outage::default() }
    }

    /// Whether an outage is on.
    pub(super) fn is_on(&self) -> bool {
        self.outage.is_on()
    }

    /// Closes the window if it is over.
    pub(super) fn poll(
        &mut self,
        compared: &Compared,
        baseline: u16,
        now: Duration,
    ) -> Option<OutageChange> {
        if now.saturating_sub(self.opened) < OUTAGE_WINDOW {
            return None;
        }
        self.opened = now;
        let counters = read(compared, baseline);
        let before = std::mem::replace(&mut self.before, counters);
        self.outage.observe(counters.since(before))
    }
}

/// Counters of all strata.
fn read(compared: &Compared, baseline: u16) -> Arms<Counter> {
    let mut sums = Arms::<Counter>::default();
    for stratum in &compared.strata {
        for version in 0..stratum.arms.len() as u16 {
            let counter = counter(stratum, version);
            let arm = if version == baseline { &mut sums.baseline } else { &mut sums.canary };
            *arm = arm.with(counter);
        }
    }
    sums
}
