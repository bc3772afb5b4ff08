//! The report of an incident as data. Names of fields are part of the public contract.
//!
//! Times are UTC, in RFC 3339 with milliseconds. A field `offset_s` or `from_s` is in seconds since the incident,
//! negative before it.

use serde::{Deserialize, Serialize};

use super::{
    curve::VersionCurve,
    harm::Harm,
    id::Id,
    kind::{Kind, State},
    review::Review,
};
use crate::{analysis::Verdict, store::Stored, telemetry::rfc3339};

/// The form of these documents; a release that reads another one says so.
pub(super) const FORM: u32 = 1;

/// A report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// The form of the document: 1.
    pub form: u32,
    /// Its name.
    pub id: Id,
    /// What happened.
    pub kind: Kind,
    /// Whether the time after it is known.
    pub state: State,
    /// What happened, as a sentence without a full stop.
    pub title: String,
    /// When.
    pub at: String,
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Address of the endpoint, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The route with limits of its own, if the verdict is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The version that others are compared with, if the configuration has the service.
    pub baseline: Option<String>,
    /// Who caused it: a token's name, `verdict`, or the like.
    pub by: String,
    /// The reason or the evidence.
    pub reason: String,
    /// When the difference began, most likely; only with a verdict that compared with a baseline.
    pub onset_at: Option<String>,
    /// Since when it was judged without a baseline; only with such a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_since: Option<String>,
    /// The time of the curves.
    pub covers: Covers,
    /// Requests harmed.
    pub harm: Harm,
    /// The verdict that caused it, or the comparison as it was then; absent if nothing was compared.
    pub verdict: Option<Verdict>,
    /// The rollout that has ended, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Review>,
    /// What happened around it, the oldest first.
    pub timeline: Vec<Moment>,
    /// Entries of the journal around it, the oldest first; empty without a journal.
    pub journal: Vec<JournalEntry>,
    /// Rates and latency of the versions, that of the incident first.
    pub versions: Vec<VersionCurve>,
    /// The process that wrote it.
    pub process: ProcessFacts,
}

/// A span of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Covers {
    /// Its beginning.
    pub from: String,
    /// Its end.
    pub until: String,
}

/// Something that happened around the incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at: String,
    /// In seconds since the incident.
    pub offset_s: f64,
    /// Where this comes from.
    pub source: MomentSource,
    /// What: the kind of an event, or the transition of a rollout.
    pub what: String,
    /// The version, and the endpoint, if it is about one.
    pub subject: Option<String>,
    /// Who caused it.
    pub by: Option<String>,
    /// Why.
    pub reason: String,
    /// The name of its own report, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Id>,
}

/// Where a moment of the timeline comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentSource {
    /// The events of the process.
    Event,
    /// The transitions of the rollout.
    Rollout,
    /// The verdict.
    Verdict,
}

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Its position.
    pub seq: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
    /// When.
    pub at: String,
    /// The kind of change.
    pub kind: String,
    /// The service, if it is about one.
    pub service: Option<String>,
    /// Who made the change.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl From<&Stored> for JournalEntry {
    fn from(stored: &Stored) -> Self {
        let entry = &stored.entry;
        Self {
            seq: entry.seq,
            hash: stored.hash.to_string(),
            at: rfc3339::millis(entry.at).to_string(),
            kind: entry.kind.clone(),
            service: entry.service.clone(),
            by: entry.actor.name.clone(),
            reason: entry.reason.clone(),
        }
    }
}

/// The process that wrote a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Its name in alerts: host and port.
    pub instance: String,
    /// The version of Tidegate.
    pub binary: String,
    /// Hash of the configuration in force, as the status shows it.
    pub config_hash: String,
    /// Generation of the snapshot in force after the incident.
    pub generation: u64,
}

/// An incident in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub id: Id,
    /// What happened.
    pub kind: Kind,
    /// Whether the time after it is known.
    pub state: State,
    /// What happened, as a sentence without a full stop.
    pub title: String,
    /// When.
    pub at: String,
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Who caused it.
    pub by: String,
    /// The reason or the evidence.
    pub reason: String,
    /// Estimate of requests harmed; null if there is none.
    pub harmed: Option<f64>,
    /// The incident that counts what failed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_in: Option<Id>,
    /// Where the admin endpoint shows it.
    pub path: String,
}

impl From<&Incident> for Summary {
    fn from(incident: &Incident) -> Self {
        Self {
            id: incident.id.clone(),
            kind: incident.kind,
            state: incident.state,
            title: incident.title.clone(),
            at: incident.at.clone(),
            service: incident.service.clone(),
            version: incident.version.clone(),
            by: incident.by.clone(),
            reason: incident.reason.clone(),
            harmed: incident.harm.estimate,
            counted_in: incident.harm.counted_in.clone(),
            path: incident.id.path(),
        }
    }
}
