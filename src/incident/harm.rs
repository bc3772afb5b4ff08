//! How many requests an incident harmed: an estimate, with its formula in words.
//!
//! Of the requests that a bad version failed, some would have failed anywhere. So the estimate is what it failed
//! beyond the baseline's rate: `failures − requests × baseline's rate`, from the onset of the difference to the
//! incident. The verdict has these counts, of exactly the requests that it judged. Without a verdict, as of a
//! manual ejection, the counters of responses (500 and above) are taken, over the five minutes before it; of a rollout
//! at most since its first step.

use serde::{Deserialize, Serialize};

use super::{
    curve::{Role, VersionCurve},
    text::{count, number, percent, ratio, seconds, thousandths},
};
use crate::analysis::{Counts, Finding, Metric, Numbers, Rate, Verdict};

/// What was harmed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Harm {
    /// Estimate of requests harmed; absent if there is nothing to compare with.
    pub estimate: Option<f64>,
    /// The estimate in words, with its formula and the numbers in it.
    pub how: String,
    /// Where the numbers come from.
    pub source: HarmSource,
    /// Length of the time that is counted, in seconds, up to the incident.
    pub counted_s: f64,
    /// Requests of the version in that time.
    pub requests: u64,
    /// Of these, failed ones; of a verdict on latency slow ones.
    pub failures: u64,
    /// The rate to expect without the fault, 0 to 1: that of the baseline, or the bound of the verdict.
    pub expected_rate: Option<f64>,
    /// Players of the version who failed or were slow in that time, if the verdict counted them.
    pub players: Option<u64>,
    /// All responses of the version with a status of 500 or above before the incident, in the time of the curves.
    pub failures_before: u64,
    /// The same after the incident: requests that were in flight.
    pub failures_after: u64,
}

/// Where the numbers of an estimate come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HarmSource {
    /// The counts of the verdict, since the onset of the difference.
    Verdict,
    /// The counters of responses by status.
    Counters,
}

/// Time before an incident without a verdict that is counted, in seconds.
const BEFORE_S: f64 = 300.0;

/// Counts of a version, and what to expect of it.
struct Counted {
    source: HarmSource,
    what: &'static str,
    counted_s: f64,
    requests: u64,
    failures: u64,
    expected: Option<f64>,
    /// The expectation in words.
    expectation: String,
    players: Option<u64>,
}

/// The harm of an incident, by its `verdict`, if it was caused by one, and the curves of its versions. `lasted_s` is
/// the time since the first step of the rollout that it ended, in seconds.
pub(super) fn harm(
    verdict: Option<&Verdict>,
    versions: &[VersionCurve],
    lasted_s: Option<f64>,
) -> Harm {
    let before_s = lasted_s.map_or(BEFORE_S, |lasted| lasted.min(BEFORE_S));
    let of = |role| versions.iter().find(|version| version.role == role);
    let subject = of(Role::Subject);
    let sum = |from_s, until_s| subject.map_or((0, 0), |v| v.rates.sum(from_s, until_s));
    let counted = verdict.and_then(by_verdict);
    let counted = counted.unwrap_or_else(|| {
        let baseline = of(Role::Baseline).map(|baseline| baseline.rates.sum(-before_s, 0.0));
        by_counters(sum(-before_s, 0.0), baseline, before_s)
    });
    let estimate = counted.expected.map(|rate| {
        thousandths((counted.failures as f64 - counted.requests as f64 * rate).max(0.0))
    });
    Harm {
        how: counted.in_words(estimate),
        estimate,
        source: counted.source,
        counted_s: thousandths(counted.counted_s),
        requests: counted.requests,
        failures: counted.failures,
        expected_rate: counted.expected,
        players: counted.players,
        failures_before: sum(f64::NEG_INFINITY, 0.0).1,
        failures_after: sum(0.0, f64::INFINITY).1,
    }
}

/// By the first finding of a verdict that counts requests.
fn by_verdict(verdict: &Verdict) -> Option<Counted> {
    verdict.findings.iter().find_map(|finding| by_finding(verdict, finding))
}

fn by_finding(verdict: &Verdict, finding: &Finding) -> Option<Counted> {
    let until_s = if verdict.since_s > 0.0 { verdict.since_s } else { verdict.compared_s };
    let counted_s = (until_s - finding.onset_s.unwrap_or(0.0)).max(0.0);
    let what = match finding.metric {
        Metric::Errors => "failed",
        Metric::Unserved => "failed or were left by their clients",
        Metric::Refusals => "were refused",
        Metric::LatencyP95 | Metric::LatencyP99 | Metric::WholeP95 | Metric::WholeP99 => {
            "were slow"
        }
        Metric::Recovery | Metric::AmountLow | Metric::AmountHigh => return None,
    };
    let (subject, expected, expectation, players) = match &finding.numbers {
        Numbers::Errors { counts, .. } | Numbers::Latency { counts, .. } => {
            let (canary, baseline) = since_onset(counts);
            let text = format!(
                "the baseline's rate in the same time, {} ({} of {})",
                percent(baseline.rate),
                count(baseline.failures),
                count(baseline.requests)
            );
            (canary, baseline.rate, text, Some(counts.canary_since_onset.failures))
        }
        Numbers::Bound { counts, tolerated_share, .. } => {
            let text = format!("the rate that is tolerated, {}", percent(Some(*tolerated_share)));
            (*counts, Some(*tolerated_share), text, None)
        }
        Numbers::Recovery { .. } | Numbers::Amount { .. } | Numbers::DerivedAmount { .. } => {
            return None;
        }
    };
    (subject.requests > 0).then_some(Counted {
        source: HarmSource::Verdict,
        what,
        counted_s,
        requests: subject.requests,
        failures: subject.failures,
        expected,
        expectation,
        players: players.filter(|players| *players > 0),
    })
}

