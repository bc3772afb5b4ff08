//! Whether an endpoint that does not answer is still there.
//!
//! A socket says nothing of a process that hangs, or of a machine that is gone. When a client leaves an
//! unanswered request, or requests wait for long, the endpoint is asked by a PING (RFC 9113 section 6.7),
//! which any that is there answers at once. Few are sent: servers of gRPC end a connection for the third
//! PING within five minutes in which they sent no answer (grpc/grpc `doc/keepalive.md`).

use tokio::time::{Duration, Instant};

/// An endpoint that answers no PING in this time gets no further request on the connection.
pub(super) const PONG: Duration = Duration::from_secs(2);

/// Requests that wait for this long while no other is answered are a reason to ask.
const LONG: Duration = Duration::from_secs(3);

/// PINGs between two answers. The last of them is for clients that leave.
const PINGS: u8 = 2;

/// Time after which one more may be sent.
const RENEWAL: Duration = Duration::from_secs(6 * 60);

/// What is known of an endpoint's silence on one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    since: Instant,
    pings: u8,
    pinged: Option<Instant>,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, pings: PINGS, pinged: None }
    }

    /// The endpoint answered a request.
    pub(super) fn end(&mut self, now: Instant) {
        (self.since, self.pings) = (now, PINGS);
    }

    /// Nothing is asked, so nothing is waited for.
    pub(super) fn rest(&mut self, now: Instant) {
        self.since = now;
    }

    /// Whether to send a PING since requests wait for long. Counts it as sent.
    pub(super) fn asks_for_long(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= LONG && self.pings == PINGS && self.ask(now)
    }

    /// Whether to send a PING since a client left an unanswered request. Counts it as sent.
    pub(super) fn asks_for_leaving(&mut self, now: Instant) -> bool {
        self.ask(now)
    }

    fn ask(&mut self, now: Instant) -> bool {
        if self.pings == 0
            && self.pinged.is_some_and(|at| now.saturating_duration_since(at) >= RENEWAL)
        {
            self.pings = 1;
        }
        if self.pings == 0 {
            return false;
        }
        self.pings -= 1;
        self.pinged = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_asked_at_most_twice_between_two_answers() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::new(start);
        assert!(!silence.asks_for_long(at(2)), "not for long");
        assert!(silence.asks_for_long(at(3)));
        assert!(!silence.asks_for_long(at(60)), "one is left for clients that leave");
        assert!(silence.asks_for_leaving(at(61)));
        assert!(!silence.asks_for_leaving(at(62)) && !silence.asks_for_long(at(63)));
        assert!(silence.asks_for_leaving(at(61 + 360)), "after a while one more");
        assert!(!silence.asks_for_leaving(at(61 + 361)));
        silence.end(at(500));
        assert!(!silence.asks_for_long(at(502)));
        silence.rest(at(510));
        assert!(!silence.asks_for_long(at(512)), "nothing was asked meanwhile");
        assert!(silence.asks_for_long(at(513)) && silence.asks_for_leaving(at(513)));
    }
}
