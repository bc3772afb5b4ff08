//! A verdict and the numbers that caused it, for people and for the record.
//!
//! Times are seconds since the comparison began, evidence is in nats. A number without a value,
//! such as a rate without requests, is absent, so a verdict can always be written as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{amount::Side, grid::Component};

mod finding;
mod sentence;

pub(super) use self::sentence::Percent;

/// The answer of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The canary is healthy enough to grow, with certainty: see [`super::Gate`].
    Healthy,
    /// The canary is worse than is tolerated.
    Fail,
    /// Nothing is certain yet.
    Undecided,
}

/// The compared quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Failed requests.
    Errors,
    /// Requests that were not served: failed, or left by their clients.
    Unserved,
    /// Requests that were refused: answered 4xx.
    Refusals,
    /// Players who failed on the canary and are served by the baseline.
    Recovery,
    /// The 95th percentile of latency.
    LatencyP95,
    /// The 99th percentile of latency.
    LatencyP99,
    /// The 95th percentile of the time to the answer's last byte.
    WholeP95,
    /// The 99th percentile of that.
    WholeP99,
    /// Amounts that are too low.
    AmountLow,
    /// Amounts that are too high.
    AmountHigh,
}

impl Side {
    /// The metric of amounts that differ this way.
    pub(super) fn metric(self) -> Metric {
        match self {
            Self::Low => Metric::AmountLow,
            Self::High => Metric::AmountHigh,
        }
    }
}

impl Metric {
    /// The kind of metric: failures, latency, or amounts.
    fn kind(self) -> u8 {
        match self {
            Self::Errors | Self::Unserved | Self::Refusals | Self::Recovery => 0,
            Self::LatencyP95 | Self::LatencyP99 | Self::WholeP95 | Self::WholeP99 => 1,
            Self::AmountLow | Self::AmountHigh => 2,
        }
    }

    /// The name in metrics and in the API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Unserved => "unserved",
            Self::Refusals => "refusals",
            Self::Recovery => "recovery",
            Self::LatencyP95 => "latency_p95",
            Self::LatencyP99 => "latency_p99",
            Self::WholeP95 => "whole_p95",
            Self::WholeP99 => "whole_p99",
            Self::AmountLow => "amount_low",
            Self::AmountHigh => "amount_high",
        }
    }
}

/// A verdict on a canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The answer.
    pub answer: Answer,
    /// Whether there was no baseline, so that an outage that all versions would share looks the
    /// same.
    #[serde(default)]
    pub alone: bool,
    /// When the answer was reached, in seconds since the comparison began.
    pub since_s: f64,
    /// Duration of the comparison in seconds; for a failure, until the decision.
    pub compared_s: f64,
    /// Evidence of all metrics together against the canary, in nats; absent before the first block.
    pub log_evidence: Option<f64>,
    /// Evidence that is needed for a failure, in nats.
    pub log_threshold: f64,
    /// Reserved: the state of the certificate of health.
    pub health: Option<HealthFinding>,
    /// Why there is no failure although the evidence suffices.
    #[serde(default)]
    pub held: Option<HeldBack>,
    /// How long the version warms up, in seconds, before its latency or amounts are compared; absent if none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_s: Option<f64>,
    /// Findings by metric, the strongest first.
    pub findings: Vec<Finding>,
    /// The verdict as a sentence that quotes these numbers.
    pub reason: String,
}

/// Why a canary does not fail although the evidence suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldBack {
    /// Fewer of its players have failed, or were slow, than `minimum_failures`.
    MinimumFailures {
        /// Number of those players.
        failures: u64,
        /// Required number.
        least: u64,
    },
    /// Without the worst endpoint the evidence does not suffice. Whether that endpoint is ejected is decided
    /// by the comparison of endpoints.
    OneEndpoint,
    /// It fails, but no other version works that would get its players. Also of a verdict that ejected it after that.
    NothingElseServes {
        /// How long after the verdict it was kept, in milliseconds; so far, while it is.
        kept_ms: u64,
    },
}

