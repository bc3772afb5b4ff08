//! The date in HTTP's format (RFC 9110 section 5.6.7).

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

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
            let date = SystemTime::now();
            let into = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.text = httpdate::fmt_http_date(date);
            self.until =
                now + Duration::from_secs(1) - Duration::from_nanos(into.subsec_nanos().into());
        }
    }
}
