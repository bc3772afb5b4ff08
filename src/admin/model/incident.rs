//! Lists of incidents.

use serde::{Deserialize, Serialize};

use crate::incident::Summary;

/// `GET /v1/incidents`: incidents, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentList {
    /// The incidents.
    pub incidents: Vec<Summary>,
    /// Where they are kept; an earlier release does not say so.
    #[serde(default)]
    pub kept_in: Option<KeptIn>,
}

/// Where reports are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptIn {
    /// In the folder `state`.
    State,
    /// In memory only: a restart loses them, a takeover hands them over.
    Memory,
}
