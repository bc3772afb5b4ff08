//! Commands of people, and what they do beside a rollout.

use super::*;
use crate::support::process::program;

/// Long steps, in which nothing happens by itself.
fn slow() -> Value {
    json!([{ "weight": "10%", "for": "1h" }, { "weight": "50%", "for": "1h" },
           { "weight": "100%", "for": "1h" }])
}

#[test]
fn weights_set_by_hand_pause_a_rollout_and_resuming_sets_its_own_again() {
    let stage = Stage::start(&[]);
    stage.begin(&slow());
    stage.until("growing");
    let mut admin = stage.proxy.admin();
    let body = r#"{"weights":{"v1":70,"v2":30},"reason":"more load"}"#;
    let path = "/v1/services/game-api/weights";
    let answer = admin.request("PUT", path).host("localhost").body(body.as_bytes()).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    // In the same change: nobody sees weights by hand beside a rollout that goes on.
    let paused = stage.rollout();
    assert_eq!((&paused["phase"], &paused["by_hand"]), (&json!("paused"), &json!(true)));
    assert_eq!(paused["weights"], json!({ "v1": 70.0, "v2": 30.0 }));
    assert!(stage.kinds().contains(&"rollout_warning".to_owned()));
    stage.order("resume", &json!({ "reason": "enough" }));
    stage.until("growing");
    assert_eq!(stage.shares(), [0.9, 0.1]);
    stage.order("promote", &json!({ "reason": "seen enough" }));
    eventually("the next step begins", || stage.rollout()["step"] == 2);
    assert_eq!(stage.shares(), [0.5, 0.5]);
    stage.order("pause", &json!({}));
    assert_eq!(stage.rollout()["phase"], "paused");
    stage.order("abort", &json!({ "reason": "not today" }));
    let aborted = stage.until("aborted");
    assert_eq!(stage.shares(), [1.0, 0.0]);
    assert_eq!(aborted["cause"], "not today");
}

/// Sets weights by hand, and asserts that these pause the rollout.
#[track_caller]
fn set_by_hand(stage: &Stage, v2: u32) {
    let body = json!({ "weights": { "v1": 100 - v2, "v2": v2 } }).to_string();
    let path = "/v1/services/game-api/weights";
    let mut admin = stage.proxy.admin();
    let answer = admin.request("PUT", path).host("localhost").body(body.as_bytes()).send();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(stage.rollout()["phase"], "paused");
}