/// All requests since the onset where they were counted, else the trials.
fn since_onset(counts: &Counts) -> (Rate, Rate) {
    if counts.canary_requests.requests > 0 {
        (counts.canary_requests, counts.baseline_requests)
    } else {
        (counts.canary_since_onset, counts.baseline_since_onset)
    }
}

fn by_counters(
    (requests, failures): (u64, u64),
    baseline: Option<(u64, u64)>,
    counted_s: f64,
) -> Counted {
    let expected = baseline.and_then(|(requests, failures)| ratio(failures, requests));
    let expectation = match baseline {
        Some((requests, failures)) => format!(
            "the baseline's rate in the same time, {} ({} of {})",
            percent(expected),
            count(failures),
            count(requests)
        ),
        None => "a rate of the baseline".to_owned(),
    };
    Counted {
        source: HarmSource::Counters,
        what: "were answered with a status of 500 or above",
        counted_s,
        requests,
        failures,
        expected,
        expectation,
        players: None,
    }
}

impl Counted {
    /// The estimate with its formula.
    fn in_words(&self, estimate: Option<f64>) -> String {
        let (failures, requests) = (count(self.failures), count(self.requests));
        let time = seconds(self.counted_s);
        let since = match self.source {
            HarmSource::Verdict => {
                format!("in the {time} from the onset of the difference to the verdict")
            }
            HarmSource::Counters => format!("in the {time} before the incident"),
        };
        let facts =
            format!("{failures} of {requests} requests of the version {} {since}", self.what);
        match (estimate, self.expected) {
            (Some(estimate), Some(rate)) => format!(
                "{facts}. By {}, {} of them would have been so anyway; what is beyond that counts as harmed: \
                 {failures} − {requests} × {} = {}.",
                self.expectation,
                number(self.requests as f64 * rate),
                percent(Some(rate)),
                number(estimate)
            ),
            _ => format!(
                "{facts}. There is no estimate: the baseline had no requests in that time to compare with."
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{
        curve::RateCurve,
        example::{failing, latency_verdict},
    };

    fn curve(role: Role, requests: u32, failures: u32) -> VersionCurve {
        let rates = RateCurve {
            from_s: -400.0,
            requests: vec![requests; 460],
            failures: vec![failures; 460],
        };
        VersionCurve { name: "v".to_owned(), role, rates, latency: Vec::new() }
    }

    #[test]
    fn failures_beyond_those_of_the_baseline_count() {
        let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
        let harm = harm(Some(&failing()), &versions, None);
        assert_eq!(harm.source, HarmSource::Verdict);
        assert_eq!((harm.requests, harm.failures, harm.players), (40, 14, Some(12)));
        // 14 − 40 × 4/800.
        assert_eq!((harm.estimate, harm.expected_rate), (Some(13.8), Some(0.005)));
        assert_eq!(harm.counted_s, 0.9);
        assert_eq!((harm.failures_before, harm.failures_after), (3 * 400, 3 * 60));
        assert_eq!(
            harm.how,
            "14 of 40 requests of the version failed in the 0.9 s from the onset of the difference to the \
             verdict. By the baseline's rate in the same time, 0.5 % (4 of 800), 0.2 of them would have been so \
             anyway; what is beyond that counts as harmed: 14 − 40 × 0.5 % = 13.8."
        );
    }

    #[test]
    fn slow_requests_are_harmed_too() {
        let harm = harm(Some(&latency_verdict()), &[], None);
        assert_eq!((harm.requests, harm.failures, harm.estimate), (100, 30, Some(29.0)));
        assert!(harm.how.contains("30 of 100 requests of the version were slow"), "{}", harm.how);
    }

    #[test]
    fn without_a_verdict_the_counters_of_five_minutes_are_taken() {
        let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
        let harm = super::harm(None, &versions, None);
        assert_eq!((harm.source, harm.counted_s), (HarmSource::Counters, 300.0));
        // 900 − 3,000 × 1 %.
        assert_eq!((harm.requests, harm.failures, harm.estimate), (3_000, 900, Some(870.0)));
        let better = [curve(Role::Subject, 10, 0), curve(Role::Baseline, 100, 1)];
        assert_eq!(super::harm(None, &better, None).estimate, Some(0.0));
        let alone = super::harm(None, &[curve(Role::Subject, 10, 3)], None);
        assert_eq!((alone.estimate, alone.failures), (None, 900));
        assert!(alone.how.contains("There is no estimate"), "{}", alone.how);
        // What failed before the rollout is not its harm.
        let short = super::harm(None, &versions, Some(20.0));
        assert_eq!((short.counted_s, short.requests, short.failures), (20.0, 200, 60));
        assert_eq!(super::harm(None, &versions, Some(0.0)).failures, 0);
    }
}
