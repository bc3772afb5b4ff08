//! A limit on the rate of requests: the generic cell rate algorithm (GCRA, ITU-T I.371 annex A), by which one number
//! per key is enough.
//!
//! That number is when the requests so far would be spent if they had come evenly, the *due time*: each request
//! moves it on by one interval. A request is admitted while the due time is at most `burst` intervals ahead. So in any
//! span of time `t` at most `burst + t / interval` requests are admitted, exactly, and nothing is counted in windows
//! that begin anew.

use std::time::Duration;

/// The terms of a limit. Times are in nanoseconds of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Time that one request takes up.
    interval_ns: u64,
    /// Requests that may come at once.
    burst: u32,
}

/// What a limit says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Whether it is admitted.
    pub admitted: bool,
    /// Requests that would be admitted at once after it.
    pub remaining: u32,
    /// Time until all of the burst is there again.
    pub reset: Duration,
    /// Time until a request is admitted; zero unless it was refused.
    pub retry_after: Duration,
}

impl Rate {
    /// `requests` per `per`, and `burst` at once; each at least 1. A rate of more than one request per nanosecond
    /// counts as that.
    pub fn new(requests: u32, per: Duration, burst: u32) -> Self {
        let interval_ns = per.as_nanos() / u128::from(requests.max(1));
        let interval_ns = u64::try_from(interval_ns).unwrap_or(u64::MAX).max(1);
        Self { interval_ns, burst: burst.max(1) }
    }

    /// Takes one request `now` from a key with the due time `due`, which is 0 for one that has sent none. Returns the
    /// new due time; it is the old one if the request is refused.
    pub fn take(&self, due: u64, now: u64) -> (u64, Said) {
        let most = self.interval_ns.saturating_mul(self.burst.into());
        let taken = due.max(now).saturating_add(self.interval_ns);
        let ahead = taken - now;
        let admitted = ahead <= most;
        let (due, ahead) = match admitted {
            true => (taken, ahead),
            false => (due, due.saturating_sub(now)),
        };
        let remaining = most.saturating_sub(ahead) / self.interval_ns;
        let wait = if admitted { 0 } else { taken - now - most };
        let said = Said {
            admitted,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset: Duration::from_nanos(ahead),
            retry_after: Duration::from_nanos(wait),
        };
        (due, said)
    }

    /// The due time of a key after one of its requests is given back, since another limit refused it.
    pub fn give_back(&self, due: u64) -> u64 {
        due.saturating_sub(self.interval_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_at_once_and_then_one_request_per_interval() {
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        let start = 5 * SECOND;
        let mut due = 0;
        for remaining in [2, 1, 0] {
            let (next, said) = rate.take(due, start);
            assert_eq!((said.admitted, said.remaining), (true, remaining));
            due = next;
        }
        let (same, said) = rate.take(due, start);
        assert_eq!((same, said.admitted, said.remaining), (due, false, 0));
        assert_eq!(said.retry_after, Duration::from_millis(100));
        assert_eq!(said.reset, Duration::from_millis(300));
        let later = start + said.retry_after.as_nanos() as u64;
        assert!(!rate.take(due, later - 1).1.admitted, "a nanosecond too early");
        assert!(rate.take(due, later).1.admitted);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let rate = Rate::new(1, Duration::from_secs(60), 1);
        let (due, _) = rate.take(0, SECOND);
        assert!(!rate.take(due, SECOND).1.admitted);
        assert!(rate.take(rate.give_back(due), SECOND).1.admitted);
    }

    #[test]
    fn the_largest_and_the_smallest_terms_do_not_overflow() {
        for (requests, per, burst) in [
            (u32::MAX, Duration::from_nanos(1), u32::MAX),
            (1, Duration::MAX, u32::MAX),
            (0, Duration::ZERO, 0),
        ] {
            let rate = Rate::new(requests, per, burst);
            let (due, said) = rate.take(u64::MAX, u64::MAX);
            assert!(due >= u64::MAX - 1, "{said:?}");
            let first = rate.take(0, 0).1;
            assert!(first.admitted, "the first request of a key is always admitted");
        }
    }

    proptest! {
        /// In any span at most the burst and what the rate gives in that time; and whoever asks all the time gets
        /// as many, but for one.
        #[test]
        fn in_every_span_at_most_the_burst_and_the_rate(
            requests in 1u32..500,
            burst in 1u32..50,
            pauses in prop::collection::vec(0u64..20_000_000, 1..400),
        ) {
            let rate = Rate::new(requests, Duration::from_secs(1), burst);
            let interval = SECOND / u64::from(requests);
            let (mut now, mut due) = (SECOND, 0);
            let mut admitted = Vec::new();
            for pause in pauses {
                now += pause;
                let (next, said) = rate.take(due, now);
                due = next;
                if said.admitted {
                    admitted.push(now);
                }
            }
            for (first, from) in admitted.iter().enumerate() {
                for (last, to) in admitted.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u64;
                    prop_assert!(count <= u64::from(burst) + (to - from) / interval);
                }
            }
        }
    }
}
