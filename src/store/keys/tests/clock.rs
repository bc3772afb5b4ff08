//! When keys are forgotten.

use super::*;

/// Sets the time of all processes that use the database forward by `seconds`, as if so much had passed.
fn pass(folder: &tempfile::TempDir, seconds: u32) {
    let connection = Connection::open(folder.path().join(DATABASE)).unwrap();
    let changed = connection.execute("UPDATE served SET ms = ms + 1000 * ?1", [seconds]).unwrap();
    assert_eq!(changed, 1);
}

fn count(folder: &tempfile::TempDir) -> i64 {
    let connection = Connection::open(folder.path().join(DATABASE)).unwrap();
    let count = "SELECT count(*) FROM idempotency";
    connection.query_row(count, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_key_whose_window_has_passed_begins_again_and_takes_no_space() {
    let folder = tempfile::tempdir().unwrap();
    let log = keep_keys(folder.path()).unwrap();
    assert!(is_new(&log, &row(b"old")));
    pass(&folder, WINDOW - 60);
    assert!(is_new(&log, &row(b"other")));
    assert!(matches!(state(&log, &row(b"old")), RowState::Unsure), "a minute is left");
    pass(&folder, 62);
    assert!(is_new(&log, &row(b"old")), "it is forgotten");
    pass(&folder, 2 * WINDOW);
    assert!(is_new(&log, &row(b"last")));
    let until = Instant::now() + LONG;
    while count(&folder) > 1 && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(count(&folder), 1);
    for n in 0u32..2 {
        assert!(is_new(&log, &row(&n.to_be_bytes())));
    }
}

/// The clock of the machine takes no part: neither at the start nor later.
#[test]
fn a_time_that_is_years_from_the_clock_forgets_nothing() {
    for ms in [1_000_i64, 4_000_000_000_000] {
        let folder = tempfile::tempdir().unwrap();
        {
            let log = keep_keys(folder.path()).unwrap();
            assert!(is_new(&log, &row(b"first")));
        }
        let connection = Connection::open(folder.path().join(DATABASE)).unwrap();
        let left = "UPDATE served SET ms = ?1, boot = 'an earlier one'";
        assert_eq!(connection.execute(left, [ms]).unwrap(), 1);
        assert_eq!(connection.execute("DELETE FROM idempotency", []).unwrap(), 1);
        let log = keep_keys(folder.path()).unwrap();
        assert!(is_new(&log, &row(b"k")));
        let second = keep_keys(folder.path()).unwrap();
        assert!(matches!(state(&second, &row(b"k")), RowState::Unsure), "{ms}");
        // What purges keys has looked at them.
        thread::sleep(PURGE_EVERY + Duration::from_millis(200));
        assert!(matches!(state(&log, &row(b"k")), RowState::Unsure), "{ms}");
        let now = u64::from(second.time().now());
        assert!((0..=60).contains(&(now - ms.unsigned_abs() / 1000)), "{now}");
    }
}

#[test]
fn processes_of_one_boot_have_one_time_and_a_restored_copy_goes_on_from_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let first = keep_keys(folder.path()).unwrap();
    assert!(is_new(&first, &row(b"a")));
    pass(&folder, 1_000);
    let second = keep_keys(folder.path()).unwrap();
    assert!(is_new(&second, &row(b"b")) && is_new(&first, &row(b"c")));
    let apart = second.time().now_ms().abs_diff(first.time().now_ms());
    assert!(apart < 1_000, "{apart} ms");
}

#[test]
fn a_time_that_leaves_no_room_is_damage_and_refuses_keys() {
    let folder = tempfile::tempdir().unwrap();
    let log = keep_keys(folder.path()).unwrap();
    assert!(is_new(&log, &row(b"a")));
    let connection = Connection::open(folder.path().join(DATABASE)).unwrap();
    connection.execute("UPDATE served SET ms = ?1", [i64::MAX]).unwrap();
    assert_eq!(begin(&log, &row(b"b")).err(), Some(Unstored));
    let trouble = log.health().trouble().expect("it is told");
    assert!(trouble.reason.contains("its time is"), "{}", trouble.reason);
}

/// What the release before wrote: its schema, its prints, and a clock that was a day behind.
#[test]
fn a_database_of_the_release_before_keeps_its_keys_for_their_whole_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(DATABASE);
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(include_str!("schema1.sql")).unwrap();
    let wall = SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let began = wall - 86_400;
    let old = row(b"old");
    let bare = bare("POST", "/bets", "", b"x");
    connection
        .execute(
            "INSERT INTO idempotency (id, route, print, owner, state, until) VALUES (?1, ?2, ?3, 'gone', 2, ?4)",
            rusqlite::params![old.id.bytes(), &*old.route, bare, i64::try_from(began + u64::from(WINDOW)).unwrap()],
        )
        .unwrap();
    drop(connection);
    let log = keep_keys(folder.path()).unwrap();
    assert!(matches!(state(&log, &old), RowState::Unsure), "of the same request, to whatever host");
    let other = KeyRow {
        print: Fingerprint::of("b", ("POST", "/bets", ""), b"x", Spelling::Bare),
        ..old.clone()
    };
    assert!(matches!(state(&log, &other), RowState::Unsure));
    let changed = KeyRow {
        print: Fingerprint::of("a", ("POST", "/bets", ""), b"y", Spelling::Bare),
        ..old.clone()
    };
    let known = begin(&log, &changed);
    assert!(matches!(known, Ok(Stored::Known { print, .. }) if !print.is_of(&changed.print)));
    assert!(u64::from(log.time().now()).abs_diff(began) < 60);
    // What is written now has the host.
    let new = row(b"new");
    assert!(is_new(&log, &new));
    let elsewhere = KeyRow { print: other.print, ..new };
    let known = begin(&log, &elsewhere);
    assert!(matches!(known, Ok(Stored::Known { print, .. }) if !print.is_of(&elsewhere.print)));
}

#[test]
fn a_database_of_a_later_release_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(DATABASE);
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(include_str!("schema1.sql")).unwrap();
    connection.pragma_update(None, "user_version", 3).unwrap();
    let log = keep_keys(folder.path()).unwrap();
    assert_eq!(begin(&log, &row(b"a")).err(), Some(Unstored));
    let trouble = log.health().trouble().expect("it is told");
    assert!(trouble.reason.contains("a later release"), "{}", trouble.reason);
}

/// A print as the release before made it: without the host.
fn bare(method: &str, path: &str, query: &str, body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    for part in [method.as_bytes(), path.as_bytes(), query.as_bytes(), body] {
        whole.extend_from_slice(&(part.len() as u64).to_be_bytes());
        whole.extend_from_slice(part);
    }
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &whole).as_ref()[..16].to_vec()
}
