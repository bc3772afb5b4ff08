//! Counters of versions, endpoints, series and amounts.

use super::cells::{Counter, Sum};
use crate::{
    analysis,
    policy::retry::{RetryReason, Withheld},
};

/// Why an upstream attempt failed; the `kind` label of `tidegate_upstream_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No connection.
    Connect,
    /// No response in time.
    Timeout,
    /// The connection broke.
    Reset,
    /// The response was not HTTP.
    Protocol,
    /// The response was a 5xx.
    Status,
}

impl ErrorKind {
    /// All kinds, in the order of [`EndpointCells::errors`].
    pub const ALL: [Self; 5] =
        [Self::Connect, Self::Timeout, Self::Reset, Self::Protocol, Self::Status];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Status => "status",
        }
    }
}

/// Why a version got a request of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Its player belongs to it, by the split or by a pin.
    Player,
    /// A rule or a route names the version, as for testers.
    Named,
}

impl Origin {
    /// All of them, in the order of [`VersionCells::ended`].
    pub const ALL: [Self; 2] = [Self::Player, Self::Named];
}

/// Counts of a version, by worker.
#[derive(Debug, Default)]
pub struct VersionCells {
    /// Requests assigned or rescued from another version, by class and [`Reads`](super::Reads).
    pub started: [Counter; 3],
    /// Of those, ended in any way.
    pub finished: [Counter; 3],
    /// Requests that were answered or left by their clients, by [`Origin`]; none of smoke checks, and none that was
    /// cut.
    pub ended: [Counter; 2],
    /// Of those, answered 5xx, by the version or in its place.
    pub errors: [Counter; 2],
    /// Repeated attempts, by [`RetryReason`].
    pub retries: [Counter; RetryReason::ALL.len()],
    /// Failed requests that were not repeated, by [`Withheld`].
    pub withheld: [Counter; Withheld::ALL.len()],
    /// Requests that it failed and the baseline answered instead.
    pub rescued: Counter,
    /// Requests that began to wait for a connection.
    pub pending: Counter,
    /// Of those, requests that do not wait any more.
    pub connected: Counter,
    /// Requests rejected by the circuit breaker because too many were in flight, or because too
    /// many waited.
    pub shed: [Counter; 2],
}

impl VersionCells {
    /// Requests in flight on this worker, asked by its own thread.
    pub fn in_flight(&self) -> u64 {
        let of = |counts: &[Counter; 3]| {
            counts.iter().fold(0, |sum: u64, counter| sum.wrapping_add(counter.read()))
        };
        of(&self.started).wrapping_sub(of(&self.finished))
    }
}

/// Counts of an endpoint, by worker.
#[derive(Debug, Default)]
pub struct EndpointCells {
    /// Attempts begun.
    pub started: Counter,
    /// Of those, ended in any way.
    pub finished: Counter,
    /// Failures by [`ErrorKind`].
    pub errors: [Counter; 5],
    /// New connections made.
    pub connected: Counter,
    /// Microseconds spent on making them, including TLS.
    pub connecting_us: Counter,
    /// First attempts that ended, of those that are compared.
    pub trials: Counter,
    /// Of those, failed.
    pub failures: Counter,
    /// Responses that say that the endpoint has too much to do: 429, or 503 with `Retry-After`.
    pub overloaded: Counter,
    /// The latest time until which such a response asks to wait, in milliseconds since the process started.
    pub rests_until_ms: Counter,
}

impl EndpointCells {
    /// Attempts without a connection.
    pub fn connect_faults(&self) -> u64 {
        self.errors[ErrorKind::Connect as usize].read()
    }
}

/// First attempts at an endpoint by players who count, and failed ones among them. Only the
/// evaluator decides who counts, and writes.
#[derive(Debug, Default)]
pub struct Judged {
    trials: Counter,
    failures: Counter,
}

impl Judged {
    /// Adds what was counted. Called by the evaluator only.
    pub fn add(&self, counted: analysis::Counter) {
        self.trials.add(counted.trials);
        self.failures.add(counted.failures);
    }

    /// The counts so far.
    pub fn read(&self) -> analysis::Counter {
        // Failures are read first: otherwise they could exceed the trials.
        let failures = self.failures.read();
        analysis::Counter { trials: self.trials.read(), failures }
    }
}

/// Responses of a series by class: 1xx (never final), 2xx, 3xx, 4xx, 5xx; the sixth counts requests
/// whose client left before a response.
#[derive(Debug, Default)]
pub struct SeriesCells {
    /// Counts by class of the status.
    pub classes: [Counter; 6],
}

/// An amount in all responses of a version, by worker.
#[derive(Debug, Default)]
pub struct AmountCells {
    /// Responses with this amount, or, for a derived amount, with any of its terms.
    pub count: Counter,
    /// The sum of the amounts.
    pub sum: Sum,
    /// Responses in which it was malformed.
    pub malformed: Counter,
}
