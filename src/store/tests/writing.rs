//! Changes on their way to the disk.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::*;
use crate::store::health::Ending;

#[test]
fn a_change_is_there_with_its_state_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let first = write(&journal, "ann", 1).unwrap();
    assert_eq!(first.seq, 2);
    assert_eq!(journal.health().head, first);
    let second = write(&journal, "ann", 2).unwrap();
    drop(journal);
    let verification = assert_intact(folder.path());
    assert_eq!(verification.head, second);
    let journal = open(folder.path());
    let third = write(&journal, "ben", 1).unwrap();
    assert_eq!(third.seq, 4);
    let gone = StateChange { key: "ben".to_owned(), value: None };
    journal.submit(draft("ben", 2), vec![gone]).unwrap().wait().unwrap();
    let reader = journal.reader().unwrap();
    let state = reader.state().unwrap();
    assert_eq!(state.len(), 1);
    assert_eq!(state["ann"], StateValue { seq: second.seq, value: json!({ "n": 2 }) });
    let shown = reader.show(&Filter { newest_first: true, ..Filter::default() }).unwrap();
    let seqs: Vec<u64> = shown.iter().map(|shown| shown.entry.seq).collect();
    assert_eq!(seqs, [5, 4, 3, 2, 1]);
    assert_eq!(shown[2].entry.after, json!({ "n": 2 }));
    assert_eq!(shown[2].entry.prev, first.hash);
    assert_eq!(shown[4].entry.kind, GENESIS);
    assert_eq!(shown[4].entry.after["key"], json!(journal.public_key().to_string()));
}

#[test]
fn all_changes_that_wait_are_written_at_once_and_all_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    // Nothing can be written while another connection writes.
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let count = MOST_WAITING as u64;
    let receipts: Vec<Receipt> =
        (1..=count).map(|n| journal.submit(draft("ann", n), state("ann", n)).unwrap()).collect();
    let refused = journal.submit(draft("ann", 0), Vec::new());
    assert!(matches!(refused, Err(StoreError::Busy)));
    assert_eq!(journal.health().waiting, MOST_WAITING);
    other.execute_batch("COMMIT").unwrap();
    let seqs: BTreeSet<u64> = receipts.into_iter().map(|r| r.wait().unwrap().seq).collect();
    assert!(seqs.into_iter().eq(2..=count + 1));
    // Some were taken before the others came.
    let health = journal.health();
    assert!(health.waiting == 0 && health.commits <= 3, "{health:?}");
    assert_intact(folder.path());
}

#[tokio::test]
async fn more_changes_than_may_wait_are_written_in_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let journal = std::sync::Arc::new(open(folder.path()));
    let began = Instant::now();
    let mut writes = tokio::task::JoinSet::new();
    let count = 1000;
    for n in 1..=count {
        let journal = journal.clone();
        writes.spawn(async move { journal.write(draft("ann", n), state("ann", n)).await });
    }
    let heads = writes.join_all().await;
    let seqs: BTreeSet<u64> = heads.into_iter().map(|head| head.unwrap().seq).collect();
    println!("measured: {count} changes at once in {:?}", began.elapsed());
    assert!(seqs.into_iter().eq(2..=count + 1));
    let began = Instant::now();
    for n in 1..=50 {
        journal.write(draft("ben", n), state("ben", n)).await.unwrap();
    }
    println!("measured: 50 changes one after the other in {:?}", began.elapsed());
    assert_intact(folder.path());
}

