//! Read-only modes: writes are refused or wait, reads go on, and all of it ends by itself.

mod held;
mod lost;
mod notices;
mod outlives;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::{
    config::schema::UtcTime,
    store::{Entry, Filter, Reader},
};

use crate::support::{
    Answer, Client, Origin, Proxy, eventually,
    http2::Http2,
    proxy::{Builder, SERVICE},
};

/// Times in the form of the API, `seconds` from now.
fn from_now(seconds: f64) -> String {
    let span = Duration::from_secs_f64(seconds.abs());
    let now = SystemTime::now();
    let at = if seconds < 0.0 { now - span } else { now + span };
    UtcTime::from(at).to_string()
}

/// A request to the admin endpoint.
fn ask(admin: &mut Client, method: &str, path: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let request = admin.request(method, path).host("127.0.0.1");
    match method {
        "GET" => request.header("Accept", "application/json").send(),
        _ => request.body(body.as_bytes()).send(),
    }
}

/// A proxy with a journal.
struct Stage {
    proxy: Option<Proxy>,
    origin: Origin,
    folder: TempDir,
    builder: Builder,
}

impl Stage {
    fn new(more: impl FnOnce(Builder) -> Builder) -> Self {
        Self::to(Origin::answering("ok"), more)
    }

    fn to(origin: Origin, more: impl FnOnce(Builder) -> Builder) -> Self {
        let folder = TempDir::new().expect("a folder");
        let state = folder.path().join("state");
        let builder = Proxy::builder().version("v1", &origin).workers(2);
        let builder = builder.top("admin: { address: \"127.0.0.1:0\" }");
        let builder = more(builder.top(&format!("state: '{}'", state.display())));
        let proxy = Some(builder.start_with_file());
        Self { proxy, origin, folder, builder }
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("it runs")
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        ask(&mut self.proxy().admin(), method, path, body)
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &Value::Null);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    #[track_caller]
    fn mode(&self, body: &Value) -> Value {
        let answer = self.ask("PUT", "/v1/mode", body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    #[track_caller]
    fn read_only(&self) -> Value {
        self.mode(&json!({ "mode": "read-only" }))
    }

    #[track_caller]
    fn normal(&self) -> Value {
        self.mode(&json!({ "mode": "normal" }))
    }

    fn write(&self, path: &str) -> Answer {
        self.proxy().connect().post(path, b"x").send()
    }

    /// Ends the process, and returns the entries of these kinds.
    fn entries(&mut self, kinds: &[&str]) -> Vec<Entry> {
        drop(self.proxy.take());
        let reader = Reader::open(&self.folder.path().join("state")).expect("a journal");
        let all = reader.show(&Filter { limit: Some(10_000), ..Filter::default() });
        let all = all.expect("entries").into_iter().map(|stored| stored.entry);
        all.filter(|entry| kinds.contains(&&*entry.kind)).collect()
    }

    fn metric(&self, line: &str) -> f64 {
        let page = self.ask("GET", "/metrics", &Value::Null);
        let mut lines = page.text().lines();
        let found = lines.find_map(|each| each.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or_else(|| panic!("no {line} in {}", page.text()))
    }
}

#[test]
fn writes_get_a_clear_answer_and_reads_go_on() {
    let stage = Stage::new(|builder| {
        let builder = builder.route("match: { path: /reports/* }, class: read, name: reports");
        let builder = builder.route("match: { path: /leave/* }, class: write, name: leave");
        builder.route("name: rest").top("read_only: { retry_after: 7s }")
    });
    let mut client = stage.proxy().connect();
    assert_eq!(client.post("/bets", b"x").send().status, 200);
    let answer = stage.mode(&json!({
        "mode": "read-only", "message": "Back in a \"minute\".", "reason": "schema 42", "ticket": "CHG-1",
    }));
    assert_eq!((&answer["changed"], &answer["mode"]), (&json!(true), &json!("read-only")));
    let refused = client.post("/bets", b"x").send();
    assert_eq!((refused.status, refused.kind()), (503, "read_only".to_owned()));
    assert_eq!(refused.field("retry-after"), Some("7"), "the end is unknown");
    assert_eq!(refused.field("tidegate-read-only"), Some("?1"));
    let document = refused.json();
    assert_eq!((&document["retry_after"], &document["until"]), (&json!(7), &Value::Null));
    assert_eq!(document["message"], "Back in a \"minute\".");
    assert!(!refused.text().contains("schema 42"), "the reason is not for clients");
    for method in ["PUT", "PATCH", "DELETE"] {
        assert_eq!(client.request(method, "/bets").body(b"x").send().status, 503, "{method}");
    }
    assert_eq!(client.get("/bets").send().status, 200);
    assert_eq!(client.request("OPTIONS", "/bets").send().status, 200);
    assert_eq!(client.post("/reports/day", b"x").send().status, 200, "its route reads");
    assert_eq!(client.get("/leave/now").send().status, 503, "its route writes");
    let upgrade = client.get("/leave/ws").header("Connection", "upgrade");
    assert_eq!(upgrade.header("Upgrade", "websocket").send().status, 503);
    assert_eq!(stage.origin.requests(), 4, "nothing that was refused was sent");
    assert_eq!(stage.metric("tidegate_read_only{service=\"game-api\"}") as u64, 1);
    assert_eq!(stage.metric("tidegate_read_only_refused_total{service=\"game-api\"}") as u64, 6);
    let status = stage.get("/v1/status");
    assert_eq!(status["read_only"][0]["reason"], "schema 42");
    stage.normal();
    assert_eq!(client.post("/bets", b"x").send().status, 200);
    assert_eq!(stage.metric("tidegate_read_only{service=\"game-api\"}") as u64, 0);
    assert_eq!(stage.normal()["changed"], false, "it was normal");
    let events = stage.get("/v1/events?since=0");
    let events = events["events"].as_array().expect("events").iter();
    let told: Vec<_> = events.filter(|event| event["kind"] == "mode").collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0]["reason"], "all services are read-only: schema 42");
    assert!(told[0]["journal"]["seq"].is_u64());
    let mut stage = stage;
    let entries = stage.entries(&["mode"]);
    assert_eq!(entries.len(), 2);
    assert_eq!((&*entries[0].reason, entries[0].ticket.as_deref()), ("schema 42", Some("CHG-1")));
    assert_eq!(entries[0].before["mode"], "normal");
    assert_eq!(entries[0].after["mode"], "read-only");
}

#[test]
fn a_service_or_a_route_can_be_read_only_alone() {
    let stage = Stage::new(|builder| {
        let builder = builder.route("match: { path: /wallet/* }, name: wallet");
        builder.route("match: { path: /bets/* }, name: bet.place").route("name: rest")
    });
    let statuses = || ["/wallet/1", "/bets/1", "/other"].map(|path| stage.write(path).status);
    stage.mode(&json!({ "mode": "read-only", "route": "bet.place" }));
    assert_eq!(statuses(), [200, 503, 200]);
    assert_eq!(stage.metric("tidegate_read_only_routes{service=\"game-api\"}") as u64, 1);
    let until = from_now(3600.0);
    stage.mode(&json!({ "mode": "read-only", "service": SERVICE, "until": until }));
    assert_eq!(statuses(), [503, 503, 503]);
    assert_eq!(stage.write("/wallet/1").json()["until"], until);
    assert_eq!(
        stage.write("/bets/1").json()["until"],
        Value::Null,
        "that of the route lasts longer"
    );
    let after: u32 =
        stage.write("/wallet/1").field("retry-after").expect("one").parse().expect("a number");
    assert!((3500..=3600).contains(&after), "{after}");
    stage.mode(&json!({ "mode": "normal", "route": "bet.place" }));
    assert_eq!(statuses(), [503, 503, 503]);
    let modes = stage.get("/v1/mode");
    assert_eq!(modes["read_only"][0]["service"], SERVICE);
    assert_eq!(modes["services"][0]["read_only"], true);
    stage.mode(&json!({ "mode": "normal", "service": SERVICE }));
    assert_eq!(statuses(), [200, 200, 200]);
}

/// The mode was reported as in force, and the writes of the route went on.
#[test]
fn a_route_of_which_no_mode_refuses_anything_cannot_be_made_read_only() {
    let stage = Stage::new(|builder| {
        let builder = builder.route("match: { path: /hook }, name: hook, read_only: pass");
        builder.route("match: { path: /reports }, name: reports, class: read")
    });
    for (route, why) in [("hook", "`read_only: pass`"), ("reports", "`class: read`")] {
        let asked = json!({ "mode": "read-only", "route": route });
        let refused = stage.ask("PUT", "/v1/mode", &asked);
        assert_eq!((refused.status, &refused.json()["field"]), (422, &json!("route")), "{route}");
        assert!(refused.text().contains(why), "{}", refused.text());
        assert_eq!(stage.mode(&json!({ "mode": "normal", "route": route }))["changed"], false);
    }
    let warning = stage.read_only()["warning"].clone();
    let warning = warning.as_str().expect("all routes are exempt");
    assert!(warning.contains("REFUSES NOTHING"), "{warning}");
    assert_eq!(stage.get("/v1/mode")["read_only"][0]["warning"], warning);
}

#[test]
fn a_change_that_cannot_be_meant_is_refused_and_a_dry_run_changes_nothing() {
    let stage = Stage::new(|builder| builder);
    let refused = |body: &Value| {
        let answer = stage.ask("PUT", "/v1/mode", body);
        (answer.status, answer.json()["field"].as_str().unwrap_or_default().to_owned())
    };
    let over = from_now(-1.0);
    for (body, expected) in [
        (json!({ "mode": "read-only", "service": "walet" }), (404, "")),
        (json!({ "mode": "read-only", "route": "bet" }), (422, "route")),
        (json!({ "mode": "read-only", "route": "default", "service": SERVICE }), (422, "route")),
        (json!({ "mode": "read-only", "until": over }), (422, "until")),
        (json!({ "mode": "read-only", "until": "tomorrow" }), (422, "until")),
        (json!({ "mode": "normal", "until": from_now(9.0) }), (422, "until")),
        (json!({ "mode": "readonly" }), (422, "mode")),
        (json!({ "mode": "read-only", "message": "x".repeat(501) }), (422, "message")),
    ] {
        assert_eq!(refused(&body), (expected.0, expected.1.to_owned()), "{body}");
    }
    let tried = stage.ask("PUT", "/v1/mode?dry_run=true", &json!({ "mode": "read-only" })).json();
    assert_eq!((&tried["changed"], &tried["dry_run"]), (&json!(true), &json!(true)));
    assert_eq!(stage.write("/bets").status, 200);
    let generation = stage.read_only()["generation"].as_u64().expect("a number");
    let body = json!({ "mode": "normal" }).to_string();
    let mut admin = stage.proxy().admin();
    let outdated = admin.request("PUT", "/v1/mode").host("127.0.0.1");
    let outdated = outdated.header("If-Match", &format!("\"{}\"", generation - 1));
    assert_eq!(outdated.body(body.as_bytes()).send().status, 412);
    assert_eq!(stage.write("/bets").status, 503);
}

#[test]
fn a_mode_ends_by_itself_with_an_entry_and_an_event() {
    let stage = Stage::new(|builder| builder);
    let until = SystemTime::now() + Duration::from_secs(3);
    let asked = UtcTime::from(until).to_string();
    stage.mode(&json!({ "mode": "read-only", "service": SERVICE, "until": asked }));
    let refused = stage.write("/bets");
    let after: u32 = refused.field("retry-after").expect("one").parse().expect("a number");
    assert!(refused.status == 503 && (1..=3).contains(&after), "{refused:?}");
    let said = format!("?1; until=\"{}\"", refused.json()["until"].as_str().expect("a time"));
    assert_eq!(refused.field("tidegate-read-only"), Some(&*said));
    eventually("it is over", || stage.write("/bets").status == 200);
    let early = until.duration_since(SystemTime::now()).unwrap_or_default();
    assert!(early < Duration::from_millis(2), "not before its time");
    assert_eq!(stage.get("/v1/mode")["read_only"], json!([]));
    let mut stage = stage;
    let entries = stage.entries(&["mode"]);
    let last = entries.last().expect("an entry");
    assert_eq!((entries.len(), &*last.actor.name), (2, "tidegate"));
    assert!(last.reason.contains("its time has come"), "{}", last.reason);
    assert_eq!(last.service.as_deref(), Some(SERVICE));
}

#[test]
fn a_write_in_flight_ends_as_it_would_have_and_is_counted() {
    let go = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let go = Arc::clone(&go);
        move |call| {
            call.read_body()?;
            eventually("it may end", || go.load(SeqCst));
            call.answer(201, b"booked")
        }
    });
    let stage = Stage::to(origin, |builder| builder);
    let address = stage.proxy().address;
    let writing = thread::spawn(move || Client::connect(address).post("/bets", b"x").send());
    stage.origin.await_requests(1);
    assert_eq!(stage.read_only()["writes_in_flight"], 1);
    assert_eq!(stage.write("/bets").status, 503);
    go.store(true, SeqCst);
    let ended = writing.join().expect("no panic");
    assert_eq!((ended.status, ended.text()), (201, "booked"));
    eventually("none is in flight", || {
        stage.get("/v1/mode")["services"][0]["writes_in_flight"] == 0
    });
}

