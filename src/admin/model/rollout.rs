//! Rollouts, and what is asked of them.

use std::time::{Duration, SystemTime};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::digits::six_digits;
use crate::{
    config::{
        schema::{GateKind, Step},
        units::Weight,
    },
    control::controller::Live,
    rollout::{BreakIn, Entry, Frozen, Phase, Reply, Rollout as Machine},
    telemetry::rfc3339,
};

/// Body of `POST /v1/services/{s}/rollout`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// The version that is to grow.
    pub to: String,
    /// A plan of the file, by name. Without it and without `steps`: the plan that the file names for the
    /// service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Steps, as in a plan of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Step>>,
    /// `p1`: the version must have all players within 24 hours, as a security patch; a metric and an alert show
    /// the time that is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

/// The priority of a rollout that is urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// All players within 24 hours.
    P1,
}

/// Body of a command to a rollout: `POST /v1/services/{s}/rollout/pause` and the like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutCommand {
    /// Of `approve`: whether the step is approved. Default `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approves: Option<bool>,
    /// Of `rollback`: whether the endpoints of the split before get their load at once, although they are not
    /// ready for it. Default `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_once: Option<bool>,
    /// Of `abort` and `rollback`: whether the split before is restored although no endpoint of it can be reached.
    /// Default `false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// Answer to a command to a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutAnswer {
    /// Generation in force afterwards; for a dry run the current one.
    pub generation: u64,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// What people should know, such as that it begins at a later step.
    pub warnings: Vec<String>,
    /// Of `abort` and `rollback`: why the entry is not in the journal yet, although the change is in force; null if
    /// it is, or there is no journal.
    #[serde(default)]
    pub unwritten: Option<String>,
    /// The rollout afterwards.
    pub rollout: Rollout,
}

/// `GET /v1/services/{s}/rollout`: the rollout in progress, or the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The service.
    pub service: String,
    /// The version that grows.
    pub to: String,
    /// The name of its plan; null if its steps came with the command.
    pub plan: Option<String>,
    /// Who started it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When, in UTC, RFC 3339.
    pub started: String,
    /// Until when the version must have all players, if it is urgent.
    pub due: Option<String>,
    /// The phase.
    pub phase: Phase,
    /// Since when.
    pub since: String,
    /// Why it is in this phase.
    pub cause: String,
    /// What happened to it last, which may be something that left it in its phase, such as an approval; null if nothing
    /// has happened since its start.
    #[serde(default)]
    pub last_transition: Option<RolloutEntry>,
    /// The step, counted from 1: the one in force; in `pending` the one that begins next.
    pub step: usize,
    /// All steps.
    pub steps: Vec<RolloutStep>,
    /// The share of players, 0 to 1 and to six digits, that the version has.
    pub share: f64,
    /// The weights in force.
    pub weights: IndexMap<String, Weight>,
    /// The weights before it, which a rollback restores.
    pub before: IndexMap<String, Weight>,
    /// Whether weights were set by hand since the rollout set them.
    pub by_hand: bool,
    /// Whether a rollback restores the weights before it.
    pub way_back: bool,
    /// How long the step was watched, in seconds, without pauses.
    pub watched_s: f64,
    /// Requests of the version in the step.
    pub requests: u64,
    /// The gates of the step.
    pub gates: Vec<RolloutGate>,
    /// What is missing for the next step, each as a sentence part; empty if nothing is.
    pub missing: Vec<String>,
    /// The window that freezes growth; null if none does.
    pub frozen: Option<Frozen>,
    /// Leave to grow in spite of that window; null if there is none.
    pub break_in: Option<BreakIn>,
    /// Its transitions since this process knows it, the oldest first.
    pub entries: Vec<RolloutEntry>,
}

/// The rollout in progress of a service, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutSummary {
    /// The version that grows.
    pub to: String,
    /// The phase.
    pub phase: Phase,
    /// The step, counted from 1.
    pub step: usize,
    /// Number of steps.
    pub steps: usize,
    /// Why it is in this phase.
    pub cause: String,
    /// What is missing for the next step.
    pub missing: Vec<String>,
    /// What happened to it last; null if nothing has happened since its start.
    #[serde(default)]
    pub last_transition: Option<RolloutEntry>,
}

