//! What can happen to a rollout, and what follows.

use std::{collections::BTreeSet, time::Duration};

use super::{
    gate::GateReply,
    phase::{On, Phase, commands},
    plan::Plan,
    split::Weights,
    state::{Entry, Frozen, Outcome},
};
use crate::config::schema::GateWebhook;

/// What is needed to start a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The service.
    pub service: String,
    /// The version that is to grow.
    pub to: String,
    /// The plan.
    pub plan: Plan,
    /// Who starts it: a token's name.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether it is urgent: the version must have all players within [`URGENT`](super::URGENT).
    pub urgent: bool,
    /// Whether approvals must come from somebody else.
    pub second_person: bool,
    /// The weights in force.
    pub weights: Weights,
    /// Versions that are ejected.
    pub ejected: BTreeSet<String>,
}

/// What happens to a rollout.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most are ticks")]
pub enum Event {
    /// Time passes: several times a second. Growth happens on a tick only.
    Tick(Observed),
    /// An operator pauses it.
    Pause {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator lets it go on.
    Resume {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator skips what is left of the step. Guardrails that fail and windows count nevertheless.
    Promote {
        /// Who.
        by: String,
        /// Why; not empty.
        reason: String,
    },
    /// An operator gives it up: the split before is restored, unless weights were set by hand.
    Abort {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator orders the split before to be restored; possible also after `done`.
    Rollback {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Whether the endpoints of that split get their load at once although they are not ready.
        at_once: bool,
    },
    /// A person approves the step, or refuses to.
    Approve {
        /// Who.
        by: String,
        /// Whether the person approves.
        approves: bool,
        /// Why; not empty if the person does not.
        reason: String,
    },
    /// An operator lets it grow in spite of the window that freezes it, until that window is over.
    BreakIn {
        /// Who.
        by: String,
        /// A second person who agrees, where the window requires one. The caller must have authenticated this
        /// person, too.
        second: Option<String>,
        /// Why; not empty.
        reason: String,
    },
    /// A version of the service was ejected.
    Ejected {
        /// The version.
        version: String,
        /// Why.
        reason: String,
    },
    /// A version was reinstated.
    Reinstated {
        /// The version.
        version: String,
    },
    /// Somebody else set the weights of the service: an operator by hand, or a file that changed them.
    WeightsByHand {
        /// The weights.
        weights: Weights,
        /// Who.
        by: String,
    },
    /// Another file came into force; it has these versions of the service.
    Reloaded {
        /// Their names; empty if the file no longer has the service.
        versions: BTreeSet<String>,
        /// Who gets the players of versions that it no longer has, in these proportions.
        heirs: Weights,
        /// Whether approvals must come from another person than the starter from now on.
        second_person: bool,
    },
    /// Whether the endpoints of the split before are ready for its load.
    Baseline {
        /// Whether they are.
        ready: bool,
    },
}

/// What is known on a tick.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// When it was seen, by a clock that nobody sets: the time since any fixed moment of this process.
    pub moment: Duration,
    /// What freezes growth of the service at this moment.
    pub frozen: Option<Frozen>,
    /// Why no endpoint of the version can be reached; `None` if one may be.
    pub unreached: Option<Box<str>>,
    /// Why time does not replace evidence about the version at present: there is nothing to compare it with, or it is too
    /// early to go on without an answer about its latency. `None` if time does.
    pub incomparable: Option<Box<str>>,
    /// Why the version is kept although a verdict found it to be worse: nothing else serves. `None` if it is not.
    pub kept: Option<Box<str>>,
    /// Why no version of the split before works, while this version serves most of its requests; `None` if one may.
    pub stranded: Option<Box<str>>,
    /// Requests of the version since any moment; if the number falls, its counting began anew.
    pub requests: u64,
    /// The reply of the gate `evidence` from requests since the weights were set; absent means undecided. A pass
    /// is ignored until the step has been watched for [`SETTLE`](super::SETTLE).
    pub evidence: Option<GateReply>,
    /// The reply of the gate `slo`, likewise.
    pub slo: Option<GateReply>,
    /// The reply of the gate `amounts`, likewise.
    pub amounts: Option<GateReply>,
    /// Replies of smoke checks and webhooks since the last tick, each with the number from
    /// [`Action::RunSmoke`] or [`Action::CallWebhook`].
    pub replies: Vec<(u64, GateReply)>,
}

/// What the caller does, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Record a transition.
    Record(Box<Entry>),
    /// Set the weights of the service, all versions not named getting 0.
    SetWeights(Weights),
    /// Run a smoke check against the new version.
    RunSmoke {
        /// The number of the question.
        ask: u64,
        /// The check.
        name: String,
    },
    /// Call a webhook.
    CallWebhook {
        /// The number of the question.
        ask: u64,
        /// The receiver.
        webhook: GateWebhook,
    },
    /// Say something to people.
    Warn(String),
    /// The rollout has ended.
    Finish(Outcome),
}

/// What is possible in a phase instead of the command `on`, as a sentence part; `asks`: whether the step asks for an
/// approval.
fn possible(phase: Phase, on: On, asks: bool) -> String {
    let commands = commands(phase).into_iter().filter(|on| asks || *on != On::Approve);
    let commands: Vec<&str> = commands.map(On::command).collect();
    match (&*commands, on) {
        ([], On::Rollback | On::Abort) => {
            "it has ended, and its way back with it; `tidegate weights` sets any split".to_owned()
        }
        ([], _) => "it has ended, so start another one".to_owned(),
        (commands, _) => format!("possible: {}", commands.join(", ")),
    }
}

/// Why a command is refused; the state stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another rollout of the service has not ended.
    #[error("a rollout of `{service}` to `{to}` is {phase}; abort it, or wait until it has ended")]
    Running {
        /// The service.
        service: String,
        /// Its version.
        to: String,
        /// The phase of the other one.
        phase: Phase,
    },
    /// The table of transitions does not have the command for this phase.
    #[error(
        "`{}` is not possible while the rollout is {phase}; {}",
        on.command(),
        possible(*phase, *on, *asks)
    )]
    Phase {
        /// The phase.
        phase: Phase,
        /// The command.
        on: On,
        /// Whether the step asks for an approval.
        asks: bool,
    },
    /// Something else speaks against it: what is wrong, a semicolon, and what would be right.
    #[error("{0}")]
    Rule(String),
}
