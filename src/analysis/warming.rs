//! How long a version warms up: its latency and its amounts are not judged until then. And how long its latency has
//! to be compared after that before the version can be called healthy: errors may be certain sooner, and a version
//! whose latency was never looked at is not healthy.

use std::{fmt, time::Duration};

/// Requests that a version needs to be warm, unless that takes very long.
const REQUESTS: u64 = 100;

/// Requests whose latency has to be compared. A version that is slow so often that it is to be failed has evidence
/// against it by then (`gate/tests.rs`).
const COMPARED: u64 = 500;

/// After this multiple of the warm-up time a version is warm in any case.
const AT_LAST: u32 = 10;

/// What is left of a warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warming {
    /// Time.
    Time(Duration),
    /// Requests: those that the version had, of those that it needs.
    Requests {
        /// So many it had.
        had: u64,
        /// So many it needs.
        of: u64,
    },
    /// It is warm. Requests whose latency was compared, of those that have to be.
    Compared {
        /// Of so many it was.
        had: u64,
        /// Of so many it has to be.
        of: u64,
    },
}

impl Warming {
    /// What is left after `age` and `requests` of a warm-up that takes `length`; `None` if it is over.
    pub(super) fn left(age: Duration, requests: u64, length: Duration) -> Option<Self> {
        match length.checked_sub(age).filter(|left| !left.is_zero()) {
            Some(left) => Some(Self::Time(left)),
            None if requests < REQUESTS && age < length * AT_LAST => {
                Some(Self::Requests { had: requests, of: REQUESTS })
            }
            None => None,
        }
    }

    /// What is left of the comparison of latencies at `age`, after those of `compared` requests; `None` if it is over.
    pub(super) fn compared(age: Duration, compared: u64, length: Duration) -> Option<Self> {
        let is_due = compared < COMPARED && age < length * AT_LAST;
        is_due.then_some(Self::Compared { had: compared, of: COMPARED })
    }
}

impl fmt::Display for Warming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Rounded up: it is not over before.
            Self::Time(left) => write!(f, "warming up, {:.0} s left", left.as_secs_f64().ceil()),
            Self::Requests { had, of } => write!(f, "warming up, {had} of {of} requests"),
            Self::Compared { had, of } => {
                write!(f, "latency was compared on {had} of {of} requests")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_takes_time_and_requests_but_not_for_ever() {
        let s = Duration::from_secs;
        let left = |age, requests| {
            let left = Warming::left(s(age), requests, s(30));
            left.map(|left| left.to_string())
        };
        assert_eq!(left(0, 900).as_deref(), Some("warming up, 30 s left"));
        assert_eq!(left(29, 0).as_deref(), Some("warming up, 1 s left"));
        assert_eq!(left(30, 99).as_deref(), Some("warming up, 99 of 100 requests"));
        assert_eq!((left(30, 100), left(300, 0)), (None, None));
        assert_eq!(Warming::left(s(0), 0, s(0)), None, "none is asked for");
        let compared = Warming::compared(s(31), 12, s(30)).expect("some");
        assert_eq!(compared.to_string(), "latency was compared on 12 of 500 requests");
        assert_eq!(Warming::compared(s(31), 500, s(30)), None);
        assert_eq!(
            Warming::compared(s(300), 12, s(30)),
            None,
            "few requests do not hold it for ever"
        );
        let left = Warming::left(Duration::from_millis(29_900), 0, s(30)).expect("some");
        assert_eq!(left.to_string(), "warming up, 1 s left");
    }
}
