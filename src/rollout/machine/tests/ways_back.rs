//! Rollback, ejection, and what others do to the split meanwhile.

use super::{
    super::*,
    stage::{PLAN, Stage, weights},
};
use crate::rollout::{gate::Reply, state::Missing};

fn rollback(at_once: bool) -> Event {
    Event::Rollback { by: "bo".into(), reason: "a complaint".into(), at_once }
}

fn eject(version: &str) -> Event {
    Event::Ejected { version: version.into(), reason: "worse".into() }
}

/// At 50 %.
fn halfway() -> Stage {
    let mut stage = Stage::new(PLAN);
    stage.tick(0);
    stage.pass().wait(120);
    assert_eq!(stage.rollout.share(), 0.5);
    stage
}

/// With all players.
fn done() -> Stage {
    let mut stage = Stage::new(r#"[{"weight":"100%"}]"#);
    stage.wait(3);
    assert_eq!(stage.phase(), Phase::Done);
    stage
}

#[test]
fn a_rollback_restores_the_split_before_exactly() {
    let before = weights(&[("v40", 1.0 / 3.0), ("v41", 7.7), ("v42", 0.01), ("v43", 0.0)]);
    let mut stage = Stage::with(PLAN, |start| start.weights = before.clone());
    stage.tick(0);
    stage.pass().wait(120);
    let now = stage.weights();
    assert!((now["v41"].value() / now["v40"].value() - 23.1).abs() < 1e-9, "{now:?}");
    stage.send(rollback(false));
    assert_eq!((stage.phase(), stage.weights()), (Phase::RolledBack, before));
    assert_eq!(stage.rollout.cause, "a complaint");
}

#[test]
fn a_rollback_is_a_ramp_while_the_endpoints_are_not_ready() {
    let mut stage = halfway();
    stage.send(Event::Baseline { ready: false });
    stage.seen.evidence = Some(Reply::Fail.because("worse"));
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::RollingBack);
    let mut shares = vec![stage.rollout.share()];
    while stage.phase() == Phase::RollingBack {
        stage.tick(1);
        shares.push(stage.rollout.share());
    }
    assert!((56..=61).contains(&shares.len()), "about a minute: {shares:?}");
    assert!(shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
    assert!((shares[0] - 0.5 * 11.0 / 12.0).abs() < 1e-9, "the first part at once: {shares:?}");
    shares.dedup();
    assert_eq!(shares.len(), 12);
    assert_eq!((stage.phase(), stage.weights()), (Phase::RolledBack, stage.rollout.before.clone()));

    let mut stage = halfway();
    stage.send(Event::Baseline { ready: false });
    stage.send(rollback(false));
    stage.wait(20);
    assert_eq!(stage.phase(), Phase::RollingBack);
    stage.send(Event::Baseline { ready: true });
    assert_eq!(stage.phase(), Phase::RolledBack, "ready sooner");

    let mut stage = halfway();
    stage.send(Event::Baseline { ready: false });
    stage.send(rollback(false));
    stage.send(rollback(true));
    assert_eq!(stage.phase(), Phase::RolledBack, "by an operator's word");
}

/// Regression: a rollback, and each part of its ramp, gave players to a split that was known to be dead.
#[test]
fn a_rollback_waits_while_nothing_else_serves() {
    let dead = || Some("no endpoint of v41 works (a:1 is down)".into());
    let way = |stage: &Stage| match &*stage.rollout.missing {
        [Missing::Way { why }] => why.clone(),
        missing => panic!("{missing:?}"),
    };
    // A guardrail fails.
    let mut stage = halfway();
    stage.seen.stranded = dead();
    stage.seen.evidence = Some(Reply::Fail.because("worse"));
    let actions = stage.tick(1);
    let warned = |text: &str| {
        actions.iter().any(|action| matches!(action, Action::Warn(said) if said.contains(text)))
    };
    assert!(
        warned("worse, and kept: nothing else serves: no endpoint of v41 works"),
        "{actions:?}"
    );
    stage.wait(300);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::RollingBack, 0.5));
    assert!(way(&stage).starts_with("worse, and kept: nothing else serves: "));
    // What works again gets its load bit by bit while it is not ready for it.
    stage.send(Event::Baseline { ready: false });
    stage.seen.stranded = None;
    stage.tick(1);
    let share = stage.rollout.share();
    assert!((0.4..0.5).contains(&share), "{share}");
    assert_eq!(stage.rollout.missing, []);
    // It dies while the ramp goes on: the rest stays, and that is told once.
    stage.seen.stranded = dead();
    let tells = |actions: &[Action]| matches!(actions, [Action::Warn(_), ..]);
    assert!(tells(&stage.tick(1)) && !tells(&stage.tick(1)));
    stage.wait(300);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::RollingBack, share));
    stage.seen.stranded = None;
    stage.tick(1);
    stage.send(Event::Baseline { ready: true });
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::RolledBack, 0.0));

    // By a person, without fault of the version.
    let mut stage = halfway();
    stage.seen.stranded = dead();
    stage.tick(1);
    stage.send(rollback(false));
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::RollingBack, 0.5));
    assert!(way(&stage).starts_with("nothing else serves: "), "{}", way(&stage));
    let mut insists = stage.clone();
    insists.rollout = insists.rollout.insisting();
    insists.tick(1);
    assert_eq!(insists.phase(), Phase::RolledBack, "somebody insists");
    stage.send(rollback(true));
    assert_eq!(stage.phase(), Phase::RolledBack);

    // Nobody is on the version.
    let mut stage = Stage::new(PLAN);
    stage.seen.frozen = Some(crate::rollout::state::Frozen {
        window: "a".into(),
        also: Vec::new(),
        until_unix_ms: None,
        second_person: false,
        since_unix_ms: Default::default(),
    });
    stage.seen.stranded = dead();
    stage.tick(1);
    stage.send(rollback(false));
    assert_eq!(stage.phase(), Phase::RolledBack);
    // An ejection is decided by others, and is the end.
    let mut stage = halfway();
    stage.seen.stranded = dead();
    stage.tick(1);
    stage.send(eject("v42"));
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::RolledBack, 0.0));
}

