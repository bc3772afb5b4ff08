//! Cutovers: all traffic of a service moves in one swap, nothing fails, nothing is late, and one command
//! leads back.

mod places;
mod reached;
mod undone;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Origin, Proxy, SetOnDrop, eventually,
    process::program,
    proxy::{Builder, SERVICE},
};

/// Clients, each with a connection of its own.
const CLIENTS: u32 = 8;

/// Requests a second of all clients.
const PER_SECOND: u32 = 2_000;

/// A number from the environment, for a longer run than usual.
pub(crate) fn runs(variable: &str, usually: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usually)
}

fn two(origins: &[Origin; 2]) -> Builder {
    let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
    builder.top("admin: { address: \"127.0.0.1:0\" }")
}

fn post(admin: &mut Client, what: &str, body: &Value) -> Answer {
    let (path, body) = (format!("/v1/services/{SERVICE}/{what}"), body.to_string());
    admin.request("POST", &path).host("127.0.0.1").body(body.as_bytes()).send()
}

/// Runs the program with the admin endpoint of `proxy`: its exit code, and what it prints.
fn command(proxy: &Proxy, arguments: &[&str]) -> (Option<i32>, String, String) {
    let admin = format!("http://{}", proxy.admin_address());
    let mut command = program();
    command.args(arguments).env("TIDEGATE_ADMIN", admin).env_remove("TIDEGATE_TOKEN_FILE");
    let output = command.output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The version that has all players after change number `change`.
fn version_after(change: u64) -> &'static str {
    if change.is_multiple_of(2) { "v1" } else { "v2" }
}

/// Every other change is the way back. `TIDEGATE_CUTOVERS` sets how many there are.
#[test]
fn no_request_fails_and_none_is_late_over_many_cutovers() {
    let changes = runs("TIDEGATE_CUTOVERS", 20);
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    // Both routes belong to the service, so both move at once.
    let builder =
        two(&origins).workers(2).route("match: { path: /a }").route("match: { path: \"/*\" }");
    let proxy = builder.start();
    let (begun, acknowledged) = (AtomicU64::new(0), AtomicU64::new(0));
    let (ended, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let ask = |first: u32| {
        let mut client = proxy.connect();
        let (began, pause) = (Instant::now(), Duration::from_secs(1) * CLIENTS / PER_SECOND);
        for n in first.. {
            if ended.load(SeqCst) {
                return;
            }
            thread::sleep((began + pause * (n - first)).saturating_duration_since(Instant::now()));
            let path = if n.is_multiple_of(2) { "/a" } else { "/b" };
            let before = acknowledged.load(SeqCst);
            let answer = client.get(path).send();
            let after = begun.load(SeqCst);
            assert_eq!(answer.status, 200, "{answer:?}");
            let allowed = (before..=after).any(|change| version_after(change) == answer.text());
            assert!(allowed, "{} answered, though change {before} was acknowledged", answer.text());
            asked.fetch_add(1, SeqCst);
        }
    };
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    thread::scope(|scope| {
        let _end = SetOnDrop(&ended);
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || ask(n))).collect();
        let mut admin = proxy.admin();
        for number in 1..=changes {
            let before = asked.load(SeqCst);
            eventually("the clients ask", || asked.load(SeqCst) > before + u64::from(CLIENTS));
            assert!(!clients.iter().any(|client| client.is_finished()), "a client failed");
            begun.store(number, SeqCst);
            let asked_at = Instant::now();
            let answer = match version_after(number) {
                "v2" => post(&mut admin, "cutover", &json!({ "to": "v2", "reason": "blue/green" })),
                _ => post(&mut admin, "rollback", &json!({})),
            };
            slowest = slowest.max(asked_at.elapsed());
            acknowledged.store(number, SeqCst);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    });
    let (asked, took) = (asked.load(SeqCst), began.elapsed());
    eprintln!(
        "{changes} cutovers in {took:.1?}, the slowest in {slowest:.1?}: {asked} requests, {:.0} a second, none \
         failed, none late",
        asked as f64 / took.as_secs_f64()
    );
    assert!(asked >= changes * u64::from(CLIENTS));
}

#[test]
fn a_cutover_waits_for_the_version_that_is_left_and_says_what_it_still_has() {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let slow = Origin::start(move |call| {
        call.skip_body()?;
        // Fails if the test has failed first, and then nobody reads the answer.
        let _ = wait.lock().expect("no panic").recv();
        call.answer(200, b"v1")
    });
    let origins = [slow, Origin::answering("v2")];
    let proxy = two(&origins).start();
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    origins[0].await_requests(1);
    let answer =
        post(&mut proxy.admin(), "cutover?wait=drained&timeout=50ms", &json!({ "to": "v2" }));
    assert_eq!(answer.status, 504, "{}", answer.text());
    let told = "the change is in force as generation 2, but after 50ms v1 still has 1 in flight, 1 of them writes";
    assert_eq!(answer.json()["detail"], told);
    assert_eq!(proxy.get("/").text(), "v2");
    thread::scope(|scope| {
        let again = scope.spawn(|| {
            post(&mut proxy.admin(), "cutover?wait=drained", &json!({ "to": "v2" })).json()
        });
        go_on.send(()).expect("the origin waits");
        assert_eq!(client.answer().text(), "v1");
        // Nothing moves, so nothing is left by this one.
        assert_eq!(again.join().expect("no panic")["left_in_flight"], json!({}));
    });
    let back =
        post(&mut proxy.admin(), "rollback?wait=drained", &json!({ "reason": "pays twice" }));
    assert_eq!((back.status, &back.json()["left_in_flight"]), (200, &json!({ "v2": 0 })));
    assert_eq!(proxy.snapshot().services[0].share(0), 1.0);
}

