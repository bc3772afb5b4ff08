//! The admin API over a socket: a whole process, with an origin behind it.
#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it; what failed is on the line"
)]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use tidegate::{
    app::App,
    config::{AdminToken, Loaded, TokenHash, parse, read, schema::Role},
};

use crate::support::eventually;

/// Requests of the admin API served at once; one more is told to come again.
const REQUESTS: usize = 64;

/// Answers every request of a connection with 200 and nothing.
fn origin() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn text(origin: SocketAddr) -> String {
    format!(
        "workers: 1
listen: [ {{ address: 127.0.0.1:0 }} ]
admin: {{ address: 127.0.0.1:0 }}
services:
  game-api:
    baseline: v41
    versions:
      v41: {{ endpoints: [ \"{origin}\" ], labels: {{ semver: 4.1.0, calc: 17 }} }}
      v42: {{ endpoints: [ \"{origin}\" ] }}
    weights: {{ v41: 95, v42: 5 }}
routes: [ {{ service: game-api }} ]
"
    )
}

fn token(name: &str, secret: &str) -> AdminToken {
    AdminToken {
        name: name.to_owned(),
        hash: TokenHash::of(secret).unwrap(),
        role: Role::default(),
    }
}

fn start(tokens: Vec<AdminToken>) -> App {
    let config = parse(&text(origin())).unwrap();
    App::start(Loaded { config, hash: "00".to_owned(), tokens, files: Vec::new() }, None, None)
        .unwrap()
}

struct Answer {
    status: u16,
    fields: HashMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The status and the field of a problem, which must be a whole one.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.fields["content-type"], "application/problem+json", "{}", self.body);
        let json = self.json();
        assert_eq!((&json["type"], &json["status"]), (&"about:blank".into(), &self.status.into()));
        assert!(json["title"].is_string() && json["detail"].is_string(), "{json}");
        (self.status, json["field"].as_str().unwrap_or_default().to_owned())
    }
}

fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields = lines.filter_map(|line| line.split_once(": "));
    let fields = fields.map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).collect();
    Answer { status, fields, body: body.to_owned() }
}

/// Sends a request; `more` are lines of its head.
fn send(address: SocketAddr, line: &str, more: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {more}\r\n{body}"
    );
    raw(address, request.as_bytes())
}

fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, &format!("GET {path}"), "", "")
}

fn put(address: SocketAddr, path: &str, more: &str, body: &Value) -> Answer {
    send(address, &format!("PUT {path}"), more, &body.to_string())
}

const WEIGHTS: &str = "/v1/services/game-api/weights";

#[test]
fn a_service_is_shown_as_the_contract_says() {
    let app = start(Vec::new());
    let admin = app.admin.unwrap();
    let before = get(admin, "/v1/services/game-api").json();
    assert_eq!(before["versions"][0]["latency_ms"], Value::Null);
    assert_eq!(before["versions"][0]["error_rate"], Value::Null);
    assert_eq!(get(app.listeners[0], "/").status, 200);

    // It is recorded after the answer was sent.
    eventually("the latency of the request is shown", || {
        let service = get(admin, "/v1/services/game-api").json();
        let versions = service["versions"].as_array().unwrap();
        versions.iter().any(|version| version["latency_ms"]["p999"].is_number())
    });
    let answer = get(admin, "/v1/services/game-api");
    assert_eq!((answer.status, &*answer.fields["etag"]), (200, "\"1\""));
    let service = answer.json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&service),
        [
            "available",
            "baseline",
            "concurrency",
            "generation",
            "name",
            "rollout",
            "verdicts",
            "versions",
            "weights_refused",
            "weights_set"
        ]
    );
    assert_eq!((&service["available"], &service["weights_refused"]), (&json!(true), &Value::Null));
    assert_eq!(service["weights_set"], Value::Null);
    assert_eq!(service["verdicts"], json!([]));
    let version = &service["versions"][0];
    assert_eq!((&version["name"], &version["state"]), (&json!("v41"), &json!("serving")));
    assert_eq!((&version["weight"], &version["share"]), (&json!(95.0), &json!(0.95)));
    assert_eq!(version["labels"], json!({"semver": "4.1.0", "calc": "17"}));
    let endpoint = &version["endpoints"][0];
    assert_eq!((&endpoint["state"], &endpoint["share"]), (&json!("serving"), &json!(1.0)));
    let count = |at: usize| service["versions"][at]["requests"].as_u64().unwrap();
    assert_eq!(count(0) + count(1), 1);
    let asked = if count(0) == 1 { version } else { &service["versions"][1] };
    assert_eq!((&asked["errors"], &asked["error_rate"]), (&json!(0), &json!(0.0)));
    assert!(asked["latency_ms"]["p999"].as_f64().unwrap() > 0.0);

    let all = get(admin, "/v1/services").json();
    assert_eq!((&all["generation"], &all["services"][0]["name"]), (&json!(1), &json!("game-api")));
    app.shutdown();
}

