//! All that a rollout is, as data: it survives restarts and takeovers as JSON.
//!
//! Durations are measured on the rollout's own clock, `clock_ms`, which advances on each tick by the time since
//! the tick before, as a clock measures it that nobody sets. A gap above [`MOST_GAP`](super::MOST_GAP) does not
//! count. So a clock that is set back or forward, and a process that was down, stopped or asleep, neither end a
//! step nor a bake: a step lasts as long as it was watched. Wall times, in milliseconds since 1970, are for people
//! and for windows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    gate::{Approval, GateReply, Reply, in_words},
    judged::Judged,
    phase::{On, Phase},
    plan::Plan,
    split::{Weights, share, share_beside, share_served, with_share, without},
};
use crate::{
    config::{
        actor,
        schema::{Gate, GateQuestion, Step},
    },
    telemetry::rfc3339,
};

/// Who, where a rollout goes on by itself.
pub const ITSELF: &str = actor::ROLLOUT;

/// Most transitions of a rollout that are remembered.
const MOST_ENTRIES: usize = 100;

/// Whether a list that is shared is empty.
fn is_empty(entries: &Arc<Vec<Entry>>) -> bool {
    entries.is_empty()
}

/// A rollout of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The service.
    pub service: String,
    /// The version that grows.
    pub to: String,
    /// The plan, as it was when the rollout was started.
    pub plan: Plan,
    /// Who started it: a token's name.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Whether approvals must come from somebody else.
    pub second_person: bool,
    /// When it was started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// The split before it, which a rollback restores.
    pub before: Weights,
    /// The weights in force: as this rollout set them last, or as they were set by hand.
    pub weights: Weights,
    /// Whether the weights were set by hand since this rollout set them.
    pub by_hand: bool,
    /// The phase.
    pub phase: Phase,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Why it is in this phase, a sentence without a full stop.
    pub cause: String,
    /// The step, counted from 0: the one in force, or in `pending` the one that begins next.
    pub step: usize,
    /// Progress of the step.
    pub progress: Progress,
    /// What is missing for the next step; empty in an end.
    pub missing: Vec<Missing>,
    /// The window that freezes growth, as of the last tick.
    pub frozen: Option<Frozen>,
    /// Why no endpoint of the version can be reached, as of the last tick.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unreached: Option<String>,
    /// Why time does not replace evidence about it, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) incomparable: Option<String>,
    /// Why it is kept although a verdict found it to be worse, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<String>,
    /// Why no version of the split before works, while this one does, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stranded: Option<String>,
    /// Whether somebody insists that it goes back, whether a version of the split before works or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) insists: bool,
    /// Leave to grow in spite of a window.
    pub break_in: Option<BreakIn>,
    /// Versions that are ejected.
    pub ejected: BTreeSet<String>,
    /// Whether the endpoints of the split before are ready for its load.
    pub baseline_ready: bool,
    /// A rollback in a ramp.
    pub ramp: Option<Ramp>,
    /// What `rolling_back` ends in.
    pub heading: Outcome,
    /// Whether a rollback restores `before` once the rollout is done.
    pub way_back: bool,
    /// The rollout's own clock, in milliseconds.
    pub(super) clock_ms: u64,
    /// The moment of the last tick in this process, in milliseconds; see [`Observed`](super::Observed).
    #[serde(default)]
    pub(super) last_tick_ms: Option<u64>,
    /// The version's requests as of the last tick.
    pub(super) last_requests: Option<u64>,
    /// The number of the latest run or call.
    pub(super) asked: u64,
    /// Until when the version must have all players, if the rollout is urgent.
    #[serde(default)]
    pub due: Option<Due>,
    /// Its transitions, the oldest first, for reports; the journal has all. Shared, since each tick makes a copy.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub entries: Arc<Vec<Entry>>,
}

/// The clock of an urgent rollout, such as one of a security patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// When the version must have all players, in milliseconds since 1970.
    pub by_unix_ms: u64,
    /// Warnings so far: one when little time is left, and one when it is over.
    pub(super) warned: u8,
}

impl Due {
    /// The clock of a rollout that starts at this time.
    pub(super) fn from(started_unix_ms: u64) -> Self {
        let by_unix_ms = started_unix_ms.saturating_add(ms(URGENT));
        Self { by_unix_ms, warned: 0 }
    }

    /// What to say at this time, if it has not been said.
    pub(super) fn warning(&mut self, now_unix_ms: u64) -> Option<String> {
        let left = self.by_unix_ms.saturating_sub(now_unix_ms);
        let (level, message) = match left {
            0 => (
                2,
                "it is urgent, and its time is over: the version should have all players"
                    .to_owned(),
            ),
            left if left <= ms(SOON) => {
                let left = in_words(Duration::from_millis(left));
                (
                    1,
                    format!(
                        "it is urgent, and {left} are left until the version must have all players"
                    ),
                )
            }
            _ => return None,
        };
        let is_new = level > self.warned;
        self.warned = self.warned.max(level);
        is_new.then_some(message)
    }
}

