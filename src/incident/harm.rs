//! How many requests an incident harmed: an estimate, with its formula in words.
//!
//! Of the requests that a bad version failed, some would have failed anywhere. So the estimate is what it failed
//! beyond the baseline's rate: `failures − requests × baseline's rate`, from the onset of the difference to the
//! incident. Where no baseline served beside it, the rate is that which its limit tolerates. The verdict has these counts, of exactly the requests that it judged. Without a verdict, as of a
//! manual ejection, the counters of responses (500 and above) are taken, over the five minutes before it; of a rollout
//! at most since its first step. They are read when that step is set and when the incident happens, so a rollout that
//! lasts a part of a second is counted exactly ([`super::sums`]).
//!
//! No request counts twice: an ejection often ends a rollout, and both leave a report. So what counts by counters
//! begins where the incident before it, of the same version, has ended, and names that one.

use serde::{Deserialize, Serialize};

use super::{
    curve::{Role, VersionCurve, second_of},
    failure::FailureKinds,
    id::Id,
    kind::Kind,
    sums::{Begin, Counters},
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
    /// From which latency on a request of the version counted as slow, in milliseconds; absent where failures count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_ms: Option<f64>,
    /// How long a version warms up, in seconds, before slow requests are counted; absent where failures count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up_s: Option<f64>,
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
    /// The same after the incident: requests that were in flight, and those of players whom it got again.
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
    /// What the versions had counted at the moments that matter; without it the curves are summed.
    pub(super) counters: Option<&'a Counters>,
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
    /// No baseline served beside it, so that it differed from nothing.
    alone: bool,
    /// Nothing shows when it became worse, so the time begins with the judging.
    no_onset: bool,
    /// Where that time begins, of what is counted by counters.
    begin: Begin,
    /// The process was started since the first step of the rollout: only what was counted since then is known.
    begun_anew: bool,
    /// Of slow requests: from which latency on, in milliseconds, and after how many seconds of warm-up.
    slow: Option<(Option<f64>, Option<f64>)>,
    counted_in: Option<Id>,
    shared_with: Option<Id>,
}

/// The harm of an incident.
pub(super) fn harm(asked: Asked<'_>) -> Harm {
    let subject = asked.of(Role::Subject);
    let sum = |from_s, until_s| subject.map_or((0, 0), |v| v.rates.sum(from_s, until_s));
    let counted = asked.counted();
    let from_s = match counted.source {
        HarmSource::Counters if counted.begin == Begin::Earlier => -counted.counted_s,
        HarmSource::Counters | HarmSource::Verdict => second_of(-counted.counted_s),
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
        slow_ms: counted.slow.and_then(|(slow_ms, _)| slow_ms),
        warm_up_s: counted.slow.and_then(|(_, warm_up_s)| warm_up_s),
        expected_rate: counted.expected,
        players: counted.players,
        failed_attempts: failed_attempts.unwrap_or_default(),
        counted_in: counted.counted_in,
        shared_with: counted.shared_with,
        failures_before: sum(f64::NEG_INFINITY, 0.0).1,
        failures_after: sum(0.0, f64::INFINITY).1,
    }
}

impl Harm {
    /// The same of a rollout that ended before its first step: what the version served had nothing to do with it.
    pub(super) fn of_no_step(self) -> Self {
        Self {
            estimate: Some(0.0),
            how:
                "None: the rollout ended before its first step, so no player got the version by it."
                    .to_owned(),
            source: HarmSource::Counters,
            counted_s: 0.0,
            requests: 0,
            failures: 0,
            slow_ms: None,
            warm_up_s: None,
            expected_rate: None,
            players: None,
            failed_attempts: FailureKinds::default(),
            counted_in: None,
            shared_with: None,
            ..self
        }
    }
}

