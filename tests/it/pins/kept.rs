//! Pins over the end of a process: in order, by a kill, and by a takeover.

use std::{net::SocketAddr, path::PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;
use tidegate::store::{Impact, Reader};

use super::*;
use crate::support::{
    Client,
    process::{Process, free_address, program},
};

/// A program with rounds, which may be started again.
struct Stage {
    origins: [Origin; 2],
    folder: TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    is_kept: bool,
}

impl Stage {
    fn new(is_kept: bool) -> Self {
        let folder = TempDir::new().expect("a folder");
        let (address, admin) = (free_address(), free_address());
        Self { origins: [game("v41"), game("v42")], folder, address, admin, is_kept }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// All weight is on the version with this number.
    fn text(&self, version: usize) -> String {
        let mut builder = builder(&self.origins, ROUNDS)
            .listen(self.address)
            .top(&format!("admin: {{ address: \"{}\" }}", self.admin));
        if self.is_kept {
            builder = builder.top(&format!("state: '{}'", self.state().display()));
        }
        let weights = ["{ v41: 1, v42: 0 }", "{ v41: 0, v42: 1 }"];
        builder.text().replace(weights[0], weights[version])
    }

    fn start(&self, version: usize) -> Process {
        let process = Process::spawn_at(self.address, &self.text(version));
        eventually("the admin endpoint answers", || self.get("/v1/pins").is_some());
        process
    }

    fn get(&self, path: &str) -> Option<Value> {
        let mut client = std::panic::catch_unwind(|| Client::connect(self.admin)).ok()?;
        let answer = client.get(path).host("localhost").try_send().ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    fn pins(&self) -> Vec<u64> {
        let pins = self.get("/v1/pins").expect("an answer");
        let versions = pins["services"][0]["versions"].as_array().expect("versions").clone();
        versions.iter().map(|version| version["pins"].as_u64().expect("a count")).collect()
    }

    fn begin(&self, rounds: usize) -> Vec<String> {
        let mut client = Client::connect(self.address);
        let each = (0..rounds).map(|_| {
            let answer = client.post("/v1/rounds", b"{}").send();
            answer.field("location").expect("a place").to_owned()
        });
        each.collect()
    }

    fn ask(&self, round: &str) -> String {
        let path = format!("{round}/state");
        Client::connect(self.address).get(&path).send().text().to_owned()
    }

    fn settle(&self, round: &str) {
        let path = format!("{round}/settle");
        Client::connect(self.address).post(&path, b"").send();
    }

    /// Pins on the disk.
    fn kept(&self) -> usize {
        let pins = Reader::open(&self.state()).and_then(|reader| reader.pins());
        pins.map_or(0, |pins| pins.get(SERVICE).map_or(0, Vec::len))
    }
}

#[test]
fn rounds_go_on_after_a_restart_in_order_with_the_other_weights_of_the_file() {
    let stage = Stage::new(true);
    let mut process = stage.start(0);
    let rounds = stage.begin(50);
    stage.settle(&rounds[0]);
    process.signal(Signal::TERM);
    process.wait();
    assert_eq!(stage.kept(), 49);
    let mut process = stage.start(1);
    assert_eq!(stage.pins(), [49, 0]);
    assert!(rounds[1..].iter().all(|round| stage.ask(round) == "v41"));
    assert_eq!(stage.ask(&rounds[0]), "v42", "it has ended");
    // Ends and begins of this process are kept, too.
    rounds[1..].iter().for_each(|round| stage.settle(round));
    let new = stage.begin(1);
    process.signal(Signal::TERM);
    process.wait();
    assert_eq!(stage.kept(), 1);
    let _process = stage.start(0);
    assert_eq!((stage.pins(), stage.ask(&new[0])), (vec![0, 1], "v42".to_owned()));
}

#[test]
fn after_a_kill_at_most_the_last_second_of_pins_is_lost() {
    let stage = Stage::new(true);
    let mut process = stage.start(0);
    let rounds = stage.begin(200);
    eventually("they are on the disk", || stage.kept() == 200);
    // What was begun since may be lost, and is whole or not there.
    stage.begin(20);
    process.signal(Signal::KILL);
    process.wait();
    let _process = stage.start(1);
    let pins = stage.pins();
    assert!((200..=220).contains(&pins[0]), "{pins:?}");
    assert!(rounds.iter().all(|round| stage.ask(round) == "v41"));
}

/// Regression: pins were in memory only for as long as a fenced cutover of any service waited.
#[test]
fn pins_are_kept_and_changes_pass_while_a_cutover_of_another_service_waits() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::start(move |call| {
        call.skip_body()?;
        // Ends with the test.
        let _ = wait.lock().expect("no panic").recv();
        call.answer(200, b"v1")
    });
    let new = Origin::answering("v2");
    let stage = Stage::new(true);
    let wallet = format!(
        "services:\n  wallet: {{ baseline: v1, fence: {{ required: true, deadline: 30s }}, versions: {{ \
         v1: {{ endpoints: [ \"{}\" ] }}, v2: {{ endpoints: [ \"{}\" ] }} }} }}\n",
        slow.address, new.address
    );
    let route = "routes:\n  - { service: wallet, match: { path: /wallet/* } }\n";
    let text = stage.text(0).replace("services:\n", &wallet).replace("routes:\n", route);
    let start = || {
        let process = Process::spawn_at(stage.address, &text);
        eventually("the admin endpoint answers", || stage.get("/v1/pins").is_some());
        process
    };
    let mut process = start();
    let mut client = Client::connect(stage.address);
    client.send("POST /wallet/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    slow.await_requests(1);
    let mut moving = Client::connect(stage.admin);
    moving.send(
        "POST /v1/services/wallet/cutover HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n{\"to\":\"v2\"}",
    );
    let kinds = || -> Vec<String> {
        let reader = Reader::open(&stage.state()).expect("a journal");
        let stored = reader.show(&tidegate::store::Filter::default()).expect("entries");
        stored.into_iter().map(|stored| stored.entry.kind.clone()).collect()
    };
    eventually("the cutover is written", || kinds().contains(&"cutover".to_owned()));
    let rounds = stage.begin(20);
    eventually("its pins are on the disk", || stage.kept() == 20);
    let weights = json!({ "weights": { "v41": 0, "v42": 1 } }).to_string();
    let path = format!("/v1/services/{SERVICE}/weights");
    let mut admin = Client::connect(stage.admin);
    let set = admin.request("PUT", &path).host("localhost").body(weights.as_bytes()).send();
    assert_eq!(set.status, 200, "{}", set.text());
    process.signal(Signal::KILL);
    process.wait();
    drop(go_on);

    // Each entry of the journal is in force: that of the cutover, and that of the change which passed it.
    let _process = start();
    assert_eq!(stage.pins(), [20, 0]);
    assert!(rounds.iter().all(|round| stage.ask(round) == "v41"));
    assert_eq!(stage.begin(1).len(), 1);
    assert_eq!(stage.pins(), [20, 1]);
    assert_eq!(Client::connect(stage.address).post("/wallet/x", b"x").send().text(), "v2");
}

/// Replaces the process that serves; returns once another one does.
fn upgrade(stage: &Stage, process: &Process) {
    let pid = || stage.get("/v1/status").and_then(|status| status["pid"].as_i64());
    let old = pid().expect("a process");
    let number = rustix::process::Pid::from_raw(i32::try_from(old).expect("a number"));
    rustix::process::kill_process(number.expect("above 0"), Signal::USR2).expect("it runs");
    eventually("another process serves", || {
        assert!(!process.log().contains("no other process took over"), "{}", process.log());
        pid().is_some_and(|new| new != old)
    });
}

#[test]
fn rounds_go_on_in_the_process_that_takes_over_with_and_without_a_journal() {
    for is_kept in [false, true] {
        let stage = Stage::new(is_kept);
        let process = stage.start(0);
        let rounds = stage.begin(100);
        stage.settle(&rounds[0]);
        process.write(&stage.text(1));
        eventually("the file is in force", || {
            let status = stage.get("/v1/status");
            status.is_some_and(|status| status["reload"]["applied"] == 1)
        });
        for _ in 0..2 {
            upgrade(&stage, &process);
            assert_eq!(stage.pins(), [99, 0], "journal: {is_kept}");
            assert!(rounds[1..].iter().all(|round| stage.ask(round) == "v41"));
            assert_eq!(stage.ask(&rounds[0]), "v42");
        }
        if is_kept {
            stage.settle(&rounds[1]);
            eventually("the new process keeps what changes", || stage.kept() == 98);
        }
    }
}

#[test]
fn a_move_is_in_the_journal_and_outlives_a_kill_that_the_moved_pins_do_not() {
    let stage = Stage::new(true);
    let mut process = stage.start(0);
    let rounds = stage.begin(20);
    eventually("they are on the disk", || stage.kept() == 20);
    let body = json!({ "service": SERVICE, "from": "v41", "to": "v42", "reason": "it loses rounds",
        "ticket": "CHG-7", "impact": "high" });
    let body = body.to_string();
    let mut admin = Client::connect(stage.admin);
    let answer =
        admin.request("POST", "/v1/pins/move").host("localhost").body(body.as_bytes()).send();
    process.signal(Signal::KILL);
    process.wait();
    assert_eq!((answer.status, &answer.json()["moved"]), (200, &json!(20)));
    let _process = stage.start(0);
    assert_eq!(stage.pins(), [0, 20]);
    assert!(rounds.iter().all(|round| stage.ask(round) == "v42"));
    let admin = format!("http://{}", stage.admin);
    let back = ["pins", "move", SERVICE, "v42", "v41", "--ticket", "CHG-8", "--impact", "low"];
    let ended = program().args(back).args(["--admin", &admin]).output().expect("it runs");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let reader = Reader::open(&stage.state()).expect("a journal");
    let filter =
        tidegate::store::Filter { kind: Some("pins_moved".to_owned()), ..Default::default() };
    let entries = reader.show(&filter).expect("entries");
    let entry = &entries.first().expect("one").entry;
    assert_eq!((&*entry.reason, &entry.before["pins"]), ("it loses rounds", &json!(20)));
    assert_eq!((&entry.before["version"], &entry.after["version"]), (&json!("v41"), &json!("v42")));
    let marks = entries.iter().map(|told| (told.entry.ticket.as_deref(), told.entry.impact));
    let (high, low) = (Some(Impact::High), Some(Impact::Low));
    assert_eq!(marks.collect::<Vec<_>>(), [(Some("CHG-7"), high), (Some("CHG-8"), low)]);
    assert!(reader.verify(None, None).faults.is_empty());
}
