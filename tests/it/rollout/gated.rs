//! Gates and windows.

use std::sync::Mutex;

use super::*;

#[test]
fn a_limit_that_is_certainly_exceeded_rolls_back_without_an_ejection() {
    let stage = Stage::start(&["slo: { errors: 1% }", "eject: { errors: {}, mode: advise }"]);
    stage.begin(&json!([{ "weight": "50%", "for": "1h", "gates": ["slo"] }, { "weight": "100%" , "for": "1s" }]));
    stage.until("growing");
    stage.versions.failing.store(true, SeqCst);
    let back = stage.until("rolled_back");
    assert!(
        back["cause"].as_str().expect("a text").contains("beyond the limit of errors"),
        "{back}"
    );
    assert_eq!(stage.shares(), [1.0, 0.0]);
    assert_eq!(stage.get("/v1/services/game-api")["versions"][1]["state"], "idle");
}

#[test]
fn evidence_of_health_lets_a_rollout_go_on() {
    let stage = Stage::start(&["eject: { errors: { absolute: 20% } }"]);
    stage.begin(&json!([{ "weight": "50%", "gates": ["evidence"], "within": "1h" }, { "weight": "100%", "for": "1s" }]));
    let done = stage.until("done");
    assert_eq!(transitions(&done).last(), Some(&"finish"));
}

#[test]
fn another_person_approves() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{name}-{name}-{name}-{name}\n")).expect("a file");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a file");
        format!("{{ name: {name}, file: '{}' }}", path.display())
    };
    let tokens = ["ana-x", "ben-x"].map(file).join(", ");
    let admin = format!("admin: {{ address: 127.0.0.1:0, tokens: [ {tokens} ] }}");
    let windows = "windows: [ { name: always, freeze: true, every: 'daily 00:00-24:00', zone: UTC, second_person: true } ]";
    let stage = Stage::with(&["second_person: true"], |builder| builder.top(&admin).top(windows));
    let send = |who: &str, path: &str, second: Option<&str>, body: Value| {
        let body = body.to_string();
        let mut client = stage.proxy.admin();
        let bearer = |name: &str| format!("Bearer {name}-{name}-{name}-{name}");
        let mut request = client
            .post(path, body.as_bytes())
            .host("localhost")
            .header("Authorization", &bearer(who));
        let second = second.map(bearer);
        if let Some(second) = &second {
            request = request.header("Tidegate-Second-Authorization", second);
        }
        let answer = request.send();
        (answer.status, answer.text().to_owned())
    };
    let rollout = || {
        let mut client = stage.proxy.admin();
        client.get(ROLLOUT).header("Authorization", "Bearer ben-x-ben-x-ben-x-ben-x").send().json()
    };
    let steps =
        json!([{ "weight": "10%", "gates": ["approval"] }, { "weight": "100%", "for": "1h" }]);
    let (status, text) =
        send("ana-x", ROLLOUT, Some("ben-x"), json!({ "to": "v2", "steps": steps }));
    assert_eq!(status, 200, "{text}");
    eventually("the window freezes it", || rollout()["frozen"]["window"] == "always");
    let path = format!("{ROLLOUT}/break-in");
    let (status, text) = send("ana-x", &path, None, json!({ "reason": "a hot fix" }));
    assert_eq!((status, text.contains("asks for a second person")), (409, true), "{text}");
    let (status, text) = send("ana-x", &path, Some("eve-x"), json!({ "reason": "a hot fix" }));
    assert_eq!((status, text.contains("token is unknown")), (403, true), "{text}");
    let (status, text) = send("ana-x", &path, Some("ana-x"), json!({ "reason": "a hot fix" }));
    assert_eq!((status, text.contains("asks for a second person")), (409, true), "{text}");
    let (status, text) = send("ana-x", &path, Some("ben-x"), json!({ "reason": "a hot fix" }));
    assert_eq!(status, 200, "{text}");
    eventually("it waits for approval", || rollout()["phase"] == "holding");
    let path = format!("{ROLLOUT}/approve");
    let (status, text) = send("ana-x", &path, None, json!({}));
    assert_eq!((status, text.contains("another person can approve")), (409, true), "{text}");
    assert_eq!(send("ben-x", &path, None, json!({})).0, 200);
    eventually("it goes on", || rollout()["step"] == 2);
    // Regression: the second person was in no event, nor what somebody had done.
    let mut client = stage.proxy.admin();
    let events = client
        .get("/v1/events?since=0")
        .header("Authorization", "Bearer ben-x-ben-x-ben-x-ben-x")
        .header("Accept", "application/json");
    let events = events.send().json();
    let told = events["events"].as_array().expect("a list").iter().filter_map(|event| {
        let field = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
        let is_meant = field("kind").starts_with("rollout");
        is_meant.then(|| ["kind", "what", "by", "second"].map(field).join(" "))
    });
    let told: Vec<String> = told.collect();
    for expected in [
        "rollout_started - ana-x ben-x",
        "rollout break_in ana-x ben-x",
        "rollout grow rollout ben-x",
        "rollout_wants_approval - - -",
        "rollout approve ben-x -",
    ] {
        assert!(told.iter().any(|one| one == expected), "{expected} is missing in {told:#?}");
    }
}

