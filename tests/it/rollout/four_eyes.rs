//! Growth around the plan of a service with `second_person` needs a second person.

use std::os::unix::fs::PermissionsExt;

use tidegate::rollout::Phase;

use super::*;

const PLANS: &str = "plans: { careful: [ { weight: 10%, gates: [ approval ] }, { weight: 100%, for: 1h } ], \
    fast: [ { weight: 100%, for: 1h } ], open: [ { weight: 20%, for: 1h }, { weight: 100%, for: 1h } ] }";

fn secret(name: &str) -> String {
    format!("{name}-{name}-{name}-{name}")
}

/// The admin API with tokens of ana and ben, whose files are in `folder`.
fn admin(folder: &tempfile::TempDir) -> String {
    let file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, secret(name)).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a file");
        format!("{{ name: {name}, file: '{}' }}", path.display())
    };
    let tokens = ["ana-x", "ben-x"].map(file).join(", ");
    format!("admin: {{ address: 127.0.0.1:0, tokens: [ {tokens} ] }}")
}

fn stage(fields: &[&str]) -> Stage {
    let folder = tempfile::TempDir::new().expect("a folder");
    let admin = admin(&folder);
    Stage::with(fields, |builder| builder.top(&admin).top(PLANS))
}

/// Sends a change of ana's, with which `second` agrees; returns the status and the text.
fn send(stage: &Stage, call: (&str, &str), second: Option<&str>, body: &Value) -> (u16, String) {
    send_as("ana-x", stage, call, second, body)
}

fn send_as(
    who: &str,
    stage: &Stage,
    call: (&str, &str),
    second: Option<&str>,
    body: &Value,
) -> (u16, String) {
    let (body, bearer) = (body.to_string(), |name: &str| format!("Bearer {}", secret(name)));
    let mut client = stage.proxy.admin();
    let path = format!("/v1/services/game-api/{}", call.1);
    let mut request = client.request(call.0, &path);
    request = request.body(body.as_bytes()).host("localhost");
    let own = bearer(who);
    request = request.header("Authorization", &own);
    let second = second.map(bearer);
    if let Some(second) = &second {
        request = request.header("Tidegate-Second-Authorization", second);
    }
    let answer = request.send();
    (answer.status, answer.text().to_owned())
}

#[test]
fn nobody_goes_around_the_approvals_of_a_plan_alone() {
    let stage = stage(&["second_person: true", "rollout: careful"]);
    let steps = json!([{ "weight": "100%", "for": "1h" }]);
    let around = [
        (("POST", "rollout"), json!({ "to": "v2", "steps": steps })),
        (("POST", "rollout"), json!({ "to": "v2", "plan": "fast" })),
        (("PUT", "weights"), json!({ "weights": { "v2": "50%" } })),
        (("POST", "cutover"), json!({ "to": "v2" })),
        (("PUT", "weights"), json!({ "weights": { "v2": "0.00000001%" } })),
    ];
    for (call, body) in &around {
        for (second, dry) in [(None, ""), (None, "?dry_run=true"), (Some("ana-x"), "")] {
            let path = format!("{}{dry}", call.1);
            let (status, text) = send(&stage, (call.0, &path), second, body);
            let is_told = text.contains("asks for a second person");
            assert_eq!((status, is_told), (409, true), "{call:?} {second:?}: {text}");
        }
        let path = format!("{}?dry_run=true", call.1);
        let (status, text) = send(&stage, (call.0, &path), Some("ben-x"), body);
        assert_eq!(status, 200, "{call:?}: {text}");
        let (status, text) = send(&stage, *call, Some("eve-x"), body);
        assert_eq!((status, text.contains("token is unknown")), (403, true), "{text}");
    }
    let (status, text) = send(&stage, around[2].0, Some("ben-x"), &around[2].1);
    assert_eq!(status, 200, "{text}");
    let (status, text) =
        send(&stage, ("PUT", "weights"), None, &json!({ "weights": { "v2": "40%" } }));
    assert_eq!(status, 200, "to take players away is open to everybody: {text}");
    let back = ("POST", "rollback");
    let (status, text) = send(&stage, back, None, &json!({}));
    assert_eq!(status, 409, "the split before gives it more: {text}");
    let (status, text) = send(&stage, back, Some("ben-x"), &json!({}));
    assert_eq!(status, 200, "{text}");
    let (status, text) = send(&stage, ("POST", "cutover"), None, &json!({ "to": "v1" }));
    assert_eq!(status, 200, "to leave it needs nobody else: {text}");
    let (status, text) = send(&stage, back, None, &json!({}));
    assert_eq!(status, 409, "nor does anybody alone go forward to it again: {text}");
    let (status, text) = send(&stage, ("POST", "rollout"), None, &json!({ "to": "v2" }));
    assert_eq!(status, 200, "the plan of the service has its own approvals: {text}");
    let promote = json!({ "reason": "I am sure" });
    eventually("the step waits for its approval", || {
        let (status, text) = send(&stage, ("POST", "rollout/promote"), None, &promote);
        status == 409 && text.contains("another person can promote it")
    });
}