#[test]
fn a_version_that_is_kept_goes_on_to_no_other_step() {
    for step in [PLAN, r#"[{"weight":"100%","bake":"10s"}]"#] {
        let mut stage = Stage::new(step);
        stage.tick(0);
        let (share, phase) = (stage.rollout.share(), stage.phase());
        stage.seen.kept = Some("worse, and kept: nothing else serves: all are down".into());
        stage.pass().wait(600);
        let promote = Event::Promote { by: "bo".into(), reason: "hurry".into() };
        stage.send(promote);
        stage.wait(10);
        assert_eq!(stage.rollout.share(), share);
        assert!([phase, Phase::Holding].contains(&stage.phase()), "{:?}", stage.phase());
        let shown = stage.rollout.missing[0].to_string();
        assert!(shown.contains("(worse, and kept: nothing else serves: all are down)"), "{shown}");
        // Its guardrails fail, too. Once somebody else serves, the verdict ejects it.
        stage.seen.evidence = Some(Reply::Fail.because("worse"));
        stage.wait(60);
        assert_eq!(stage.rollout.share(), share);
        stage.send(eject("v42"));
        assert_eq!((stage.phase(), stage.rollout.share()), (Phase::RolledBack, 0.0));
    }
}

#[test]
fn a_rollback_asks_no_window() {
    let mut stage = halfway();
    let frozen = crate::rollout::state::Frozen {
        window: "a".into(),
        also: Vec::new(),
        since_unix_ms: Default::default(),
        until_unix_ms: None,
        second_person: true,
    };
    stage.seen.frozen = Some(frozen);
    stage.tick(1);
    stage.send(rollback(false));
    assert_eq!(stage.phase(), Phase::RolledBack);
}

