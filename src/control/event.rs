//! An event: what kind it is, what it is about and why.

use serde::{Deserialize, Serialize};

use crate::analysis::Verdict;

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An operator changed the weights of a service.
    Weights,
    /// The file was taken over.
    Configuration,
    /// A bad file changed nothing.
    ConfigurationRejected,
    /// A version was taken out.
    Ejected,
    /// A version would have been, if the comparison acted.
    WouldEject,
    /// A version that has no baseline beside it is worse than it may be; it stays.
    WorseAlone,
    /// A few players have nearly all failures of a version; the players of it do not fail more often.
    FewPlayers,
    /// A version refuses more requests (4xx) than the baseline.
    RefusalsRise,
    /// The players who failed on an ejected version go on failing elsewhere.
    EjectionMistaken,
    /// A version was taken back in.
    Reinstated,
    /// Evidence against a version is above half of its threshold.
    NearMiss,
    /// It is far from it again.
    NearMissOver,
    /// A version that was near its threshold, or worse, is compared no more.
    ComparisonEnded,
    /// Baseline and canaries both fail.
    SharedOutage,
    /// The baseline serves again.
    SharedOutageOver,
    /// An endpoint was taken out.
    EndpointEjected,
    /// An endpoint would have been, if the comparison acted.
    EndpointWouldEject,
    /// An endpoint's checks fail.
    EndpointDown,
    /// An endpoint is asked whether it could serve again.
    EndpointProbing,
    /// An endpoint serves again.
    EndpointServing,
    /// The only endpoint of a version cannot be connected.
    EndpointUnreachable,
    /// It can be again.
    EndpointReached,
    /// Too few endpoints of a version serve, so that others are used, too.
    HealthPanic,
    /// Enough serve again.
    HealthPanicOver,
}

impl EventKind {
    /// Kinds that change nothing by themselves, so that no other metric shows them.
    pub const COUNTED: [Self; 3] = [Self::FewPlayers, Self::RefusalsRise, Self::EjectionMistaken];

    /// As the API writes it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Configuration => "configuration",
            Self::ConfigurationRejected => "configuration_rejected",
            Self::Ejected => "ejected",
            Self::WouldEject => "would_eject",
            Self::WorseAlone => "worse_alone",
            Self::FewPlayers => "few_players",
            Self::RefusalsRise => "refusals_rise",
            Self::EjectionMistaken => "ejection_mistaken",
            Self::Reinstated => "reinstated",
            Self::NearMiss => "near_miss",
            Self::NearMissOver => "near_miss_over",
            Self::ComparisonEnded => "comparison_ended",
            Self::SharedOutage => "shared_outage",
            Self::SharedOutageOver => "shared_outage_over",
            Self::EndpointEjected => "endpoint_ejected",
            Self::EndpointWouldEject => "endpoint_would_eject",
            Self::EndpointDown => "endpoint_down",
            Self::EndpointProbing => "endpoint_probing",
            Self::EndpointServing => "endpoint_serving",
            Self::EndpointUnreachable => "endpoint_unreachable",
            Self::EndpointReached => "endpoint_reached",
            Self::HealthPanic => "health_panic",
            Self::HealthPanicOver => "health_panic_over",
        }
    }
}

/// What an event is about and why; what is not known or does not apply is absent.
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
    /// Who did it: a token's name, `verdict`, or the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, or what it shows on.
    #[serde(default)]
    pub reason: String,
    /// The numbers of the comparison behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Whether it happened in the process before this one, which told it then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub carried_over: bool,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its number, larger than those of all events before it.
    pub id: u64,
    /// When, in UTC, RFC 3339 with milliseconds.
    pub at: String,
    /// What kind.
    pub kind: EventKind,
    /// Generation of the snapshot in force behind it.
    pub generation: u64,
    /// What it is about and why.
    #[serde(flatten)]
    pub matter: EventDetails,
}

/// The command that takes `version` of `service` back in.
pub fn way_back(service: &str, version: &str) -> String {
    format!("tidegate reinstate {service} {version}")
}
