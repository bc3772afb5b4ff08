//! Pipelines, Argo Rollouts and Flagger ask whether a canary may grow, in the requests that they send.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use serde_json::{Value, json};

use crate::support::{Client, Origin, Proxy, eventually};

/// An origin that answers 500 once `failing` is set.
fn origin(failing: &Arc<AtomicBool>) -> Origin {
    let failing = Arc::clone(failing);
    Origin::start(move |call| {
        call.skip_body()?;
        call.answer(if failing.load(SeqCst) { 500 } else { 200 }, b"")
    })
}

struct Split {
    failing: Arc<AtomicBool>,
    proxy: Proxy,
    client: Client,
    player: u32,
    _origins: [Origin; 2],
}

impl Split {
    /// A service whose canary v2 has half of the players.
    fn start(fields: &[&str]) -> Self {
        Self::with_admin(fields, "admin: { address: 127.0.0.1:0 }")
    }

    fn with_admin(fields: &[&str], admin: &str) -> Self {
        let (healthy, failing) = (Arc::default(), Arc::default());
        let origins = [origin(&healthy), origin(&failing)];
        let mut builder = Proxy::builder()
            .version("v1", &origins[0])
            .version("v2", &origins[1])
            .service("weights: { v1: 50, v2: 50 }")
            .service("cohort: { key: [ 'header:x-player-id' ] }")
            .top(admin);
        for field in fields {
            builder = builder.service(field);
        }
        let proxy = builder.start_with_file();
        let client = proxy.connect();
        Self { failing, proxy, client, player: 0, _origins: origins }
    }

    fn play(&mut self, requests: u32) {
        for _ in 0..requests {
            self.player += 1;
            self.client.get("/").header("x-player-id", &self.player.to_string()).send();
        }
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.proxy.admin().get(path).host("localhost").send();
        (answer.status, answer.json())
    }

    /// Sends what Flagger's controller sends.
    fn flagger(&self, kind: &str, metadata: Value) -> (u16, String) {
        let body = json!({
            "name": "game-api",
            "namespace": "casino",
            "phase": "Progressing",
            "checksum": "85d557f47b",
            "failedChecks": 0,
            "canaryWeight": 50,
            "metadata": metadata,
        });
        let body = body.to_string();
        let path = format!("/v1/hooks/flagger/game-api/{kind}");
        let mut admin = self.proxy.admin();
        let request = admin.post(&path, body.as_bytes()).host("localhost");
        let request = request.header("Content-Type", "application/json");
        let answer = request.header("User-Agent", "Go-http-client/1.1").send();
        (answer.status, answer.text().to_owned())
    }
}

#[test]
fn a_gate_is_undecided_then_healthy_then_fails_and_argo_reads_each_as_200() {
    let mut split = Split::start(&["eject: { errors: { absolute: 1% } }"]);
    const GATE: &str = "/v1/services/game-api/gate?version=v2";
    let (status, first) = split.get(GATE);
    assert_eq!(
        (status, &first["answer"], &first["ejected"]),
        (200, &json!("undecided"), &json!(false))
    );
    assert_eq!(split.get(&format!("{GATE}&strict=true")).0, 425);
    let mut healthy = Value::Null;
    for _ in 0..200 {
        split.play(200);
        healthy = split.get(GATE).1;
        if healthy["answer"] == "healthy" {
            break;
        }
    }
    assert_eq!(healthy["answer"], "healthy", "{healthy}");
    assert!(
        healthy["certificate"]["log_evidence"].as_f64()
            >= healthy["certificate"]["log_threshold"].as_f64()
    );
    assert!(healthy["requests"]["canary"].as_u64() > Some(100), "{healthy}");
    assert_eq!(split.get(&format!("{GATE}&strict=true")).0, 200);

    split.failing.store(true, SeqCst);
    split.play(200);
    eventually("the canary is ejected", || split.get(GATE).1["ejected"] == true);
    let (status, failed) = split.get(GATE);
    assert_eq!((status, &failed["answer"]), (200, &json!("fail")));
    assert!(failed["reason"].as_str().is_some_and(|why| why.contains("by verdict")), "{failed}");
    assert_eq!(split.get(&format!("{GATE}&strict=true")).0, 409);
}

#[test]
fn a_gate_says_why_a_version_is_not_compared_and_which_versions_there_are() {
    let split = Split::start(&[]);
    let (_, plain) = split.get("/v1/services/game-api/gate?version=v2");
    assert!(plain["reason"].as_str().is_some_and(|why| why.contains("has no `eject`")), "{plain}");
    assert_eq!((&plain["since"], &plain["log_threshold"]), (&Value::Null, &Value::Null));
    let (status, problem) = split.get("/v1/services/game-api/gate?version=v3");
    assert_eq!((status, &problem["field"]), (404, &json!("version")));
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("v1, v2")), "{problem}");
    assert_eq!(split.get("/v1/services/other/gate?version=v2").0, 404);
    assert_eq!(split.get("/v1/services/game-api/gate").0, 400);
}

