//! Files that are removed or replaced while they are in use.

use super::*;

/// A file as it is written: its path, with what SQLite has beside it if `whole`.
fn names(folder: &tempfile::TempDir, whole: bool) -> Vec<PathBuf> {
    let ends: &[&str] = if whole { &["", "-wal", "-shm"] } else { &[""] };
    ends.iter().map(|end| folder.path().join(format!("{DATABASE}{end}"))).collect()
}

/// Removed alone, or with what is beside it.
#[test]
fn the_keys_of_a_file_that_is_removed_are_known_to_this_process_and_the_next() {
    for whole in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let log = keep_keys(folder.path()).unwrap();
        let [a, b, c] = [b"a", b"b", b"c"].map(|key| KeyRow { most: 4, ..row(key) });
        assert!(is_new(&log, &a) && is_new(&log, &b));
        log.end(a.id, KeyEnd::Answered(None));
        log.flush(LONG);
        names(&folder, whole).iter().for_each(|path| fs::remove_file(path).unwrap());
        assert!(matches!(state(&log, &a), RowState::Answered(None)), "{whole}");
        assert!(is_new(&log, &c), "{whole}");
        assert_eq!((log.health().carried_over(), log.health().trouble()), (1, None));
        assert_eq!(a.count.load(Relaxed), 3);
        drop(log);
        let next = keep_keys(folder.path()).unwrap();
        assert!(matches!(state(&next, &a), RowState::Answered(None)), "{whole}");
        assert!(matches!(state(&next, &b), RowState::Unsure), "{whole}");
        assert!(matches!(state(&next, &c), RowState::Unsure), "{whole}");
    }
}

/// A copy from an hour ago, or of another machine with a time of its own, takes the place of the file.
#[test]
fn the_keys_of_a_file_that_is_replaced_are_added_to_those_of_the_other_one() {
    for ms in [None, Some(9_000_000_i64), Some(3_900_000_000_000)] {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        {
            let log = keep_keys(other.path()).unwrap();
            assert!(is_new(&log, &row(b"there")));
            assert!(is_new(&log, &row(b"both")));
        }
        let copy = other.path().join(DATABASE);
        if let Some(ms) = ms {
            let connection = Connection::open(&copy).unwrap();
            let left = "UPDATE served SET ms = ?1, boot = 'of another machine'";
            connection.execute(left, [ms]).unwrap();
            let until = ms / 1000 + i64::from(WINDOW);
            connection.execute("UPDATE idempotency SET until = ?1", [until]).unwrap();
        }
        let log = keep_keys(folder.path()).unwrap();
        assert!(is_new(&log, &row(b"here")) && is_new(&log, &row(b"both")));
        log.end(row(b"both").id, KeyEnd::Answered(None));
        log.flush(LONG);
        fs::rename(&copy, folder.path().join(DATABASE)).unwrap();
        for key in [&b"here"[..], b"there"] {
            let row = KeyRow { most: 9, ..row(key) };
            assert!(matches!(state(&log, &row), RowState::Unsure), "{key:?} {ms:?}");
        }
        assert!(matches!(state(&log, &row(b"both")), RowState::Answered(None)), "{ms:?}");
        let until = |key: &[u8]| match begin(&log, &row(key)) {
            Ok(Stored::Known { until, .. }) => u64::from(until),
            other => panic!("{other:?}"),
        };
        let now = log.time().now_ms() / 1000;
        for key in [&b"here"[..], b"there", b"both"] {
            let left = until(key) - now;
            assert!((3_500..=3_602).contains(&left), "{key:?} {ms:?}: {left} s");
        }
        let connection = Connection::open(folder.path().join(DATABASE)).unwrap();
        let intact: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(intact, "ok");
    }
}

#[test]
fn a_folder_that_is_moved_away_refuses_keys_until_it_is_back() {
    let outer = tempfile::tempdir().unwrap();
    let (folder, away) = (outer.path().join("state"), outer.path().join("away"));
    fs::create_dir(&folder).unwrap();
    let log = keep_keys(&folder).unwrap();
    assert!(is_new(&log, &row(b"a")));
    fs::rename(&folder, &away).unwrap();
    assert_eq!(begin(&log, &row(b"a")).err(), Some(Unstored));
    assert_eq!(begin(&log, &row(b"b")).err(), Some(Unstored));
    assert!(log.health().trouble().is_some());
    fs::rename(&away, &folder).unwrap();
    assert!(matches!(state(&log, &row(b"a")), RowState::Unsure));
    assert!(is_new(&log, &row(b"b")));
    assert_eq!((log.health().carried_over(), log.health().trouble()), (0, None));
}

#[test]
fn a_file_that_is_no_database_refuses_keys_and_none_is_lost_once_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let log = keep_keys(folder.path()).unwrap();
    assert!(is_new(&log, &row(b"a")));
    let path = folder.path().join(DATABASE);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "this is no database, however long it is".repeat(200)).unwrap();
    assert_eq!(begin(&log, &row(b"a")).err(), Some(Unstored));
    fs::remove_file(&path).unwrap();
    // Without a request, within two looks.
    let until = Instant::now() + LONG;
    while log.health().trouble().is_some() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(log.health().trouble(), None);
    assert!(matches!(state(&log, &row(b"a")), RowState::Unsure));
    assert_eq!(log.health().carried_over(), 1);
}

/// The first attempt fails after the other file was opened: what is known of its time must not be lost by that.
#[test]
fn the_keys_of_a_replaced_file_keep_their_window_over_attempts_that_fail() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    {
        let log = keep_keys(other.path()).unwrap();
        assert!(is_new(&log, &row(b"there")));
    }
    let copy = other.path().join(DATABASE);
    let connection = Connection::open(&copy).unwrap();
    let left = "UPDATE served SET ms = 9000000, boot = 'of another machine'";
    assert_eq!(connection.execute(left, []).unwrap(), 1);
    connection
        .execute_batch(
            "UPDATE idempotency SET until = 9000 + 3600;
             CREATE TRIGGER full BEFORE INSERT ON idempotency BEGIN SELECT RAISE(ABORT, 'full'); END",
        )
        .unwrap();
    drop(connection);
    let log = keep_keys(folder.path()).unwrap();
    assert!(is_new(&log, &row(b"here")));
    let path = folder.path().join(DATABASE);
    fs::rename(&copy, &path).unwrap();
    for _ in 0..2 {
        assert_eq!(begin(&log, &row(b"here")).err(), Some(Unstored));
        thread::sleep(RETRY_AFTER + Duration::from_millis(100));
    }
    Connection::open(&path).unwrap().execute_batch("DROP TRIGGER full").unwrap();
    let until = Instant::now() + LONG;
    while log.health().trouble().is_some() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    let Ok(Stored::Known { until, .. }) = begin(&log, &row(b"here")) else { panic!("forgotten") };
    let left = u64::from(until) - log.time().now_ms() / 1000;
    assert!((3_500..=3_602).contains(&left), "{left} s");
}