#[test]
fn a_grpc_call_is_unavailable_and_says_when_to_try_again() {
    let stage = Stage::new(|builder| builder);
    stage.mode(&json!({ "mode": "read-only", "until": from_now(100.0) }));
    let client = Http2::connect(stage.proxy().address);
    let reply = client.ask(crate::grpc::call("/bets.Bets/Place"), Some(b"\0\0\0\0\0"));
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("14")));
    assert!(reply.field("grpc-message").expect("a text").contains("changes are not accepted"));
    let after: u32 = reply.field("retry-after").expect("one").parse().expect("a number");
    assert!((90..=100).contains(&after), "{after}");
    assert!(reply.field("tidegate-read-only").expect("one").starts_with("?1; until="));
    assert_eq!(stage.origin.requests(), 0);
}

/// From the answer to `read-only` to the request for `normal` no write begins, by the origin's own clock; reads always
/// do.
#[test]
fn no_write_passes_while_the_mode_is_in_force_under_load() {
    let open = Arc::new(AtomicBool::new(true));
    let wrong = Arc::new(AtomicU64::new(0));
    let origin = Origin::start({
        let (open, wrong) = (Arc::clone(&open), Arc::clone(&wrong));
        move |call| {
            let is_write = call.method() == "POST";
            if is_write && !open.load(SeqCst) {
                wrong.fetch_add(1, SeqCst);
            }
            call.skip_body()?;
            call.answer(200, b"ok")
        }
    });
    let stage = Stage::to(origin, |builder| builder.workers(3));
    let (stop, address) = (AtomicBool::new(false), stage.proxy().address);
    let counts = Mutex::new(BTreeMap::<(&str, u16), u64>::new());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while !stop.load(SeqCst) {
                    let write = client.post("/bets", b"x").send().status;
                    let read = client.get("/bets").send().status;
                    let mut counts = counts.lock().expect("no panic");
                    *counts.entry(("write", write)).or_default() += 1;
                    *counts.entry(("read", read)).or_default() += 1;
                }
            });
        }
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(10));
            stage.read_only();
            eventually("no write is in flight", || {
                stage.get("/v1/mode")["services"][0]["writes_in_flight"] == 0
            });
            open.store(false, SeqCst);
            thread::sleep(Duration::from_millis(10));
            open.store(true, SeqCst);
            stage.normal();
        }
        stop.store(true, SeqCst);
    });
    let counts = counts.into_inner().expect("no panic");
    assert_eq!(
        wrong.load(SeqCst),
        0,
        "writes that the origin got while there were none: {counts:?}"
    );
    assert!(counts[&("write", 503)] > 0 && counts[&("write", 200)] > 0, "{counts:?}");
    assert!(counts.keys().all(|(kind, status)| *kind == "write" || *status == 200), "{counts:?}");
}

