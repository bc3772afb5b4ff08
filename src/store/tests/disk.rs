//! A disk that is really full: a small one of the test's own.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    process::Command,
};

use super::*;

/// The small disk, for the process that has it.
const DISK: &str = "TIDEGATE_TEST_SMALL_DISK";

/// Reports that a test cannot be run here, where a run of all checks looks for that.
fn skip(test: &str, why: &str) {
    eprintln!("skipped: {test}: {why}");
    if let Some(list) = std::env::var_os("SKIPPED_TESTS") {
        let list = fs::OpenOptions::new().append(true).create(true).open(list);
        list.and_then(|mut list| writeln!(list, "{test}: {why}")).expect("a list of skipped tests");
    }
}

/// Takes all the space of the disk that `path` is on.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [64 * 1024, 4096, 1] {
        let block = vec![b'x'; size];
        loop {
            match file.write(&block) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The process that has the small disk; nothing otherwise.
#[test]
fn process_with_a_small_disk() {
    let Some(disk) = std::env::var_os(DISK) else { return };
    let disk = Path::new(&disk);
    let journal = open(&disk.join("state"));
    write(&journal, "ann", 1).unwrap();
    fill(&disk.join("filler"));
    let mut n = 2;
    // Pages that the log has already may take some.
    let error = loop {
        match write(&journal, "ann", n) {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
        assert!(n < 10_000, "the disk is never full");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    let health = journal.health();
    assert!(health.failing.is_some() && health.has_reserve, "{health:?}");

    for ejection in 1..=20 {
        journal.write_late(draft("verdict", ejection), state("verdict", ejection));
    }
    eventually("ejections are written", || journal.health().late == 0);
    let health = journal.health();
    eventually("the reserve is used", || !journal.health().has_reserve);
    assert!(health.failing.is_some(), "{health:?}");
    let error = write(&journal, "ann", n).unwrap_err();
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    let reader = journal.reader().unwrap();
    assert_eq!(reader.state().unwrap()["verdict"].value, json!({ "n": 20 }));
    assert_eq!(reader.state().unwrap()["ann"].value, json!({ "n": n - 1 }));

    fs::remove_file(disk.join("filler")).unwrap();
    eventually("the disk is not full", || {
        let health = journal.health();
        health.failing.is_none() && health.has_reserve
    });
    write(&journal, "ann", n).unwrap();
    drop((reader, journal));
    let verification = assert_intact(&disk.join("state"));
    assert_eq!(verification.entries, n + 21);
    println!("the small disk was full");
}

#[test]
fn ejections_are_written_to_a_full_disk_and_changes_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=4m tidegate-test \"$1\"";
    let run = format!("{mount} || exit 77; exec \"$2\" --exact {} --nocapture", CHILD);
    let program = std::env::current_exe().unwrap();
    let mut why = String::new();
    // The mount is seen by the child alone, and ends with it.
    for flags in [&["--mount"][..], &["--mount", "--map-root-user"]] {
        let mut child = Command::new("unshare");
        child.args(flags).args(["sh", "-c", &run, "sh"]).arg(folder.path()).arg(&program);
        let output = match child.env(DISK, folder.path()).output() {
            Ok(output) => output,
            Err(error) => {
                why = format!("no `unshare`: {error}");
                break;
            }
        };
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if said.contains("the small disk was full") && output.status.success() {
            return;
        }
        let has_disk = said.contains("running 1 test");
        assert!(!has_disk, "{said}");
        why = format!("no disk of its own can be mounted: {}", said.trim().replace('\n', "; "));
    }
    skip("store: a full disk", &why);
}

const CHILD: &str = "store::tests::disk::process_with_a_small_disk";
