//! What verification says of journals that were tampered with.

use std::time::{Instant, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::store::{chain, export::end_line};

/// The lines of a journal with `count` entries, the first one included.
fn lines(count: u64) -> Vec<String> {
    let mut head = Head::START;
    let mut lines = Vec::new();
    for n in 0..count {
        let draft = match n {
            0 => chain::genesis("edge 1", [7; 16], "key", None),
            n => draft("ann", n),
        };
        let stamp = Stamp { at: SystemTime::UNIX_EPOCH, mono_ms: n };
        let sealed = chain::seal(head, draft, stamp, &identity(), None).unwrap();
        head = sealed.head;
        lines.push(sealed.line);
    }
    lines
}

fn head(lines: &[String]) -> Head {
    Head {
        seq: lines.len() as u64,
        hash: lines.last().map_or(Hash::ZERO, |line| Hash::of(line.as_bytes())),
    }
}

fn export(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>() + &end_line(head(lines)) + "\n"
}

fn verify(export: &[u8]) -> Vec<Fault> {
    verify_export(Verifier::new(), export).unwrap().faults
}

/// The faults of lines, with their numbers and hashes as in a database.
fn verify_rows(rows: &[(u64, Vec<u8>, Vec<u8>)]) -> Vec<Fault> {
    let mut verifier = Verifier::new();
    for (key, line, hash) in rows {
        verifier.row(Row { key: Some(*key), line, hash: Some(hash) });
    }
    verifier.finish().faults
}

fn rows(lines: &[String]) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
    let numbered = lines.iter().enumerate();
    numbered
        .map(|(at, line)| {
            let hash = Hash::of(line.as_bytes()).as_bytes().to_vec();
            (at as u64 + 1, line.clone().into_bytes(), hash)
        })
        .collect()
}

fn key() -> SigningKey {
    let random = crate::store::hash::hex(&[7; 16]);
    SigningKey::from_seed(&chain::origin("edge 1", &random), [3; 32]).unwrap()
}

fn note(lines: &[String]) -> String {
    let origin = key().public().name().to_owned();
    key().sign(&Checkpoint { origin, head: head(lines), at: SystemTime::UNIX_EPOCH })
}

fn verify_against(lines: &[String], note: &str) -> Vec<Fault> {
    let verifier = Verifier::new().against(note, Some(key().public()));
    verify_export(verifier, export(lines).as_bytes()).unwrap().faults
}

#[test]
fn a_journal_as_it_was_written_is_intact() {
    let lines = lines(20);
    assert_eq!(verify(export(&lines).as_bytes()), []);
    assert_eq!(verify_rows(&rows(&lines)), []);
    assert_eq!(verify_against(&lines, &note(&lines)), []);
    assert_eq!(verify_against(&lines, &note(&lines[..7])), []);
    let rest: String = lines[5..].iter().map(|line| format!("{line}\n")).collect();
    let rest = rest + &end_line(head(&lines));
    let verified = verify_export(Verifier::after(head(&lines[..5])), rest.as_bytes()).unwrap();
    assert_eq!((verified.faults, verified.entries, verified.head.seq), (vec![], 15, 20));
}

