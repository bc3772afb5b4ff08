//! `/v1/pins`: who is held where, and moves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{config::schema::PinOnEject, registry::PinEvent, snapshot};

/// `GET /v1/pins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinList {
    /// Services with pins, in the order of the file.
    pub services: Vec<ServicePins>,
}

/// The pins of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePins {
    /// The service.
    pub service: String,
    /// Who keeps them: `table`, or `cookie`: the clients, whom nobody counts.
    pub kept_by: KeptBy,
    /// Pins of all versions; null if clients keep them.
    pub pins: Option<u64>,
    /// Most of them at once; null if clients keep them.
    pub most: Option<u32>,
    /// A pin ends after so many seconds without a request.
    pub idle_seconds: u32,
    /// A pin ends after so many seconds.
    pub limit_seconds: u32,
    /// What an ejection does to pins: `move` or `hold`.
    pub on_eject: PinOnEject,
    /// By version: those of the file in its order, then others that hold pins.
    pub versions: Vec<VersionPins>,
    /// What happened since the process started, by kind.
    pub events: BTreeMap<String, u64>,
}

/// The pins of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionPins {
    /// The version.
    pub version: String,
    /// Whether the file has it.
    pub in_file: bool,
    /// Its pins; null if clients keep them.
    pub pins: Option<u64>,
    /// Age of the oldest in seconds; null without pins, and if clients keep them.
    pub oldest_seconds: Option<u32>,
    /// Seconds until the last cookie that names it, of those seen since the start, has ended; null if there
    /// is none.
    pub cookies_end_in_seconds: Option<u32>,
}

/// Who keeps the pins of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptBy {
    /// Tidegate, in a table.
    Table,
    /// The clients, in a cookie.
    Cookie,
}

/// Body of `POST /v1/pins/move`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinMoveRequest {
    /// The service.
    pub service: String,
    /// The version that has the pins.
    pub from: String,
    /// The version that is to have them.
    pub to: String,
}

/// Response to a move of pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinMoveAnswer {
    /// Generation in force afterwards; for a dry run, the current one.
    pub generation: u64,
    /// The service.
    pub service: String,
    /// The version that had the pins.
    pub from: String,
    /// The version that has them.
    pub to: String,
    /// Pins that moved; null if clients keep them.
    pub moved: Option<u64>,
    /// When the last cookie that moves has ended, as RFC 3339 in UTC; null if the pins are in the table.
    pub until: Option<String>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

impl ServicePins {
    /// The document of `service`; `None` if it has no pins.
    pub fn of(service: &snapshot::Service) -> Option<Self> {
        let plan = service.pins.as_deref()?;
        let (terms, in_table) = (plan.rules.terms, plan.cookie.is_none());
        let counts = plan.table.counts(plan.table.now());
        let of = |name: &str, in_file| {
            let count = counts.iter().find(|count| *count.version == *name);
            VersionPins {
                version: name.to_owned(),
                in_file,
                pins: in_table.then(|| count.map_or(0, |count| count.pins)),
                oldest_seconds: count.and_then(|count| count.oldest),
                cookies_end_in_seconds: plan.table.version(name).cookies_end_in(),
            }
        };
        let is_other = |name: &str| service.version(name).is_none();
        let others = counts.iter().filter(|count| count.pins > 0 && is_other(&count.version));
        let known = service.versions.iter().map(|version| of(&version.name, true));
        let versions: Vec<_> = known.chain(others.map(|count| of(&count.version, false))).collect();
        let events = PinEvent::ALL.map(|e| (e.label().to_owned(), plan.table.events(e)));
        Some(Self {
            service: service.name.to_string(),
            kept_by: if in_table { KeptBy::Table } else { KeptBy::Cookie },
            pins: versions.iter().map(|version| version.pins).sum(),
            most: in_table.then_some(plan.most),
            idle_seconds: terms.idle,
            limit_seconds: terms.limit,
            on_eject: terms.on_eject,
            versions,
            events: events.into(),
        })
    }
}
