//! Blocks of versions that serve without a baseline.

use std::{sync::Arc, time::Duration};

use super::{
    super::blocks::{ALONE_FOR, VersionBlocks},
    account::Account,
};
use crate::analysis::{Counter, Entry, Latencies, Latest, Span};

/// Length of a block. Findings here trigger no action, so it can be long.
const LENGTH: Duration = Duration::from_secs(1);

/// A version that serves alone.
#[derive(Debug)]
pub(super) struct AloneCollector {
    pub(super) number: u16,
    pub(super) version: Arc<str>,
    /// By stratum; `None` where the version is not judged.
    seen: Vec<Option<Seen>>,
    began: Duration,
    closed: Duration,
}

/// The counts at the start of the open block.
#[derive(Debug)]
struct Seen {
    counter: Counter,
    latencies: Box<Latest>,
}

impl Seen {
    fn new(account: &Account, version: u16) -> Self {
        let arm = &account.all.arms[usize::from(version)];
        Self { counter: arm.requests, latencies: arm.latencies(Span::Head) }
    }

    /// Closes the open block and begins the next one.
    fn close(&mut self, account: &Account, version: u16, now: Duration) -> Entry {
        let before = std::mem::replace(self, Self::new(account, version));
        let errors = self.counter.since(before.counter);
        let latencies = Latencies::between(&before.latencies, &self.latencies);
        Entry::Alone { at: now, errors, latencies: (&latencies).into() }
    }
}

impl AloneCollector {
    /// Begins at `now` to collect data of version number `number`, on the requests of the strata on which it is
    /// `judged`.
    pub(super) fn new(
        (number, version): (u16, Arc<str>),
        accounts: &[Account],
        judged: &[bool],
        now: Duration,
    ) -> Self {
        let seen = accounts.iter().zip(judged);
        let seen = seen.map(|(account, judged)| judged.then(|| Seen::new(account, number)));
        Self { number, version, seen: seen.collect(), began: now, closed: now }
    }

    /// The blocks, if they close now.
    pub(super) fn poll(
        &mut self,
        accounts: &[Account],
        now: Duration,
    ) -> Option<VersionBlocks<Entry>> {
        let is_open = now.saturating_sub(self.began) < ALONE_FOR;
        let is_judged = self.seen.iter().any(Option::is_some);
        if !is_open || !is_judged || now.saturating_sub(self.closed) < LENGTH {
            return None;
        }
        self.closed = now;
        let number = self.number;
        let both = self.seen.iter_mut().zip(accounts);
        let strata = both.map(|(seen, account)| {
            seen.iter_mut().map(|seen| seen.close(account, number, now)).collect()
        });
        Some(VersionBlocks { version: Arc::clone(&self.version), strata: strata.collect() })
    }
}
