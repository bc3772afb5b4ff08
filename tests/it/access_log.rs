//! What the access log says of requests: durations, which count from the complete head whatever a request waits for, and what
//! refused a request, by name.

use std::{
    fs,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Client, Origin, Proxy, eventually,
    origin::Call,
    proxy::{Builder, SERVICE},
};

/// A proxy with an access log.
struct Stage {
    proxy: Proxy,
    folder: TempDir,
}

impl Stage {
    fn new(origin: &Origin, more: impl FnOnce(Builder) -> Builder) -> Self {
        let folder = TempDir::new().expect("a folder");
        let log = folder.path().join("access.log");
        let builder = Proxy::builder().version("v1", origin);
        let builder = builder.top("admin: { address: 127.0.0.1:0 }");
        let builder = builder.top(&format!("access_log: {{ path: '{}' }}", log.display()));
        Self { proxy: more(builder).start(), folder }
    }

    /// Sends `bytes`, the begin of a request or all of it, named `id`.
    fn send(&self, id: &str, head: &str, body: &str) -> Client {
        let mut client = self.proxy.connect();
        client.send(format!("{head} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n{body}"));
        client
    }

    /// Lets some time pass in which requests are served at `path`, and returns how long it was at least.
    fn pass(&self, path: &str) -> Duration {
        let (mut client, began) = (self.proxy.connect(), Instant::now());
        (0..50).for_each(|_| assert_eq!(client.get(path).send().status, 200));
        began.elapsed()
    }

    fn metrics(&self) -> String {
        self.proxy.admin().get("/metrics").host("localhost").send().text().to_owned()
    }

    /// Ends the proxy, and returns the line of the request named `id`.
    #[track_caller]
    fn line(self, id: &str) -> Value {
        self.proxy.shutdown();
        let text = fs::read_to_string(self.folder.path().join("access.log")).expect("the log");
        let mut lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let line = lines.find(|line: &Value| line["request_id"] == id);
        line.unwrap_or_else(|| panic!("no line of {id} in {text}"))
    }
}

fn micros(line: &Value, field: &str) -> u128 {
    line[field].as_u64().unwrap_or_else(|| panic!("no {field} in {line}")).into()
}

/// What `_sum` of `tidegate_request_duration_seconds` of a route is.
fn sum(page: &str, route: &str) -> f64 {
    let name = "tidegate_request_duration_seconds_sum";
    let labels = format!("{name}{{service=\"{SERVICE}\",version=\"v1\",route=\"{route}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&labels));
    line.unwrap_or_else(|| panic!("no {labels} in {page}")).parse().expect("a number")
}

/// Regression: what waited in a queue had a short duration in log and histogram.
#[test]
fn a_wait_for_a_place_is_in_the_duration_and_not_in_the_latency_of_the_version() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let origin = Origin::start(move |call: &mut Call<'_>| {
        if call.head.start_line().contains("/held") {
            let _ = released.lock().expect("no panic").recv();
        }
        call.answer(200, b"done")
    });
    let stage = Stage::new(&origin, |builder| {
        let limit = "limit: { concurrency: { max: 1, queue: 5, queue_timeout: 20s } }";
        let builder = builder.route(&format!("name: bets, match: {{ path: /bets/* }}, {limit}"));
        builder.route("name: rest")
    });
    let state = Arc::clone(&stage.proxy.snapshot().concurrency[0].state);
    let mut first = stage.send("first", "GET /bets/held", "\r\n");
    eventually("it has its place", || state.in_flight() == 1);
    let mut second = stage.send("second", "GET /bets/1", "\r\n");
    eventually("it waits", || state.waiting() == 1);
    let waited = stage.pass("/");
    release.send(()).expect("the origin listens");
    assert_eq!((first.answer().status, second.answer().status), (200, 200));
    let total = sum(&stage.metrics(), "bets");
    assert!(total >= 2.0 * waited.as_secs_f64(), "{total}, {waited:?}");
    let line = stage.line("second");
    let (whole, upstream) = (micros(&line, "duration_us"), micros(&line, "upstream_us"));
    assert!(whole >= waited.as_micros(), "{waited:?}: {line}");
    assert!(upstream <= whole - waited.as_micros(), "the wait is none of the version's: {line}");
}

#[test]
fn a_write_that_was_held_has_the_duration_of_its_hold() {
    let origin = Origin::answering("ok");
    let stage = Stage::new(&origin, |builder| {
        builder.route("name: rest, read_only: { hold: { deadline: 20s } }")
    });
    let mode = |mode: &str| {
        let body = format!("{{\"mode\":\"{mode}\"}}");
        let mut admin = stage.proxy.admin();
        let answer = admin.request("PUT", "/v1/mode").host("localhost").body(body.as_bytes());
        assert_eq!(answer.send().status, 200);
    };
    mode("read-only");
    let mut held = stage.send("held", "POST /callback", "Content-Length: 2\r\n\r\nhi");
    let name = format!("tidegate_read_only_held{{service=\"{SERVICE}\",route=\"rest\"}} 1");
    eventually("it is held", || stage.metrics().contains(&name));
    let waited = stage.pass("/");
    mode("normal");
    assert_eq!(held.answer().status, 200);
    let line = stage.line("held");
    assert!(micros(&line, "duration_us") >= waited.as_micros(), "{waited:?}: {line}");
}

