//! `GET /v1/status`.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::SystemTime};

use indexmap::IndexMap;
use serde::Serialize;

use super::{Issuer, Mode, WeightsSet};
use crate::{
    config::{LoadError, Problem, units::Weight},
    control::{
        carried::Replacement,
        controller::{Checked, JournalState, Reloads, StandIn, StandIns},
    },
    proxy::ListenerState,
    registry::KeyTrouble,
    telemetry::rfc3339,
    tls::{Expiry, TlsListener},
};

/// `GET /v1/status`: the process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Version of Tidegate.
    pub version: &'static str,
    /// Number of the process.
    pub pid: u32,
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// XXH3-64 of the file's bytes, 16 hex digits.
    pub config_hash: String,
    /// The file; null if the configuration did not come from one.
    pub config_file: Option<String>,
    /// Time since start, in seconds.
    pub uptime_seconds: f64,
    /// Worker threads.
    pub workers: usize,
    /// Whether the process is to end.
    pub draining: bool,
    /// Open client connections.
    pub connections: usize,
    /// Listening sockets, in the order of the file.
    pub listeners: Vec<Listener>,
    /// Weights set at run time that are in force, by service and version.
    pub overrides: BTreeMap<String, IndexMap<String, Weight>>,
    /// Who set these, when and why, by service.
    pub weights_set: BTreeMap<String, WeightsSet>,
    /// What is read-only.
    pub read_only: Vec<Mode>,
    /// Results of reloads.
    pub reload: Reload,
    /// Versions whose current certificate or authority files cannot be used.
    pub tls_faults: Vec<VersionFault>,
    /// Issuers of tokens, in the order of their names.
    pub issuers: Vec<Issuer>,
    /// The journal; null if there is none, so that weights and ejections set at run time live as long
    /// as the process.
    pub journal: Option<Journal>,
    /// Why idempotency keys cannot be written, so that writes with a key are refused; null if they can be.
    pub idempotency_failing: Option<Failing>,
    /// Takeovers from and by another process.
    pub takeover: Takeover,
}

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Journal {
    /// Its folder.
    pub folder: String,
    /// Number of its last entry, and so of all entries; null while it is not open.
    pub seq: Option<u64>,
    /// SHA-256 of the last entry's line; null while it is not open.
    pub hash: Option<String>,
    /// Whether it is as it was written; null until it has been verified.
    pub intact: Option<bool>,
    /// The first faults, if it is not.
    pub faults: Vec<String>,
    /// Why it cannot be written; null if it can be.
    pub failing: Option<Failing>,
    /// Changes on request that wait to be written and answered.
    pub waiting: usize,
    /// Changes in force that are still to be written.
    pub late: usize,
    /// Changes in force since the start that the journal will never show, since too many waited.
    pub lost: u64,
    /// Its name in checkpoints.
    pub origin: String,
    /// The key that verifies its checkpoints.
    pub public_key: String,
}

/// Why the journal, or idempotency keys, cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// Since when, as RFC 3339 in UTC.
    pub since: String,
    /// One line.
    pub message: String,
}

impl Failing {
    fn new(since: SystemTime, message: String) -> Self {
        Self { since: rfc3339::seconds(since).to_string(), message }
    }
}

impl From<KeyTrouble> for Failing {
    fn from(KeyTrouble { since, reason }: KeyTrouble) -> Self {
        Self::new(since, reason)
    }
}

impl From<JournalState> for Journal {
    fn from(journal: JournalState) -> Self {
        let JournalState { folder, health, origin, public_key, checked, .. } = journal;
        let (intact, faults) = match checked {
            Checked::NotYet => (None, Vec::new()),
            Checked::Intact => (Some(true), Vec::new()),
            Checked::Faulty { faults, .. } => (Some(false), faults),
        };
        let folder = folder.display().to_string();
        match health {
            Ok(health) => Self {
                folder,
                seq: Some(health.head.seq),
                hash: Some(health.head.hash.to_string()),
                intact,
                faults,
                failing: health.failing.map(|failing| Failing::new(failing.since, failing.reason)),
                waiting: health.waiting,
                late: health.late,
                lost: health.lost,
                origin,
                public_key,
            },
            Err(failing) => Self {
                folder,
                seq: None,
                hash: None,
                intact,
                faults,
                failing: Some(Failing::new(failing.since, failing.reason)),
                waiting: 0,
                late: 0,
                lost: 0,
                origin,
                public_key,
            },
        }
    }
}

/// Takeovers from and by another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Takeover {
    /// The process whose sockets this one took over; null if it bound its own.
    pub from_pid: Option<u32>,
    /// Why the last process that should have replaced this one did not; null if none failed.
    pub last_error: Option<TakeoverError>,
}

/// Why another process did not take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakeoverError {
    /// When, as RFC 3339 in UTC.
    pub at: String,
    /// One line.
    pub message: String,
}