#[test]
fn a_flipped_bit_in_any_byte_of_an_export_names_its_entry() {
    let (lines, count) = (lines(4), 4);
    let whole = export(&lines).into_bytes();
    let mut line = 1;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            let faults = verify(&flipped);
            let shown = || format!("byte {at}, bit {bit}, line {line}: {faults:?}");
            assert!(!faults.is_empty(), "{}", shown());
            if line > count {
                continue;
            }
            let is_named = |line: u64| {
                move |fault: &Fault| match fault {
                    Fault::Malformed { line: found, seq, .. } => {
                        *found == line && seq.is_none_or(|seq| seq == line)
                    }
                    other => other.seq() == Some(line),
                }
            };
            assert!(faults.iter().any(is_named(line)), "{}", shown());
            // A line break that is lost, or a new one, concerns two lines, and the last one may be the end.
            let has_other_lines = whole[at] == b'\n' || flipped[at] == b'\n';
            let is_accused = |fault: &Fault| {
                is_named(line)(fault)
                    || has_other_lines && fault.seq().is_none_or(|s| s == line + 1)
            };
            assert!(faults.iter().all(is_accused), "{}", shown());
        }
        line += u64::from(whole[at] == b'\n');
    }
    assert_eq!(line, count + 2);
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_database_names_its_entry() {
    let rows = rows(&lines(4));
    for (at, (seq, line, hash)) in rows.iter().enumerate() {
        for byte in 0..line.len() + hash.len() {
            for bit in 0..8 {
                let mut flipped = rows.clone();
                let of_hash = byte.checked_sub(line.len());
                match of_hash {
                    None => flipped[at].1[byte] ^= 1 << bit,
                    Some(byte) => flipped[at].2[byte] ^= 1 << bit,
                }
                let faults = verify_rows(&flipped);
                let is_right = match &faults[..] {
                    [Fault::StoredHash { seq: found }] => of_hash.is_some() && found == seq,
                    [Fault::Changed { seq: found }] => {
                        found == seq && (of_hash.is_none() || *seq == 4)
                    }
                    [Fault::Malformed { seq: Some(found), .. }] => found == seq,
                    _ => false,
                };
                assert!(is_right, "entry {seq}, byte {byte}, bit {bit}: {faults:?}");
            }
        }
    }
}

#[test]
fn columns_that_differ_from_their_line_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    for n in 1..=3 {
        write(&journal, "ann", n).unwrap();
    }
    journal.close();
    for (seq, column) in
        [(2, "actor = 'eve'"), (3, "service = NULL"), (4, "kind = 'x'"), (1, "at = ''")]
    {
        let copy = folder.path().join("copy.db");
        std::fs::copy(folder.path().join("journal.db"), &copy).unwrap();
        let connection = rusqlite::Connection::open(&copy).unwrap();
        connection.execute_batch("DROP TRIGGER entry_is_final").unwrap();
        let set = format!("UPDATE entry SET {column} WHERE seq = {seq}");
        connection.execute(&set, []).unwrap();
        drop(connection);
        let faults = Reader::of_file(&copy).unwrap().verify(None, None).faults;
        assert_eq!(faults, [Fault::Columns { seq }], "{column}");
    }
    assert_intact(folder.path());
}

#[test]
fn an_entry_rewritten_with_its_hash_is_named() {
    let mut rows = rows(&lines(5));
    rows[2].1 =
        String::from_utf8(rows[2].1.clone()).unwrap().replace("change 2", "change 9").into();
    rows[2].2 = Hash::of(&rows[2].1).as_bytes().to_vec();
    assert_eq!(verify_rows(&rows), [Fault::Changed { seq: 3 }]);
}

#[test]
fn missing_and_misplaced_entries_are_named() {
    let all = lines(8);
    let pick = |order: &[usize]| {
        let text: String = order.iter().map(|n| format!("{}\n", all[n - 1])).collect();
        let rows = rows(&all);
        let rows: Vec<_> = order.iter().map(|n| rows[n - 1].clone()).collect();
        let faults = verify((text + &end_line(head(&all)) + "\n").as_bytes());
        // Nothing ends the rows of a database.
        if order.contains(&8) {
            assert_eq!(verify_rows(&rows), faults, "{order:?}");
        }
        faults
    };
    assert_eq!(pick(&[1, 2, 3, 5, 6, 7, 8]), [Fault::Missing { from: 4, to: 4 }]);
    assert_eq!(pick(&[3, 4, 5, 6, 7, 8]), [Fault::Missing { from: 1, to: 2 }]);
    assert_eq!(
        pick(&[1, 3, 4, 8]),
        [Fault::Missing { from: 2, to: 2 }, Fault::Missing { from: 5, to: 7 }]
    );
    assert_eq!(pick(&[1, 2, 3]), [Fault::Missing { from: 4, to: 8 }]);
    assert_eq!(pick(&[1, 2, 4, 3, 5, 6, 7, 8]), [Fault::OutOfOrder { seq: 3, after: 4 }]);
    assert_eq!(
        pick(&[1, 2, 6, 4, 7, 8]),
        [
            Fault::Missing { from: 3, to: 3 },
            Fault::OutOfOrder { seq: 4, after: 6 },
            Fault::Missing { from: 5, to: 5 }
        ]
    );
    assert_eq!(pick(&[1, 2, 3, 3, 4, 5, 6, 7, 8]), [Fault::Repeated { seq: 3 }]);
}

