//! Times as text, whatever a clock says: `humantime` panics before 1970 and after 9999.

use std::time::{Duration, SystemTime};

use humantime::Rfc3339Timestamp;

/// `at` to the second, in UTC as RFC 3339 has it; before 1970 it is 1970, and after 9999 the end of that.
pub fn seconds(at: SystemTime) -> Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(within(at))
}

/// The same to the millisecond, always 24 characters.
pub fn millis(at: SystemTime) -> Rfc3339Timestamp {
    humantime::format_rfc3339_millis(within(at))
}

fn within(at: SystemTime) -> SystemTime {
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    at.clamp(SystemTime::UNIX_EPOCH, latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a clock before 1970 ended requests of the API with a panic.
    #[test]
    fn every_time_has_a_text() {
        let (second, far) = (Duration::from_secs(1), Duration::from_secs(1 << 40));
        for (at, text) in [
            (SystemTime::UNIX_EPOCH - second, "1970-01-01T00:00:00Z"),
            (SystemTime::UNIX_EPOCH + second, "1970-01-01T00:00:01Z"),
            (SystemTime::UNIX_EPOCH + far, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(seconds(at).to_string(), text);
            assert_eq!(millis(at).to_string(), text.replace('Z', ".000Z"));
        }
    }
}
