//! Puts a report together from what is known.

use std::time::SystemTime;

use super::{
    curve::{Role, VersionCurve},
    harm::{Asked, Harm, harm},
    id::Id,
    kind::{Kind, State},
    model::{Covers, FORM, Incident, JournalEntry, Moment, MomentSource, ProcessFacts},
    review::Review,
    sums::{Counters, Moments, Sums},
    text::{moved, offset_s, parsed, rfc3339, seconds},
};
use crate::analysis::{Answer, Verdict};

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    /// The kind.
    pub kind: Kind,
    /// The service.
    pub service: String,
    /// Its version: the one that was taken out, or that grew.
    pub version: String,
    /// Address of the endpoint, if it is about one.
    pub endpoint: Option<String>,
    /// The route with limits of its own, if the verdict is about one.
    pub route: Option<String>,
    /// Who caused it: a token's name, `verdict`, or the like.
    pub by: String,
    /// The reason or the evidence.
    pub reason: String,
    /// The verdict that caused it, or the comparison as it was then.
    pub verdict: Option<Verdict>,
    /// When that verdict ejected the version, in this incident or in another one.
    pub ejected_at: Option<SystemTime>,
    /// The rollout that has ended, if it is about one.
    pub rollout: Option<Box<Review>>,
}

/// An incident as it is known when it happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// Its name.
    pub id: Id,
    /// When.
    pub at: SystemTime,
    /// What happened.
    pub happened: Happened,
    /// The version that others are compared with, if the configuration has the service.
    pub baseline: Option<String>,
    /// Generation of the snapshot in force after it.
    pub generation: u64,
    /// Hash of the configuration in force.
    pub config_hash: String,
    /// The incident of the version before this one.
    pub earlier: Option<Earlier>,
    /// What the versions of the service had counted when it happened.
    pub counted: Sums,
    /// The same when the first step of the rollout that ended was set; `None` if it is none, or another process set it.
    pub begun: Option<Sums>,
}

/// An incident before another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// Its name.
    pub id: Id,
    /// When it happened.
    pub at: SystemTime,
    /// What the versions of the service had counted then.
    pub counted: Sums,
}

/// What is known around an incident.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Beginning of the curves.
    pub from: SystemTime,
    /// End of the curves.
    pub until: SystemTime,
    /// Events, in any order.
    pub events: Vec<Moment>,
    /// Entries of the journal, in their order.
    pub journal: Vec<JournalEntry>,
    /// Curves, in any order.
    pub versions: Vec<VersionCurve>,
    /// What the versions had counted at the moments that matter.
    pub moments: Moments,
    /// The name of the instance.
    pub instance: String,
}

impl Opened {
    /// When the difference began, or the version began to be beyond its limit, most likely, if a verdict caused the
    /// incident.
    pub fn onset(&self) -> Option<SystemTime> {
        let verdict = self.happened.cause()?;
        Some(self.of_verdict(verdict, verdict.findings.first()?.onset_s?))
    }

    /// Since when the version was judged without a baseline, if that verdict caused the incident.
    pub fn judged_since(&self) -> Option<SystemTime> {
        let verdict = self.happened.cause().filter(|verdict| verdict.alone)?;
        Some(self.of_verdict(verdict, 0.0))
    }

    /// `at_s` on the clock of the verdict, in seconds since the comparison began: it was reached when the version
    /// was ejected, less the time for which it was kept, or when the incident happened.
    fn of_verdict(&self, verdict: &Verdict, at_s: f64) -> SystemTime {
        let ejected = self.happened.ejected_at.unwrap_or(self.at);
        moved(ejected, -(verdict.since_s - at_s).max(0.0) - verdict.kept().as_secs_f64())
    }

    /// The harm as the curves tell it, which begin at `from`, and the counters at these `moments`.
    fn harm(&self, versions: &[VersionCurve], from: SystemTime, moments: Moments) -> Harm {
        let Happened { kind, ejected_at, .. } = self.happened;
        let is_ejection = matches!(kind, Kind::Ejected | Kind::EndpointEjected);
        let ago = |at| offset_s(self.at, at).max(0.0);
        let harm = harm(Asked {
            kind,
            verdict: self.happened.cause(),
            versions,
            lasted_s: self.happened.lasted_s(self.at),
            known_s: ago(from),
            ejected_ago_s: ejected_at.filter(|_| !is_ejection).map(ago),
            earlier: self.earlier.as_ref().map(|earlier| (&earlier.id, ago(earlier.at))),
            counters: Some(&self.counters(moments)),
        });
        if self.happened.took_no_step() { harm.of_no_step() } else { harm }
    }
}

