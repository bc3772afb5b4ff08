//! How an operator asks for an ejection or a reinstatement, and what became of it.

use crate::control::state::ManualEjection;

/// A version, or one of its endpoints, to take out or back in.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The endpoint's address; nothing for the whole version.
    pub endpoint: Option<String>,
    /// The generation that the caller saw; another one in force refuses the change.
    pub if_generation: Option<u64>,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// Only tell what would change.
    pub dry_run: bool,
}

/// What became of a version, or of an endpoint, that was to be ejected or reinstated.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// Generation in force afterwards.
    pub generation: u64,
    /// Who had ejected it before; nothing was changed then.
    pub already: Option<ManualEjection>,
    /// The share of players, 0 to 1, that a reinstated version gets.
    pub share: Option<f64>,
}

impl Moved {
    pub(super) fn to(generation: u64) -> Self {
        Self { generation, already: None, share: None }
    }
}
