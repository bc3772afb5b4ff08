//! How many requests an incident harmed: an estimate, with its formula in words.
//!
//! Of the requests that a bad version failed, some would have failed anywhere. So the estimate is what it failed
//! beyond the baseline's rate: `failures − requests × baseline's rate`, from the onset of the difference to the
//! incident. The verdict has these counts, of exactly the requests that it judged. Without a verdict, as of a
//! manual ejection, the counters of responses (500 and above) are taken, over the five minutes before it; of a rollout
//! at most since its first step.
//!
//! No request counts twice: an ejection often ends a rollout, and both leave a report. So what counts by counters
//! begins where the incident before it, of the same version, has ended, and names that one.

use serde::{Deserialize, Serialize};

use super::{
    curve::{Role, VersionCurve, second_of},
    failure::FailureKinds,
    id::Id,
    kind::Kind,
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
    /// Failed attempts of the version in that time by kind, by whole seconds; with those that the comparison does
    /// not count.
    #[serde(default)]
    pub failed_attempts: FailureKinds,
    /// The incident that counts what failed before that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_in: Option<Id>,
    /// Another incident that counts a part of the same requests, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_with: Option<Id>,
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

/// What an estimate is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// What happened.
    pub(super) kind: Kind,
    /// The verdict that caused it.
    pub(super) verdict: Option<&'a Verdict>,
    /// Curves of the versions.
    pub(super) versions: &'a [VersionCurve],
    /// The time since the first step of the rollout that ended, in seconds.
    pub(super) lasted_s: Option<f64>,
    /// The time before the incident that the curves cover, in seconds: no more than since the process was started.
    pub(super) known_s: f64,
    /// The time since the verdict ejected the version, in seconds, if that was another incident.
    pub(super) ejected_ago_s: Option<f64>,
    /// The incident of the version before this one, and the time since then, in seconds.
    pub(super) earlier: Option<(&'a Id, f64)>,
}

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
    /// No baseline served beside it: the time begins with the judging, not with a difference.
    alone: bool,
    /// The process was started in that time, and only what was counted since then is known.
    begun_anew: bool,
    counted_in: Option<Id>,
    shared_with: Option<Id>,
}

/// The harm of an incident.
pub(super) fn harm(asked: Asked<'_>) -> Harm {
    let subject = asked.of(Role::Subject);
    let sum = |from_s, until_s| subject.map_or((0, 0), |v| v.rates.sum(from_s, until_s));
    let counted = asked.by_verdict().unwrap_or_else(|| asked.by_counters());
    let from_s = match counted.source {
        HarmSource::Verdict => second_of(-counted.counted_s),
        HarmSource::Counters => -counted.counted_s,
    };
    let failed_attempts = subject.map(|version| version.failed_attempts(from_s, 0.0));
    let beyond = |rate: f64| (counted.failures as f64 - counted.requests as f64 * rate).max(0.0);
    // Where another incident has counted all of it, there is nothing to compare.
    let is_nothing = counted.counted_in.is_some() && counted.requests == 0;
    let estimate = match is_nothing {
        _ if counted.is_unknown() => None,
        true => Some(0.0),
        false => counted.expected.map(|rate| thousandths(beyond(rate))),
    };
    Harm {
        how: counted.in_words(estimate),
        estimate,
        source: counted.source,
        counted_s: thousandths(counted.counted_s),
        requests: counted.requests,
        failures: counted.failures,
        expected_rate: counted.expected,
        players: counted.players,
        failed_attempts: failed_attempts.unwrap_or_default(),
        counted_in: counted.counted_in,
        shared_with: counted.shared_with,
        failures_before: sum(f64::NEG_INFINITY, 0.0).1,
        failures_after: sum(0.0, f64::INFINITY).1,
    }
}

