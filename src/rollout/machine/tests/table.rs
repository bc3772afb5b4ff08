//! Every transition of the table is taken, and no other one: each kind of event in each phase.

use std::collections::BTreeSet;

use super::stage::{PLAN, Stage, weights};
use crate::rollout::{
    event::{Action, Event, Refused},
    gate::Reply,
    phase::{On, Phase, TRANSITIONS, is_possible},
    state::Frozen,
};

/// Rollouts in all phases, some in several ways.
fn stages() -> Vec<Stage> {
    let mut stages = vec![Stage::new(PLAN), Stage::new(r#"[{"weight":"100%","bake":"1m"}]"#)];
    let mut smoked = Stage::new(r#"[{"weight":"1%","gates":[{"smoke":"s"}]},{"weight":"100%"}]"#);
    smoked.tick(0);
    stages.push(smoked);
    let mut growing = Stage::new(PLAN);
    growing.tick(0);
    stages.push(growing.clone());
    growing.pass().wait(119);
    stages.push(growing.clone());
    let mut holding = growing.clone();
    holding.seen.evidence = None;
    holding.wait(1);
    stages.push(holding);
    growing.wait(30);
    stages.push(growing.clone());
    growing.wait(600);
    assert_eq!(growing.phase(), Phase::Holding);
    stages.push(growing.clone());
    let approval = Event::Approve { by: "ana".into(), approves: true, reason: String::new() };
    growing.send(approval);
    stages.push(growing.clone());
    growing.tick(1);
    assert_eq!(growing.phase(), Phase::Baking);
    stages.push(growing.clone());
    growing.wait(3599);
    stages.push(growing.clone());
    growing.wait(1);
    stages.push(growing);
    let mut signal = Stage::new(
        r#"[{"weight":"1%","for":"1m","gates":[{"slo":{"kind":"signal"}}]},{"weight":"100%","gates":[{"slo":{"kind":"signal"}}]}]"#,
    );
    signal.tick(0);
    signal.seen.slo = Some(Reply::Fail.because("slow"));
    signal.tick(1);
    stages.push(signal.clone());
    signal.pass().wait(59);
    assert_eq!((signal.phase(), signal.rollout.step), (Phase::Growing, 1));
    stages.push(signal.clone());
    signal.seen.slo = None;
    signal.tick(1);
    stages.push(signal);
    let approval =
        r#"[{"weight":"1%","for":"1m"},{"weight":"100%","bake":"1m","gates":["approval"]}]"#;
    let mut baking = Stage::new(approval);
    baking.wait(60);
    assert_eq!(baking.phase(), Phase::Growing);
    stages.push(baking.clone());
    baking.wait(1);
    assert_eq!(baking.phase(), Phase::Baking);
    stages.push(baking);
    let mut at_once = Stage::new(r#"[{"weight":"100%"}]"#);
    at_once.tick(0);
    stages.push(at_once);
    let mut resumed = Stage::new(PLAN);
    resumed.set_by_hand(&[("v41", 80.0), ("v42", 20.0)]);
    resumed.send(Event::Resume { by: "bo".into(), reason: String::new() });
    stages.push(resumed);
    // Two versions share the players, of whom a file may lack one.
    for plan in [PLAN, r#"[{"weight":"100%","bake":"1m"}]"#] {
        let split = || weights(&[("v40", 1.0), ("v41", 99.0)]);
        let pending = Stage::with(plan, |start| start.weights = split());
        let mut begun = pending.clone();
        begun.tick(0);
        let mut waits = begun.clone();
        waits.tick(130);
        stages.extend([pending, begun, waits]);
    }
    // Each of them paused, in the three ways, and on its way back.
    let mut all = stages.clone();
    for stage in stages {
        let pause = Event::Pause { by: "bo".into(), reason: String::new() };
        let rollback = Event::Rollback { by: "bo".into(), reason: String::new(), at_once: false };
        let abort = Event::Abort { by: "bo".into(), reason: String::new() };
        for event in [pause, rollback, abort] {
            let mut stage = stage.clone();
            stage.send(Event::Baseline { ready: false });
            if stage.try_send(event).is_ok() {
                all.push(stage);
            }
        }
        let mut stage = stage;
        stage.set_by_hand(&[("v41", 80.0), ("v42", 20.0)]);
        all.push(stage);
    }
    all
}

fn events() -> Vec<Event> {
    let (by, reason) = (|| "ana".to_owned(), || "a reason".to_owned());
    let eject = |version: &str| Event::Ejected { version: version.into(), reason: reason() };
    vec![
        Event::Pause { by: by(), reason: reason() },
        Event::Resume { by: by(), reason: reason() },
        Event::Promote { by: by(), reason: reason() },
        Event::Approve { by: by(), approves: true, reason: reason() },
        Event::BreakIn { by: by(), second: None, reason: reason() },
        Event::Rollback { by: by(), reason: reason(), at_once: true },
        Event::Abort { by: by(), reason: reason() },
        eject("v42"),
        eject("v41"),
        Event::WeightsByHand { weights: weights(&[("v41", 1.0)]), by: by() },
        reloaded(&["v41"]),
        reloaded(&["v41", "v42"]),
        Event::Baseline { ready: true },
    ]
}

/// Another file with these versions.
fn reloaded(versions: &[&str]) -> Event {
    let versions = versions.iter().map(|name| (*name).to_owned()).collect();
    Event::Reloaded { versions, heirs: weights(&[("v41", 1.0)]), second_person: false }
}

/// The command of an event; none if it is not one.
fn command(event: &Event) -> Option<On> {
    Some(match event {
        Event::Pause { .. } => On::Pause,
        Event::Resume { .. } => On::Resume,
        Event::Promote { .. } => On::Promote,
        Event::Approve { .. } => On::Approve,
        Event::BreakIn { .. } => On::BreakIn,
        Event::Rollback { .. } => On::Rollback,
        Event::Abort { .. } => On::Abort,
        _ => return None,
    })
}

#[test]
fn each_transition_of_the_table_is_taken_and_no_other_one() {
    let mut taken = BTreeSet::new();
    let mut take = |actions: &[Action]| {
        for action in actions {
            if let Action::Record(entry) = action {
                taken.insert((entry.from, entry.on, entry.to));
            }
        }
    };
    for stage in stages() {
        for event in events() {
            let (mut stage, phase) = (stage.clone(), stage.phase());
            if matches!(event, Event::BreakIn { .. }) {
                let window = "a".to_owned();
                stage.rollout.frozen = Some(Frozen {
                    window,
                    also: Vec::new(),
                    since_unix_ms: Default::default(),
                    until_unix_ms: None,
                    second_person: false,
                });
            }
            let command = command(&event);
            match stage.try_send(event.clone()) {
                Ok(actions) => {
                    take(&actions);
                    assert!(command.is_none_or(|on| is_possible(phase, on)), "{phase} {event:?}");
                    let ended = matches!(phase, Phase::RolledBack | Phase::Aborted);
                    assert!(!ended || actions.is_empty(), "{phase} {event:?}: {actions:?}");
                }
                Err(Refused::Phase { phase: said, on, .. }) => {
                    assert_eq!((said, Some(on)), (phase, command));
                    assert!(!is_possible(phase, on), "{phase} {on}");
                }
                Err(Refused::Rule(why)) => assert!(why.contains("; "), "{why}"),
                Err(other) => panic!("{other}"),
            }
        }
        // Time passes in each of them: what measures passes, fails, or says nothing.
        for reply in [Some(Reply::Pass), Some(Reply::Fail), None] {
            let mut stage = stage.clone();
            let said = reply.map(|reply| reply.because("said"));
            stage.seen.evidence.clone_from(&said);
            stage.seen.slo.clone_from(&said);
            if let Some(reply) = reply {
                (1..9).for_each(|ask| stage.reply(ask, reply));
            }
            take(&stage.tick(1));
            (0..62).for_each(|_| take(&stage.tick(1)));
        }
    }
    let table: BTreeSet<_> = TRANSITIONS.iter().map(|row| (row.from, row.on, row.to)).collect();
    let never: Vec<_> = table.difference(&taken).collect();
    assert!(never.is_empty(), "never taken: {never:?}");
    let others: Vec<_> = taken.difference(&table).collect();
    assert!(others.is_empty(), "not in the table: {others:?}");
}
