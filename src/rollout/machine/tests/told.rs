//! What people are told: what is missing after a command, and what a rollout went on without.

use super::*;

/// The replies of the gates of the step, and what is missing, as the status shows them.
fn shown(stage: &Stage) -> (Vec<String>, Vec<String>) {
    let replies = stage.rollout.progress.replies.iter().flatten();
    let replies = replies.map(|said| format!("{}: {}", said.reply.label(), said.why)).collect();
    (replies, stage.rollout.missing.iter().map(ToString::to_string).collect())
}

/// Regression: after a command the line of the state was that of the tick before it, beside gates as of the command.
#[test]
fn what_is_missing_is_of_the_same_moment_as_the_gates_beside_it() {
    let mut stage = Stage::new(PLAN);
    stage.tick(0);
    stage.pass().wait(130);
    stage.wait(5);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Growing, 1));
    let approval = |stage: &Stage| {
        let (replies, missing) = shown(stage);
        let of_gate = missing.into_iter().find(|missing| missing.starts_with("approval"));
        (replies[1].clone(), of_gate)
    };
    let waits = "undecided: waits for an approval".to_owned();
    assert_eq!(approval(&stage), (waits.clone(), Some(format!("approval ({waits})"))));
    let by = || "ana".to_owned();
    stage.send(Event::Approve { by: by(), approves: false, reason: "too slow".to_owned() });
    let refused = "fail: ana does not approve: too slow".to_owned();
    assert_eq!(approval(&stage), (refused.clone(), Some(format!("approval ({refused})"))));
    stage.send(Event::Approve { by: by(), approves: true, reason: String::new() });
    assert_eq!(approval(&stage), ("pass: ana approves".to_owned(), None));
    // What changes during a pause is shown when it is over.
    stage.send(Event::Pause { by: by(), reason: String::new() });
    stage.seen.evidence = Some(Reply::Undecided.because("nothing is certain"));
    stage.tick(1);
    stage.send(Event::Resume { by: by(), reason: String::new() });
    let (replies, missing) = shown(&stage);
    assert_eq!(replies[0], "undecided: nothing is certain");
    assert!(
        missing.contains(&"evidence (undecided: nothing is certain)".to_owned()),
        "{missing:?}"
    );
    stage.send(Event::Promote { by: by(), reason: "seen enough".to_owned() });
    assert_eq!(shown(&stage).1, [""; 0], "nothing is waited for");
    // Unless a window freezes it.
    stage.seen.frozen = Some(friday());
    stage.tick(1);
    assert_eq!(shown(&stage).1, ["the window friday-peak"]);
    let leave = Event::BreakIn { by: by(), second: None, reason: "a hot fix".to_owned() };
    stage.send(leave);
    assert_eq!(shown(&stage).1, [""; 0]);
}

