//! What is told of a rollout afterwards: in the journal, by `audit show`, and in its report.

use tempfile::TempDir;
use tidegate::store::{Entry, Filter, Reader};

use super::*;
use crate::support::process::program;

/// A stage with a journal.
struct Told {
    stage: Stage,
    folder: TempDir,
}

impl Told {
    fn start(fields: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let state = format!("state: '{}'", folder.path().join("state").display());
        let stage = Stage::with(fields, |builder| builder.top(&state));
        Self { stage, folder }
    }

    fn entries(&self) -> Vec<Entry> {
        let reader = Reader::open(&self.folder.path().join("state")).expect("a journal");
        let filter = Filter { limit: Some(1_000), ..Filter::default() };
        let all = reader.show(&filter).expect("entries").into_iter().map(|stored| stored.entry);
        all.filter(|entry| entry.kind == "rollout").collect()
    }

    /// The entry whose first decision is `what`, once it is written.
    #[track_caller]
    fn decided(&self, what: &str) -> Entry {
        let mut found = None;
        eventually(&format!("the journal has {what}"), || {
            let is_it = |entry: &Entry| entry.after["decided"][0]["what"] == what;
            found = self.entries().into_iter().rfind(is_it);
            found.is_some()
        });
        found.expect("it was found")
    }

    fn shown(&self) -> String {
        let mut command = program();
        let state = self.folder.path().join("state");
        let output = command.args(["audit", "show", "--kind", "rollout", "--state"]).arg(state);
        let output = output.output().expect("the program runs");
        String::from_utf8(output.stdout).expect("text")
    }
}

