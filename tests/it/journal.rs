//! What is acknowledged is in the journal, and what is in the journal is in force, whatever happens to the
//! process and its disk.

mod altered;
mod asked;
mod disk;
mod fenced;
mod killed;
mod overtaken;
mod rolled_back;
mod sent;
mod synced;
mod taken_over;
mod told;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::store::{Entry, Filter, Reader};

use crate::support::{
    Answer, Client, Origin, Proxy, eventually,
    process::{Process, free_address, program},
    proxy::{Builder, SERVICE},
};

/// A program with a journal, which may be started again.
struct Stage {
    folder: TempDir,
    builder: Builder,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Stage {
    /// Versions v1 with two endpoints and v2 with one.
    fn new(origins: &[Origin; 3]) -> Self {
        let endpoints = [origins[0].address, origins[1].address];
        let builder = Proxy::builder().version_at("v1", &endpoints).version("v2", &origins[2]);
        Self::of(builder.service("weights: { v1: 3, v2: 1 }"))
    }

    fn of(builder: Builder) -> Self {
        let (folder, admin) = (TempDir::new().expect("a folder"), free_address());
        let state = folder.path().join("state");
        let builder = builder
            .top(&format!("admin: {{ address: \"{admin}\" }}"))
            .top(&format!("state: '{}'", state.display()));
        let address = free_address();
        Self { folder, builder: builder.listen(address), address, admin }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts it; returns once it serves.
    #[track_caller]
    fn start(&self) -> Process {
        let process = Process::spawn_at(self.address, &self.builder.text());
        serves(self.admin);
        process
    }

    fn get(&self, path: &str) -> Value {
        Client::connect(self.admin).get(path).host("localhost").send().json()
    }

    /// As [`Stage::get`]; `None` if the process that was asked hands over.
    fn try_get(&self, path: &str) -> Option<Value> {
        let answer = Client::connect(self.admin).get(path).host("localhost").try_send();
        answer.ok().map(|answer| answer.json())
    }

    /// The events so far.
    fn events(&self) -> Vec<Value> {
        let mut client = Client::connect(self.admin);
        let request = client.get("/v1/events?since=0").host("localhost");
        let answer = request.header("Accept", "application/json").send().json();
        answer["events"].as_array().expect("a list").clone()
    }

    fn send(&self, method: &str, what: &str, body: &Value) -> Answer {
        let (path, body) = (format!("/v1/services/{SERVICE}/{what}"), body.to_string());
        let mut client = Client::connect(self.admin);
        client.request(method, &path).host("localhost").body(body.as_bytes()).send()
    }

    fn set_weights(&self, v1: u32, v2: u32) -> Answer {
        self.send(
            "PUT",
            "weights",
            &json!({ "weights": { "v1": v1, "v2": v2 }, "reason": "a test" }),
        )
    }

    /// Version number `version` as the API shows it.
    fn version(&self, version: usize) -> Value {
        self.get(&format!("/v1/services/{SERVICE}"))["versions"][version].clone()
    }

    fn entries(&self) -> Vec<Entry> {
        entries(&self.state())
    }

    #[track_caller]
    fn verify(&self) {
        verify(&self.state());
    }
}

/// Waits until a process serves its admin endpoint. Its sockets are there before it has opened the journal.
fn serves(admin: SocketAddr) {
    eventually("the admin endpoint is there", || TcpStream::connect(admin).is_ok());
    Client::connect(admin).get("/healthz").host("localhost").send();
}

fn entries(state: &Path) -> Vec<Entry> {
    let reader = Reader::open(state).expect("a journal");
    let filter = Filter { limit: Some(10_000), ..Filter::default() };
    reader.show(&filter).expect("entries").into_iter().map(|stored| stored.entry).collect()
}

fn kinds(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| &*entry.kind).collect()
}

#[track_caller]
fn verify(state: &Path) {
    let found = Reader::open(state).expect("a journal").verify(None, None);
    assert!(found.faults.is_empty(), "{found:?}");
}

fn origins() -> [Origin; 3] {
    ["v1", "v1", "v2"].map(Origin::answering)
}

#[test]
fn what_was_changed_survives_a_kill_and_a_restart() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let mut process = stage.start();
    let endpoint = origins[1].address.to_string();
    assert_eq!(stage.set_weights(10, 30).status, 200);
    let body = json!({ "version": "v2", "reason": "pays twice" });
    assert_eq!(stage.send("POST", "eject", &body).status, 200);
    let body = json!({ "version": "v1", "endpoint": endpoint, "reason": "disk" });
    assert_eq!(stage.send("POST", "eject", &body).status, 200);
    // Nothing moves; the audit shows that somebody asked.
    assert_eq!(stage.set_weights(10, 30).status, 200);
    let path = format!("/v1/services/{SERVICE}/weights?dry_run=true");
    let mut client = Client::connect(stage.admin);
    let dry =
        client.request("PUT", &path).host("localhost").body(br#"{"weights":{"v1":1},"only":true}"#);
    assert_eq!(dry.send().status, 200);
    let generation = stage.get("/v1/status")["generation"].as_u64().expect("a number");
    process.signal(Signal::KILL);
    process.wait();

    let mut process = stage.start();
    let check = || {
        let (v1, v2) = (stage.version(0), stage.version(1));
        assert_eq!((&v1["weight"], &v2["weight"]), (&json!(10.0), &json!(30.0)));
        assert_eq!(
            (&v2["state"], &v2["ejection"]["reason"]),
            (&json!("ejected"), &json!("pays twice"))
        );
        assert_eq!(v2["ejection"]["by"], "anonymous");
        let shown = &v1["endpoints"][1];
        assert_eq!((&shown["address"], &shown["state"]), (&json!(endpoint), &json!("ejected")));
        assert_eq!(Client::connect(stage.address).get("/").send().text(), "v1");
    };
    check();
    let status = stage.get("/v1/status");
    assert!(status["generation"].as_u64() > Some(generation), "{status}");
    assert_eq!(status["journal"]["folder"], json!(stage.state()));
    assert_eq!(status["journal"]["failing"], Value::Null);

    let entries = stage.entries();
    let expected = ["genesis", "resumed", "weights", "ejected", "ejected", "weights", "resumed"];
    assert_eq!(kinds(&entries), expected);
    assert_eq!(status["journal"]["seq"], json!(entries.len()));
    let weights = &entries[2];
    assert_eq!((&*weights.actor.name, &*weights.actor.role), ("anonymous", "operator"));
    assert_eq!(weights.actor.address.as_deref(), Some("127.0.0.1"));
    assert_eq!((&*weights.reason, weights.service.as_deref()), ("a test", Some(SERVICE)));
    assert_eq!(weights.before, json!({ "v1": 3.0, "v2": 1.0 }));
    assert_eq!(weights.after, json!({ "v1": 10.0, "v2": 30.0 }));
    assert!(weights.config_hash.as_ref().is_some_and(|hash| status["config_hash"] == **hash));
    assert_eq!((&weights.after, weights.written_late_ms), (&entries[5].after, None));
    assert_eq!(entries[3].after, json!({ "version": "v2", "ejected": true }));

    // Reinstated, and ended in order.
    for body in [json!({ "version": "v2" }), json!({ "version": "v1", "endpoint": endpoint })] {
        assert_eq!(stage.send("POST", "reinstate", &body).status, 200);
    }
    process.signal(Signal::TERM);
    process.wait();
    let _process = stage.start();
    assert_eq!(stage.version(1)["state"], "serving");
    assert_eq!(stage.version(0)["endpoints"][1]["state"], "serving");
    stage.verify();
}

#[test]
fn a_file_that_changed_meanwhile_ends_what_it_contradicts() {
    let origins = origins();
    let mut stage = Stage::new(&origins);
    let mut process = stage.start();
    assert_eq!(stage.set_weights(1, 1).status, 200);
    assert_eq!(stage.send("POST", "eject", &json!({ "version": "v2" })).status, 200);
    process.signal(Signal::KILL);
    process.wait();
    let builder = Proxy::builder().version("v1", &origins[0]).version("v3", &origins[1]);
    let (admin, state) = (stage.admin, stage.state());
    stage.builder = builder
        .service("weights: { v1: 4, v3: 4 }")
        .top(&format!("admin: {{ address: \"{admin}\" }}"))
        .top(&format!("state: '{}'", state.display()))
        .listen(stage.address);
    let _process = stage.start();
    assert_eq!(stage.version(1)["name"], "v3");
    assert_eq!(
        (stage.version(0)["weight"].clone(), stage.version(1)["weight"].clone()),
        (json!(4.0), json!(4.0))
    );
    let entries = stage.entries();
    let last = entries.last().expect("an entry");
    assert_eq!(last.kind, "resumed");
    assert_eq!(last.after["weights_dropped"], json!([SERVICE]));
    assert_eq!(last.after["versions_gone"], json!([[SERVICE, "v2"]]));
    let state = Reader::open(&state).expect("a journal").state().expect("rows");
    let left: Vec<_> = state.keys().filter(|key| !key.starts_with("epoch/")).collect();
    // The ejection stays, by name, should the version come back.
    assert_eq!(left, ["ejected/game-api/v2", "generation"]);
}

#[test]
fn a_reload_is_an_entry_and_log_and_event_name_it() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let process = stage.start();
    assert_eq!(stage.set_weights(7, 1).status, 200);
    process.write(&stage.builder.text().replace("v1: 3", "v1: 5"));
    eventually("the file is in force", || stage.version(0)["weight"] == 5.0);
    let entries = stage.entries();
    assert_eq!(kinds(&entries), ["genesis", "resumed", "weights", "configuration"]);
    let reload = &entries[3];
    assert_eq!((&*reload.actor.name, &*reload.actor.role), ("tidegate", "system"));
    assert_eq!(reload.after["weights_dropped"], json!([SERVICE]));
    assert_eq!(reload.before["hash"], json!(entries[2].config_hash));

