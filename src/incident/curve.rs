//! Rates and latency of a version around an incident.

use serde::{Deserialize, Serialize};

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
    /// Requests and failures of the seconds whose middle is at `from_s` or later and before `until_s`.
    pub fn sum(&self, from_s: f64, until_s: f64) -> (u64, u64) {
        let seconds = self.requests.iter().zip(&self.failures).enumerate();
        let within = seconds.filter(|(nth, _)| {
            let middle = self.from_s + *nth as f64 + 0.5;
            (from_s..until_s).contains(&middle)
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
