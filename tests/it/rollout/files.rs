//! A file that lacks a version of the split in force gives its players to nobody but the baseline.

use super::*;

/// Versions with these names, the first one the baseline, on the origins of the stage.
fn file(versions: &Versions, names: &[&str]) -> String {
    let each = names.iter().map(|name| {
        let origin = &versions.origins[usize::from(*name == "v2")];
        format!("      {name}: {{ endpoints: [ \"{}\" ] }}\n", origin.address)
    });
    let each: String = each.collect();
    let text = versions.builder(&[]).text();
    let (head, rest) = text.split_once("    versions:\n").expect("versions");
    let (_, tail) = rest.split_once("routes:").expect("routes");
    let head = head.replace("baseline: v1", &format!("baseline: {}", names[0]));
    format!("{head}    versions:\n{each}routes:{tail}")
}

fn put(stage: &Stage, weights: &Value) -> Answer {
    let body = weights.to_string();
    let mut admin = stage.proxy.admin();
    admin
        .request("PUT", "/v1/services/game-api/weights")
        .body(body.as_bytes())
        .host("localhost")
        .send()
}

fn shares(stage: &Stage) -> Value {
    let versions = stage.get("/v1/services/game-api")["versions"].clone();
    let each = versions.as_array().expect("versions").iter();
    each.map(|v| (v["name"].as_str().expect("a name").to_owned(), v["share"].clone())).collect()
}

/// Regression: the canary of a rollout, which had 1 %, got all players of a baseline that had another name in the file.
#[test]
fn a_file_with_another_baseline_gives_the_canary_of_a_rollout_nobody() {
    let stage = Stage::start(&[]);
    let steps = json!([{ "weight": "1%", "for": "1h" }, { "weight": "100%", "for": "1h" }]);
    stage.begin(&steps);
    stage.until("growing");
    assert_eq!(shares(&stage), json!({ "v1": 0.99, "v2": 0.01 }));
    stage.proxy.write(&file(&stage.versions, &["v1b", "v2"]));
    let aborted = stage.until("aborted");
    assert_eq!(aborted["cause"], "the file no longer has a version of the split before");
    assert_eq!(shares(&stage), json!({ "v1b": 0.99, "v2": 0.01 }));
    let mut admin = stage.proxy.admin();
    let events = admin.get("/v1/events?since=0").host("localhost");
    let events = events.header("Accept", "application/json").send().json();
    let told = "game-api: the file no longer has v1, whose players go to v1b: v1 99% -> 0%, v2 1% -> 1%, v1b 0% -> 99%";
    assert!(events.to_string().contains(told), "{events}");
    let warned = &stage.get("/v1/status")["reload"]["warnings"];
    assert_eq!(warned, &json!([told]));
    // Likewise back, and for weights that were set by hand.
    stage.proxy.write(&file(&stage.versions, &["v1", "v2"]));
    eventually("v1 again", || shares(&stage) == json!({ "v1": 0.99, "v2": 0.01 }));
    assert_eq!(put(&stage, &json!({ "weights": { "v2": "2%" } })).status, 200);
    stage.proxy.write(&file(&stage.versions, &["v1b", "v2"]));
    eventually("v1b again", || stage.proxy.reloads() == (3, 0));
    assert_eq!(shares(&stage)["v2"].as_f64().map(|share| share < 0.021), Some(true));
}

/// Regression: the rollout was said to be paused by weights that the file did not have, and its version had half of the
/// players.
#[test]
fn a_file_without_a_part_of_the_split_pauses_the_rollout_and_gives_its_version_nobody() {
    let stage = Stage::start(&[]);
    stage.proxy.write(&file(&stage.versions, &["v1", "v2", "v0"]));
    eventually("taken over", || stage.proxy.reloads() == (1, 0));
    let split = json!({ "weights": { "v1": 99, "v0": 1 }, "only": true });
    let set = put(&stage, &split);
    assert_eq!(set.status, 200, "{}", set.text());
    stage.begin(&json!([{ "weight": "1%", "for": "1h" }, { "weight": "100%", "for": "1h" }]));
    stage.until("growing");
    stage.proxy.write(&file(&stage.versions, &["v0", "v2"]));
    let paused = stage.until("paused");
    let cause = "the file no longer has v1 of the split before; what it had goes to v0";
    assert_eq!(paused["cause"], cause);
    assert_eq!(shares(&stage), json!({ "v0": 0.99, "v2": 0.01 }));
    let back = stage.post(&format!("{ROLLOUT}/rollback"), &json!({}));
    assert_eq!(back.status, 200, "{}", back.text());
    stage.until("rolled_back");
    assert_eq!(shares(&stage), json!({ "v0": 1.0, "v2": 0.0 }));
}

#[test]
fn a_file_whose_baseline_is_ejected_is_refused_if_a_canary_would_grow() {
    let stage = Stage::start(&[]);
    stage.proxy.write(&file(&stage.versions, &["v1", "v2", "v1b"]));
    eventually("taken over", || stage.proxy.reloads() == (1, 0));
    let eject = stage.post("/v1/services/game-api/eject", &json!({ "version": "v1b" }));
    assert_eq!(eject.status, 200, "{}", eject.text());
    let set = put(&stage, &json!({ "weights": { "v2": "1%" } }));
    assert_eq!(set.status, 200, "{}", set.text());
    stage.proxy.write(&file(&stage.versions, &["v1b", "v2"]));
    eventually("refused", || stage.proxy.reloads() == (1, 1));
    let error = stage.get("/v1/status")["reload"]["error"].to_string();
    assert!(error.contains("`v2` would have 100% instead of 1%"), "{error}");
    assert_eq!(shares(&stage), json!({ "v1": 0.99, "v2": 0.01, "v1b": 0.0 }));
    let back = stage.post("/v1/services/game-api/reinstate", &json!({ "version": "v1b" }));
    assert_eq!(back.status, 200, "{}", back.text());
    stage.proxy.write(&format!("{}\n", file(&stage.versions, &["v1b", "v2"])));
    eventually("taken over", || stage.proxy.reloads() == (2, 1));
    assert_eq!(shares(&stage), json!({ "v1b": 0.99, "v2": 0.01 }));
}