/// In which time the version of an urgent rollout must have all players.
pub const URGENT: Duration = Duration::from_secs(24 * 3600);

/// Time left at which a warning is given.
const SOON: Duration = Duration::from_secs(2 * 3600);

/// A time in whole milliseconds.
pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a rollout ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The version has all players.
    Done,
    /// The split before is in force.
    RolledBack,
    /// It was given up.
    Aborted,
}

impl Outcome {
    /// The phase that it is.
    pub fn phase(self) -> Phase {
        match self {
            Self::Done => Phase::Done,
            Self::RolledBack => Phase::RolledBack,
            Self::Aborted => Phase::Aborted,
        }
    }
}

/// Progress of a step since its weight was set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Whether the weight of the step is set.
    pub begun: bool,
    /// How long it was watched, in milliseconds, without pauses.
    pub watched_ms: u64,
    /// Requests of the version.
    pub requests: u64,
    /// Who skips what is left of it, and why.
    pub promoted: Option<(String, String)>,
    /// The latest approval or refusal by a person.
    pub approval: Option<Approval>,
    /// The latest reply of each gate, in the order of the plan; absent until there is one.
    pub replies: Vec<Option<GateReply>>,
    /// Whether each gate has passed once, in the same order.
    pub(super) passed: Vec<bool>,
    /// Runs of smoke checks and calls of webhooks, in the same order.
    pub(super) asks: Vec<Ask>,
    /// Runs of the smoke checks of the next step, before it begins, in the order of its gates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ahead: Vec<Ahead>,
}

impl Progress {
    /// The same step as it begins again: time, requests and replies are gone, and the refusal of a person is not.
    pub(super) fn anew(&self) -> Self {
        let approval = self.approval.clone().filter(|said| !said.approves);
        Self { approval, ..Self::default() }
    }
}

/// What is known of a gate of the next step, before it begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ahead {
    /// The latest run.
    pub(super) ask: Ask,
    /// Its latest reply.
    pub(super) reply: Option<GateReply>,
}

/// The latest run of a smoke check, or call of a webhook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ask {
    /// Its number while its reply is missing; 0 if none is.
    pub(super) open: u64,
    /// When it began, or its reply came, on the rollout's clock.
    pub(super) at_ms: u64,
}

/// What is missing for the next step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Time of the step, or of the bake.
    Time {
        /// How much, in milliseconds.
        left_ms: u64,
    },
    /// Requests of the version.
    Requests {
        /// How many.
        left: u64,
    },
    /// A gate that has not passed.
    Gate {
        /// Its name, such as `evidence` or `smoke money-path`.
        gate: String,
        /// Its reply: fail or undecided.
        reply: Reply,
        /// The reason.
        why: String,
    },
    /// A window that allows growth.
    Window(Frozen),
    /// A version of the split before that is not ejected.
    Baseline,
    /// A version of the split before that works.
    Way {
        /// Why none does.
        why: String,
    },
    /// An endpoint of the new version that can be reached.
    Endpoint {
        /// Why none can.
        why: String,
    },
}

/// What freezes growth at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// The window's name: the one that freezes; or one outside of which nothing grows.
    pub window: String,
    /// Whatever else freezes it at the same time, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Since when each of them does, by name, in milliseconds since 1970; without those that always have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub since_unix_ms: BTreeMap<String, u64>,
    /// When it ends, in milliseconds since 1970; absent if never.
    pub until_unix_ms: Option<u64>,
    /// Whether a break-in needs a second person.
    pub second_person: bool,
}

/// Leave to grow in spite of a window, until that window is over. It covers what froze growth when it was given, and a
/// window that begins again is another freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakIn {
    /// The window.
    pub window: String,
    /// Whatever else froze growth at that time, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Since when each of them did, as in [`Frozen`]; absent in leave that an earlier release gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_unix_ms: Option<BTreeMap<String, u64>>,
    /// Who broke in.
    pub by: String,
    /// The second person, if one agreed.
    pub second: Option<String>,
    /// Why.
    pub reason: String,
    /// When it ends at the latest, in milliseconds since 1970: when growth was to be allowed again.
    #[serde(default)]
    pub until_unix_ms: Option<u64>,
}

