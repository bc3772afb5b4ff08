//! The state machine of a rollout: `(state, event, now) → (state, actions)`.
//!
//! Three rules make the rest simple:
//!
//! - The phase changes in one place, which looks the transition up in [`TRANSITIONS`](super::TRANSITIONS).
//! - The version gets more players on a tick only, and a tick carries the window that freezes growth at that
//!   moment. Commands only prepare what the next tick does.
//! - Taking players away from the version, by rollback or ejection, depends on no window and no gate.
//!
//! The caller keeps the new state and carries the actions out, or does neither: a state whose weights could not
//! be published is dropped, and the next event finds the old one.

mod ahead;
mod ask;
mod back;
mod command;
mod tick;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::ask::{ASK_AGAIN, FRESH, SETTLE, SMOKE_AGAIN};
use super::{
    event::{Action, Event, Refused, Start},
    gate::GateReply,
    judged::Judged,
    phase::{On, Phase, is_legal, is_possible},
    split::{share, share_served},
    state::{BreakIn, Due, Entry, Frozen, ITSELF, Outcome, Progress, Rollout, ms},
};
use crate::config::schema::Gate;

/// Most time between two ticks that counts, a few times what lies between them usually: in a longer gap nobody
/// watched, and none of it counts.
pub const MOST_GAP: Duration = Duration::from_secs(2);

/// How long a rollback takes if the endpoints of the split before are not ready for its load. They get more
/// of it bit by bit, and all of it after this time: players of a version that was failed do not wait longer.
pub const RAMP: Duration = Duration::from_secs(60);

/// How often a ramp sets weights.
pub const RAMP_STEP: Duration = Duration::from_secs(5);

/// What is said of a version that would go if another one could serve its players.
pub const KEPT: &str = "worse, and kept: nothing else serves";

/// Starts a rollout, `current` being the one that the service has or had. It begins at the first step whose
/// weight is no less than the share that the version has already. Its weight is set on the first tick that
/// allows it. The caller records the command. Its questions are numbered on from those of `current`, so that a
/// late reply to a rollout that has ended is none to this one.
pub fn start(
    start: Start,
    current: Option<&Rollout>,
    now: SystemTime,
) -> Result<(Rollout, Vec<Action>), Refused> {
    let Start { service, to, plan, by, reason, urgent, second_person, weights, ejected } = start;
    if let Some(other) = current.filter(|other| !other.phase.is_end()) {
        let (service, to, phase) = (service, other.to.clone(), other.phase);
        return Err(Refused::Running { service, to, phase });
    }
    if ejected.contains(&to) {
        return Err(rule(format!("`{to}` is ejected; reinstate it first")));
    }
    if share(&weights, &to) >= 1.0 {
        return Err(rule(format!("`{to}` has all players already; name another version")));
    }
    let has = share_served(&weights, &to, &ejected);
    let step = plan.first_above(has);
    let mut actions = Vec::new();
    if step > 0 {
        let has = 100.0 * has;
        actions.push(Action::Warn(format!(
            "`{to}` has {has:.2} % of players already: the rollout begins at step {} of {}",
            step + 1,
            plan.steps().len()
        )));
    }
    let now = unix_ms(now);
    let gap = if reason.is_empty() { "" } else { ": " };
    let cause = format!("started by {by}{gap}{reason}");
    let rollout = Rollout {
        service,
        to,
        plan,
        by,
        reason,
        second_person,
        started_unix_ms: now,
        before: weights.clone(),
        weights,
        by_hand: false,
        phase: Phase::Pending,
        since_unix_ms: now,
        cause,
        step,
        progress: Progress::default(),
        missing: Vec::new(),
        frozen: None,
        unreached: None,
        incomparable: None,
        kept: None,
        stranded: None,
        insists: false,
        break_in: None,
        ejected,
        baseline_ready: true,
        ramp: None,
        heading: Outcome::Done,
        way_back: true,
        clock_ms: 0,
        last_tick_ms: None,
        last_requests: None,
        asked: current.map_or(0, |ended| ended.asked),
        due: urgent.then(|| Due::from(now)),
        entries: Arc::default(),
    };
    match rollout.way() {
        Some(_) => Ok((rollout, actions)),
        None => Err(rule("no version of the split serves, so there is no way back; reinstate one")),
    }
}

/// A rollout that is being started, as it is while `frozen` freezes growth; the first tick finds that out by itself.
pub fn begun_in(rollout: Rollout, frozen: Option<Frozen>, now: SystemTime) -> Rollout {
    let state = Rollout { frozen, ..rollout };
    let mut run = Run { state, actions: Vec::new(), now_unix_ms: unix_ms(now), judged: None };
    run.show();
    run.state
}