#[test]
fn after_it_is_done_the_way_back_is_one_command_until_the_split_changes() {
    let mut stage = done();
    stage.send(rollback(false));
    assert_eq!((stage.phase(), stage.weights()), (Phase::RolledBack, weights(&[("v41", 100.0)])));
    let mut stage = done();
    stage.send(eject("v42"));
    assert_eq!((stage.phase(), stage.weights()), (Phase::RolledBack, weights(&[("v41", 100.0)])));
    let mut stage = done();
    stage.set_by_hand(&[("v41", 1.0), ("v42", 2.0)]);
    assert_eq!(stage.phase(), Phase::Done);
    assert!(stage.try_send(rollback(false)).is_err());
    assert_eq!(stage.send(eject("v42")), [], "the split is no longer the rollout's");
}

#[test]
fn weights_by_hand_pause_it_and_say_so() {
    let mut stage = halfway();
    let actions = stage.set_by_hand(&[("v41", 70.0), ("v42", 30.0)]);
    assert_eq!(stage.phase(), Phase::Paused);
    let said = |action: &Action| matches!(action, Action::Warn(text) if text.starts_with("ana set weights by hand"));
    assert!(actions.iter().any(said), "{actions:?}");
    stage.seen.evidence = Some(Reply::Fail.because("worse"));
    stage.wait(10);
    assert_eq!(stage.phase(), Phase::Paused, "the weights are not the rollout's");
    let mut other = stage.clone();
    other.send(Event::Abort { by: "ana".into(), reason: "enough".into() });
    assert_eq!((other.phase(), other.rollout.share()), (Phase::Aborted, 0.3));
    let mut other = stage.clone();
    other.send(rollback(false));
    assert_eq!((other.phase(), other.weights()), (Phase::RolledBack, weights(&[("v41", 100.0)])));
    stage.send(Event::Resume { by: "ana".into(), reason: String::new() });
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Pending, 0.3));
    stage.pass().tick(1);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Growing, 0.5));
    assert_eq!(stage.rollout.progress.watched_ms, 0, "the step begins anew");
}

/// Regression: the step began anew without the refusal, as if nobody had said anything.
#[test]
fn a_refusal_of_the_step_survives_weights_by_hand() {
    let refuse = || Event::Approve { by: "ana".into(), approves: false, reason: "too slow".into() };
    let resume = || Event::Resume { by: "bo".into(), reason: String::new() };
    let by_hand = |stage: &mut Stage| {
        stage.send(refuse());
        stage.set_by_hand(&[("v41", 70.0), ("v42", 30.0)]);
        stage.send(resume());
        stage.pass().wait(1_000);
    };
    let mut stage = halfway();
    by_hand(&mut stage);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Holding, 0.5));
    let missing = stage.rollout.missing.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(missing, ["approval (fail: ana does not approve: too slow)"]);
    stage.send(Event::Approve { by: "ana".into(), approves: true, reason: String::new() });
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::Baking, "she changed her mind");
    assert_eq!(stage.rollout.progress.approval, None, "of the step before");
    // An approval is of what was seen until then.
    let mut stage = halfway();
    stage.send(Event::Approve { by: "ana".into(), approves: true, reason: String::new() });
    stage.set_by_hand(&[("v41", 70.0), ("v42", 30.0)]);
    assert_eq!(stage.rollout.progress.approval, None);
    // Where it is a guardrail, the version gets no players again.
    let plan = r#"[ { "weight": "50%", "for": "10m", "gates": [ { "approval": { "kind": "guardrail" } } ] },
        { "weight": "100%" } ]"#;
    let mut stage = Stage::new(plan);
    stage.tick(1);
    by_hand(&mut stage);
    assert_eq!((stage.phase(), stage.weights()), (Phase::RolledBack, weights(&[("v41", 100.0)])));
    assert_eq!(stage.rollout.cause, "approval fails: ana does not approve: too slow");
    let before = stage.rollout.entries.iter().filter(|entry| entry.on == On::Grow).count();
    assert_eq!(before, 1, "the step did not begin again");
}

