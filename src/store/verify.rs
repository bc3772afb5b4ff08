//! Verification of a chain, line by line, in memory that does not grow with the journal.
//!
//! Each link, from an entry to the one before, either holds or is broken. If the link of an entry is broken
//! and the link of the next one holds, the next one confirms the entry, so the one before it was changed. If
//! both are broken, the entry itself was changed. What a broken link means also depends on the numbers: a
//! number that jumps means missing entries, one that falls means another order. In a database there is a
//! number and a hash beside each line, in an export a last line with the head: without either, a change of
//! the last entry could not be seen. Nothing here trusts the input: see `fuzzing.rs`.

use serde::Deserialize;

use super::{
    chain::{Head, MAX_LINE_BYTES, origin_of},
    fault::{Fault, MAX_FAULTS, Verification},
    hash::Hash,
    note::{Checkpoint, NoteError, PublicKey},
};

/// A line, and what is stored beside it.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The number beside the line; `None` in an export.
    pub key: Option<u64>,
    /// The line, without a line break.
    pub line: &'a [u8],
    /// The hash beside the line; `None` in an export.
    pub hash: Option<&'a [u8]>,
}

/// What verification reads of an entry.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    prev: Hash,
}

/// Verifies a journal, line by line.
#[derive(Debug)]
pub struct Verifier {
    lines: u64,
    entries: u64,
    /// The last entry in its place, if there was one.
    tip: Option<Tip>,
    /// The head before the first entry.
    start: Head,
    /// Lines since the tip that are no entries.
    malformed: u64,
    /// Ranges of entries that have not come.
    missing: Vec<(u64, u64)>,
    faults: Vec<Fault>,
    more_faults: u64,
    note: Option<Checkpoint>,
    is_note_seen: bool,
    origin: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Tip {
    head: Head,
    /// Whether the hash stored beside the line is another one.
    differs: bool,
    /// Whether a fault has named it.
    is_named: bool,
    /// Whether the link to the entry before is broken, and nothing explains it yet.
    is_doubted: bool,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Verifier {
    /// Verifies a whole journal.
    pub fn new() -> Self {
        Self::after(Head::START)
    }

    /// Verifies the part of a journal behind `start`.
    pub fn after(start: Head) -> Self {
        Self {
            lines: 0,
            entries: 0,
            tip: None,
            start,
            malformed: 0,
            missing: Vec::new(),
            faults: Vec::new(),
            more_faults: 0,
            note: None,
            is_note_seen: false,
            origin: None,
        }
    }

    /// Compares the journal with a checkpoint, so that a cut tail is found; with `key`, the checkpoint must
    /// have its signature. A checkpoint that cannot be used is a fault of its own.
    #[must_use]
    pub fn against(mut self, note: &str, key: Option<&PublicKey>) -> Self {
        let read: Result<Checkpoint, NoteError> = match key {
            Some(key) => Checkpoint::verify(note, key),
            None => Checkpoint::read(note),
        };
        match read {
            Ok(note) => self.note = Some(note),
            Err(error) => self.fault(Fault::Note { why: error.to_string() }),
        }
        self
    }

    /// Verifies the next line.
    pub fn row(&mut self, row: Row<'_>) {
        self.lines = self.lines.saturating_add(1);
        let hash = Hash::of(row.line);
        let link = match serde_json::from_slice::<Link>(row.line) {
            Ok(link) if row.line.len() <= MAX_LINE_BYTES => link,
            Ok(_) => return self.no_entry(row.key, hash, "the line is too long".to_owned()),
            Err(error) => return self.no_entry(row.key, hash, error.to_string()),
        };
        self.entries = self.entries.saturating_add(1);
        let before = self.tip.map_or(self.start, |tip| tip.head);
        let differs = row.hash.is_some_and(|stored| stored != hash.as_bytes());
        let next = before.seq.saturating_add(1);
        let claimed = row.key.unwrap_or(link.seq);
        let mut tip =
            Tip { head: Head { seq: next, hash }, differs, is_named: false, is_doubted: false };
        if link.prev == before.hash {
            self.settle(true);
            tip.is_named = claimed != next || link.seq != next;
        } else {
            if claimed < next {
                return self.falls(claimed, before.seq);
            }
            tip.head.seq = claimed;
            tip.is_named = link.seq != claimed;
            self.break_link(&mut tip, next);
        }
        if tip.is_named {
            self.fault(Fault::Changed { seq: tip.head.seq });
        }
        if tip.head.seq == 1 {
            self.origin = origin_of(row.line);
        }
        self.advance(tip);
    }

    /// Verifies the head in the last line of an export.
    pub fn end(&mut self, end: Head) {
        let Some(tip) = &mut self.tip else { return };
        let at = tip.head.seq;
        if end == tip.head {
            self.settle(true);
        } else if end.seq > at {
            self.miss(at.saturating_add(1).saturating_add(self.malformed), end.seq);
        } else if tip.is_doubted || tip.differs {
            // Neither the entry before nor the end names it as it is.
            self.settle_as(Fault::Changed { seq: at });
        } else if !tip.is_named {
            tip.is_named = true;
            self.fault(Fault::EndDiffers { seq: at });
        }
    }

    /// Records that the rest of the journal cannot be read.
    pub fn unreadable(&mut self, why: String) {
        let last = self.tip.map_or(self.start.seq, |tip| tip.head.seq);
        self.fault(Fault::Unreadable { last, why });
    }

    /// Records that the columns beside the line of an entry are not those of the line, which only matters if
    /// nothing else is wrong with the entry.
    pub(super) fn columns(&mut self, seq: u64) {
        if !self.faults.iter().any(|fault| fault.seq() == Some(seq)) {
            self.fault(Fault::Columns { seq });
        }
    }

    /// Records a fault.
    pub(super) fn fault(&mut self, fault: Fault) {
        if self.faults.contains(&fault) {
            return;
        }
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        } else {
            self.more_faults = self.more_faults.saturating_add(1);
        }
    }

    /// Number of the last entry.
    pub fn last(&self) -> u64 {
        self.tip.map_or(self.start.seq, |tip| tip.head.seq)
    }

    /// Ends the verification: there are no more lines.
    pub fn finish(mut self) -> Verification {
        self.settle(false);
        for (from, to) in std::mem::take(&mut self.missing) {
            self.fault(Fault::Missing { from, to });
        }
        let head = self.tip.map_or(self.start, |tip| tip.head);
        if self.tip.is_none() && self.malformed == 0 && self.start == Head::START {
            self.fault(Fault::Empty);
        }
        if let Some(note) = self.note.take() {
            // A first entry that is missing or names none is a fault, or another entry than the noted one.
            let found = self.origin.clone().unwrap_or_else(|| note.origin.clone());
            if found != note.origin {
                self.fault(Fault::OtherJournal { found, noted: note.origin });
            } else if head.seq < note.head.seq {
                self.fault(Fault::CutTail { last: head.seq, noted: note.head.seq });
            } else if !self.is_note_seen && note.head.seq > self.start.seq {
                self.fault(Fault::NotAsNoted { seq: note.head.seq });
            }
        }
        self.faults.sort_by_key(Fault::seq);
        let Self { entries, origin, faults, more_faults, .. } = self;
        Verification { entries, head, origin, faults, more_faults }
    }

    /// Finds out what a link means that does not hold: the one from `tip` to the entry before it, which
    /// should be the one before `next`.
    fn break_link(&mut self, tip: &mut Tip, next: u64) {
        let first = next.saturating_add(self.malformed);
        if tip.head.seq > first {
            self.miss(first, tip.head.seq - 1);
        }
        if tip.head.seq > next || self.malformed > 0 {
            return self.settle(false);
        }
        match self.tip {
            // There is nothing before it that could have been changed.
            None => tip.is_named = true,
            Some(before) if before.is_named => {}
            Some(before) if before.differs => self.settle(false),
            Some(_) if tip.differs => {
                self.settle(false);
                tip.is_named = true;
            }
            // Links on both of its sides are broken.
            Some(before) if before.is_doubted => {
                self.settle_as(Fault::Changed { seq: before.head.seq })
            }
            Some(_) => tip.is_doubted = true,
        }
    }

    /// Records an entry whose number is not above that of the entry before.
    fn falls(&mut self, seq: u64, after: u64) {
        let missed = self.missing.iter().position(|(from, to)| (*from..=*to).contains(&seq));
        let Some(at) = missed else { return self.fault(Fault::Repeated { seq }) };
        let (from, to) = self.missing.remove(at);
        let parts =
            [(from, seq.saturating_sub(1), seq > from), (seq.saturating_add(1), to, seq < to)];
        for (from, to, _) in parts.into_iter().filter(|(_, _, is_left)| *is_left) {
            self.miss(from, to);
        }
        self.fault(Fault::OutOfOrder { seq, after });
    }

    fn miss(&mut self, from: u64, to: u64) {
        if from > to {
        } else if self.missing.len() < MAX_FAULTS {
            self.missing.push((from, to));
        } else {
            self.more_faults = self.more_faults.saturating_add(1);
        }
    }

    /// Records a line that is not an entry.
    fn no_entry(&mut self, key: Option<u64>, hash: Hash, why: String) {
        let next = self.last().saturating_add(1);
        if let Some(key) = key.filter(|key| *key >= next) {
            self.settle(false);
            self.miss(next, key - 1);
            let head = Head { seq: key, hash };
            self.fault(Fault::Malformed { line: self.lines, seq: Some(key), why });
            self.advance(Tip { head, differs: false, is_named: true, is_doubted: false });
        } else {
            let seq = key.or_else(|| (self.malformed == 0).then_some(next));
            self.malformed = self.malformed.saturating_add(1);
            self.fault(Fault::Malformed { line: self.lines, seq, why });
        }
    }

    fn advance(&mut self, tip: Tip) {
        self.malformed = 0;
        if self.note.as_ref().is_some_and(|note| note.head == tip.head) {
            self.is_note_seen = true;
        }
        self.tip = Some(tip);
    }

    /// Records the faults of the tip, now that it is known whether the next entry confirms its line.
    fn settle(&mut self, is_confirmed: bool) {
        let Some(tip) = self.tip else { return };
        let seq = tip.head.seq;
        let is_noted = self.note.as_ref().is_some_and(|note| note.head == tip.head);
        let is_confirmed = is_confirmed || is_noted;
        let before = seq.saturating_sub(1);
        if tip.is_doubted && is_confirmed {
            self.settle_as(Fault::Changed { seq: before });
        } else if tip.is_doubted {
            self.settle_as(Fault::Unlinked { seq: before });
        }
        if tip.differs && is_confirmed {
            self.settle_as(Fault::StoredHash { seq });
        } else if tip.differs {
            self.settle_as(Fault::Changed { seq });
        }
    }

    fn settle_as(&mut self, fault: Fault) {
        if let Some(tip) = &mut self.tip {
            (tip.is_named, tip.is_doubted, tip.differs) = (true, false, false);
        }
        self.fault(fault);
    }
}
