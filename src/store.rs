//! The release journal: the record of all changes, each with who, when, why, before and after, and the state
//! that they lead to.
//!
//! A [`Journal`] belongs to one process, which writes; any number of [`Reader`]s read beside it. Each entry is
//! a line of JSON that names the hash of the line before (`chain.rs`), so that a changed or missing entry
//! shows, and signed checkpoints of its head (`note.rs`) show a cut end. Both are verified without the
//! database, too, from an export (`verify.rs`, `export.rs`).
//!
//! Chain, entry, verification, note and report are functions of their arguments. Files, clocks and threads
//! are in `folder`, `key`, `process`, `sqlite`, `writer`, `journal`, `reader`, `names`, `own`, `backup`
//! and `restore`.
//!
//! Rejected: a Merkle tree, which proves one entry without the others, to strangers; here one auditor reads
//! some thousand of them as a whole. A canonical form of JSON, which the hash does not need if the line is
//! stored as it is. A file of lines alone: state and entry must be in one commit.

mod backup;
mod ballast;
mod chain;
mod entry;
mod error;
mod export;
mod fault;
mod files;
mod filter;
mod folder;
pub mod fuzzing;
mod hash;
mod health;
mod journal;
mod key;
mod keys;
mod kind;
mod late;
mod names;
mod note;
mod own;
mod pins;
mod process;
mod reader;
mod report;
mod restore;
mod sqlite;
mod verify;
mod writer;

pub use chain::{Head, MAX_LINE_BYTES, Unfit};
pub use entry::{
    Actor, Binary, Draft, Entry, GENESIS, Identity, Impact, Replaced, Stamp, StateChange,
};
pub use error::StoreError;
pub use export::verify_export;
pub use fault::{Fault, MAX_FAULTS, Verification};
pub use filter::{Filter, MOST_SHOWN};
pub use hash::{Hash, NotAHash};
pub use health::{Failing, Health, MOST_WAITING};
pub use journal::{Journal, Receipt, Settings};
pub use keys::keep_keys;
pub use kind::EntryKind;
pub use late::MOST_LATE;
pub use note::{Checkpoint, NoteError, PublicKey, SigningKey};
pub use pins::{KeptPins, Unkept};
pub use reader::{Reader, StateValue, Stored};
pub use report::{COLUMNS, ReportWriter};
pub use restore::{forget_restored, is_restored, restore};
pub use verify::{Row, Verifier};

#[cfg(test)]
mod tests;
