//! The question whether a version passes a smoke check.

use serde::{Deserialize, Serialize};

/// `POST /v1/services/{s}/smoke`: what is to be checked. The answer is a
/// [`SmokeReport`](crate::rollout::SmokeReport).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmokeQuestion {
    /// The version.
    pub version: String,
    /// The smoke check.
    pub check: String,
}
