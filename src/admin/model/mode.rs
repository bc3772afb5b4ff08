//! `/v1/mode` and `/v1/notices`: what is read-only, and what is planned.

use serde::{Deserialize, Serialize};

use crate::{
    config::schema::{self, UtcTime},
    policy::read_only,
};

/// Whether writes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModeName {
    /// They are.
    ReadOnly,
    /// They are not.
    Normal,
}

/// Body of `PUT /v1/mode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// The mode.
    pub mode: ModeName,
    /// The service that it is about; by default, and if it is null, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The route that it is about, by its label; instead of `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UtcTime>,
    /// What clients are told, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Response to `PUT /v1/mode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeAnswer {
    /// Generation in force afterwards; for a dry run, the current one.
    pub generation: u64,
    /// The mode afterwards.
    pub mode: ModeName,
    /// The service that it is about; null if it is another scope.
    pub service: Option<String>,
    /// The route that it is about; null if it is another scope.
    pub route: Option<String>,
    /// When it ends by itself; null if it does not.
    pub until: Option<UtcTime>,
    /// Whether something changed, or would change.
    pub changed: bool,
    /// Writes that were sent before, and have not ended.
    pub writes_in_flight: u64,
    /// Notices in force whose read-only mode this change has ended; each of them goes on until it is over or taken back.
    #[serde(default)]
    pub notices: Vec<String>,
    /// The notice by which it stays read-only after `until`; null if it takes writes again then.
    #[serde(default)]
    pub followed_by: Option<String>,
    /// What is wrong with the mode: it refuses nothing; null if nothing is.
    #[serde(default)]
    pub warning: Option<String>,
    /// Whether nothing was changed because only a preview was asked for.
    pub dry_run: bool,
}

/// `GET /v1/mode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// Modes in force.
    pub read_only: Vec<Mode>,
    /// All services, in the order of the file.
    pub services: Vec<ModeService>,
    /// Processes before this one that may still have writes in flight.
    pub earlier_processes: Vec<u32>,
}

/// A read-only mode in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// The service that it is about; null if it is another scope.
    pub service: Option<String>,
    /// The route that it is about; null if it is another scope.
    pub route: Option<String>,
    /// Since when.
    pub since: UtcTime,
    /// When it ends by itself; null if it does not.
    pub until: Option<UtcTime>,
    /// Who set it: a token's name, or `notice`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What clients are told.
    pub message: Option<String>,
    /// The notice that switched it on.
    pub notice: Option<String>,
    /// What is wrong with it: the file does not have what it is about. Null if it has.
    #[serde(default)]
    pub warning: Option<String>,
}

/// A service as far as its mode goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeService {
    /// Its name.
    pub service: String,
    /// Whether the writes of all its routes are refused.
    pub read_only: bool,
    /// Its writes in flight, in this process.
    pub writes_in_flight: u64,
    /// Writes that were refused since the process started.
    pub refused: u64,
    /// Writes that wait until it is writable again.
    pub held: u64,
}

/// `GET /v1/notices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeList {
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// Notices by name.
    pub notices: Vec<Notice>,
}

/// A notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Its name.
    pub name: String,
    /// Whether it is in the file; others were set at run time.
    pub in_file: bool,
    /// The notice.
    #[serde(flatten)]
    pub notice: schema::Notice,
    /// Whether its read-only mode was ended early everywhere, so that it refuses no write any more.
    #[serde(default)]
    pub ended_early: bool,
    /// The shortest lead time whose message each receiver has taken, in seconds.
    pub told: std::collections::BTreeMap<String, u64>,
}

/// Response to a change of a notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeAnswer {
    /// Generation in force afterwards; for a dry run, the current one.
    pub generation: u64,
    /// Its name.
    pub name: String,
    /// Whether nothing was changed because only a preview was asked for.
    pub dry_run: bool,
}

impl From<(&read_only::Scope, &read_only::Mode)> for Mode {
    fn from((scope, mode): (&read_only::Scope, &read_only::Mode)) -> Self {
        let (service, route) = scope.names();
        let read_only::Mode { since, until, by, reason, message, notice, route_of: _ } =
            mode.clone();
        Self {
            service: service.map(str::to_owned),
            route: route.map(str::to_owned),
            since,
            until,
            by,
            reason,
            message,
            notice,
            warning: None,
        }
    }
}
