//! What entries tell: tickets, who moved what of which service, and what was decided without a journal.

use super::*;

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let ended = program().args(arguments).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
}

#[test]
fn a_ticket_and_the_impact_are_in_the_entry() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let _process = stage.start();
    let admin = format!("http://{}", stage.admin);
    let say = |arguments: &[&str]| {
        let marked = ["--admin", &*admin, "--ticket", "CHG-7", "--impact"];
        run(&[arguments, &marked[..], &["high"][..]].concat())
    };
    for arguments in [
        &["weights", SERVICE, "v1=50%"][..],
        &["eject", SERVICE, "v2"],
        &["reinstate", SERVICE, "v2"],
    ] {
        let (code, _, error) = say(arguments);
        assert_eq!(code, Some(0), "{error}");
    }
    assert_eq!(stage.set_weights(2, 1).status, 200);
    let entries = stage.entries();
    let marked: Vec<_> =
        entries[2..].iter().map(|entry| (entry.ticket.as_deref(), entry.impact)).collect();
    let high = (Some("CHG-7"), Some(tidegate::store::Impact::High));
    assert_eq!(marked, [high, high, high, (None, None)]);

    let long = "x".repeat(201);
    for (body, field) in [
        (json!({ "weights": { "v1": 1, "v2": 1 }, "ticket": long }), "ticket"),
        (json!({ "weights": { "v1": 1, "v2": 1 }, "ticket": " " }), "ticket"),
        (json!({ "weights": { "v1": 1, "v2": 1 }, "ticket": "a\nb" }), "ticket"),
        (json!({ "weights": { "v1": 1, "v2": 1 }, "impact": "medium" }), "impact"),
    ] {
        let refused = stage.send("PUT", "weights", &body);
        assert_eq!(refused.status, 422, "{refused:?}");
        assert_eq!(refused.json()["field"], field, "{refused:?}");
    }
    assert_eq!(run(&["eject", SERVICE, "v2", "--impact", "medium"]).0, Some(2));
    let (code, _, error) = run(&["weights", SERVICE, "--admin", &admin, "--ticket", "CHG-7"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("name the new weights"), "{error}");
    assert_eq!(stage.entries().len(), entries.len());
}

/// The entry of a new file named no weights, so that `audit show --service` showed none of its changes.
#[test]
fn an_entry_about_several_services_has_what_each_gets() {
    let origins = origins();
    let mut stage = Stage::new(&origins);
    let mut process = stage.start();
    process.write(&stage.builder.text().replace("v1: 3", "v1: 1"));
    eventually("the file is in force", || stage.version(0)["weight"] == 1.0);
    let split = |v1: f64, v2: f64, shares: [f64; 2]| json!({ "weights": { "v1": v1, "v2": v2 }, "shares": { "v1": shares[0], "v2": shares[1] } });
    let entries = stage.entries();
    assert_eq!(kinds(&entries), ["genesis", "resumed", "configuration"]);
    assert_eq!(entries[1].after["services"][SERVICE], split(3.0, 1.0, [0.75, 0.25]));
    assert_eq!(entries[2].before["services"], json!({ SERVICE: split(3.0, 1.0, [0.75, 0.25]) }));
    assert_eq!(entries[2].after["services"], json!({ SERVICE: split(1.0, 1.0, [0.5, 0.5]) }));
    let state = stage.state();
    let state = state.to_str().expect("text");
    let (_, shown, _) = run(&["audit", "show", "--state", state, "--service", SERVICE]);
    assert!(shown.contains("configuration"), "{shown}");
    assert!(shown.contains("game-api v1 3 -> 1 (75% -> 50%), v2 1 (25% -> 50%)"), "{shown}");

    // A file that is changed while no process runs.
    process.signal(Signal::TERM);
    process.wait();
    stage.builder = Proxy::builder()
        .version("v1", &origins[0])
        .version("v2", &origins[2])
        .service("weights: { v1: 1, v2: 3 }")
        .top(&format!("admin: {{ address: \"{}\" }}", stage.admin))
        .top(&format!("state: '{state}'"))
        .listen(stage.address);
    let _process = stage.start();
    let entries = stage.entries();
    let last = entries.last().expect("an entry");
    assert_eq!(last.kind, "resumed");
    assert_eq!(
        last.before["services"],
        json!({ SERVICE: { "weights": { "v1": 1.0, "v2": 1.0 } } })
    );
    assert_eq!(last.after["services"][SERVICE], split(1.0, 3.0, [0.25, 0.75]));
    stage.verify();
}

/// They were in the state of the new journal, and no entry told of them.
#[test]
fn what_was_decided_without_a_journal_is_written_when_there_is_one() {
    let origins = origins();
    let mut stage = Stage::new(&origins);
    let with_journal = stage.builder.text();
    let admin = stage.admin;
    let versions = [origins[0].address, origins[1].address];
    stage.builder = Proxy::builder()
        .version_at("v1", &versions)
        .version("v2", &origins[2])
        .service("weights: { v1: 3, v2: 1 }")
        .top(&format!("admin: {{ address: \"{admin}\" }}"))
        .listen(stage.address);
    let process = stage.start();
    assert_eq!(stage.set_weights(10, 30).status, 200);
    let endpoint = origins[1].address.to_string();
    for body in [
        json!({ "version": "v2", "reason": "pays twice" }),
        json!({ "version": "v1", "endpoint": endpoint }),
    ] {
        assert_eq!(stage.send("POST", "eject", &body).status, 200);
    }
    process.write(&with_journal);
    eventually("the file is read", || {
        stage.get("/v1/status")["reload"]["waiting"] == json!(["state"])
    });
    taken_over::upgrade(&stage);
    eventually("it is written", || {
        kinds(&entries(&stage.state())) == ["genesis", "ejected", "ejected", "weights", "resumed"]
    });
    let entries = stage.entries();
    let [ejected, out, weights] = &entries[1..4] else { panic!("{entries:?}") };
    assert_eq!(ejected.after, json!({ "version": "v2", "ejected": true }));
    assert_eq!((&*ejected.actor.name, &*ejected.actor.role), ("anonymous", "unknown"));
    assert!(ejected.reason.starts_with("pays twice (decided at "), "{}", ejected.reason);
    assert_eq!(out.after["endpoint"], json!(endpoint));
    assert_eq!(weights.before, json!({ "v1": 3.0, "v2": 1.0 }));
    assert_eq!(weights.after, json!({ "v1": 10.0, "v2": 30.0 }));
    assert!(weights.reason.starts_with("a test (decided at "), "{}", weights.reason);
    let state = Reader::open(&stage.state()).expect("a journal").state().expect("rows");
    assert_eq!(state["weights/game-api"].seq, weights.seq);
    stage.verify();
}

/// The log line of an ejection by a verdict comes before its entry.
#[test]
fn a_line_of_the_log_names_an_entry_that_was_written_late() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let process = stage.start();
    let entries = stage.entries();
    let reader = Reader::open(&stage.state()).expect("a journal");
    let hash = reader.head().expect("a head").hash.to_string();
    let named = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        line["message"] == "a change in force is in the journal"
            && line["kind"] == "resumed"
            && line["journal.seq"] == entries.len()
            && line["journal.hash"] == *hash
    };
    eventually("the log names it", || process.log().lines().any(named));
}
