//! The least rate of a body, so that even a body that never stops completely ends.
//!
//! If only the time without a byte were limited, a peer that sends one byte a minute could hold a
//! request, its connection to the endpoint and its slot for ever. So a body has [`GRACE`] times
//! that limit in total, and another second for every `rate` bytes that arrive: it is ended unless
//! it keeps that rate on average. Bytes of the framing (chunk sizes, extensions, trailers) do not
//! count. Streams, such as events and gRPC calls, have no such limit.
//!
//! An upload that has a place among the requests in flight has to be faster while others want the place.

use tokio::time::{Duration, Instant};

use crate::snapshot::BodyLimits;

/// The time in which no rate is required, in multiples of the longest time without a byte.
const GRACE: u32 = 4;

/// When a body that began at `began` and has `moved` bytes so far becomes too slow; `None` if no
/// rate is required.
pub(super) fn due(limits: BodyLimits, began: Instant, moved: u64) -> Option<Instant> {
    // A rate of 0 is no limit.
    let millis = moved.saturating_mul(1000).checked_div(limits.rate)?;
    began.checked_add(limits.timeout.saturating_mul(GRACE) + Duration::from_millis(millis))
}

/// While others want the place of an upload, it has to bring bytes in every such span.
pub(super) const SPAN: Duration = Duration::from_secs(5);

/// What it has to bring, in bytes per second.
const WANTED_RATE: u64 = 8 << 10;

/// Whether an upload that has brought `came` bytes in `span` keeps its place from others.
pub(super) fn is_too_slow(came: u64, span: Duration) -> bool {
    u128::from(came) * 1000 < u128::from(WANTED_RATE) * span.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_keeps_its_place_at_8_kib_a_second() {
        assert!(is_too_slow(0, SPAN) && is_too_slow((40 << 10) - 1, SPAN));
        assert!(!is_too_slow(40 << 10, SPAN) && !is_too_slow(u64::MAX, SPAN));
        assert!(is_too_slow(2457, Duration::from_millis(300)));
        assert!(!is_too_slow(2458, Duration::from_millis(300)));
    }

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
        // A body of one byte a minute is ended; one that keeps the rate is not.
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
