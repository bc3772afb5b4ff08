//! Alerts that fire now, in the form in which Prometheus sends alerts to its Alertmanager.
//!
//! Events begin and end alerts. Every message to a receiver contains all firing alerts and, for a while, those
//! that have ended. Each alert has an expiry time, after which the receiver may drop it if no further message
//! comes. So the next message repairs the effect of a lost one or of a restarted receiver.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::event::{EventDetails, EventKind, way_back};
use crate::{store::Head, telemetry::rfc3339};

/// How long the alert of an event without an end fires; the same as in the rules for Prometheus.
const MOMENT: Duration = Duration::from_secs(600);

/// How long an alert is still sent after it has ended.
const SENT_AFTER_END: Duration = Duration::from_secs(15 * 60);

/// Repetitions that a receiver may miss before it considers an alert ended.
const MISSED: u32 = 4;

/// The labels of an alert, without those that the configuration adds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertKey {
    /// The name of the alert.
    pub name: AlertName,
    /// The service; `None` if the alert is about the process.
    pub service: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// An endpoint of the version.
    pub endpoint: Option<String>,
}

/// Name of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertName {
    /// A version is ejected.
    VersionEjected,
    /// The players who failed on an ejected version fail on the other versions as well.
    EjectionMistaken,
    /// A few players cause nearly all failures of a version.
    FewPlayers,
    /// A version is worse but is not ejected: the comparison is advisory, or no other version serves.
    VersionWorse,
    /// Evidence is above half of the threshold.
    NearMiss,
    /// Baseline and canaries both fail.
    SharedOutage,
    /// An endpoint is ejected.
    EndpointOut,
    /// A rollout went back to the split before it.
    RolloutRolledBack,
    /// A step of a rollout waits for an approval.
    RolloutWantsApproval,
    /// A rollout waits for people, or its evidence is not believed.
    RolloutWaits,
    /// The journal cannot be written.
    JournalFailing,
    /// The journal is not as it was written.
    JournalNotIntact,
    /// Idempotency keys cannot be written.
    IdempotencyFailing,
}

impl AlertName {
    /// The label `alertname`.
    fn label(self) -> &'static str {
        match self {
            Self::VersionEjected => "TidegateVersionEjected",
            Self::EjectionMistaken => "TidegateEjectionMistaken",
            Self::FewPlayers => "TidegateFewPlayers",
            Self::VersionWorse => "TidegateVersionWorse",
            Self::NearMiss => "TidegateNearMiss",
            Self::SharedOutage => "TidegateSharedOutage",
            Self::EndpointOut => "TidegateEndpointOut",
            Self::RolloutRolledBack => "TidegateRolloutRolledBack",
            Self::RolloutWantsApproval => "TidegateRolloutWantsApproval",
            Self::RolloutWaits => "TidegateRolloutWaits",
            Self::JournalFailing => "TidegateJournalFailing",
            Self::JournalNotIntact => "TidegateJournalNotIntact",
            Self::IdempotencyFailing => "TidegateIdempotencyFailing",
        }
    }

    fn severity(self) -> &'static str {
        match self {
            Self::VersionEjected
            | Self::SharedOutage
            | Self::JournalFailing
            | Self::JournalNotIntact
            | Self::IdempotencyFailing => "critical",
            Self::EjectionMistaken
            | Self::FewPlayers
            | Self::VersionWorse
            | Self::NearMiss
            | Self::RolloutRolledBack
            | Self::RolloutWantsApproval
            | Self::RolloutWaits
            | Self::EndpointOut => "warning",
        }
    }

    /// What is wrong, to follow the name of the subject.
    fn summary(self) -> &'static str {
        match self {
            Self::VersionEjected => "is ejected",
            Self::EjectionMistaken => "was ejected, but its players still fail",
            Self::FewPlayers => "has nearly all its failures from a few players",
            Self::VersionWorse => "is worse than tolerated, but is not ejected",
            Self::NearMiss => "is near its ejection: evidence is above half of the threshold",
            Self::SharedOutage => "baseline and canaries fail alike",
            Self::EndpointOut => "gets no requests",
            Self::RolloutRolledBack => "was rolled back: the split before its rollout is in force",
            Self::RolloutWantsApproval => "has a rollout that waits for an approval",
            Self::RolloutWaits => "has a rollout that needs somebody",
            Self::JournalFailing => "the journal cannot be written, so changes are refused",
            Self::JournalNotIntact => "the journal is not as it was written",
            Self::IdempotencyFailing => {
                "idempotency keys cannot be written, so writes with a key are refused"
            }
        }
    }
}

impl AlertKey {
    /// Service, version and endpoint as text, for receivers that do not show labels.
    fn place(&self) -> String {
        let service = self.service.clone().unwrap_or_else(|| "tidegate".to_owned());
        let rest = self.version.iter().chain(&self.endpoint);
        rest.fold(service, |place, part| format!("{place} {part}"))
    }

    fn summary(&self) -> String {
        let gap = if self.version.is_some() { "" } else { ":" };
        format!("{}{gap} {}", self.place(), self.name.summary())
    }

