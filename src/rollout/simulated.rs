//! Rollouts by random plans under random events. Whatever happens, a rollout takes no transition outside the
//! table, never counts time that nobody watched, never grows in a frozen window, never ends with players on an ejected version, restores exactly the
//! split before, and ends, or shows what it waits for.
//!
//! `cargo test` runs 2,000 of them; the variable `TIDEGATE_ROLLOUTS` sets another number.

mod world;

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;

use self::world::World;
use super::{
    FRESH, MOST_GAP,
    event::{Action, Event},
    gate::{GateReply, Reply},
    phase::{On, Phase, TRANSITIONS, is_legal},
    split::share,
    state::{Entry, Missing, Outcome, Rollout},
};
use crate::config::schema::GateQuestion;

/// Most events of a rollout before the quiet at its end.
const EVENTS: u32 = 300;

/// Ticks of the quiet: enough for all steps.
const QUIET: u32 = 3_000;

/// How often each transition was taken.
type Taken = BTreeMap<(Phase, On, Phase), u64>;

/// Checks what `event` made of `before`.
fn check(
    world: &World,
    before: &Rollout,
    event: &Event,
    after: &Rollout,
    actions: &[Action],
    taken: &mut Taken,
) {
    let told = || format!("{event:?} of {before:#?}: {actions:#?}");
    let mut phase = before.phase;
    let (mut finished, mut broke_in) = (None, false);
    for action in actions {
        assert_eq!(finished, None, "nothing follows the end: {}", told());
        match action {
            Action::Record(entry) => {
                assert_eq!(entry.from, phase, "{}", told());
                assert!(is_legal(entry.from, entry.on, entry.to), "{}", told());
                *taken.entry((entry.from, entry.on, entry.to)).or_default() += 1;
                earned(before, event, after, entry);
                smoked(world, event, after, entry);
                phase = entry.to;
                broke_in |= entry.break_in.is_some() && matches!(entry.on, On::Grow | On::Bake);
            }
            Action::SetWeights(weights) => {
                let sum: f64 = weights.values().map(|weight| weight.value()).sum();
                assert!(sum > 0.0, "nobody serves: {}", told());
            }
            Action::Finish(outcome) => finished = Some(*outcome),
            Action::Warn(text) => assert!(!text.contains("no transition"), "{text}"),
            Action::RunSmoke { .. } | Action::CallWebhook { .. } => {}
        }
    }
    assert_eq!(after.phase, phase, "{}", told());
    assert_eq!(
        finished.map(Outcome::phase),
        after.phase.is_end().then_some(after.phase).filter(|end| *end != before.phase),
        "{}",
        told()
    );
    lasts(world, before, event, after);
    grows(world, before, event, after, broke_in);
    stays(before, event, after);
    if let Some(outcome) = finished {
        ends(world, before, event, after, outcome);
    }
    let is_waiting = matches!(after.phase, Phase::Pending | Phase::Holding);
    if matches!(event, Event::Tick(_)) && is_waiting {
        assert!(!after.missing.is_empty(), "it waits for nothing: {}", told());
    }
}

/// The rollout's clock shows the time between two ticks: not what the wall clock was set by, and nothing of a gap in
/// which nobody watched.
fn lasts(world: &World, before: &Rollout, event: &Event, after: &Rollout) {
    let is_first = before.last_tick_ms.is_none();
    let counts = matches!(event, Event::Tick(_)) && !is_first && world.passed <= MOST_GAP;
    let expected = if counts { world.passed } else { Duration::ZERO };
    let shown = Duration::from_millis(after.clock_ms - before.clock_ms);
    assert_eq!(shown, expected, "{event:?} of {before:#?}");
}

/// More players come on a tick only, and in a frozen window only by breaking in. The way back may give the
/// version what it had before, if somebody had taken that away by hand.
fn grows(world: &World, before: &Rollout, event: &Event, after: &Rollout, broke_in: bool) {
    let most = before.share().max(share(&world.before, &after.to));
    let by_hand = matches!(event, Event::WeightsByHand { .. });
    let reload = matches!(event, Event::Reloaded { .. });
    let is_step = matches!(after.phase, Phase::Growing | Phase::Baking);
    let serves = is_step && after.share_served() > before.share_served() + 1e-9;
    if (after.share() <= most + 1e-9 && !serves) || by_hand || reload {
        return;
    }
    let Event::Tick(seen) = event else { panic!("grown by {event:?}: {after:#?}") };
    if let (Some(frozen), Some(leave)) = (&seen.frozen, &after.break_in) {
        let mut names = frozen.names();
        assert!(names.all(|name| *name == leave.window || leave.also.contains(name)), "{after:#?}");
    }
    assert!(seen.frozen.is_none() || broke_in, "grown in {:?}: {after:#?}", seen.frozen);
    assert_eq!(seen.unreached, None, "grown to a version that is not there: {after:#?}");
    assert!(matches!(after.phase, Phase::Growing | Phase::Baking), "{after:#?}");
}

