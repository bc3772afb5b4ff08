//! The rules of the machine, one by one.

mod asked;
mod before;
mod decided;
mod stage;
mod table;
mod told;
mod ways_back;

use std::time::Duration;

use self::stage::{PLAN, Stage, weights};
use super::*;
use crate::{
    config::units::Weight,
    rollout::{
        gate::{GateReply, Reply},
        state::{Frozen, Missing},
    },
};

fn friday() -> Frozen {
    Frozen {
        window: "friday-peak".to_owned(),
        also: Vec::new(),
        since_unix_ms: Default::default(),
        until_unix_ms: None,
        second_person: false,
    }
}

#[test]
fn it_grows_step_by_step_bakes_and_is_done() {
    let mut stage = Stage::new(PLAN);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Pending, 0.0));
    stage.tick(0);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Growing, 0.01));
    assert_eq!(stage.rollout.missing, [Missing::Time { left_ms: 120_000 }]);
    stage.pass().wait(119);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Growing, 0));
    stage.wait(1);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Growing, 0.5));
    stage.wait(600);
    assert_eq!(stage.phase(), Phase::Holding, "{:?}", stage.rollout.missing);
    stage.send(Event::Approve { by: "ana".into(), approves: true, reason: String::new() });
    stage.tick(1);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Baking, 1.0));
    stage.wait(3599);
    assert_eq!(stage.phase(), Phase::Baking);
    let actions = stage.tick(1);
    assert_eq!(stage.phase(), Phase::Done);
    assert_eq!(actions.last(), Some(&Action::Finish(Outcome::Done)));
    assert_eq!(stage.weights(), weights(&[("v41", 0.0), ("v42", 100.0)]));
}

#[test]
fn requests_are_a_minimum_and_counted_over_a_restart() {
    let mut stage = Stage::new(r#"[{"weight":"1%","requests":100},{"weight":"100%"}]"#);
    stage.seen.requests = 7_000;
    stage.tick(0);
    for (requests, left) in [(7_060, 40), (30, 10), (39, 1)] {
        stage.seen.requests = requests;
        stage.tick(1);
        assert_eq!(stage.rollout.missing, [Missing::Requests { left }]);
    }
    stage.seen.requests = 40;
    stage.tick(1);
    assert_eq!(stage.rollout.step, 1);
}

#[test]
fn time_that_nobody_watched_does_not_count() {
    let mut stage = Stage::new(r#"[{"weight":"1%","for":"10m"},{"weight":"100%"}]"#);
    stage.tick(0);
    stage.wait(60);
    // The process was stopped, for long and again and again for a little.
    stage.tick_after(Duration::from_secs(86_400));
    (0..1000).for_each(|_| drop(stage.tick_after(MOST_GAP + Duration::from_millis(1))));
    assert_eq!(stage.rollout.progress.watched_ms, 60_000);
    // Another process goes on, whose clock began later.
    stage.rollout = stage.rollout.clone().resumed();
    stage.seen.moment = Duration::from_millis(900);
    stage.tick(0);
    assert_eq!(stage.rollout.progress.watched_ms, 60_000);
    stage.tick_after(MOST_GAP);
    assert_eq!(stage.rollout.progress.watched_ms, 62_000);
    stage.wait(537);
    assert_eq!(stage.rollout.step, 0);
    stage.wait(1);
    assert_eq!(stage.rollout.step, 1);
}

/// Regression: a clock that was set forward ended steps, at once or in several jumps.
#[test]
fn a_clock_that_is_set_ends_no_step() {
    let plan = r#"[{"weight":"1%","for":"10m"},{"weight":"100%","bake":"10m"}]"#;
    for jump in [100, 864_000].map(Duration::from_secs) {
        for forward in [true, false] {
            let mut stage = Stage::new(plan);
            stage.tick(0);
            for step in [0, 1] {
                let jumping = |seconds: u64, stage: &mut Stage| {
                    for _ in 0..seconds {
                        match forward {
                            true => stage.now += jump,
                            false => stage.now -= jump,
                        }
                        stage.tick(1);
                    }
                };
                jumping(599, &mut stage);
                assert_eq!((stage.rollout.step, stage.phase().is_end()), (step, false));
                jumping(1, &mut stage);
                assert!(stage.rollout.step > step || stage.phase() == Phase::Done);
            }
        }
    }
}

#[test]
fn a_guardrail_that_fails_goes_back_whenever_it_fails() {
    for seconds in [1, 121, 130, 900] {
        let mut stage = Stage::new(PLAN);
        stage.tick(0);
        stage.pass().wait(seconds);
        stage.seen.evidence = Some(Reply::Fail.because("worse"));
        let actions = stage.tick(1);
        assert_eq!(stage.phase(), Phase::RolledBack);
        assert_eq!(stage.rollout.cause, "evidence fails: worse");
        assert_eq!(stage.weights(), stage.rollout.before);
        assert!(actions.contains(&Action::Finish(Outcome::RolledBack)));
    }
}

#[test]
fn a_signal_that_fails_holds_and_growth_goes_on_by_itself() {
    let mut stage = Stage::new(
        r#"[{"weight":"1%","for":"2m","gates":[{"slo":{"kind":"signal"}}]},{"weight":"100%"}]"#,
    );
    stage.tick(0);
    stage.seen.slo = Some(Reply::Fail.because("slow"));
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::Holding, "before the time is over, too");
    assert_eq!(stage.rollout.cause, "waits for 1m 59s, slo (fail: slow)");
    stage.seen.slo = Some(Reply::Pass.because("fast"));
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::Growing);
    stage.seen.slo = Some(Reply::Fail.because("slow"));
    stage.wait(900);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Holding, 0));
    stage.seen.slo = Some(Reply::Pass.because("fast"));
    stage.tick(1);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Growing, 1));
}

