//! Files of the journal that somebody deletes, replaces or writes to while a process has them.

use std::{
    fs,
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use super::*;

/// A journal with the changes 1 to 3, and its folder.
fn begun() -> (tempfile::TempDir, Journal) {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    for n in 1..=3 {
        write(&journal, "ann", n).unwrap();
    }
    (folder, journal)
}

/// The numbers of `ann`'s changes that are found if the process is killed now: of a copy of the files as they are.
fn after_a_kill(folder: &Path) -> Vec<u64> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["journal.db", "journal.db-wal", "checkpoint.key"] {
        if folder.join(name).exists() {
            fs::copy(folder.join(name), copy.path().join(name)).unwrap();
        }
    }
    drop(open(copy.path()));
    assert_intact(copy.path());
    let all = Filter { limit: Some(MOST_SHOWN), ..Filter::default() };
    let entries = Reader::open(copy.path()).unwrap().show(&all).unwrap();
    let of_ann = entries.iter().filter(|stored| stored.entry.actor.name == "ann");
    of_ann.map(|stored| stored.entry.after["n"].as_u64().unwrap()).collect()
}

/// The change `n` is refused, for this reason, and the journal says so.
#[track_caller]
fn assert_refused(journal: &Journal, n: u64, why: &str) {
    let error = write(journal, "ann", n).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    let failing = journal.health().failing.expect("a failure");
    assert!(failing.reason.contains(why), "{failing:?}");
}

/// Waits until changes can be written again, and writes `n`.
#[track_caller]
fn assert_goes_on(journal: &Journal, n: u64) {
    eventually("it can be written", || journal.health().failing.is_none());
    write(journal, "ann", n).unwrap();
}

/// Regression: changes were acknowledged, and gone when the process was killed.
#[test]
fn a_log_or_index_that_is_deleted_or_replaced_loses_nothing() {
    let (folder, journal) = begun();
    let log = folder.path().join("journal.db-wal");
    let mut n = 3;
    let mut one = |harm: &dyn Fn()| {
        harm();
        n += 1;
        write(&journal, "ann", n).unwrap();
        assert_eq!(after_a_kill(folder.path()), (1..=n).collect::<Vec<_>>());
        assert!(journal.health().failing.is_none());
    };
    one(&|| fs::remove_file(&log).unwrap());
    one(&|| fs::remove_file(&log).unwrap());
    one(&|| {
        fs::remove_file(&log).unwrap();
        fs::write(&log, "something else").unwrap();
    });
    one(&|| fs::remove_file(folder.path().join("journal.db-shm")).unwrap());
    // Also while another connection reads.
    let reader = journal.reader().unwrap();
    reader.head().unwrap();
    one(&|| fs::remove_file(&log).unwrap());
    drop(reader);
    assert_eq!(journal.reader().unwrap().head().unwrap(), journal.health().head);
    drop(journal);
    assert_intact(folder.path());
}

#[test]
fn a_log_that_is_deleted_while_changes_come_loses_none_that_was_acknowledged() {
    let (folder, journal) = begun();
    let log = folder.path().join("journal.db-wal");
    let is_over = AtomicBool::new(false);
    let (mut kept, deleted) = std::thread::scope(|scope| {
        let deletes = scope.spawn(|| {
            let mut deleted = 0;
            while !is_over.load(Relaxed) {
                deleted += u32::from(fs::remove_file(&log).is_ok());
                std::thread::yield_now();
            }
            deleted
        });
        let each = (4..=200).filter(|n| write(&journal, "ann", *n).is_ok());
        let kept: Vec<u64> = each.collect();
        is_over.store(true, Relaxed);
        (kept, deletes.join().unwrap())
    });
    assert!(deleted > 0);
    eventually("it can be written", || write(&journal, "ann", 201).is_ok());
    kept.push(201);
    let found = after_a_kill(folder.path());
    let lost: Vec<&u64> = kept.iter().filter(|n| !found.contains(n)).collect();
    assert!(lost.is_empty(), "{lost:?} of {} after {deleted} deletions", kept.len());
}

#[test]
fn a_database_that_is_moved_away_is_missed_until_it_is_back() {
    let (folder, journal) = begun();
    let (path, aside) = (folder.path().join("journal.db"), folder.path().join("journal.db.aside"));
    fs::rename(&path, &aside).unwrap();
    assert_refused(&journal, 4, "its file was deleted or replaced while it was written");
    assert_refused(&journal, 4, "journal.db");
    fs::rename(&aside, &path).unwrap();
    assert_goes_on(&journal, 4);
    assert_eq!(after_a_kill(folder.path()), [1, 2, 3, 4]);
}

#[test]
fn a_database_that_is_deleted_or_replaced_is_not_begun_anew() {
    for replaced in [false, true] {
        let (folder, journal) = begun();
        let path = folder.path().join("journal.db");
        fs::remove_file(&path).unwrap();
        if replaced {
            fs::write(&path, "").unwrap();
        }
        assert_refused(&journal, 4, "its file was deleted or replaced while it was written");
        assert_refused(&journal, 4, "journal.db");
        drop(journal);
        assert_eq!(path.exists(), replaced);
        assert!(matches!(Journal::open(&settings(folder.path())), Err(StoreError::Gone { .. })));
    }
}