impl Asked<'_> {
    fn of(&self, role: Role) -> Option<&VersionCurve> {
        self.versions.iter().find(|version| version.role == role)
    }

    /// By the first finding of a verdict that counts requests, unless another incident counts these.
    fn by_verdict(&self) -> Option<Counted> {
        let verdict = self.verdict.filter(|_| self.ejected_ago_s.is_none())?;
        let mut findings = verdict.findings.iter();
        let counted = findings.find_map(|finding| by_finding(verdict, finding))?;
        let shared = self.earlier.filter(|(_, ago_s)| *ago_s < counted.counted_s);
        let is_ejection = matches!(self.kind, Kind::Ejected | Kind::EndpointEjected);
        let shared_with = shared.map(|(id, _)| id.clone());
        (is_ejection || shared_with.is_none()).then_some(Counted { shared_with, ..counted })
    }

    /// By the counters, from the end of the incident before.
    fn by_counters(&self) -> Counted {
        let before_s = self.lasted_s.map_or(BEFORE_S, |lasted| lasted.min(BEFORE_S));
        let earlier = self.earlier.filter(|(_, ago_s)| *ago_s < before_s);
        let counted = [earlier.map(|(_, ago_s)| ago_s), self.ejected_ago_s];
        let before_s = counted.into_iter().flatten().fold(before_s, f64::min).max(0.0);
        let begun_anew = self.lasted_s.is_some() && self.known_s < before_s;
        let before_s = if begun_anew { self.known_s } else { before_s };
        let sum = |version: &VersionCurve| version.rates.sum(-before_s, 0.0);
        let subject = self.of(Role::Subject).map_or((0, 0), sum);
        let counted_in = earlier.map(|(id, _)| id.clone());
        let baseline = self.of(Role::Baseline).map(sum);
        Counted { counted_in, begun_anew, ..by_counters(subject, baseline, before_s) }
    }
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
        alone: verdict.alone,
        begun_anew: false,
        counted_in: None,
        shared_with: None,
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
        alone: false,
        begun_anew: false,
        counted_in: None,
        shared_with: None,
    }
}

impl Counted {
    /// Whether nothing was counted because the process was started in that time.
    fn is_unknown(&self) -> bool {
        self.begun_anew && self.requests == 0
    }

    /// The estimate with its formula.
    fn in_words(&self, estimate: Option<f64>) -> String {
        if self.is_unknown() {
            return "Not known: the process was started anew meanwhile.".to_owned();
        }
        let (failures, requests) = (count(self.failures), count(self.requests));
        let time = seconds(self.counted_s);
        let since = match (self.source, &self.counted_in) {
            (HarmSource::Verdict, _) if self.alone => format!("in the {time} that it was judged"),
            (HarmSource::Verdict, _) => {
                format!("in the {time} from the onset of the difference to the verdict")
            }
            (HarmSource::Counters, None) => format!("in the {time} before the incident"),
            (HarmSource::Counters, Some(id)) => {
                format!("in the {time} since the incident {id}, which counts those before")
            }
        };
        let facts =
            format!("{failures} of {requests} requests of the version {} {since}", self.what);
        if let (Some(id), 0) = (&self.counted_in, self.requests) {
            return format!(
                "No request of the version ended after the incident {id}, which counts those before."
            );
        }
        self.told(&facts, estimate) + &self.also()
    }

    /// What else counts the same requests, and what is not counted.
    fn also(&self) -> String {
        let shared = self.shared_with.as_ref().map_or(String::new(), |id| {
            format!(" The incident {id} counts a part of these requests, too.")
        });
        match self.begun_anew {
            true => {
                shared + " What was before is not known: the process was started anew meanwhile."
            }
            false => shared,
        }
    }

    fn told(&self, facts: &str, estimate: Option<f64>) -> String {
        let (failures, requests) = (count(self.failures), count(self.requests));
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
        example::{failing, latency_verdict, opened},
        failure::FailedSecond,
    };

    /// As many answers of 5xx in each second.
    fn attempts(failures: u32) -> Vec<FailedSecond> {
        let kinds = FailureKinds { status: u64::from(failures), ..FailureKinds::default() };
        (-400..60).map(|s| FailedSecond { from_s: f64::from(s), kinds }).collect()
    }