/// No tick takes players away while nothing else serves, nor does a version that is kept take a step.
fn stays(before: &Rollout, event: &Event, after: &Rollout) {
    let Event::Tick(seen) = event else { return };
    let goes_back = matches!(after.phase, Phase::RollingBack | Phase::RolledBack | Phase::Aborted);
    if goes_back && (seen.kept.is_some() || seen.stranded.is_some()) {
        assert!(after.share() >= before.share() - 1e-9, "{event:?} of {before:#?}: {after:#?}");
    }
    let new = after.entries.iter().skip(before.entries.len());
    let has_grown =
        new.filter(|entry| matches!(entry.on, On::Grow | On::Bake | On::Finish)).count();
    assert!(seen.kept.is_none() || has_grown == 0, "{event:?} of {before:#?}: {after:#?}");
}

/// A step is left for the next one, or for the end, only if its least time and requests are over and its gates
/// pass, or somebody promoted it.
fn earned(before: &Rollout, event: &Event, after: &Rollout, entry: &Entry) {
    let is_left = matches!(entry.on, On::Grow | On::Bake | On::Finish);
    if !is_left || entry.from == Phase::Pending || before.progress.promoted.is_some() {
        return;
    }
    let Event::Tick(seen) = event else { panic!("left by {event:?}: {after:#?}") };
    let (step, progress) = (before.plan.step(before.step), &before.progress);
    let elapsed_ms = after.clock_ms - before.clock_ms;
    let watched = Duration::from_millis(progress.watched_ms + elapsed_ms);
    let told = || format!("{seen:?}: {before:#?}");
    assert!(step.bake.or(step.least).is_none_or(|least| watched >= least), "{}", told());
    let new = before
        .last_requests
        .map_or(0, |last| seen.requests.checked_sub(last).unwrap_or(seen.requests));
    assert!(step.requests.is_none_or(|least| progress.requests + new >= least), "{}", told());
    let is_over = step.bake.or(step.within).is_some_and(|most| watched >= most);
    for (index, gate) in step.gates.iter().enumerate() {
        let measured = |said: &Option<GateReply>| said.as_ref().map(|said| said.reply);
        let answered = match &gate.question {
            GateQuestion::Evidence if seen.incomparable.is_some() => None,
            GateQuestion::Evidence => match measured(&seen.evidence) {
                Some(Reply::Undecided) | None if is_over => Some(Reply::Pass),
                other => other,
            },
            GateQuestion::Slo => measured(&seen.slo),
            GateQuestion::Amounts => measured(&seen.amounts),
            GateQuestion::Approval => {
                let approval = progress.approval.as_ref().filter(|said| said.approves);
                let own = approval.is_some_and(|said| said.by == before.by);
                assert!(!(own && before.second_person), "{}", told());
                approval.map(|_| Reply::Pass)
            }
            GateQuestion::Smoke(_) | GateQuestion::Webhook(_) => {
                let ask = progress.asks.get(index).map_or(0, |ask| ask.open);
                let mut now = seen.replies.iter().filter(|(number, _)| *number == ask && ask > 0);
                let earlier = progress.replies.get(index).and_then(Option::as_ref);
                now.next().map(|(_, said)| said).or(earlier).map(|said| said.reply)
            }
        };
        assert_eq!(answered, Some(Reply::Pass), "gate {index}: {}", told());
    }
}

/// A step begins only straight after its own smoke checks have passed, in the eyes of whoever watches.
fn smoked(world: &World, event: &Event, after: &Rollout, entry: &Entry) {
    if !matches!(entry.on, On::Grow | On::Bake) {
        return;
    }
    let Event::Tick(_) = event else { panic!("grown by {event:?}") };
    for gate in &after.plan.step(entry.step).gates {
        let GateQuestion::Smoke(name) = &gate.question else { continue };
        let mut passed = world.passes.iter().filter(|(of, _)| of == name);
        let is_fresh = |at_ms: &u64| after.clock_ms - at_ms < FRESH.as_millis() as u64;
        assert!(passed.any(|(_, at_ms)| is_fresh(at_ms)), "{name}: {:?}: {after:#?}", world.passes);
    }
}

