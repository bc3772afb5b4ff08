//! What is beside the entries: checkpoints in the journal, the state, the key, and who reads without a trace.

use std::{collections::BTreeSet, fs, path::PathBuf};

use rusqlite::Connection;

use super::*;

/// Cuts off the entries behind `last` as somebody would who has the file.
fn cut(folder: &Path, last: u64) {
    let other = Connection::open(folder.join("journal.db")).unwrap();
    other.execute_batch("PRAGMA foreign_keys = OFF; DROP TRIGGER entry_is_kept").unwrap();
    other.execute("DELETE FROM entry WHERE seq > ?1", [last as i64]).unwrap();
    other.close().unwrap();
}

fn write_all(journal: &Journal, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        write(journal, "ann", n).unwrap();
    }
}

fn checkpoint(journal: &Journal) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(journal.checkpoint()).unwrap()
}

fn faults(folder: &Path) -> Vec<Fault> {
    Reader::open(folder).unwrap().own_faults(1000).unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn entries_that_are_written_while_it_is_verified_are_no_end_that_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write_all(&journal, 1..=2);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let reader = Reader::open(folder.path()).unwrap();
            let mut looks = 0;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(reader.own_faults(1000).unwrap(), []);
                looks += 1;
            }
            looks
        });
        for n in 3..=300 {
            write(&journal, "ann", n).unwrap();
            if n % 20 == 0 {
                checkpoint(&journal);
            }
        }
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        looks.join().unwrap()
    });
    assert!(looks > 10, "{looks}");
    journal.close();
}

#[test]
fn an_end_that_was_cut_off_below_a_checkpoint_of_the_journal_shows() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write_all(&journal, 1..=4);
    checkpoint(&journal);
    journal.close();
    assert_eq!(faults(folder.path()), []);
    cut(folder.path(), 3);
    let expected = [
        Fault::StateAhead { last: 3, newest: 5 },
        Fault::OwnCheckpoint {
            seq: 5,
            why: "is of an entry that is missing: the end was cut off behind entry 3".to_owned(),
        },
    ];
    assert_eq!(faults(folder.path()), expected);
    let verified = Reader::open(folder.path()).unwrap().verify(None, None);
    assert_eq!(verified.faults, expected);

    // It can be opened, and what is written then is not what was cut off.
    let journal = open(folder.path());
    write_all(&journal, 5..=9);
    journal.close();
    let [Fault::OwnCheckpoint { seq: 5, why }] = &*faults(folder.path()) else {
        panic!("{:?}", faults(folder.path()));
    };
    assert!(why.contains("is not of that entry as it is"), "{why}");
}

#[test]
fn a_forged_checkpoint_in_the_journal_shows() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let head = write(&journal, "ann", 1).unwrap();
    let origin = journal.origin().to_owned();
    journal.close();
    let forged = SigningKey::from_seed(&origin, [7; 32]).unwrap();
    let at = std::time::SystemTime::UNIX_EPOCH;
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    let put = |note: &str| {
        other.execute("INSERT INTO checkpoint (seq, note) VALUES (2, ?1)", [note]).unwrap();
    };
    put(&forged.sign(&Checkpoint { origin: origin.clone(), head, at }));
    put("no note");
    put(&forged.sign(&Checkpoint { origin: "tidegate/other/00".to_owned(), head, at }));
    put(&forged.sign(&Checkpoint { origin, head: Head { seq: 9, ..head }, at }));
    other.close().unwrap();
    let told: Vec<String> = faults(folder.path()).iter().map(ToString::to_string).collect();
    for (told, expected) in told.iter().zip([
        "the checkpoint of entry 2 in the journal was changed: it is of entry 9",
        "the checkpoint of entry 2 in the journal is one of another journal, `tidegate/other/00`",
        "the checkpoint of entry 2 in the journal cannot be read: ",
        "the checkpoint of entry 2 in the journal has the signature of no key that an entry names",
    ]) {
        assert!(told.starts_with(expected), "{told}");
    }
    assert_eq!(told.len(), 4, "{told:?}");
}

#[test]
fn a_journal_that_is_gone_is_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write(&journal, "ann", 1).unwrap();
    let (note, origin) = (checkpoint(&journal), journal.origin().to_owned());
    let head = journal.close().head;
    fs::remove_file(folder.path().join("journal.db")).unwrap();
    for _ in 0..2 {
        let error = Journal::open(&settings(folder.path())).unwrap_err().to_string();
        assert!(error.contains(&origin) && error.contains("remove `checkpoint.key`"), "{error}");
    }
    // As the error says.
    fs::write(folder.path().join("replaces"), &note).unwrap();
    fs::remove_file(folder.path().join("checkpoint.key")).unwrap();
    let journal = open(folder.path());
    let first = journal.reader().unwrap().show(&Filter::default()).unwrap().remove(0).entry;
    let replaced = json!({ "origin": origin, "seq": head.seq, "hash": head.hash });
    assert_eq!(first.after["replaces"], replaced);
    journal.close();
    assert!(!folder.path().join("replaces").exists());
    open(folder.path());
    assert_intact(folder.path());
}