/// Regression: a version was ejected with its weight, and one person reinstated it with its players.
#[test]
fn nobody_gives_an_ejected_version_its_players_again_alone() {
    let stage = stage(&["second_person: true", "rollout: careful"]);
    let half = json!({ "weights": { "v2": "50%" } });
    assert_eq!(send(&stage, ("PUT", "weights"), Some("ben-x"), &half).0, 200);
    let v2 = json!({ "version": "v2", "reason": "pays twice" });
    let (status, text) = send(&stage, ("POST", "eject"), None, &v2);
    assert_eq!(status, 200, "an ejection waits for nobody: {text}");
    for dry in ["", "?dry_run=true"] {
        let path = format!("reinstate{dry}");
        let (status, text) = send(&stage, ("POST", &path), None, &v2);
        assert_eq!((status, text.contains("asks for a second person")), (409, true), "{text}");
    }
    let (status, text) = send(&stage, ("POST", "reinstate"), Some("ben-x"), &v2);
    assert_eq!(status, 200, "{text}");
    // One without weight gets nobody.
    assert_eq!(send(&stage, ("POST", "cutover"), None, &json!({ "to": "v1" })).0, 200);
    assert_eq!(send(&stage, ("POST", "eject"), None, &v2).0, 200);
    let (status, text) = send(&stage, ("POST", "reinstate"), None, &v2);
    assert_eq!(status, 200, "{text}");
}

/// Regression: with a little more than the first step gives, which one person could set in small parts, the rollout
/// began after the step with the approval.
#[test]
fn nobody_skips_an_approval_alone_because_the_version_has_players_already() {
    let stage = stage(&["second_person: true", "rollout: careful"]);
    let weights = json!({ "weights": { "v2": "10.001%" } });
    let (status, text) = send(&stage, ("PUT", "weights"), Some("ben-x"), &weights);
    assert_eq!(status, 200, "{text}");
    let start = json!({ "to": "v2" });
    let (status, text) = send(&stage, ("POST", "rollout"), None, &start);
    assert_eq!((status, text.contains("after a step with an approval")), (409, true), "{text}");
    // What it has already goes on as it is; the way back from its rollout needs nobody else.
    let weights = json!({ "weights": { "v2": "5%" } });
    assert_eq!(send(&stage, ("PUT", "weights"), None, &weights).0, 200);
    let (status, text) = send(&stage, ("POST", "rollout"), None, &start);
    assert_eq!(status, 200, "{text}");
    let (status, text) = send(&stage, ("POST", "rollout/rollback"), None, &json!({}));
    assert_eq!(status, 200, "{text}");
}

/// Regression: where the service named no plan, everybody chose one without approvals.
#[test]
fn a_service_that_names_no_plan_asks_for_a_second_person_for_each() {
    let stage = stage(&["second_person: true"]);
    let fast = json!({ "to": "v2", "plan": "fast" });
    let (status, text) = send(&stage, ("POST", "rollout"), None, &fast);
    assert_eq!((status, text.contains("asks for a second person")), (409, true), "{text}");
    let (status, text) = send(&stage, ("POST", "rollout"), Some("ben-x"), &fast);
    assert_eq!(status, 200, "{text}");
}

#[test]
fn without_second_person_one_is_enough() {
    let stage = stage(&["rollout: careful"]);
    let weights = json!({ "weights": { "v2": "50%" } });
    let (status, text) = send(&stage, ("PUT", "weights"), None, &weights);
    assert_eq!(status, 200, "{text}");
    let (status, text) =
        send(&stage, ("POST", "rollout"), None, &json!({ "to": "v2", "plan": "fast" }));
    assert_eq!(status, 200, "{text}");
}