#[test]
fn flagger_goes_on_while_nothing_speaks_against_the_canary_and_rolls_back_a_worse_one() {
    let mut split = Split::start(&["eject: { errors: {} }"]);
    let gates = [
        "confirm-rollout",
        "pre-rollout",
        "rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
    ];
    for gate in gates {
        assert_eq!(split.flagger(gate, json!({})).0, 200, "{gate}");
        assert_eq!(split.flagger(gate, json!({ "undecided": "halt" })).0, 412, "{gate}");
    }
    assert_eq!(split.flagger("rollback", json!({})).0, 412);
    assert_eq!(split.flagger("event", json!({ "eventMessage": "New revision detected" })).0, 202);
    assert_eq!(split.flagger("post-rollout", json!({})).0, 202);
    split.failing.store(true, SeqCst);
    split.play(300);
    eventually("the canary is worse", || split.flagger("rollback", json!({})).0 == 200);
    for gate in gates {
        let (status, text) = split.flagger(gate, json!({ "version": "v2" }));
        assert_eq!(status, 412, "{gate}");
        assert!(text.starts_with("v2: ejected"), "{text}");
    }
}

#[test]
fn a_call_of_flagger_that_cannot_be_answered_says_what_would_be_right() {
    let split = Split::start(&["eject: { errors: {} }"]);
    let (status, text) = split.flagger("pre-flight", json!({}));
    assert!(status == 404 && text.contains("confirm-promotion"), "{status} {text}");
    let (status, text) = split.flagger("rollout", json!({ "version": "v3" }));
    assert!(status == 422 && text.contains("metadata.version"), "{status} {text}");
    let (status, text) = split.flagger("rollout", json!({ "undecided": "perhaps" }));
    assert!(status == 422 && text.contains("metadata.undecided"), "{status} {text}");
}

/// Regression: the body of any caller was read before it was looked at who calls.
#[test]
fn a_hook_reads_no_body_of_a_caller_whose_head_shows_a_wrong_token() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef").expect("a file");
    let token = format!("{{ name: flagger, role: read, file: {} }}", file.display());
    let admin = format!("admin: {{ address: 127.0.0.1:0, tokens: [ {token} ] }}");
    let split = Split::with_admin(&["eject: { errors: {} }"], &admin);
    let path = "/v1/hooks/flagger/game-api/rollout";
    let mut client = split.proxy.admin();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\nContent-Length: 100\r\n\r\n"
    ));
    assert_eq!(client.answer().status, 401, "nothing of the body was sent");
    let mut client = split.proxy.admin();
    let known = client.post(path, b"{}").host("localhost");
    assert_eq!(known.header("Authorization", "Bearer 0123456789abcdef").send().status, 200);
}

#[test]
fn flagger_shows_its_token_in_the_metadata() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let (file, secret) = (folder.path().join("token"), "0123456789abcdef");
    std::fs::write(&file, secret).expect("a file");
    let token = format!("{{ name: flagger, role: read, file: {} }}", file.display());
    let admin = format!("admin: {{ address: 127.0.0.1:0, tokens: [ {token} ] }}");
    let split = Split::with_admin(&["eject: { errors: {} }"], &admin);
    for (metadata, what) in [
        (json!({}), "this webhook has no token"),
        (json!({ "token": "wrong" }), "`metadata.token` of this webhook is no token"),
    ] {
        let (status, text) = split.flagger("rollout", metadata);
        assert_eq!(status, 401);
        assert!(text.contains(what) && text.contains("metadata: { token: TOKEN }"), "{text}");
    }
    assert_eq!(split.flagger("rollout", json!({ "token": secret })).0, 200);
    // Regression: sixteen strangers whose bodies did not come took all places, and Flagger got 503.
    let strangers: Vec<Client> = (0..300)
        .map(|_| {
            let mut stranger = split.proxy.admin();
            stranger.send(
                "POST /v1/hooks/flagger/game-api/rollout HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
            );
            stranger
        })
        .collect();
    assert_eq!(split.flagger("rollout", json!({ "token": secret })).0, 200);
    let health = split.proxy.admin().get("/healthz").host("localhost").send();
    assert_eq!(health.status, 200, "nor is a probe locked out");
    drop(strangers);
}