#[test]
fn the_command_shows_changes_and_waits() {
    let go = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let go = Arc::clone(&go);
        move |call| {
            call.skip_body()?;
            eventually("it may end", || go.load(SeqCst));
            call.answer(200, b"ok")
        }
    });
    let stage = Stage::to(origin, |builder| builder);
    let admin = format!("http://{}", stage.proxy().admin_address());
    let run = |arguments: &[&str]| {
        let mut command = crate::support::process::program();
        let ran = command.arg("mode").args(arguments).args(["--admin", &admin]).output();
        let ran = ran.expect("it runs");
        let text = String::from_utf8([ran.stdout, ran.stderr].concat()).expect("text");
        (ran.status.code().expect("a code"), text)
    };
    let (code, text) = run(&[]);
    assert!(code == 0 && text.starts_with("nothing is read-only\n"), "{text}");
    let address = stage.proxy().address;
    let writing = thread::spawn(move || Client::connect(address).post("/bets", b"x").send().status);
    stage.origin.await_requests(1);
    let change = ["read-only", SERVICE, "--for", "10m", "--reason", "schema 42", "--wait", "300ms"];
    let (code, text) = run(&change);
    assert!(code == 4 && text.contains("; 1 write(s) in flight\n"), "{code} {text}");
    assert!(text.contains("1 write(s) are still in flight"), "{text}");
    go.store(true, SeqCst);
    assert_eq!(writing.join().expect("no panic"), 200);
    let (code, text) = run(&["read-only", SERVICE, "--until", &from_now(900.0), "--wait", "10s"]);
    assert!(code == 0 && text.contains("no write is in flight"), "{code} {text}");
    let (_, text) = run(&[]);
    assert!(text.starts_with("service game-api is read-only since "), "{text}");
    let (code, text) = run(&["normal", SERVICE]);
    assert!(code == 0 && text.starts_with("service game-api is now normal"), "{text}");
    let (code, text) = run(&["normal", "walet"]);
    assert!(code == 65 && text.contains("there is no service `walet`"), "{code} {text}");
    assert_eq!(run(&["read-only", "--until", "tomorrow"]).0, 2);
}

