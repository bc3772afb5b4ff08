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

/// After which time a smoke check that has not passed is run again.
pub const SMOKE_AGAIN: Duration = Duration::from_secs(60);

/// After this time the reply of a smoke check counts as lost, such as by a restart.
const SMOKE_LOST: Duration = Duration::from_secs(300);

impl Run {
    /// Asks the smoke checks and webhooks of the step for which it is time, of those that `which` chooses.
    pub(super) fn ask(&mut self, which: impl Fn(&GateQuestion) -> bool) {
        self.make_room();
        let state = &mut self.state;
        let gates = &state.plan.step(state.step).gates;
        let (clock, progress) = (state.clock_ms, &mut state.progress);
        for ((gate, ask), reply) in gates.iter().zip(&mut progress.asks).zip(&progress.replies) {
            let reply = reply.as_ref().map(|said| said.reply);
            let age = clock.saturating_sub(ask.at_ms);
            let (again, lost) = match &gate.question {
                GateQuestion::Smoke(_) if reply == Some(Reply::Pass) => continue,
                GateQuestion::Smoke(_) => (SMOKE_AGAIN, SMOKE_LOST),
                GateQuestion::Webhook(hook) => (ASK_AGAIN, hook.timeout.saturating_add(ASK_AGAIN)),
                _ => continue,
            };
            let is_due = match (ask.open, reply) {
                (0, None) => true,
                (0, Some(_)) => age >= ms(again),
                _ => age >= ms(lost),
            };
            if !is_due || !which(&gate.question) {
                continue;
            }
            state.asked += 1;
            *ask = Ask { open: state.asked, at_ms: clock };
            self.actions.push(match &gate.question {
                GateQuestion::Webhook(webhook) => {
                    Action::CallWebhook { ask: state.asked, webhook: webhook.clone() }
                }
                other => {
                    let name =
                        if let GateQuestion::Smoke(name) = other { name.as_str() } else { "" };
                    Action::RunSmoke { ask: state.asked, name: name.to_owned() }
                }
            });
        }
    }

    /// Stores the replies that came with a tick. Replies from measurements are valid for this tick only; a reply
    /// of an earlier step, or of a run that was repeated since, is dropped.
    pub(super) fn hear(&mut self, seen: &Observed) {
        self.make_room();
        let state = &mut self.state;
        let gates = &state.plan.step(state.step).gates;
        let (clock, progress) = (state.clock_ms, &mut state.progress);
        for (index, gate) in gates.iter().enumerate() {
            let measured = match &gate.question {
                GateQuestion::Evidence => &seen.evidence,
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
