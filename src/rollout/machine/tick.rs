//! Time passes: gates are judged, and the version grows.

use super::{Besides, ITSELF, MOST_GAP, Run, ms};
use crate::{
    config::schema::{GateQuestion, Step},
    rollout::{
        event::{Action, Observed},
        gate::{Decision, GateReply, Patience, Reply, approval, decide},
        phase::{On, Phase},
        split::{Weights, share},
        state::{Missing, Outcome, Progress, Rollout},
    },
};

/// Above rounding errors of shares.
const ROUNDING: f64 = 1e-9;

/// What follows from the gates of a step.
enum Outlook {
    /// A guardrail fails: what is shown of it, and why the rollout goes back.
    Back { missing: Missing, why: String },
    /// This is missing; a signal fails, or nothing but gates is waited for; only the smoke checks of the next step
    /// are missing.
    Waits { missing: Vec<Missing>, holds: bool, is_ahead: bool },
    /// The rollout goes on.
    Goes,
}

impl Run {
    /// Time passes.
    pub(super) fn tick(&mut self, seen: Observed) {
        let (elapsed_ms, requests) = self.advance(&seen);
        self.hear(&seen);
        let due = if self.state.phase.is_end() { None } else { self.state.due.as_mut() };
        let late = due.and_then(|due| due.warning(self.now_unix_ms));
        late.into_iter().for_each(|message| self.warn(message));
        (self.state.frozen, self.state.unreached) = (seen.frozen, seen.unreached.map(String::from));
        self.state.incomparable = seen.incomparable.map(String::from);
        (self.state.kept, self.state.stranded) =
            (seen.kept.map(String::from), seen.stranded.map(String::from));
        let (frozen, now) = (self.state.frozen.as_ref(), self.now_unix_ms);
        self.state.break_in.take_if(|leave| !leave.covers(frozen, now));
        match self.state.phase {
            Phase::Pending => self.begin(),
            Phase::Growing | Phase::Holding | Phase::Baking => {
                self.state.progress.watched_ms += elapsed_ms;
                self.state.progress.requests += requests;
                self.judge();
            }
            Phase::Paused if self.state.progress.begun => {
                self.ask(|_| true);
                self.guard();
            }
            Phase::RollingBack => self.restore(false),
            Phase::Paused | Phase::Done | Phase::RolledBack | Phase::Aborted => {}
        }
    }

    /// Advances the rollout's clock; returns by how much, in milliseconds, and the new requests.
    fn advance(&mut self, seen: &Observed) -> (u64, u64) {
        let moment_ms = ms(seen.moment);
        let last = self.state.last_tick_ms.replace(moment_ms);
        let gap_ms = last.map_or(0, |last| moment_ms.saturating_sub(last));
        if last.is_none() || gap_ms > ms(MOST_GAP) {
            self.forget_passes();
        }
        let state = &mut self.state;
        let elapsed_ms = if gap_ms > ms(MOST_GAP) { 0 } else { gap_ms };
        state.clock_ms += elapsed_ms;
        let before = state.last_requests.replace(seen.requests);
        // After a restart the caller counts from 0 again.
        let new = |before: u64| seen.requests.checked_sub(before).unwrap_or(seen.requests);
        (elapsed_ms, before.map_or(0, new))
    }

    /// Sets the weight of the step if smoke checks and windows allow it.
    fn begin(&mut self) {
        let step = self.state.plan.step(self.state.step).clone();
        // They are asked last, so that their answers are of the moment at which the step begins.
        if self.closed(&step).is_none() {
            self.ask(|question| matches!(question, GateQuestion::Smoke(_)));
        }
        let before = self.before(&step);
        if before.as_ref().map_or(true, Vec::is_empty) {
            let replies = self.replies();
            self.judged_by(&replies, |gate| match gate.question {
                GateQuestion::Smoke(_) => true,
                GateQuestion::Approval => before.is_err(),
                _ => false,
            });
        }
        match before {
            Err(why) => self.back(On::Guardrail, Outcome::RolledBack, ITSELF, why, false),
            Ok(missing) if missing.is_empty() => self.enter(&step, ""),
            Ok(missing) => self.state.missing = missing,
        }
    }

    /// What is missing until the weight of `step` is set; or why the rollout goes back.
    fn before(&self, step: &Step) -> Result<Vec<Missing>, String> {
        self.refused(step)?;
        let mut missing = self.smoke_before(self.state.step).map_err(|(_, why)| why)?;
        missing.extend(self.closed(step));
        missing.extend(self.keeping());
        Ok(missing)
    }

    /// Why the rollout goes back if a person refused `step` before weights were set by hand, and their word is a
    /// guardrail.
    fn refused(&self, step: &Step) -> Result<(), String> {
        let said = approval(self.state.progress.approval.as_ref(), self.state.second_person);
        let asked = step.gates.iter().filter(|gate| gate.question == GateQuestion::Approval);
        match decide(asked.map(|gate| (gate, &said, Patience::Left))) {
            Decision::Back(_, why) => Err(why),
            _ => Ok(()),
        }
    }

