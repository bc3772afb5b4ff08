//! A rollout is not held up by what else takes long: the disk, and a move of another service.

use tempfile::TempDir;

use super::*;

fn steps() -> Value {
    json!([{ "weight": "10%", "for": "3s", "gates": ["slo"] }, { "weight": "100%", "for": "1h" }])
}

#[test]
fn a_guardrail_that_fails_while_the_next_step_is_written_stops_it() {
    let folder = TempDir::new().expect("a folder");
    let state = folder.path().join("state");
    let stage =
        Stage::with(&["slo: { errors: 5% }", "eject: { errors: {}, mode: advise }"], |builder| {
            builder.top(&format!("state: '{}'", state.display()))
        });
    stage.begin(&steps());
    let passed = |rollout: &Value| {
        rollout["watched_s"].as_f64().is_some_and(|watched| watched > 2.0)
            && rollout["gates"][0]["reply"] == "pass"
    };
    eventually("the gate passes", || passed(&stage.rollout()));
    // Who holds the lock of the database is a disk that takes long.
    let other = rusqlite::Connection::open(state.join("journal.db")).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    eventually("the next step is being written", || {
        stage.get("/v1/status")["journal"]["waiting"] == 1
    });
    stage.versions.failing.store(true, SeqCst);
    stage.until("rolled_back");
    assert_eq!(stage.shares(), [1.0, 0.0], "at once, whatever the disk does");
    other.execute_batch("ROLLBACK").expect("no lock");
    drop(other);
    // What was being written is not done.
    eventually("all is written", || {
        let journal = &stage.get("/v1/status")["journal"];
        journal["waiting"] == 0 && journal["late"] == 0
    });
    let after = stage.rollout();
    assert_eq!((&after["phase"], &after["step"]), (&json!("rolled_back"), &json!(1)), "{after}");
    assert_eq!(stage.shares(), [1.0, 0.0]);
}

#[test]
fn a_rollout_goes_back_while_the_writes_of_another_service_are_held() {
    let held = Arc::<AtomicBool>::default();
    let holds = Arc::clone(&held);
    let wallet = Origin::start(move |call| {
        call.skip_body()?;
        if call.method() == "POST" {
            holds.store(true, SeqCst);
            eventually("the write may end", || !holds.load(SeqCst));
        }
        call.answer(200, b"")
    });
    let versions = Versions::new();
    let fenced = format!(
        "services:\n  wallet:\n    baseline: v1\n    fence: {{ deadline: 20s }}\n    versions:\n      \
         v1: {{ endpoints: [ \"{0}\" ] }}\n      v2: {{ endpoints: [ \"{0}\" ] }}\n",
        wallet.address
    );
    let text =
        versions.builder(&["slo: { errors: 5% }", "eject: { errors: {}, mode: advise }"]).text();
    let text = text.replace("services:\n", &fenced);
    let text =
        text.replace("routes:\n", "routes:\n  - { service: wallet, match: { path: /wallet } }\n");
    let proxy = Proxy::start_with_file(&text);
    let _players = Players::at(proxy.address);
    let stage = Stage { versions, proxy, _players };
    let mut write = stage.proxy.connect();
    write.send("POST /wallet HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    eventually("a write is in flight", || held.load(SeqCst));
    stage.begin(&steps());
    stage.until("growing");
    let moved = thread::scope(|scope| {
        let cutover = scope
            .spawn(|| stage.post("/v1/services/wallet/cutover", &json!({ "to": "v2" })).status);
        let is_up = || {
            let snapshot = stage.proxy.snapshot();
            snapshot.services.iter().filter_map(|s| s.fence.as_ref()).any(|f| f.state.is_closed())
        };
        eventually("the fence is up", is_up);
        stage.versions.failing.store(true, SeqCst);
        stage.until("rolled_back");
        assert_eq!(stage.shares(), [1.0, 0.0]);
        assert!(!cutover.is_finished(), "the writes are held all the time");
        held.store(false, SeqCst);
        cutover.join().expect("no panic")
    });
    assert_eq!((moved, write.answer().status), (200, 200));
}