impl Asked<'_> {
    fn of(&self, role: Role) -> Option<&VersionCurve> {
        self.versions.iter().find(|version| version.role == role)
    }

    /// By the verdict, if it ended what it found: it ejected the version or an endpoint. Of one that only advised, failures
    /// went on until somebody acted, so the counters count where these have more.
    fn counted(&self) -> Counted {
        let is_ejection = matches!(self.kind, Kind::Ejected | Kind::EndpointEjected);
        match self.by_verdict() {
            Some(counted) if is_ejection => counted,
            by_verdict => {
                let by_counters = self.by_counters();
                let by_verdict = by_verdict.filter(|v| v.failures >= by_counters.failures);
                by_verdict.unwrap_or(by_counters)
            }
        }
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
        let subject = self.of(Role::Subject);
        let span_s = self.lasted_s.map_or(BEFORE_S, |lasted| lasted.min(BEFORE_S));
        let overlaps = || {
            let name = subject.map(|version| &*version.name);
            self.counters.zip(name).is_some_and(|(counters, name)| counters.overlap(name))
        };
        let earlier = self.earlier.filter(|(_, ago_s)| *ago_s < span_s || overlaps());
        let before_s = earlier.map_or(span_s, |(_, ago_s)| ago_s.min(span_s));
        let ejected_s = self.ejected_ago_s.filter(|ago_s| *ago_s < before_s);
        let before_s = ejected_s.unwrap_or(before_s).max(0.0);
        let begin = match (self.lasted_s, earlier) {
            _ if self.known_s < before_s => Begin::Process,
            _ if ejected_s.is_some() => Begin::Ejection,
            (_, Some(_)) => Begin::Earlier,
            (Some(lasted_s), None) if lasted_s <= BEFORE_S => Begin::Step,
            _ => Begin::Window,
        };
        let before_s = before_s.min(self.known_s);
        let sum = |version: &VersionCurve| self.sum(version, begin, before_s);
        let counted_in = earlier.filter(|_| begin != Begin::Process).map(|(id, _)| id.clone());
        let begun_anew = begin == Begin::Process && self.lasted_s.is_some();
        let counts =
            by_counters(subject.map_or((0, 0), sum), self.of(Role::Baseline).map(sum), before_s);
        Counted { counted_in, begin, begun_anew, ..counts }
    }

    /// Requests and failures of `version` since `begin`, which was `before_s` before the incident: by its counters at
    /// both moments, else by whole seconds.
    fn sum(&self, version: &VersionCurve, begin: Begin, before_s: f64) -> (u64, u64) {
        let exact = self.counters.and_then(|counters| counters.since(begin, &version.name));
        exact.unwrap_or_else(|| {
            let from_s = match begin {
                Begin::Process | Begin::Step => second_of(-before_s),
                Begin::Window | Begin::Earlier | Begin::Ejection => -before_s,
            };
            version.rates.sum(from_s, 0.0)
        })
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
    let mut slow = None;
    let (subject, expected, expectation, players) = match &finding.numbers {
        Numbers::Errors { counts, .. } | Numbers::Latency { counts, .. } => {
            if let Numbers::Latency { canary_slow_ms, .. } = &finding.numbers {
                slow = Some((*canary_slow_ms, verdict.warm_up_s));
            }
            let (canary, baseline) = since_onset(counts);
            let text = format!(
                "the baseline's rate in the same time, {} ({} of {})",
                percent(baseline.rate),
                count(baseline.failures),
                count(baseline.requests)
            );
            (canary, baseline.rate, text, Some(counts.canary_since_onset.failures))
        }
        Numbers::Bound { counts, since_onset, tolerated_share, slow_ms, .. } => {
            slow = slow_ms.map(|ms| (Some(ms), verdict.warm_up_s));
            let text = format!("the rate that is tolerated, {}", percent(Some(*tolerated_share)));
            (counts.or_since(*since_onset), Some(*tolerated_share), text, None)
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
        no_onset: finding.onset_s.is_none(),
        begin: Begin::Window,
        begun_anew: false,
        slow,
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
        no_onset: true,
        begin: Begin::Window,
        begun_anew: false,
        slow: None,
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
            (HarmSource::Verdict, _) if self.alone && self.no_onset => {
                format!("in the {time} that it was judged")
            }
            (HarmSource::Verdict, _) if self.alone => {
                format!("in the {time} from the onset, most likely, to the verdict")
            }
            (HarmSource::Verdict, _) => {
                format!("in the {time} from the onset of the difference to the verdict")
            }
            (HarmSource::Counters, Some(id)) => {
                format!("in the {time} since the incident {id}, which counts those before")
            }
            (HarmSource::Counters, None) => match self.begin {
                Begin::Step => format!("in the {time} since the first step of the rollout"),
                Begin::Process if !self.begun_anew => {
                    format!("in the {time} since the process was started")
                }
                _ => format!("in the {time} before the incident"),
            },
        };
        let (slow, warm) = self.slow_in_words();
        let facts = format!(
            "{failures} of {requests} requests of the version {}{slow} {since}{warm}",
            self.what
        );
        if let (Some(id), 0) = (&self.counted_in, self.requests) {
            return format!(
                "No request of the version ended after the incident {id}, which counts those before."
            );
        }
        self.told(&facts, estimate) + &self.also()
    }

    /// What is slow, and which slow requests are counted.
    fn slow_in_words(&self) -> (String, String) {
        let Some((slow_ms, warm_up_s)) = self.slow else { return Default::default() };
        let slow = slow_ms.map_or(String::new(), |ms| format!(" ({} ms or longer)", number(ms)));
        let after = warm_up_s.filter(|time| *time > 0.0);
        let warm = after.map_or(String::new(), |time| {
            let time = seconds(time);
            format!(", counted after its warm-up of {time} at least, and not before it")
        });
        (slow, warm)
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
mod tests;
