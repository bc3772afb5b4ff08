//! The health of the journal, which can be read at any time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::Semaphore;

use super::{chain::Head, late::LateQueue};

/// Most changes that wait to be written and answered.
pub const MOST_WAITING: usize = 256;

/// Health of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The failure, if changes cannot be written at present.
    pub failing: Option<Failing>,
    /// Number of changes that wait to be written and answered.
    pub waiting: usize,
    /// Number of changes in force that are not written yet.
    pub late: usize,
    /// Number of such changes since the start that were merged into others because too many waited.
    pub merged: u64,
    /// Number of such changes since the start that have no entry, because too many waited.
    pub lost: u64,
    /// Whether the reserve for ejections is on the disk.
    pub has_reserve: bool,
    /// The last entry.
    pub head: Head,
    /// Number of commits since the start; several changes may share one.
    pub commits: u64,
}

/// A failure to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// The time of the first failure.
    pub since: SystemTime,
    /// The last failure.
    pub reason: String,
}

/// What the journal's handle and its writer share.
#[derive(Debug)]
pub(super) struct Shared {
    late: Mutex<LateQueue>,
    written: Mutex<Written>,
    /// A permit is held by each change that waits.
    pub(super) permits: Arc<Semaphore>,
    /// Most pages of the database, so that tests can fill the disk; 0 if there is no limit.
    #[cfg(test)]
    pub(super) max_pages: std::sync::atomic::AtomicU32,
    /// What tests let commits end in.
    #[cfg(test)]
    pub(super) ending: Mutex<Ending>,
}

/// How commits end in a test.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Ending {
    /// As the disk has it.
    #[default]
    Real,
    /// They are made, and seem to have failed.
    SeemsFailed,
    /// The same, and the database cannot be opened again.
    Unknown,
    /// They are not made, and the database cannot be opened again.
    Gone,
}

#[derive(Debug)]
struct Written {
    head: Head,
    commits: u64,
    failing: Option<Failing>,
    has_reserve: bool,
}

impl Shared {
    pub(super) fn new(head: Head) -> Self {
        Self {
            late: Mutex::default(),
            written: Mutex::new(Written { head, commits: 0, failing: None, has_reserve: false }),
            permits: Arc::new(Semaphore::new(MOST_WAITING)),
            #[cfg(test)]
            max_pages: Default::default(),
            #[cfg(test)]
            ending: Mutex::default(),
        }
    }

    pub(super) fn late(&self) -> MutexGuard<'_, LateQueue> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a commit whose last entry is `head`.
    pub(super) fn reached(&self, head: Head) {
        let mut written = self.written();
        written.head = head;
        written.commits += 1;
    }

    /// Records that writing works.
    pub(super) fn works(&self) {
        if let Some(failed) = self.written().failing.take() {
            tracing::info!(reason = failed.reason, "the journal can be written again");
        }
    }

    /// Records a failed write.
    pub(super) fn fails(&self, reason: String) {
        let mut written = self.written();
        match &mut written.failing {
            Some(failing) => failing.reason = reason,
            None => {
                tracing::error!(reason, "the journal cannot be written: changes are refused");
                written.failing = Some(Failing { since: SystemTime::now(), reason });
            }
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.written().failing.is_some()
    }

    pub(super) fn set_reserve(&self, has_reserve: bool) {
        self.written().has_reserve = has_reserve;
    }

    #[cfg(test)]
    pub(super) fn ending(&self) -> Ending {
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> Health {
        let late = self.late();
        let (late, merged, lost) = (late.len(), late.merged(), late.lost());
        let Written { head, commits, failing, has_reserve } = &*self.written();
        Health {
            failing: failing.clone(),
            waiting: MOST_WAITING - self.permits.available_permits().min(MOST_WAITING),
            late,
            merged,
            lost,
            has_reserve: *has_reserve,
            head: *head,
            commits: *commits,
        }
    }
}