/// What the file says of a second person binds rollouts in progress, too, as it says it now.
#[test]
fn a_second_person_whom_a_reload_asks_for_is_asked_for_by_a_rollout_in_progress() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let plan = "plans: { slow: [ { weight: 10%, for: 1h, gates: [ approval ] }, { weight: 100%, for: 1h } ] }";
    let (versions, admin) = (Versions::new(), admin(&folder));
    let file = |fields: &[&str]| versions.builder(fields).top(&admin).top(plan);
    let proxy = file(&["rollout: slow"]).start_with_file();
    let strict = file(&["rollout: slow", "second_person: true"]).text();
    let lax = file(&["rollout: slow"]).text();
    let players = Players::at(proxy.address);
    let stage = Stage { versions, proxy, _players: players };
    let order = |who: &str, command: &str| {
        let path = format!("rollout{command}");
        let body = match command {
            "" => json!({ "to": "v2" }),
            _ => json!({ "reason": "seen enough" }),
        };
        send_as(who, &stage, ("POST", &path), None, &body)
    };
    let rollout = || {
        let (bearer, mut client) = (format!("Bearer {}", secret("ben-x")), stage.proxy.admin());
        client.get(ROLLOUT).host("localhost").header("Authorization", &bearer).send().json()
    };
    let says = |why: &str| {
        eventually(why, || rollout()["gates"][0]["why"] == why);
    };
    assert_eq!(order("ana-x", "").0, 200, "nobody else is asked for yet");
    eventually("it grows", || rollout()["phase"] == "growing");
    assert_eq!(order("ana-x", "/approve").0, 200);
    says("ana-x approves");
    stage.proxy.write(&strict);
    says("waits for a second person to approve");
    let (status, text) = order("ana-x", "/approve");
    assert_eq!((status, text.contains("another person can approve")), (409, true), "{text}");
    let (status, text) = order("ana-x", "/promote");
    assert_eq!((status, text.contains("another person can promote it")), (409, true), "{text}");
    assert_eq!(rollout()["step"], 1);
    // The other way round one is enough again.
    stage.proxy.write(&lax);
    says("waits for an approval");
    stage.proxy.write(&strict);
    says("waits for a second person to approve");
    let (status, text) = order("ben-x", "/approve");
    assert_eq!(status, 200, "{text}");
    let (status, text) = order("ben-x", "/promote");
    assert_eq!(status, 200, "{text}");
    eventually("it goes on", || rollout()["step"] == 2);
}

/// Regression: whoever had started a rollout resumed it after another person had refused it and taken its version off.
#[test]
fn nobody_goes_on_alone_after_weights_were_set_by_hand() {
    let stage = stage(&["second_person: true", "rollout: careful"]);
    let start = json!({ "to": "v2" });
    assert_eq!(send(&stage, ("POST", "rollout"), None, &start).0, 200);
    eventually("it grows", || {
        let controller = stage.proxy.controller();
        controller.rollout("game-api").is_some_and(|live| live.rollout.phase == Phase::Growing)
    });
    let off = json!({ "weights": { "v1": 1 }, "only": true });
    assert_eq!(send_as("ben-x", &stage, ("PUT", "weights"), None, &off).0, 200);
    let resume = ("POST", "rollout/resume");
    for dry in ["", "?dry_run=true"] {
        let path = format!("{}{dry}", resume.1);
        let (status, text) = send(&stage, (resume.0, &path), None, &json!({}));
        assert_eq!((status, text.contains("asks for a second person")), (409, true), "{text}");
    }
    let (status, text) = send(&stage, resume, Some("ben-x"), &json!({}));
    assert_eq!(status, 200, "{text}");
    eventually("it grows again", || stage.proxy.snapshot().services[0].share(1) > 0.0);
    // A pause alone takes no players away, so it ends without anybody else.
    assert_eq!(send(&stage, ("POST", "rollout/pause"), None, &json!({})).0, 200);
    let (status, text) = send(&stage, resume, None, &json!({}));
    assert_eq!(status, 200, "{text}");
}

/// Regression: with the baseline ejected, all players were on the canary anyway, and weights that gave it all of them for
/// good were no growth.
#[test]
fn an_ejection_of_the_baseline_does_not_let_one_person_write_other_weights() {
    let stage = stage(&["second_person: true", "rollout: careful"]);
    let few = json!({ "weights": { "v2": "1%" } });
    assert_eq!(send(&stage, ("PUT", "weights"), Some("ben-x"), &few).0, 200);
    let v1 = json!({ "version": "v1", "reason": "fails" });
    assert_eq!(send(&stage, ("POST", "eject"), None, &v1).0, 200);
    let all = json!({ "weights": { "v2": 1 }, "only": true });
    let (status, text) = send(&stage, ("PUT", "weights"), None, &all);
    assert_eq!((status, text.contains("asks for a second person")), (409, true), "{text}");
    assert_eq!(send(&stage, ("POST", "reinstate"), None, &v1).0, 200, "it is the baseline");
}

