//! A process that finds a journal that is not as it was written starts, and says so.

use super::*;

/// Does something to the database as somebody would who has the file.
fn alter(state: &Path, sql: &str) {
    let other = rusqlite::Connection::open(state.join("journal.db")).expect("a database");
    let free = "PRAGMA foreign_keys = OFF; DROP TRIGGER entry_is_kept; DROP TRIGGER entry_is_final";
    other.execute_batch(free).expect("no triggers");
    other.execute_batch(sql).expect("it is done");
}

fn audit(stage: &Stage, command: &str) -> (Option<i32>, String) {
    let ended = program().args(["audit", command, "--state"]).arg(stage.state()).output();
    let ended = ended.expect("it runs");
    (
        ended.status.code(),
        String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned(),
    )
}

#[test]
fn an_end_cut_off_below_a_checkpoint_is_named_at_the_start() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let mut process = stage.start();
    for n in 2..6 {
        assert_eq!(stage.set_weights(n, 1).status, 200);
    }
    eventually("it is verified", || stage.get("/v1/status")["journal"]["intact"] == true);
    process.signal(Signal::TERM);
    process.wait();
    let (code, note) = audit(&stage, "checkpoint");
    assert_eq!(code, Some(0), "{note}");
    alter(&stage.state(), "DELETE FROM entry WHERE seq > 4");

    let mut process = stage.start();
    let journal = stage.get("/v1/status")["journal"].clone();
    assert_eq!(journal["intact"], false, "{journal}");
    assert!(journal["faults"].to_string().contains("the end was cut off"), "{journal}");
    assert!(process.log().contains("THE JOURNAL IS NOT AS IT WAS WRITTEN"), "{}", process.log());
    let events = stage.events();
    let told = events.iter().find(|event| event["kind"] == "journal_not_intact").expect("an event");
    assert!(told["reason"].as_str().is_some_and(|why| why.contains("cut off")), "{told}");
    // It goes on: the journal is not what traffic and changes wait for.
    assert_eq!(stage.set_weights(9, 1).status, 200);
    process.signal(Signal::TERM);
    process.wait();
    let (code, why) = audit(&stage, "checkpoint");
    assert_eq!(code, Some(65), "{why}");
    assert!(
        why.contains("no checkpoint is made of a journal that is not as it was written"),
        "{why}"
    );
    let (code, found) = audit(&stage, "verify");
    assert_eq!(code, Some(65), "{found}");
    assert!(found.contains("the checkpoint of entry 6 in the journal"), "{found}");
}

#[test]
fn a_changed_entry_is_found_while_the_process_serves() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let mut process = stage.start();
    assert_eq!(stage.set_weights(2, 1).status, 200);
    assert_eq!(stage.set_weights(3, 1).status, 200);
    process.signal(Signal::TERM);
    process.wait();
    let notes =
        Reader::open(&stage.state()).expect("a journal").checkpoints(10).expect("notes").len();
    let change = "UPDATE entry SET line = replace(line, '\"v1\":2.0', '\"v1\":9.0') WHERE seq = 3";
    alter(&stage.state(), change);
    let _process = stage.start();
    eventually("it is found", || stage.get("/v1/status")["journal"]["intact"] == false);
    let faults = stage.get("/v1/status")["journal"]["faults"].to_string();
    assert!(faults.contains("entry 3 was changed"), "{faults}");
    let now =
        Reader::open(&stage.state()).expect("a journal").checkpoints(10).expect("notes").len();
    assert_eq!(now, notes, "no checkpoint of it");
}

#[test]
fn a_journal_that_is_gone_is_not_begun_anew() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let mut process = stage.start();
    process.signal(Signal::TERM);
    process.wait();
    fs::remove_file(stage.state().join("journal.db")).expect("a file");
    let file = stage.folder.path().join("again.yaml");
    fs::write(&file, stage.builder.text()).expect("a file");
    let ended = program().args(["run", "--config"]).arg(&file).output().expect("it runs");
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("it was deleted or moved. Put `journal.db` back"), "{said}");
    assert!(!stage.state().join("journal.db").exists() || Reader::open(&stage.state()).is_err());
}
