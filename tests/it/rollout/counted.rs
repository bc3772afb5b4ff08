//! Whose requests count for a step.

use super::*;

/// Regression: four hundred requests of smoke checks took a version without players to all of them, and one tester
/// failed a rollout with fifteen requests. A failing request of a smoke check counted as one that was served.
#[test]
fn requests_of_smoke_checks_and_testers_are_none_of_players() {
    let versions = Versions::new();
    let smoke = "smoke: { ping: { steps: [ { request: 'GET /ping', expect: { status: 200 } } ] } }";
    let proxy = versions
        .builder(&[
            "slo: { errors: 1% }",
            "eject: { errors: {}, mode: advise }",
            "rules: [ { match: { headers: { x-tester: '1' } }, version: v2 } ]",
        ])
        .top(smoke)
        .start_with_file();
    let post = |path: &str, body: &Value| {
        let body = body.to_string();
        let answer = proxy.admin().post(path, body.as_bytes()).host("localhost").send();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let get = |path: &str| proxy.admin().get(path).host("localhost").send().json();
    let steps = json!([
        { "weight": "0.001%", "requests": 20, "gates": [{ "slo": { "kind": "guardrail" } }] },
        { "weight": "100%", "for": "1h" },
    ]);
    post(ROLLOUT, &json!({ "to": "v2", "steps": steps, "reason": "a test" }));
    eventually("the step begins", || get(ROLLOUT)["phase"] == "growing");
    let mut tester = Client::connect(proxy.address);
    for (failing, passed) in [(false, json!(true)), (true, json!(false))] {
        versions.failing.store(failing, SeqCst);
        for _ in 0..100 {
            let question = json!({ "version": "v2", "check": "ping" });
            assert_eq!(post("/v1/services/game-api/smoke", &question)["passed"], passed);
            let status = tester.get("/").header("x-tester", "1").send().status;
            assert_eq!(status, if failing { 500 } else { 200 });
        }
        // The gate is answered from two seconds of the step on.
        thread::sleep(Duration::from_secs(3));
        let rollout = get(ROLLOUT);
        assert!(["growing", "holding"].contains(&rollout["phase"].as_str().unwrap_or_default()));
        assert_eq!((&rollout["step"], &rollout["requests"]), (&json!(1), &json!(0)), "{rollout}");
    }
    let version = get("/v1/services/game-api")["versions"][1].clone();
    let told = (&version["requests"], &version["errors"], &version["in_flight"]);
    assert_eq!(told, (&json!(200), &json!(100), &json!(0)), "those of the tester: {version}");
}
