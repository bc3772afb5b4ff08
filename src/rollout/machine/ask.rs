//! Smoke checks and webhooks: when each is run, and which reply belongs to which run.

use std::time::Duration;

use super::{Run, ms};
use crate::{
    config::schema::GateQuestion,
    rollout::{
        event::{Action, Observed},
        gate::{GateReply, Reply, approval},
        state::Ask,
    },
};

/// How long a step is watched before a measured gate can pass: until then a measurement may still be of the
/// step before.
pub const SETTLE: Duration = Duration::from_secs(2);

/// How often a webhook is called: also after it has passed, since it may fail later.
pub const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How old the pass of a smoke check may be as its step begins.
pub const FRESH: Duration = Duration::from_secs(30);

/// After which time a smoke check that has not passed is run again.
pub const SMOKE_AGAIN: Duration = Duration::from_secs(60);

/// After this time the reply of a smoke check counts as lost, such as by a restart.
const SMOKE_LOST: Duration = Duration::from_secs(300);

/// Whether it is time to ask `question`, whose latest run or call is `ask` and whose latest reply is `reply`, at
/// `clock_ms`; never for a question that is measured. `renews`: a smoke check that has passed is asked again once its
/// pass is too old for a step to begin with it.
pub(super) fn is_due(
    question: &GateQuestion,
    ask: Ask,
    reply: Option<Reply>,
    clock_ms: u64,
    renews: bool,
) -> bool {
    let (again, lost) = match question {
        GateQuestion::Smoke(_) if reply == Some(Reply::Pass) && !renews => return false,
        GateQuestion::Smoke(_) if reply == Some(Reply::Pass) => (FRESH, SMOKE_LOST),
        GateQuestion::Smoke(_) => (SMOKE_AGAIN, SMOKE_LOST),
        GateQuestion::Webhook(hook) => (ASK_AGAIN, hook.timeout.saturating_add(ASK_AGAIN)),
        _ => return false,
    };
    let age = clock_ms.saturating_sub(ask.at_ms);
    match (ask.open, reply) {
        (0, None) => true,
        (0, Some(_)) => age >= ms(again),
        _ => age >= ms(lost),
    }
}

/// The reply of the gate `evidence`: only a failure counts while there is nothing to compare with, or it is too early.
fn evidence(seen: &Observed) -> Option<GateReply> {
    let fails = |said: &&GateReply| said.reply == Reply::Fail;
    match (&seen.incomparable, &seen.evidence) {
        (Some(why), said) => {
            let failure = said.as_ref().filter(fails).cloned();
            Some(failure.unwrap_or_else(|| Reply::Undecided.because(why.to_string())))
        }
        (None, said) => said.clone(),
    }
}

impl Run {
    /// Asks the smoke checks and webhooks of the step for which it is time, of those that `which` chooses.
    pub(super) fn ask(&mut self, which: impl Fn(&GateQuestion) -> bool) {
        self.make_room();
        let state = &self.state;
        // Straight after the step one pass is enough; before it the pass must be of the moment at which it begins.
        let renews = !state.progress.begun && self.closed(state.plan.step(state.step)).is_none();
        let gates = &state.plan.step(state.step).gates;
        let each = gates.iter().zip(&state.progress.asks).zip(&state.progress.replies);
        let due = each.enumerate().filter(|(_, ((gate, ask), reply))| {
            let reply = reply.as_ref().map(|said| said.reply);
            is_due(&gate.question, **ask, reply, state.clock_ms, renews) && which(&gate.question)
        });
        let due = due.map(|(place, ((gate, _), _))| (place, gate.question.clone()));
        for (place, question) in due.collect::<Vec<_>>() {
            let ask = self.put(&question);
            self.state.progress.asks[place] = ask;
        }
    }

    /// Asks `question`, which is a smoke check or a webhook.
    pub(super) fn put(&mut self, question: &GateQuestion) -> Ask {
        self.state.asked += 1;
        let ask = self.state.asked;
        match question {
            GateQuestion::Smoke(name) => {
                self.actions.push(Action::RunSmoke { ask, name: name.clone() });
            }
            GateQuestion::Webhook(webhook) => {
                self.actions.push(Action::CallWebhook { ask, webhook: webhook.clone() });
            }
            _ => {}
        }
        Ask { open: ask, at_ms: self.state.clock_ms }
    }

    /// Stores the replies that came with a tick. Replies from measurements are valid for this tick only; a reply
    /// of an earlier step, or of a run that was repeated since, is dropped.
    pub(super) fn hear(&mut self, seen: &Observed) {
        self.make_room();
        self.hear_ahead(seen);
        let state = &mut self.state;
        let gates = &state.plan.step(state.step).gates;
        let (clock, progress) = (state.clock_ms, &mut state.progress);
        for (index, gate) in gates.iter().enumerate() {
            let measured = match &gate.question {
                GateQuestion::Evidence => &evidence(seen),
                GateQuestion::Slo => &seen.slo,
                GateQuestion::Amounts => &seen.amounts,
                GateQuestion::Approval => {
                    let said = progress.approval.as_ref();
                    progress.replies[index] = Some(approval(said, state.second_person));
                    continue;
                }
                GateQuestion::Smoke(_) | GateQuestion::Webhook(_) => {
                    let ask = &mut progress.asks[index];
                    let mut answers = seen.replies.iter().rev();
                    if let Some((_, said)) = answers.find(|(n, _)| *n == ask.open && *n > 0) {
                        progress.replies[index] = Some(said.clone());
                        *ask = Ask { open: 0, at_ms: clock };
                    }
                    continue;
                }
            };
            let is_early = progress.begun && progress.watched_ms < ms(SETTLE);
            let counts = |said: &&GateReply| !is_early || said.reply != Reply::Pass;
            progress.replies[index] = measured.as_ref().filter(counts).cloned();
        }
    }

    /// The replies of the step's gates; undecided where there is none.
    pub(super) fn replies(&self) -> Vec<GateReply> {
        let gates = &self.state.plan.step(self.state.step).gates;
        let replies = &self.state.progress.replies;
        let reply = |index: usize| replies.get(index).cloned().flatten();
        let none = || Reply::Undecided.because("no answer yet");
        (0..gates.len()).map(|index| reply(index).unwrap_or_else(none)).collect()
    }

    fn make_room(&mut self) {
        let gates = self.state.plan.step(self.state.step).gates.len();
        self.state.progress.replies.resize(gates, None);
        self.state.progress.asks.resize(gates, Ask::default());
    }
}
