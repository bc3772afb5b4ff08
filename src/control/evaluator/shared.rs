//! Counts of the baseline and of all canaries together, window by window.

use std::time::Duration;

use super::account::Account;
use crate::analysis::{Arms, Counter, OUTAGE_WINDOW, Outage, OutageChange};

/// The open window, and what the ones before it have shown.
#[derive(Debug)]
pub(super) struct SharedOutage {
    opened: Duration,
    before: Arms<Counter>,
    outage: Outage,
}

impl SharedOutage {
    pub(super) fn new(accounts: &[Account], baseline: u16, now: Duration) -> Self {
        Self { opened: now, before: read(accounts, baseline), outage: Outage::default() }
    }

    /// Whether an outage is on.
    pub(super) fn is_on(&self) -> bool {
        self.outage.is_on()
    }

    /// Closes the window if it is over.
    pub(super) fn poll(
        &mut self,
        accounts: &[Account],
        baseline: u16,
        now: Duration,
    ) -> Option<OutageChange> {
        if now.saturating_sub(self.opened) < OUTAGE_WINDOW {
            return None;
        }
        self.opened = now;
        let counters = read(accounts, baseline);
        let before = std::mem::replace(&mut self.before, counters);
        self.outage.observe(counters.since(before))
    }
}

/// Counters of all strata.
fn read(accounts: &[Account], baseline: u16) -> Arms<Counter> {
    let mut sums = Arms::<Counter>::default();
    for account in accounts {
        for (version, arm) in account.all.arms.iter().enumerate() {
            let is_baseline = version == usize::from(baseline);
            let sum = if is_baseline { &mut sums.baseline } else { &mut sums.canary };
            *sum = sum.with(arm.requests);
        }
    }
    sums
}