/// With a third version: v1 and v2 have half of the players each, and v3 is rolled out to a fifth.
fn stage_with_two_canaries() -> Stage {
    let folder = tempfile::TempDir::new().expect("a folder");
    let (admin, versions) = (admin(&folder), Versions::new());
    let third = &versions.origins[0];
    let fields = ["second_person: true", "rollout: open", "weights: { v1: 50, v2: 50 }"];
    let builder = versions.builder(&fields).version("v3", third);
    let proxy = builder.top(&admin).top(PLANS).start_with_file();
    let players = Players::at(proxy.address);
    Stage { versions, proxy, _players: players }
}

fn starts_v3(stage: &Stage) {
    let (status, text) = send(stage, ("POST", "rollout"), None, &json!({ "to": "v3" }));
    assert_eq!(status, 200, "{text}");
    eventually("v3 has a fifth", || {
        (stage.proxy.snapshot().services[0].share(2) - 0.2).abs() < 1e-9
    });
}

/// Regression: the rollout of a third version took the weight of an ejected one, so one person reinstated it, and gave it
/// its players again by the way back or the next step.
#[test]
fn nobody_reinstates_alone_what_the_way_back_of_a_rollout_gives_players() {
    let stage = stage_with_two_canaries();
    let v2 = json!({ "version": "v2", "reason": "pays twice" });
    assert_eq!(send_as("ben-x", &stage, ("POST", "eject"), None, &v2).0, 200);
    starts_v3(&stage);
    for dry in ["", "?dry_run=true"] {
        let path = format!("reinstate{dry}");
        let (status, text) = send(&stage, ("POST", &path), None, &v2);
        assert_eq!((status, text.contains("asks for a second person")), (409, true), "{text}");
    }
    let (status, text) = send(&stage, ("POST", "reinstate?dry_run=true"), Some("ben-x"), &v2);
    assert_eq!(status, 200, "{text}");
    let (status, text) = send(&stage, ("POST", "rollback"), None, &json!({}));
    assert_eq!(status, 200, "{text}");
    eventually("v1 has all", || stage.proxy.snapshot().services[0].share(0) == 1.0);
    let (status, text) = send(&stage, ("POST", "reinstate"), None, &v2);
    assert_eq!(status, 409, "it has half of the players in that split: {text}");
    let (status, text) = send(&stage, ("POST", "reinstate"), Some("ben-x"), &v2);
    assert_eq!(status, 200, "{text}");
    assert_eq!(stage.proxy.snapshot().services[0].share(1), 0.5);
}

/// Regression: the way back wrote weight 0 for the baseline while it was ejected, so the other canary had all players for
/// good once it was reinstated.
#[test]
fn nobody_gives_another_canary_the_players_of_the_baseline_alone() {
    for back in ["rollback", "rollout/rollback", "rollout/abort", "eject"] {
        let stage = stage_with_two_canaries();
        starts_v3(&stage);
        let v1 = json!({ "version": "v1", "reason": "fails" });
        assert_eq!(send(&stage, ("POST", "eject"), None, &v1).0, 200);
        let body = if back == "eject" { json!({ "version": "v3" }) } else { json!({}) };
        let (status, text) = send(&stage, ("POST", back), None, &body);
        assert_eq!(status, 200, "{text}");
        eventually("v2 has all", || stage.proxy.snapshot().services[0].share(1) == 1.0);
        assert_eq!(send(&stage, ("POST", "reinstate"), None, &v1).0, 200);
        assert_eq!([0, 1, 2].map(|n| stage.proxy.snapshot().services[0].share(n)), [0.5, 0.5, 0.0]);
    }
}

/// Regression: only the version of the rollout was compared, so a resumed rollout gave another one its players again.
#[test]
fn nobody_gives_another_canary_players_alone_by_resuming() {
    let stage = stage_with_two_canaries();
    starts_v3(&stage);
    let off = json!({ "weights": { "v1": 80, "v2": 0, "v3": 20 } });
    assert_eq!(send_as("ben-x", &stage, ("PUT", "weights"), None, &off).0, 200);
    let resume = ("POST", "rollout/resume");
    let (status, text) = send(&stage, resume, None, &json!({}));
    assert_eq!((status, text.contains("asks for a second person")), (409, true), "{text}");
    let (status, text) = send(&stage, resume, Some("ben-x"), &json!({}));
    assert_eq!(status, 200, "{text}");
    eventually("v2 is back", || stage.proxy.snapshot().services[0].share(1) > 0.0);
}