/// A new journal was begun, and what had been ejected served again.
#[test]
fn a_restore_that_was_interrupted_begins_no_journal() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["restored", "journal.db.7.part"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    for _ in 0..2 {
        let error = Journal::open(&settings(folder.path())).unwrap_err().to_string();
        assert!(error.contains("`restore` into this folder was interrupted"), "{error}");
    }
    assert!(!folder.path().join("journal.db").exists());
    // As the error says.
    for file in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    open(folder.path()).close();
    assert_intact(folder.path());
}

#[test]
fn a_malformed_note_of_the_journal_before_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("replaces"), "what?").unwrap();
    let error = Journal::open(&settings(folder.path())).unwrap_err().to_string();
    assert!(error.contains("replaces: "), "{error}");
}

/// An attempt that ended between the first entry and its key.
#[test]
fn a_journal_without_its_key_goes_on_with_another_one() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).close();
    fs::remove_file(folder.path().join("checkpoint.key")).unwrap();
    let journal = open(folder.path());
    let kinds: Vec<String> = journal
        .reader()
        .unwrap()
        .show(&Filter::default())
        .unwrap()
        .into_iter()
        .map(|shown| shown.entry.kind)
        .collect();
    assert_eq!(kinds, ["genesis", "checkpoint_key"]);
}

#[test]
fn what_nobody_writes_is_read_without_a_trace() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("a ? 50% # folder");
    let journal = open(&folder);
    write_all(&journal, 1..=3);
    // As after a crash: the newest entries are in the log alone.
    let crashed: PathBuf = above.path().join("crashed");
    fs::create_dir(&crashed).unwrap();
    for file in ["journal.db", "journal.db-wal"] {
        fs::copy(folder.join(file), crashed.join(file)).unwrap();
    }
    let log = fs::read(crashed.join("journal.db-wal")).unwrap();
    assert!(!log.is_empty());
    let head = journal.close().head;
    for folder in [&folder, &crashed] {
        let before = names(folder);
        let reader = Reader::open(folder).unwrap();
        assert_eq!(reader.head().unwrap(), head);
        assert_eq!(reader.verify(None, None).faults, []);
        assert_eq!(names(folder), before);
        assert!(!reader.is_disturbed());
        drop(reader);
        assert_eq!(names(folder), before);
    }
    assert_eq!(fs::read(crashed.join("journal.db-wal")).unwrap(), log);
    // A process may begin to write while somebody reads.
    let reader = Reader::open(&folder).unwrap();
    let journal = open(&folder);
    assert!(reader.is_disturbed());
    write(&journal, "ann", 4).unwrap();
    assert!(!journal.reader().unwrap().is_disturbed());
    assert_eq!(journal.reader().unwrap().head().unwrap(), journal.health().head);
}

#[test]
fn an_entry_about_several_services_is_found_by_each() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let mut moved = Draft::new("configuration", Actor::system(), "changed: services");
    moved.before = json!({ "hash": "x", "services": { "gone": {}, "odd\"name": {} } });
    moved.after = json!({ "hash": "y", "services": { "wallet": { "weights": { "v1": 2.0 } } } });
    journal.submit(moved, Vec::new()).unwrap().wait().unwrap();
    let last = write(&journal, "ann", 1).unwrap();
    let reader = journal.reader().unwrap();
    let found = |service: &str| {
        let filter = Filter { service: Some(service.to_owned()), ..Filter::default() };
        let shown = reader.show(&filter).unwrap();
        let seqs: Vec<u64> = shown.iter().map(|shown| shown.entry.seq).collect();
        (seqs, reader.unknown_names(&filter).unwrap())
    };
    for (service, seqs) in
        [("wallet", [2]), ("gone", [2]), ("odd\"name", [2]), ("service-1", [last.seq])]
    {
        assert_eq!(found(service), (seqs.to_vec(), Vec::new()), "{service}");
    }
    let (none, said) = found("walet");
    assert_eq!(none, [0; 0]);
    assert_eq!(
        said,
        [
            "no entry of this journal is about the service `walet`; did you mean `wallet`? there are: `gone`, \
          `odd\"name`, `service-1`, `wallet`"
        ]
    );
    let weights = reader.last_weights(100).unwrap();
    assert_eq!(weights["wallet"], json!({ "v1": 2.0 }));
    let mut cutover = Draft::new("cutover", Actor::system(), "");
    (cutover.service, cutover.after) = (Some("wallet".to_owned()), json!({ "v1": 0.0, "v2": 1.0 }));
    let mut step = Draft::new("rollout", Actor::system(), "");
    step.service = Some("gone".to_owned());
    step.after = json!({ "phase": "baking", "weights": { "v2": 100.0 } });
    for draft in [cutover, step] {
        journal.submit(draft, Vec::new()).unwrap().wait().unwrap();
    }
    let later = journal.reader().unwrap().last_weights(100).unwrap();
    assert_eq!(later["wallet"], json!({ "v1": 0.0, "v2": 1.0 }));
    assert_eq!(later["gone"], json!({ "v2": 100.0 }));
    assert_eq!(weights["service-1"], json!({ "n": 1 }));
}
