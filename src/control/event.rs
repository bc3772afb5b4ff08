//! An event: its kind, its subject and the reason.

use serde::{Deserialize, Serialize};

use crate::{analysis::Verdict, incident::Id, store::Head};

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The process started to serve.
    Started,
    /// An operator changed the weights of a service.
    Weights,
    /// All traffic of a service was moved to a version, or back to the split before.
    Cutover,
    /// A cutover was undone: writes stay where they were.
    CutoverUndone,
    /// A changed file was applied.
    Configuration,
    /// An invalid file changed nothing.
    ConfigurationRejected,
    /// A version was ejected.
    Ejected,
    /// A version would have been ejected, but the comparison is advisory.
    WouldEject,
    /// A version without a baseline is worse than its limits; it is not ejected.
    WorseAlone,
    /// A version is worse, and is kept: no other version works that would get its players.
    WorseKept,
    /// A few players cause nearly all failures of a version; its other players do not fail more often.
    FewPlayers,
    /// A version refuses more requests (4xx) than the baseline.
    RefusalsRise,
    /// The players who failed on an ejected version fail on other versions as well.
    EjectionMistaken,
    /// A version was reinstated.
    Reinstated,
    /// Evidence against a version is above half of its threshold.
    NearMiss,
    /// Evidence against a version has fallen well below its threshold again.
    NearMissOver,
    /// The comparison of a version that was worse or a near-miss has ended.
    ComparisonEnded,
    /// The baseline and the canaries both fail.
    SharedOutage,
    /// The baseline serves again.
    SharedOutageOver,
    /// An operator moved the pins of a version to another one.
    PinsMoved,
    /// Something is read-only, or no longer.
    Mode,
    /// A notice was set, changed or taken back, or is over.
    Notice,
    /// An endpoint was ejected.
    EndpointEjected,
    /// An endpoint would have been ejected, but the comparison is advisory.
    EndpointWouldEject,
    /// An endpoint's checks fail.
    EndpointDown,
    /// An ejected endpoint is probed.
    EndpointProbing,
    /// An endpoint serves again.
    EndpointServing,
    /// Connections to the only endpoint of a version fail.
    EndpointUnreachable,
    /// Connections to the only endpoint of a version succeed again.
    EndpointReached,
    /// So few endpoints of a version serve that ejected ones are used, too.
    HealthPanic,
    /// Enough endpoints serve again.
    HealthPanicOver,
    /// A rollout was started.
    RolloutStarted,
    /// A rollout took a step, or somebody held it, let it go on, or sent it back.
    Rollout,
    /// A rollout is done: its version has all players.
    RolloutDone,
    /// A rollout was rolled back: the split before it is in force.
    RolloutRolledBack,
    /// A rollout was given up.
    RolloutAborted,
    /// A step of a rollout waits for a person to approve it.
    RolloutWantsApproval,
    /// Something about a rollout that people should know.
    RolloutWarning,
    /// The journal cannot be written: changes on request are refused.
    JournalFailing,
    /// The journal can be written again.
    JournalWorks,
    /// The journal is not as it was written: entries were changed, taken out or cut off.
    JournalNotIntact,
    /// Idempotency keys cannot be written: their requests are refused.
    IdempotencyFailing,
    /// Idempotency keys can be written again.
    IdempotencyWorks,
    /// The file of idempotency keys was removed or replaced while it was in use; its keys are in the one there now.
    IdempotencyMoved,
    /// A changed file makes idempotency keys unknown to their routes.
    IdempotencyForgotten,
    /// The keys of an issuer of tokens have never come: its tokens cannot be verified.
    JwtMissing,
    /// An issuer of tokens has no keys any more: all its tokens are refused.
    JwtRevoked,
    /// An issuer of tokens has keys again.
    JwtRestored,
}

impl EventKind {
    /// Kinds without any effect, which no other metric shows.
    pub const COUNTED: [Self; 3] = [Self::FewPlayers, Self::RefusalsRise, Self::EjectionMistaken];

