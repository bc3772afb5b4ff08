//! What the journal is told: what was decided, by whom, and what the gates said that it rests on; and why a rollout is in
//! its phase.

use super::*;
use crate::rollout::Judged;

fn entries(actions: Vec<Action>) -> Vec<Entry> {
    let each = actions.into_iter().filter_map(|action| match action {
        Action::Record(entry) => Some(*entry),
        _ => None,
    });
    each.collect()
}

fn said(judged: &Judged) -> Vec<String> {
    let gates = judged.gates.iter();
    gates.map(|said| format!("{} {}: {}", said.gate, said.reply.label(), said.why)).collect()
}

fn approval(approves: bool, reason: &str) -> Event {
    Event::Approve { by: "ana".to_owned(), approves, reason: reason.to_owned() }
}

/// A rollout whose second step has lasted and waits for its approval.
fn waiting() -> Stage {
    let mut stage = Stage::new(PLAN);
    stage.tick(0);
    stage.pass().wait(130 + 605);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Holding, 1));
    stage
}

/// Regression: both were `approve` in the journal.
#[test]
fn an_approval_and_a_refusal_are_told_apart() {
    let mut stage = waiting();
    let refused = entries(stage.send(approval(false, "too slow")));
    assert_eq!((refused[0].decided(), refused[0].approves), ("reject", Some(false)));
    let approved = entries(stage.send(approval(true, "")));
    assert_eq!((approved[0].decided(), approved[0].approves), ("approve", Some(true)));
    // An entry of an earlier release does not say.
    let mut old = serde_json::to_value(&refused[0]).expect("JSON");
    old.as_object_mut().expect("an object").remove("approves");
    let old: Entry = serde_json::from_value(old).expect("an entry");
    assert_eq!((old.decided(), old.judged), ("approve", None));
}

/// Regression: the entry of a step did not say why it was allowed.
#[test]
fn a_step_rests_on_what_the_gates_of_the_step_before_said() {
    let mut stage = Stage::new(PLAN);
    let first = entries(stage.tick(0));
    assert_eq!((first[0].on, &first[0].judged), (On::Grow, &None), "nothing was judged yet");
    stage.seen.requests = 40;
    stage.pass().wait(119);
    let grown = entries(stage.tick(1));
    let judged = grown[0].judged.as_ref().expect("it was judged");
    assert_eq!((judged.step, judged.watched_s, judged.requests), (1, 120.0, 40));
    assert_eq!(said(judged), ["evidence pass: good"]);
    assert!(stage.rollout.entries.iter().all(|entry| entry.judged.is_none()), "not remembered");

    let mut stage = waiting();
    stage.send(approval(true, ""));
    let baked = entries(stage.tick(1));
    assert_eq!(baked[0].on, On::Bake);
    let judged = baked[0].judged.as_ref().expect("it was judged");
    assert_eq!(said(judged), ["evidence pass: good", "approval pass: ana approves"]);
    let done = entries(stage.tick(3_600));
    let finished = done.last().expect("an entry");
    assert_eq!((finished.on, finished.judged.as_ref().map(|j| j.step)), (On::Finish, Some(3)));
}

#[test]
fn a_rollback_by_a_gate_and_a_promotion_have_the_replies_too() {
    let mut stage = waiting();
    let reason = "seen enough".to_owned();
    let promoted = entries(stage.send(Event::Promote { by: "ana".to_owned(), reason }));
    let skipped = promoted[0].judged.as_ref().expect("what it skips");
    assert_eq!(said(skipped)[1], "approval undecided: waits for an approval");
    let baked = entries(stage.tick(1));
    let judged = baked[0].judged.as_ref().expect("it was judged");
    assert_eq!(judged.promoted_by.as_deref(), Some("ana"));

    for is_paused in [false, true] {
        let mut stage = waiting();
        if is_paused {
            stage.send(Event::Pause { by: "ana".to_owned(), reason: String::new() });
        }
        stage.seen.evidence = Some(Reply::Fail.because("3 % of its requests fail"));
        let back = entries(stage.tick(1));
        assert_eq!([back[0].on, back[1].on], [On::Guardrail, On::Restored]);
        let judged = back[0].judged.as_ref().expect("it was judged");
        assert_eq!(said(judged)[0], "evidence fail: 3 % of its requests fail");
    }
}

#[test]
fn the_cause_is_that_of_the_phase_in_force_whatever_happened_since() {
    let mut stage = waiting();
    stage.send(Event::Pause { by: "ana".to_owned(), reason: String::new() });
    assert_eq!(stage.rollout.cause, "pause by ana", "also without a reason");
    stage.send(approval(true, "approved"));
    stage.tick(1);
    let last = stage.rollout.entries.last().map(|entry| entry.on);
    assert_eq!((last, &*stage.rollout.cause), (Some(On::Approve), "pause by ana"));
    let reason = "fixed".to_owned();
    stage.send(Event::Resume { by: "ana".to_owned(), reason });
    assert_eq!(stage.rollout.cause, "fixed");
    stage.wait(3_700);
    assert_eq!((stage.phase(), &*stage.rollout.cause), (Phase::Done, "the last step is over"));
    // It is done for the reason it had, though its way back is closed.
    stage.set_by_hand(&[("v41", 50.0), ("v42", 50.0)]);
    assert!(!stage.rollout.way_back);
    let last = stage.rollout.entries.last().map(|entry| entry.on);
    assert_eq!((last, &*stage.rollout.cause), (Some(On::WeightsByHand), "the last step is over"));
}

/// Regression: it was said that the step asks for no approval.
#[test]
fn who_approves_while_weights_by_hand_are_in_force_is_told_to_resume() {
    let mut stage = waiting();
    stage.set_by_hand(&[("v41", 50.0), ("v42", 50.0)]);
    for approves in [true, false] {
        let refused = stage.try_send(approval(approves, "seen")).expect_err("it is paused");
        assert!(refused.to_string().contains("resume it, or abort it"), "{refused}");
    }
}