#[test]
fn a_change_in_force_is_written_with_how_late_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let other = Connection::open(folder.path().join("journal.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    journal.write_late(draft("verdict", 1), state("verdict", 1));
    journal.write_late(draft("verdict", 2), state("verdict", 2));
    let after = journal.submit(draft("ann", 1), Vec::new()).unwrap();
    assert_eq!(journal.health().late, 2);
    // What is measured is at least this.
    std::thread::sleep(Duration::from_millis(30));
    other.execute_batch("COMMIT").unwrap();
    assert!(after.wait().unwrap().seq >= 2);
    eventually("late changes", || journal.health().late == 0);
    let reader = journal.reader().unwrap();
    let filter = Filter { actor: Some("verdict".to_owned()), ..Filter::default() };
    let shown = reader.show(&filter).unwrap();
    let texts: Vec<&str> = shown.iter().map(|shown| &*shown.entry.reason).collect();
    assert_eq!(texts, ["change 1", "change 2"]);
    assert!(shown.iter().all(|shown| shown.entry.written_late_ms >= Some(29)), "{shown:?}");
    assert_eq!(reader.state().unwrap()["verdict"].value, json!({ "n": 2 }));
}

fn large(n: u64) -> Draft {
    let mut draft = draft("ann", n);
    draft.after = json!("x".repeat(100_000));
    draft
}

#[test]
fn a_full_disk_refuses_changes_and_keeps_ejections() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write(&journal, "ann", 1).unwrap();
    journal.limit_pages(1);
    let refused = journal.submit(large(2), state("ann", 2)).unwrap().wait();
    let refused = refused.unwrap_err();
    assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
    assert!(refused.to_string().contains("full"), "{refused}");
    let failing = journal.health().failing.expect("a reason");
    journal.write_late(large(3), state("ann", 3));
    eventually("an attempt", || {
        let health = journal.health();
        health.late == 1 && health.failing.is_some_and(|f| f.since == failing.since)
    });
    let reader = journal.reader().unwrap();
    assert_eq!(reader.head().unwrap().seq, 2);
    assert_eq!(reader.state().unwrap()["ann"].value, json!({ "n": 1 }));
    journal.limit_pages(0);
    eventually("the disk is not full", || {
        let health = journal.health();
        health.late == 0 && health.failing.is_none() && health.has_reserve
    });
    assert_eq!(reader.state().unwrap()["ann"].value, json!({ "n": 3 }));
    write(&journal, "ann", 4).unwrap();
    let verification = assert_intact(folder.path());
    assert_eq!(verification.entries, 4);
}

#[test]
fn a_failed_commit_that_was_made_counts_as_made() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    journal.let_commits_end(Ending::SeemsFailed);
    assert_eq!(write(&journal, "ann", 1).unwrap().seq, 2);
    journal.let_commits_end(Ending::Real);
    assert_eq!(write(&journal, "ann", 2).unwrap().seq, 3);
    assert_eq!(journal.health().failing, None);
    assert_intact(folder.path());
}

#[test]
fn changes_that_were_answered_as_not_made_are_annulled() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write(&journal, "ann", 1).unwrap();
    journal.let_commits_end(Ending::Unknown);
    let error = write(&journal, "ann", 2).unwrap_err();
    assert!(matches!(error, StoreError::Unknown(_)), "{error:?}");
    journal.write_late(draft("verdict", 1), state("verdict", 1));
    let error = write(&journal, "ben", 1).unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    journal.let_commits_end(Ending::Real);
    eventually("the journal can be opened", || {
        let health = journal.health();
        health.failing.is_none() && health.late == 0
    });
    let reader = journal.reader().unwrap();
    let shown = reader.show(&Filter::default()).unwrap();
    let said: Vec<(&str, &str)> =
        shown.iter().map(|s| (&*s.entry.kind, &*s.entry.actor.name)).collect();
    assert_eq!(
        said,
        [
            ("genesis", "tidegate"),
            ("weights", "ann"),
            ("weights", "ann"),
            ("annulled", "tidegate"),
            ("weights", "verdict")
        ]
    );
    assert_eq!(shown[3].entry.after, json!({ "from": 3, "to": 3 }));
    let state = reader.state().unwrap();
    assert_eq!(state["ann"], StateValue { seq: 2, value: json!({ "n": 1 }) });
    assert_eq!(state.len(), 2);
    assert_intact(folder.path());
}

