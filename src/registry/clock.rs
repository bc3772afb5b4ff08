//! Seconds since 1970, by a clock that is read once and is monotonic from there: a clock that is set ends nothing.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Seconds since 1970 at a moment; monotonic from there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(u32, Instant);

impl Clock {
    pub(super) fn start() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self(u32::try_from(now).unwrap_or(u32::MAX), Instant::now())
    }

    pub(super) fn now(self) -> u32 {
        let Self(base, since) = self;
        base.saturating_add(u32::try_from(since.elapsed().as_secs()).unwrap_or(u32::MAX))
    }
}
