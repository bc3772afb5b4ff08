//! Whether idempotency keys can be written, as the thread that writes them tells it to the control plane.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

/// Why idempotency keys cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTrouble {
    /// The time of the first failure.
    pub since: SystemTime,
    /// The last failure.
    pub reason: String,
}

/// Whether idempotency keys can be written.
#[derive(Debug, Default)]
pub struct KeyHealth {
    trouble: Mutex<Option<KeyTrouble>>,
    /// Databases that were found removed or replaced, and whose keys were written to the one at their place.
    carried_over: AtomicU64,
}

impl KeyHealth {
    /// The trouble, if keys cannot be written at present.
    pub fn trouble(&self) -> Option<KeyTrouble> {
        self.lock().clone()
    }

    /// How often the database was found removed or replaced, and its keys were written to the one at its place.
    pub fn carried_over(&self) -> u64 {
        self.carried_over.load(Relaxed)
    }

    /// Notes a failure at `now`.
    pub fn failed(&self, reason: String, now: SystemTime) {
        let mut trouble = self.lock();
        let since = trouble.as_ref().map_or(now, |trouble| trouble.since);
        *trouble = Some(KeyTrouble { since, reason });
    }

    /// Notes that keys are written.
    pub fn works(&self) {
        *self.lock() = None;
    }

    /// Notes that the database had been removed or replaced, and that no key was lost.
    pub fn note_carried_over(&self) {
        self.carried_over.fetch_add(1, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<KeyTrouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn trouble_lasts_from_the_first_failure_until_keys_are_written() {
        let (health, at) = (KeyHealth::default(), |s| UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(health.trouble(), None);
        health.failed("full".to_owned(), at(1));
        health.failed("gone".to_owned(), at(2));
        assert_eq!(health.trouble(), Some(KeyTrouble { since: at(1), reason: "gone".to_owned() }));
        health.works();
        assert_eq!(health.trouble(), None);
    }
}