#[test]
fn the_journal_says_what_was_decided_by_whom_and_why_it_was_allowed() {
    let told = Told::start(&["eject: { errors: {}, mode: advise }", "slo: { errors: 1% }"]);
    let stage = &told.stage;
    stage.begin(&json!([
        { "weight": "50%", "for": "1s", "gates": ["approval"] },
        { "weight": "80%", "for": "1h", "gates": ["slo"] },
        { "weight": "100%", "for": "1s" },
    ]));
    stage.until("holding");
    // Regression: nobody was told that an approval is wanted.
    let wants = "tidegate_rollout_wants_approval{service=\"game-api\",version=\"v2\"}";
    assert!(stage.metrics().contains(&format!("{wants} 1\n")));
    let wanted = stage.events_of("rollout_wants_approval");
    assert_eq!((wanted.len(), &wanted[0]["version"]), (1, &json!("v2")));
    let why = wanted[0]["reason"].as_str().expect("a text");
    assert!(why.starts_with("step 1 of 3 waits for a person to approve it: `tidegate "), "{why}");
    stage.order("approve", &json!({ "approves": false, "reason": "too slow" }));
    assert!(stage.metrics().contains(&format!("{wants} 0\n")));
    let refused = told.decided("reject");
    let shown = stage.event("rollout", "reject");
    assert_eq!(shown["reason"], "step 1 is not approved: too slow");
    assert_eq!(shown["by"], refused.after["decided"][0]["by"]);
    assert_eq!(refused.after["decided"][0]["reason"], "too slow");
    let by = refused.after["decided"][0]["by"].as_str().expect("a name");
    assert_eq!(by, refused.actor.name);
    stage.order("pause", &json!({ "reason": "we look at it" }));
    let paused = stage.order("approve", &json!({ "reason": "approved" }));
    assert_eq!((&paused["phase"], &paused["cause"]), (&json!("paused"), &json!("we look at it")));
    assert_eq!(stage.event("rollout", "approve")["reason"], "step 1 is approved: approved");
    assert_eq!(stage.event("rollout", "pause")["reason"], "paused: we look at it");
    let last = &paused["last_transition"];
    assert_eq!((&last["on"], &last["approves"]), (&json!("approve"), &json!(true)));
    assert_eq!(last["reason"], "approved");
    stage.order("resume", &json!({ "reason": "all is well" }));
    let mut second = Value::Null;
    eventually("the second step begins", || {
        second = stage.rollout();
        second["step"] == 2
    });
    let grown = told.entries().into_iter().rfind(|entry| entry.after["on"] == json!(["grow"]));
    let judged = &grown.expect("an entry").after["judged"];
    assert_eq!((&judged["step"], &judged["gates"][0]["gate"]), (&json!(1), &json!("approval")));
    assert_eq!(judged["gates"][0]["reply"], "pass");
    assert_eq!(judged["gates"][0]["why"], format!("{by} approves"));
    assert!(judged["watched_s"].as_f64() >= Some(1.0) && judged["requests"].is_u64(), "{judged}");

    stage.versions.failing.store(true, SeqCst);
    stage.until("rolled_back");
    let back = told.decided("guardrail").after;
    assert_eq!(back["decided"][1]["what"], "restored");
    let slo = &back["judged"]["gates"][0];
    assert_eq!((&slo["gate"], &slo["reply"]), (&json!("slo"), &json!("fail")));
    assert!(slo["why"].as_str().expect("a text").contains("beyond the limit of errors"), "{slo}");

    // Regression: the report had the replies of the last step alone.
    stage.proxy.app().observatory().finish_incidents();
    let all = stage.get("/v1/incidents");
    let mut all = all["incidents"].as_array().expect("a list").iter();
    let ended = all.find(|incident| incident["kind"] == "rollout_rolled_back").expect("a report");
    let report = stage.get(ended["path"].as_str().expect("a path"));
    let steps = &report["rollout"]["steps"];
    assert_eq!(steps[0]["gates"][0], format!("approval (signal): pass, {by} approves"));
    let last = steps[1]["gates"][0].as_str().expect("a text");
    assert!(last.starts_with("slo (guardrail): fail, "), "{last}");

    let shown = told.shown();
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    for part in [
        format!("decided: reject by {by}\n"),
        format!("decided: approve by {by}\n"),
        format!("decided: pause by {by}\n"),
        format!("approval: pass: {by} approves\n"),
        "decided: guardrail, then restored\n".to_owned(),
        "slo: fail: ".to_owned(),
        "v1 20% -> 100%, v2 80% -> 0%\n".to_owned(),
        "step 1 was watched for 1".to_owned(),
    ] {
        assert!(shown.contains(&part), "{part} is missing in:\n{shown}");
    }
}

/// Regression: harm was counted by whole seconds, so that of a rollout of less than one was lost.
#[test]
fn a_rollout_that_is_rolled_back_at_once_has_its_harm() {
    let told = Told::start(&["eject: { errors: {}, mode: advise }"]);
    let stage = &told.stage;
    stage.versions.failing.store(true, SeqCst);
    stage.begin(&json!([{ "weight": "50%", "for": "1h" }, { "weight": "100%", "for": "1s" }]));
    stage.until("growing");
    let failed = || stage.get("/v1/services/game-api")["versions"][1]["errors"].as_u64();
    eventually("players fail", || failed() > Some(20));
    stage.order("rollback", &json!({ "reason": "it fails", "at_once": true }));
    stage.until("rolled_back");
    let id = &stage.proxy.app().observatory().finish_incidents()[0];
    let report = stage.get(&format!("/v1/incidents/{id}"));
    let harm = &report["harm"];
    let (failures, all) = (harm["failures"].as_u64().expect("a count"), failed().expect("a count"));
    // Only what was in flight may have ended later.
    assert!(failures <= all && failures + 2 >= all, "{all} failed: {harm}");
    assert_eq!((&harm["source"], &harm["requests"]), (&json!("counters"), &harm["failures"]));
    assert!(harm["estimate"].as_f64() > Some(20.0), "{harm}");
    let how = harm["how"].as_str().expect("a text");
    assert!(how.contains(" since the first step of the rollout. "), "{how}");
}