#[test]
fn an_ejection_ends_it_without_players_on_the_version() {
    let before = weights(&[("v41", 90.0), ("v42", 10.0)]);
    let mut stage = Stage::with(PLAN, |start| start.weights = before.clone());
    stage.tick(0);
    let actions = stage.send(eject("v42"));
    assert_eq!((stage.weights(), stage.rollout.share_served()), (before, 0.0));
    assert_eq!(stage.phase(), Phase::RolledBack);
    assert!(matches!(actions[0], Action::SetWeights(_)), "published first: {actions:?}");
    assert_eq!(actions.last(), Some(&Action::Finish(Outcome::RolledBack)));
}

#[test]
fn without_a_version_to_go_back_to_it_waits() {
    let mut stage = halfway();
    stage.send(eject("v41"));
    assert_eq!(stage.phase(), Phase::Paused);
    assert!(stage.try_send(rollback(false)).is_err());
    // Regression: half of the players were shown, while all of them were on it.
    assert_eq!((stage.rollout.share(), stage.rollout.share_served()), (0.5, 1.0));
    let resume = || Event::Resume { by: "bo".into(), reason: String::new() };
    assert!(stage.try_send(resume()).is_err());
    let mut other = stage.clone();
    other.send(Event::Reinstated { version: "v41".into() });
    other.send(resume());
    assert_eq!(other.phase(), Phase::Growing);
    stage.seen.evidence = Some(Reply::Fail.because("worse"));
    let actions = stage.tick(1);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::RollingBack, 0.5));
    assert!(actions.iter().any(|action| matches!(action, Action::Warn(_))), "{actions:?}");
    assert_eq!(stage.rollout.missing, [Missing::Baseline]);
    assert_eq!(stage.tick(1), []);
    stage.send(Event::Reinstated { version: "v41".into() });
    assert_eq!((stage.phase(), stage.weights()), (Phase::RolledBack, weights(&[("v41", 100.0)])));
}

/// Regression: the way back and the next step wrote weight 0 for whoever was ejected at that moment, so the others had its
/// players for good.
#[test]
fn a_version_that_is_ejected_meanwhile_keeps_its_weight() {
    let before = weights(&[("v40", 75.0), ("v41", 25.0)]);
    let mut stage = Stage::with(PLAN, |start| start.weights = before.clone());
    stage.tick(0);
    stage.send(eject("v40"));
    stage.send(Event::Resume { by: "bo".into(), reason: String::new() });
    stage.pass().wait(120);
    // Half of those who get a version, which are a fifth of all.
    assert_eq!(stage.weights(), weights(&[("v40", 60.0), ("v41", 20.0), ("v42", 20.0)]));
    assert_eq!(stage.rollout.share_served(), 0.5);
    let mut other = stage.clone();
    other.send(eject("v42"));
    stage.send(rollback(false));
    for stage in [stage, other] {
        assert_eq!((stage.phase(), stage.weights()), (Phase::RolledBack, before.clone()));
    }
}

/// After weights by hand, the step may give a version more players although its written share is smaller: those of an
/// ejected version are nobody's.
#[test]
fn growth_beside_an_ejected_version_waits_for_a_window() {
    let plan = r#"[{"weight":"50%","for":"10m"},{"weight":"100%"}]"#;
    let before = weights(&[("v40", 99.0), ("v41", 1.0)]);
    let mut stage = Stage::with(plan, |start| start.weights = before.clone());
    stage.set_by_hand(&[("v40", 0.0), ("v41", 95.0), ("v42", 5.0)]);
    stage.send(eject("v40"));
    stage.send(Event::Resume { by: "bo".into(), reason: String::new() });
    let frozen = crate::rollout::state::Frozen {
        window: "a".into(),
        also: Vec::new(),
        until_unix_ms: None,
        second_person: false,
        since_unix_ms: Default::default(),
    };
    stage.seen.frozen = Some(frozen);
    stage.wait(60);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Pending, 0.05));
    stage.seen.frozen = None;
    stage.tick(1);
    assert_eq!((stage.phase(), stage.rollout.share_served()), (Phase::Growing, 0.5));
    assert!(stage.rollout.share() < 0.05);
}

/// Regression: after an ejection without a reason the sentence ended with a colon.
#[test]
fn an_ejection_without_a_reason_is_told_without_a_colon() {
    for version in ["v41", "v42"] {
        let mut stage = halfway();
        stage.send(Event::Ejected { version: version.into(), reason: String::new() });
        assert_eq!(stage.rollout.cause, format!("{version} was ejected"));
    }
}

