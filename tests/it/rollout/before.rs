//! What must be so before a step begins, over real sockets: smoke checks, an endpoint, a baseline with players.

use std::net::TcpListener;

use super::*;

/// Regression: the players of the second step met a version whose smoke check failed.
#[test]
fn the_players_of_a_later_step_wait_for_its_smoke_check() {
    let smoke = "smoke: { ping: { steps: [ { request: 'GET /ping', expect: { status: 200 } } ] } }";
    let stage = Stage::with(&[], |builder| builder.top(smoke));
    stage.begin(&json!([
        { "weight": "1%", "for": "1s" },
        { "weight": "60%", "for": "1h", "gates": [{ "smoke": "ping" }] },
        { "weight": "100%", "for": "1h" },
    ]));
    stage.until("growing");
    stage.versions.failing.store(true, SeqCst);
    let back = stage.until("rolled_back");
    assert_eq!(transitions(&back).iter().filter(|on| **on == "grow").count(), 1, "{back}");
    assert!(back["cause"].as_str().expect("a text").contains("ping"), "{back}");
    assert_eq!(stage.shares(), [1.0, 0.0]);
}

/// Regression: a rollout gave a version all players on whose port nothing listened.
#[test]
fn a_version_on_whose_port_nothing_listens_gets_nobody() {
    let dead = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let versions = Versions::new();
    let proxy = Proxy::builder()
        .version("v1", &versions.origins[0])
        .version_at("v2", &[dead])
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .top("admin: { address: 127.0.0.1:0 }")
        .start_with_file();
    let players = Players::at(proxy.address);
    let stage = Stage { versions, proxy, _players: players };
    stage.begin(&json!([{ "weight": "30%", "for": "1s" }, { "weight": "100%", "for": "1s" }]));
    eventually("it says what it waits for", || {
        let rollout = stage.rollout();
        rollout["missing"].to_string().contains("an endpoint that can be reached")
    });
    assert_eq!((stage.rollout()["phase"].clone(), stage.shares()), (json!("pending"), [1.0, 0.0]));
    let _there = TcpListener::bind(dead).expect("the port is free");
    eventually("it grows once somebody listens", || stage.rollout()["phase"] != "pending");
}

/// Regression: the rollout after one that was done was judged by nothing, and grew when `within` was over.
#[test]
fn a_baseline_without_players_holds_the_next_rollout_and_says_so() {
    let third = origin(&Arc::default());
    let stage = Stage::with(&["eject: { errors: { absolute: 5% } }"], |builder| {
        builder.version("v3", &third).service("weights: { v1: 0, v2: 0, v3: 1 }")
    });
    let steps = json!([
        { "weight": "20%", "for": "1s", "within": "2s", "gates": ["evidence"] },
        { "weight": "100%", "for": "1h" },
    ]);
    let begun = stage.begin(&steps);
    assert!(begun["warnings"].to_string().contains("the baseline `v1` has no players"), "{begun}");
    let held = stage.until("holding");
    thread::sleep(Duration::from_secs(4));
    let later = stage.rollout();
    assert_eq!((&later["step"], &later["phase"]), (&json!(1), &json!("holding")), "{held} {later}");
    assert!(later["missing"].to_string().contains("has no players"), "{later}");
}

/// Regression: a gate for other tools passed a version whose rollout had been rolled back.
#[test]
fn a_version_that_was_rolled_back_passes_no_gate_of_other_tools() {
    let stage = Stage::start(&["eject: { errors: { absolute: 5% } }"]);
    let gate = || stage.get("/v1/services/game-api/gate?version=v2");
    stage.begin(&json!([{ "weight": "10%", "for": "1h" }, { "weight": "100%", "for": "1h" }]));
    stage.until("growing");
    assert_ne!(gate()["answer"], "fail");
    stage.order("rollback", &json!({ "reason": "it loses bets" }));
    stage.until("rolled_back");
    let said = gate();
    assert_eq!((&said["answer"], &said["ejected"]), (&json!("fail"), &json!(false)), "{said}");
    assert!(said["reason"].to_string().contains("rolled back: it loses bets"), "{said}");
    let hook = |kind: &str| {
        let body = json!({ "name": "game-api", "namespace": "casino", "phase": "Progressing" });
        stage.post(&format!("/v1/hooks/flagger/game-api/{kind}"), &body).status
    };
    assert_eq!(["confirm-promotion", "rollback"].map(hook), [412, 200]);
    // Another attempt is judged anew.
    stage.begin(&json!([{ "weight": "10%", "for": "1h" }, { "weight": "100%", "for": "1h" }]));
    assert_ne!(gate()["answer"], "fail");
}