#[test]
fn a_rollout_holds_meanwhile_and_a_cutover_goes_on() {
    let other = Origin::answering("new");
    let stage = Stage::new(|builder| builder.version("v2", &other));
    let share = || stage.proxy().snapshot().services[0].share(1);
    let path = format!("/v1/services/{SERVICE}/rollout");
    stage.mode(&json!({ "mode": "read-only", "service": SERVICE, "until": from_now(600.0) }));
    let steps = json!([{ "weight": "10%", "for": "1h" }, { "weight": "100%", "for": "1h" }]);
    let begun = stage.ask("POST", &path, &json!({ "to": "v2", "steps": steps }));
    assert_eq!(begun.status, 200, "{}", begun.text());
    eventually("it waits", || stage.get(&path)["frozen"]["window"] == "read-only");
    assert_eq!(share(), 0.0);
    stage.mode(&json!({ "mode": "normal", "service": SERVICE }));
    eventually("it grows", || share() > 0.09);
    stage.read_only();
    let moved =
        stage.ask("POST", &format!("/v1/services/{SERVICE}/cutover"), &json!({ "to": "v2" }));
    assert_eq!(moved.status, 200, "{}", moved.text());
    assert_eq!(share(), 1.0);
    assert_eq!(stage.write("/bets").status, 503);
    assert_eq!(stage.proxy().get("/bets").text(), "new");
}
