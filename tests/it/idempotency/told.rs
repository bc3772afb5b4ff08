//! What operators are told of keys: the access log, the look-up, metrics; and how keys stay known.

use rustix::process::Signal;
use serde_json::Value;

use super::*;
use crate::support::process::{free_address, program};

const ADMIN: &str = "admin: { address: \"127.0.0.1:0\" }";

fn page(address: SocketAddr) -> String {
    Client::connect(address).get("/metrics").host("localhost").send().text().to_owned()
}

fn has(page: &str, line: &str) -> bool {
    page.lines().any(|found| found == line)
}

/// What the command `key` prints about the key of `route`, as JSON.
fn looked(admin: SocketAddr, key: &str, more: &[&str]) -> Value {
    let mut command = program();
    command.args(["key", key, "--route", "bet", "--player", "p1", "--json"]).args(more);
    let output =
        command.env("TIDEGATE_ADMIN", format!("http://{admin}")).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"))
}

/// The log had neither route, player nor key of what was refused or replayed, so nobody could tell whether a bet had been sent
/// twice, or why it was refused.
#[test]
fn the_access_log_tells_of_a_key_what_became_of_its_requests() {
    let go = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let go = Arc::clone(&go);
        move |call| {
            call.skip_body()?;
            while call.target().starts_with("/slow") && !go.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            call.answer(201, b"placed")
        }
    });
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("access.log");
    let proxy = Proxy::builder()
        .version("v1", &origin)
        .service("cohort: { key: [ \"header:x-player\" ] }")
        .route("name: bet, idempotency: {}, limit: { rates: [ { requests: 5, per: 1h } ] }")
        .top(&format!("access_log: {{ path: {} }}", path.display()))
        .top(ADMIN)
        .start();
    let mut client = proxy.connect();
    assert_eq!(post(&mut client, "k", b"1").status, 201);
    assert!(replayed(&post(&mut client, "k", b"1")));
    let mismatch = post(&mut client, "k", b"2");
    assert_eq!((mismatch.status, mismatch.kind()), (422, "idempotency_mismatch".to_owned()));
    // What refuses after a limit tells of the limit, too.
    assert_eq!(mismatch.field("ratelimit-policy"), Some("\"route\";q=5;w=3600"));
    assert!(mismatch.field("ratelimit").is_some_and(|state| state.contains(";r=2;")));
    let slow = b"POST /slow HTTP/1.1\r\nHost: a\r\nX-Player: p1\r\nIdempotency-Key: s\r\nContent-Length: 0\r\n\r\n";
    let mut clients = [proxy.connect(), proxy.connect()];
    clients[0].send(slow);
    origin.await_requests(2);
    assert_eq!(looked(proxy.admin_address(), "s", &[])["state"], "in_flight");
    clients[1].send(slow);
    eventually("it waits", || waiting(&proxy) == 1);
    go.store(true, SeqCst);
    assert_eq!(clients.each_mut().map(|client| client.answer().status), [201, 201]);
    let over = post(&mut client, "k", b"1");
    assert_eq!((over.status, over.kind()), (429, "rate".to_owned()));
    let answered =
        looked(proxy.admin_address(), "k", &["--request", "POST /bets?x=1", "--host", "game.test"]);
    assert_eq!((&answered["state"], &answered["status"]), (&"answered".into(), &201.into()));
    let seconds = |name: &str| answered[name].as_u64().expect("a number");
    assert!(seconds("age_seconds") < 60, "{answered}");
    // Regression: one second more was said to be left.
    assert_eq!(seconds("age_seconds") + seconds("left_seconds"), 24 * 60 * 60, "{answered}");
    assert_eq!(looked(proxy.admin_address(), "other", &[])["state"], "unknown");
    let metrics = page(proxy.admin_address());
    for (reason, count) in [("idempotency", 1), ("rate", 1), ("fence", 0)] {
        let labels = format!("service=\"game-api\",route=\"bet\",reason=\"{reason}\"");
        let line = format!("tidegate_refused_total{{{labels}}} {count}");
        assert!(has(&metrics, &line), "{line} in {metrics}");
    }
    proxy.shutdown();
    let log = std::fs::read_to_string(path).expect("the log");
    let lines: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let key = |line: &Value| line["key"].as_str().unwrap_or_default().to_owned();
    let said = lines.iter().map(|line| {
        assert_eq!((&line["route"], &line["service"]), (&"bet".into(), &"game-api".into()));
        assert_eq!(line["player"], lines[0]["player"], "{line}");
        let text = |name: &str| line[name].as_str().unwrap_or("").to_owned();
        (line["status"].as_u64().unwrap_or(0), text("key_use"), text("policy"), text("fault"))
    });
    let mut said: Vec<_> = said.collect();
    let as_text = |status, used: &str, policy: &str, fault: &str| {
        (status, used.to_owned(), policy.to_owned(), fault.to_owned())
    };
    // The two that ended together may stand in either order.
    said[3..5].sort();
    assert_eq!(
        said,
        [
            as_text(201, "new", "", ""),
            as_text(201, "replayed", "", ""),
            as_text(422, "refused", "idempotency", "idempotency_mismatch"),
            as_text(201, "held", "", ""),
            as_text(201, "new", "", ""),
            as_text(429, "refused", "rate", "rate"),
        ]
    );
    assert_eq!(lines[0]["player"].as_str().map(str::len), Some(8));
    assert_eq!(key(&lines[0]), answered["key"].as_str().unwrap_or_default());
    assert_eq!([1, 2, 5].map(|n| key(&lines[n])), [0; 3].map(|n: usize| key(&lines[n])));
    assert_eq!((key(&lines[3]), key(&lines[4]) == key(&lines[0])), (key(&lines[4]), false));
    assert!(!log.contains("p1"), "the player is not in it: {log}");
}

