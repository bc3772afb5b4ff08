//! The date in HTTP's format (RFC 9110 section 5.6.7).

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The last second that the format can express.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// The HTTP date, formatted at most once a second.
pub(super) struct Date {
    pub(super) text: String,
    until: Instant,
}

impl Date {
    pub(super) fn new() -> Self {
        Self { text: String::new(), until: Instant::now() }
    }

    pub(super) fn renew(&mut self, now: Instant) {
        if now >= self.until {
            let into = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            // The crate panics before 1970 and after 9999, where only a wrong clock can be.
            let shown = into.min(LAST);
            self.text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + shown);
            self.until =
                now + Duration::from_secs(1) - Duration::from_nanos(into.subsec_nanos().into());
        }
    }
}