#[test]
fn weights_change_and_the_answer_tells_what_did() {
    let app = start(Vec::new());
    let admin = app.admin.unwrap();
    let change = json!({"weights": {"v41": 90, "v42": 10}, "reason": "canary looks good"});

    let dry = put(admin, &format!("{WEIGHTS}?dry_run=true"), "", &change);
    assert_eq!((dry.status, &dry.json()["dry_run"]), (200, &json!(true)));
    assert_eq!(dry.json()["generation"], 1);
    assert_eq!(get(admin, "/v1/services/game-api").json()["versions"][1]["weight"], 5.0);

    let outdated = put(admin, WEIGHTS, "If-Match: \"7\"\r\n", &change);
    assert_eq!(outdated.problem(), (412, "If-Match".to_owned()));

    let done = put(admin, WEIGHTS, "If-Match: \"1\"\r\n", &change);
    assert_eq!((done.status, &*done.fields["etag"]), (200, "\"2\""));
    let expected = json!({
        "generation": 2, "service": "game-api", "dry_run": false,
        "before": {"v41": 95.0, "v42": 5.0}, "after": {"v41": 90.0, "v42": 10.0},
        "shares": { "before": {"v41": 0.95, "v42": 0.05}, "after": {"v41": 0.9, "v42": 0.1} },
        "ejected": [],
        "unserved": [],
    });
    assert_eq!(done.json(), expected);
    // Only that there are such weights was shown.
    let set = &get(admin, "/v1/services/game-api").json()["weights_set"];
    assert_eq!((&set["by"], &set["reason"]), (&json!("anonymous"), &json!("canary looks good")));
    assert!(set["at"].as_str().unwrap().starts_with("20"), "{set}");
    assert_eq!(get(admin, "/v1/services/game-api").json()["versions"][1]["share"], 0.1);

    // A version that is not named gets nothing, if that is said.
    let all = put(admin, WEIGHTS, "", &json!({"weights": {"v42": 1}, "only": true}));
    assert_eq!(all.json()["after"], json!({"v41": 0.0, "v42": 1.0}));
    assert_eq!(get(admin, "/v1/services/game-api").json()["versions"][0]["state"], "idle");
    let overrides = &get(admin, "/v1/status").json()["overrides"];
    assert_eq!(*overrides, json!({"game-api": {"v42": 1.0}}));
    app.shutdown();
}

