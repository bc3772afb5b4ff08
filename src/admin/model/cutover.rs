//! Requests for a cutover or the way back, and their response.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::Shares;
use crate::config::units::Weight;

/// Body of `POST /v1/services/{s}/cutover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutoverRequest {
    /// The version that gets all traffic.
    pub to: String,
    /// Why, for the log; at most [`WeightsRequest::REASON_CHARS`](super::WeightsRequest::REASON_CHARS) characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST /v1/services/{s}/rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Why, as in [`CutoverRequest::reason`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer to `POST /v1/services/{s}/cutover` and `/rollback`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CutoverAnswer {
    /// First generation with the split; for a dry run the current one.
    pub generation: u64,
    /// The service.
    pub service: String,
    /// Weights before, by version.
    pub before: IndexMap<String, Weight>,
    /// Weights after, by version.
    pub after: IndexMap<String, Weight>,
    /// The resulting shares.
    pub shares: Shares,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Requests in flight, when this was answered, on the versions that lost their players.
    pub left_in_flight: IndexMap<String, u64>,
    /// A sentence for each route and rule of the file that names a version which lost its players: they still
    /// send their requests there.
    #[serde(default)]
    pub named: Vec<String>,
}