    /// The name in the API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Weights => "weights",
            Self::Cutover => "cutover",
            Self::CutoverUndone => "cutover_undone",
            Self::Configuration => "configuration",
            Self::ConfigurationRejected => "configuration_rejected",
            Self::Ejected => "ejected",
            Self::WouldEject => "would_eject",
            Self::WorseAlone => "worse_alone",
            Self::WorseKept => "worse_kept",
            Self::FewPlayers => "few_players",
            Self::RefusalsRise => "refusals_rise",
            Self::EjectionMistaken => "ejection_mistaken",
            Self::Reinstated => "reinstated",
            Self::NearMiss => "near_miss",
            Self::NearMissOver => "near_miss_over",
            Self::ComparisonEnded => "comparison_ended",
            Self::SharedOutage => "shared_outage",
            Self::SharedOutageOver => "shared_outage_over",
            Self::PinsMoved => "pins_moved",
            Self::Mode => "mode",
            Self::Notice => "notice",
            Self::EndpointEjected => "endpoint_ejected",
            Self::EndpointWouldEject => "endpoint_would_eject",
            Self::EndpointDown => "endpoint_down",
            Self::EndpointProbing => "endpoint_probing",
            Self::EndpointServing => "endpoint_serving",
            Self::EndpointUnreachable => "endpoint_unreachable",
            Self::EndpointReached => "endpoint_reached",
            Self::HealthPanic => "health_panic",
            Self::HealthPanicOver => "health_panic_over",
            Self::RolloutStarted => "rollout_started",
            Self::Rollout => "rollout",
            Self::RolloutDone => "rollout_done",
            Self::RolloutRolledBack => "rollout_rolled_back",
            Self::RolloutAborted => "rollout_aborted",
            Self::RolloutWantsApproval => "rollout_wants_approval",
            Self::RolloutWarning => "rollout_warning",
            Self::JournalFailing => "journal_failing",
            Self::JournalWorks => "journal_works",
            Self::JournalNotIntact => "journal_not_intact",
            Self::IdempotencyFailing => "idempotency_failing",
            Self::IdempotencyWorks => "idempotency_works",
            Self::IdempotencyMoved => "idempotency_moved",
            Self::IdempotencyForgotten => "idempotency_forgotten",
            Self::JwtMissing => "jwt_missing",
            Self::JwtRevoked => "jwt_revoked",
            Self::JwtRestored => "jwt_restored",
        }
    }
}

/// Subject and reason of an event; fields that do not apply are absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventDetails {
    /// The service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Address of one of its endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The route with limits of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The share of players, 0 to 1, that a reinstated version gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// What was done, where one kind stands for several: the command of a person to a rollout, or what it did by itself,
    /// as the journal names it; `rollback` of a cutover that led back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Who caused it: a token's name, `verdict`, or the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The second person, if one agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
    /// The reason or the evidence.
    #[serde(default)]
    pub reason: String,
    /// The numbers of the comparison that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Whether it was reported at its time already: by the previous process, or before the version left the
    /// file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub carried_over: bool,
    /// Its entry in the journal, if that was written first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Head>,
    /// Its report, if it is an incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentRef>,
}

/// The report of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRef {
    /// Its name.
    pub id: Id,
    /// Where the admin endpoint shows it.
    pub path: String,
}

impl From<Id> for IncidentRef {
    fn from(id: Id) -> Self {
        Self { path: id.path(), id }
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number, larger than those of all earlier events.
    pub id: u64,
    /// When, in UTC, RFC 3339 with milliseconds.
    pub at: String,
    /// The kind.
    pub kind: EventKind,
    /// Generation of the snapshot in force after it.
    pub generation: u64,
    /// Subject and reason.
    #[serde(flatten)]
    pub matter: EventDetails,
}

/// The command that reinstates `version` of `service`.
pub fn way_back(service: &str, version: &str) -> String {
    format!("tidegate reinstate {service} {version}")
}
