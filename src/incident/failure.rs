//! How requests to a version failed: failed attempts by their kind, as `tidegate_upstream_errors_total` counts them.
//!
//! An attempt that fails is counted also if another one of the same request succeeds, and an answer that Tidegate
//! gives without an endpoint, as when too many requests wait, is no attempt. So their sum is near the number of
//! failed requests, and need not be the same.

use serde::{Deserialize, Serialize};

use super::text::count;
use crate::registry::ErrorKind;

/// Failed attempts by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FailureKinds {
    /// Answered with a status of 500 or above.
    pub status: u64,
    /// Without an answer in time.
    pub timeout: u64,
    /// Without a connection.
    pub connect: u64,
    /// The connection broke.
    pub reset: u64,
    /// The answer was not HTTP.
    pub protocol: u64,
}

/// Failed attempts of one second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FailedSecond {
    /// Beginning of the second, in seconds since the incident.
    pub from_s: f64,
    /// What failed in it.
    #[serde(flatten)]
    pub kinds: FailureKinds,
}

impl FailureKinds {
    /// Of counts in the order of [`ErrorKind::ALL`].
    pub fn of(counts: [u32; ErrorKind::ALL.len()]) -> Self {
        let of = |kind: ErrorKind| u64::from(counts[kind as usize]);
        Self {
            status: of(ErrorKind::Status),
            timeout: of(ErrorKind::Timeout),
            connect: of(ErrorKind::Connect),
            reset: of(ErrorKind::Reset),
            protocol: of(ErrorKind::Protocol),
        }
    }

    /// Each kind in words, with its count.
    pub fn each(&self) -> [(&'static str, u64); ErrorKind::ALL.len()] {
        [
            ("answered 5xx", self.status),
            ("timed out", self.timeout),
            ("not connected", self.connect),
            ("connection broke", self.reset),
            ("not HTTP", self.protocol),
        ]
    }

    /// Those that occurred: `12 answered 5xx, 3 timed out`; `none` without any.
    pub fn in_words(&self) -> String {
        let some = self.each().into_iter().filter(|(_, failed)| *failed > 0);
        let some: Vec<_> = some.map(|(kind, failed)| format!("{} {kind}", count(failed))).collect();
        if some.is_empty() { "none".to_owned() } else { some.join(", ") }
    }

    /// Together with `more`.
    pub(super) fn and(self, more: Self) -> Self {
        Self {
            status: self.status + more.status,
            timeout: self.timeout + more.timeout,
            connect: self.connect + more.connect,
            reset: self.reset + more.reset,
            protocol: self.protocol + more.protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_names_and_those_without_a_failure_are_not_told() {
        let mut counts = [0; ErrorKind::ALL.len()];
        assert_eq!(FailureKinds::of(counts).in_words(), "none");
        for (nth, kind) in ErrorKind::ALL.into_iter().enumerate() {
            counts[kind as usize] = 1_000 * (nth as u32 + 1);
        }
        assert_eq!(
            FailureKinds::of(counts).in_words(),
            "5,000 answered 5xx, 2,000 timed out, 1,000 not connected, 3,000 connection broke, 4,000 not HTTP"
        );
        let names: Vec<_> = ErrorKind::ALL.map(ErrorKind::label).into();
        let second = FailedSecond { from_s: -1.5, kinds: FailureKinds::of(counts) };
        let json = serde_json::to_value(second).expect("JSON");
        assert!(names.iter().all(|name| json[name].is_u64()), "{json}");
        assert_eq!(serde_json::from_value::<FailedSecond>(json).expect("the same"), second);
    }
}
