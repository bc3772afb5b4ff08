//! Exports, checkpoints, and what verification finds.

use std::io::Write;

use super::*;
use crate::support::process::program;

/// An export of the journal, as lines.
fn export(fixture: &Fixture) -> Vec<String> {
    let text = fixture.run(&["audit", "export"]).done();
    text.lines().map(str::to_owned).collect()
}

/// Writes lines to a file and verifies it.
fn verify(fixture: &Fixture, lines: &[String], arguments: &[&str]) -> Output {
    let path = fixture.beside("changed.jsonl");
    fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>())
        .expect("a file");
    run(&[&["audit", "verify", text(&path)], arguments].concat())
}

/// The output of a verification that finds faults.
#[track_caller]
fn faults(output: Output) -> String {
    assert_eq!((output.code, &*output.error), (Some(65), ""), "{output:?}");
    output.out
}

#[test]
fn an_export_verifies_and_is_never_overwritten() {
    let fixture = Fixture::with(5);
    let file = fixture.beside("journal.jsonl");
    let told = fixture.run(&["audit", "export", text(&file)]).done();
    assert!(told.contains("journal.jsonl: 6 entries, the last is 6 ("), "{told}");
    assert_eq!(fs::read_to_string(&file).expect("a file").lines().count(), 7);
    let verified = run(&["audit", "verify", text(&file)]).done();
    assert!(verified.contains("intact: 6 entries of `tidegate/edge-1/"), "{verified}");
    assert!(verified.contains("not compared with a checkpoint"), "{verified}");

    let again = fixture.run(&["audit", "export", text(&file)]).fails(65);
    assert_says(&again, &["journal.jsonl: exists already", "name a new file"]);
    let inside = fixture.folder.join("journal.db-journal");
    let refused = fixture.run(&["audit", "export", text(&inside)]).fails(65);
    assert_says(&refused, &["in the journal's own folder"]);
    assert!(!inside.exists());
    let nowhere = fixture.beside("no/where");
    assert_says(&fixture.run(&["audit", "export", text(&nowhere)]).fails(64), &["no/where: "]);

    // Standard input, and a part.
    let mut child = program();
    let mut child = child
        .args(["audit", "verify", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    let bytes = fs::read(&file).expect("a file");
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("written");
    assert_eq!(child.wait().expect("an end").code(), Some(0));
    let part = fixture.run(&["audit", "export", "--after", "4"]).done();
    let part: Vec<String> = part.lines().map(str::to_owned).collect();
    assert_eq!(part.len(), 3);
    let whole = faults(verify(&fixture, &part, &[]));
    assert!(whole.contains("entries 1 to 4 are missing"), "{whole}");
    assert!(whole.contains("verify it with `--after 4`"), "{whole}");
    let told = verify(&fixture, &part, &["--after", "4"]).done();
    assert!(told.contains("intact: 2 entries, the last is 6 ("), "{told}");
    assert!(told.contains("entries up to 4 are not in this file, and were not verified"), "{told}");
}

#[test]
fn every_fault_is_named_with_its_entry_and_what_it_means() {
    let fixture = Fixture::with(6);
    let lines = export(&fixture);
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed = lines.clone();
        change(&mut changed);
        faults(verify(&fixture, &changed, &[]))
    };
    let changed = with(&|lines| lines[3] = lines[3].replace("step 3", "step 9"));
    assert!(changed.contains("NOT INTACT: 1 fault in 7 entries"), "{changed}");
    assert!(changed.contains("  entry 4 was changed; its content is not what was written"));
    let missing = with(&|lines| drop(lines.drain(2..4)));
    assert!(
        missing.contains("  entries 3 to 4 are missing; 2 entries were taken out"),
        "{missing}"
    );
    let moved = with(&|lines| lines.swap(3, 4));
    assert!(moved.contains("is out of order"), "{moved}");
    let cut = with(&|lines| lines.truncate(5));
    assert!(cut.contains("the export was cut off behind entry 5"), "{cut}");
    let more = with(&|lines| lines.push("more".to_owned()));
    assert!(more.contains("line 9 stands behind the end of the export"), "{more}");
    assert!(more.contains("docs/journal.md#what-to-do-with-faults"), "{more}");

    let mut changed = lines.clone();
    changed[3] = changed[3].replace("step 3", "step 9");
    let json = faults(verify(&fixture, &changed, &["--json"]));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["intact"], &json["faults"][0]["seq"]), (&json!(false), &json!(4)));
    assert_eq!(json["faults"][0]["fault"], "entry 4 was changed");
}