impl From<&Replacement> for Takeover {
    fn from(replacement: &Replacement) -> Self {
        let last_error = replacement.last_error.as_ref().map(|(at, message)| TakeoverError {
            at: rfc3339::seconds(*at).to_string(),
            message: message.clone(),
        });
        Self { from_pid: replacement.from_pid, last_error }
    }
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Where it is bound.
    pub address: String,
    /// Open client connections.
    pub open: u64,
    /// Connections accepted since start.
    pub accepted: u64,
    /// Of those, closed at once because there were too many, in total or of their address.
    pub shed: u64,
    /// Its certificates; null without TLS.
    pub tls: Option<ListenerTls>,
}

/// Certificates of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerTls {
    /// Those in force, in the order of the file.
    pub certificates: Vec<Certificate>,
    /// Why the current files cannot be used, so that the earlier ones stay in force; null if the
    /// files are in force.
    pub fault: Option<String>,
}

/// A certificate in force at a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Its file.
    pub file: String,
    /// Names and addresses that it is for.
    pub names: Vec<String>,
    /// When it ends, as RFC 3339 in UTC.
    pub not_after: String,
    /// Whole days until then: 0 on its last day, below 0 afterwards.
    pub days_left: i64,
}

/// Why a version's TLS settings are those of earlier files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionFault {
    /// The service.
    pub service: String,
    /// Its version.
    pub version: String,
    /// What is wrong, with the file.
    pub message: String,
}

impl Listener {
    /// Creates the document of `listener` at the time `now`.
    pub fn new(listener: &ListenerState, now: SystemTime) -> Self {
        Self {
            address: listener.name.clone(),
            open: listener.open.load(Relaxed),
            accepted: listener.accepted.load(Relaxed),
            shed: listener.shed.load(Relaxed) + listener.shed_per_client.load(Relaxed),
            tls: listener.tls.as_ref().map(|tls| ListenerTls::new(tls, now)),
        }
    }
}

impl ListenerTls {
    fn new(tls: &TlsListener, now: SystemTime) -> Self {
        let certificates = tls.expiries().into_iter().map(|expiry| Certificate::new(expiry, now));
        let fault = tls.fault().map(|fault| fault.error.to_string());
        Self { certificates: certificates.collect(), fault }
    }
}

impl Certificate {
    fn new(expiry: Expiry, now: SystemTime) -> Self {
        Self {
            file: expiry.file.display().to_string(),
            not_after: rfc3339::seconds(expiry.not_after).to_string(),
            days_left: expiry.days_left(now),
            names: expiry.names,
        }
    }
}

/// Results of reloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// Files that were applied completely, or were unchanged.
    pub applied: u64,
    /// Invalid files, which changed nothing, and files that are in force except for weights with
    /// which no version of a service would serve.
    pub rejected: u64,
    /// The problems of the last file, or the weights that are not in force; null without problems.
    pub error: Option<ReloadError>,
    /// Fields of the file in force that have changed but are only read at start: they wait for the
    /// next start.
    pub waiting: Vec<&'static str>,
    /// What the file in force did when it was taken over with weights that were set at runtime, and with ejected
    /// versions: a sentence for each. Empty until a file has changed.
    pub warnings: Vec<String>,
}

/// Why a file was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadError {
    /// One line.
    pub message: String,
    /// Each place in the file that is wrong; empty if the file could not be read.
    pub problems: Vec<Problem>,
    /// Whether the file is in force nevertheless, except for weights with which no version would
    /// serve.
    pub in_force: bool,
}

impl Reload {
    /// Creates the document of `reloads`; `stand_ins` are versions that serve because with the
    /// configured weights none would.
    pub fn new(reloads: &Reloads, stand_ins: &StandIns) -> Self {
        let refused = || {
            let each = stand_ins.iter().map(|(service, StandIn { version, why })| {
                format!(
                    "{service}: no version would serve by its weights, so {version} serves: {why}"
                )
            });
            let message = each.collect::<Vec<_>>().join("; ");
            (!message.is_empty()).then(|| ReloadError {
                message,
                problems: Vec::new(),
                in_force: true,
            })
        };
        let error = reloads.error.as_deref().map(ReloadError::from).or_else(refused);
        let Reloads { applied, rejected, waiting, warnings, .. } = reloads.clone();
        Self { applied, rejected, error, waiting, warnings }
    }
}

impl From<&LoadError> for ReloadError {
    fn from(error: &LoadError) -> Self {
        let in_force = false;
        match error {
            LoadError::Read { .. } | LoadError::Named { .. } => {
                Self { message: error.to_string(), problems: Vec::new(), in_force }
            }
            LoadError::Invalid { path, problems } => {
                let problems = problems.as_slice().to_vec();
                let (path, count) = (path.display(), problems.len());
                let message = format!("{path}: not taken over, {count} problem(s)");
                Self { message, problems, in_force }
            }
        }
    }
}