fn end_of_bake(evidence: Option<GateReply>, slo: bool) -> Stage {
    let gates = if slo { r#","gates":["slo"]"# } else { "" };
    let plan = format!(r#"[{{"weight":"100%","bake":"1m"{gates}}}]"#);
    let mut stage = Stage::new(&plan);
    stage.pass();
    stage.seen.evidence = evidence;
    stage.tick(0);
    stage.wait(70);
    stage
}

/// Regression: a bake in which nothing could be judged ended as one in which all was well.
#[test]
fn a_bake_that_ends_without_an_answer_says_so_and_why() {
    let few =
        "too few requests: 12 of the 300 that it takes at least; 0 failed, allowed 1 % by slo";
    let expected = |why: &str| {
        format!("the last step is over; its bake ended without an answer of evidence: {why}")
    };
    for slo in [false, true] {
        let stage = end_of_bake(Some(Reply::Undecided.because(few)), slo);
        assert_eq!((stage.phase(), stage.rollout.cause.clone()), (Phase::Done, expected(few)));
        let stage = end_of_bake(None, slo);
        assert_eq!(
            (stage.phase(), stage.rollout.cause.clone()),
            (Phase::Done, expected("no answer yet"))
        );
        let stage = end_of_bake(Some(Reply::Pass.because("certainly within its limits")), slo);
        assert_eq!((stage.phase(), &*stage.rollout.cause), (Phase::Done, "the last step is over"));
    }
    // Who skips the rest has read that.
    let mut stage = Stage::new(r#"[{"weight":"100%","bake":"1h"}]"#);
    stage.tick(0);
    stage.send(Event::Promote { by: "ana".into(), reason: "seen enough".into() });
    let actions = stage.tick(1);
    assert_eq!((stage.phase(), &*stage.rollout.cause), (Phase::Done, "the last step is over"));
    assert!(matches!(actions.last(), Some(Action::Finish(Outcome::Done))), "{actions:?}");
}

/// Regression: a version that was slow in each request ended its bake as done before its latency was judged.
#[test]
fn a_bake_goes_on_while_an_answer_about_latency_may_come_soon() {
    let why = "its errors are certainly within their limits; latency is not judged yet";
    let mut cause = String::new();
    for (next, end) in [
        (Reply::Pass.because("within"), Phase::Done),
        (Reply::Fail.because("slow"), Phase::RolledBack),
        (Reply::Undecided.because(why), Phase::Done),
    ] {
        let mut stage = Stage::new(r#"[{"weight":"100%","bake":"1m"}]"#);
        stage.seen.evidence = Some(Reply::Undecided.because(why));
        stage.seen.incomparable = Some(Box::from(why));
        stage.tick(0);
        stage.wait(200);
        let missing: Vec<String> = stage.rollout.missing.iter().map(ToString::to_string).collect();
        assert_eq!(
            (stage.phase(), &*missing),
            (Phase::Baking, &[format!("evidence (undecided: {why})")][..])
        );
        (stage.seen.evidence, stage.seen.incomparable) = (Some(next), None);
        stage.tick(1);
        assert_eq!(stage.phase(), end);
        cause = stage.rollout.cause;
    }
    assert!(cause.ends_with(&format!("without an answer of evidence: {why}")));
}

/// Regression: the report of a rollout did not say what had held it before weights were set by hand.
#[test]
fn what_held_a_step_is_written_down_when_weights_are_set_by_hand() {
    let plan =
        r#"[{"weight":"1%","for":"1s","gates":[{"slo":{"kind":"signal"}}]},{"weight":"100%"}]"#;
    let mut stage = Stage::new(plan);
    stage.tick(0);
    stage.seen.slo = Some(Reply::Fail.because("status 503"));
    stage.wait(5);
    assert_eq!(stage.phase(), Phase::Holding);
    let weights = weights(&[("v41", 90.0), ("v42", 10.0)]);
    let actions = stage.send(Event::WeightsByHand { weights, by: "ana".into() });
    let judged = actions.iter().find_map(|action| match action {
        Action::Record(entry) => entry.judged.clone(),
        _ => None,
    });
    let judged = judged.expect("what the gates said");
    assert_eq!((judged.step, &*judged.gates[0].why), (1, "status 503"));
    assert!(!stage.rollout.progress.begun, "the step begins anew");
}

#[test]
fn a_step_whose_time_is_over_without_evidence_says_so_as_the_next_one_begins() {
    let plan = r#"[{"weight":"1%","for":"1m","within":"5m","gates":["evidence"]},{"weight":"100%","for":"1m"}]"#;
    let mut stage = Stage::new(plan);
    stage.seen.evidence = Some(Reply::Undecided.because("nothing is certain after 7 requests"));
    stage.tick(0);
    stage.wait(301);
    assert_eq!(
        (stage.phase(), &*stage.rollout.cause),
        (
            Phase::Growing,
            "step 2 of 2: 100 % of players; the step before had no answer of evidence: nothing is certain after 7 \
             requests"
        )
    );
}

/// Regression: after a takeover or a kill a step that was reached was told as not reached.
#[test]
fn what_happened_is_remembered_in_the_state_and_the_steps_longest() {
    let mut stage = Stage::new(r#"[{"weight":"1%","for":"1m"},{"weight":"100%","bake":"1h"}]"#);
    let (ana, reason) = ("ana".to_owned(), "a test".to_owned());
    stage.tick(0);
    let on = |stage: &Stage| stage.rollout.entries.iter().map(|e| e.on).collect::<Vec<_>>();
    assert_eq!(on(&stage), [On::Grow]);
    let text = serde_json::to_string(&stage.rollout).expect("JSON");
    let read: Rollout = serde_json::from_str(&text).expect("a rollout");
    assert_eq!(read.resumed().entries, stage.rollout.entries);
    for on in [On::Hold, On::GoOn].repeat(200) {
        let entry = Entry { on, ..stage.rollout.entries[0].clone() };
        stage.rollout.remember(entry);
    }
    stage.send(Event::Pause { by: ana.clone(), reason: reason.clone() });
    let known = on(&stage);
    assert_eq!((known.len(), known[0], known[99]), (100, On::Grow, On::Pause));
    for _ in 0..100 {
        stage.send(Event::Resume { by: ana.clone(), reason: reason.clone() });
        stage.send(Event::Pause { by: ana.clone(), reason: reason.clone() });
    }
    let known = on(&stage);
    assert_eq!((known.len(), known[0], known[99]), (100, On::Grow, On::Pause));
}

/// Regression: a window that freezes the next step was shown only once everything else had passed, and not at the start.
#[test]
fn a_window_is_shown_from_the_beginning_and_holds_nothing_before_its_time() {
    let mut stage = Stage::new(PLAN);
    stage.tick(0);
    stage.seen.frozen = Some(friday());
    stage.pass().tick(1);
    let (_, missing) = shown(&stage);
    assert_eq!(
        (stage.phase(), missing.last().map(String::as_str)),
        (Phase::Growing, Some("the window friday-peak"))
    );
    assert!(missing.len() > 1, "time is missing, too: {missing:?}");
    stage.wait(130);
    assert_eq!(
        (stage.phase(), shown(&stage).1),
        (Phase::Holding, vec!["the window friday-peak".to_owned()])
    );
    // After the last step nothing grows, so nothing is frozen.
    let mut last = Stage::new(r#"[{"weight":"100%","for":"1m"}]"#);
    last.tick(0);
    last.seen.frozen = Some(friday());
    last.tick(1);
    assert_eq!(shown(&last).1.len(), 1, "{:?}", shown(&last).1);
    let begun = crate::rollout::begun_in(Stage::new(PLAN).rollout, Some(friday()), stage.now);
    let missing: Vec<String> = begun.missing.iter().map(ToString::to_string).collect();
    assert_eq!(missing, ["the window friday-peak"]);
    let open = crate::rollout::begun_in(Stage::new(PLAN).rollout, None, stage.now);
    assert_eq!((open.missing, open.frozen), (Vec::new(), None));
}

#[test]
fn an_approval_is_wanted_once_the_least_time_is_over_until_somebody_answers() {
    let plan = r#"[{"weight":"1%","for":"1m","requests":10,"gates":["evidence","approval"]},{"weight":"100%"}]"#;
    let mut stage = Stage::new(plan);
    assert!(!stage.rollout.wants_approval());
    stage.tick(0);
    stage.wait(50);
    assert!(!stage.rollout.wants_approval(), "time is missing");
    stage.wait(20);
    assert!(!stage.rollout.wants_approval(), "requests are missing");
    stage.seen.requests += 10;
    stage.tick(1);
    assert!(
        stage.rollout.wants_approval(),
        "though evidence is undecided: {:?}",
        stage.rollout.missing
    );
    stage.send(Event::Pause { by: "bo".into(), reason: "lunch".into() });
    assert!(!stage.rollout.wants_approval(), "nobody waits during a pause");
    stage.send(Event::Resume { by: "bo".into(), reason: "back".into() });
    assert!(stage.rollout.wants_approval());
    let resumed = stage.rollout.clone().resumed();
    assert!(!resumed.wants_approval(), "the process that goes on tells people anew");
    stage.rollout = resumed;
    stage.tick(1);
    assert!(stage.rollout.wants_approval());
    stage.send(Event::Approve { by: "ana".into(), approves: false, reason: "odd".into() });
    assert!(!stage.rollout.wants_approval(), "somebody answered");
}

/// Regression: an event told neither what a person did nor which of two opposite things.
#[test]
fn what_a_person_did_is_told_in_words() {
    let mut stage = Stage::new(PLAN);
    stage.tick(0);
    stage.pass().wait(130);
    let reason = || "numbers look odd".to_owned();
    let ana = || "ana".to_owned();
    let mut told = |event: Event| {
        let actions = stage.send(event);
        let entry = actions.iter().find_map(|action| match action {
            Action::Record(entry) => Some(entry.told()),
            _ => None,
        });
        entry.expect("a transition")
    };
    for (event, expected) in [
        (
            Event::Approve { by: ana(), approves: false, reason: reason() },
            "step 2 is not approved: numbers look odd",
        ),
        (Event::Approve { by: ana(), approves: true, reason: String::new() }, "step 2 is approved"),
        (
            Event::Promote { by: ana(), reason: reason() },
            "promoted: what is left of step 2 is skipped: numbers look odd",
        ),
        (Event::Pause { by: ana(), reason: reason() }, "paused: numbers look odd"),
        (Event::Resume { by: ana(), reason: reason() }, "resumed, growing: numbers look odd"),
        (
            Event::Rollback { by: ana(), reason: reason(), at_once: true },
            "rolled back by a person: numbers look odd",
        ),
    ] {
        assert_eq!(told(event), expected);
    }
}
