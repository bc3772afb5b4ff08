//! Smoke checks reach a version that has no players, by the routes of players, and tell why it is not ready.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use serde_json::{Value, json};

use crate::support::{
    Origin, Proxy, eventually,
    nobody::{refusing, swallowing},
    origin::Call,
    process::program,
    proxy::Builder,
};

const MONEY_PATH: &str = "\
smoke:
  money-path:
    host: game.test
    steps:
    - request: POST /v1/login
      json: { user: smoke }
      expect: { status: 200, within: 20s, headers: { content-type: { matches: ^application/json } } }
      keep: { token: \"json:$.token\", sid: \"cookie:sid\" }
    - request: POST /v1/spin?sid=${sid}
      headers: { authorization: \"Bearer ${token}\" }
      json: { stake: 1 }
      expect: { status: 201, json: { \"$.state\": open } }
      keep: { round: \"json:$.round\", token: \"header:x-token\" }
    - request: POST /v1/rounds/${round}/settle
      headers: { authorization: \"Bearer ${token}\" }
      json: { round: \"${round}\" }
      expect: { json: { \"$.state\": settled, \"$.round\": \"${round}\" } }";

/// A game: login, spin, settle; with `broken`, a settled round stays open.
fn game(call: &mut Call<'_>, broken: bool) -> io::Result<()> {
    let body: Value = serde_json::from_slice(&call.read_body()?).unwrap_or(Value::Null);
    let token = call.head.field("authorization").unwrap_or_default().to_owned();
    let line = call.head.start_line().to_owned();
    let mut answer = |status: u16, fields: &str, body: Value| {
        let (body, length) = (body.to_string(), body.to_string().len());
        call.send(format!(
            "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        ))
    };
    match line.split(' ').nth(1).unwrap_or_default() {
        "/v1/login" if body == json!({ "user": "smoke" }) => {
            answer(200, "Set-Cookie: sid=s1; HttpOnly\r\n", json!({ "token": "secret-one" }))
        }
        "/v1/spin?sid=s1" if token == "Bearer secret-one" && body == json!({ "stake": 1 }) => {
            answer(201, "X-Token: secret-two\r\n", json!({ "state": "open", "round": 77 }))
        }
        "/v1/rounds/77/settle"
            if token == "Bearer secret-two" && body == json!({ "round": 77 }) =>
        {
            let state = if broken { "open" } else { "settled" };
            answer(200, "", json!({ "state": state, "round": 77 }))
        }
        _ => answer(400, "", json!({ "error": format!("{line} with {token}") })),
    }
}

fn game_origin(broken: &Arc<AtomicBool>) -> Origin {
    let broken = Arc::clone(broken);
    Origin::start(move |call| game(call, broken.load(SeqCst)))
}

/// A service whose v1 has all players, and whose v2 is checked.
fn service(v1: &Origin, v2: &Origin, smoke: &str) -> Builder {
    let admin = "admin: { address: 127.0.0.1:0 }";
    Proxy::builder().version("v1", v1).version("v2", v2).top(admin).top(smoke)
}

/// The report of the admin endpoint.
fn check(proxy: &Proxy, version: &str, check: &str) -> Value {
    let body = json!({ "version": version, "check": check }).to_string();
    let mut admin = proxy.admin();
    let answer =
        admin.post("/v1/services/game-api/smoke", body.as_bytes()).host("localhost").send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn metrics(proxy: &Proxy) -> String {
    proxy.admin().get("/metrics").host("localhost").send().text().to_owned()
}

#[test]
fn a_version_without_players_is_checked_by_the_routes_of_players() {
    let (v1, v2) = (game_origin(&Arc::default()), game_origin(&Arc::default()));
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("access.log");
    let builder = service(&v1, &v2, MONEY_PATH)
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: {} }")
        .top(&format!("access_log: {{ path: {} }}", log.display()));
    let proxy = builder.start();
    let report = check(&proxy, "v2", "money-path");
    assert_eq!((&report["passed"], &report["reason"]), (&json!(true), &Value::Null), "{report}");
    let steps = report["steps"].as_array().expect("steps");
    let told: Vec<_> =
        steps.iter().map(|s| (s["request"].as_str(), s["status"].as_u64())).collect();
    assert_eq!(
        told,
        [
            (Some("POST /v1/login"), Some(200)),
            (Some("POST /v1/spin?sid=${sid}"), Some(201)),
            (Some("POST /v1/rounds/${round}/settle"), Some(200)),
        ]
    );
    assert!(!report.to_string().contains("secret"), "{report}");
    assert!(steps.iter().all(|step| step["took_ms"].as_f64() > Some(0.0)), "{report}");

    assert_eq!((v1.requests(), v2.requests()), (0, 3), "players' version is left alone");
    for seen in v2.seen() {
        assert_eq!(seen.head.field("tidegate-smoke"), Some("1"));
        assert_eq!(seen.head.field("host"), Some("game.test"));
        assert_eq!(seen.head.field("x-forwarded-proto"), Some("http"));
    }
    // Neither evidence nor players' requests.
    let page = metrics(&proxy);
    let one = |line: &str| assert!(page.contains(&format!("\n{line}\n")), "{line} in {page}");
    one(
        r#"tidegate_smoke_checks_total{service="game-api",version="v2",check="money-path",result="passed"} 1"#,
    );
    one(
        r#"tidegate_smoke_checks_total{service="game-api",version="v2",check="money-path",result="failed"} 0"#,
    );
    one(
        r#"tidegate_requests_total{service="game-api",version="v2",route="default",code_class="2xx"} 0"#,
    );
    one(r#"tidegate_requests_in_flight{service="game-api",version="v2"} 0"#);
    drop(proxy);
    let log = std::fs::read_to_string(&log).expect("a log");
    let lines: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(lines.len(), 3);
    for line in lines {
        assert_eq!((&line["version"], &line["cohort"]), (&json!("v2"), &json!("smoke")), "{line}");
    }
}

#[test]
fn what_fails_is_told_with_the_step() {
    let broken = Arc::new(AtomicBool::new(true));
    let (v1, v2) = (game_origin(&Arc::default()), game_origin(&broken));
    let proxy = service(&v1, &v2, MONEY_PATH).start();
    let report = check(&proxy, "v2", "money-path");
    assert_eq!((&report["passed"], &report["failed_step"]), (&json!(false), &json!(3)), "{report}");
    assert_eq!(report["reason"], r#"expected $.state to be "settled", got `open`"#);
    assert!(metrics(&proxy).contains(r#"check="money-path",result="failed"} 1"#));
    broken.store(false, SeqCst);
    assert_eq!(check(&proxy, "v2", "money-path")["passed"], true);
}

#[test]
fn each_expectation_fails_with_its_reason() {
    let v1 = game_origin(&Arc::default());
    let v2 = Origin::start(|call| {
        call.skip_body()?;
        match call.target() {
            "/game/breaks-off" => {
                call.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")?;
                call.close();
                Ok(())
            }
            "/game/resets" => {
                call.reset();
                Ok(())
            }
            "/game/large" => call.answer(200, &vec![b'a'; (1 << 20) + 1]),
            _ => call.answer(200, br#"{"state":"open"}"#),
        }
    });
    let cases = [
        (
            "status",
            "GET /game/a, expect: { status: [ 204, 3xx ] }",
            "expected the status 204 or 3xx, got 200",
        ),
        (
            "field",
            "GET /game/a, expect: { headers: { x-a: b } }",
            "expected the field x-a to be `b`, got there is none",
        ),
        (
            "json",
            "GET /game/a, expect: { json: { $.state: settled } }",
            "expected $.state to be \"settled\", got `open`",
        ),
        (
            "keep",
            "GET /game/a, keep: { t: 'json:$.token' }",
            "expected json:$.token to keep as `t`, got nothing at that path",
        ),
        ("large", "GET /game/large", "the body of the answer is larger than 1 MiB"),
        ("breaks-off", "GET /game/breaks-off", "the answer broke off"),
        (
            "resets",
            "POST /game/resets",
            "no answer of the version: the service ended the connection before it answered",
        ),
        (
            "nowhere",
            "GET /nowhere",
            "no answer of the version: no route leads anywhere from this request",
        ),
        (
            "elsewhere",
            "GET /other",
            "no answer of the version: the route of this request leads to another service",
        ),
        (
            "pinned",
            "GET /pinned",
            "no answer of the version: the route of this request names another version, so no player reaches this version on it",
        ),
        // Tidegate's own 404 is not the version's.
        (
            "not-found",
            "GET /nowhere, expect: { status: 404 }",
            "no answer of the version: no route leads anywhere from this request",
        ),
    ];
    let checks: Vec<String> = cases
        .iter()
        .map(|(name, step, _)| format!("  {name}: {{ steps: [ {{ request: {step} }} ] }}"))
        .collect();
    let text = service(&v1, &v2, &format!("smoke:\n{}", checks.join("\n")))
        .route("name: game, match: { path: /game/* }")
        .route("name: pinned, version: v1, match: { path: /pinned }")
        .text();
    let other = format!(
        "services:\n  other: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ \"{}\" ] }} }} }}",
        v1.address
    );
    let route = "routes:\n  - { service: other, match: { path: /other } }";
    let proxy = Proxy::start(&text.replace("services:", &other).replace("routes:", route));
    for (name, _, reason) in cases {
        let report = check(&proxy, "v2", name);
        let told = report["reason"].as_str().unwrap_or_default();
        assert!(told.starts_with(reason), "{name}: {told}");
        assert_eq!((&report["passed"], &report["failed_step"]), (&json!(false), &json!(1)));
    }
    assert_eq!(v1.requests(), 0);
}

#[test]
fn a_slow_version_fails_within_the_time_that_is_allowed() {
    let v1 = game_origin(&Arc::default());
    let works = Origin::answering("ok");
    let (silent, _held) = swallowing();
    let (closed, _bound) = refusing();
    let smoke = "\
smoke:
  within: { steps: [ { request: GET /, expect: { within: 50ms } } ] }
  whole: { timeout: 60ms, steps: [ { request: GET / } ] }
  any: { steps: [ { request: GET / } ] }";
    let proxy = service(&v1, &v1, smoke)
        .version_at("silent", &[silent])
        .version_at("closed", &[closed, works.address])
        .start();
    let silent = |name: &str| check(&proxy, "silent", name)["reason"].clone();
    assert_eq!(silent("within"), "expected the answer within 50ms, there was none by then");
    assert_eq!(silent("whole"), "no whole answer before the end of the check's timeout of 60ms");
    // Another endpoint of the version works, which must not hide the one that does not.
    let tried: Vec<Value> = (0..200).map(|_| check(&proxy, "closed", "any")).collect();
    let refused = tried.iter().find(|report| report["passed"] == false).expect("chosen at times");
    let reason = "no answer of the version: the service could not be reached";
    assert_eq!(refused["reason"], reason);
    assert!(tried.iter().any(|report| report["passed"] == true), "the other one works");
    eventually("no request is left", || proxy.in_flight() == 0);
}

#[test]
fn unknown_names_are_refused_and_a_version_without_endpoints_fails() {
    let v1 = game_origin(&Arc::default());
    let proxy =
        service(&v1, &v1, MONEY_PATH).version_named("gone", "no-such-host.invalid:1").start();
    let ask = |service: &str, body: Value| {
        let (path, body) = (format!("/v1/services/{service}/smoke"), body.to_string());
        let mut admin = proxy.admin();
        let answer = admin.post(&path, body.as_bytes()).host("localhost").send();
        (answer.status, answer.json()["field"].clone(), answer.json()["detail"].clone())
    };
    let question = json!({ "version": "v2", "check": "money-path" });
    assert_eq!(ask("none", question.clone()).0, 404);
    let (status, field, _) = ask("game-api", json!({ "version": "v9", "check": "money-path" }));
    assert_eq!((status, field), (422, json!("version")));
    let (status, field, detail) = ask("game-api", json!({ "version": "v2", "check": "money" }));
    assert_eq!((status, field), (422, json!("check")));
    assert_eq!(detail, "there is no smoke check `money`; there are: `money-path`");
    assert_eq!(ask("game-api", json!({ "version": "v2" })).0, 422);
    let mut admin = proxy.admin();
    assert_eq!(admin.get("/v1/services/game-api/smoke").host("localhost").send().status, 405);
    let report = check(&proxy, "gone", "money-path");
    assert_eq!(report["reason"], "no answer of the version: the version has no endpoint");
    assert_eq!((&report["passed"], &report["failed_step"]), (&json!(false), &json!(1)));
    assert_eq!(report["steps"][1]["passed"], Value::Null, "not sent");
}

#[test]
fn strangers_cannot_pretend_to_be_a_smoke_check() {
    let (v1, v2) = (Origin::answering("v1"), Origin::answering("v2"));
    // Not even a trusted proxy's client.
    for top in ["log: { level: info }", "trusted_proxies: [ 127.0.0.1 ]"] {
        let proxy = service(&v1, &v2, MONEY_PATH).top(top).start();
        for name in ["Tidegate-Smoke", "tidegate_smoke", "TIDEGATE.SMOKE", "tidegate-Smoke"] {
            let mut client = proxy.connect();
            let answer = client.get("/").header(name, "1").header("X-Forwarded-For", "192.0.2.1");
            let answer = answer.header("Tidegate-Version", "v2").send();
            assert_eq!((answer.status, answer.text()), (200, "v1"));
            let last = v1.last();
            let smoke =
                last.head.fields().find(|(field, _)| field.to_lowercase().ends_with("smoke"));
            assert_eq!(smoke, None, "{name}");
        }
    }
    assert_eq!(v2.requests(), 0);
}

#[test]
fn the_command_prints_a_line_per_step_and_exits_by_the_result() {
    let broken = Arc::new(AtomicBool::new(false));
    let (v1, v2) = (game_origin(&Arc::default()), game_origin(&broken));
    let proxy = service(&v1, &v2, MONEY_PATH).start();
    let run = |arguments: &[&str]| {
        let admin = format!("http://{}", proxy.admin_address());
        let mut command = program();
        command.args(arguments).env("TIDEGATE_ADMIN", admin).env_remove("TIDEGATE_TOKEN_FILE");
        let output = command.output().expect("the program runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, shown) = run(&["smoke", "game-api", "v2", "money-path"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.starts_with("step  request ") && shown.contains("game-api: v2 passes money-path ("),
        "{shown}"
    );
    broken.store(true, SeqCst);
    let (code, shown) = run(&["smoke", "game-api", "v2", "money-path"]);
    assert_eq!(code, Some(1), "{shown}");
    let why = "\ngame-api: v2 fails money-path at step 3: expected $.state to be \"settled\", got `open`\n";
    assert!(shown.ends_with(why), "{shown}");
    let (code, shown) = run(&["smoke", "game-api", "v2", "money-path", "--json"]);
    let report: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((code, &report["failed_step"]), (Some(1), &json!(3)));
    assert_eq!(run(&["smoke", "game-api", "v2", "none"]).0, Some(65));
}