/// A gate that takes 200 ms, and lets go on whoever has a token.
fn slow_gate() -> Origin {
    Origin::start(|call: &mut Call<'_>| {
        // The pause is what is tested.
        thread::sleep(Duration::from_millis(200));
        call.answer(if call.head.field("authorization").is_some() { 200 } else { 401 }, b"")
    })
}

fn behind(gate: &Origin) -> impl FnOnce(Builder) -> Builder {
    let url = format!("http://{}/", gate.address);
    move |builder| {
        let builder = builder.top(&format!("authorizers: {{ gate: {{ url: '{url}' }} }}"));
        builder.route("name: bets, auth: { external: gate }")
    }
}

#[test]
fn the_time_of_an_authorizer_is_in_the_duration() {
    let (origin, gate) = (Origin::answering("ok"), slow_gate());
    let stage = Stage::new(&origin, behind(&gate));
    let mut client = stage.send("asked", "GET /", "Authorization: Bearer a\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    let line = stage.line("asked");
    let (whole, upstream) = (micros(&line, "duration_us"), micros(&line, "upstream_us"));
    assert!(whole >= 200_000 && upstream <= whole - 200_000, "{line}");
}

/// Regression: refused requests had a duration of 0, and no bytes.
#[test]
fn a_refused_request_has_its_duration_and_the_bytes_of_both_bodies() {
    let (origin, gate) = (Origin::answering("ok"), slow_gate());
    let stage = Stage::new(&origin, behind(&gate));
    let mut client = stage.send("denied", "POST /", "Content-Length: 5\r\n\r\nhello");
    let answer = client.answer();
    assert_eq!(answer.status, 401);
    let line = stage.line("denied");
    assert!(micros(&line, "duration_us") >= 200_000, "{line}");
    assert_eq!(micros(&line, "bytes_in"), 5, "{line}");
    assert_eq!(micros(&line, "bytes_out"), answer.body.len() as u128, "{line}");
}

fn with_places(builder: Builder) -> Builder {
    let limit = "limit: { concurrency: { max: 1, queue: 5 } }";
    let builder = builder.route(&format!("name: bets, match: {{ path: /bets/* }}, {limit}"));
    let key = "idempotency: { keys: 100 }";
    let builder = builder.route(&format!("name: keyed, match: {{ path: /keyed/* }}, {key}"));
    builder.route("name: rest")
}

#[test]
fn a_body_that_arrives_before_the_place_is_in_the_duration() {
    let origin = Origin::answering("ok");
    let stage = Stage::new(&origin, with_places);
    let mut slow = stage.send("slow", "POST /bets/1", "Content-Length: 4\r\n\r\nab");
    // The head has arrived before: a worker serves its connections in turn.
    stage.pass("/");
    let waited = stage.pass("/");
    slow.send("cd");
    assert_eq!(slow.answer().status, 200);
    let line = stage.line("slow");
    assert!(micros(&line, "duration_us") >= waited.as_micros(), "{waited:?}: {line}");
    assert_eq!(micros(&line, "bytes_in"), 4, "{line}");
}

#[test]
fn a_body_that_is_late_is_refused_with_its_duration() {
    let origin = Origin::answering("ok");
    let stage =
        Stage::new(&origin, |builder| with_places(builder).top("limits: { body_timeout: 200ms }"));
    let mut slow = stage.send("slow", "POST /bets/1", "Content-Length: 4\r\n\r\nab");
    assert_eq!(slow.answer().status, 408);
    let line = stage.line("slow");
    assert!(micros(&line, "duration_us") >= 200_000, "{line}");
    assert_eq!((micros(&line, "bytes_in"), &line["policy"]), (2, &"body".into()), "{line}");
}

/// Regression: it was logged and counted as a request that was refused with 408.
#[test]
fn a_client_that_leaves_while_its_body_is_awaited_is_gone() {
    let origin = Origin::answering("ok");
    for (path, key) in [("/bets/1", ""), ("/keyed/1", "Idempotency-Key: \"k\"\r\n")] {
        let stage = Stage::new(&origin, with_places);
        let rest = format!("{key}Content-Length: 4\r\n\r\nab");
        drop(stage.send("left", &format!("POST {path}"), &rest));
        let unrouted = "tidegate_requests_unrouted_total{code=\"0\"} 1";
        eventually("it is counted", || stage.metrics().contains(unrouted));
        let page = stage.metrics();
        let refused = |line: &&str| {
            line.starts_with("tidegate_refused_total") && line.contains("reason=\"body\"")
        };
        let refused: Vec<_> = page.lines().filter(refused).collect();
        assert!(!refused.is_empty() && refused.iter().all(|line| line.ends_with(" 0")), "{page}");
        let line = stage.line("left");
        assert_eq!((&line["status"], &line["fault"]), (&0.into(), &"client_gone".into()), "{line}");
        assert_eq!((&line["policy"], micros(&line, "bytes_in")), (&Value::Null, 2), "{line}");
    }
    assert_eq!(origin.requests(), 0);
}

/// Several limits, authorizers and scopes may refuse requests of a route, and the log named none of them.
#[test]
fn a_refused_request_names_what_refused_it() {
    let (origin, gate) = (Origin::answering("ok"), Origin::start(|call| call.answer(403, b"")));
    let url = format!("http://{}/", gate.address);
    let stage = || {
        Stage::new(&origin, |builder| {
            let rates = "{ requests: 9, per: 1h }, { requests: 1, per: 1h, name: slow }";
            builder
                .top(&format!("authorizers: {{ gate: {{ url: '{url}' }} }}"))
                .route(&format!("match: {{ path: /rated/* }}, limit: {{ rates: [ {rates} ] }}"))
                .route("match: { path: /asked/* }, auth: { external: gate }")
                .route("match: { path: /one/* }, limit: { concurrency: { max: 1, queue: 0 } }")
                .route("name: rest")
        })
    };
    let of = |stage: Stage, line: &str| {
        let status = stage.send("it", line, "Content-Length: 0\r\n\r\n").answer().status;
        let line = stage.line("it");
        assert_eq!(line["status"], status, "{line}");
        (status, line["policy"].clone(), line["refused_by"].clone())
    };
    let rated = stage();
    assert_eq!(rated.proxy.get("/rated/1").status, 200);
    assert_eq!(of(rated, "POST /rated/1"), (429, "rate".into(), "slow".into()));
    assert_eq!(of(stage(), "POST /asked/1"), (403, "authorizer".into(), "gate".into()));
    let read_only = stage();
    let body = format!("{{\"mode\":\"read-only\",\"service\":\"{SERVICE}\"}}");
    let mut admin = read_only.proxy.admin();
    let set = admin.request("PUT", "/v1/mode").host("localhost").body(body.as_bytes()).send();
    assert_eq!(set.status, 200);
    assert_eq!(of(read_only, "POST /"), (503, "read_only".into(), "service".into()));
    let full = stage();
    let held = Origin::start(|call: &mut Call<'_>| call.await_end());
    let limited = Stage::new(&held, |builder| {
        builder.route("name: one, limit: { concurrency: { max: 1, queue: 0 } }")
    });
    let first = limited.send("first", "GET /", "\r\n");
    held.await_requests(1);
    assert_eq!(of(limited, "POST /"), (503, "concurrency".into(), "route".into()));
    drop(first);
    assert_eq!(of(full, "POST /"), (200, Value::Null, Value::Null));
}

/// With `on_failure: open` no trace was left of a request that nobody had been asked about.
#[test]
fn a_request_that_goes_on_since_its_authorizer_failed_says_so() {
    let (origin, gate) = (Origin::answering("ok"), Origin::start(|call| call.answer(500, b"")));
    let stage = Stage::new(&origin, |builder| {
        let url = format!("http://{}/", gate.address);
        let gate = format!("gate: {{ url: '{url}', on_failure: open }}");
        builder
            .top(&format!("authorizers: {{ {gate} }}"))
            .route("name: bets, auth: { external: gate }")
    });
    assert_eq!(stage.send("open", "GET /", "\r\n").answer().status, 200);
    let failed = "tidegate_authorizer_requests_total{authorizer=\"gate\",result=\"failed\"} 1";
    assert!(stage.metrics().contains(failed));
    let line = stage.line("open");
    assert_eq!((&line["status"], &line["unasked"]), (&200.into(), &"gate".into()), "{line}");
}

#[test]
fn a_limit_that_advises_refuses_nobody_and_is_logged_and_counted() {
    let origin = Origin::answering("ok");
    let stage = Stage::new(&origin, |builder| {
        let advises = "{ requests: 1, per: 1h, name: trial, mode: advise }";
        let acts = "{ requests: 3, per: 1h, name: hard }";
        builder.route(&format!("name: bets, limit: {{ rates: [ {advises}, {acts} ] }}"))
    });
    let mut client = stage.proxy.connect();
    for (left, over) in [("2", false), ("1", true), ("0", true)] {
        let id = if over { "over" } else { "within" };
        let answer = client.get("/").header("X-Request-Id", id).send();
        assert_eq!(answer.status, 200);
        let state = answer.field("ratelimit").expect("a state").to_owned();
        assert!(
            state.starts_with(&format!("\"hard\";r={left};")),
            "only what acts is told: {state}"
        );
    }
    let refused = client.get("/").send();
    assert_eq!((refused.status, &refused.json()["violated-policies"][0]), (429, &"hard".into()));
    let page = stage.metrics();
    for (metric, limit, count) in [
        ("advised", "trial", 3),
        ("limited", "trial", 0),
        ("advised", "hard", 0),
        ("limited", "hard", 1),
    ] {
        let line =
            format!("tidegate_rate_{metric}_total{{route=\"bets\",limit=\"{limit}\"}} {count}\n");
        assert!(page.contains(&line), "{line} in {page}");
    }
    let line = stage.line("over");
    assert_eq!((&line["status"], &line["advised"]), (&200.into(), &"trial".into()), "{line}");
}