/// Writes `bytes` to the file in its place, as `cp` does, once the disk's clock has moved on.
fn overwrite(path: &PathBuf, bytes: &[u8]) {
    let other = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    let at = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    eventually("the clock moves on", || {
        let mut file = other.as_file();
        file.write_all(b"x").unwrap();
        at(other.path()) > at(path)
    });
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Regression: SQLite went on with what it had in memory.
#[test]
fn a_database_that_is_cut_off_is_missed_until_it_is_whole_again() {
    for length in [0, 4096] {
        let (folder, journal) = begun();
        let path = folder.path().join("journal.db");
        drop(journal);
        let journal = open(folder.path());
        write(&journal, "ann", 4).unwrap();
        let whole = fs::read(&path).unwrap();
        assert!(whole.len() > 4096);
        overwrite(&path, &whole[..length]);
        assert_refused(&journal, 5, "another program wrote to its file, or cut it off");
        assert_refused(&journal, 5, "it was cut off");
        overwrite(&path, &whole);
        assert_goes_on(&journal, 5);
        assert_eq!(after_a_kill(folder.path()), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_database_that_is_overwritten_is_used_again_once_it_is_intact() {
    let (folder, journal) = begun();
    let path = folder.path().join("journal.db");
    // What the log has of a page stands above what the database has, so the page must be one of long before.
    for n in 4..=40 {
        write(&journal, "ann", n).unwrap();
    }
    drop(journal);
    let journal = open(folder.path());
    write(&journal, "ann", 41).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut other = whole.clone();
    // A page also has what it once had, which nobody reads.
    let places = (0..whole.len() - 8).filter(|at| whole[*at..].starts_with(b"change 2"));
    places.for_each(|at| other[at + 7] = b'9');
    overwrite(&path, &other);
    assert_refused(&journal, 42, "another program wrote to its file, or cut it off");
    assert_refused(&journal, 42, "was changed");
    overwrite(&path, &whole);
    assert_goes_on(&journal, 42);
    assert_eq!(after_a_kill(folder.path()), (1..=42).collect::<Vec<_>>());
}

#[test]
fn a_log_that_is_cut_off_is_missed() {
    let (folder, journal) = begun();
    drop(journal);
    let journal = open(folder.path());
    write(&journal, "ann", 4).unwrap();
    overwrite(&folder.path().join("journal.db-wal"), b"");
    assert_refused(&journal, 5, "another program wrote to its file, or cut it off");
    assert_refused(&journal, 5, "journal.db");
}

/// Regression: of a log that was cut off before anything was moved into the database, the process said that the database
/// was no journal, and the next one that it was deleted or moved.
#[test]
fn a_journal_whose_entries_were_in_a_log_that_was_cut_off_is_told_as_such() {
    let why = "all that it had was in its log `journal.db-wal`, which was deleted or cut off";
    let (folder, journal) = begun();
    let (path, log) = (folder.path().join("journal.db"), folder.path().join("journal.db-wal"));
    let copy = |to: &Path, log_bytes: &[u8]| {
        for name in ["journal.db", "checkpoint.key"] {
            fs::copy(folder.path().join(name), to.join(name)).unwrap();
        }
        fs::write(to.join("journal.db-wal"), log_bytes).unwrap();
    };
    let whole = fs::read(&log).unwrap();
    // Whatever is left of it, the journal has entries, or says that they are gone, and stays as it is.
    let mut emptied = 0;
    for part in 0..32 {
        let other = tempfile::tempdir().unwrap();
        copy(other.path(), &whole[..whole.len() * part / 32]);
        match Journal::open(&settings(other.path())) {
            Ok(journal) => assert!(journal.health().head.seq > 0),
            Err(error) => {
                assert!(matches!(error, StoreError::Emptied(_)), "{part}: {error}");
                assert!(error.to_string().contains(why), "{error}");
                emptied += 1;
            }
        }
    }
    assert!(emptied > 1, "{emptied}");
    overwrite(&log, b"");
    assert_refused(&journal, 4, "another program wrote to its file, or cut it off");
    assert_refused(&journal, 4, why);
    drop(journal);
    let bytes = fs::read(&path).unwrap();
    for _ in 0..2 {
        let error = Journal::open(&settings(folder.path())).unwrap_err();
        assert!(matches!(error, StoreError::Emptied(_)), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), bytes, "the log may be put back");
    fs::write(&log, &whole).unwrap();
    assert_eq!(after_a_kill(folder.path()), [1, 2, 3]);
}

/// Regression: what was done to the files was found at the next entry only.
#[test]
fn files_are_looked_at_also_while_nothing_is_written() {
    let (folder, journal) = begun();
    let (path, aside) = (folder.path().join("journal.db"), folder.path().join("journal.db.aside"));
    fs::remove_file(folder.path().join("journal.db-wal")).unwrap();
    let has = |text: &[u8]| {
        let bytes = fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|part| part == text)
    };
    eventually("what the log had is in the database", || has(b"change 3"));
    assert_eq!(after_a_kill(folder.path()), [1, 2, 3]);
    assert!(journal.health().failing.is_none());
    fs::rename(&path, &aside).unwrap();
    eventually("it is missed", || journal.health().failing.is_some());
    let failing = journal.health().failing.expect("it was found");
    assert!(failing.reason.contains("journal.db"), "{failing:?}");
    fs::rename(&aside, &path).unwrap();
    assert_goes_on(&journal, 4);
}
