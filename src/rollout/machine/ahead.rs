//! Smoke checks before a step: its version gets no more players without a pass that was asked for that step.
//!
//! A pass is of its moment. Whoever waits for something else after it, such as for a window, asks again.

use super::{
    Run,
    ask::{FRESH, is_due},
    ms,
};
use crate::{
    config::schema::{Gate, GateQuestion, Step},
    rollout::{
        event::Observed,
        gate::{Decision, GateReply, Patience, Reply, decide},
        state::{Ahead, Ask, Missing},
    },
};

fn is_smoke(gate: &Gate) -> bool {
    matches!(gate.question, GateQuestion::Smoke(_))
}

/// The reply `said` to the run `ask` as of `clock_ms`: a pass that is too old, or that is asked for again, is none.
fn as_of(clock_ms: u64, ask: Ask, said: Option<&GateReply>) -> GateReply {
    let is_old = ask.open > 0 || clock_ms.saturating_sub(ask.at_ms) >= ms(FRESH);
    match said {
        None => Reply::Undecided.because("not asked yet, or no answer yet"),
        Some(said) if said.reply == Reply::Pass && is_old => Reply::Undecided.because(format!(
            "its pass is older than {}, so it is asked again as the step is about to begin",
            humantime::format_duration(FRESH)
        )),
        Some(said) => said.clone(),
    }
}

impl Run {
    /// What is missing of the smoke checks before the step `index`; or which one fails, and why the rollout goes
    /// back.
    pub(super) fn smoke_before(&self, index: usize) -> Result<Vec<Missing>, (Missing, String)> {
        let (step, progress) = (self.state.plan.step(index), &self.state.progress);
        let is_own = index == self.state.step;
        let known = |place: usize| match is_own {
            true => {
                let said = progress.replies.get(place).and_then(Option::as_ref);
                (progress.asks.get(place).copied().unwrap_or_default(), said)
            }
            false => {
                let ahead = progress.ahead.get(place);
                let ask = ahead.map_or_else(Ask::default, |ahead| ahead.ask);
                (ask, ahead.and_then(|ahead| ahead.reply.as_ref()))
            }
        };
        let smokes = step.gates.iter().enumerate().filter(|(_, gate)| is_smoke(gate));
        let smokes: Vec<(&Gate, GateReply)> = smokes
            .map(|(place, gate)| {
                let (ask, said) = known(place);
                (gate, as_of(self.state.clock_ms, ask, said))
            })
            .collect();
        let shown = |of: usize| Missing::gate(smokes[of].0, &smokes[of].1);
        match decide(smokes.iter().map(|(gate, said)| (*gate, said, Patience::Left))) {
            Decision::Back(of, why) => Err((shown(of), why)),
            Decision::Pass => Ok(Vec::new()),
            Decision::Hold(open) => Ok(open.into_iter().map(shown).collect()),
        }
    }

    /// The step after the one in force.
    pub(super) fn next_step(&self) -> Option<&Step> {
        self.state.plan.steps().get(self.state.step + 1)
    }

    /// Asks the smoke checks of the next step for which it is time: nothing else is missing for it.
    pub(super) fn ask_ahead(&mut self) {
        let Some(gates) = self.next_step().map(|step| step.gates.clone()) else { return };
        self.state.progress.ahead.resize(gates.len(), Ahead::default());
        for (place, gate) in gates.iter().enumerate().filter(|(_, gate)| is_smoke(gate)) {
            let Ahead { ask, reply } = &self.state.progress.ahead[place];
            let reply = reply.as_ref().map(|said| said.reply);
            if is_due(&gate.question, *ask, reply, self.state.clock_ms, true) {
                let ask = self.put(&gate.question);
                self.state.progress.ahead[place].ask = ask;
            }
        }
    }

    /// Stores replies to the smoke checks of the next step.
    pub(super) fn hear_ahead(&mut self, seen: &Observed) {
        let clock = self.state.clock_ms;
        for ahead in &mut self.state.progress.ahead {
            let open = ahead.ask.open;
            let mut answers = seen.replies.iter().rev();
            if let Some((_, said)) = answers.find(|(number, _)| *number == open && open > 0) {
                *ahead = Ahead { ask: Ask { open: 0, at_ms: clock }, reply: Some(said.clone()) };
            }
        }
    }

    /// Nobody has watched for a while of unknown length: a smoke check that passed before is asked again.
    pub(super) fn forget_passes(&mut self) {
        let state = &mut self.state;
        let is_pass = |said: &GateReply| said.reply == Reply::Pass;
        for ahead in &mut state.progress.ahead {
            ahead.reply.take_if(|said| is_pass(said));
        }
        if !state.progress.begun {
            let gates = &state.plan.step(state.step).gates;
            for (gate, reply) in gates.iter().zip(&mut state.progress.replies) {
                reply.take_if(|said| is_smoke(gate) && is_pass(said));
            }
        }
    }
}
