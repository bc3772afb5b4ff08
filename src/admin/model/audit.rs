//! `GET /v1/audit`.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::store::{Hash, Head, Stored};

/// `GET /v1/audit`: entries of the journal, in their order.
#[derive(Debug, Serialize)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// The last entry of the journal, whether it is listed or not.
    pub head: Head,
    /// What `after` is to be for the next page; null if there are no more entries.
    pub next: Option<u64>,
    /// Of a page without entries: a sentence for each name asked for that no entry has.
    pub unknown: Vec<String>,
}

/// An entry of the journal.
#[derive(Debug, Serialize)]
pub struct AuditEntry {
    /// SHA-256 of its line.
    pub hash: Hash,
    /// Its line, byte by byte as it is stored.
    pub entry: Box<RawValue>,
}

impl AuditPage {
    /// The page with these entries; `has_more` if others follow.
    ///
    /// # Errors
    ///
    /// If a line is no JSON.
    pub fn new(
        shown: Vec<Stored>,
        head: Head,
        has_more: bool,
        unknown: Vec<String>,
    ) -> Result<Self, serde_json::Error> {
        let next = shown.last().filter(|_| has_more).map(|last| last.entry.seq);
        let each = shown.into_iter().map(|Stored { line, hash, .. }| {
            Ok(AuditEntry { hash, entry: RawValue::from_string(line)? })
        });
        Ok(Self { entries: each.collect::<Result<_, serde_json::Error>>()?, head, next, unknown })
    }
}
