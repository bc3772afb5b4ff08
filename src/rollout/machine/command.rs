//! Commands of people.

use super::{Besides, Run, rule};
use crate::{
    config::schema::GateQuestion,
    rollout::{
        event::Refused,
        gate::{Approval, approval},
        phase::{On, Phase},
        state::{BreakIn, Frozen, Outcome},
    },
};

impl Run {
    pub(super) fn pause(&mut self, by: &str, reason: String) -> Result<(), Refused> {
        self.command(On::Pause)?;
        self.go(On::Pause, Phase::Paused, by, reason);
        Ok(())
    }

    pub(super) fn resume(&mut self, by: &str, reason: String) -> Result<(), Refused> {
        self.command(On::Resume)?;
        if self.state.way().is_none() {
            return Err(rule(
                "every version of the split before is ejected; reinstate one, or set weights by hand",
            ));
        }
        let phase = match self.state.progress.begun {
            false => Phase::Pending,
            true if self.state.plan.step(self.state.step).bake.is_some() => Phase::Baking,
            true => Phase::Growing,
        };
        self.go(On::Resume, phase, by, reason);
        Ok(())
    }

    pub(super) fn promote(&mut self, by: String, reason: String) -> Result<(), Refused> {
        self.command(On::Promote)?;
        if reason.trim().is_empty() {
            return Err(rule("no reason; say why the rest of the step is skipped"));
        }
        let approved = self.state.progress.approval.as_ref().is_some_and(|said| said.approves);
        let needs_another = self.state.second_person && self.asks_for_approval() && !approved;
        if needs_another && self.is_starter(&by) {
            return Err(rule(format!(
                "{by} started the rollout, and the step asks for an approval; another person can promote it"
            )));
        }
        let phase = self.state.phase;
        self.go(On::Promote, phase, &by, reason.clone());
        self.state.progress.promoted = Some((by, reason));
        Ok(())
    }

    pub(super) fn approve(
        &mut self,
        by: String,
        approves: bool,
        reason: String,
    ) -> Result<(), Refused> {
        self.command(On::Approve)?;
        if !self.asks_for_approval() {
            return Err(rule("this step asks for no approval; wait for a step that does"));
        }
        if !self.state.progress.begun {
            return Err(rule(match self.state.by_hand {
                true => {
                    "weights were set by hand, so the step begins anew once the rollout is resumed; resume it, or abort it"
                }
                false => "the step has not begun; wait until its weight is set",
            }));
        }
        if self.state.second_person && self.is_starter(&by) {
            return Err(rule(format!(
                "{by} started the rollout; another person can approve the step"
            )));
        }
        if !approves && reason.trim().is_empty() {
            return Err(rule("no reason; say why the step is not approved"));
        }
        let phase = self.state.phase;
        let besides = Besides { approves: Some(approves), ..Besides::default() };
        self.go_with(On::Approve, phase, &by, reason.clone(), besides);
        // A refusal is later than the promotion, and may be of the approval that the promotion rests on.
        if let Some((promoter, _)) = self.state.progress.promoted.take_if(|_| !approves) {
            self.warn(format!("{by} does not approve: the promotion by {promoter} is void"));
        }
        self.state.progress.approval = Some(Approval { by, approves, reason });
        self.show_approval();
        Ok(())
    }

    pub(super) fn break_in(
        &mut self,
        by: String,
        second: Option<String>,
        reason: String,
    ) -> Result<(), Refused> {
        self.command(On::BreakIn)?;
        let Some(frozen) = self.state.frozen.clone() else {
            return Err(rule("no window freezes the rollout; it grows without a break-in"));
        };
        if reason.trim().is_empty() {
            return Err(rule("no reason; say why the window must not be waited for"));
        }
        let second = second.filter(|second| !second.trim().is_empty() && *second != by);
        if frozen.second_person && second.is_none() {
            return Err(rule(format!(
                "{} for a second person besides {by}, who agrees by a token of their own: \
                 `--second-token-file`, or the field `Tidegate-Second-Authorization`",
                asking(&frozen)
            )));
        }
        let phase = self.state.phase;
        let until_unix_ms = frozen.until_unix_ms;
        let leave = BreakIn {
            window: frozen.window,
            also: frozen.also,
            since_unix_ms: Some(frozen.since_unix_ms),
            by: by.clone(),
            second,
            reason,
            until_unix_ms,
        };
        let besides = Besides { break_in: Some(leave.clone()), ..Besides::default() };
        self.go_with(On::BreakIn, phase, &by, leave.reason.clone(), besides);
        self.state.break_in = Some(leave);
        Ok(())
    }

    pub(super) fn abort(&mut self, by: &str, reason: String) -> Result<(), Refused> {
        self.command(On::Abort)?;
        if self.state.by_hand {
            self.go(On::Abort, Phase::Aborted, by, reason);
            self.end(Outcome::Aborted);
        } else {
            self.back(On::Abort, Outcome::Aborted, by, reason, false);
        }
        Ok(())
    }

    pub(super) fn roll_back(
        &mut self,
        by: &str,
        reason: String,
        at_once: bool,
    ) -> Result<(), Refused> {
        self.command(On::Rollback)?;
        if self.state.phase == Phase::Done && !self.state.way_back {
            return Err(rule(
                "the split was changed since the rollout was done; set weights by hand",
            ));
        }
        if self.state.way().is_none() {
            return Err(rule("every version of the split before is ejected; reinstate one"));
        }
        if self.state.phase == Phase::RollingBack {
            self.go(On::Rollback, Phase::RollingBack, by, reason);
            self.restore(at_once);
        } else {
            self.back(On::Rollback, Outcome::RolledBack, by, reason, at_once);
        }
        Ok(())
    }

    /// Shows the reply at once; the next tick judges it.
    fn show_approval(&mut self) {
        let state = &mut self.state;
        let said = approval(state.progress.approval.as_ref(), state.second_person);
        let gates = &state.plan.step(state.step).gates;
        state.progress.replies.resize(gates.len(), None);
        for (gate, reply) in gates.iter().zip(&mut state.progress.replies) {
            if gate.question == GateQuestion::Approval {
                *reply = Some(said.clone());
            }
        }
    }

    /// Whether a second person must approve is as the file in force says. What the starter said before is void if so.
    pub(super) fn ask_for_second(&mut self, second_person: bool) {
        if self.state.phase.is_end() {
            return;
        }
        self.state.second_person = second_person;
        let starter = self.state.by.clone();
        let is_own = |by: &str| second_person && by == starter;
        let asks = self.asks_for_approval();
        let progress = &mut self.state.progress;
        let approval = progress.approval.take_if(|said| said.approves && is_own(&said.by));
        // It may rest on that approval, or go around it.
        let promoted = progress.promoted.take_if(|(by, _)| asks && is_own(by));
        if approval.is_some() || promoted.is_some() {
            self.warn(format!(
                "the file asks for a second person now: what {starter} said of this step is void; another person can \
                 approve it"
            ));
            self.show_approval();
        }
    }

    fn is_starter(&self, by: &str) -> bool {
        self.state.by == *by
    }

    pub(super) fn asks_for_approval(&self) -> bool {
        let gates = &self.state.plan.step(self.state.step).gates;
        gates.iter().any(|gate| gate.question == GateQuestion::Approval)
    }
}

/// Who asks for a second person, of several windows at the same time whichever it is.
fn asking(frozen: &Frozen) -> String {
    match &*frozen.names().map(String::as_str).collect::<Vec<_>>() {
        [one] => format!("the window {one} asks"),
        all => format!("one of the windows {} asks", all.join(", ")),
    }
}
