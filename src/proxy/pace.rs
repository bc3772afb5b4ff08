//! How slowly a body may go: everything ends, also what never stands still.
//!
//! A limit of the time without a byte alone lets a peer that sends one byte a minute hold a request, its
//! connection to the endpoint and its place for ever. So a body has [`GRACE`] times as long in all, and a
//! second more for every `rate` bytes of it that came: it ends unless it keeps that rate on the average.
//! What belongs to the framing (chunk sizes, extensions, trailers) is no byte of the body. Streams, such as
//! events and calls of gRPC, go on for as long as they like.

use tokio::time::{Duration, Instant};

use crate::snapshot::BodyLimits;

/// How often the longest time without a byte fits into the time in which no rate is asked.
const GRACE: u32 = 4;

/// When a body that began at `began`, of which `moved` bytes came, has been too slow; nothing if it may go as
/// slowly as it likes.
pub(super) fn due(limits: BodyLimits, began: Instant, moved: u64) -> Option<Instant> {
    // No rate is no bound.
    let millis = moved.saturating_mul(1000).checked_div(limits.rate)?;
    began.checked_add(limits.timeout.saturating_mul(GRACE) + Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_some_time_and_more_the_more_came() {
        let (began, timeout) = (Instant::now(), Duration::from_secs(60));
        let after = |rate, moved| Some(due(BodyLimits { timeout, rate }, began, moved)? - began);
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(after(256, 0), seconds(240));
        assert_eq!(after(256, 255), Some(Duration::from_millis(240_996)));
        assert_eq!(after(256, 256_000), seconds(1240));
        assert_eq!(after(0, 0), None);
        assert!(after(1, u64::MAX).is_some(), "no overflow");
        // Whoever sends a byte a minute ends; whoever keeps the rate does not.
        let ends = |bytes_per_minute: u64| {
            (1..10_000).find(|minute| {
                let due = after(256, minute * bytes_per_minute).expect("bounded");
                due < Duration::from_secs(60 * minute)
            })
        };
        assert_eq!(ends(1), Some(5));
        assert_eq!(ends(256 * 60), None);
    }
}