impl Opened {
    /// Each moment by the later reading: what was counted when it happened is in any case before the end of its second.
    fn counters(&self, moments: Moments) -> Counters {
        let Moments { incident, window, earlier } = moments;
        let before = self.earlier.as_ref().map(|before| before.counted.clone());
        Counters {
            until: incident.or_later(&self.counted),
            window,
            begun: self.begun.clone(),
            earlier: before.map(|counted| counted.or_later(&earlier.unwrap_or_default())),
        }
    }
}

impl Happened {
    /// The verdict, if it decided: a comparison that was still undecided caused nothing.
    fn cause(&self) -> Option<&Verdict> {
        self.verdict.as_ref().filter(|verdict| verdict.answer == Answer::Fail)
    }

    /// Whether it is a rollout that ended before its first step.
    fn took_no_step(&self) -> bool {
        let rollout = self.rollout.as_ref();
        rollout.is_some_and(|review| review.steps.iter().all(|step| step.began_at.is_none()))
    }

    /// The time from the first step of the rollout that ended to `at`, in seconds: 0 if it took none; `None` if it is no
    /// rollout. The ramp of a rollback is part of it, though of no step.
    fn lasted_s(&self, at: SystemTime) -> Option<f64> {
        let mut steps = self.rollout.as_ref()?.steps.iter();
        let began = steps.find_map(|step| parsed(step.began_at.as_deref()?));
        Some(began.map_or(0.0, |began| offset_s(at, began).max(0.0)))
    }

    /// A sentence without a full stop.
    fn title(&self) -> String {
        let Self { service, version, .. } = self;
        match (self.kind, &self.endpoint) {
            (Kind::EndpointEjected, Some(endpoint)) => {
                format!("Endpoint {endpoint} of {service} {version} was ejected")
            }
            (Kind::Ejected | Kind::EndpointEjected, _) => {
                format!("{service} {version} was ejected")
            }
            (Kind::RolledBack, _) => format!("{service} was rolled back from {version}"),
            // The outcome comes first, since a list may cut what follows.
            (Kind::RolloutDone, _) => format!("Done: the rollout of {service} to {version}"),
            (Kind::RolloutRolledBack, _) => {
                format!("Rolled back: the rollout of {service} to {version}")
            }
            (Kind::RolloutAborted, _) => {
                format!("Aborted: the rollout of {service} to {version}")
            }
        }
    }
}

impl Incident {
    /// The report of what was `opened`, with the `evidence` so far. `before` is an earlier report of the same
    /// incident: the curves of versions that have left the configuration since are taken from it.
    pub fn new(opened: &Opened, evidence: Evidence, state: State, before: Option<&Self>) -> Self {
        let Opened { id, at, happened, baseline, generation, config_hash, .. } = opened;
        let Evidence { from, until, events, journal, versions, moments, instance } = evidence;
        let versions = with_those_of(before, versions);
        Self {
            form: FORM,
            id: id.clone(),
            kind: happened.kind,
            state,
            title: happened.title(),
            at: rfc3339(*at),
            service: happened.service.clone(),
            version: happened.version.clone(),
            endpoint: happened.endpoint.clone(),
            route: happened.route.clone(),
            baseline: baseline.clone(),
            by: happened.by.clone(),
            reason: happened.reason.clone(),
            onset_at: opened.onset().map(rfc3339),
            judged_since: opened.judged_since().map(rfc3339),
            covers: Covers { from: rfc3339(from), until: rfc3339(until) },
            harm: opened.harm(&versions, from, moments),
            verdict: happened.verdict.clone(),
            rollout: happened.rollout.as_deref().cloned(),
            timeline: timeline(opened, events),
            journal,
            versions,
            process: ProcessFacts {
                instance,
                binary: env!("CARGO_PKG_VERSION").to_owned(),
                config_hash: config_hash.clone(),
                generation: *generation,
            },
        }
    }
}

/// `versions`, and those that only the report `before` has; that of the incident first, then the baseline.
fn with_those_of(before: Option<&Incident>, mut versions: Vec<VersionCurve>) -> Vec<VersionCurve> {
    let old = before.into_iter().flat_map(|before| &before.versions);
    let is_gone = |old: &&VersionCurve| versions.iter().all(|version| version.name != old.name);
    let gone: Vec<_> = old.filter(is_gone).cloned().collect();
    versions.extend(gone);
    versions.sort_by_key(|version| match version.role {
        Role::Subject => 0,
        Role::Baseline => 1,
        Role::Other => 2,
    });
    versions
}