    /// Shows what is missing after a command, by the replies that are shown beside it: those of the last tick.
    pub(super) fn show(&mut self) {
        let step = self.state.plan.step(self.state.step).clone();
        match self.state.phase {
            Phase::Pending => {
                if let Ok(missing) = self.before(&step) {
                    self.state.missing = missing;
                }
            }
            Phase::Growing | Phase::Holding | Phase::Baking => {
                let replies = self.replies();
                self.state.missing = match self.outlook(&step, &replies) {
                    Outlook::Goes => Vec::new(),
                    Outlook::Waits { missing, .. } => missing,
                    Outlook::Back { missing, .. } => vec![missing],
                };
            }
            _ => {}
        }
    }

    /// A version that is worse, and is kept, goes on to no other step, whoever skips this one.
    fn keeping(&self) -> Option<Missing> {
        self.state.kept.clone().map(|why| Missing::Way { why })
    }

    /// What forbids to set the weight of `step` now.
    pub(super) fn closed(&self, step: &Step) -> Option<Missing> {
        let Some(split) = self.state.split_of(step) else { return Some(Missing::Baseline) };
        let frozen = self.state.frozen.as_ref().filter(|_| self.state.break_in.is_none());
        let window = frozen.filter(|_| self.is_growth(&split)).cloned().map(Missing::Window);
        let grows = self.grows(&self.state.to, &split);
        let unreached = self.state.unreached.clone().filter(|_| grows);
        window.or_else(|| unreached.map(|why| Missing::Endpoint { why }))
    }

    /// Whether `split` gives a version more players that must wait for a window: after weights by hand any version, since
    /// others than that of the rollout may have been taken off, else that one.
    fn is_growth(&self, split: &Weights) -> bool {
        let Rollout { to, by_hand, .. } = &self.state;
        split.keys().any(|version| (*by_hand || version == to) && self.grows(version, split))
    }

    /// Whether `version` has a larger share in `split` than in force, as it is written or as it serves.
    fn grows(&self, version: &str, split: &Weights) -> bool {
        let grown = |before: &Weights, after: &Weights| {
            share(after, version) > share(before, version) + ROUNDING
        };
        let Rollout { weights, .. } = &self.state;
        grown(weights, split) || grown(&self.state.serving(weights), &self.state.serving(split))
    }

    /// Sets the weight of `step`, which nothing forbids any more.
    /// `besides` is what is to be said of the step before: empty, or with a semicolon before it.
    fn enter(&mut self, step: &Step, besides: &str) {
        let Some(weights) = self.state.split_of(step) else { return };
        let is_frozen = self.state.frozen.is_some() && self.is_growth(&weights);
        let leave = self.state.break_in.clone().filter(|_| is_frozen);
        let reason = format!(
            "step {} of {}: {} % of players{besides}",
            self.state.step + 1,
            self.state.plan.steps().len(),
            (step.weight.0 * 1e5).round() / 1e3
        );
        let (on, phase) = match step.bake {
            Some(_) => (On::Bake, Phase::Baking),
            None => (On::Grow, Phase::Growing),
        };
        let besides = Besides { break_in: leave, ..Besides::default() };
        self.go_with(on, phase, ITSELF, reason, besides);
        self.actions.push(Action::SetWeights(weights.clone()));
        self.state.weights = weights;
        self.state.by_hand = false;
        self.state.progress = Progress { begun: true, ..self.state.progress.anew() };
        self.state.missing = self.minimum(step);
        self.ask(|_| true);
    }

    /// Judges the gates of the step, and goes on if nothing is missing.
    fn judge(&mut self) {
        self.ask(|_| true);
        let step = self.state.plan.step(self.state.step).clone();
        let replies = self.replies();
        let outlook = self.outlook(&step, &replies);
        if !matches!(outlook, Outlook::Waits { .. }) {
            self.judged_by(&replies, |_| true);
        }
        match outlook {
            Outlook::Back { why, .. } => {
                self.back(On::Guardrail, Outcome::RolledBack, ITSELF, why, false);
            }
            Outlook::Waits { missing, holds, is_ahead } => {
                if is_ahead {
                    self.ask_ahead();
                }
                self.wait(missing, holds);
            }
            Outlook::Goes => self.go_on(&step, &replies),
        }
    }