#[test]
fn what_is_wrong_is_a_problem_at_its_field() {
    let app = start(Vec::new());
    let admin = app.admin.unwrap();
    let refused = |path: &str, more: &str, body: &str| {
        send(admin, &format!("PUT {path}"), more, body).problem()
    };
    let good = r#"{"weights": {"v41": 1}}"#;
    let at = |status: u16, field: &str| (status, field.to_owned());
    assert_eq!(refused("/v1/services/none/weights", "", good), at(404, ""));
    assert_eq!(refused(WEIGHTS, "", r#"{"weights": {"v43": 1}}"#), at(422, "weights.v43"));
    assert_eq!(refused(WEIGHTS, "", r#"{"weights": {"v41": -1}}"#), at(422, "weights.v41"));
    assert_eq!(refused(WEIGHTS, "", r#"{"weights": {"v41": 0}}"#), at(422, "weights"));
    assert_eq!(refused(WEIGHTS, "", r#"{"weights": {}}"#), at(422, "weights"));
    assert_eq!(refused(WEIGHTS, "", good), at(422, "weights"));
    assert_eq!(
        refused(WEIGHTS, "", r#"{"weights": {"v41": "60%", "v42": 1}}"#),
        at(422, "weights")
    );
    assert_eq!(refused(WEIGHTS, "", r#"{"weights": {"v41": "101%"}}"#), at(422, "weights.v41"));
    assert_eq!(
        refused(WEIGHTS, "", r#"{"weights": {"v41": "1%"}, "only": true}"#),
        at(422, "weights")
    );
    assert_eq!(refused(WEIGHTS, "", r#"{"weights": {"v41": 1}, "x": 1}"#), at(422, "x"));
    assert_eq!(refused(WEIGHTS, "", "{"), at(400, ""));
    assert_eq!(refused(WEIGHTS, "Content-Type: text/plain\r\n", good), at(415, "Content-Type"));
    assert_eq!(refused(WEIGHTS, "If-Match: 1\r\n", good), at(400, "If-Match"));
    assert_eq!(refused(&format!("{WEIGHTS}?dryrun=true"), "", good).0, 400);
    assert_eq!(refused(&format!("{WEIGHTS}?dry_run=yes"), "", good).0, 400);
    let long = format!(r#"{{"weights": {{"v41": 1}}, "reason": "{}"}}"#, "x".repeat(1001));
    assert_eq!(refused(WEIGHTS, "", &long), at(422, "reason"));
    assert_eq!(refused(WEIGHTS, "", &"x".repeat(65 * 1024)), at(413, ""));
    assert_eq!(refused(WEIGHTS, "Origin: http://evil.example\r\n", good), at(403, "Origin"));

    assert_eq!(get(admin, "/v1/services/none").problem().0, 404);
    assert_eq!(get(admin, "/v1/services/game-api?x=1").problem().0, 400);
    assert_eq!(get(admin, "/v1/services?x=1").problem().0, 400);
    assert_eq!(get(admin, "/v1/none").problem().0, 404);
    for (line, allow) in [
        ("DELETE /v1/status", "GET,HEAD"),
        ("GET /v1/services/game-api/weights", "PUT"),
        ("POST /metrics", "GET,HEAD"),
        ("PUT /readyz", "GET,HEAD"),
    ] {
        let answer = send(admin, line, "", "");
        assert_eq!((answer.problem().0, &*answer.fields["allow"]), (405, allow), "{line}");
    }
    let rebound = b"GET /v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(admin, rebound).problem(), at(421, "Host"));
    assert_eq!(get(admin, "/v1/status").json()["generation"], 1);
    app.shutdown();
}

/// An array used to be read as the fields of a body in their order, so `["v42", null, "so"]` ejected a version.
#[test]
fn no_body_is_anything_but_an_object() {
    let app = start(Vec::new());
    let admin = app.admin.unwrap();
    let of_service = |path: &str| format!("POST /v1/services/game-api/{path}");
    let commands = ["pause", "resume", "promote", "approve", "break-in", "abort", "rollback"];
    let commands = commands.iter().map(|command| of_service(&format!("rollout/{command}")));
    let others = ["eject", "reinstate", "cutover", "rollback", "rollout", "smoke"].map(of_service);
    let more = [
        format!("PUT {WEIGHTS}"),
        "POST /v1/pins/move".to_owned(),
        "POST /v1/hooks/flagger/game-api/rollout".to_owned(),
    ];
    for line in commands.chain(others).chain(more) {
        for body in [r#"["v42", null, "so"]"#, "[]", r#" [{"v41": 1}]"#, r#""v42""#, "42"] {
            let answer = send(admin, &line, "", body);
            assert_eq!(answer.problem(), (400, String::new()), "{line} {body}: {}", answer.body);
            let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(detail.contains("write an object of named fields"), "{line}: {detail}");
        }
    }
    assert_eq!(get(admin, "/v1/status").json()["generation"], 1);
    app.shutdown();
}

#[test]
fn head_answers_where_get_does() {
    let app = start(Vec::new());
    let admin = app.admin.unwrap();
    for path in
        ["/v1/status", "/v1/services", "/v1/services/game-api", "/metrics", "/healthz", "/readyz"]
    {
        let answer = send(admin, &format!("HEAD {path}"), "", "");
        assert_eq!((answer.status, &*answer.body), (200, ""), "{path}");
    }
    assert_eq!(get(admin, "/healthz").body, "ok\n");
    assert!(get(admin, "/metrics").body.contains("tidegate_config_generation 1\n"));
    app.observatory().controller().drain();
    assert_eq!((get(admin, "/readyz").status, get(admin, "/healthz").status), (503, 200));
    app.shutdown();
}

#[test]
fn with_tokens_everything_but_the_probes_needs_one() {
    let secret = "0123456789abcdef";
    let app = start(vec![token("ci", secret)]);
    let admin = app.admin.unwrap();
    for path in ["/v1/status", "/v1/services/game-api", "/metrics", "/v1/none"] {
        let answer = get(admin, path);
        assert_eq!((answer.problem().0, &*answer.fields["www-authenticate"]), (401, "Bearer"));
    }
    let change = json!({"weights": {"v42": "1%"}});
    assert_eq!(put(admin, WEIGHTS, "Authorization: Bearer wrong\r\n", &change).status, 401);
    let token = format!("Authorization: Bearer {secret}\r\n");
    assert_eq!(put(admin, WEIGHTS, &token, &change).status, 200);
    assert_eq!((get(admin, "/healthz").status, get(admin, "/readyz").status), (200, 200));
    app.shutdown();
}

fn write(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("edge.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn the_status_shows_a_bad_file_until_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let good = text(origin());
    let file = write(folder.path(), &good);
    let app = App::start(read(&file).unwrap(), Some(file.clone()), None).unwrap();
    let admin = app.admin.unwrap();
    let status = get(admin, "/v1/status").json();
    assert_eq!(status["config_file"], file.display().to_string());
    assert_eq!(status["config_hash"].as_str().unwrap().len(), 16);
    assert_eq!((&status["workers"], &status["draining"]), (&json!(1), &json!(false)));
    assert_eq!(status["listeners"][0]["address"], app.listeners[0].to_string());
    assert_eq!(
        status["reload"],
        json!({"applied": 0, "rejected": 0, "error": null, "waiting": [], "warnings": []})
    );
    assert_eq!(status["overrides"], json!({}));

    write(folder.path(), &good.replace("v42: 5", "v43: 5"));
    app.reload();
    let reload = get(admin, "/v1/status").json()["reload"].take();
    // The watcher may have seen the file as well.
    assert!(reload["rejected"].as_u64().unwrap() >= 1);
    let problem = &reload["error"]["problems"][0];
    assert_eq!(problem["path"], "services.game-api.weights.v43");
    assert_eq!(problem["line"], 10);
    assert!(reload["error"]["message"].as_str().unwrap().contains("edge.yaml"));

    write(folder.path(), &good.replace("v42: 5", "v42: 6"));
    app.reload();
    let status = get(admin, "/v1/status").json();
    assert_eq!((&status["generation"], &status["reload"]["error"]), (&json!(2), &Value::Null));
    app.shutdown();
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = text(origin())
        .replace("admin: { address: 127.0.0.1:0", &format!("admin: {{ address: \"{address}\""));
    let loaded = Loaded {
        config: parse(&text).unwrap(),
        hash: String::new(),
        tokens: Vec::new(),
        files: Vec::new(),
    };
    let error = App::start(loaded, None, None).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
}

#[test]
fn slow_clients_hold_a_bounded_number_of_places() {
    let app = start(Vec::new());
    let admin = app.admin.unwrap();
    let slow = || {
        let mut stream = TcpStream::connect(admin).unwrap();
        let head = format!("PUT {WEIGHTS} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 9\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let held: Vec<TcpStream> = (0..REQUESTS).map(|_| slow()).collect();
    // It takes a moment until all of them were read.
    let change = || send(admin, &format!("PUT {WEIGHTS}"), "", "{}");
    let refused = (0..1000).map(|_| change()).find(|answer| answer.status == 503).unwrap();
    assert_eq!(refused.problem().0, 503);
    assert_eq!((get(admin, "/healthz").status, get(admin, "/readyz").status), (200, 200));
    // Neither those who look nor those who take players off a version wait behind them.
    assert_eq!(get(admin, "/v1/status").status, 200);
    let eject = |body| send(admin, "POST /v1/services/game-api/eject", "", body).status;
    assert_ne!(eject("{}"), 503);
    drop(held);
    // A place is free again when the server has seen that its holder left, or a moment later.
    assert!((0..100).any(|_| change().status != 503));
    app.shutdown();
}

/// More connections than the admin endpoint keeps, of those that it keeps for anybody.
const STRANGERS: usize = 300;

/// 256 connections that asked for nothing held all places, and Kubernetes killed the process for it.
#[test]
fn strangers_lock_out_neither_probes_nor_operators() {
    let secret = "0123456789abcdef";
    let app = start(vec![token("ops", secret)]);
    let admin = app.admin.unwrap();
    let token = format!("Authorization: Bearer {secret}\r\n");
    let begin = |text: &str| {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let status = |stream: &mut TcpStream, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n{token}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"\"last_error\":null}}") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the operator's connection ended");
            answer.extend_from_slice(&buffer[..count]);
        }
        answer.starts_with(b"HTTP/1.1 200 OK\r\n")
    };
    let mut operator = begin("");
    assert!(status(&mut operator, "/v1/status"));
    let whole = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    for stranger in [String::new(), "GET /hea".to_owned(), whole.to_owned(), whole.repeat(50)] {
        let held: Vec<TcpStream> = (0..STRANGERS).map(|_| begin(&stranger)).collect();
        assert_eq!(get(admin, "/healthz").status, 200, "{stranger:?}");
        assert_eq!(get(admin, "/readyz").status, 200, "{stranger:?}");
        assert_eq!(send(admin, "GET /metrics", &token, "").status, 200, "{stranger:?}");
        // Who sent a token keeps the connection.
        assert!(status(&mut operator, "/v1/status"), "{stranger:?}");
        drop(held);
    }
    app.shutdown();
}