#[test]
fn undecided_holds_until_within_is_over() {
    let plan = |gates: &str| {
        format!(
            r#"[{{"weight":"1%","for":"1m","within":"5m","gates":[{gates}]}},{{"weight":"100%"}}]"#
        )
    };
    let after = |gates: &str, seconds: u64| {
        let mut stage = Stage::new(&plan(gates));
        stage.tick(0);
        stage.wait(seconds);
        (stage.phase(), stage.rollout.step)
    };
    let signal = r#"{"slo":{"kind":"signal"}}"#;
    for gates in ["\"evidence\"", "\"slo\"", signal] {
        assert_eq!(after(gates, 299), (Phase::Holding, 0), "{gates}");
    }
    assert_eq!(after("\"evidence\"", 300), (Phase::Growing, 1), "without a verdict");
    assert_eq!(after("\"slo\"", 300), (Phase::RolledBack, 0));
    assert_eq!(after(signal, 3000), (Phase::Holding, 0));
    // What has passed once was in time, though a window is waited for when it is undecided again.
    let mut stage = Stage::new(&plan("\"slo\""));
    stage.seen.frozen = None;
    stage.tick(0);
    stage.pass().wait(10);
    stage.seen.slo = None;
    stage.wait(600);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Holding, 0));
    // A promotion comes before the time that is left.
    let mut stage = Stage::new(&plan("\"slo\""));
    stage.tick(0);
    stage.wait(299);
    stage.send(Event::Promote { by: "ana".into(), reason: "seen enough".into() });
    stage.tick(1);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Growing, 1));
    // What does not measure any more is undecided, not what it was.
    let mut stage = Stage::new(PLAN);
    stage.tick(0);
    stage.pass().wait(100);
    stage.seen.evidence = None;
    stage.wait(100);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Holding, 0));
}