/// Regression: everybody was sent to the split before, which an operator had just emptied.
#[test]
fn weights_set_by_hand_stay_when_the_version_is_ejected() {
    let mut stage = halfway();
    stage.set_by_hand(&[("v40", 100.0), ("v41", 0.0), ("v42", 0.0)]);
    stage.send(eject("v42"));
    assert_eq!(stage.phase(), Phase::RolledBack);
    assert_eq!(stage.weights(), weights(&[("v40", 100.0), ("v41", 0.0), ("v42", 0.0)]));
    let mut stage = halfway();
    stage.set_by_hand(&[("v41", 30.0), ("v42", 70.0)]);
    stage.send(eject("v42"));
    assert_eq!(stage.weights(), weights(&[("v41", 30.0), ("v42", 70.0)]));
    assert_eq!(stage.rollout.share_served(), 0.0);
}

/// A file with these versions, the first one of which is the baseline.
fn file(names: &[&str]) -> Event {
    let versions = names.iter().map(|name| (*name).to_owned()).collect();
    Event::Reloaded { versions, heirs: weights(&[(names[0], 1.0)]), second_person: false }
}

#[test]
fn a_file_without_the_version_ends_it() {
    let mut stage = halfway();
    assert_eq!(stage.send(file(&["v41", "v42", "v43"])), []);
    let mut other = stage.clone();
    other.send(file(&["v41"]));
    assert_eq!(
        (other.phase(), other.rollout.weights),
        (Phase::Aborted, weights(&[("v41", 100.0)]))
    );
    stage.send(file(&["v42"]));
    assert_eq!(stage.phase(), Phase::Aborted, "there is no way back any more");
    assert_eq!(stage.rollout.share(), 1.0);
}

/// Regression: a file with another baseline gave the new version, which had 1 %, all players.
#[test]
fn a_file_with_another_baseline_gives_the_new_version_nobody() {
    let mut stage = Stage::new(PLAN);
    stage.tick(0);
    let split = || weights(&[("v42", 1.0), ("v41b", 99.0)]);
    let actions = stage.send(file(&["v41b", "v42"]));
    assert_eq!((stage.phase(), &stage.rollout.weights), (Phase::Aborted, &split()));
    assert!(!actions.iter().any(|action| matches!(action, Action::SetWeights(_))), "{actions:?}");
    // Likewise if it is done: there is no way back to a version that is gone.
    let mut stage = done();
    stage.send(file(&["v42", "v43"]));
    assert_eq!((stage.phase(), stage.rollout.way_back), (Phase::Done, false));
}

#[test]
fn a_file_without_a_part_of_the_split_before_pauses_it() {
    let before = weights(&[("v41", 99.0), ("v40", 1.0)]);
    let mut stage = Stage::with(PLAN, |start| start.weights = before.clone());
    stage.tick(0);
    let actions = stage.send(file(&["v40", "v42"]));
    assert!(actions.iter().any(|action| matches!(action, Action::Warn(_))), "{actions:?}");
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Paused, 0.01));
    let cause = "the file no longer has v41 of the split before; what it had goes to v40";
    assert_eq!(stage.rollout.cause, cause);
    assert!((share(&stage.rollout.weights, "v40") - 0.99).abs() < 1e-12);
    // The way back leads to the heir.
    let mut back = stage.clone();
    back.send(rollback(false));
    assert_eq!((back.phase(), back.weights()), (Phase::RolledBack, weights(&[("v40", 100.0)])));
    stage.send(Event::Resume { by: "bo".into(), reason: String::new() });
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Growing, 0.01));
    let mut done = Stage::with(r#"[{"weight":"100%"}]"#, |start| start.weights = before.clone());
    done.wait(3);
    done.send(file(&["v40", "v42"]));
    assert_eq!((done.phase(), done.rollout.way_back), (Phase::Done, true));
    done.send(rollback(true));
    assert_eq!(done.weights(), weights(&[("v40", 100.0)]));
}