impl BreakIn {
    /// Whether it allows growth in spite of `frozen` at this time. Another window, or one that asks for a second
    /// person, may have begun since.
    pub(super) fn covers(&self, frozen: Option<&Frozen>, now_unix_ms: u64) -> bool {
        let is_over = self.until_unix_ms.is_some_and(|until| now_unix_ms >= until);
        let is_known = |name: &String| *name == self.window || self.also.contains(name);
        frozen.is_some_and(|frozen| {
            let has_begun_again = |name: &String| {
                let since = self.since_unix_ms.as_ref();
                since.is_some_and(|since| since.get(name) != frozen.since_unix_ms.get(name))
            };
            frozen.names().all(|name| is_known(name) && !has_begun_again(name))
                && (!frozen.second_person || self.second.is_some())
        }) && !is_over
    }
}

impl Frozen {
    /// All that freezes growth, by name.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.window).chain(&self.also)
    }

    /// The same with another cause beside it: growth is frozen until both are over.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.second_person |= other.second_person;
        self.until_unix_ms = self.until_unix_ms.zip(other.until_unix_ms).map(|(a, b)| a.max(b));
        let more: Vec<String> =
            other.names().filter(|name| self.names().all(|own| own != *name)).cloned().collect();
        self.also.extend(more);
        // What has gone on for longest decides, where both have one of the name.
        for (name, since) in other.since_unix_ms {
            let own = self.since_unix_ms.entry(name).or_insert(since);
            *own = since.min(*own);
        }
        self
    }
}

/// A rollback that gives the split before its load bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    /// When it began, on the rollout's clock.
    pub(super) began_ms: u64,
    /// When the weights were set last, on the rollout's clock.
    pub(super) set_ms: u64,
    /// The share of the version as it began, 0 to 1.
    pub(super) from: f64,
}

/// A transition that was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What led to it.
    pub on: On,
    /// The phase before.
    pub from: Phase,
    /// The phase after.
    pub to: Phase,
    /// The step, counted from 0.
    pub step: usize,
    /// Who: a token's name; `rollout` if it went on by itself.
    pub by: String,
    /// Why, a sentence without a full stop.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The break-in that a growth rests on.
    pub break_in: Option<BreakIn>,
    /// Of an approval, whether the person approves; absent in entries of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approves: Option<bool>,
    /// The step on whose gates the transition rests, for the journal; not remembered.
    #[serde(skip)]
    pub judged: Option<Judged>,
}

impl Entry {
    /// Whether it belongs into the journal: `hold` and `go_on` change nothing that must be kept.
    pub fn is_kept(&self) -> bool {
        !matches!(self.on, On::Hold | On::GoOn)
    }

    /// What happened, as a sentence for people without who did it: what a person decided, or the phase, and why.
    pub fn told(&self) -> String {
        let step = self.step + 1;
        let what = match self.decided() {
            "approve" => format!("step {step} is approved"),
            "reject" => format!("step {step} is not approved"),
            "promote" => format!("promoted: what is left of step {step} is skipped"),
            "pause" => "paused".to_owned(),
            "resume" => format!("resumed, {}", self.to.label()),
            "break_in" => match &self.break_in {
                Some(BreakIn { window, also, .. }) => {
                    let windows = [std::slice::from_ref(window), also].concat().join(", ");
                    format!("broke into the window {windows}")
                }
                None => "broke into the window".to_owned(),
            },
            "abort" => "given up".to_owned(),
            "rollback" => "rolled back by a person".to_owned(),
            _ => self.to.label().to_owned(),
        };
        let gap = if self.reason.is_empty() { "" } else { ": " };
        format!("{what}{gap}{}", self.reason)
    }

    /// What was decided, in one word: what led to it, or `reject` if a person did not approve.
    pub fn decided(&self) -> &'static str {
        match (self.on, self.approves) {
            (On::Approve, Some(false)) => "reject",
            (on, _) => on.label(),
        }
    }
}

impl Rollout {
    /// Who caused its last transition; of a way back that has ended, who began that.
    pub fn led_by(&self) -> &str {
        let led = self.entries.iter().rev().find(|entry| entry.on != On::Restored);
        led.map_or(ITSELF, |entry| &entry.by)
    }