#[test]
fn what_cannot_be_done_is_refused_and_says_why() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let builder = two(&origins).route("name: old, match: { path: /old }, version: v1");
    let proxy = builder.route("match: { path: \"/*\" }").start();
    let refused = |what: &str, body: Value| {
        let answer = post(&mut proxy.admin(), what, &body);
        let problem = answer.json();
        let text = |field: &str| problem[field].as_str().unwrap_or_default().to_owned();
        (answer.status, text("field"), text("detail"))
    };
    let (status, _, why) = refused("rollback", json!({}));
    assert_eq!(status, 409);
    assert!(why.contains("`tidegate cutover game-api VERSION`"), "{why}");
    let (status, field, why) = refused("cutover", json!({ "to": "v3" }));
    assert_eq!((status, &*field), (422, "to"));
    assert!(why.ends_with("no version `v3`; it has: v1, v2"), "{why}");
    assert_eq!(post(&mut proxy.admin(), "eject", &json!({ "version": "v2" })).status, 200);
    let (status, field, why) = refused("cutover", json!({ "to": "v2" }));
    assert_eq!((status, &*field), (409, "to"));
    assert!(why.contains("`v2` is ejected since"), "{why}");
    assert_eq!(post(&mut proxy.admin(), "reinstate", &json!({ "version": "v2" })).status, 200);
    for (query, wrong) in [
        ("wait=drained&timeout=5m", "at most 4m"),
        ("timeout=5s", "wait=drained"),
        ("wait=ever", "unknown variant"),
    ] {
        let (status, _, why) = refused(&format!("cutover?{query}"), json!({ "to": "v2" }));
        assert_eq!(status, 400, "{why}");
        assert!(why.contains(wrong), "{why}");
    }
    assert_eq!(proxy.snapshot().services[0].share(0), 1.0, "nothing has moved");

    let dry = post(&mut proxy.admin(), "cutover?dry_run=true", &json!({ "to": "v2" })).json();
    let shares = json!({ "before": { "v1": 1.0, "v2": 0.0 }, "after": { "v1": 0.0, "v2": 1.0 } });
    assert_eq!((&dry["shares"], &dry["dry_run"]), (&shares, &json!(true)));
    assert_eq!(dry["named"], json!(["route `old` names v1"]));
    assert_eq!(proxy.snapshot().services[0].share(0), 1.0, "nothing has moved");
}

#[test]
fn a_service_is_cut_over_and_back_by_command_and_the_split_by_hand_comes_back() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = two(&origins).start();
    let run = |arguments: &[&str]| command(&proxy, arguments);
    let done = |line: &str| (Some(0), format!("game-api: {line}\n"), String::new());
    proxy.set_weights(&[("v1", 3.0), ("v2", 1.0)]);
    let cutover = ["cutover", "game-api", "v2", "--wait", "drained", "--reason", "release"];
    let dry = run(&[&cutover[..], &["--dry-run"]].concat());
    assert_eq!(dry, done("would change v1 75% -> 0%, v2 25% -> 100% (generation 2 in force)"));
    assert_eq!(run(&cutover), done("v1 75% -> 0%, v2 25% -> 100% (generation 3)"));
    let outdated = run(&["rollback", "game-api", "--if-generation", "2"]);
    assert_eq!((outdated.0, outdated.2.starts_with("412 ")), (Some(65), true), "{outdated:?}");
    assert_eq!(run(&["rollback", "game-api"]), done("v1 0% -> 75%, v2 100% -> 25% (generation 4)"));
    // The way back of the change before that, which was one of weights.
    let (code, json, _) = run(&["rollback", "game-api", "--json"]);
    let answer: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &answer["after"]), (Some(0), &json!({ "v1": 1.0, "v2": 0.0 })));
    let mut admin = proxy.admin();
    let events = admin.get("/v1/events?since=0").host("127.0.0.1");
    let events = events.header("Accept", "application/json").send().json();
    let kinds = events["events"].as_array().expect("events").iter();
    assert_eq!(kinds.filter(|event| event["kind"] == "cutover").count(), 3);
    let bad = run(&["cutover", "game-api", "v1", "--timeout", "5s"]);
    assert_eq!((bad.0, bad.2.contains("--wait")), (Some(2), true), "{bad:?}");
}
