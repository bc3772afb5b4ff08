//! How an entry becomes a line that names the line before it.
//!
//! The hash of an entry is SHA-256 over the bytes of its line as they are stored, without the line break of
//! an export: no canonical form has to be agreed on, and `sha256sum` computes it. A chain shows that an entry
//! in its middle was changed or taken out; it does not show that its end was cut off, nor that all of it was
//! written anew. For that its head has to be kept elsewhere: see [`super::Checkpoint`].

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    entry::{Actor, Draft, Entry, GENESIS, Identity, Replaced, Stamp, written},
    hash::{Hash, hex},
};

/// Longest line, in bytes.
pub const MAX_LINE_BYTES: usize = 256 * 1024;

/// The end of a journal: its last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its position, and so the number of entries; 0 of a journal without entries.
    pub seq: u64,
    /// The hash of its line; zeros of a journal without entries.
    pub hash: Hash,
}

impl Head {
    /// The head of a journal without entries.
    pub const START: Self = Self { seq: 0, hash: Hash::ZERO };
}

/// An entry in its final form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    /// Its position and the hash of its line.
    pub(super) head: Head,
    /// Its line, without a line break.
    pub(super) line: String,
    /// Its time, as in the line.
    pub(super) at: String,
    /// Its kind.
    pub(super) kind: String,
    /// The name of its actor.
    pub(super) actor: String,
    /// Its service.
    pub(super) service: Option<String>,
}

/// Why a draft cannot become a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is too long.
    #[error("an entry of {0} bytes is longer than {MAX_LINE_BYTES}")]
    TooLong(usize),
    /// Nobody could read it, as a value that is nested too deeply.
    #[error("an entry that cannot be read again: {0}")]
    Unreadable(String),
}

/// Makes `draft`, of the moment `stamp`, the entry after `head`.
///
/// `late_ms` is the time from the change to now, if the change did not wait.
pub(super) fn seal(
    head: Head,
    draft: Draft,
    stamp: Stamp,
    identity: &Identity,
    late_ms: Option<u64>,
) -> Result<Sealed, Unfit> {
    let entry = Entry {
        seq: head.seq + 1,
        prev: head.hash,
        at: stamp.at,
        mono_ms: stamp.mono_ms,
        node: identity.node.clone(),
        boot: identity.boot.clone(),
        actor: draft.actor,
        second: draft.second,
        kind: draft.kind,
        service: draft.service,
        impact: draft.impact,
        ticket: draft.ticket,
        reason: draft.reason,
        before: draft.before,
        after: draft.after,
        verdict: draft.verdict,
        config_hash: draft.config_hash,
        binary: identity.binary.clone(),
        generation: draft.generation,
        epoch: draft.epoch,
        split: draft.split,
        written_late_ms: late_ms,
    };
    let line = serde_json::to_string(&entry).map_err(|e| Unfit::Unreadable(e.to_string()))?;
    if line.len() > MAX_LINE_BYTES {
        return Err(Unfit::TooLong(line.len()));
    }
    serde_json::from_str::<Entry>(&line).map_err(|e| Unfit::Unreadable(e.to_string()))?;
    Ok(Sealed {
        head: Head { seq: entry.seq, hash: Hash::of(line.as_bytes()) },
        line,
        at: written(entry.at),
        kind: entry.kind,
        actor: entry.actor.name,
        service: entry.service,
    })
}

/// The first entry of a journal. Its random bits identify the journal.
///
/// `random` are 128 random bits, `replaces` is the journal that this one goes on from, and
/// `key` the public key of its checkpoints as text.
pub(super) fn genesis(
    node: &str,
    random: [u8; 16],
    key: &str,
    replaces: Option<&Replaced>,
) -> Draft {
    let what = json!({ "node": node, "random": hex(&random), "key": key, "replaces": replaces });
    let mut draft = Draft::new(GENESIS, Actor::system(), "the journal begins");
    draft.after = what;
    draft
}

/// The name of a journal in its checkpoints, from the content of its first entry.
pub(super) fn origin(node: &str, random: &str) -> String {
    let may_stand = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let node: String = node.chars().take(64).map(|c| if may_stand(c) { c } else { '-' }).collect();
    format!("tidegate/{node}/{random}")
}

/// The name of the journal whose first line is `line`; `None` if `line` is not a first entry.
pub(super) fn origin_of(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct First {
        kind: String,
        after: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        node: String,
        random: String,
    }
    let First { kind, after } = serde_json::from_slice(line).ok()?;
    (kind == GENESIS).then(|| origin(&after.node, &after.random))
}

/// The key of checkpoints that a line names, as text.
pub(super) fn key_of(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Naming {
        after: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        key: String,
    }
    Some(serde_json::from_slice::<Naming>(line).ok()?.after.key)
}