/// Applies `event` to a rollout. Returns the new state and the actions, in the order in which the caller
/// carries them out. Only commands can be refused. A rollout that has ended does not change, except by the
/// ways back from `done`.
pub fn apply(
    rollout: &Rollout,
    event: Event,
    now: SystemTime,
) -> Result<(Rollout, Vec<Action>), Refused> {
    let mut run = Run {
        state: rollout.clone(),
        actions: Vec::new(),
        now_unix_ms: unix_ms(now),
        judged: None,
    };
    let is_command = matches!(
        event,
        Event::Resume { .. }
            | Event::Promote { .. }
            | Event::Approve { .. }
            | Event::BreakIn { .. }
    );
    match event {
        Event::Tick(observed) => run.tick(observed),
        Event::Pause { by, reason } => run.pause(&by, reason)?,
        Event::Resume { by, reason } => run.resume(&by, reason)?,
        Event::Promote { by, reason } => run.promote(by, reason)?,
        Event::Approve { by, approves, reason } => run.approve(by, approves, reason)?,
        Event::BreakIn { by, second, reason } => run.break_in(by, second, reason)?,
        Event::Abort { by, reason } => run.abort(&by, reason)?,
        Event::Rollback { by, reason, at_once } => run.roll_back(&by, reason, at_once)?,
        Event::Ejected { version, reason } => run.ejected(version, &reason),
        Event::Reinstated { version } => run.reinstated(&version),
        Event::WeightsByHand { weights, by } => run.weights_by_hand(weights, &by),
        Event::Reloaded { versions, heirs, second_person } => {
            run.ask_for_second(second_person);
            run.reloaded(&versions, &heirs);
        }
        Event::Baseline { ready } => run.baseline(ready),
    }
    if is_command {
        run.show();
    }
    Ok((run.state, run.actions))
}

fn rule(message: impl Into<String>) -> Refused {
    Refused::Rule(message.into())
}

fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, ms)
}

/// One event in progress.
struct Run {
    state: Rollout,
    actions: Vec<Action>,
    now_unix_ms: u64,
    /// What the gates said, if the event let them be judged.
    judged: Option<Judged>,
}

/// What some transitions have besides.
#[derive(Default)]
struct Besides {
    break_in: Option<BreakIn>,
    approves: Option<bool>,
}

/// Whether a transition is why the rollout is in the phase `to`. What people say about a phase is not, nor is what
/// happens to a rollout that is on its way back or has ended: it stays so for the reason it had.
fn explains(on: On, from: Phase, to: Phase) -> bool {
    let is_said = matches!(on, On::Approve | On::Promote | On::BreakIn);
    let stays = from == to && (to == Phase::RollingBack || to.is_end());
    !is_said && !stays
}

impl Run {
    /// The command `on`, if the table has it for the phase.
    fn command(&self, on: On) -> Result<(), Refused> {
        let (phase, asks) = (self.state.phase, self.asks_for_approval());
        is_possible(phase, on).then_some(()).ok_or(Refused::Phase { phase, on, asks })
    }

    /// Takes the transition `on` to `to`. All changes of the phase are here.
    fn go(&mut self, on: On, to: Phase, by: &str, reason: impl Into<String>) {
        self.go_with(on, to, by, reason, Besides::default());
    }

    fn go_with(
        &mut self,
        on: On,
        to: Phase,
        by: &str,
        reason: impl Into<String>,
        besides: Besides,
    ) {
        let (from, reason) = (self.state.phase, reason.into());
        debug_assert!(is_legal(from, on, to), "no transition from {from} on {on} to {to}");
        if !is_legal(from, on, to) {
            self.warn(format!("the rollout stays {from}: no transition on {on} to {to}"));
            return;
        }
        if from != to {
            self.state.since_unix_ms = self.now_unix_ms;
        }
        self.state.phase = to;
        if explains(on, from, to) {
            self.state.cause = match reason.trim() {
                "" => format!("{} by {by}", on.command()),
                _ => reason.clone(),
            };
        }
        let judged = match on {
            On::Grow | On::Bake | On::Finish | On::Guardrail => self.judged.take(),
            // It skips what these say.
            On::Promote => self.judged_now(),
            // The step begins anew if it is resumed: else nobody would know what it was held by.
            On::WeightsByHand if to == Phase::Paused && self.state.progress.begun => {
                self.judged_now()
            }
            _ => None,
        };
        let (step, by, at_unix_ms) = (self.state.step, by.to_owned(), self.now_unix_ms);
        let Besides { break_in, approves } = besides;
        let entry =
            Entry { on, from, to, step, by, reason, at_unix_ms, break_in, approves, judged };
        self.state.remember(entry.clone());
        self.actions.push(Action::Record(Box::new(entry)));
    }

    /// Notes what those gates of the step say that `counts`, for the transition that rests on them.
    fn judged_by(&mut self, replies: &[GateReply], counts: impl Fn(&Gate) -> bool) {
        let Rollout { step, plan, progress, .. } = &self.state;
        let promoted_by = progress.promoted.as_ref().map(|(by, _)| &**by);
        let seen = (progress.watched_ms, progress.requests);
        let gates = plan.step(*step).gates.iter().zip(replies).filter(|(gate, _)| counts(gate));
        let judged = Judged::new(*step, seen, gates, promoted_by);
        // A first step without a smoke check rests on nothing.
        self.judged = (progress.begun || !judged.gates.is_empty()).then_some(judged);
    }

    /// The same by the replies of the last tick.
    fn judged_now(&mut self) -> Option<Judged> {
        let replies = self.replies();
        self.judged_by(&replies, |_| true);
        self.judged.take()
    }

    fn end(&mut self, outcome: Outcome) {
        self.state.missing.clear();
        self.state.ramp = None;
        self.actions.push(Action::Finish(outcome));
    }

    fn warn(&mut self, message: impl Into<String>) {
        self.actions.push(Action::Warn(message.into()));
    }
}

#[cfg(test)]
mod tests;
