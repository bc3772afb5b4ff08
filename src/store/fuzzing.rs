//! Properties of verification that must hold for any input; used by `fuzz/`, and by the tests with the seeds
//! of its corpus.
//!
//! The input is an export, and behind a line of `%` a checkpoint.

use super::{
    chain::{Head, MAX_LINE_BYTES},
    entry::Entry,
    export::{end_line, verify_export},
    fault::{Fault, MAX_FAULTS, Verification},
    hash::Hash,
    note::{Checkpoint, PublicKey, SigningKey},
    verify::{Row, Verifier},
};

/// Whatever the bytes, verification ends; a second, simple implementation agrees; every fault is one line of
/// text.
pub fn journal(input: &[u8]) {
    let mark = b"\n%\n";
    let at = input.windows(mark.len()).position(|window| window == mark);
    let (export, note) = match at {
        Some(at) => (&input[..=at], &input[at + mark.len()..]),
        None => (input, &[][..]),
    };
    let key = SigningKey::from_seed("tidegate/fuzz/00", [1; 32]).expect("a key");
    let plain = verify_export(Verifier::new(), export).expect("memory can be read");
    check(&plain);
    match is_chain(export) {
        Some(is_chain) => assert_eq!(plain.is_intact(), is_chain, "{plain:?}\n{}", text(export)),
        None => assert!(plain.entries > 0 || !plain.is_intact()),
    }
    let note = text(note);
    for key in [None, Some(key.public())] {
        let noted = Verifier::new().against(&note, key);
        let noted = verify_export(noted, export).expect("memory can be read");
        check(&noted);
        if noted.is_intact() {
            let read = Checkpoint::read(&note).expect("it was read before");
            assert!(plain.is_intact() && read.head.seq <= plain.head.seq);
        }
    }
    as_rows(export);
    if let Ok(key) = text(input).parse::<PublicKey>() {
        assert_eq!(key.to_string(), text(input).trim());
    }
}

/// The same lines with numbers and hashes beside them, as in a database.
fn as_rows(export: &[u8]) {
    let mut verifier = Verifier::new();
    for (at, line) in export.split(|byte| *byte == b'\n').enumerate() {
        let hash = Hash::of(line);
        let stored = if line.len() % 7 == 3 { &line[..2] } else { hash.as_bytes() };
        let key = (at as u64 + 1).wrapping_mul(if line.len() % 5 == 4 { u64::MAX } else { 1 });
        verifier.row(Row { key: Some(key), line, hash: Some(stored) });
    }
    check(&verifier.finish());
}

fn check(verification: &Verification) {
    assert!(verification.faults.len() <= MAX_FAULTS);
    assert!(verification.more_faults == 0 || verification.faults.len() == MAX_FAULTS);
    assert!(verification.faults.is_sorted_by_key(Fault::seq));
    for fault in &verification.faults {
        let shown = fault.to_string();
        assert!(!shown.is_empty());
    }
}

/// Whether `export` is lines of which each names the hash of the one before, numbered from 1, and a last one
/// with the head; `None` if a line is not as the writer would write it, so that it is a matter of taste.
fn is_chain(export: &[u8]) -> Option<bool> {
    let export = std::str::from_utf8(export).ok()?;
    let lines: Vec<&str> = export.strip_suffix('\n')?.split('\n').collect();
    let (end, entries) = lines.split_last()?;
    let mut head = Head::START;
    for line in entries {
        let entry: Entry = serde_json::from_str(line).ok()?;
        if serde_json::to_string(&entry).ok()? != *line || line.len() > MAX_LINE_BYTES {
            return None;
        }
        if (entry.seq, entry.prev) != (head.seq.checked_add(1)?, head.hash) {
            return Some(false);
        }
        head = Head { seq: entry.seq, hash: Hash::of(line.as_bytes()) };
    }
    Some(head.seq > 0 && *end == end_line(head))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_journals_keep_what_is_promised() {
        crate::config::fuzzing::replay("journal", journal);
    }

    #[test]
    fn seeds_reach_what_they_are_named_after() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/journal");
        let faults = |name: &str| {
            let seed = std::fs::read_to_string(folder.join(name)).unwrap();
            let key = SigningKey::from_seed("tidegate/fuzz/00", [1; 32]).unwrap();
            let (export, verifier) = match seed.split_once("%\n") {
                Some((export, note)) => (export, Verifier::new().against(note, Some(key.public()))),
                None => (&*seed, Verifier::new()),
            };
            verify_export(verifier, export.as_bytes()).unwrap().faults
        };
        assert_eq!(faults("intact"), []);
        assert_eq!(faults("intact_with_checkpoint"), []);
        let cut = Fault::CutTail { last: 2, noted: 3 };
        assert_eq!(faults("cut_tail_with_checkpoint"), [cut]);
        assert_eq!(faults("changed"), [Fault::Changed { seq: 2 }]);
        assert_eq!(faults("missing"), [Fault::Missing { from: 2, to: 2 }]);
    }
}
