//! Requests of a route that were refused before a version got them, by what refused them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::policy::refusal::Refusal;

/// Refused requests of a route. Shared by the workers, since few requests are refused, and those cheaply.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; Refusal::ALL.len()]);

impl RefusalCounts {
    /// Counts a request that was refused for that.
    pub fn note(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Relaxed);
    }

    /// Refused requests since the process started, by what refused them.
    pub fn all(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().map(|refusal| (refusal, self.0[refusal as usize].load(Relaxed)))
    }
}