#[test]
fn a_webhook_is_asked_as_flagger_asks_and_its_no_holds() {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let agrees: Arc<AtomicBool> = Arc::default();
    let (heard, says) = (Arc::clone(&asked), Arc::clone(&agrees));
    let gate = Origin::start(move |call| {
        let body = call.read_body()?;
        heard.lock().expect("no panic").push(serde_json::from_slice(&body).expect("JSON"));
        match says.load(SeqCst) {
            true => call.answer(200, b""),
            false => call.answer(412, b"the desk is closed"),
        }
    });
    let stage = Stage::start(&[]);
    let url = format!("http://{}/check", gate.address);
    let steps = json!([{ "weight": "10%", "gates": [{ "webhook": { "url": url } }] },
                       { "weight": "100%", "for": "1h" }]);
    stage.begin(&steps);
    let held = stage.until("holding");
    eventually("it says why", || {
        stage.rollout()["gates"][0]["why"] == "status 412: the desk is closed"
    });
    assert_eq!(held["step"], 1);
    let first = asked.lock().expect("no panic")[0].clone();
    assert_eq!((&first["name"], &first["phase"]), (&json!("game-api"), &json!("Progressing")));
    assert_eq!(first["metadata"]["version"], "v2");
    agrees.store(true, SeqCst);
    eventually("it goes on", || stage.rollout()["step"] == 2);
}

#[test]
fn a_smoke_check_that_fails_sends_no_player_to_the_version() {
    let smoke = "smoke: { ping: { steps: [ { request: 'GET /ping', expect: { status: 200 } } ] } }";
    let stage = Stage::with(&[], |builder| builder.top(smoke));
    let steps = json!([{ "weight": "10%", "for": "1s", "gates": [{ "smoke": "ping" }] },
                       { "weight": "100%", "for": "1h" }]);
    stage.versions.failing.store(true, SeqCst);
    stage.begin(&steps);
    let back = stage.until("rolled_back");
    assert!(back["cause"].as_str().expect("a text").contains("ping"), "{back}");
    let asked = stage.versions.origins[1].seen();
    let all = asked.iter().all(|seen| seen.target() == "/ping");
    assert!(!asked.is_empty() && all, "a player was sent to it");
    assert_eq!(transitions(&back), ["guardrail", "restored"]);
    // With an answer as expected it goes on: it is asked before the step and straight after it.
    stage.versions.failing.store(false, SeqCst);
    let before = stage.versions.origins[1].requests();
    stage.begin(&steps);
    eventually("the next step begins", || stage.rollout()["step"] == 2);
    let since = stage.versions.origins[1].seen().into_iter().skip(before);
    let smoked = since.filter(|seen| seen.target() == "/ping").count();
    assert!(smoked >= 2, "{smoked}");
    let unknown = json!({ "to": "v2", "steps": [{ "weight": "100%", "for": "1s", "gates": [{ "smoke": "pong" }] }] });
    stage.order("abort", &json!({}));
    let answer = stage.post(ROLLOUT, &unknown);
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("did you mean `ping`?"), "{}", answer.text());
}

#[test]
fn a_call_to_a_webhook_ends_with_its_rollout() {
    let (begun, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (called, left) = (Arc::clone(&begun), Arc::clone(&ended));
    let gate = Origin::start(move |call| {
        call.read_body()?;
        called.store(true, SeqCst);
        call.await_end()?;
        left.store(true, SeqCst);
        Ok(())
    });
    let stage = Stage::start(&[]);
    let url = format!("http://{}/check", gate.address);
    stage.begin(
        &json!([{ "weight": "10%", "gates": [{ "webhook": { "url": url, "timeout": "5m" } }] },
                        { "weight": "100%", "for": "1h" }]),
    );
    eventually("the webhook is called", || begun.load(SeqCst));
    stage.order("abort", &json!({ "reason": "not today" }));
    eventually("the call ends", || ended.load(SeqCst));
}