/// The weights at the end agree with the outcome.
fn ends(world: &World, before: &Rollout, event: &Event, after: &Rollout, outcome: Outcome) {
    let is_out = world.ejected.contains(&after.to);
    assert!(
        !is_out || after.share_served() == 0.0,
        "ended with players on an ejected version: {after:#?}"
    );
    let is_gone = matches!(event, Event::Reloaded { .. });
    let stays = before.by_hand && matches!(event, Event::Abort { .. } | Event::Ejected { .. });
    let is_back = matches!(outcome, Outcome::RolledBack | Outcome::Aborted);
    if is_back && !is_gone && !stays && !matches!(event, Event::WeightsByHand { .. }) {
        assert_eq!(after.weights, world.before, "by {event:?}: {after:#?}");
    }
    if outcome == Outcome::Done {
        assert!(after.share() > 1.0 - 1e-9, "{after:#?}");
    }
}

/// One rollout. Returns its last phase.
fn run(seed: u64, taken: &mut Taken) -> Phase {
    let mut rng = Rng::with_seed(seed);
    let (mut world, mut rollout) = loop {
        let mut world = World::new(rng.fork());
        if let Some(rollout) = world.start() {
            break (world, rollout);
        }
    };
    let mut step = |world: &mut World, rollout: &mut Rollout, event: Event| {
        let Ok((after, actions)) = super::apply(rollout, event.clone(), world.now) else { return };
        if let Event::Tick(seen) = &event {
            world.note_passes(seen, after.clock_ms);
        }
        check(world, rollout, &event, &after, &actions, taken);
        world.carry_out(&actions);
        *rollout = after;
        let is_over = matches!(rollout.phase, Phase::RolledBack | Phase::Aborted);
        assert!(is_over || world.weights == rollout.weights, "{event:?}: {rollout:#?}");
    };
    for _ in 0..EVENTS {
        let event = world.event(&rollout);
        step(&mut world, &mut rollout, event);
        if world.rng.u8(..) < 8 {
            // A restart: only the state survives, and no open question does.
            world.restart();
            let text = serde_json::to_string(&rollout).expect("JSON");
            let read: Rollout = serde_json::from_str(&text).expect("the same");
            assert_eq!(read, rollout);
            rollout = read.resumed();
        }
        if rollout.phase.is_end() && world.rng.u8(..) < 40 {
            break;
        }
    }
    // Quiet at last: whatever can go on does.
    for _ in 0..QUIET {
        if rollout.phase.is_end() || rollout.phase == Phase::Paused {
            break;
        }
        let event = world.quiet_tick();
        step(&mut world, &mut rollout, event);
    }
    let holds = rollout.phase == Phase::Paused || !rollout.missing.is_empty();
    assert!(rollout.phase.is_end() || holds, "neither ends nor holds: {rollout:#?}");
    // Time alone would have ended a step; a bake may lack an approval.
    let lacks = rollout.missing.iter().any(|missing| matches!(missing, Missing::Gate { .. }));
    let is_lost = rollout.phase == Phase::Growing || (rollout.phase == Phase::Baking && !lacks);
    assert!(!is_lost, "it waits for time that has passed: {rollout:#?}");
    rollout.phase
}

#[test]
fn no_events_lead_a_rollout_astray() {
    let runs = std::env::var("TIDEGATE_ROLLOUTS").ok().and_then(|text| text.parse().ok());
    let runs: u64 = runs.unwrap_or(2_000);
    let (mut taken, mut last) = (Taken::new(), BTreeMap::<Phase, u64>::new());
    for seed in 0..runs {
        *last.entry(run(seed, &mut taken)).or_default() += 1;
    }
    println!("{runs} rollouts; last phases {last:?}; transitions:");
    for ((from, on, to), times) in &taken {
        println!("{times:>9} {from} {on} {to}");
    }
    // Else it would show nothing about these; `machine/tests/table.rs` takes each of them.
    let known = TRANSITIONS.iter().filter(|row| taken.contains_key(&(row.from, row.on, row.to)));
    let known = known.count();
    assert!(known + 3 >= TRANSITIONS.len() || runs < 2_000, "{known} transitions were taken");
    for end in [Phase::Done, Phase::RolledBack, Phase::Aborted] {
        assert!(last.contains_key(&end) || runs < 2_000, "never {end}");
    }
}