#[test]
fn a_cut_export_is_found() {
    let lines = lines(3);
    let whole = export(&lines);
    for length in 0..whole.len() - 1 {
        let faults = verify(&whole.as_bytes()[..length]);
        let is_found = faults.iter().any(|fault| matches!(fault, Fault::NoEnd { .. }));
        assert!(is_found, "{length}: {faults:?}");
    }
    // Without its last line break it says all.
    assert_eq!(verify(&whole.as_bytes()[..whole.len() - 1]), []);
    assert_eq!(verify(format!("{whole}x").as_bytes()), [Fault::BehindEnd { line: 5 }]);
    assert_eq!(verify(b""), [Fault::Empty, Fault::NoEnd { last: 0 }]);
}

#[test]
fn a_cut_tail_is_found_by_a_checkpoint_and_by_nothing_else() {
    let all = lines(9);
    let note = note(&all);
    let nothing = Verifier::new().against(&note, Some(key().public())).finish().faults;
    assert_eq!(nothing, [Fault::Empty, Fault::CutTail { last: 0, noted: 9 }]);
    for left in 1..9 {
        let cut = &all[..left];
        assert_eq!(verify(export(cut).as_bytes()), []);
        let last = left as u64;
        assert_eq!(verify_against(cut, &note), [Fault::CutTail { last, noted: 9 }]);
    }
}

#[test]
fn a_journal_written_anew_is_found_by_a_checkpoint() {
    let all = lines(6);
    let mut anew: Vec<String> = all[..2].to_vec();
    for n in 2..9 {
        let stamp = Stamp { at: SystemTime::UNIX_EPOCH, mono_ms: 0 };
        let other = chain::seal(head(&anew), draft("eve", n), stamp, &identity(), None);
        anew.push(other.unwrap().line);
    }
    assert_eq!(verify(export(&anew).as_bytes()), []);
    assert_eq!(verify_against(&anew, &note(&all)), [Fault::NotAsNoted { seq: 6 }]);
    let other = chain::genesis("edge 1", [8; 16], "key", None);
    let stamp = Stamp { at: SystemTime::UNIX_EPOCH, mono_ms: 0 };
    let other = vec![chain::seal(Head::START, other, stamp, &identity(), None).unwrap().line];
    let faults = verify_against(&other, &note(&all));
    assert!(matches!(&faults[..], [Fault::OtherJournal { .. }]), "{faults:?}");
}

#[test]
fn a_checkpoint_that_is_forged_or_changed_is_a_fault() {
    let all = lines(3);
    let by_other = SigningKey::from_seed(key().public().name(), [4; 32]).unwrap();
    let forged = by_other.sign(&Checkpoint::read(&note(&all)).unwrap());
    for note in [forged.as_str(), &note(&all).replace("\n3\n", "\n2\n"), "", "nonsense"] {
        let faults = verify_against(&all, note);
        assert!(matches!(&faults[..], [Fault::Note { .. }]), "{note}: {faults:?}");
    }
}

