//! Counts of the baseline and of all canaries together, by windows.

use std::time::Duration;

use super::account::Account;
use crate::analysis::{Arms, Counter, OUTAGE_WINDOW, Tally};

/// The open window.
#[derive(Debug)]
pub(super) struct OutageWindows {
    opened: Duration,
    before: Arms<Counter>,
}

impl OutageWindows {
    pub(super) fn new(accounts: &[Account], baseline: u16, now: Duration) -> Self {
        Self { opened: now, before: read(accounts, baseline) }
    }

    /// Closes the window if it is over, and returns its counts.
    pub(super) fn poll(
        &mut self,
        accounts: &[Account],
        baseline: u16,
        now: Duration,
    ) -> Option<Arms<Tally>> {
        if now.saturating_sub(self.opened) < OUTAGE_WINDOW {
            return None;
        }
        self.opened = now;
        let counters = read(accounts, baseline);
        let before = std::mem::replace(&mut self.before, counters);
        Some(counters.since(before))
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
