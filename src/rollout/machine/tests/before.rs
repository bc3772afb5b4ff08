//! What must be so before a step begins: its smoke checks, windows, an endpoint, something to compare with.

use super::{asked::asked, *};

/// Runs of smoke checks among `actions`: numbers and names.
fn runs(actions: &[Action]) -> Vec<(u64, String)> {
    let run = |action: &Action| match action {
        Action::RunSmoke { ask, name } => Some((*ask, name.clone())),
        _ => None,
    };
    actions.iter().filter_map(run).collect()
}

/// Waits until a smoke check is run, for `seconds` at most; returns its number.
fn next_run(stage: &mut Stage, seconds: u64) -> u64 {
    for _ in 0..seconds {
        if let [(ask, _)] = &*runs(&stage.tick(1)) {
            return *ask;
        }
    }
    panic!("no smoke check in {seconds} s: {:#?}", stage.rollout);
}

/// Regression: only the first step waited for its smoke check; every later one sent its players and asked then.
#[test]
fn no_step_begins_before_its_smoke_check_has_passed() {
    let plan = r#"[{"weight":"1%","for":"3s"},{"weight":"60%","for":"1h","gates":[{"smoke":"m"}]},
        {"weight":"100%","bake":"1h","gates":[{"smoke":"m"}]}]"#;
    for (reply, phase, step) in [
        (Reply::Fail, Phase::RolledBack, 0),
        (Reply::Undecided, Phase::Holding, 0),
        (Reply::Pass, Phase::Growing, 1),
    ] {
        let mut stage = Stage::new(plan);
        stage.tick(0);
        let ask = next_run(&mut stage, 4);
        assert_eq!((stage.rollout.step, stage.rollout.share()), (0, 0.01), "it is asked first");
        stage.wait(5);
        assert_eq!((stage.phase(), stage.rollout.step), (Phase::Holding, 0), "no answer yet");
        stage.reply(ask, reply);
        let actions = stage.tick(1);
        assert_eq!((stage.phase(), stage.rollout.step), (phase, step), "{reply:?}");
        let after = usize::from(reply == Reply::Pass);
        assert_eq!(runs(&actions).len(), after, "straight after it");
        let most = stage.rollout.entries.iter().filter(|entry| entry.on == On::Grow).count();
        assert_eq!(most, 1 + after, "{:?}", stage.rollout.cause);
    }
    // What passed for one step is none for the next one, though the check has the same name; nor for a promotion.
    let mut stage = Stage::new(plan);
    stage.tick(0);
    let ask = next_run(&mut stage, 4);
    stage.reply(ask, Reply::Pass);
    let after = runs(&stage.tick(1))[0].0;
    stage.reply(after, Reply::Pass);
    stage.tick(1);
    stage.send(Event::Promote { by: "ana".into(), reason: "seen enough".into() });
    let ask = next_run(&mut stage, 2);
    assert_eq!((stage.rollout.step, stage.rollout.share()), (1, 0.6));
    stage.reply(ask, Reply::Fail);
    stage.tick(1);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::RolledBack, 0.0));
}

/// Regression: a pass before a window was one after it, while the version had failed for a minute.
#[test]
fn a_pass_is_asked_again_if_the_step_has_to_wait_for_something_else() {
    let first = r#"[{"weight":"60%","for":"1h","gates":[{"smoke":"m"}]},{"weight":"100%"}]"#;
    let later = r#"[{"weight":"1%","for":"3s"},{"weight":"60%","for":"1h","gates":[{"smoke":"m"}]},{"weight":"100%"}]"#;
    for (plan, before) in [(first, 0.0), (later, 0.01)] {
        for gap in [false, true] {
            let mut stage = Stage::new(plan);
            if before > 0.0 {
                stage.tick(0);
            }
            let ask = next_run(&mut stage, 4);
            // The window begins while it runs.
            stage.seen.frozen = Some(friday());
            stage.reply(ask, Reply::Pass);
            let meanwhile: Vec<_> = (0..20).flat_map(|_| runs(&stage.tick(1))).collect();
            assert_eq!(meanwhile, [], "nothing is asked in vain");
            let after_gap = match gap {
                true => runs(&stage.tick_after(MOST_GAP + Duration::from_millis(1))),
                false => runs(&stage.tick(10)),
            };
            stage.seen.frozen = None;
            let again = match after_gap.first() {
                Some((ask, _)) => *ask,
                None => next_run(&mut stage, 1),
            };
            stage.tick(1);
            assert_eq!(stage.rollout.share(), before, "{plan}");
            let missing: Vec<String> =
                stage.rollout.missing.iter().map(ToString::to_string).collect();
            assert!(missing[0].starts_with("smoke m (undecided"), "{missing:?}");
            stage.reply(again, Reply::Fail);
            stage.tick(1);
            assert_eq!((stage.phase(), stage.rollout.share()), (Phase::RolledBack, 0.0));
        }
    }
    // A short wait needs none.
    let mut stage = Stage::new(first);
    let ask = next_run(&mut stage, 1);
    stage.seen.frozen = Some(friday());
    stage.reply(ask, Reply::Pass);
    stage.wait(20);
    stage.seen.frozen = None;
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::Growing);
}

