//! What can be wrong with a journal, and the result of its verification.

use std::fmt;

use super::chain::Head;

/// Longest list of faults; what is found beyond is counted.
pub const MAX_FAULTS: usize = 1000;

/// One thing that is wrong with a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The line of an entry was changed.
    Changed {
        /// The entry.
        seq: u64,
    },
    /// The hash that is stored beside an entry was changed; its line was not.
    StoredHash {
        /// The entry.
        seq: u64,
    },
    /// The columns beside the line of an entry, which queries use, were changed; its line was not.
    Columns {
        /// The entry.
        seq: u64,
    },
    /// Two entries do not belong together: one of them was changed, and nothing shows which.
    Unlinked {
        /// The first of the two; the other one is the next.
        seq: u64,
    },
    /// A line is no entry.
    Malformed {
        /// Number of the line, from 1.
        line: u64,
        /// The entry, if the line's place is known.
        seq: Option<u64>,
        /// What is wrong with the line.
        why: String,
    },
    /// Entries are missing, the first and the last of them named.
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// An entry stands behind one that follows it.
    OutOfOrder {
        /// The entry.
        seq: u64,
        /// The entry before it in the journal.
        after: u64,
    },
    /// A second entry has the number of one before.
    Repeated {
        /// The number.
        seq: u64,
    },
    /// The end was cut off: a checkpoint names an entry that the journal does not have.
    CutTail {
        /// The last entry of the journal.
        last: u64,
        /// The last entry when the checkpoint was made.
        noted: u64,
    },
    /// A checkpoint names another entry in this place: this one was changed, or all up to it was written anew.
    NotAsNoted {
        /// The place.
        seq: u64,
    },
    /// The checkpoint is one of another journal.
    OtherJournal {
        /// The name of this journal.
        found: String,
        /// The one in the checkpoint.
        noted: String,
    },
    /// The last line of an export names another head than its last entry.
    EndDiffers {
        /// The last entry.
        seq: u64,
    },
    /// An export has no last line with its head: it was cut off.
    NoEnd {
        /// The last entry.
        last: u64,
    },
    /// There is something behind the last line of an export.
    BehindEnd {
        /// Number of the line, from 1.
        line: u64,
    },
    /// The checkpoint cannot be used.
    Note {
        /// Why: its form or its signature.
        why: String,
    },
    /// The journal cannot be read any further.
    Unreadable {
        /// The last entry that was read.
        last: u64,
        /// Why.
        why: String,
    },
    /// A checkpoint in the journal does not fit its entries, or cannot be used.
    OwnCheckpoint {
        /// The entry that it is of.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The state was brought by an entry that is missing: the end was cut off.
    StateAhead {
        /// The last entry.
        last: u64,
        /// The entry that the state names.
        newest: u64,
    },
    /// Pages of the database are damaged, though all lines can be read.
    Pages {
        /// What was found.
        why: String,
    },
    /// There is no entry at all.
    Empty,
}

impl Fault {
    /// The entry that the fault is about, or the first of several; `None` if it is not about entries.
    pub fn seq(&self) -> Option<u64> {
        match *self {
            Self::Changed { seq }
            | Self::StoredHash { seq }
            | Self::Columns { seq }
            | Self::Unlinked { seq }
            | Self::OutOfOrder { seq, .. }
            | Self::Repeated { seq }
            | Self::NotAsNoted { seq }
            | Self::OwnCheckpoint { seq, .. }
            | Self::EndDiffers { seq } => Some(seq),
            Self::Malformed { seq, .. } => seq,
            Self::Missing { from, .. } => Some(from),
            Self::CutTail { last, .. }
            | Self::StateAhead { last, .. }
            | Self::NoEnd { last }
            | Self::Unreadable { last, .. } => last.checked_add(1),
            Self::OtherJournal { .. }
            | Self::BehindEnd { .. }
            | Self::Note { .. }
            | Self::Pages { .. }
            | Self::Empty => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { seq } => write!(f, "entry {seq} was changed"),
            Self::StoredHash { seq } => {
                write!(f, "the hash stored beside entry {seq} was changed; its line was not")
            }
            Self::Columns { seq } => {
                write!(f, "the columns stored beside entry {seq} were changed; its line was not")
            }
            Self::Unlinked { seq } => {
                let next = seq.saturating_add(1);
                write!(f, "entry {next} does not follow entry {seq}: one of the two was changed")
            }
            Self::Malformed { line, seq: Some(seq), why } => {
                write!(f, "line {line}, entry {seq}, is malformed: {why}")
            }
            Self::Malformed { line, seq: None, why } => {
                write!(f, "line {line} is malformed: {why}")
            }
            Self::Missing { from, to } if from == to => write!(f, "entry {from} is missing"),
            Self::Missing { from, to } => write!(f, "entries {from} to {to} are missing"),
            Self::OutOfOrder { seq, after } => {
                write!(f, "entry {seq} is out of order: it stands behind entry {after}")
            }
            Self::Repeated { seq } => write!(f, "there is a second entry {seq}"),
            Self::CutTail { last, noted } => write!(
                f,
                "the end was cut off: the last entry is {last}, and the checkpoint names entry {noted}"
            ),
            Self::NotAsNoted { seq } => write!(
                f,
                "entry {seq} is not the one in the checkpoint: it was changed, or the journal up to it \
                 was written anew"
            ),
            Self::OtherJournal { found, noted } => write!(
                f,
                "the checkpoint is one of another journal: of `{noted}`, while this one is `{found}`"
            ),
            Self::EndDiffers { seq } => write!(
                f,
                "the last line of the export does not name entry {seq} as it is: one of the two was changed"
            ),
            Self::NoEnd { last } => write!(
                f,
                "the export was cut off behind entry {last}: it has no last line with its head"
            ),
            Self::BehindEnd { line } => {
                write!(f, "line {line} stands behind the end of the export")
            }
            Self::Note { why } => f.write_str(why),
            Self::Unreadable { last, why } => {
                write!(f, "the journal cannot be read behind entry {last}: {why}")
            }
            Self::OwnCheckpoint { seq, why } => {
                write!(f, "the checkpoint of entry {seq} in the journal {why}")
            }
            Self::StateAhead { last, newest } => write!(
                f,
                "the end was cut off: the last entry is {last}, and the state beside the entries is that of \
                 entry {newest}"
            ),
            Self::Pages { why } => write!(f, "the database is damaged: {why}"),
            Self::Empty => f.write_str("there is no entry at all"),
        }
    }
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Number of entries that were read.
    pub entries: u64,
    /// The last entry.
    pub head: Head,
    /// Name of the journal, as its checkpoints have it; `None` if the first entry was not among those read.
    pub origin: Option<String>,
    /// What is wrong, in the order of entries; at most [`MAX_FAULTS`].
    pub faults: Vec<Fault>,
    /// Number of faults beyond those.
    pub more_faults: u64,
}

impl Verification {
    /// Adds what was found beside the entries.
    pub(super) fn add(&mut self, found: Vec<Fault>) {
        for fault in found {
            match self.faults.len() < MAX_FAULTS {
                true => self.faults.push(fault),
                false => self.more_faults = self.more_faults.saturating_add(1),
            }
        }
        self.faults.sort_by_key(Fault::seq);
    }

    /// Whether nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.faults.is_empty()
    }
}
