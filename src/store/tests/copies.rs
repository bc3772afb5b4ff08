//! The folder, who may use it, and copies of it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use rusqlite::Connection;

use super::*;

fn database(folder: &Path) -> PathBuf {
    folder.join("journal.db")
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let error = Journal::open(&settings(folder.path())).unwrap_err();
    let expected = format!(
        "{}: another process uses this journal (process {})",
        folder.path().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), expected);
    journal.close();
    open(folder.path());
}

#[test]
fn only_the_owner_can_read_the_files() {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("a/b");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let journal = open(&folder);
    write(&journal, "ann", 1).unwrap();
    assert_eq!(mode(&folder), 0o700);
    let mut names = Vec::new();
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    let expected =
        ["ballast", "checkpoint.key", "journal.db", "journal.db-shm", "journal.db-wal", "lock"];
    assert_eq!(names, expected);
    drop(journal);
    assert!(!folder.join("journal.db-wal").exists(), "a clean end");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&folder));
    assert_eq!(mode(&folder), 0o700);
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let path = database(folder.path());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 3).unwrap();
    let bytes = fs::read(&path).unwrap();
    let error = Journal::open(&settings(folder.path())).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 3, known: 2, .. }), "{error:?}");
    assert!(error.to_string().contains("a later release of Tidegate"), "{error}");
    assert!(matches!(Reader::open(folder.path()), Err(StoreError::NewerSchema { .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes, "it stays as it was");
}

#[test]
fn other_files_are_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path());
    fs::write(&path, "not a database, and longer than the header of one: ".repeat(40)).unwrap();
    let error = Journal::open(&settings(folder.path())).unwrap_err();
    assert!(matches!(error, StoreError::NotAJournal(_)), "{error:?}");
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
    let error = Journal::open(&settings(folder.path())).unwrap_err();
    assert!(matches!(error, StoreError::NotAJournal(_)), "{error:?}");
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    fs::write(folder.path().join("passwd"), "").unwrap();
    let error = Journal::open(&settings(folder.path())).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    assert!(error.to_string().contains("`passwd`"), "{error}");
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o755);
    fs::remove_file(folder.path().join("passwd")).unwrap();
    open(folder.path());
}

#[test]
fn a_journal_that_is_deleted_while_it_is_written_takes_no_more_changes() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write(&journal, "ann", 1).unwrap();
    let path = database(folder.path());
    let aside = folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    let error = write(&journal, "ann", 2).unwrap_err();
    assert!(error.to_string().contains("deleted or replaced"), "{error}");
    assert!(write(&journal, "ann", 2).is_err());
    assert!(!path.exists(), "no new one is begun");
    fs::rename(&aside, &path).unwrap();
    assert_eq!(write(&journal, "ann", 2).unwrap().seq, 3);
    assert_intact(folder.path());
}

#[test]
fn no_statement_changes_an_entry() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write(&journal, "ann", 1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(journal.checkpoint()).unwrap();
    let other = Connection::open(database(folder.path())).unwrap();
    for (sql, why) in [
        ("UPDATE entry SET line = 'x' WHERE seq = 2", "never changed"),
        ("DELETE FROM entry WHERE seq = 1", "never deleted"),
        ("DELETE FROM entry", "never deleted"),
        ("INSERT OR REPLACE INTO entry SELECT * FROM entry WHERE seq = 2", "before its end"),
        ("UPDATE checkpoint SET note = ''", "never changed"),
        ("DELETE FROM checkpoint", "never deleted"),
    ] {
        let error = other.execute_batch(sql).unwrap_err().to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
    assert_intact(folder.path());
}

#[test]
fn a_changed_entry_and_damaged_pages_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    for n in 1..=20 {
        write(&journal, "ann", n).unwrap();
    }
    journal.close();
    let path = database(folder.path());
    let other = Connection::open(&path).unwrap();
    other.execute_batch("DROP TRIGGER entry_is_final").unwrap();
    let change = "UPDATE entry SET line = replace(line, 'change 6', 'change 7') WHERE seq = 7";
    assert_eq!(other.execute(change, []).unwrap(), 1);
    drop(other);
    let faults = Reader::open(folder.path()).unwrap().verify(None, None).faults;
    assert_eq!(faults, [Fault::Changed { seq: 7 }]);
    // Any damage of the file is an error or a fault, never a panic.
    let bytes = fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(211) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x5a;
        let copy = folder.path().join("copy.db");
        fs::write(&copy, damaged).unwrap();
        if let Ok(reader) = Reader::of_file(&copy) {
            let verification = reader.verify(None, None);
            assert!(!verification.is_intact(), "entry 7 is still changed");
            let _ = (reader.check_integrity(), reader.state(), reader.show(&Filter::default()));
        }
    }
    let last = Connection::open(&path).unwrap();
    last.execute("UPDATE entry SET line = line || ' ' WHERE seq = 21", []).unwrap();
    drop(last);
    let error = Journal::open(&settings(folder.path())).unwrap_err();
    assert!(error.to_string().contains("entry 21 was changed"), "{error}");
}