    /// The same in a process that goes on with it: nobody has watched since the last tick, and nobody will answer
    /// the smoke checks and webhooks that another process asked.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        self.last_tick_ms = None;
        // What this process finds missing, it tells people anew.
        self.missing.clear();
        self.progress.asks.iter_mut().for_each(|ask| ask.open = 0);
        self.progress.ahead.iter_mut().for_each(|ahead| ahead.ask.open = 0);
        self
    }

    /// Whether both are states of one rollout.
    pub fn is_same(&self, other: &Self) -> bool {
        self.service == other.service
            && self.to == other.to
            && self.started_unix_ms == other.started_unix_ms
    }

    /// The share of players that the version has by the weights in force, 0 to 1.
    pub fn share(&self) -> f64 {
        share(&self.weights, &self.to)
    }

    /// The share of players that the version gets, 0 to 1: those of versions that are ejected are spread over the others.
    pub fn share_served(&self) -> f64 {
        share_served(&self.weights, &self.to, &self.ejected)
    }

    /// `weights` as they serve: those of ejected versions are 0.
    pub fn serving(&self, weights: &Weights) -> Weights {
        without(weights, &self.ejected)
    }

    /// Whether the step waits for a person to approve it: its least time and requests are over.
    pub fn wants_approval(&self) -> bool {
        let is_asked = matches!(self.phase, Phase::Growing | Phase::Holding | Phase::Baking);
        let is_approval = |one: &Missing| matches!(one, Missing::Gate { gate, reply: Reply::Undecided, .. } if *gate == GateQuestion::Approval.label());
        let is_least =
            |one: &Missing| matches!(one, Missing::Time { .. } | Missing::Requests { .. });
        is_asked && self.missing.iter().any(is_approval) && !self.missing.iter().any(is_least)
    }

    /// Remembers a transition. Of too many, those go first that are not in the journal either, and last those that
    /// begin a step: one that was reached is told as reached.
    pub(super) fn remember(&mut self, entry: Entry) {
        let entries = Arc::make_mut(&mut self.entries);
        entries.push(Entry { judged: None, ..entry });
        if entries.len() > MOST_ENTRIES {
            let first = |goes: fn(&Entry) -> bool| entries.iter().position(goes);
            let gone = first(|entry| !entry.is_kept())
                .or_else(|| first(|entry| !matches!(entry.on, On::Grow | On::Bake)));
            entries.remove(gone.unwrap_or_default());
        }
    }

    /// The same where somebody insists that it goes back.
    #[must_use]
    pub fn insisting(&self) -> Self {
        Self { insists: true, ..self.clone() }
    }

    /// Versions that get the players of the new one when it goes back.
    pub fn heirs(&self) -> impl Iterator<Item = &String> {
        self.others().filter(|name| !self.ejected.contains(*name))
    }

    /// Whether the new version has players that it has not in the split before.
    pub fn takes_players_back(&self) -> bool {
        self.way().is_some_and(|way| share(&way, &self.to) < self.share())
    }

    /// Versions that had weight in the split before, without the new one.
    pub(super) fn others(&self) -> impl Iterator<Item = &String> {
        let with_weight = self.before.iter().filter(|(_, weight)| weight.value() > 0.0);
        with_weight.map(|(name, _)| name).filter(|name| **name != self.to)
    }

    /// Whether the split before can still come into force, by a command or by the rollout itself.
    pub fn can_go_back(&self) -> bool {
        !self.phase.is_end() || self.phase == Phase::Done && self.way_back
    }

    /// The split before, exactly as it was, if anybody but the new version would be left. Ejected versions keep their
    /// weights: their ejection keeps players away, and another split without it would forget what they had.
    pub fn way(&self) -> Option<Weights> {
        self.heirs().next().map(|_| self.before.clone())
    }

    /// The split that `step` sets: the split before, in which the new version has the share of the step, of the players
    /// that versions get which are not ejected; and no less than it had, which another version would get. `None` as of
    /// [`Rollout::way`].
    pub fn split_of(&self, step: &Step) -> Option<Weights> {
        let way = self.way()?;
        let beside = share_beside(&way, &self.to, step.weight.0, &self.ejected);
        Some(with_share(&way, &self.to, beside.max(share(&way, &self.to))))
    }
}

impl Missing {
    /// A gate that has not passed.
    pub(super) fn gate(gate: &Gate, said: &GateReply) -> Self {
        let (gate, why) = (gate.question.to_string(), said.why.clone());
        Self::Gate { gate, reply: said.reply, why }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time { left_ms } => f.write_str(&in_words(Duration::from_millis(*left_ms))),
            Self::Requests { left } => write!(f, "{left} requests"),
            Self::Gate { gate, reply, why } => write!(f, "{gate} ({}: {why})", reply.label()),
            Self::Window(frozen) => {
                let names: Vec<&str> = frozen.names().map(String::as_str).collect();
                let noun = if names.len() > 1 { "windows" } else { "window" };
                write!(f, "the {noun} {}", names.join(", "))?;
                let until = frozen.until_unix_ms.map(Duration::from_millis);
                match until.and_then(|until| std::time::SystemTime::UNIX_EPOCH.checked_add(until)) {
                    Some(until) => write!(f, " until {}", rfc3339::seconds(until)),
                    None => Ok(()),
                }
            }
            Self::Baseline => f.write_str("a version to go back to: all are ejected"),
            Self::Way { why } => write!(f, "another version that works ({why})"),
            Self::Endpoint { why } => write!(f, "an endpoint that can be reached ({why})"),
        }
    }
}
