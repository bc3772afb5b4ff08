//! How many attempts of a request were made, and until when they may be made.

use tokio::time::Instant;

use crate::snapshot::RetryPlan;

/// The attempts of one request that may be repeated.
pub(super) struct Attempts {
    /// The deadline of all of them.
    pub(super) ends: Instant,
    pub(super) made: u32,
    /// The baseline was asked instead of the canary.
    pub(super) is_rescued: bool,
    /// An endpoint may have processed the request.
    was_sent: bool,
}

impl Attempts {
    /// The first attempt of several that end by `ends`.
    pub(super) fn first(ends: Instant) -> Self {
        Self { ends, made: 1, is_rescued: false, was_sent: false }
    }

    /// Notes whether an endpoint may have processed the request in the last attempt, `unprocessed` if not. Returns
    /// whether none can have in any attempt.
    pub(super) fn note(&mut self, unprocessed: bool) -> bool {
        self.was_sent |= !unprocessed;
        !self.was_sent
    }

    /// When the response to the attempt that began at `began` is due.
    pub(super) fn due(&self, retry: &RetryPlan, began: Instant) -> Instant {
        retry.attempt_timeout.map_or(self.ends, |of_one| self.ends.min(began + of_one))
    }
}