    /// What is asked of a manual ejection.
    fn asked(versions: &[VersionCurve]) -> Asked<'_> {
        let (verdict, lasted_s, ejected_ago_s, earlier) = Default::default();
        let (kind, known_s) = (Kind::Ejected, 300.0);
        Asked { kind, verdict, versions, lasted_s, known_s, ejected_ago_s, earlier }
    }

    fn curve(role: Role, requests: u32, failures: u32) -> VersionCurve {
        let rates = RateCurve {
            from_s: -400.0,
            requests: vec![requests; 460],
            failures: vec![failures; 460],
        };
        let (latency, failed_attempts) = (Vec::new(), attempts(failures));
        VersionCurve { name: "v".to_owned(), role, rates, latency, failed_attempts }
    }

    #[test]
    fn failures_beyond_those_of_the_baseline_count() {
        let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
        let verdict = failing();
        let harm = harm(Asked { verdict: Some(&verdict), ..asked(&versions) });
        assert_eq!(harm.failed_attempts.status, 3, "of the second of the onset");
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
        let verdict = latency_verdict();
        let harm = harm(Asked { verdict: Some(&verdict), ..asked(&[]) });
        assert_eq!((harm.requests, harm.failures, harm.estimate), (100, 30, Some(29.0)));
        assert!(harm.how.contains("30 of 100 requests of the version were slow"), "{}", harm.how);
    }

    #[test]
    fn without_a_verdict_the_counters_of_five_minutes_are_taken() {
        let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
        let harm = super::harm(asked(&versions));
        assert_eq!(harm.failed_attempts.in_words(), "900 answered 5xx");
        assert_eq!((harm.source, harm.counted_s), (HarmSource::Counters, 300.0));
        // 900 − 3,000 × 1 %.
        assert_eq!((harm.requests, harm.failures, harm.estimate), (3_000, 900, Some(870.0)));
        let better = [curve(Role::Subject, 10, 0), curve(Role::Baseline, 100, 1)];
        assert_eq!(super::harm(asked(&better)).estimate, Some(0.0));
        let alone = super::harm(asked(&[curve(Role::Subject, 10, 3)]));
        assert_eq!((alone.estimate, alone.failures), (None, 900));
        assert!(alone.how.contains("There is no estimate"), "{}", alone.how);
        // What failed before the rollout is not its harm.
        let short = super::harm(Asked { lasted_s: Some(20.0), ..asked(&versions) });
        assert_eq!((short.counted_s, short.requests, short.failures), (20.0, 200, 60));
        let none = super::harm(Asked { lasted_s: Some(0.0), ..asked(&versions) });
        assert_eq!(none.failures, 0);
    }

    /// Regression: `0 of 0 requests … in the -0.0 s before the incident`, after a kill in a bake.
    #[test]
    fn what_another_process_counted_is_not_known() {
        let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
        let of = |known_s, versions| {
            let (kind, lasted_s) = (Kind::RolloutRolledBack, Some(200.0));
            harm(Asked { kind, lasted_s, known_s, ..asked(versions) })
        };
        let part = of(20.0, &versions);
        assert_eq!((part.counted_s, part.requests, part.failures), (20.0, 200, 60));
        let told = " What was before is not known: the process was started anew meanwhile.";
        assert!(part.how.ends_with(told), "{}", part.how);
        assert!(!of(200.0, &versions).how.contains("anew"));
        let none = of(20.0, &[curve(Role::Subject, 0, 0), curve(Role::Baseline, 100, 1)]);
        assert_eq!((none.estimate, none.requests), (None, 0));
        assert_eq!(none.how, "Not known: the process was started anew meanwhile.");
    }

    #[test]
    fn no_request_is_harmed_in_two_incidents() {
        let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
        let (verdict, ejected) = (failing(), opened().id);
        let rollback = |earlier, ejected_ago_s| {
            let (kind, verdict) = (Kind::RolloutRolledBack, Some(&verdict));
            let lasted_s = Some(200.0);
            harm(Asked { kind, verdict, lasted_s, earlier, ejected_ago_s, ..asked(&versions) })
        };
        // The verdict counts where it is reported first.
        let first = rollback(None, None);
        assert_eq!(
            (first.source, first.requests, &first.counted_in),
            (HarmSource::Verdict, 40, &None)
        );
        let second = rollback(Some((&ejected, 2.0)), Some(2.0));
        assert_eq!((second.source, second.counted_s), (HarmSource::Counters, 2.0));
        assert_eq!((second.requests, second.failures, second.estimate), (20, 6, Some(5.8)));
        assert_eq!(second.counted_in.as_ref(), Some(&ejected));
        let which = format!("in the 2.0 s since the incident {ejected}, which counts those before");
        assert!(second.how.contains(&which), "{}", second.how);
        let none = rollback(Some((&ejected, 0.0)), Some(0.0));
        assert_eq!((none.estimate, none.requests), (Some(0.0), 0));
        assert!(none.how.starts_with("No request of the version ended after"), "{}", none.how);
        // After a restart the incident before is not known, and still counts.
        let restarted = rollback(None, Some(3.0));
        assert_eq!((restarted.source, restarted.failures), (HarmSource::Counters, 9));
        // What happened long before has another harm.
        let later = rollback(Some((&ejected, 250.0)), None);
        assert_eq!((later.source, later.counted_in), (HarmSource::Verdict, None));

        // An ejection has its verdict in any case, and says what else counts.
        let whole = harm(Asked {
            verdict: Some(&verdict),
            earlier: Some((&ejected, 0.5)),
            ..asked(&versions)
        });
        assert_eq!((whole.requests, whole.shared_with.as_ref()), (40, Some(&ejected)));
        assert!(whole.how.ends_with("counts a part of these requests, too."), "{}", whole.how);
    }

    #[test]
    fn without_a_baseline_the_time_is_that_of_the_judging() {
        let verdict = Verdict { alone: true, ..failing() };
        let harm = harm(Asked { verdict: Some(&verdict), ..asked(&[]) });
        assert!(harm.how.contains(" s that it was judged. "), "{}", harm.how);
    }
}