impl RolloutSummary {
    /// That of `live`; `None` if it has ended.
    pub fn of(live: &Live) -> Option<Self> {
        let Machine { to, phase, step, plan, cause, missing, entries, .. } = &*live.rollout;
        (!phase.is_end()).then(|| Self {
            to: to.clone(),
            phase: *phase,
            step: step + 1,
            steps: plan.steps().len(),
            cause: cause.clone(),
            missing: missing.iter().map(ToString::to_string).collect(),
            last_transition: entries.last().map(RolloutEntry::from),
        })
    }
}

/// A step of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutStep {
    /// The share of players that the version gets, 0 to 1.
    pub share: f64,
    /// Least time, in seconds; of a step that is baked the time of that.
    pub least_s: Option<f64>,
    /// Whether it is baked.
    pub bake: bool,
    /// Its gates, such as `evidence` or `smoke money-path`.
    pub gates: Vec<String>,
}

/// A gate of the step in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutGate {
    /// Such as `evidence` or `smoke money-path`.
    pub gate: String,
    /// What it does when it fails.
    pub kind: GateKind,
    /// Its last reply; `undecided` before the first one.
    pub reply: Reply,
    /// Why.
    pub why: String,
}

/// A transition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutEntry {
    /// When, in UTC, RFC 3339.
    pub at: String,
    /// What led to it.
    pub on: String,
    /// The phase before.
    pub from: Phase,
    /// The phase after.
    pub to: Phase,
    /// The step, counted from 1.
    pub step: usize,
    /// Who: a token's name; `rollout` if it went on by itself.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Of `approve`: whether the person approves; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approves: Option<bool>,
}

impl Rollout {
    /// A rollout without its transitions.
    pub fn new(rollout: &Machine) -> Self {
        let Machine { service, to, plan, by, reason, phase, cause, step, .. } = rollout.clone();
        let steps = plan.steps().iter().map(RolloutStep::from).collect();
        let gates = plan.step(step).gates.iter().enumerate().map(|(index, gate)| {
            let said = rollout.progress.replies.get(index).cloned().flatten();
            let none = || Reply::Undecided.because("no answer yet");
            let said = said.unwrap_or_else(none);
            let gate_name = gate.question.to_string();
            RolloutGate { gate: gate_name, kind: gate.kind, reply: said.reply, why: said.why }
        });
        Self {
            gates: gates.collect(),
            service,
            to,
            by,
            reason,
            plan: plan.name,
            started: time(rollout.started_unix_ms),
            due: rollout.due.map(|due| time(due.by_unix_ms)),
            phase,
            since: time(rollout.since_unix_ms),
            cause,
            last_transition: rollout.entries.last().map(RolloutEntry::from),
            step: step + 1,
            steps,
            share: six_digits(rollout.share_served()),
            weights: rollout.weights.clone(),
            before: rollout.before.clone(),
            by_hand: rollout.by_hand,
            way_back: rollout.can_go_back(),
            watched_s: rollout.progress.watched_ms as f64 / 1e3,
            requests: rollout.progress.requests,
            missing: rollout.missing.iter().map(ToString::to_string).collect(),
            frozen: rollout.frozen.clone(),
            break_in: rollout.break_in.clone(),
            entries: Vec::new(),
        }
    }
}

impl From<&Live> for Rollout {
    fn from(live: &Live) -> Self {
        let entries = live.rollout.entries.iter().map(RolloutEntry::from).collect();
        Self { entries, ..Self::new(&live.rollout) }
    }
}

impl From<&Step> for RolloutStep {
    fn from(step: &Step) -> Self {
        Self {
            share: step.weight.0,
            least_s: step.bake.or(step.least).map(|least| least.as_secs_f64()),
            bake: step.bake.is_some(),
            gates: step.gates.iter().map(|gate| gate.question.to_string()).collect(),
        }
    }
}

impl From<&Entry> for RolloutEntry {
    fn from(entry: &Entry) -> Self {
        let Entry { on, from, to, step, by, reason, at_unix_ms, approves, .. } = entry.clone();
        let (at, on) = (time(at_unix_ms), on.label().to_owned());
        Self { at, on, from, to, step: step + 1, by, reason, approves }
    }
}

fn time(unix_ms: u64) -> String {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
    rfc3339::millis(at.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}
