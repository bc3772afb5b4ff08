//! Smoke checks and webhooks: when they are asked, and which reply counts.

use super::*;

/// The numbers of the questions among `actions`.
pub(super) fn asked(actions: &[Action]) -> Vec<u64> {
    let ask = |action: &Action| match action {
        Action::RunSmoke { ask, .. } | Action::CallWebhook { ask, .. } => Some(*ask),
        _ => None,
    };
    actions.iter().filter_map(ask).collect()
}

#[test]
fn smoke_checks_run_before_the_first_players_and_after_each_switch() {
    let plan = r#"[{"weight":"1%","gates":[{"smoke":"login"}]},{"weight":"100%"}]"#;
    let mut stage = Stage::new(plan);
    let runs = |actions: &[Action]| {
        let ask = |action: &Action| match action {
            Action::RunSmoke { ask, name } if name == "login" => Some(*ask),
            _ => None,
        };
        actions.iter().filter_map(ask).collect::<Vec<u64>>()
    };
    let first = runs(&stage.tick(0));
    assert_eq!(runs(&stage.tick(1)), [0; 0], "one is running");
    assert_eq!(stage.phase(), Phase::Pending);
    stage.reply(first[0], Reply::Pass);
    let second = runs(&stage.tick(1));
    assert_eq!((stage.phase(), second.len()), (Phase::Growing, 1));
    // The answer of the first run is not that of the second one.
    stage.reply(first[0], Reply::Pass);
    stage.tick(1);
    assert_eq!(stage.rollout.step, 0);
    stage.reply(second[0], Reply::Fail);
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::RolledBack, "straight after the switch");

    let mut stage = Stage::new(plan);
    let first = runs(&stage.tick(0));
    stage.reply(first[0], Reply::Fail);
    let actions = stage.tick(1);
    assert_eq!(stage.phase(), Phase::RolledBack);
    let sets = actions.iter().filter(|action| matches!(action, Action::SetWeights(_))).count();
    assert_eq!(sets, 0, "nobody had been sent there");
}

/// Regression: the check of a rollout that had been given up answered the gate of the next one.
#[test]
fn a_reply_to_an_ended_rollout_is_none_to_the_next_one() {
    let gates = [r#"{"smoke":"login"}"#, r#"{"webhook":{"url":"http://gate/"}}"#];
    for (gate, reply) in gates.iter().flat_map(|g| [(g, Reply::Pass), (g, Reply::Fail)]) {
        let plan = format!(r#"[{{"weight":"1%","gates":[{gate}]}},{{"weight":"100%"}}]"#);
        let mut first = Stage::new(&plan);
        let late = asked(&first.tick(1));
        assert_eq!(late.len(), 1, "{gate}");
        first.send(Event::Abort { by: "bo".into(), reason: "wrong build".into() });
        let mut request = stage::request(&plan);
        request.to = "v43".to_owned();
        let next = super::start(request, Some(&first.rollout), first.now);
        let mut next = Stage::from(first, next.expect("the first has ended").0);
        let own = asked(&next.tick(1));
        assert!(own.len() == 1 && own != late, "{gate}: {own:?} after {late:?}");
        // A webhook that has not answered holds.
        next.tick(1);
        let before = next.rollout.clone();
        next.reply(late[0], reply);
        next.tick(1);
        assert_eq!(next.rollout.progress.replies, before.progress.replies, "{gate}");
        assert_eq!((next.phase(), next.rollout.step), (before.phase, 0), "{gate} {reply:?}");
        next.reply(own[0], reply);
        next.tick(1);
        let heard = |of: &Rollout| (of.phase, of.progress.replies.clone());
        assert_ne!(heard(&next.rollout), heard(&before), "{gate} {reply:?}");
    }
}

#[test]
fn webhooks_are_asked_again_and_a_lost_answer_too() {
    let plan = r#"[{"weight":"1%","for":"1h","gates":[{"webhook":{"url":"http://gate/"}}]},{"weight":"100%"}]"#;
    let mut stage = Stage::new(plan);
    let first = asked(&stage.tick(0));
    assert_eq!(first.len(), 1);
    stage.reply(first[0], Reply::Pass);
    assert_eq!(asked(&stage.tick(1)), [0; 0]);
    stage.tick(9);
    let second = asked(&stage.tick(1));
    assert_eq!(second.len(), 1, "it may fail later");
    // A restart: the answer never comes.
    let text = serde_json::to_string(&stage.rollout).expect("JSON");
    stage.rollout = serde_json::from_str(&text).expect("the same");
    let again: Vec<u64> = (0..25).flat_map(|_| asked(&stage.tick(1))).collect();
    assert_eq!(again.len(), 1);
    stage.reply(second[0], Reply::Fail);
    stage.tick(1);
    assert_ne!(stage.phase(), Phase::Holding, "an answer to a question that was asked again");
    stage.reply(again[0], Reply::Fail);
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::Holding);
}

/// Regression: after a takeover a rollout waited five minutes for the check that the process before had begun.
#[test]
fn what_another_process_asked_is_asked_again_at_once() {
    let gates = [r#"{"smoke":"login"}"#, r#"{"webhook":{"url":"http://gate/","timeout":"1m"}}"#];
    for gate in gates {
        let plan = format!(r#"[{{"weight":"1%","gates":[{gate}]}},{{"weight":"100%"}}]"#);
        let mut stage = Stage::new(&plan);
        let lost = asked(&stage.tick(1));
        assert_eq!((lost.len(), asked(&stage.tick(1))), (1, vec![]), "{gate}");
        let text = serde_json::to_string(&stage.rollout).expect("JSON");
        let read: Rollout = serde_json::from_str(&text).expect("the same");
        stage.rollout = read.resumed();
        let again = asked(&stage.tick(1));
        assert!(again.len() == 1 && again != lost, "{gate}: {again:?} after {lost:?}");
        let heard = |stage: &Stage| (stage.phase(), stage.rollout.progress.replies.clone());
        let before = heard(&stage);
        stage.reply(lost[0], Reply::Fail);
        assert_eq!(asked(&stage.tick(1)), [0; 0], "{gate}");
        assert_eq!(heard(&stage), before, "{gate}");
        stage.reply(again[0], Reply::Pass);
        stage.tick(1);
        assert_ne!(heard(&stage), before, "{gate}");
    }
}
