//! The content of one line of the journal.
//!
//! A line is the JSON of an [`Entry`] in the order of its fields, without line breaks. Times are UTC, in RFC
//! 3339 with milliseconds. A field that a later release adds must be one that a reader can do without.

use std::{sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hash::Hash;
use crate::config::actor;

/// The kind of the first entry of each journal.
pub const GENESIS: &str = "genesis";

/// The kind of the entry that names a new key of checkpoints.
pub(super) const KEY_MADE: &str = "checkpoint_key";

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Position in the journal; the first entry has 1. The order of entries, also if the clock was set back.
    pub seq: u64,
    /// SHA-256 of the line before; zeros in the first entry.
    pub prev: Hash,
    /// When the change was made, by the clock.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// The same in milliseconds since the machine was started: it only grows while `boot` is the same.
    pub mono_ms: u64,
    /// Name of the node that wrote the entry.
    pub node: String,
    /// Identifier of the start of the machine.
    pub boot: String,
    /// Who made the change.
    pub actor: Actor,
    /// The person who approved the change, where a second one is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
    /// Kind of change, such as `weights` or `ejected`; of the first entry `genesis`.
    pub kind: String,
    /// The service that was changed, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The class of the change, if somebody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impact: Option<Impact>,
    /// Reference to a ticket in another system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Why.
    pub reason: String,
    /// The changed value before the change; null if there was none.
    pub before: Value,
    /// The changed value after the change; null if there is none.
    pub after: Value,
    /// The verdict that caused the change, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Value>,
    /// Hash of the configuration in force, as the status shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_hash: Option<String>,
    /// The program that wrote the entry.
    pub binary: Binary,
    /// Generation of the snapshot that the change led to.
    pub generation: u64,
    /// Epoch of the writes of the service after the change, as its versions see it, if it has a fence. Entries without
    /// `split` are of an earlier release, and have here what `split` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Number of the split of the service after the change: it grows with each change of shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<u64>,
    /// Milliseconds from the change to its entry, if the change did not wait for the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_late_ms: Option<u64>,
}

/// Who made a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Name of the token or certificate; `verdict` or `tidegate` if nobody did.
    pub name: String,
    /// The role that permitted the change, such as `operator`; `system` if nobody made it.
    pub role: String,
    /// Network address that the call came from, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Actor {
    /// The program itself.
    pub fn system() -> Self {
        Self { name: actor::TIDEGATE.to_owned(), role: "system".to_owned(), address: None }
    }
}

/// Classes of changes, as in the change management of regulated gaming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Impact {
    /// A change of high impact.
    High,
    /// Any other.
    Low,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    /// Its version.
    pub version: String,
    /// SHA-256 of its file, in hexadecimal; empty if the file could not be read.
    pub sha256: String,
}

/// A journal that another one goes on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Its name in checkpoints, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The number of its last entry.
    pub seq: u64,
    /// The hash of that entry's line.
    pub hash: Hash,
}

/// The fields that are the same in all entries of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the node.
    pub node: String,
    /// Identifier of the start of the machine.
    pub boot: String,
    /// The program.
    pub binary: Binary,
}

/// A moment, by both clocks of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// By the clock.
    pub at: SystemTime,
    /// In milliseconds since the machine was started.
    pub mono_ms: u64,
}

/// The content of an entry without what the writer adds: position, time and identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// See [`Entry::actor`].
    pub actor: Actor,
    /// See [`Entry::second`].
    pub second: Option<String>,
    /// See [`Entry::kind`].
    pub kind: String,
    /// See [`Entry::service`].
    pub service: Option<String>,
    /// See [`Entry::impact`].
    pub impact: Option<Impact>,
    /// See [`Entry::ticket`].
    pub ticket: Option<String>,
    /// See [`Entry::reason`].
    pub reason: String,
    /// See [`Entry::before`].
    pub before: Value,
    /// See [`Entry::after`].
    pub after: Value,
    /// See [`Entry::verdict`].
    pub verdict: Option<Value>,
    /// See [`Entry::config_hash`].
    pub config_hash: Option<String>,
    /// See [`Entry::generation`].
    pub generation: u64,
    /// See [`Entry::epoch`].
    pub epoch: Option<u64>,
    /// See [`Entry::split`].
    pub split: Option<u64>,
}

impl Draft {
    /// A change by `actor` with a kind and a reason only.
    pub fn new(kind: impl Into<String>, actor: Actor, reason: impl Into<String>) -> Self {
        Self {
            actor,
            second: None,
            kind: kind.into(),
            service: None,
            impact: None,
            ticket: None,
            reason: reason.into(),
            before: Value::Null,
            after: Value::Null,
            verdict: None,
            config_hash: None,
            generation: 0,
            epoch: None,
            split: None,
        }
    }
}

/// A change of the state that is kept beside the entries; it is committed together with its entry.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    /// Key; what it stands for is the caller's business.
    pub key: String,
    /// The new value, as JSON; `None` removes the key.
    pub value: Option<Arc<str>>,
}

/// `at` as the journal writes it: RFC 3339 in UTC with milliseconds, always 24 characters.
pub(super) fn written(at: SystemTime) -> String {
    crate::telemetry::rfc3339::millis(at).to_string()
}

mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::written(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        humantime::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}