#[test]
fn growth_is_frozen_by_a_window_and_allowed_by_breaking_in() {
    let mut stage = Stage::new(PLAN);
    stage.seen.frozen = Some(friday());
    stage.wait(100);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Pending, 0.0));
    assert_eq!(stage.rollout.missing, [Missing::Window(friday())]);
    stage.seen.frozen = None;
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::Growing);
    stage.seen.frozen = Some(Frozen { second_person: true, ..friday() });
    stage.pass().wait(200);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Holding, 0.01));
    stage.send(Event::Promote { by: "bo".into(), reason: "a patch".into() });
    stage.tick(1);
    assert_eq!(stage.rollout.share(), 0.01, "a window counts for a promotion, too");
    let mut break_in = |second: Option<&str>, reason: &str| {
        let (second, reason) = (second.map(str::to_owned), reason.to_owned());
        stage.try_send(Event::BreakIn { by: "bo".into(), second, reason })
    };
    for (second, reason) in
        [(None, "P1"), (Some("bo"), "P1"), (Some(" "), "P1"), (Some("ana"), " ")]
    {
        assert!(matches!(break_in(second, reason), Err(Refused::Rule(_))), "{second:?} {reason}");
    }
    break_in(Some("ana"), "P1").expect("two persons and a reason");
    let actions = stage.tick(1);
    assert_eq!(stage.rollout.share(), 0.5);
    let marked = actions.iter().any(|action| match action {
        Action::Record(entry) => {
            entry.break_in.as_ref().is_some_and(|by| by.second.as_deref() == Some("ana"))
        }
        _ => false,
    });
    assert!(marked, "{actions:?}");
    // The leave ends with the window.
    stage.seen.frozen = None;
    stage.tick(1);
    assert_eq!(stage.rollout.break_in, None);
    let none = stage.try_send(Event::BreakIn { by: "bo".into(), second: None, reason: "x".into() });
    assert!(none.is_err());
}

/// Regression: a version that weights by hand had taken off got its players again in a frozen window, because the version
/// of the rollout itself did not grow.
#[test]
fn a_window_freezes_what_a_resumed_rollout_gives_to_any_version() {
    let before = weights(&[("v40", 50.0), ("v41", 50.0)]);
    let mut stage = Stage::with(PLAN, |start| start.weights = before.clone());
    stage.tick(0);
    let off = [("v40", 0.0), ("v41", 99.0), ("v42", 1.0)];
    stage.set_by_hand(&off);
    stage.seen.frozen = Some(friday());
    stage.tick(1);
    stage.send(Event::Resume { by: "bo".into(), reason: String::new() });
    assert_eq!(stage.rollout.missing, [Missing::Window(friday())]);
    stage.wait(10);
    assert_eq!((stage.phase(), stage.weights()), (Phase::Pending, weights(&off)));
    let mut broken_in = stage.clone();
    broken_in.send(Event::BreakIn { by: "bo".into(), second: None, reason: "P1".into() });
    let actions = broken_in.tick(1);
    let is_marked =
        |action: &Action| matches!(action, Action::Record(entry) if entry.break_in.is_some());
    assert!(actions.iter().any(is_marked), "{actions:?}");
    stage.seen.frozen = None;
    stage.tick(1);
    let own = weights(&[("v40", 49.5), ("v41", 49.5), ("v42", 1.0)]);
    for stage in [stage, broken_in] {
        assert_eq!((stage.phase(), stage.weights()), (Phase::Growing, own.clone()));
    }
}

#[test]
fn what_is_left_of_a_step_is_skipped_with_a_reason() {
    let mut stage = Stage::new(PLAN);
    stage.tick(0);
    let promote = |by: &str, reason: &str| Event::Promote { by: by.into(), reason: reason.into() };
    assert!(matches!(stage.try_send(promote("bo", " ")), Err(Refused::Rule(_))));
    stage.send(promote("bo", "seen enough"));
    stage.tick(1);
    assert_eq!((stage.phase(), stage.rollout.share()), (Phase::Growing, 0.5));
    stage.wait(100);
    assert_eq!(stage.rollout.step, 1, "only one step is skipped");
    // A guardrail counts nevertheless.
    stage.send(promote("bo", "seen enough"));
    stage.seen.evidence = Some(Reply::Fail.because("worse"));
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::RolledBack);
    let refused = stage.try_send(promote("bo", "x")).expect_err("it has ended");
    assert_eq!(
        refused.to_string(),
        "`promote` is not possible while the rollout is rolled_back; it has ended, so start another one"
    );
}

