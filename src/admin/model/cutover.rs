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
    /// Whether writes are held meanwhile. Default: if the service has a fence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<bool>,
    /// Whether it is made although no endpoint of the version can be reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Body of `POST /v1/services/{s}/rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// As in [`CutoverRequest::fence`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<bool>,
    /// As in [`CutoverRequest::force`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
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
    /// The epoch of the service's writes, as its versions see it now; null if the service has no fence.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Whether writes were held, or would be.
    #[serde(default)]
    pub fenced: bool,
    /// Writes that were held until it was their turn, also if a read-only mode that began meanwhile refused them then.
    #[serde(default)]
    pub writes_held: u64,
    /// Writes that got 503 because too many were held.
    #[serde(default)]
    pub writes_refused: u64,
    /// Writes that got 408 because their bodies had not arrived in half of the deadline.
    #[serde(default)]
    pub uploads_cut: u64,
    /// The longest time that a write was held, in milliseconds.
    #[serde(default)]
    pub longest_hold_ms: f64,
    /// Requests in flight, when this was answered, on the versions that lost their players.
    pub left_in_flight: IndexMap<String, u64>,
    /// A sentence for each route and rule of the file that names a version which lost its players: they still
    /// send their requests there.
    #[serde(default)]
    pub named: Vec<String>,
    /// Of `rollback` without a fence: why its entry is not in the journal yet, in which case it follows; null if it is
    /// there, or there is no journal.
    #[serde(default)]
    pub unwritten: Option<String>,
}