/// `events`, the onset, and the transitions of a rollout, the oldest first.
fn timeline(opened: &Opened, mut events: Vec<Moment>) -> Vec<Moment> {
    events.extend(opened.onset().map(|onset| began(onset, opened)));
    events.extend(opened.judged_since().map(|since| judged(since, opened)));
    let turns = opened.happened.rollout.iter().flat_map(|review| &review.transitions);
    events.extend(turns.filter_map(|turn| {
        let what = format!("{}: {} to {}", turn.on, turn.from, turn.to);
        Some(Moment {
            source: MomentSource::Rollout,
            subject: Some(format!("step {}", turn.step)),
            by: Some(turn.by.clone()),
            ..Moment::event(parsed(&turn.at)?, opened.at, &what, turn.reason.clone())
        })
    }));
    events.sort_by(|a, b| a.offset_s.total_cmp(&b.offset_s));
    causes_first(&mut events);
    events
}

/// How close a cause may follow on its effect in the timeline, in seconds: both happen in one swap, and are told one after
/// the other.
const AT_ONCE_S: f64 = 0.25;

/// Puts an ejection before the end of the rollout that it caused.
fn causes_first(moments: &mut [Moment]) {
    let is_end = |moment: &Moment| {
        matches!(&*moment.what, "rollout_rolled_back" | "rolled_back")
            || moment.source == MomentSource::Rollout && moment.what.starts_with("ejected: ")
    };
    for at in 1..moments.len() {
        let ejection = &moments[at];
        if ejection.what != "ejected" || ejection.source != MomentSource::Event {
            continue;
        }
        let (near, before) = (ejection.offset_s - AT_ONCE_S, &moments[..at]);
        let first = before.iter().position(|moment| moment.offset_s >= near && is_end(moment));
        if let Some(first) = first {
            moments[first..=at].rotate_right(1);
        }
    }
}

impl Moment {
    /// An event at `at`, around an incident at `origin`, without what may be missing.
    pub fn event(at: SystemTime, origin: SystemTime, what: &str, reason: String) -> Self {
        Self {
            at: rfc3339(at),
            offset_s: offset_s(at, origin),
            source: MomentSource::Event,
            what: what.to_owned(),
            subject: None,
            by: None,
            reason,
            incident: None,
        }
    }
}

/// The onset as a moment.
fn began(onset: SystemTime, opened: &Opened) -> Moment {
    let why = match opened.happened.cause() {
        Some(verdict) if verdict.alone => "it began to be worse than its limit here, most likely",
        _ => "the difference began here, most likely",
    };
    of_verdict(onset, opened, "onset", why)
}

/// The begin of the judging as a moment.
fn judged(since: SystemTime, opened: &Opened) -> Moment {
    let why = "it was judged from here on, without a baseline";
    of_verdict(since, opened, "judged since", why)
}