/// Evidence for the canary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HealthFinding {
    /// Once certain, the canary fails less than this many times as often as the baseline.
    pub ratio: f64,
    /// Share of failures on top of that, 0 to 1.
    #[serde(default)]
    pub excess: f64,
    /// Evidence for that, in nats; absent before the first block.
    pub log_evidence: Option<f64>,
    /// Evidence that makes it certain, in nats.
    pub log_threshold: f64,
}

impl HealthFinding {
    /// Whether the evidence suffices.
    pub fn is_certain(&self) -> bool {
        self.log_evidence.is_some_and(|evidence| evidence >= self.log_threshold)
    }
}

/// The finding of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The metric.
    pub metric: Metric,
    /// The name of the amount, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// The named route, if the finding is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Evidence of this metric alone, in nats; absent before its first block.
    pub log_evidence: Option<f64>,
    /// The rough size of the difference beyond the tolerance: the most successful bet.
    pub component: Option<Component>,
    /// Likeliest onset of the difference, in seconds since the comparison began.
    pub onset_s: Option<f64>,
    /// The numbers of both arms.
    pub numbers: Numbers,
}

/// Numbers of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// Requests that failed.
    Errors {
        /// The counts.
        counts: Counts,
        /// Tolerated multiple of the baseline's rate.
        tolerated_ratio: f64,
        /// Tolerated share of failures on top, 0 to 1.
        tolerated_excess: f64,
    },
    /// Requests that were slow; `failures` are those.
    Latency {
        /// The counts.
        counts: Counts,
        /// From which latency on a request of the canary counted as slow, in milliseconds.
        canary_slow_ms: Option<f64>,
        /// The same of the baseline: its quantile.
        baseline_slow_ms: Option<f64>,
        /// Tolerated multiple of the baseline's latency.
        tolerated_factor: f64,
        /// Tolerated excess beside that, in milliseconds.
        tolerated_ms: f64,
    },
    /// Requests of a version that serves alone, against a fixed bound.
    Bound {
        /// The counts since it was judged; `failures` are failed or slow requests.
        counts: Rate,
        /// The counts since it began to be beyond the bound, most likely.
        #[serde(default)]
        since_onset: Rate,
        /// Where the bound comes from.
        source: Source,
        /// Share of requests that may be bad, 0 to 1.
        tolerated_share: f64,
        /// From which latency on a request counted as slow, in milliseconds; absent where failures
        /// are counted.
        slow_ms: Option<f64>,
    },
    /// Players who had failed twice in a row, by how their next request ended at the baseline.
    Recovery {
        /// Players of the canary; `failures` are those that the baseline served.
        canary: Rate,
        /// Players of the baseline, of whom as many recover by themselves.
        baseline: Rate,
    },
    /// Amounts of money, since the difference began.
    Amount {
        /// The canary.
        canary: Mean,
        /// The baseline.
        baseline: Mean,
        /// The canary's mean as a multiple of the baseline's.
        ratio: Option<f64>,
        /// Larger amounts count as this.
        clipped_at: Option<f64>,
        /// Tolerated ratio of the means: of the one that must not be higher to the other.
        tolerated_ratio: f64,
    },
    /// Amounts that are derived from others, and may be negative, since the difference began.
    DerivedAmount {
        /// The canary.
        canary: Mean,
        /// The baseline.
        baseline: Mean,
        /// The canary's mean less the baseline's.
        difference: Option<f64>,
        /// Amounts with a larger absolute value count as this, with their sign.
        clipped_at: Option<f64>,
        /// Tolerated difference of the means, in the caller's money; absent before the first block.
        tolerated_difference: Option<f64>,
    },
}

/// Where a bound comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `slo` of the configuration.
    Slo,
    /// The past of the earlier baseline.
    Before,
}

impl Source {
    /// The name in metrics and in the API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Slo => "slo",
            Self::Before => "before",
        }
    }
}

/// Requests and failures of both arms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// The canary's trials since the comparison began: each player once a second, failing once a
    /// cycle.
    pub canary: Rate,
    /// The same of the baseline.
    pub baseline: Rate,
    /// The canary's rate as a multiple of the baseline's, by Mantel and Haenszel.
    pub ratio: Option<f64>,
    /// The 95 % confidence interval of the ratio, by Greenland and Robins: low and high end.
    #[serde(default)]
    pub ratio_interval: Option<[f64; 2]>,
    /// The canary since the difference began, most likely.
    pub canary_since_onset: Rate,
    /// The baseline since then.
    pub baseline_since_onset: Rate,
    /// All requests of the canary since then.
    #[serde(default)]
    pub canary_requests: Rate,
    /// All requests of the baseline since then.
    #[serde(default)]
    pub baseline_requests: Rate,
}

