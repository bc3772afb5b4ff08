//! Decides when to check whether an endpoint that does not respond is alive.
//!
//! A socket does not show that a process hangs, or that a machine is gone. When a client leaves an
//! unanswered request, or requests wait for long, the endpoint gets a PING (RFC 9113 section 6.7),
//! which a live endpoint answers at once. Few are sent: gRPC servers end a connection at the third
//! PING within five minutes in which they sent no response (grpc/grpc `doc/keepalive.md`).

use tokio::time::{Duration, Instant};

/// If the endpoint does not answer a PING within this time, it gets no further request on the
/// connection.
pub(super) const PONG: Duration = Duration::from_secs(2);

/// A PING is sent when requests wait for this long while no other is answered.
const LONG: Duration = Duration::from_secs(3);

/// PINGs between two responses. The last of them is reserved for clients that leave.
const PINGS: u8 = 2;

/// Time after which another PING may be sent.
const RENEWAL: Duration = Duration::from_secs(6 * 60);

/// The silence of an endpoint on one connection.
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

    /// No request is open, so the silence means nothing.
    pub(super) fn rest(&mut self, now: Instant) {
        self.since = now;
    }

    /// Whether to send a PING because requests wait for long. Counts it as sent.
    pub(super) fn asks_for_long(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= LONG && self.pings == PINGS && self.ask(now)
    }

    /// Whether to send a PING because a client left an unanswered request. Counts it as sent.
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