#[test]
fn faults_without_number_are_counted_and_not_kept() {
    let garbage = "x\n".repeat(5000);
    let verified = verify_export(Verifier::new(), garbage.as_bytes()).unwrap();
    assert_eq!(verified.faults.len(), MAX_FAULTS);
    assert_eq!(verified.more_faults, 5001 - MAX_FAULTS as u64);
}

#[test]
fn a_line_without_end_is_not_kept_in_memory() {
    let long = std::io::BufReader::new(std::io::Read::take(std::io::repeat(b'x'), 50_000_000));
    let verified = verify_export(Verifier::new(), long).unwrap();
    assert!(
        matches!(verified.faults[..], [Fault::NoEnd { .. }, Fault::Malformed { line: 1, .. }])
            || matches!(
                verified.faults[..],
                [Fault::Malformed { line: 1, .. }, Fault::NoEnd { .. }]
            ),
        "{verified:?}"
    );
}

/// A figure, not a limit: the machine may be busy.
#[test]
fn the_time_to_verify_a_long_journal_is_measured() {
    let count = if cfg!(debug_assertions) { 5_000 } else { 100_000 };
    let whole = export(&lines(count));
    let began = Instant::now();
    let verified = verify_export(Verifier::new(), whole.as_bytes()).unwrap();
    let took = began.elapsed();
    assert_eq!((verified.faults, verified.entries), (vec![], count));
    println!("measured: {count} entries, {} bytes, verified in {took:?}", whole.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_draft_says_is_what_its_entry_says(
        texts in proptest::collection::vec(".{0,40}", 6),
        numbers in any::<(u64, Option<u64>, u32)>(),
        is_high in any::<bool>(),
    ) {
        let [name, role, address, kind, ticket, reason] = texts.try_into().unwrap();
        let actor = Actor { name, role, address: Some(address) };
        let mut said = Draft::new(kind, actor, reason.clone());
        said.ticket = Some(ticket);
        said.impact = is_high.then_some(Impact::High);
        (said.generation, said.epoch) = (numbers.0, numbers.1);
        said.before = json!([reason, numbers.2, null, 0.1]);
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::from(numbers.2));
        let stamp = Stamp { at, mono_ms: numbers.0 };
        let sealed = chain::seal(Head::START, said.clone(), stamp, &identity(), None).unwrap();
        prop_assert!(!sealed.line.contains('\n'));
        let entry: Entry = serde_json::from_str(&sealed.line).unwrap();
        let Entry { actor, kind, ticket, impact, reason, before, generation, epoch, .. } = entry;
        prop_assert_eq!(
            (actor, kind, ticket, impact, reason, before, generation, epoch, entry.at),
            (said.actor, said.kind, said.ticket, said.impact, said.reason, said.before,
             said.generation, said.epoch, at)
        );
    }

    #[test]
    fn any_tampering_with_lines_is_found(
        count in 2_u64..12,
        changes in proptest::collection::vec((0_u8..4, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        let all = lines(count);
        let mut changed = all.clone();
        for (what, from, to) in changes {
            if changed.is_empty() {
                break;
            }
            let (from, to) = (from.index(changed.len()), to.index(changed.len()));
            match what {
                0 => changed.swap(from, to),
                1 => drop(changed.remove(from)),
                2 => changed.insert(to, changed[from].clone()),
                _ => changed[from] = changed[from].replace("boot", "BOOT"),
            }
        }
        let text: String = changed.iter().map(|line| format!("{line}\n")).collect();
        let faults = verify((text + &end_line(head(&all))).as_bytes());
        prop_assert_eq!(faults.is_empty(), changed == all, "{:?}", faults);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        crate::store::fuzzing::journal(&bytes);
    }

    #[test]
    fn no_changed_journal_makes_it_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let all = lines(3);
        let mut bytes = (export(&all) + "%\n" + &note(&all)).into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        crate::store::fuzzing::journal(&bytes);
    }
}