/// Regression: a rollback after it gave the version that had failed the share of the last step again.
#[test]
fn a_rollback_after_a_failed_rollout_leads_to_none_of_its_steps_and_weights() {
    let stage = Stage::start(&[]);
    let path = "/v1/services/game-api/rollback";
    let steps = json!([{ "weight": "50%", "for": "1h" }, { "weight": "100%", "for": "1h" }]);
    for way in ["abort", "rollback", "eject"] {
        stage.begin(&steps);
        stage.until("growing");
        set_by_hand(&stage, 30);
        set_by_hand(&stage, 20);
        let planned = stage.post(&format!("{path}?dry_run=true"), &json!({}));
        assert_eq!(planned.json()["shares"]["after"], json!({ "v1": 1.0, "v2": 0.0 }), "{way}");
        stage.order("resume", &json!({}));
        stage.until("growing");
        eventually("its own weights are set again", || stage.shares() == [0.5, 0.5]);
        if way == "eject" {
            for order in ["eject", "reinstate"] {
                let body = json!({ "version": "v2", "reason": "a test" });
                let answer = stage.post(&format!("/v1/services/game-api/{order}"), &body);
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        } else {
            stage.order(way, &json!({}));
        }
        eventually("it ended", || {
            let phase = stage.rollout()["phase"].clone();
            phase == "aborted" || phase == "rolled_back"
        });
        assert_eq!(stage.shares(), [1.0, 0.0], "{way}");
        let nothing = stage.post(path, &json!({}));
        assert_eq!(nothing.status, 409, "{way}: {}", nothing.text());
        assert!(nothing.text().contains("nothing further to go back to"), "{}", nothing.text());
    }
    // Weights that were set by hand stay where a rollout is given up, and there is a way back from them.
    stage.begin(&steps);
    stage.until("growing");
    set_by_hand(&stage, 30);
    stage.order("abort", &json!({}));
    assert_eq!(stage.shares(), [0.7, 0.3]);
    let back = stage.post(path, &json!({}));
    assert_eq!((back.status, stage.shares()), (200, [1.0, 0.0]), "{}", back.text());
    assert_eq!(stage.post(path, &json!({})).status, 409);
}

#[test]
fn a_rollback_after_a_rollout_that_is_done_leads_to_the_split_before_it() {
    let stage = Stage::start(&[]);
    stage.begin(&json!([{ "weight": "50%", "for": "1h" }, { "weight": "100%", "for": "1s" }]));
    stage.until("growing");
    set_by_hand(&stage, 30);
    stage.order("resume", &json!({}));
    eventually("its own weights are set again", || stage.shares() == [0.5, 0.5]);
    stage.order("promote", &json!({ "reason": "seen enough" }));
    stage.until("done");
    assert_eq!(stage.shares(), [0.0, 1.0]);
    let back = stage.post("/v1/services/game-api/rollback", &json!({}));
    assert_eq!((back.status, stage.shares()), (200, [1.0, 0.0]), "{}", back.text());
    assert_eq!(stage.rollout()["phase"], "rolled_back");
}

#[test]
fn a_command_that_is_not_possible_says_what_is() {
    let stage = Stage::start(&[]);
    let refused = |path: &str, body: Value| {
        let answer = stage.post(path, &body);
        (answer.status, answer.json()["detail"].as_str().expect("a text").to_owned())
    };
    let (status, detail) = refused(&format!("{ROLLOUT}/pause"), json!({}));
    assert_eq!(status, 404, "{detail}");
    assert!(
        detail.contains("start one with `tidegate rollout start game-api VERSION`"),
        "{detail}"
    );
    // Regression: it was told that there had been none since the journal began, whatever the service had before.
    let mut admin = stage.proxy.admin();
    let none = admin.get(ROLLOUT).host("localhost").send();
    let told = none.json()["detail"].as_str().expect("a text").to_owned();
    assert!(
        none.status == 404 && told.contains("`tidegate audit show --service game-api`"),
        "{told}"
    );
    let (status, detail) = refused(ROLLOUT, json!({ "to": "v2" }));
    assert_eq!((status, detail.contains("no plan is named")), (422, true), "{detail}");
    let (status, detail) = refused(ROLLOUT, json!({ "to": "v2", "plan": "careful" }));
    assert_eq!((status, detail.contains("the file has no `plans`")), (422, true), "{detail}");
    let (status, detail) =
        refused(ROLLOUT, json!({ "to": "v9", "steps": [{ "weight": "100%", "for": "1s" }] }));
    assert_eq!((status, detail.contains("has no version `v9`")), (422, true), "{detail}");
    let (status, detail) =
        refused(ROLLOUT, json!({ "to": "v2", "steps": [{ "weight": "10%", "for": "1s" }] }));
    assert_eq!((status, detail.contains("the last step leaves players")), (422, true), "{detail}");
    let gates = json!([{ "weight": "100%", "gates": ["evidence"], "within": "1h" }]);
    let (status, detail) = refused(ROLLOUT, json!({ "to": "v2", "steps": gates }));
    assert_eq!((status, detail.contains("write eject: { errors: {} }")), (422, true), "{detail}");
    stage.begin(&slow());
    stage.until("growing");
    let (status, detail) = refused(&format!("{ROLLOUT}/resume"), json!({}));
    assert_eq!(status, 409);
    assert!(
        detail.starts_with("`resume` is not possible while the rollout is growing; possible: "),
        "{detail}"
    );
    let (status, detail) = refused(&format!("{ROLLOUT}/promote"), json!({}));
    assert_eq!((status, detail.starts_with("no reason; ")), (409, true), "{detail}");
    let (status, detail) = refused(&format!("{ROLLOUT}/pause"), json!({ "at_once": true }));
    assert_eq!((status, detail.contains("`at_once` means nothing")), (422, true), "{detail}");
    let dry = stage.post(&format!("{ROLLOUT}/pause?dry_run=true"), &json!({}));
    assert_eq!((dry.status, &dry.json()["rollout"]["phase"]), (200, &json!("paused")));
    assert_eq!(stage.rollout()["phase"], "growing");
}

#[test]
fn a_reload_without_the_version_ends_its_rollout() {
    let stage = Stage::start(&[]);
    stage.begin(&slow());
    stage.until("growing");
    let only = Proxy::builder()
        .version("v1", &stage.versions.origins[0])
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .top("admin: { address: 127.0.0.1:0 }");
    stage.proxy.write(&only.text());
    let aborted = stage.until("aborted");
    assert!(aborted["cause"].as_str().expect("a text").contains("no longer has v2"), "{aborted}");
}

#[test]
fn the_command_line_starts_waits_and_tells_the_end_by_its_exit_code() {
    let stage = Stage::start(&["eject: { errors: { absolute: 1% } }"]);
    let admin = format!("http://{}", stage.proxy.app().admin.expect("an admin endpoint"));
    let folder = tempfile::TempDir::new().expect("a folder");
    let run = |arguments: &[&str]| {
        let mut command = program();
        command.args(arguments).env("TIDEGATE_ADMIN", &admin).env_remove("TIDEGATE_TOKEN_FILE");
        let output = command.output().expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let quick = folder.path().join("quick.yaml");
    std::fs::write(&quick, "- { weight: 20%, for: 1s }\n- { weight: 100%, bake: 1s }\n")
        .expect("a file");
    let quick = quick.display().to_string();
    let start = ["rollout", "start", "game-api", "v2", "--steps", &quick, "--reason", "release 42"];
    let (code, shown, error) = run(&[&start[..], &["--wait"]].concat());
    assert_eq!(code, Some(0), "{shown}{error}");
    for part in
        ["v2 is growing, step 1 of 2, with 20% of the players: ", "v2 is baking", "v2 is done"]
    {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
    let (code, shown, error) = run(&["rollout", "rollback", "game-api", "--reason", "one more"]);
    assert_eq!(code, Some(0), "{shown}{error}");
    // Regression: for programs nothing was said before the end.
    let (code, shown, error) = run(&[&start[..], &["--wait", "--json"]].concat());
    assert_eq!(code, Some(0), "{shown}{error}");
    let lines: Vec<Value> =
        shown.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert!(lines.len() > 1 && lines[0]["phase"] != "done", "{shown}");
    assert_eq!(lines[lines.len() - 1]["phase"], "done");
    let (code, shown, error) = run(&["rollout", "rollback", "game-api", "--reason", "one more"]);
    assert_eq!(code, Some(0), "{shown}{error}");
    let bad = folder.path().join("bad.yaml");
    let steps = "- { weight: 20%, fore: 1s }\n- { weight: 10%, for: soon, gates: [ slow ] }\n";
    std::fs::write(&bad, steps).expect("a file");
    let (code, _, error) =
        run(&["rollout", "start", "game-api", "v2", "--steps", &bad.display().to_string()]);
    assert_eq!(code, Some(64), "{error}");
    for problem in [
        "bad.yaml:1:18: [0].fore: unknown field `fore`",
        "bad.yaml:2:13: [1].weight: not more than the 20% of the step before",
        "bad.yaml:2:23: [1].for: `soon` is not a duration",
        "bad.yaml:2:38: [1].gates[0]: `slow` is not known",
    ] {
        assert!(error.contains(problem), "{problem} is missing in:\n{error}");
    }
    let slow = folder.path().join("slow.json");
    std::fs::write(&slow, slow_text()).expect("a file");
    let slow = slow.display().to_string();
    let start = ["rollout", "start", "game-api", "v2", "--steps", &slow];
    let (code, shown, error) = run(&[&start[..], &["--wait", "--timeout", "1s"]].concat());
    assert_eq!(code, Some(4), "{shown}{error}");
    stage.until("growing");
    let (code, shown, _) = run(&["rollout", "show", "game-api"]);
    assert_eq!(code, Some(0));
    assert!(
        shown.contains("▶     1    10%") && shown.contains("`tidegate rollout wait game-api`"),
        "{shown}"
    );
    stage.versions.failing.store(true, SeqCst);
    let (code, shown, error) = run(&["rollout", "wait", "game-api"]);
    assert_eq!(code, Some(3), "{shown}{error}");
    assert!(shown.contains("v2 is rolled back"), "{shown}");
}

fn slow_text() -> String {
    slow().to_string()
}
