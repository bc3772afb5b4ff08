//! What happens is told: as a list, as it happens, and to whoever is to be woken.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Client, Origin, PATIENCE, Proxy, eventually,
    process::{self, free_address},
};

/// A service with two versions, of which `v2` answers 500 once `failing` is set.
struct Stage {
    proxy: Proxy,
    failing: Arc<AtomicBool>,
    _origins: [Origin; 2],
}

fn stage(eject: &str, top: &str) -> Stage {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let v1 = Origin::start(|call| {
        call.skip_body()?;
        call.answer(200, b"v1")
    });
    let v2 = Origin::start(move |call| {
        call.skip_body()?;
        call.answer(if fails.load(SeqCst) { 500 } else { 200 }, b"v2")
    });
    let proxy = Proxy::builder()
        .version("v1", &v1)
        .version("v2", &v2)
        .service("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service(&format!("eject: {eject}"))
        .top("admin: { address: 127.0.0.1:0 }")
        .top(top)
        .start();
    Stage { proxy, failing, _origins: [v1, v2] }
}

impl Stage {
    fn ask(&self, players: std::ops::Range<u32>) {
        let mut client = self.proxy.connect();
        for player in players {
            client.get("/").header("x-player-id", &player.to_string()).send();
        }
    }

    fn list(&self, query: &str) -> Value {
        let mut admin = self.proxy.admin();
        let target = format!("/v1/events{query}");
        let request = admin.get(&target).host("localhost");
        request.header("Accept", "application/json").send().json()
    }

    fn word(&self, what: &str) {
        let body = json!({ "version": "v2", "reason": "a test" }).to_string();
        let target = format!("/v1/services/game-api/{what}");
        let mut admin = self.proxy.admin();
        let request = admin.post(&target, body.as_bytes()).host("localhost");
        assert_eq!(request.header("Content-Type", "application/json").send().status, 200);
    }
}

/// The events that a `child` writes, one at a call.
fn told_by(child: &mut std::process::Child) -> impl FnMut() -> Value + use<> {
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    move || {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("JSON")
    }
}

fn kinds(list: &Value) -> Vec<&str> {
    let events = list["events"].as_array().expect("a list");
    events.iter().map(|event| event["kind"].as_str().expect("a kind")).collect()
}

#[test]
fn a_list_tells_what_happened_and_what_is_new_since() {
    let stage = stage("{ errors: {} }", "");
    assert_eq!(stage.list("")["events"], json!([]));
    stage.failing.store(true, SeqCst);
    stage.ask(0..400);
    eventually("v2 is out", || !stage.proxy.controller().ejections().is_empty());
    stage.word("reinstate");
    let list = stage.list("");
    let kinds = kinds(&list);
    let of = |kind| list["events"].as_array().expect("a list").iter().find(|e| e["kind"] == kind);
    assert!(kinds.ends_with(&["reinstated"]) && kinds.contains(&"ejected"), "{kinds:?}");
    let ejected = of("ejected").expect("told");
    assert_eq!(
        (&ejected["service"], &ejected["version"], &ejected["by"]),
        (&json!("game-api"), &json!("v2"), &json!("verdict"))
    );
    assert_eq!(ejected["verdict"]["answer"], "fail");
    let reinstated = of("reinstated").expect("told");
    assert_eq!(reinstated["reason"], "a test");
    let since = format!("?since={}", ejected["id"]);
    assert_eq!(self::kinds(&stage.list(&since)).last(), Some(&"reinstated"));
    let unknown = stage.list("?service=other");
    assert_eq!((&unknown["status"], &unknown["field"]), (&json!(404), &json!("service")));
    assert_eq!(stage.list("?services=other")["status"], 400);
}

#[test]
fn a_stream_tells_events_as_they_happen_and_goes_on_after_the_last_one_seen() {
    let stage = stage("{ errors: {} }", "");
    let open = |fields: &str| {
        let mut socket = TcpStream::connect(stage.proxy.admin_address()).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let head = format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        socket.write_all(head.as_bytes()).expect("sent");
        let mut lines = BufReader::new(socket).lines().map(|line| line.expect("a line"));
        let status = lines.next().expect("a status");
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(lines.by_ref().any(|l| l.to_lowercase() == "content-type: text/event-stream"));
        lines
    };
    let mut lines = open("");
    stage.word("eject");
    let mut next = |prefix: &str| {
        let line = lines.find(|line| line.starts_with(prefix)).expect("the stream goes on");
        line[prefix.len()..].trim().to_owned()
    };
    let id = next("id:");
    assert_eq!(next("event:"), "ejected");
    let event: Value = serde_json::from_str(&next("data:")).expect("JSON");
    assert_eq!((&event["kind"], &event["version"]), (&json!("ejected"), &json!("v2")));
    assert_eq!(event["id"].to_string(), id);
    stage.word("reinstate");
    assert_eq!(next("event:"), "reinstated");
    // A browser whose connection broke says what it saw last.
    let mut later = open(&format!("Last-Event-ID: {id}\r\n"));
    let event = later.find(|line| line.starts_with("event:")).expect("told");
    assert_eq!(event, "event: reinstated");
}

#[test]
fn the_command_line_shows_events() {
    let stage = stage("{ errors: {} }", "");
    stage.word("eject");
    let admin = format!("http://{}", stage.proxy.admin_address());
    let shown = |more: &[&str]| {
        let arguments = [&["events", "--admin", &admin], more].concat();
        let output = process::program().args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let line = shown(&[]);
    assert!(line.contains("  ejected ") && line.contains("game-api  v2  by "), "{line}");
    let way_back =
        ": a test; `tidegate reinstate game-api v2` reinstates it; `tidegate incidents 2";
    assert!(line.contains(way_back), "{line}");
    assert!(line.ends_with("Z-game-api-v2-ejected` shows its report\n"), "{line}");
    let unknown = ["events", "other", "--admin", &admin];
    let unknown = process::program().args(unknown).output().expect("it runs");
    assert_eq!(unknown.status.code(), Some(65), "{unknown:?}");
    let problem = String::from_utf8(unknown.stderr).expect("text");
    assert!(problem.contains("there is no service `other`; there are: game-api"), "{problem}");
    let mut child = process::program()
        .args(["events", "--follow", "--json", "--admin", &admin])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut next = told_by(&mut child);
    assert_eq!(next()["kind"], "ejected");
    stage.word("reinstate");
    let told = next()["kind"].clone();
    child.kill().and_then(|()| child.wait()).expect("it ends");
    assert_eq!(told, "reinstated");
}

/// Whoever watched a rollout heard nothing more after a restart, and did not notice.
#[test]
fn who_follows_events_goes_on_after_a_restart_of_the_instance() {
    let origin = Origin::answering("ok");
    let (admin, listen) = (process::free_address(), process::free_address());
    let text = Proxy::builder()
        .version("v1", &origin)
        .version("v2", &origin)
        .listen(listen)
        .top(&format!("admin: {{ address: {admin} }}"))
        .text();
    let url = format!("http://{admin}");
    let run = |what: &str| {
        let arguments = [what, "game-api", "v2", "--admin", &url];
        let output = process::program().args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
    };
    let mut first = process::Process::spawn_at(listen, &text);
    run("eject");
    let mut child = process::program()
        .args(["events", "game-api", "--follow", "--json", "--admin", &url])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut next = told_by(&mut child);
    assert_eq!(next()["kind"], "started");
    assert_eq!(next()["kind"], "ejected");
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.wait().code(), Some(0));
    let mut told = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let told = told.next().expect("a line").expect("text");
    assert!(told.contains("cannot be reached") && told.contains("trying again"), "{told}");
    let second = process::Process::spawn_at(listen, &text);
    run("eject");
    // A restart ends ejections.
    let started = next();
    let reason = started["reason"].as_str().expect("a reason");
    assert!(reason.contains("; no process handed over to it, so weights set"), "{reason}");
    let again = next();
    child.kill().and_then(|()| child.wait()).expect("it ends");
    assert_eq!((&again["kind"], &again["by"]), (&json!("ejected"), &json!("anonymous")));
    drop(second);
}

#[test]
fn the_verdict_of_an_ejection_can_be_judged_again_and_by_other_limits() {
    let stage = stage("{ errors: {}, latency: { p99: 20% } }", "");
    stage.ask(0..400);
    let admin = format!("http://{}", stage.proxy.admin_address());
    let run = |arguments: &[&str]| {
        let output = process::program().args(arguments).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let record = |version| run(&["record", "game-api", version, "--admin", &admin]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("v2.jsonl");
    let judge = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).expect("written");
        let file = file.to_str().expect("a path");
        run(&[&["judge", file], more].concat())
    };
    // The first block closes a little after the requests have been answered.
    eventually("the record has a block and judges as it was judged", || {
        let (code, running, _) = record("v2");
        assert_eq!(code, Some(0));
        let (code, told, _) = judge(&running, &[]);
        assert_eq!(code, Some(0), "{told}");
        told.contains("the verdict that was recorded:\nwithin its limits so far\n")
    });
    let (code, _, error) = record("v1");
    assert_eq!(code, Some(65));
    assert!(error.contains("`v1` of `game-api` is not compared"), "{error}");
    stage.failing.store(true, SeqCst);
    stage.ask(400..800);
    eventually("v2 is out", || !stage.proxy.controller().ejections().is_empty());
    let (_, ejected, _) = record("v2");
    let (code, told, _) = judge(&ejected, &[]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.starts_with("game-api: v2 against v1, "), "{told}");
    let reason = stage.proxy.controller().ejections().values().next().expect("one").reason.clone();
    assert!(told.contains(&reason), "{told}");
    // Failures are unserved requests, too, and these get the tolerance of errors.
    let (code, told, _) = judge(&ejected, &["--errors-absolute", "100%"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains(
            "by other limits, from the beginning:\nwithin its limits so far\nmost evidence"
        ),
        "{told}"
    );
    let (code, told, _) = judge(&ejected, &["--alpha", "1e-9", "--json"]);
    let verdict: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((code, verdict["log_threshold"].as_f64().map(f64::round)), (Some(0), Some(21.0)));
    let lost: String = ejected.lines().take(3).map(|line| format!("{line}\n")).collect();
    let (code, _, error) = judge(&lost, &[]);
    assert_eq!(code, Some(65));
    assert!(error.contains("the record is not whole"), "{error}");
    assert_eq!(judge("{}", &[]).0, Some(64));
    assert_eq!(judge(&ejected, &["--alpha", "2"]).0, Some(2));
}

/// What a receiver was sent: head and alerts of each message.
type Received = Arc<Mutex<Vec<(String, Value)>>>;

/// A receiver that answers `status` to each message.
fn receiver(status: u16) -> (Origin, Received) {
    let received = Received::default();
    let kept = Arc::clone(&received);
    let origin = Origin::start(move |call| {
        let token = call.head.field("authorization").unwrap_or_default();
        let head = format!("{} {} {token}", call.method(), call.target());
        let alerts = serde_json::from_slice(&call.read_body()?).expect("JSON");
        kept.lock().expect("whole").push((head, alerts));
        call.answer(status, b"")
    });
    (origin, received)
}

#[test]
fn a_receiver_is_told_of_an_ejection_and_of_its_end() {
    let (good, received) = receiver(200);
    let (bad, refused) = receiver(500);
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "a-secret\n").expect("written");
    let top = format!(
        "alerts: {{ webhooks: [ {{ url: 'http://{}/api/v2/alerts', token_file: '{}' }}, {{ url: \
         'http://{}/' }} ], labels: {{ cluster: eu }}, repeat: 2s }}",
        good.address,
        token.display(),
        bad.address,
    );
    let stage = stage("{ errors: {} }", &top);
    stage.ask(0..50);
    assert!(received.lock().expect("whole").is_empty(), "nothing is wrong yet");
    stage.word("eject");
    let named = |alerts: &Value| {
        alerts.as_array().is_some_and(|all| {
            all.iter().any(|alert| alert["labels"]["alertname"] == "TidegateVersionEjected")
        })
    };
    eventually("it is told", || received.lock().expect("whole").iter().any(|(_, a)| named(a)));
    let (head, alerts) = received.lock().expect("whole")[0].clone();
    assert_eq!(head, "POST /api/v2/alerts Bearer a-secret");
    let labels = &alerts[0]["labels"];
    assert_eq!((&labels["cluster"], &labels["version"]), (&json!("eu"), &json!("v2")));
    let texts = &alerts[0]["annotations"];
    assert_eq!(texts["summary"], "game-api v2 is ejected");
    let instance = labels["instance"].as_str().expect("a label");
    assert!(instance.ends_with(&format!(":{}", stage.proxy.address.port())), "{instance}");
    assert_eq!(
        texts["description"],
        format!(
            "game-api v2 at {instance}: a test. `tidegate reinstate game-api v2` reinstates it."
        )
    );
    let told = received.lock().expect("whole").len();
    eventually("it is told again", || received.lock().expect("whole").len() > told);
    stage.word("reinstate");
    eventually("its end is told", || {
        let received = received.lock().expect("whole");
        let (_, alerts) = received.last().expect("some");
        let ends = alerts[0]["endsAt"].as_str().expect("a time");
        ends < humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string().as_str()
    });
    eventually("the other one is asked again", || refused.lock().expect("whole").len() > 1);
    let page = stage.proxy.admin().get("/metrics").host("localhost").send().text().to_owned();
    let taken =
        format!("tidegate_alert_posts_total{{receiver=\"{}\",result=\"failed\"}} 0", good.address);
    assert!(page.contains(&taken), "{page}");
}

/// The URL of a receiver was a label of a metric, in the log and in what was refused.
#[test]
fn the_secret_in_the_url_of_a_receiver_is_shown_nowhere() {
    const SECRET: &str = "T0XSECRETX1";
    let (backend, other) = (Origin::answering("v1"), Origin::answering("v2"));
    let bad = Origin::start(|call| {
        let told = format!("Cannot POST {}", call.target());
        call.read_body()?;
        call.answer(404, told.as_bytes())
    });
    let alerts = |more: &str| {
        let url = format!("url: 'http://{}/services/{SECRET}?key={SECRET}'", bad.address);
        format!("alerts: {{ webhooks: [ {{ {url}, name: pager }}{more} ] }}")
    };
    let admin = free_address();
    let builder = Proxy::builder().version("v1", &backend).version("v2", &other);
    let builder = builder.top(&format!("admin: {{ address: \"{admin}\" }}"));
    let process = builder.clone().top(&alerts("")).spawn();
    // It is bound after the listener.
    eventually("the admin endpoint listens", || TcpStream::connect(admin).is_ok());
    let see = |path: &str| {
        let mut client = Client::connect(admin);
        let request = client.get(path).host("localhost").header("Accept", "application/json");
        request.send().text().to_owned()
    };
    let zero = "tidegate_alert_posts_total{receiver=\"pager\",result=\"failed\"} 0";
    assert!(see("/metrics").contains(zero), "the counter begins before the first message");
    let mut client = Client::connect(admin);
    let eject = client.post("/v1/services/game-api/eject", br#"{"version":"v2"}"#);
    assert_eq!(
        eject.host("localhost").header("Content-Type", "application/json").send().status,
        200
    );
    eventually("the log says that it was not taken", || {
        process.log().contains("did not accept the alerts")
    });
    let twice = format!(", {{ url: 'ftp://a/{SECRET}' }}, 'http://a/{SECRET}'");
    process.write(&builder.listen(process.address).top(&alerts(&twice)).text());
    eventually("refused", || see("/v1/status").contains("\"rejected\":1"));
    for shown in [process.log(), see("/metrics"), see("/v1/status"), see("/v1/events?since=0")] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    assert!(process.log().contains("pager"), "{}", process.log());
}

/// Two processes posted the same alerts, one of them without the other's reinstatement.
#[test]
fn a_process_that_handed_over_neither_judges_nor_alerts_until_it_takes_back() {
    let (receiver, received) = receiver(200);
    let url = format!("url: 'http://{}/'", receiver.address);
    let stage =
        stage("{ errors: {} }", &format!("alerts: {{ webhooks: [ {{ {url} }} ], repeat: 1s }}"));
    let mut client = stage.proxy.connect();
    let mut players = 0..;
    let mut ask = || {
        for player in players.by_ref().take(50) {
            client.get("/").header("x-player-id", &player.to_string()).send();
        }
    };
    let is_ejected = || !stage.proxy.controller().ejections().is_empty();
    let told = || received.lock().expect("whole").len();
    ask();
    stage.proxy.app().hand_over();
    stage.failing.store(true, SeqCst);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        ask();
    }
    assert!(!is_ejected() && told() == 0, "another process decides");
    stage.proxy.app().take_back();
    eventually("it judges again", || {
        ask();
        is_ejected()
    });
    eventually("it alerts", || told() > 0);
    stage.proxy.app().hand_over();
    // One may be on its way.
    thread::sleep(Duration::from_millis(500));
    let before = told();
    thread::sleep(Duration::from_millis(2_500));
    assert_eq!(told(), before, "it would have been repeated twice");
    stage.proxy.app().take_back();
    eventually("it alerts again", || told() > before);
}