/// A key whose request was cut by a kill was unsure, and nobody could find that out without sending the bet again.
#[test]
fn a_key_that_is_unsure_since_its_process_was_killed_is_counted_and_found() {
    let ledger = Ledger::default();
    let origin = Origin::start({
        let ledger = ledger.clone();
        move |call| {
            let body = call.read_body()?;
            ledger.process(call.head.field("idempotency-key").unwrap_or("none"));
            match &*body {
                b"hangs" => call.await_end(),
                _ => call.answer(201, b"placed"),
            }
        }
    });
    let folder = TempDir::new().expect("a folder");
    let state = folder.path().join("state");
    let admin = free_address();
    let text = keyed(&origin, "window: 1h")
        .top(&format!("state: {}", state.display()))
        .top(&format!("admin: {{ address: \"{admin}\" }}"));
    let mut first = text.spawn();
    assert_eq!(post(&mut first.connect(), "answered", b"x").status, 201);
    let mut client = first.connect();
    client.send("POST /bets?x=1 HTTP/1.1\r\nHost: game.test\r\nX-Player: p1\r\nIdempotency-Key: begun\r\nContent-Length: 5\r\n\r\nhangs");
    eventually("it was sent", || ledger.times("begun") == 1);
    // The end of a key is written within some milliseconds.
    eventually("the other one is written", || {
        let database = rusqlite::Connection::open(state.join("idempotency.db")).expect("a file");
        let count = "SELECT count(*) FROM idempotency WHERE state = 1";
        database.query_row(count, [], |row| row.get(0)).is_ok_and(|answered: u32| answered == 1)
    });
    first.signal(Signal::KILL);
    first.wait();
    let second = text.spawn();
    let labels = "{service=\"game-api\",route=\"bet\"}";
    eventually("they are counted", || {
        let metrics = page(admin);
        has(&metrics, &format!("tidegate_idempotency_keys{labels} 2"))
            && has(&metrics, &format!("tidegate_idempotency_keys_unsure{labels} 1"))
    });
    let body = folder.path().join("body");
    std::fs::write(&body, "hangs").expect("a file");
    let unsure = looked(admin, "begun", &[]);
    assert_eq!(
        (&unsure["state"], &unsure["source"]),
        (&"unsure".into(), &"header:x-player".into())
    );
    let answered = looked(admin, "answered", &["--source", "header:x-player"]);
    assert_eq!((&answered["state"], &answered["status"]), (&"answered".into(), &201.into()));
    let line = |target: &str| {
        let body = body.to_str().expect("a path");
        let mut command = program();
        command.args(["key", "begun", "--route", "bet", "--player", "p1", "--host", "game.test"]);
        command.args(["--request", target, "--body", body]);
        let output = command.env("TIDEGATE_ADMIN", format!("http://{admin}")).output();
        String::from_utf8(output.expect("it runs").stdout).expect("text")
    };
    let same = line("POST /bets?x=1");
    assert!(
        same.contains("nobody knows") && same.contains("the given request is the one"),
        "{same}"
    );
    assert!(line("POST /bets?x=2").contains("another request than the given one"));
    let mut client = Client::connect(admin);
    for (query, status, says) in [
        ("route=bet&key=k", 400, "belongs to its player"),
        ("route=bets&key=k&player=p", 404, "there is no route `bets`; these have: `bet`"),
        ("route=bet&key=k&player=p&source=cookie:p", 400, "header:x-player"),
        ("route=bet&key=%22&player=p", 400, "malformed"),
    ] {
        let target = format!("/v1/key?{query}");
        let answer = client.get(&target).host("localhost").send();
        assert!(answer.status == status && answer.text().contains(says), "{}", answer.text());
    }
    drop(second);
}

/// A renamed route, and another `cohort.key`, forgot all keys, with no way to keep them.
#[test]
fn a_route_that_is_renamed_and_a_service_with_another_cohort_key_keep_their_keys_by_name() {
    let ledger = Ledger::default();
    let origin = bookkeeper(&ledger);
    let proxy = keyed(&origin, "").start_with_file();
    assert_eq!(post(&mut proxy.connect(), "k", b"x").status, 201);
    let after = Proxy::builder()
        .version("v1", &origin)
        .service("cohort: { key: [ \"cookie:uid\" ] }")
        .route("name: bets.place, idempotency: { name: bet, by: \"header:x-player\" }");
    proxy.write(&after.text());
    eventually("it is in force", || proxy.reloads().0 == 1);
    assert!(replayed(&post(&mut proxy.connect(), "k", b"x")));
    let events = proxy.controller().events().since(0).map(|e| e.kind.label()).collect::<Vec<_>>();
    assert!(!events.contains(&"idempotency_forgotten"), "{events:?}");
    assert_eq!(ledger.times("k"), 1);
}

/// A full table said `Retry-After: 1`, although there was no room for hours.
#[test]
fn a_full_table_says_when_the_first_key_is_forgotten() {
    let ledger = Ledger::default();
    let origin = bookkeeper(&ledger);
    let folder = TempDir::new().expect("a folder");
    let state = format!("state: {}", folder.path().join("state").display());
    for top in [ADMIN, &state] {
        let proxy = keyed(&origin, "keys: 1, window: 1h").top(top).start();
        let mut client = proxy.connect();
        assert_eq!(post(&mut client, "first", b"x").status, 201);
        let full = post(&mut client, "second", b"x");
        assert_eq!((full.status, full.kind()), (503, "idempotency_full".to_owned()));
        let wait: u32 = full.field("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
        assert!((3500..=3601).contains(&wait), "{wait}");
    }
}