#[test]
fn a_second_person_approves_where_the_service_asks_for_one() {
    let mut stage = Stage::with(PLAN, |start| start.second_person = true);
    let approve = |by: &str, approves: bool, reason: &str| Event::Approve {
        by: by.into(),
        approves,
        reason: reason.into(),
    };
    stage.tick(0);
    stage.pass();
    assert!(stage.try_send(approve("ana", true, "")).is_err(), "the first step asks for none");
    stage.wait(800);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Holding, 1));
    assert!(stage.try_send(approve("bo", true, "")).is_err(), "bo started it");
    let promote = Event::Promote { by: "bo".into(), reason: "I am sure".into() };
    assert!(stage.try_send(promote.clone()).is_err(), "nor is that a way around");
    assert!(stage.try_send(approve("ana", false, "")).is_err(), "a refusal has a reason");
    stage.send(approve("ana", false, "the ledger differs"));
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::Holding);
    assert!(stage.rollout.cause.contains("waits for"), "{}", stage.rollout.cause);
    stage.send(approve("ana", true, ""));
    stage.clone().send(promote);
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::Baking);
}

/// Regression: a file that asked for a second person did not bind the rollout in progress: its starter approved it.
#[test]
fn a_file_that_asks_for_a_second_person_binds_the_rollout_in_progress() {
    let mut stage = Stage::new(PLAN);
    let approve = |by: &str| Event::Approve { by: by.into(), approves: true, reason: "".into() };
    stage.tick(0);
    stage.pass().wait(130);
    stage.send(approve("bo"));
    let versions = ["v41", "v42"].map(str::to_owned).into();
    let said = stage.send(Event::Reloaded { versions, heirs: weights(&[]), second_person: true });
    assert!(said.iter().any(|action| matches!(action, Action::Warn(_))), "{said:?}");
    stage.wait(700);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Holding, 1), "what bo said is void");
    assert!(stage.try_send(approve("bo")).is_err());
    stage.send(approve("ana"));
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::Baking);
}

/// Regression: a refusal after a promotion that waited for a window was ignored, and the rollout grew.
#[test]
fn a_refusal_voids_the_promotion_before_it() {
    for second_person in [true, false] {
        let mut stage = Stage::with(PLAN, |start| start.second_person = second_person);
        let approve = |approves: bool| Event::Approve {
            by: "ana".into(),
            approves,
            reason: "the ledger differs".into(),
        };
        let promote = || Event::Promote { by: "bo".into(), reason: "seen enough".into() };
        stage.tick(0);
        stage.pass().wait(120);
        assert_eq!(stage.rollout.step, 1);
        stage.seen.frozen = Some(friday());
        stage.send(approve(true));
        stage.send(promote());
        stage.tick(1);
        assert_eq!(stage.rollout.missing, [Missing::Window(friday())]);
        let said = stage.send(approve(false));
        assert!(said.iter().any(|action| matches!(action, Action::Warn(_))), "{said:?}");
        stage.seen.frozen = None;
        stage.wait(700);
        assert_eq!((stage.phase(), stage.rollout.step), (Phase::Holding, 1), "{second_person}");
        let again = stage.try_send(promote());
        assert_eq!(again.is_err(), second_person, "the starter needs a new approval");
        stage.send(approve(true));
        stage.tick(1);
        assert_eq!(stage.phase(), Phase::Baking);
    }
}

#[test]
fn a_pause_stops_time_and_not_guardrails() {
    let mut stage = Stage::new(PLAN);
    stage.tick(0);
    stage.pass().wait(60);
    stage.send(Event::Pause { by: "bo".into(), reason: "lunch".into() });
    stage.wait(3000);
    assert_eq!((stage.phase(), stage.rollout.progress.watched_ms), (Phase::Paused, 60_000));
    stage.send(Event::Resume { by: "bo".into(), reason: String::new() });
    stage.wait(59);
    assert_eq!((stage.phase(), stage.rollout.step), (Phase::Growing, 0));
    stage.wait(1);
    assert_eq!(stage.rollout.step, 1);
    stage.send(Event::Pause { by: "bo".into(), reason: "lunch".into() });
    stage.seen.evidence = Some(Reply::Fail.because("worse"));
    stage.tick(1);
    assert_eq!(stage.phase(), Phase::RolledBack);
}

