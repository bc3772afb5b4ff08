//! Arguments and results of manual ejection and reinstatement.

use indexmap::IndexMap;

use crate::control::state::ManualEjection;

/// A version, or one of its endpoints, to eject or reinstate.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The endpoint's address; `None` for the whole version.
    pub endpoint: Option<String>,
    /// The generation that the caller saw; the change is refused if somebody made a change since.
    pub if_generation: Option<u64>,
    /// The caller's name.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// Only report what would change.
    pub dry_run: bool,
}

/// The result of an ejection or a reinstatement.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// Generation in force afterwards.
    pub generation: u64,
    /// Who had ejected it before; in that case nothing was changed.
    pub already: Option<ManualEjection>,
    /// The share of players that a reinstated version gets, 0 to 1.
    pub share: Option<f64>,
    /// The effect of the ejection of a version.
    pub effect: Option<Effect>,
}

/// The effect of the ejection of a version on the shares of its service.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// Shares of players before, 0 to 1, by version.
    pub before: IndexMap<String, f64>,
    /// Shares of players after, 0 to 1, by version.
    pub after: IndexMap<String, f64>,
    /// Versions that were compared with the baseline, and have nothing left to be compared with.
    pub uncompared: Vec<String>,
}

impl Moved {
    pub(super) fn to(generation: u64) -> Self {
        Self { generation, already: None, share: None, effect: None }
    }
}
