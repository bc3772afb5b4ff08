//! Pins beside the journal.

use rusqlite::Connection;

use super::*;
use crate::registry::{KeptPin, PinChanges, PinKey};

fn pin(n: u32, version: &str, began: u32) -> KeptPin {
    KeptPin { key: PinKey::of(&n.to_be_bytes()), version: version.into(), began }
}

fn keep(journal: &Journal, set: Vec<KeptPin>, gone: Vec<KeptPin>) -> Result<(), Box<Unkept>> {
    let gone = gone.into_iter().map(|pin| pin.key).collect();
    let changes = vec![("wallet".to_owned(), PinChanges { set, gone })];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(journal.keep_pins(changes))
}

fn kept(folder: &Path) -> Vec<KeptPin> {
    let mut pins = Reader::open(folder).unwrap().pins().unwrap();
    let mut pins = pins.remove("wallet").unwrap_or_default();
    pins.sort_by_key(|pin| pin.began);
    pins
}

#[test]
fn pins_are_kept_beside_the_entries_of_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    keep(&journal, vec![pin(1, "v1", 100), pin(2, "v1", 200)], vec![]).unwrap();
    write(&journal, "ann", 1).unwrap();
    // One moves, one ends, and one ends and begins again.
    keep(&journal, vec![pin(1, "v2", 100), pin(3, "v1", 300)], vec![pin(2, "", 0)]).unwrap();
    keep(&journal, vec![pin(3, "v2", 400)], vec![pin(3, "", 0), pin(9, "", 0)]).unwrap();
    let expected = [pin(1, "v2", 100), pin(3, "v2", 400)];
    assert_eq!(kept(folder.path()), expected);
    drop(journal.close());
    assert_eq!(kept(folder.path()), expected);
    assert_intact(folder.path());
    let copy = folder.path().join("copy.db");
    Reader::open(folder.path()).unwrap().backup(&copy).unwrap();
    assert_eq!(Reader::of_file(&copy).unwrap().pins().unwrap()["wallet"].len(), 2);
}

#[test]
fn pins_that_are_not_written_come_back_and_do_not_fail_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path());
    write(&journal, "ann", 1).unwrap();
    journal.limit_pages(1);
    let many: Vec<KeptPin> = (0..5_000).map(|n| pin(n, "v1", n)).collect();
    let unkept = keep(&journal, many, vec![pin(9_000, "", 0)]).unwrap_err();
    assert_eq!((unkept.changes[0].1.set.len(), unkept.changes[0].1.gone.len()), (5_000, 1));
    assert!(unkept.why.to_string().contains("full"), "{}", unkept.why);
    assert!(journal.health().failing.is_none());
    journal.limit_pages(0);
    write(&journal, "ann", 2).unwrap();
    keep(&journal, vec![pin(1, "v1", 1)], vec![]).unwrap();
    assert_eq!(kept(folder.path()).len(), 1);
}

#[test]
fn a_journal_of_an_earlier_release_has_no_pins_and_gets_a_table_for_them() {
    let folder = tempfile::tempdir().unwrap();
    write(&open(folder.path()), "ann", 1).unwrap();
    let old = Connection::open(folder.path().join("journal.db")).unwrap();
    old.execute_batch("DROP TABLE pin; PRAGMA user_version = 1").unwrap();
    drop(old);
    assert!(Reader::open(folder.path()).unwrap().pins().unwrap().is_empty());
    let journal = open(folder.path());
    keep(&journal, vec![pin(1, "v1", 1)], vec![]).unwrap();
    assert_eq!(kept(folder.path()).len(), 1);
    assert_intact(folder.path());
}