/// Regression: a rollout that was started in a closed window sent its smoke checks at once.
#[test]
fn the_smoke_checks_of_the_first_step_wait_for_its_window_too() {
    let plan = r#"[{"weight":"60%","for":"1h","gates":[{"smoke":"m"}]},{"weight":"100%"}]"#;
    let mut stage = Stage::new(plan);
    stage.seen.frozen = Some(friday());
    let asked: Vec<_> = (0..90).flat_map(|_| runs(&stage.tick(1))).collect();
    assert_eq!((asked, stage.phase()), (Vec::new(), Phase::Pending));
    stage.seen.frozen = None;
    let ask = next_run(&mut stage, 1);
    stage.reply(ask, Reply::Pass);
    stage.tick(1);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Growing, 0.6));
}

/// Regression: of two windows the one was named as that which asks for a second person that does not.
#[test]
fn a_break_in_without_a_second_person_names_all_windows() {
    let mut stage = Stage::new(PLAN);
    let also = vec!["final".to_owned()];
    stage.seen.frozen = Some(Frozen { also, second_person: true, ..friday() });
    stage.tick(1);
    let alone = Event::BreakIn { by: "bo".into(), second: None, reason: "P1".into() };
    let refused = stage.try_send(alone).expect_err("it is refused").to_string();
    assert!(
        refused.starts_with(
            "one of the windows friday-peak, final asks for a second person besides bo"
        ),
        "{refused}"
    );
}

/// Regression: a webhook was not called during a pause, and its old answer was shown.
#[test]
fn a_pause_stops_no_webhook() {
    let plan = r#"[{"weight":"1%","for":"1h","gates":[{"webhook":{"url":"http://gate/","kind":"guardrail"}}]},{"weight":"100%"}]"#;
    let mut stage = Stage::new(plan);
    let first = asked(&stage.tick(0));
    stage.reply(first[0], Reply::Pass);
    stage.tick(1);
    stage.send(Event::Pause { by: "bo".into(), reason: "lunch".into() });
    let again: Vec<u64> = (0..11).flat_map(|_| asked(&stage.tick(1))).collect();
    assert_eq!((again.len(), stage.phase()), (1, Phase::Paused));
    stage.reply(again[0], Reply::Fail);
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::RolledBack);
}

/// Regression: read-only mode without an end beside a weekly window kept the leave over a process that was down while
/// the window ended and began again.
#[test]
fn leave_to_grow_is_for_the_windows_of_that_time_and_not_for_those_that_begin_again() {
    let leave = || Event::BreakIn { by: "bo".into(), second: None, reason: "P1".into() };
    let frozen = |of: &[(&str, u64)]| {
        let since_unix_ms = of.iter().map(|(name, since)| ((*name).to_owned(), *since)).collect();
        let also = of[1..].iter().map(|(name, _)| (*name).to_owned()).collect();
        let window = of[0].0.to_owned();
        Some(Frozen { window, also, since_unix_ms, ..friday() })
    };
    for (then, grows) in [
        (frozen(&[("peak", 7), ("read-only", 3)]), true),
        (frozen(&[("read-only", 3)]), true),
        (frozen(&[("peak", 9), ("read-only", 3)]), false),
        (frozen(&[("peak", 7), ("read-only", 8)]), false),
        (frozen(&[("peak", 9)]), false),
    ] {
        for is_kept in [false, true] {
            let mut stage = Stage::new(PLAN);
            stage.seen.frozen = frozen(&[("peak", 7), ("read-only", 3)]);
            stage.tick(1);
            stage.send(leave());
            if is_kept {
                // The process is down between the two.
                let kept = serde_json::to_string(&stage.rollout).expect("JSON");
                let rollout: crate::rollout::Rollout = serde_json::from_str(&kept).expect(&kept);
                stage.rollout = rollout.resumed();
            }
            stage.seen.frozen.clone_from(&then);
            stage.tick(1);
            assert_eq!(stage.phase() == Phase::Growing, grows, "{then:?}");
            assert_eq!(stage.rollout.break_in.is_some(), grows, "{then:?}");
        }
    }
}