    /// Why the alert fires at `instance`, and how an ejected version returns.
    fn description(&self, reason: &str, instance: &str) -> String {
        let place = format!("{} at {instance}", self.place());
        match (&self.name, &self.service, &self.version) {
            (AlertName::VersionEjected, Some(service), Some(version)) => {
                let stop = if reason.is_empty() || reason.ends_with('.') { "" } else { "." };
                let back = way_back(service, version);
                let gap = if reason.is_empty() { "" } else { " " };
                format!("{place}: {reason}{stop}{gap}`{back}` reinstates it.")
            }
            _ => format!("{place}: {reason}"),
        }
    }
}

/// When the alert began and ended, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    began: SystemTime,
    ended: Option<SystemTime>,
    reason: String,
    /// The entry in the journal of the change that began it, if that was written first.
    journal: Option<Head>,
    /// Where the admin endpoint shows the report, if it is an incident.
    report: Option<String>,
}

/// All alerts that fire or ended recently.
#[derive(Debug, Default)]
pub struct Alerts {
    states: BTreeMap<AlertKey, State>,
}

/// An alert in the form of Alertmanager's API, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Posted {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: String,
    ends_at: String,
}

impl Alerts {
    /// Updates the alerts after an event at `now`.
    pub(super) fn follow(&mut self, kind: EventKind, matter: &EventDetails, now: SystemTime) {
        let subject = |name, version: bool, endpoint: bool| AlertKey {
            name,
            service: matter.service.clone(),
            version: matter.version.clone().filter(|_| version),
            endpoint: matter.endpoint.clone().filter(|_| endpoint),
        };
        let version = |name| subject(name, true, false);
        let endpoint = || subject(AlertName::EndpointOut, true, true);
        let of_process = |name| subject(name, false, false);
        match kind {
            EventKind::JournalFailing => {
                self.begin(of_process(AlertName::JournalFailing), matter, now);
            }
            EventKind::JournalWorks => self.end(&of_process(AlertName::JournalFailing), now),
            EventKind::JournalNotIntact => {
                self.begin(of_process(AlertName::JournalNotIntact), matter, now);
            }
            EventKind::IdempotencyFailing => {
                self.begin(of_process(AlertName::IdempotencyFailing), matter, now);
            }
            EventKind::IdempotencyWorks => {
                self.end(&of_process(AlertName::IdempotencyFailing), now);
            }
            // The others are about a service.
            _ if matter.service.is_none() => {}
            EventKind::Ejected => {
                for name in [AlertName::NearMiss, AlertName::VersionWorse] {
                    self.end(&version(name), now);
                }
                self.begin(version(AlertName::VersionEjected), matter, now);
            }
            EventKind::EjectionMistaken => {
                self.note(version(AlertName::EjectionMistaken), matter, now);
            }
            EventKind::FewPlayers => {
                self.note(version(AlertName::FewPlayers), matter, now);
            }
            EventKind::Reinstated => self.end(&version(AlertName::VersionEjected), now),
            EventKind::WouldEject | EventKind::WorseAlone | EventKind::WorseKept => {
                self.end(&version(AlertName::NearMiss), now);
                self.begin(version(AlertName::VersionWorse), matter, now);
            }
            EventKind::NearMiss => self.begin(version(AlertName::NearMiss), matter, now),
            EventKind::NearMissOver => self.end(&version(AlertName::NearMiss), now),
            EventKind::ComparisonEnded => {
                for name in [AlertName::NearMiss, AlertName::VersionWorse] {
                    self.end(&version(name), now);
                }
            }
            EventKind::SharedOutage => {
                self.begin(subject(AlertName::SharedOutage, false, false), matter, now);
            }
            EventKind::SharedOutageOver => {
                self.end(&subject(AlertName::SharedOutage, false, false), now)
            }
            EventKind::EndpointEjected
            | EventKind::EndpointDown
            | EventKind::EndpointUnreachable => {
                self.begin(endpoint(), matter, now);
            }
            EventKind::EndpointServing | EventKind::EndpointReached => self.end(&endpoint(), now),
            // A probed endpoint is still ejected. Advice about one of several endpoints is not urgent.
            EventKind::EndpointProbing | EventKind::EndpointWouldEject => {}
            // Each endpoint of the version has an alert of its own.
            EventKind::HealthPanic | EventKind::HealthPanicOver => {}
            // People did that, and no key is lost, or they mean it; or the rules from the metrics alert.
            EventKind::IdempotencyMoved
            | EventKind::IdempotencyForgotten
            | EventKind::JwtMissing
            | EventKind::JwtRevoked
            | EventKind::JwtRestored => {}
            // More refused requests may be intended.
            EventKind::RefusalsRise => {}
            EventKind::RolloutRolledBack => {
                self.end_of_rollout(version, now);
                self.note(version(AlertName::RolloutRolledBack), matter, now);
            }
            EventKind::RolloutWarning => {
                self.note(version(AlertName::RolloutWaits), matter, now);
            }
            EventKind::RolloutWantsApproval => {
                self.begin(version(AlertName::RolloutWantsApproval), matter, now);
            }
            // Leave to grow is no answer.
            EventKind::Rollout if matter.what.as_deref() == Some("break_in") => {}
            EventKind::Rollout => self.end(&version(AlertName::RolloutWantsApproval), now),
            EventKind::RolloutDone | EventKind::RolloutAborted => {
                self.end_of_rollout(version, now);
            }
            EventKind::RolloutStarted
            | EventKind::Started
            | EventKind::PinsMoved
            | EventKind::Mode
            | EventKind::Notice
            | EventKind::Weights
            | EventKind::Cutover
            | EventKind::CutoverUndone
            | EventKind::Configuration
            | EventKind::ConfigurationRejected => {}
        }
    }