    let reader = Reader::open(&stage.state()).expect("a journal");
    let stored = reader.show(&Filter::default()).expect("entries");
    let heads =
        stored[2..].iter().map(|entry| json!({ "seq": entry.entry.seq, "hash": entry.hash }));
    let events = stage.events();
    let named = events.iter().filter(|event| !event["journal"].is_null());
    assert!(named.map(|event| event["journal"].clone()).eq(heads.clone()), "{events:?}");
    let log: Vec<Value> =
        process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (message, head) in ["weights changed", "configuration taken over"].iter().zip(heads) {
        let line = log.iter().find(|line| line["message"] == **message).expect("a line");
        assert_eq!((&line["journal.seq"], &line["journal.hash"]), (&head["seq"], &head["hash"]));
    }
}

#[test]
fn an_ejection_by_a_verdict_is_in_force_first_and_written_late() {
    let failing = Arc::new(AtomicBool::new(false));
    let origin = |name: &'static str, failing: Arc<AtomicBool>| {
        Origin::start(move |call| {
            call.skip_body()?;
            call.answer(if failing.load(SeqCst) { 500 } else { 200 }, name.as_bytes())
        })
    };
    let (v1, v2) = (origin("v1", Arc::default()), origin("v2", Arc::clone(&failing)));
    let builder = Proxy::builder().version("v1", &v1).version("v2", &v2);
    let builder = builder
        .service("weights: { v1: 1, v2: 1 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: {} }");
    let stage = Stage::of(builder);
    let mut process = stage.start();
    let mut client = process.connect();
    let mut players = 0..40_000;
    let mut ask = || {
        for player in players.by_ref().take(50) {
            client.get("/").header("x-player-id", &player.to_string()).send();
        }
    };
    (0..20).for_each(|_| ask());
    failing.store(true, SeqCst);
    eventually("v2 is out", || {
        ask();
        stage.version(1)["state"] == "ejected"
    });
    eventually("it is written", || kinds(&stage.entries()).contains(&"ejected"));
    let entries = stage.entries();
    let ejected = entries.iter().find(|entry| entry.kind == "ejected").expect("an entry");
    assert!(ejected.written_late_ms.is_some(), "{ejected:?}");
    assert_eq!((&*ejected.actor.name, &*ejected.actor.role), ("verdict", "system"));
    assert_eq!(ejected.verdict.as_ref().map(|verdict| &verdict["answer"]), Some(&json!("fail")));
    process.signal(Signal::KILL);
    process.wait();
    let _process = stage.start();
    let v2 = stage.version(1);
    assert_eq!((&v2["state"], &v2["ejection"]["by"]), (&json!("ejected"), &json!("verdict")));
    stage.verify();
}