#[test]
fn a_cut_end_shows_against_a_checkpoint() {
    let fixture = Fixture::with(3);
    // Nobody writes, so one is made.
    let made = fixture.run(&["audit", "checkpoint"]);
    let key = made.error.trim().rsplit(' ').next().expect("a key").to_owned();
    assert!(made.error.starts_with("made now, signed with the key tidegate/edge-1/"), "{made:?}");
    let note = fixture.beside("note");
    fs::write(&note, made.done()).expect("a file");
    let against = ["--against", text(&note), "--key", &*key];
    let told = fixture.run(&[&["audit", "verify"], &against[..]].concat()).done();
    assert!(told.contains("compared with the checkpoint of entry 4, made at 20"), "{told}");
    assert!(told.contains("; signed by the given key"), "{told}");
    let told = fixture.run(&["audit", "verify", "--against", text(&note)]).done();
    assert!(told.contains("its signature was not checked"), "{told}");

    let mut lines = export(&fixture);
    let end = |lines: &[String]| {
        let last = lines.last().expect("a line");
        let hash = tidegate::store::Hash::of(last.as_bytes());
        json!({ "end": { "seq": lines.len(), "hash": hash } }).to_string()
    };
    lines.truncate(2);
    lines.push(end(&lines));
    verify(&fixture, &lines, &[]).done();
    let cut = faults(verify(&fixture, &lines, &against));
    assert!(cut.contains("the end was cut off: the last entry is 2"), "{cut}");
    assert!(cut.contains("2 entries are missing: they existed when the checkpoint was made"));

    // A key of another journal, a note that was changed, and files that are neither.
    let other = Fixture::with(1);
    let others = other.run(&["audit", "checkpoint"]);
    let others_key = others.error.trim().rsplit(' ').next().expect("a key").to_owned();
    let by_other = ["audit", "verify", "--against", text(&note), "--key", &*others_key];
    let told = faults(fixture.run(&by_other));
    assert!(told.contains("the checkpoint has no signature by this key"), "{told}");
    let others_note = other.beside("note");
    fs::write(&others_note, others.out).expect("a file");
    let told = faults(fixture.run(&["audit", "verify", "--against", text(&others_note)]));
    assert!(told.contains("the checkpoint is one of another journal"), "{told}");
    let bad = fixture.beside("bad");
    fs::write(&bad, "no note").expect("a file");
    for (against, key, expected) in [
        (&bad, &*key, "--against: the checkpoint is malformed"),
        (&note, "no key", "--key no key: neither a public key"),
        (&fixture.beside("none"), &*key, "none: no file with a checkpoint can be read"),
    ] {
        let arguments = ["audit", "verify", "--against", text(against), "--key", key];
        assert_says(&fixture.run(&arguments).fails(64), &[expected]);
    }
    let neither = run(&["audit", "verify", text(&bad)]).fails(64);
    assert_says(&neither, &["bad: no line of this file is an entry"]);
}

#[test]
fn a_flipped_byte_in_the_database_is_named() {
    let fixture = Fixture::with(6);
    fixture.run(&["audit", "verify"]).done();
    let database = fixture.folder.join("journal.db");
    let mut bytes = fs::read(&database).expect("a file");
    let step = b"\"step 3\"";
    let at = bytes.windows(step.len()).position(|window| window == step).expect("its reason");
    bytes[at + 6] ^= 1;
    fs::write(&database, bytes).expect("a file");
    let told = faults(fixture.run(&["audit", "verify"]));
    assert!(told.contains("  entry 4 was changed; "), "{told}");
    let told = faults(run(&["audit", "verify", text(&database)]));
    assert!(told.contains("  entry 4 was changed; "), "{told}");
}

#[test]
fn while_a_process_writes_the_last_checkpoint_is_shown() {
    let fixture = Fixture::empty();
    let journal = fixture.open();
    write(&journal, change(1));
    let none = fixture.run(&["audit", "checkpoint"]).fails(69);
    let holder = format!("another process uses this journal (process {})", std::process::id());
    assert_says(&none, &[&holder, "There is no checkpoint in the journal yet"]);
    assert_eq!(fixture.run(&["audit", "checkpoint", "--list"]).done(), "no checkpoints\n");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let note = runtime.block_on(journal.checkpoint()).expect("a checkpoint");
    write(&journal, change(2));
    let shown = fixture.run(&["audit", "checkpoint"]);
    let said = "this is the last checkpoint, of entry 2, made at 20";
    assert!(shown.error.starts_with(said), "{shown:?}");
    let by = format!(", signed with the key {}; ", journal.public_key());
    assert!(shown.error.contains(&by), "{shown:?}");
    assert!(shown.error.contains("; 1 entry came later. "), "{shown:?}");
    assert!(shown.error.contains(&holder), "{shown:?}");
    assert_eq!(shown.done(), note);
    let list = fixture.run(&["audit", "checkpoint", "--list"]).done();
    assert!(list.starts_with("SEQ  MADE AT ") && list.lines().count() == 2, "{list}");
    let verified = fixture.run(&["audit", "verify"]).done();
    assert!(verified.contains("intact: 3 entries"), "{verified}");
}

#[test]
fn a_damaged_database_is_named_with_its_path() {
    let fixture = Fixture::with(40);
    let database = fixture.folder.join("journal.db");
    let bytes = fs::read(&database).expect("a file");
    // The roots of the indexes: pages of lines are not touched.
    let mut damaged = bytes.clone();
    let size = 4096;
    // Type 10 is a leaf of an index; the number of its cells follows. That of a table without rows has none.
    let is_used = |page: &usize| bytes[page * size] == 10 && bytes[page * size + 4] > 0;
    let page = (1..bytes.len() / size).rev().find(is_used);
    let page = page.expect("a leaf of an index");
    damaged[page * size + size - 20..][..10].fill(0xff);
    let copy = fixture.beside("copy.db");
    fs::write(&copy, damaged).expect("a file");
    let told = faults(run(&["audit", "verify", text(&copy)]));
    assert!(told.contains("  the database is damaged: "), "{told}");
    fs::write(&copy, &bytes[..bytes.len() / 2]).expect("a file");
    for command in [&["audit", "verify"][..], &["audit", "show", "--state"], &["restore"]] {
        let mut arguments = [command, &[text(&copy)]].concat();
        let folder = fixture.beside("restored");
        if command == ["restore"] {
            arguments.extend(["--state", text(&folder)]);
        }
        let output = run(&arguments);
        assert!(matches!(output.code, Some(64 | 65)), "{output:?}");
        assert!(output.error.contains("copy.db: "), "{output:?}");
        assert!(!folder.exists());
    }
}
