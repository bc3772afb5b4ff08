//! Answers by which an endpoint says that it has too much to do: 429, or 503 with `Retry-After` (RFC 6585 section 4, RFC
//! 9110 section 15.6.4).

use std::time::Duration;

use tokio::time::Instant;

use super::{head_text, target::Target, worker::Worker};
use crate::policy::retry::RetryAfter;

/// What the head of a response says of when to come back.
pub(super) fn retry_after(response: &[u8]) -> RetryAfter {
    let Some(value) = head_text::field(response, "Retry-After") else { return RetryAfter::Unsaid };
    match std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok()) {
        Some(seconds) => RetryAfter::In(Duration::from_secs(seconds)),
        None => RetryAfter::Unread,
    }
}

/// Notes for the endpoint if the response with this `status` and `head`, which has arrived `now`, says that
/// it has too much to do. Returns whether it does.
#[cold]
pub(super) fn note(
    worker: &Worker,
    target: Target<'_>,
    (status, head): (u16, &[u8]),
    now: Instant,
) -> bool {
    let rest = match (status, retry_after(head)) {
        (429, rest) | (503, rest @ (RetryAfter::In(_) | RetryAfter::Unread)) => rest,
        _ => return false,
    };
    let cells = target.endpoint().cells.of(worker.id);
    if let RetryAfter::In(rest) = rest {
        let until = worker.since_start(now).saturating_add(rest).as_millis();
        cells.rests_until_ms.raise(until.try_into().unwrap_or(u64::MAX));
    }
    // Last, so that who reads the count finds the time.
    cells.overloaded.add(1);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_and_dates_are_not() {
        let said = |value: &str| {
            retry_after(format!("HTTP/1.1 503 x\r\nRetry-After: {value}\r\n\r\n").as_bytes())
        };
        assert_eq!(said("7"), RetryAfter::In(Duration::from_secs(7)));
        assert_eq!(said("0"), RetryAfter::In(Duration::ZERO));
        assert_eq!(said("Fri, 31 Dec 1999 23:59:59 GMT"), RetryAfter::Unread);
        assert_eq!(said("-1"), RetryAfter::Unread);
        assert_eq!(retry_after(b"HTTP/1.1 503 x\r\n\r\nRetry-After: 1"), RetryAfter::Unsaid);
    }
}