#[test]
fn a_backup_made_under_load_is_restored_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write(&journal, "ann", 1).unwrap();
    let above = tempfile::tempdir().unwrap();
    let file = above.path().join("backup.db");
    let copied = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for n in 2..=100 {
                write(&journal, "ann", n).unwrap();
            }
        });
        let copied = journal.reader().unwrap().backup(&file).unwrap();
        writing.join().unwrap();
        copied
    });
    let files: Vec<_> = fs::read_dir(above.path()).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files, std::slice::from_ref(&file));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = journal.reader().unwrap().backup(&file);
    assert!(matches!(again, Err(StoreError::Exists(_))), "{again:?}");

    let taken = restore(&file, folder.path(), None, None);
    assert!(matches!(taken, Err(StoreError::NotEmpty(_))), "{taken:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let later = runtime.block_on(journal.checkpoint()).unwrap();
    let target = above.path().join("restored");
    if copied.seq < journal.health().head.seq {
        let cut = restore(&file, &target, Some(&later), Some(journal.public_key()));
        assert!(matches!(cut, Err(StoreError::Unverified { .. })), "{cut:?}");
        assert!(!target.exists());
    }
    let verification = restore(&file, &target, None, None).unwrap();
    assert_eq!(verification.head, copied);
    let origin = journal.origin().to_owned();
    let restored = open(&target);
    assert_eq!(restored.origin(), origin);
    assert_ne!(restored.public_key(), journal.public_key());
    assert_eq!(restored.health().head.seq, copied.seq + 1, "an entry names the new key");
    write(&restored, "ann", 200).unwrap();
    let entries =
        restored.reader().unwrap().show(&Filter { after: copied.seq, ..Filter::default() });
    let kinds: Vec<String> = entries.unwrap().into_iter().map(|shown| shown.entry.kind).collect();
    assert_eq!(kinds, ["checkpoint_key", "weights"]);
    assert_intact(&target);
}

#[test]
fn each_key_of_checkpoints_is_named_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).public_key().clone();
    let path = folder.path().join("checkpoint.key");
    fs::remove_file(&path).unwrap();
    let second = open(folder.path()).public_key().clone();
    assert_ne!(first, second);
    drop(open(folder.path()));
    let shown = Reader::open(folder.path()).unwrap().show(&Filter::default()).unwrap();
    let keys: Vec<_> = shown.iter().map(|shown| shown.entry.after["key"].clone()).collect();
    assert_eq!(keys, [json!(first.to_string()), json!(second.to_string())]);
    let other = SigningKey::from_seed("tidegate/other/00", [1; 32]).unwrap();
    fs::write(&path, other.secret_text()).unwrap();
    let error = Journal::open(&settings(folder.path())).unwrap_err();
    assert!(error.to_string().contains("made for another journal"), "{error}");
}

#[test]
fn a_new_journal_names_the_one_that_it_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let replaces = Some(Replaced { origin: None, seq: 9, hash: Hash::of(b"x") });
    let journal = Journal::open(&Settings { replaces, ..settings(folder.path()) }).unwrap();
    let first = journal.reader().unwrap().show(&Filter::default()).unwrap().remove(0).entry;
    assert_eq!(first.after["replaces"], json!({ "seq": 9, "hash": Hash::of(b"x") }));
    assert_eq!((first.seq, first.prev), (1, Hash::ZERO));
    assert_eq!(first.after["random"].as_str().unwrap().len(), 32);
    assert_eq!(
        journal.origin(),
        format!("tidegate/edge-1/{}", first.after["random"].as_str().unwrap())
    );
}