#[test]
fn a_folder_has_one_process_and_must_be_usable() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let mut process = stage.start();
    let second = Stage::new(&origins);
    let text = second.builder.clone().top(&format!("state: '{}'", stage.state().display())).text();
    let refused = |text: &str| {
        let file = stage.folder.path().join("second.yaml");
        fs::write(&file, text).expect("a file");
        let ended = program().args(["run", "--config"]).arg(&file).output().expect("it runs");
        assert_eq!(ended.status.code(), Some(69), "{ended:?}");
        String::from_utf8_lossy(&ended.stderr).into_owned()
    };
    let said = refused(&text);
    assert!(said.contains("another process uses this journal (process "), "{said}");
    // Its end moves the log into the file.
    process.signal(Signal::TERM);
    process.wait();
    fs::write(stage.state().join("journal.db"), b"this is no database".repeat(300))
        .expect("a file");
    let said = refused(&text);
    assert!(said.contains("cannot use the journal of `state`"), "{said}");
    let said = refused(&second.builder.clone().top("state: /proc/none").text());
    assert!(said.contains("/proc/none"), "{said}");
}

#[test]
fn without_a_journal_log_and_status_say_so() {
    let origins = origins();
    let admin = free_address();
    let builder = Proxy::builder().version("v1", &origins[0]);
    let process = builder.top(&format!("admin: {{ address: \"{admin}\" }}")).spawn();
    serves(admin);
    let status = Client::connect(admin).get("/v1/status").host("localhost").send().json();
    assert!(status.as_object().is_some_and(|status| status["journal"].is_null()), "{status}");
    eventually("the log says so", || process.log().contains("live as long as this process"));
    let shown = program().args(["status", "--admin", &format!("http://{admin}")]).output();
    let shown = String::from_utf8_lossy(&shown.expect("it runs").stdout).into_owned();
    assert!(shown.contains("no journal: weights and ejections"), "{shown}");
}