    /// Nobody waits for anything any more.
    fn end_of_rollout(&mut self, version: impl Fn(AlertName) -> AlertKey, now: SystemTime) {
        for name in [AlertName::RolloutWaits, AlertName::RolloutWantsApproval] {
            self.end(&version(name), now);
        }
    }

    /// Ends, at `now`, the alerts for which `exists` returns false, and forgets those that ended long ago.
    pub(super) fn retain(&mut self, now: SystemTime, exists: impl Fn(&AlertKey) -> bool) {
        for (subject, state) in &mut self.states {
            if state.ended.is_none() && !exists(subject) {
                state.ended = Some(now);
            }
        }
        self.forget(now);
    }

    fn begin(&mut self, subject: AlertKey, matter: &EventDetails, now: SystemTime) {
        let state = State::new(now, None, matter);
        match self.states.get_mut(&subject) {
            // The alert fires already: it keeps its start and gets the new reason.
            Some(known) if known.ended.is_none() => {
                (known.reason, known.journal) = (state.reason, state.journal);
                known.report = state.report.or(known.report.take());
            }
            _ => drop(self.states.insert(subject, state)),
        }
    }

    /// Adds an alert for an event that has no end: it fires for [`MOMENT`].
    fn note(&mut self, subject: AlertKey, matter: &EventDetails, now: SystemTime) {
        let ended = Some(now + MOMENT);
        self.states.insert(subject, State::new(now, ended, matter));
    }

    fn end(&mut self, subject: &AlertKey, now: SystemTime) {
        if let Some(state) = self.states.get_mut(subject) {
            state.ended.get_or_insert(now);
        }
        self.forget(now);
    }

    fn forget(&mut self, now: SystemTime) {
        self.states.retain(|_, state| state.is_sent(now));
    }

    /// Whether an alert fires.
    pub fn any(&self) -> bool {
        self.states.values().any(|state| state.ended.is_none())
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// All alerts as sent at `now`, if they are sent again after `repeat`. `labels` are added to each, and
    /// `instance`, unless they have one: without it the end of an alert at one instance would end the same
    /// alert of another.
    pub fn posted(
        &self,
        now: SystemTime,
        repeat: Duration,
        labels: &BTreeMap<String, String>,
        instance: &str,
    ) -> Vec<Posted> {
        let instance = labels.get("instance").map_or(instance, String::as_str);
        let time = |at: SystemTime| rfc3339::millis(at).to_string();
        let sent = self.states.iter().filter(|(_, state)| state.is_sent(now));
        let each = sent.map(|(subject, state)| {
            let AlertKey { name, service, version, endpoint } = subject;
            let description = subject.description(&state.reason, instance);
            let mut all = labels.clone();
            let mut put = |key: &str, value: &str| all.insert(key.to_owned(), value.to_owned());
            put("instance", instance);
            put("alertname", name.label());
            put("severity", name.severity());
            service.iter().for_each(|service| drop(put("service", service)));
            version.iter().for_each(|version| drop(put("version", version)));
            endpoint.iter().for_each(|endpoint| drop(put("endpoint", endpoint)));
            let annotations = [("summary", subject.summary()), ("description", description)];
            let entry =
                state.journal.map(|head| ("journal", format!("{} {}", head.seq, head.hash)));
            let report = state.report.clone().map(|path| ("incident", path));
            Posted {
                labels: all,
                annotations: annotations.into_iter().chain(entry).chain(report).collect(),
                starts_at: time(state.began),
                ends_at: time(state.ended.unwrap_or(now + repeat * MISSED)),
            }
        });
        each.collect()
    }
}

impl State {
    fn new(began: SystemTime, ended: Option<SystemTime>, matter: &EventDetails) -> Self {
        let EventDetails { reason, journal, incident, .. } = matter.clone();
        Self { began, ended, reason, journal, report: incident.map(|incident| incident.path) }
    }

    fn is_sent(&self, now: SystemTime) -> bool {
        let since = |ended: SystemTime| now.duration_since(ended).unwrap_or(Duration::ZERO);
        self.ended.is_none_or(|ended| since(ended) < SENT_AFTER_END)
    }
}

#[cfg(test)]
mod tests;
