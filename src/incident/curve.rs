//! Rates and latency of a version around an incident.

use serde::{Deserialize, Serialize};

use super::failure::{FailedSecond, FailureKinds};

/// The part of a version in an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is about this version.
    Subject,
    /// The version that others are compared with.
    Baseline,
    /// Any other.
    Other,
}

/// Rates and latency of a version around the incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionCurve {
    /// Its name.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// Requests and failures by second.
    pub rates: RateCurve,
    /// Quantiles of the time to the head of the response, for each five seconds with responses.
    pub latency: Vec<LatencyPoint>,
    /// Failed attempts by kind, of each second in which any failed.
    #[serde(default)]
    pub failed_attempts: Vec<FailedSecond>,
}

impl VersionCurve {
    /// Failed attempts of the seconds that begin at `from_s` or later and before `until_s`, as [`RateCurve::sum`].
    pub fn failed_attempts(&self, from_s: f64, until_s: f64) -> FailureKinds {
        let seconds = self.failed_attempts.iter();
        let within = seconds.filter(|second| (from_s..until_s).contains(&second.from_s));
        within.fold(FailureKinds::default(), |sum, second| sum.and(second.kinds))
    }
}

/// The earliest beginning of the second in which `offset_s` is, to the millisecond: so a sum from here on has the
/// whole second.
pub(super) fn second_of(offset_s: f64) -> f64 {
    offset_s - 0.999
}

/// Requests of a version by second, without a gap.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RateCurve {
    /// Beginning of the first second, in seconds since the incident.
    pub from_s: f64,
    /// Requests that ended in each second.
    pub requests: Vec<u32>,
    /// Of these, the ones answered with a status of 500 or above.
    pub failures: Vec<u32>,
}

impl RateCurve {
    /// Requests and failures of the seconds that begin at `from_s` or later and before `until_s`. So the second of
    /// the incident counts as one before it: that is when an ejected version had its last requests.
    pub fn sum(&self, from_s: f64, until_s: f64) -> (u64, u64) {
        let seconds = self.requests.iter().zip(&self.failures).enumerate();
        let within = seconds.filter(|(nth, _)| {
            let begins = self.from_s + *nth as f64;
            (from_s..until_s).contains(&begins)
        });
        within.fold((0, 0), |(requests, failures), (_, (more, failed))| {
            (requests + u64::from(*more), failures + u64::from(*failed))
        })
    }
}

/// Quantiles of five seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyPoint {
    /// Beginning of the five seconds, in seconds since the incident.
    pub from_s: f64,
    /// Responses.
    pub count: u32,
    /// Half of the responses took at most this, in milliseconds.
    pub p50_ms: f64,
    /// 95 % of them.
    pub p95_ms: f64,
    /// 99 % of them.
    pub p99_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_of_the_incident_counts_as_before_it() {
        let curve = RateCurve { from_s: -1.4, requests: vec![10, 20, 40], failures: vec![0, 3, 1] };
        assert_eq!(curve.sum(f64::NEG_INFINITY, 0.0), (30, 3));
        assert_eq!(curve.sum(0.0, f64::INFINITY), (40, 1));
        assert_eq!((curve.sum(-1.0, 0.0), curve.sum(1.0, 2.0)), ((20, 3), (0, 0)));
    }
}
