//! Backups and their way back.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tidegate::store::Reader;

use super::*;
use crate::support::SetOnDrop;

#[test]
fn a_backup_made_while_a_process_writes_verifies_and_is_restored() {
    let fixture = Fixture::empty();
    let (journal, file) = (fixture.open(), fixture.beside("backup.db"));
    let is_over = AtomicBool::new(false);
    let (head, told) = std::thread::scope(|scope| {
        let over = SetOnDrop(&is_over);
        let writer = scope.spawn(|| {
            let mut n = 0;
            while !is_over.load(SeqCst) {
                n += 1;
                write(&journal, change(n));
            }
        });
        crate::support::eventually("entries", || journal.health().head.seq > 20);
        let before = journal.health().head.seq;
        let told = fixture.run(&["backup", text(&file)]).done();
        drop(over);
        writer.join().expect("a writer");
        (before, told)
    });
    assert!(told.contains("`tidegate audit verify "), "{told}");
    let copied = Reader::of_file(&file).expect("a backup").head().expect("a head");
    assert!(copied.seq >= head && copied.seq <= journal.health().head.seq);
    let verified = run(&["audit", "verify", text(&file)]).done();
    assert!(verified.contains(&format!("intact: {} entries", copied.seq)), "{verified}");
    let again = fixture.run(&["backup", text(&file)]).fails(65);
    assert_says(&again, &["backup.db: exists already"]);
    let inside = fixture.folder.join("backup.db");
    assert_says(&fixture.run(&["backup", text(&inside)]).fails(65), &["the journal's own folder"]);

    let folder = fixture.beside("restored");
    let told = run(&["restore", text(&file), "--state", text(&folder)]).done();
    assert!(told.contains(&format!("restored: restored {} entries", copied.seq)), "{told}");
    assert!(told.contains("\nIt was not compared with a checkpoint"), "{told}");
    assert!(told.contains("\nNext: start the process with this folder."), "{told}");
    let restored = Reader::open(&folder).expect("a journal");
    assert_eq!(restored.head().expect("a head"), copied);
    // The next one to write goes on, with a new key.
    let identity = Identity::of_this_process("edge-1");
    let settings = Settings { folder: folder.clone(), identity, replaces: None };
    let next = Journal::open(&settings).expect("a journal");
    assert_eq!(next.health().head.seq, copied.seq + 1);
    next.close();
    let last = run(&["audit", "show", "--limit", "1", "--state", text(&folder)]).done();
    assert!(last.contains("  checkpoint_key  "), "{last}");
}

#[test]
fn a_restore_is_refused_before_it_changes_anything() {
    let fixture = Fixture::with(3);
    let (old, new) = (fixture.beside("old.db"), fixture.beside("new.db"));
    fixture.run(&["backup", text(&old)]).done();
    let journal = fixture.open();
    write(&journal, change(4));
    journal.close();
    let note = fixture.beside("note");
    fs::write(&note, fixture.run(&["audit", "checkpoint"]).done()).expect("a file");
    fixture.run(&["backup", text(&new)]).done();
    let folder = fixture.beside("restored");
    let restore = |file: &Path, folder: &Path, more: &[&str]| {
        run(&[&["restore", text(file), "--state", text(folder)], more].concat())
    };
    let against = ["--against", text(&note)];
    let cut = restore(&old, &folder, &against).fails(65);
    assert_says(&cut, &["the end was cut off: the last entry is 4", "names entry 5"]);
    assert!(!folder.exists());
    let taken = restore(&new, &fixture.folder, &[]).fails(65);
    assert_says(&taken, &["state: the folder is not empty", "name an empty folder"]);
    let export = fixture.beside("journal.jsonl");
    fixture.run(&["audit", "export", text(&export)]).done();
    let no_backup = restore(&export, &folder, &[]).fails(64);
    assert_says(&no_backup, &["journal.jsonl: ", "an export (JSON lines) can be verified"]);
    let nothing = restore(&fixture.beside("none"), &folder, &[]).fails(64);
    assert_says(&nothing, &["none: there is no such file"]);

    let mut bytes = fs::read(&new).expect("a file");
    let step = b"\"step 2\"";
    let at = bytes.windows(step.len()).position(|window| window == step).expect("its reason");
    bytes[at + 6] ^= 1;
    let changed = fixture.beside("changed.db");
    fs::write(&changed, bytes).expect("a file");
    let changed = restore(&changed, &folder, &[]).fails(65);
    assert_says(&changed, &["does not verify: entry 3 was changed", "`tidegate audit verify`"]);
    assert!(!folder.exists());
    let told = restore(&new, &folder, &against).done();
    assert!(told.contains("\nIt has all entries up to the checkpoint."), "{told}");
}
