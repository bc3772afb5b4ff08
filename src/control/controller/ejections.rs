//! What is ejected, since when, by whom and why; and how an operator asks for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::analysis::{Record, Verdict};

/// Why and since when a version is ejected.
#[derive(Debug, Clone)]
pub struct Ejection {
    /// When, since the process started; of one that another process ejected, when this one took over.
    pub at: Duration,
    /// When, by the clock.
    pub since: SystemTime,
    /// Who ejected it: a token's name, or `verdict`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The verdict that ejected it, if one did, and the route with limits of its own it is about.
    pub verdict: Option<(Option<Box<str>>, Verdict)>,
    /// That it can be judged again.
    pub record: Option<Arc<Record>>,
}

/// Why and since when an operator keeps an endpoint out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualEjection {
    /// When.
    pub since: SystemTime,
    /// Who ejected it: a token's name.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Endpoints that operators keep out, by service, version and address.
pub type ManualEjections = BTreeMap<(String, String, String), ManualEjection>;

impl fmt::Display for Ejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", humantime::format_rfc3339_seconds(self.since), self.by)?;
        match self.reason.trim_end_matches('.') {
            "" => Ok(()),
            reason => write!(f, " ({reason})"),
        }
    }
}

/// Ejections in force, by service and version.
pub type Ejections = BTreeMap<(String, String), Ejection>;

/// The versions of `ejections`, by service.
pub(super) fn by_service(ejections: &Ejections) -> BTreeMap<String, BTreeSet<String>> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (service, version) in ejections.keys() {
        versions.entry(service.clone()).or_default().insert(version.clone());
    }
    versions
}

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

impl From<&Ejection> for ManualEjection {
    fn from(ejection: &Ejection) -> Self {
        let Ejection { since, by, reason, .. } = ejection;
        Self { since: *since, by: by.clone(), reason: reason.clone() }
    }
}