#[test]
fn late_changes_of_a_commit_in_doubt_are_written_once() {
    for ending in [Ending::Unknown, Ending::Gone] {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(folder.path());
        journal.let_commits_end(ending);
        journal.write_late(draft("verdict", 1), state("verdict", 1));
        eventually("a failure", || journal.health().failing.is_some());
        journal.write_late(draft("verdict", 2), state("verdict", 2));
        assert_eq!(journal.health().late, 2);
        journal.let_commits_end(Ending::Real);
        eventually("an end", || journal.health().late == 0);
        let shown = journal.reader().unwrap().show(&Filter::default()).unwrap();
        let reasons: Vec<&str> = shown[1..].iter().map(|shown| &*shown.entry.reason).collect();
        assert_eq!(reasons, ["change 1", "change 2"], "{ending:?}");
        assert_intact(folder.path());
    }
}

#[test]
fn an_entry_that_is_too_long_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let mut long = draft("ann", 1);
    long.reason = "x".repeat(MAX_LINE_BYTES);
    let long_receipt = journal.submit(long.clone(), Vec::new()).unwrap();
    let mut deep = draft("ann", 2);
    deep.after = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let deep_receipt = journal.submit(deep, Vec::new()).unwrap();
    let other = journal.submit(draft("ann", 3), Vec::new()).unwrap();
    assert!(matches!(long_receipt.wait(), Err(StoreError::Unfit(Unfit::TooLong(_)))));
    assert!(matches!(deep_receipt.wait(), Err(StoreError::Unfit(Unfit::Unreadable(_)))));
    other.wait().unwrap();
    journal.write_late(long, Vec::new());
    eventually("a late change", || journal.health().late == 0);
    assert_eq!(assert_intact(folder.path()).entries, 3);
    assert_eq!(journal.health().failing, None);
}

#[test]
fn a_checkpoint_is_signed_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let head = write(&journal, "ann", 1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let note = runtime.block_on(journal.checkpoint()).unwrap();
    let read = Checkpoint::verify(&note, journal.public_key()).unwrap();
    assert_eq!((read.head, read.origin.as_str()), (head, journal.origin()));
    write(&journal, "ann", 2).unwrap();
    let reader = journal.reader().unwrap();
    assert_eq!(reader.checkpoints(10).unwrap(), [(head.seq, note.clone())]);
    assert_eq!(reader.verify(Some(&note), Some(journal.public_key())).faults, []);
    let mut export = Vec::new();
    reader.export(0, &mut export).unwrap();
    let verifier = Verifier::new().against(&note, Some(journal.public_key()));
    let verified = verify_export(verifier, &export[..]).unwrap();
    assert_eq!((verified.faults, verified.entries), (vec![], 3));
}

#[test]
fn filters_and_reports_take_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    let began = std::time::SystemTime::now();
    for n in 1..=30 {
        write(&journal, if n % 2 == 0 { "ann" } else { "ben" }, n).unwrap();
    }
    let reader = journal.reader().unwrap();
    let seqs = |filter: Filter| -> Vec<u64> {
        reader.show(&filter).unwrap().iter().map(|shown| shown.entry.seq).collect()
    };
    let service = Some("service-0".to_owned());
    assert_eq!(
        seqs(Filter { service: service.clone(), limit: Some(3), ..Filter::default() }),
        [4, 7, 10]
    );
    let more = Filter { service, actor: Some("ann".to_owned()), after: 7, ..Filter::default() };
    assert_eq!(seqs(more), [13, 19, 25, 31]);
    let none = Filter { kind: Some("ejected".to_owned()), ..Filter::default() };
    assert!(seqs(none).is_empty());
    let past = Filter { to: Some(began - Duration::from_secs(60)), ..Filter::default() };
    assert!(seqs(past).is_empty());
    let all = Filter { from: Some(began - Duration::from_secs(60)), ..Filter::default() };
    assert_eq!(seqs(all).len(), 31);
    let mut csv = Vec::new();
    let hour = Duration::from_secs(3600);
    assert_eq!(reader.report(began - hour, began + hour, &mut csv).unwrap(), 31);
    assert_eq!(csv::Reader::from_reader(&csv[..]).records().count(), 31);
    let mut nothing = Vec::new();
    assert_eq!(reader.report(began + hour, began + hour, &mut nothing).unwrap(), 0);
}
