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

/// Regression: a closed window was shown only once everything else had passed, a start in one said nothing of it, and its
/// smoke checks were sent at once.
#[test]
fn a_rollout_that_is_started_in_a_closed_window_says_so_everywhere_and_sends_nothing() {
    let smoke = "smoke: { ping: { steps: [ { request: 'GET /ping', expect: { status: 200 } } ] } }";
    let windows =
        "windows: [ { name: peak, freeze: true, every: 'daily 00:00-24:00', zone: UTC } ]";
    let stage = Stage::with(&[], |builder| builder.top(smoke).top(windows));
    let steps = json!([{ "weight": "10%", "for": "1s", "gates": [{ "smoke": "ping" }] },
                       { "weight": "100%", "for": "1h" }]);
    let body = json!({ "to": "v2", "steps": steps });
    for path in [format!("{ROLLOUT}?dry_run=true"), ROLLOUT.to_owned()] {
        let answer = stage.post(&path, &body).json();
        let warnings = answer["warnings"].to_string();
        assert!(warnings.contains("is frozen by the window peak"), "{answer}");
        assert!(warnings.contains("`tidegate rollout break-in game-api`"), "{answer}");
        assert!(answer["rollout"]["missing"].to_string().contains("the window peak"), "{answer}");
    }
    let status = stage.get("/v1/services/game-api")["rollout"].clone();
    assert!(status["missing"].to_string().contains("the window peak"), "{status}");
    std::thread::sleep(Duration::from_secs(2));
    let smoked = || stage.versions.origins[1].seen().iter().any(|seen| seen.target() == "/ping");
    assert!(!smoked() && stage.rollout()["phase"] == "pending", "{}", stage.rollout());
    stage.order("break-in", &json!({ "reason": "a hot fix" }));
    stage.until("growing");
    assert!(smoked());
    let broken = stage.event("rollout", "break_in");
    assert_eq!(broken["reason"], "broke into the window peak: a hot fix");
    let rollout = stage.rollout();
    assert!(!rollout["missing"].to_string().contains("window"), "there is leave: {rollout}");
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
