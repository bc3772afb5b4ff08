//! `required` that comes into force by a reload while several versions have writes.

use super::*;

fn put_weights(stage: &Stage, v1: u32, v2: u32) -> Answer {
    let path = format!("/v1/services/{SERVICE}/weights");
    let body = json!({ "weights": { "v1": v1, "v2": v2 } }).to_string();
    let mut admin = stage.proxy().admin();
    admin.request("PUT", &path).host("127.0.0.1").body(body.as_bytes()).send()
}

/// Writes `text`, which is refused; returns why.
#[track_caller]
fn refused(stage: &Stage, text: &str) -> String {
    let (_, before) = stage.proxy().reloads();
    stage.proxy().write(text);
    eventually("the file is refused", || stage.proxy().reloads().1 > before);
    let error = stage.proxy().controller().reloads().error.clone();
    error.expect("an error").to_string()
}

#[track_caller]
fn applied(stage: &Stage, text: &str) {
    let (before, _) = stage.proxy().reloads();
    stage.proxy().write(text);
    eventually("the file is applied", || stage.proxy().reloads().0 > before);
}

#[test]
fn a_file_that_requires_the_fence_of_a_split_is_refused_and_the_split_can_be_ended() {
    let stage = Stage::new("");
    let free = stage.builder.text();
    let required = free.replace("fence: {  }", "fence: { required: true }");
    assert_ne!(free, required);
    let other = stage.builder.clone().service("weights: { v2: 1 }").text();
    let other = other.replace("fence: {  }", "fence: { required: true }");
    // Weights of the same file do not move them.
    applied(&stage, &other);
    assert_eq!(stage.share_of_v2(), 0.0);
    applied(&stage, &free);
    assert_eq!(put_weights(&stage, 1, 1).status, 200);
    let why = refused(&stage, &required);
    assert!(why.contains("game-api.fence.required: "), "{why}");
    assert!(why.contains("have players") && why.contains("--wait drained"), "{why}");
    assert_eq!(stage.share_of_v2(), 0.5, "the old state stays");
    // Whatever takes players off a version still works.
    assert_eq!(stage.post("eject", &json!({ "version": "v2" })).status, 200);
    assert_eq!(stage.post("reinstate", &json!({ "version": "v2" })).status, 200);
    assert_eq!(stage.post("rollback", &json!({})).status, 200);

    applied(&stage, &format!("{free}# again\n"));

    // Nor may writes in flight overlap those of the only writer.
    let mut stuck = stage.stick();
    let moved = stage.post("cutover", &json!({ "to": "v2", "fence": false }));
    assert_eq!(moved.status, 200, "{}", moved.text());
    let why = refused(&stage, &format!("{required}# once\n"));
    assert!(why.contains("v1 still has 1 write(s) in flight"), "{why}");
    stage.unstick();
    assert_eq!(stuck.answer().text(), "v1");
    eventually("it has ended", || stage.proxy().in_flight() == 0);
    applied(&stage, &required);
    assert_eq!(stage.share_of_v2(), 1.0);
    // Nor do other weights of the file move them from then on.
    applied(&stage, &other.replace("v2: 1 ", "v1: 1 "));
    assert_eq!(stage.share_of_v2(), 1.0);
    assert_eq!(put_weights(&stage, 1, 1).status, 409);
    assert_eq!(stage.cut_over("v1").status, 200);
}

#[test]
fn the_fence_is_not_required_while_a_rollout_is_under_way() {
    let stage = Stage::with("", Duration::ZERO, |builder| builder.service("eject: { errors: {} }"));
    let required = stage.builder.text().replace("fence: {  }", "fence: { required: true }");
    let steps = json!([{ "weight": "100%", "bake": "1h" }]);
    let begun = stage.post("rollout", &json!({ "to": "v2", "steps": steps, "reason": "a test" }));
    assert_eq!(begun.status, 200, "{}", begun.text());
    // Also once one version has all players: the rollout may still take them back.
    eventually("v2 has all players", || stage.share_of_v2() == 1.0);
    let why = refused(&stage, &required);
    assert!(why.contains("a rollout to v2 is under way"), "{why}");
    assert_eq!(stage.post("rollout/abort", &json!({ "reason": "a test" })).status, 200);
    eventually("v1 has all players", || stage.share_of_v2() == 0.0);
    applied(&stage, &format!("{required}# later\n"));
}

#[test]
fn rules_that_send_writes_elsewhere_go_before_the_fence_is_required() {
    let rules = "rules: [ { match: { headers: { x-beta: \"1\" } }, version: v2 } ]";
    let stage = Stage::with("", Duration::ZERO, |builder| builder.service(rules));
    let plain = stage.builder.text().replace(rules, "");
    let required = plain.replace("fence: {  }", "fence: { required: true }");
    let why = refused(&stage, &required);
    assert!(why.contains("rules or routes of the file in force send writes to v2"), "{why}");
    applied(&stage, &plain);
    applied(&stage, &required);
}
