//! A rollout goes on where it was after a kill, a restart and a takeover.

use rustix::process::Signal;
use tempfile::TempDir;
use tidegate::store::{Entry, Filter, Reader};

use super::*;
use crate::support::process::{Process, free_address, program};

/// A program with a journal, and players.
struct Kept {
    versions: Versions,
    folder: TempDir,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Kept {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let (address, admin) = (free_address(), free_address());
        Self { versions: Versions::new(), folder, address, admin }
    }

    fn start(&self) -> Process {
        self.start_with(&[])
    }

    /// Starts it with further fields of the service.
    fn start_with(&self, fields: &[&str]) -> Process {
        let fields = [&["eject: { errors: { absolute: 1% } }"], fields].concat();
        let state = self.folder.path().join("state");
        let text = self
            .versions
            .builder(&fields)
            .top(&format!("admin: {{ address: \"{}\" }}", self.admin))
            .top(&format!("state: '{}'", state.display()))
            .listen(self.address)
            .text();
        let process = Process::spawn_at(self.address, &text);
        eventually("the admin endpoint is there", || self.try_get("/v1/status").is_some());
        process
    }

    fn try_get(&self, path: &str) -> Option<Value> {
        std::net::TcpStream::connect(self.admin).ok()?;
        let mut client = Client::connect(self.admin);
        let request = client.get(path).host("localhost").header("Accept", "application/json");
        let answer = request.try_send().ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    fn begin(&self, steps: &Value) {
        let body = json!({ "to": "v2", "steps": steps }).to_string();
        let mut client = Client::connect(self.admin);
        let answer = client.post(ROLLOUT, body.as_bytes()).host("localhost").send();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        eventually(what, || {
            last = self.try_get(ROLLOUT).unwrap_or_default();
            holds(&last)
        });
        last
    }

    /// The report of the rollout that is done.
    #[track_caller]
    fn report(&self) -> Value {
        let mut report = Value::Null;
        eventually("there is a report", || {
            let all = self.try_get("/v1/incidents").unwrap_or_default();
            let mut all = all["incidents"].as_array().into_iter().flatten();
            let done = all.find(|incident| incident["kind"] == "rollout_done");
            let id = done.and_then(|incident| incident["id"].as_str());
            report =
                id.and_then(|id| self.try_get(&format!("/v1/incidents/{id}"))).unwrap_or_default();
            !report.is_null()
        });
        report
    }

    /// Asserts that the report has all steps and transitions, whichever process took them.
    #[track_caller]
    fn assert_reported_whole(&self, expected: &[&str]) {
        let report = self.report();
        let review = &report["rollout"];
        for step in review["steps"].as_array().expect("steps") {
            assert!(step["began_at"].is_string() && step["lasted_s"].is_number(), "{step}");
        }
        let transitions = review["transitions"].as_array().expect("transitions");
        let on: Vec<&str> = transitions.iter().filter_map(|turn| turn["on"].as_str()).collect();
        // Whether it held in between is up to the players.
        let kept: Vec<&str> =
            on.iter().copied().filter(|on| !matches!(*on, "hold" | "go_on")).collect();
        assert_eq!(kept, expected, "{review}");
        let how = report["harm"]["how"].as_str().expect("a text");
        assert!(how.contains("the process was started anew meanwhile"), "{how}");
        assert!(report["harm"]["counted_s"].as_f64() > Some(0.0), "{}", report["harm"]);
    }

    fn entries(&self) -> Vec<Entry> {
        let reader = Reader::open(&self.folder.path().join("state")).expect("a journal");
        let filter = Filter { limit: Some(1_000), ..Filter::default() };
        reader.show(&filter).expect("entries").into_iter().map(|stored| stored.entry).collect()
    }
}

#[test]
fn a_rollout_goes_on_where_it_was_after_a_kill() {
    let kept = Kept::new();
    let mut process = kept.start();
    let _players = Players::at(kept.address);
    kept.begin(&json!([{ "weight": "10%", "for": "2s" }, { "weight": "50%", "for": "2s" },
                       { "weight": "100%", "for": "2s" }]));
    kept.until("the second step begins", |rollout| rollout["step"] == 2);
    process.signal(Signal::KILL);
    process.wait();
    drop(process);
    let _process = kept.start();
    let resumed = kept.try_get(ROLLOUT).expect("a rollout");
    assert_eq!((&resumed["step"], &resumed["share"]), (&json!(2), &json!(0.5)), "{resumed}");
    kept.until("it is done", |rollout| rollout["phase"] == "done");
    kept.assert_reported_whole(&["grow", "grow", "grow", "finish"]);
}

#[test]
fn a_rollout_goes_on_in_the_process_that_takes_over() {
    let kept = Kept::new();
    let _process = kept.start();
    let _players = Players::at(kept.address);
    kept.begin(&json!([{ "weight": "10%", "for": "4s" }, { "weight": "100%", "for": "1s" }]));
    let before = kept.until("a step is watched", |rollout| {
        rollout["watched_s"].as_f64().is_some_and(|watched| watched > 1.0)
    });
    let pid = || kept.try_get("/v1/status").and_then(|status| status["pid"].as_i64());
    let old = pid().expect("a process");
    let number = rustix::process::Pid::from_raw(i32::try_from(old).expect("a number"));
    rustix::process::kill_process(number.expect("above 0"), Signal::USR2).expect("it runs");
    eventually("another process serves", || pid().is_some_and(|new| new != old));
    let after = kept.try_get(ROLLOUT).expect("a rollout");
    assert!(after["watched_s"].as_f64() >= before["watched_s"].as_f64(), "{after}");
    kept.until("it is done", |rollout| rollout["phase"] == "done");
    kept.assert_reported_whole(&["grow", "grow", "finish"]);
    let entries = kept.entries();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
    assert!(kinds.contains(&"rollout_started"), "{kinds:?}");
    assert!(!kinds.contains(&"adjusted") && !kinds.contains(&"withdrawn"), "{kinds:?}");
    let last = entries.iter().rev().find(|entry| entry.kind == "rollout").expect("an entry");
    assert_eq!(last.after["phase"], "done");
}

/// Regression: a restored backup let a rollout go on that was rolled back after the backup was made.
#[test]
fn a_rollout_of_a_restored_backup_waits_for_a_person() {
    let mut kept = Kept::new();
    let mut process = kept.start();
    kept.begin(&json!([{ "weight": "10%", "for": "2s" }, { "weight": "100%", "for": "1h" }]));
    kept.until("it grows", |rollout| rollout["phase"] == "growing");
    let (state, file) = (kept.folder.path().join("state"), kept.folder.path().join("backup.db"));
    let run = |arguments: &[&std::path::Path]| {
        let told = program().args(arguments).output().expect("the program runs");
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    let path = std::path::Path::new;
    run(&[path("backup"), path("--state"), &state, &file]);
    process.signal(Signal::TERM);
    process.wait();
    drop(process);
    let folder = TempDir::new().expect("a folder");
    let told = run(&[path("restore"), &file, path("--state"), &folder.path().join("state")]);
    assert!(told.contains("A rollout in progress is paused"), "{told}");
    kept.folder = folder;
    for start in ["first", "second"] {
        let mut process = kept.start();
        let rollout = kept.until("it is paused", |rollout| rollout["phase"] == "paused");
        let cause = rollout["cause"].as_str().expect("a text");
        assert!(cause.contains("the state is that of a backup"), "{cause}");
        let events = kept.try_get("/v1/events?since=0").expect("events").to_string();
        assert_eq!(events.contains("what happened to v2 since"), start == "first", "{events}");
        if start == "second" {
            thread::sleep(Duration::from_secs(3));
            assert_eq!(kept.try_get(ROLLOUT).expect("a rollout")["phase"], "paused");
            let mut client = Client::connect(kept.admin);
            let resume = client.post(&format!("{ROLLOUT}/resume"), b"{}").host("localhost").send();
            assert_eq!(resume.status, 200, "{}", resume.text());
        }
        process.signal(Signal::TERM);
        process.wait();
    }
    // Once resumed it goes on, also after the next start.
    let _process = kept.start();
    kept.until("the next step begins", |rollout| rollout["step"] == 2);
}

/// Regression: a bake in which too few requests came to judge anything ended as one in which all was well.
#[test]
fn a_bake_without_an_answer_says_so_in_state_event_journal_and_report() {
    let kept = Kept::new();
    let _process = kept.start_with(&["slo: { errors: 1% }"]);
    kept.begin(&json!([{ "weight": "100%", "bake": "4s" }]));
    kept.until("it bakes", |rollout| rollout["phase"] == "baking");
    let mut client = Client::connect(kept.address);
    for player in 0..12 {
        let asked = client.get("/").header("x-player-id", &player.to_string());
        assert_eq!(asked.send().status, 200);
    }
    let done = kept.until("it is done", |rollout| rollout["phase"] == "done");
    let cause = done["cause"].as_str().expect("a text");
    let says = "the last step is over; its bake ended without an answer of evidence: too few requests: 12 of the ";
    assert!(cause.starts_with(says) && cause.contains("allowed 1 % by slo"), "{cause}");
    let events = kept.try_get("/v1/events?since=0").expect("events");
    assert!(events.to_string().contains(&format!("done: {cause}")), "{events}");
    eventually("there is a report", || {
        let incidents = kept.try_get("/v1/incidents").expect("incidents");
        incidents.to_string().contains(cause)
    });
    let entries = kept.entries();
    let last = entries.iter().rev().find(|entry| entry.kind == "rollout").expect("an entry");
    assert_eq!((&last.after["phase"], &*last.reason), (&json!("done"), cause));
}

/// The process that handed over takes no step of a rollout any more, nor does it tell of one, wherever its tick was.
#[test]
fn no_step_is_taken_after_a_handover() {
    let stage = Stage::start(&[]);
    let part = (1..50).map(|n| json!({ "weight": format!("{n}%"), "for": "1ms" }));
    let steps: Vec<Value> = part.chain([json!({ "weight": "100%", "for": "1h" })]).collect();
    stage.begin(&json!(steps));
    stage.until("growing");
    let observatory = stage.proxy.app().observatory();
    let seen = || {
        let controller = observatory.controller();
        let rollout = controller.rollout("game-api").expect("a rollout").rollout.clone();
        let events = controller.events().since(0).count();
        let (entries, weights) = (Arc::clone(&rollout.entries), rollout.weights.clone());
        (entries, weights, controller.snapshot().generation, events)
    };
    for round in 0..12_u64 {
        let before = seen();
        eventually("it goes on", || seen().0.len() > before.0.len());
        // The tick comes each 250 ms.
        thread::sleep(Duration::from_millis(round * 23));
        let handed = {
            let mut controller = observatory.controller();
            controller.hand_over();
            drop(controller);
            seen()
        };
        thread::sleep(Duration::from_millis(300));
        assert_eq!(seen(), handed, "round {round}");
        observatory.controller().take_back();
    }
}

/// Regression: the state is handed over twice, and a step that was taken in between was said to be weights of the file: the
/// rollout was paused, and a way back aborted.
#[test]
fn a_step_between_the_two_times_that_the_state_is_handed_over_is_the_rollouts() {
    let (old, new) = (Stage::start(&[]), Stage::start(&[]));
    let part = (1..50).map(|n| json!({ "weight": format!("{n}%"), "for": "1ms" }));
    let steps: Vec<Value> = part.chain([json!({ "weight": "100%", "for": "1h" })]).collect();
    old.begin(&json!(steps));
    old.until("growing");
    let (from, to) = (old.proxy.app().observatory(), new.proxy.app().observatory());
    let step = || from.controller().rollout("game-api").expect("a rollout").rollout.step;
    let first = from.controller().carried();
    let before = step();
    eventually("it goes on", || step() > before);
    let second = from.controller().hand_over();
    let mut controller = to.controller();
    controller.inherit(first);
    controller.inherit(second);
    let rollout = controller.rollout("game-api").expect("a rollout").rollout.clone();
    assert_eq!((rollout.phase.label(), rollout.step), ("growing", step()), "{}", rollout.cause);
}

/// Regression: the entry of the start after a kill said that the split before the rollout had been in force.
#[test]
fn the_entry_of_a_start_after_a_kill_says_what_was_in_force() {
    let kept = Kept::new();
    let mut process = kept.start();
    kept.begin(&json!([{ "weight": "100%", "bake": "1h" }]));
    kept.until("it bakes", |rollout| rollout["phase"] == "baking");
    process.signal(Signal::KILL);
    process.wait();
    drop(process);
    let _process = kept.start();
    kept.until("it bakes on", |rollout| rollout["phase"] == "baking");
    let entries = kept.entries();
    let resumed = entries.iter().rfind(|entry| entry.kind == "resumed").expect("an entry");
    assert_eq!(resumed.before, Value::Null, "nothing has moved: {resumed:?}");
    let split = &resumed.after["services"]["game-api"]["shares"];
    assert_eq!(*split, json!({ "v1": 0.0, "v2": 1.0 }));
}

/// Regression: the record of an ejection before a restart was said to be missing since no verdict had ejected the version.
#[test]
fn a_record_that_a_restart_has_lost_is_told_as_lost() {
    let kept = Kept::new();
    let mut process = kept.start();
    let _players = Players::at(kept.address);
    kept.begin(&json!([{ "weight": "50%", "for": "1h" }, { "weight": "100%", "for": "1s" }]));
    kept.until("it grows", |rollout| rollout["phase"] == "growing");
    kept.versions.failing.store(true, SeqCst);
    let ended = kept.until("it is ejected", |rollout| rollout["phase"] == "rolled_back");
    assert_eq!(transitions(&ended).last(), Some(&"ejected"), "{ended}");
    process.signal(Signal::TERM);
    process.wait();
    drop(process);
    let _process = kept.start();
    let mut client = Client::connect(kept.admin);
    let record = client.get("/v1/services/game-api/record?version=v2").host("localhost").send();
    let detail = record.json()["detail"].as_str().expect("a text").to_owned();
    assert_eq!(record.status, 404);
    assert!(
        detail.contains("is one of an earlier process") && detail.contains("`tidegate status`"),
        "{detail}"
    );
}
