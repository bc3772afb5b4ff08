//! A disk that is really full: a small one in a mount namespace of the program's own.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    process::Command,
};

use super::*;
use crate::support::lacks;

/// Takes all the space of the disk that `path` is on.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
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

#[test]
fn a_full_disk_refuses_changes_and_nothing_else() {
    let may_mount = || {
        let mut command = Command::new("unshare");
        let tried = command.args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).status();
        tried.is_ok_and(|status| status.success())
    };
    if lacks("unshare", "util-linux") {
        return;
    }
    if !may_mount() {
        assert!(std::env::var_os("CI").is_none(), "a small disk cannot be mounted here");
        eprintln!("skipped: a small disk cannot be mounted here");
        return;
    }
    let failing = Arc::new(AtomicBool::new(false));
    let v1 = Origin::answering("v1");
    let v2 = {
        let failing = Arc::clone(&failing);
        Origin::start(move |call| {
            call.skip_body()?;
            call.answer(if failing.load(SeqCst) { 500 } else { 200 }, b"v2")
        })
    };
    let other = Origin::answering("v1");
    let endpoints = [v1.address, other.address];
    let builder = Proxy::builder().version_at("v1", &endpoints).version("v2", &v2);
    let builder = builder
        .service("weights: { v1: 1, v2: 1 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: {} }");
    let mut stage = Stage::of(builder);
    let disk = stage.folder.path().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let state = disk.join("state");
    stage.builder = stage.builder.clone().top(&format!("state: '{}'", state.display()));
    let process = Process::spawn_beside(stage.address, &stage.builder.text(), |program| {
        let mut command = Command::new("unshare");
        let script =
            format!("mount -t tmpfs -o size=4m none '{}' && exec \"$0\" \"$@\"", disk.display());
        command.args(["-m", "sh", "-c", &script]);
        command.arg(program.get_program()).args(program.get_args());
        command
    });
    serves(stage.admin);
    assert_eq!(stage.set_weights(2, 1).status, 200);
    let pid = stage.get("/v1/status")["pid"].as_u64().expect("a number");
    // The disk as the program sees it.
    let disk = PathBuf::from(format!("/proc/{pid}/root{}", disk.display()));
    fill(&disk.join("filler"));
    let mut refused = None;
    eventually("changes are refused", || {
        let answer = stage.set_weights(fastrand::u32(3..1_000), 1);
        refused = (answer.status != 200).then_some(answer);
        refused.is_some()
    });
    let refused = refused.expect("an answer");
    assert_eq!(refused.status, 503, "{refused:?}");
    let problem = refused.json();
    let detail = problem["detail"].as_str().expect("a text").to_owned();
    assert!(detail.contains("journal") && detail.contains("full"), "{detail}");
    let weight = stage.version(0)["weight"].clone();

    // All else goes on.
    let ready = Client::connect(stage.admin).get("/readyz").host("localhost").send();
    assert_eq!(ready.status, 200);
    eventually("the status says so", || !stage.get("/v1/status")["journal"]["failing"].is_null());
    let page = || {
        let page = Client::connect(stage.admin).get("/metrics").host("localhost").send();
        page.text().to_owned()
    };
    assert!(page().contains("tidegate_journal_failing 1\n"));
    process.write(&stage.builder.text().replace("v1: 1, v2: 1", "v1: 9, v2: 1"));
    eventually("the file is refused", || {
        let reload = stage.get("/v1/status")["reload"].clone();
        reload["error"]["message"].as_str().is_some_and(|why| why.contains("the journal"))
    });
    assert_eq!(stage.version(0)["weight"], weight);

    let last = || stage.get("/v1/status")["journal"]["seq"].as_u64().expect("a number");
    let before = last();
    failing.store(true, SeqCst);
    let mut client = process.connect();
    let mut players = 0..40_000;
    eventually("v2 is out", || {
        for player in players.by_ref().take(50) {
            client.get("/").header("x-player-id", &player.to_string()).send();
        }
        stage.version(1)["state"] == "ejected"
    });
    // The entry of the ejection takes what is kept for it. An ejection by an operator is made all the same.
    eventually("the ejection is written", || last() > before);
    fill(&disk.join("more"));
    let body = json!({ "version": "v1", "endpoint": other.address.to_string(), "reason": "disk" });
    let ejected = stage.send("POST", "eject", &body);
    assert_eq!(ejected.status, 200, "{ejected:?}");
    let unwritten = ejected.json()["unwritten"].clone();
    assert!(unwritten.as_str().is_some_and(|why| why.contains("full")), "{unwritten}");
    // So is the way back, whatever the disk does.
    let back = stage.send("POST", "rollback", &json!({ "reason": "disk" }));
    assert_eq!(back.status, 200, "{back:?}");
    let unwritten = back.json()["unwritten"].clone();
    assert!(unwritten.as_str().is_some_and(|why| why.contains("full")), "{unwritten}");
    let out = |stage: &Stage| stage.version(0)["endpoints"][1]["state"] == "ejected";
    assert!(out(&stage), "{}", stage.version(0));
    eventually("it waits for the disk", || {
        stage.get("/v1/status")["journal"]["late"].as_u64().is_some_and(|late| late > 0)
    });
    // The ejection is in this process alone, so none takes over.
    process.signal(Signal::USR2);
    eventually("no process takes over", || {
        let status = stage.try_get("/v1/status");
        status.is_some_and(|status| !status["takeover"]["last_error"].is_null())
    });
    let log = process.log();
    assert!(log.contains("the journal cannot be written, so no other process takes over"), "{log}");
    assert_eq!(stage.get("/v1/status")["pid"], pid);
    assert!(out(&stage));

    fs::remove_file(disk.join("more")).expect("a file");
    fs::remove_file(disk.join("filler")).expect("a file");
    eventually("the journal is written again", || {
        stage.get("/v1/status")["journal"]["failing"].is_null()
    });
    assert_eq!(stage.set_weights(5, 1).status, 200);
    eventually("events tell of both", || {
        let events = stage.events();
        let told = |kind: &str| events.iter().any(|event| event["kind"] == kind);
        told("journal_failing") && told("journal_works")
    });
    assert!(page().contains("tidegate_journal_failing 0\n"));
    // The database does not follow the link to the program's root.
    let copy = stage.folder.path().join("copy");
    fs::create_dir(&copy).expect("a folder");
    for file in ["journal.db", "journal.db-wal"] {
        fs::copy(disk.join("state").join(file), copy.join(file)).expect("a file");
    }
    let entries = entries(&copy);
    let ejected: Vec<_> = entries.iter().filter(|entry| entry.kind == "ejected").collect();
    let actors: Vec<&str> = ejected.iter().map(|entry| &*entry.actor.name).collect();
    assert_eq!(actors, ["verdict", "anonymous"], "{entries:?}");
    let back: Vec<_> = entries.iter().filter(|entry| entry.kind == "rollback").collect();
    assert!(matches!(&*back, [one] if one.written_late_ms.is_some()), "{back:?}");
    assert!(ejected.iter().all(|entry| entry.written_late_ms.is_some()), "{ejected:?}");
    verify(&copy);
}