#[test]
fn a_second_rollout_and_one_without_a_way_back_are_refused() {
    let stage = Stage::new(PLAN);
    let start = |change: &dyn Fn(&mut Start)| {
        let mut start = stage::request(PLAN);
        change(&mut start);
        super::start(start, Some(&stage.rollout), stage.now).map(|_| ())
    };
    let error = start(&|_| {}).expect_err("one is running");
    assert!(matches!(&error, Refused::Running { to, phase: Phase::Pending, .. } if to == "v42"));
    let alone = |change: &dyn Fn(&mut Start)| {
        let mut start = stage::request(PLAN);
        change(&mut start);
        super::start(start, None, stage.now).map(|(rollout, actions)| (rollout.step, actions.len()))
    };
    assert!(alone(&|start| start.ejected = ["v42".to_owned()].into()).is_err());
    assert!(alone(&|start| start.ejected = ["v41".to_owned()].into()).is_err());
    assert!(alone(&|start| start.weights = weights(&[("v42", 3.0), ("v41", 0.0)])).is_err());
    assert!(alone(&|start| start.weights = weights(&[("v41", 0.0)])).is_err());
    // It has 5 % already: the step of 1 % would take players away.
    let has = alone(&|start| start.weights = weights(&[("v41", 95.0), ("v42", 5.0)]));
    assert_eq!(has, Ok((1, 1)));
    assert_eq!(alone(&|_| {}), Ok((0, 0)));
    let weight = |w| Weight::new(w).expect("a weight");
    assert_eq!(stage.rollout.before["v41"], weight(100.0));
}

#[test]
fn an_urgent_rollout_warns_when_little_time_is_left_and_when_none_is() {
    let mut stage = Stage::with(PLAN, |request| request.urgent = true);
    let warns = |actions: Vec<Action>| -> Vec<String> {
        let each = actions.into_iter().filter_map(|action| match action {
            Action::Warn(message) => Some(message),
            _ => None,
        });
        each.collect()
    };
    let later = |stage: &mut Stage, seconds: u64| stage.tick_after(Duration::from_secs(seconds));
    assert_eq!(warns(stage.tick(1)), Vec::<String>::new());
    let soon = warns(later(&mut stage, 22 * 3600));
    assert!(matches!(&*soon, [message] if message.contains("1h 59m 59s are left")), "{soon:?}");
    assert_eq!(warns(later(&mut stage, 60)), Vec::<String>::new());
    let over = warns(later(&mut stage, 2 * 3600));
    assert!(matches!(&*over, [message] if message.contains("its time is over")), "{over:?}");
    assert_eq!(warns(later(&mut stage, 60)), Vec::<String>::new());
}

/// Regression: leave for a window that one person may break into opened one that asks for two.
#[test]
fn leave_to_grow_ends_when_a_window_begins_that_asks_for_more_and_at_its_time() {
    let mut stage = Stage::new(PLAN);
    let at = |stage: &Stage| {
        stage.now.duration_since(std::time::SystemTime::UNIX_EPOCH).expect("a time").as_millis()
            as u64
    };
    let until_unix_ms = Some(at(&stage) + 3_600_000);
    stage.seen.frozen = Some(Frozen { until_unix_ms, ..friday() });
    stage.tick(1);
    let leave = || Event::BreakIn { by: "bo".into(), second: None, reason: "P1".into() };
    stage.send(leave());
    let mut other = stage.clone();
    stage.seen.frozen = Some(Frozen { second_person: true, until_unix_ms, ..friday() });
    stage.tick(1);
    assert_eq!((stage.phase(), &stage.rollout.break_in), (Phase::Pending, &None));
    // The same window a week later, and no tick between.
    other.now += Duration::from_secs(3_600);
    other.tick(0);
    assert_eq!((other.phase(), &other.rollout.break_in), (Phase::Pending, &None));
}