    /// What follows from the gates of the step in force and their `replies`.
    fn outlook(&mut self, step: &Step, replies: &[GateReply]) -> Outlook {
        let patience = self.patience(step, replies);
        let asked = step.gates.iter().zip(replies).zip(patience);
        let mut missing = self.minimum(step);
        let is_early = !missing.is_empty();
        let mut fails = false;
        match decide(asked.map(|((gate, said), patience)| (gate, said, patience))) {
            Decision::Back(index, why) => {
                let missing = Missing::gate(&step.gates[index], &replies[index]);
                return Outlook::Back { missing, why };
            }
            Decision::Pass => {}
            Decision::Hold(open) => {
                for index in open {
                    fails |= replies[index].reply == Reply::Fail;
                    missing.push(Missing::gate(&step.gates[index], &replies[index]));
                }
            }
        }
        let is_promoted = self.state.progress.promoted.is_some();
        if is_promoted {
            missing.clear();
            fails = false;
        }
        let closed = self.next_step().and_then(|next| self.closed(next));
        // A window is known beforehand, so people are told of it at once.
        let is_window = matches!(closed, Some(Missing::Window(_)));
        missing.extend(closed.filter(|_| is_window || missing.is_empty()));
        missing.extend(self.keeping());
        let mut is_ahead = false;
        if self.next_step().is_some() {
            match self.smoke_before(self.state.step + 1) {
                Err((missing, why)) => return Outlook::Back { missing, why },
                // They are asked last, so that their answers are of the moment at which the step begins.
                Ok(smokes) if missing.is_empty() => {
                    is_ahead = !smokes.is_empty();
                    missing = smokes;
                }
                Ok(_) => {}
            }
        }
        match missing.is_empty() {
            true => Outlook::Goes,
            false => Outlook::Waits { missing, holds: fails || !is_early || is_promoted, is_ahead },
        }
    }

    /// Takes the next step, or ends.
    fn go_on(&mut self, step: &Step, replies: &[GateReply]) {
        let open = self.without_answer(step, replies);
        match self.state.plan.steps().get(self.state.step + 1).cloned() {
            Some(next) => {
                let open = open.map(|why| format!("; the step before had no answer of {why}"));
                self.state.step += 1;
                self.state.progress = Progress::default();
                self.enter(&next, &open.unwrap_or_default());
            }
            None => {
                let of = if step.bake.is_some() { "its bake" } else { "it" };
                let open = open.map(|why| format!("; {of} ended without an answer of {why}"));
                let why = format!("the last step is over{}", open.unwrap_or_default());
                self.go(On::Finish, Phase::Done, ITSELF, why);
                self.end(Outcome::Done);
            }
        }
    }

    /// The gate `evidence` of `step` and its reason, if it has no answer and time alone lets the rollout go on.
    fn without_answer(&self, step: &Step, replies: &[GateReply]) -> Option<String> {
        let mut all =
            step.gates.iter().zip(replies).filter(|_| self.state.progress.promoted.is_none());
        let (gate, said) = all.find(|(_, said)| said.reply == Reply::Undecided)?;
        Some(format!("{}: {}", gate.question, said.why))
    }

    /// The time that each gate of `step` has left. A gate that has passed once was in time: if it becomes
    /// undecided while a window or an approval is waited for, it holds.
    fn patience(&mut self, step: &Step, replies: &[GateReply]) -> Vec<Patience> {
        let incomparable = self.state.incomparable.is_some();
        let progress = &mut self.state.progress;
        progress.passed.resize(replies.len(), false);
        for (passed, said) in progress.passed.iter_mut().zip(replies) {
            *passed |= said.reply == Reply::Pass;
        }
        let is_over = |time: Option<_>| time.is_some_and(|time| progress.watched_ms >= ms(time));
        let (baked, over) = (is_over(step.bake), is_over(step.within));
        let each = step.gates.iter().zip(&progress.passed).map(|(gate, passed)| {
            let counts = !passed || gate.question == GateQuestion::Evidence;
            match () {
                () if progress.promoted.is_some() => Patience::Left,
                // Time does not replace evidence that cannot be had, or comes soon.
                () if gate.question == GateQuestion::Evidence && incomparable => Patience::Left,
                () if baked => Patience::Baked,
                () if over && counts => Patience::Over,
                () => Patience::Left,
            }
        });
        each.collect()
    }

    /// What is missing of the least time and requests of `step`.
    fn minimum(&self, step: &Step) -> Vec<Missing> {
        let progress = &self.state.progress;
        let least_ms = step.bake.or(step.least).map_or(0, ms);
        let left_ms = least_ms.saturating_sub(progress.watched_ms);
        let left = step.requests.unwrap_or(0).saturating_sub(progress.requests);
        let time = (left_ms > 0).then_some(Missing::Time { left_ms });
        time.into_iter().chain((left > 0).then_some(Missing::Requests { left })).collect()
    }

    /// Stays in the step. A bake has one phase, whatever is missing.
    fn wait(&mut self, missing: Vec<Missing>, holds: bool) {
        let shown: Vec<String> = missing.iter().map(Missing::to_string).collect();
        self.state.missing = missing;
        let why = || format!("waits for {}", shown.join(", "));
        match (self.state.phase, holds) {
            (Phase::Growing, true) => self.go(On::Hold, Phase::Holding, ITSELF, why()),
            (Phase::Holding, false) => self.go(On::GoOn, Phase::Growing, ITSELF, why()),
            _ => {}
        }
    }

    /// Guardrails act while the rollout is paused, too, unless the weights are not its own.
    fn guard(&mut self) {
        let step = self.state.plan.step(self.state.step).clone();
        let replies = self.replies();
        let all = step.gates.iter().zip(&replies);
        let all = all.map(|(gate, said)| (gate, said, Patience::Left));
        if let Decision::Back(_, why) = decide(all) {
            self.judged_by(&replies, |_| true);
            self.back(On::Guardrail, Outcome::RolledBack, ITSELF, why, false);
        }
    }
}