fn of_verdict(at: SystemTime, opened: &Opened, what: &str, why: &str) -> Moment {
    let ejected = opened.happened.ejected_at.unwrap_or(opened.at);
    let kept = opened.happened.cause().map_or(0.0, |verdict| verdict.kept().as_secs_f64());
    let before = seconds(offset_s(ejected, at) - kept);
    Moment {
        source: MomentSource::Verdict,
        subject: Some(opened.happened.version.clone()),
        by: Some("verdict".to_owned()),
        ..Moment::event(at, opened.at, what, format!("{why}: {before} before the verdict"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example::{at, evidence, opened};

    #[test]
    fn a_report_has_the_onset_and_everything_in_its_order() {
        let (opened, evidence) = (opened(), evidence());
        let report = Incident::new(&opened, evidence.clone(), State::Open, None);
        assert_eq!(report.title, "game-api v42 was ejected");
        assert_eq!(report.onset_at.as_deref(), Some("2026-11-27T23:14:59.100Z"));
        let order: Vec<_> = report.timeline.iter().map(|m| (m.offset_s, &*m.what)).collect();
        assert_eq!(
            order,
            [(-180.0, "weights"), (-0.9, "onset"), (0.0, "ejected"), (12.0, "weights")]
        );
        let roles: Vec<_> = report.versions.iter().map(|v| (&*v.name, v.role)).collect();
        assert_eq!(roles, [("v42", Role::Subject), ("v41", Role::Baseline)]);
        let text = serde_json::to_string(&report).expect("JSON");
        assert_eq!(serde_json::from_str::<Incident>(&text).expect("the same"), report);

        // The canary has left the file before the report was completed.
        let mut later = evidence;
        later.versions.retain(|version| version.role == Role::Baseline);
        later.until = at(60.0);
        let complete = Incident::new(&opened, later, State::Complete, Some(&report));
        assert_eq!(complete.versions, report.versions);
        assert_eq!(complete.state, State::Complete);
    }

    #[test]
    fn a_verdict_without_a_baseline_says_since_when_it_judged() {
        let mut opened = opened();
        opened.happened.verdict.as_mut().expect("one").alone = true;
        let report = Incident::new(&opened, evidence(), State::Open, None);
        assert_eq!(report.onset_at.as_deref(), Some("2026-11-27T23:14:59.100Z"));
        let onset =
            report.timeline.iter().find(|moment| moment.what == "onset").expect("it is there");
        assert!(onset.reason.contains("than its limit here"), "{}", onset.reason);
        assert_eq!(report.judged_since.as_deref(), Some("2026-11-27T23:10:59.100Z"));
        let judged = report.timeline.iter().find(|moment| moment.what == "judged since");
        let why = &judged.expect("it is in the timeline").reason;
        assert!(why.contains("without a baseline") && !why.contains("difference"), "{why}");
    }

    #[test]
    fn a_rollback_after_an_ejection_has_the_same_onset() {
        let mut opened = opened();
        opened.happened.ejected_at = Some(opened.at);
        opened.at = at(1.5);
        opened.happened.kind = Kind::RolloutRolledBack;
        let report = Incident::new(&opened, evidence(), State::Open, None);
        assert_eq!(report.onset_at.as_deref(), Some("2026-11-27T23:14:59.100Z"));
        assert_eq!(report.harm.counted_s, 1.5);
    }

    /// Regression: the report of a rollout that an ejection ended told its end before the ejection.
    #[test]
    fn an_ejection_is_told_before_what_it_caused() {
        let origin = at(0.0);
        let moment = |s: f64, what: &str| Moment::event(at(s), origin, what, String::new());
        let turn = Moment {
            source: MomentSource::Rollout,
            ..moment(0.0, "ejected: growing to rolled_back")
        };
        let mut moments = vec![
            moment(-1.0, "rolled_back"),
            turn,
            moment(0.0, "rollout_rolled_back"),
            moment(0.001, "ejected"),
            moment(0.002, "weights"),
        ];
        causes_first(&mut moments);
        let order: Vec<&str> = moments.iter().map(|moment| &*moment.what).collect();
        let expected = [
            "rolled_back",
            "ejected",
            "ejected: growing to rolled_back",
            "rollout_rolled_back",
            "weights",
        ];
        assert_eq!(order, expected);
    }

    /// Regression: of a rollout whose smoke check failed before its first step, requests since that step were counted.
    #[test]
    fn a_rollout_that_took_no_step_harmed_nobody() {
        let mut opened = opened();
        opened.happened.kind = Kind::RolloutRolledBack;
        opened.happened.verdict = None;
        let step = crate::incident::ReviewedStep {
            step: 1,
            share: 0.05,
            demands: String::new(),
            began_at: None,
            lasted_s: None,
            gates: vec!["smoke login (guardrail): fail, status 500".to_owned()],
        };
        assert_eq!(step.why_not_begun(), "not begun");
        opened.happened.rollout = Some(Box::new(Review {
            to: "v42".to_owned(),
            plan: None,
            by: "ci".to_owned(),
            reason: String::new(),
            started_at: rfc3339(at(-5.0)),
            ended_at: rfc3339(at(0.0)),
            ended: "rolled_back".to_owned(),
            cause: "smoke login fails: status 500".to_owned(),
            steps: vec![step],
            transitions: Vec::new(),
        }));
        let harm = Incident::new(&opened, evidence(), State::Open, None).harm;
        assert_eq!((harm.estimate, harm.requests, harm.failures), (Some(0.0), 0, 0));
        assert!(harm.how.contains("before its first step"), "{}", harm.how);
    }

    #[test]
    fn a_comparison_that_was_undecided_caused_nothing() {
        let mut opened = opened();
        let verdict = opened.happened.verdict.as_mut().expect("one");
        verdict.answer = Answer::Undecided;
        opened.happened.by = "ops".to_owned();
        let report = Incident::new(&opened, evidence(), State::Open, None);
        assert_eq!(
            (report.onset_at, report.harm.source),
            (None, super::super::HarmSource::Counters)
        );
        assert!(report.verdict.is_some());
    }
}