/// Regression: leave for one window opened whatever froze growth beside it: another window, read-only mode.
#[test]
fn leave_to_grow_covers_what_froze_growth_when_it_was_given_and_nothing_else() {
    let leave = || Event::BreakIn { by: "bo".into(), second: None, reason: "P1".into() };
    let with = |more: &[&str]| {
        let also = more.iter().map(|name| (*name).to_owned()).collect();
        Some(Frozen { also, ..friday() })
    };
    let other = Frozen { window: "read-only".to_owned(), ..friday() };
    for (given, then, grows) in [
        (with(&[]), with(&[]), true),
        (with(&[]), with(&["final"]), false),
        (with(&[]), with(&["read-only"]), false),
        (with(&[]), Some(other.clone()), false),
        (with(&["read-only"]), with(&["read-only"]), true),
        (with(&["read-only"]), with(&[]), true),
        (with(&["read-only"]), Some(other), true),
        (with(&["final"]), with(&["final", "read-only"]), false),
    ] {
        let mut stage = Stage::new(PLAN);
        stage.seen.frozen.clone_from(&given);
        stage.tick(1);
        assert_eq!(stage.phase(), Phase::Pending, "{given:?}");
        stage.send(leave());
        stage.seen.frozen.clone_from(&then);
        stage.tick(1);
        assert_eq!(stage.phase() == Phase::Growing, grows, "{given:?} {then:?}");
        // Whoever means the other one, too, says so again.
        if !grows {
            assert_eq!(stage.rollout.break_in, None, "{given:?} {then:?}");
            stage.send(leave());
            stage.tick(1);
            assert_eq!(stage.phase(), Phase::Growing, "{given:?} {then:?}");
        }
    }
}

/// Regression: a version without an endpoint that could be reached got all players, step by step.
#[test]
fn nobody_is_sent_to_a_version_that_cannot_be_reached() {
    let plan = r#"[{"weight":"30%","for":"2s"},{"weight":"100%","for":"2s"}]"#;
    let dead = || Some(Box::from("127.0.0.1:9002: connection refused"));
    let mut stage = Stage::new(plan);
    stage.seen.unreached = dead();
    stage.wait(30);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Pending, 0.0));
    let missing = stage.rollout.missing[0].to_string();
    assert_eq!(missing, "an endpoint that can be reached (127.0.0.1:9002: connection refused)");
    stage.seen.unreached = None;
    stage.tick(1);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Growing, 0.3));
    stage.seen.unreached = dead();
    stage.send(Event::Promote { by: "bo".into(), reason: "hurry".into() });
    stage.wait(30);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Holding, 0.3));
    stage.seen.unreached = None;
    stage.wait(10);
    assert_eq!(stage.phase(), Phase::Done);
}

/// Regression: `within` let a version grow that had no baseline with players beside it and so was never judged.
#[test]
fn time_replaces_no_evidence_that_cannot_be_had() {
    let plan = r#"[{"weight":"20%","for":"2s","within":"5s","gates":["evidence"]},{"weight":"100%","for":"1s"}]"#;
    let mut stage = Stage::new(plan);
    stage.tick(0);
    stage.pass();
    stage.seen.incomparable = Some(Box::from("the baseline v1 has no players"));
    stage.wait(60);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Holding, 0));
    let missing = stage.rollout.missing[0].to_string();
    assert_eq!(missing, "evidence (undecided: the baseline v1 has no players)");
    // A person may go on without it.
    let mut promoted = stage.clone();
    promoted.send(Event::Promote { by: "bo".into(), reason: "I have seen it".into() });
    promoted.tick(1);
    assert_eq!(promoted.rollout.step, 1);
    let mut failed = stage.clone();
    failed.seen.evidence = Some(Reply::Fail.because("worse"));
    failed.tick(1);
    assert_eq!(failed.phase(), Phase::RolledBack);
    stage.seen.incomparable = None;
    stage.tick(1);
    assert_eq!(stage.rollout.step, 1);
}
