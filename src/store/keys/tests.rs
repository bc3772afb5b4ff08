use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rusqlite::Connection;

use super::*;
use crate::policy::idempotency::Spelling;
use crate::registry::{Fingerprint, KeptAnswer, RowState};

mod clock;
mod moved;

const LONG: Duration = Duration::from_secs(10);

/// Seconds for which a key is remembered.
const WINDOW: u32 = 3600;

fn row(key: &[u8]) -> KeyRow {
    KeyRow {
        id: KeyId::of("game\nbet", ("client-ip", b"p"), key),
        route: "game\nbet".into(),
        print: Fingerprint::of("a", ("POST", "/bets", ""), b"x", Spelling::Bare),
        window: WINDOW,
        most: 3,
        count: Arc::new(AtomicU64::new(0)),
    }
}

fn begin(log: &KeyLog, row: &KeyRow) -> Result<Stored, Unstored> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(log.begin(row.clone()))
}

fn is_new(log: &KeyLog, row: &KeyRow) -> bool {
    matches!(begin(log, row), Ok(Stored::New { .. }))
}

fn state(log: &KeyLog, row: &KeyRow) -> RowState {
    match begin(log, row) {
        Ok(Stored::Known { state, print, .. }) if print.is_of(&row.print) => state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_became_of_a_key_is_known_to_the_next_who_keeps_keys_there() {
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<KeyRow> = [b"a", b"b", b"c"].map(|key| row(key)).into();
    let answer = KeptAnswer { status: 201, fields: (*b"X: 1\r\n").into(), body: (*b"won").into() };
    {
        let log = keep_keys(folder.path()).unwrap();
        assert!(keys.iter().all(|key| is_new(&log, key)));
        assert!(matches!(begin(&log, &row(b"d")), Ok(Stored::Full { .. })));
        log.end(keys[0].id, KeyEnd::Answered(Some(Arc::new(answer.clone()))));
        log.end(keys[1].id, KeyEnd::Freed);
        log.flush(LONG);
        assert_eq!(keys[0].count.load(Relaxed), 2);
    }
    let log = keep_keys(folder.path()).unwrap();
    assert!(matches!(state(&log, &keys[0]), RowState::Answered(Some(kept)) if kept == answer));
    assert!(is_new(&log, &keys[1]), "it was freed");
    assert!(matches!(state(&log, &keys[2]), RowState::Unsure), "nobody knows how it ended");
    // So it stays, whoever gives up what it did not begin.
    log.end(keys[2].id, KeyEnd::Freed);
    assert!(matches!(state(&log, &keys[2]), RowState::Unsure));
    log.end(keys[2].id, KeyEnd::Answered(None));
    assert!(matches!(state(&log, &keys[2]), RowState::Answered(None)));
}

#[test]
fn a_key_of_a_process_that_runs_is_elsewhere_until_that_process_ends() {
    let folder = tempfile::tempdir().unwrap();
    let key = row(b"a");
    let log = keep_keys(folder.path()).unwrap();
    assert!(is_new(&log, &key));
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let other = owner::of(child.id());
    let connection = Connection::open(folder.path().join(DATABASE)).unwrap();
    let changed = connection.execute("UPDATE idempotency SET owner = ?1", [&other]).unwrap();
    assert_eq!(changed, 1);
    assert!(matches!(state(&log, &key), RowState::Elsewhere));
    log.end(key.id, KeyEnd::Freed);
    assert!(matches!(state(&log, &key), RowState::Elsewhere), "it is not this process's");
    child.kill().unwrap();
    // Not even while its parent has not noticed.
    while owner::runs(&other) {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(state(&log, &key), RowState::Unsure));
    child.wait().unwrap();
}

#[test]
fn many_keys_at_once_share_their_commits() {
    let folder = tempfile::tempdir().unwrap();
    let log = keep_keys(folder.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let begun = runtime.block_on(async {
        let keys = (0u32..2000).map(|n| KeyRow { most: 10_000, ..row(&n.to_be_bytes()) });
        let tasks: Vec<_> = keys.map(|key| log.begin(key)).collect();
        futures_join(tasks).await
    });
    assert_eq!(begun, 2000);
    let written = std::fs::metadata(folder.path().join(format!("{DATABASE}-wal"))).unwrap().len();
    // One commit for each would be three pages or more of 4 KiB for each.
    assert!(written < 2000 * 4096, "{written}");
}

/// Polls all of them at once; returns how many were stored as new.
async fn futures_join(tasks: Vec<impl Future<Output = Result<Stored, Unstored>>>) -> usize {
    let mut tasks: Vec<_> = tasks.into_iter().map(|task| Some(Box::pin(task))).collect();
    let mut new = 0;
    std::future::poll_fn(|cx| {
        for task in &mut tasks {
            let Some(running) = task else { continue };
            if let std::task::Poll::Ready(stored) = running.as_mut().poll(cx) {
                new += usize::from(matches!(stored, Ok(Stored::New { .. })));
                *task = None;
            }
        }
        match tasks.iter().all(Option::is_none) {
            true => std::task::Poll::Ready(new),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

#[test]
fn a_folder_that_cannot_be_written_refuses_keys_and_later_accepts_them() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let log = keep_keys(&missing).unwrap();
    let key = row(b"a");
    assert_eq!(begin(&log, &key).err(), Some(Unstored));
    std::fs::create_dir(&missing).unwrap();
    assert!(is_new(&log, &key));
}
