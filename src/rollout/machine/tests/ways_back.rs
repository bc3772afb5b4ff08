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

#[test]
fn an_ejection_ends_it_without_players_on_the_version() {
    let before = weights(&[("v41", 90.0), ("v42", 10.0)]);
    let mut stage = Stage::with(PLAN, |start| start.weights = before.clone());
    stage.tick(0);
    let actions = stage.send(eject("v42"));
    assert_eq!(stage.weights(), weights(&[("v41", 90.0), ("v42", 0.0)]));
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
    // Of three versions two are left.
    let before = weights(&[("v40", 50.0), ("v41", 50.0)]);
    let mut stage = Stage::with(PLAN, |start| start.weights = before.clone());
    stage.tick(0);
    stage.send(eject("v40"));
    stage.send(resume());
    stage.pass().wait(120);
    assert_eq!(stage.weights(), weights(&[("v40", 0.0), ("v41", 50.0), ("v42", 50.0)]));
    stage.send(rollback(false));
    assert_eq!(stage.weights(), weights(&[("v40", 0.0), ("v41", 50.0)]));
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
    assert_eq!(stage.weights(), weights(&[("v41", 30.0), ("v42", 0.0)]));
}

#[test]
fn a_file_without_the_version_ends_it() {
    let file = |names: &[&str]| {
        let versions = names.iter().map(|name| (*name).to_owned()).collect();
        Event::Reloaded { versions, second_person: false }
    };
    let mut stage = halfway();
    assert_eq!(stage.send(file(&["v41", "v42", "v43"])), []);
    let mut other = stage.clone();
    other.send(file(&["v41"]));
    assert_eq!((other.phase(), other.weights()), (Phase::Aborted, weights(&[("v41", 100.0)])));
    stage.send(file(&["v42"]));
    assert_eq!(stage.phase(), Phase::Aborted, "there is no way back any more");
    assert_eq!(stage.rollout.share(), 1.0);
}
