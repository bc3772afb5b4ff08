//! Lists of incidents.

use serde::{Deserialize, Serialize};

use crate::incident::Summary;

/// `GET /v1/incidents`: incidents, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentList {
    /// The incidents.
    pub incidents: Vec<Summary>,
}
