//! Times in the unit of samples.

use tokio::time::Instant;

use crate::telemetry::collector::Sample;

/// Microseconds from `began` to `ended`, at most one below [`Sample::NONE`].
pub(super) fn micros(began: Instant, ended: Instant) -> u32 {
    u32::try_from(ended.saturating_duration_since(began).as_micros())
        .unwrap_or(Sample::NONE - 1)
        .min(Sample::NONE - 1)
}