/// Failures of an arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Requests.
    pub requests: u64,
    /// Failed requests.
    pub failures: u64,
    /// Failures per request, 0 to 1.
    pub rate: Option<f64>,
}

impl Rate {
    /// The counts since the onset, if there are any, else these.
    pub fn or_since(self, onset: Self) -> Self {
        if onset.requests > 0 { onset } else { self }
    }
}

/// Amounts of an arm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// Requests.
    pub requests: u64,
    /// Mean clipped amount per request.
    pub mean: Option<f64>,
}

impl Verdict {
    /// How long after the verdict the version was kept, since nothing else served.
    pub fn kept(&self) -> Duration {
        match self.held {
            Some(HeldBack::NothingElseServes { kept_ms }) => Duration::from_millis(kept_ms),
            _ => Duration::ZERO,
        }
    }

    /// The share of the version's requests that failed as it was judged, 0 to 1, if failures are what it was judged by.
    pub fn failing(&self) -> Option<f64> {
        let finding = self.findings.first()?;
        match &finding.numbers {
            Numbers::Errors { counts, .. }
                if matches!(finding.metric, Metric::Errors | Metric::Unserved) =>
            {
                counts.shown().0.rate
            }
            Numbers::Bound { counts, since_onset, slow_ms: None, .. } => {
                counts.or_since(*since_onset).rate
            }
            _ => None,
        }
    }

    /// How near the version is to a failure, if the evidence does not suffice or is held back: the
    /// strongest finding and its part of the threshold.
    pub fn nearness(&self) -> String {
        let part = self.log_evidence.unwrap_or(0.0) / self.log_threshold * 100.0;
        match (self.findings.first(), self.held) {
            (Some(finding), Some(held)) => format!("{finding}. {held}."),
            (Some(finding), None) => {
                format!("{finding}. That is {part:.0} % of the evidence that fails it.")
            }
            (None, _) => self.reason.clone(),
        }
    }
}

impl Finding {
    /// Players of the canary who failed or were slow, where these are counted.
    pub(super) fn failures(&self) -> Option<u64> {
        match &self.numbers {
            Numbers::Errors { counts, .. } | Numbers::Latency { counts, .. } => {
                Some(counts.canary.failures)
            }
            Numbers::Bound { counts, .. } => Some(counts.failures),
            Numbers::Recovery { .. } | Numbers::Amount { .. } | Numbers::DerivedAmount { .. } => {
                None
            }
        }
    }

    /// The compared quantity as in metrics: `errors`, `amount_high.payout`, `errors_slo`.
    pub fn gate(&self) -> String {
        let metric = self.metric.label();
        match (&self.amount, &self.route, &self.numbers) {
            (Some(name), ..) | (None, Some(name), _) => format!("{metric}.{name}"),
            (None, None, Numbers::Bound { source, .. }) => {
                format!("{metric}_{}", source.label())
            }
            (None, None, _) => metric.to_owned(),
        }
    }

    /// Likewise, for a test whose trials are all requests, in which `players` failed.
    pub(super) fn of_few(mut self, players: u64) -> Self {
        if let Numbers::Errors { counts, .. } = &mut self.numbers {
            counts.canary_requests = counts.canary_since_onset;
            counts.baseline_requests = counts.baseline_since_onset;
            counts.canary_since_onset.failures = players;
        }
        self
    }
}

/// Evidence, in nats, from which on a canary is doubtful: one within its limits reaches it in at
/// most one of twenty comparisons.
pub(super) const DOUBTED: f64 = 3.0;

/// Evidence for JSON, which has no minus infinity.
pub(super) fn known(log_evidence: f64) -> Option<f64> {
    log_evidence.is_finite().then_some(log_evidence)
}

#[cfg(test)]
mod tests;
