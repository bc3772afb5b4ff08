//! What is counted of versions, endpoints, series and amounts.

use super::cells::{Counter, Sum};
use crate::analysis;

/// Why an upstream attempt failed; the `kind` label of `tidegate_upstream_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No connection.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Reset,
    /// The answer was not HTTP.
    Protocol,
    /// The answer was a 5xx.
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

/// Why an attempt was made again; the `reason` label of `tidegate_retries_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// The endpoint could not be connected, so nothing had been sent.
    Connect,
    /// A kept connection turned out to be closed before any byte of an answer.
    StaleConnection,
}

impl RetryReason {
    /// All reasons, in the order of [`VersionCells::retries`].
    pub const ALL: [Self; 2] = [Self::Connect, Self::StaleConnection];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::StaleConnection => "stale_connection",
        }
    }
}

/// Counts of a version, by worker.
#[derive(Debug, Default)]
pub struct VersionCells {
    /// Requests assigned, by [`Class`](crate::policy::class::Class).
    pub started: [Counter; 2],
    /// Of those, ended in any way.
    pub finished: [Counter; 2],
    /// Of those, answered 5xx, by the version or on its behalf.
    pub errors: Counter,
    /// Attempts made again, by [`RetryReason`].
    pub retries: [Counter; 2],
    /// Requests that began to wait for a connection.
    pub pending: Counter,
    /// Of those, that wait no more.
    pub connected: Counter,
    /// Requests answered by the circuit breaker: since too many were in flight, or waited.
    pub shed: [Counter; 2],
}

impl VersionCells {
    /// Requests in flight on this worker, asked by its own thread.
    pub fn in_flight(&self) -> u64 {
        let of = |counts: &[Counter; 2]| counts[0].read().wrapping_add(counts[1].read());
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
    /// Microseconds that it took to make them, TLS included.
    pub connecting_us: Counter,
    /// First attempts that ended, of those that are compared.
    pub trials: Counter,
    /// Of those, failed.
    pub failures: Counter,
}

impl EndpointCells {
    /// Attempts that got no connection.
    pub fn connect_faults(&self) -> u64 {
        self.errors[ErrorKind::Connect as usize].read()
    }
}

/// First attempts at an endpoint by players who count, and those of them that failed. The evaluator decides
/// who counts, and alone writes.
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
        // Failures first: read the other way around, there could be one more than trials.
        let failures = self.failures.read();
        analysis::Counter { trials: self.trials.read(), failures }
    }
}

/// Answers of a series by class: 1xx (never final), 2xx, 3xx, 4xx, 5xx; the sixth counts requests whose
/// client left before an answer.
#[derive(Debug, Default)]
pub struct SeriesCells {
    /// Counts by class of the status.
    pub classes: [Counter; 6],
}

/// An amount of a version, by worker: that of all its answers.
#[derive(Debug, Default)]
pub struct AmountCells {
    /// Answers that carried it; of a derived one, any of those that it is made of.
    pub count: Counter,
    /// What they carried.
    pub sum: Sum,
    /// Answers in which it could not be read.
    pub malformed: Counter,
}
