//! What people and the journal are told of a rollout.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use super::{Live, itself, observe::Counted, shares};
use crate::{
    control::{
        controller::{Controller, rolled::Rolled},
        events::{EventDetails, EventKind},
        state::{Change, ControlState},
    },
    rollout::{Action, Entry, On, Outcome, Phase, Rollout},
    store::{Actor, Draft, Head},
};

/// After so much watched time the progress of a step is written.
const KEPT_EVERY: Duration = Duration::from_secs(300);

impl Controller {
    /// Tells of what `rolled` did, which is in force, and remembers what is still to be done. `entry` is its entry
    /// in the journal, if that was written first.
    pub(super) fn publish_rolled(&mut self, rolled: Rolled, entry: Option<Head>) {
        let is_kept = rolled.is_kept();
        let wanted = rolled.before.as_ref().is_some_and(|before| before.wants_approval());
        let Rolled { before, rollout, actions, heard, second } = rolled;
        let asks = !wanted && rollout.wants_approval();
        let service = rollout.service.clone();
        let is_new = before.is_none();
        let mut live = match self.rollouts.remove(&service).filter(|_| !is_new) {
            Some(live) => live,
            None => Live::of(rollout.clone()),
        };
        live.rollout = Arc::new(rollout);
        live.replies.retain(|(ask, _)| !heard.contains(ask));
        if is_kept {
            live.told.clear();
        }
        let sets = actions.iter().any(|action| matches!(action, Action::SetWeights(_)));
        for action in &actions {
            match action {
                Action::Record(entry) => {
                    if matches!(entry.on, On::Grow | On::Bake) {
                        self.evaluator.begin_step(&service);
                    }
                }
                Action::RunSmoke { .. } | Action::CallWebhook { .. } => {
                    live.asks.push(action.clone());
                }
                Action::SetWeights(_) | Action::Warn(_) | Action::Finish(_) => {}
            }
        }
        let is_end = live.rollout.phase.is_end();
        // Most ticks have nothing to tell.
        let told = (is_new || asks || !actions.is_empty()).then(|| live.clone());
        self.rollouts.insert(service.clone(), live);
        if sets || is_new {
            self.begin_count(&service);
        }
        if is_end {
            self.evaluator.watch_players(&service, false);
        }
        let Some(live) = told else { return };
        if is_new {
            self.tell_started(&live.rollout, second.as_deref(), entry);
            self.rollout_news.notify_one();
        }
        for action in actions {
            match action {
                Action::Record(one) => {
                    self.tell_transition(&live.rollout, (&one, second.as_deref()), entry);
                }
                Action::Warn(message) => self.warn_of_rollout(&live.rollout, message),
                Action::Finish(outcome) => self.tell_ended(&live, outcome, entry),
                Action::SetWeights(_) | Action::RunSmoke { .. } | Action::CallWebhook { .. } => {}
            }
        }
        if asks {
            self.tell_wanted(&live.rollout);
        }
    }

    /// Writes how far the step of the rollout of `service` is, if it was watched for a while since that was
    /// written: a process that is started anew goes on from there.
    pub(super) fn keep_progress(&mut self, service: &str) {
        let Some(live) = self.rollouts.get(service) else { return };
        let kept = self.state.rollouts().get(service).map(|kept| kept.progress.watched_ms);
        let watched_ms = live.rollout.progress.watched_ms;
        let since = Duration::from_millis(watched_ms.saturating_sub(kept.unwrap_or_default()));
        if since < KEPT_EVERY || self.keeper.is_writing() {
            return;
        }
        let rollout = Rollout::clone(&live.rollout);
        let watched = humantime::format_duration(Duration::from_secs(watched_ms / 1000));
        let reason = format!("the step was watched for {watched}");
        self.note(Change::RolloutMoved(Box::new(rollout.clone())));
        let place = (service, &self.state);
        let mut draft = self.draft_of("rollout_progress", itself(), &reason, place);
        draft.after = described(&rollout);
        draft.after["requests"] = json!(rollout.progress.requests);
        self.write_late(draft);
    }

    /// From now on counts for the step of the rollout of `service`.
    fn begin_count(&mut self, service: &str) {
        let counted = self.counted(service);
        if let Some(live) = self.rollouts.get_mut(service) {
            live.since = counted;
        }
    }

    /// As [`Controller::publish_rolled`], for what followed from a change of others. Its entry comes after that
    /// of the change.
    pub(in crate::control::controller) fn publish_followed(&mut self, followed: Vec<Rolled>) {
        for rolled in followed {
            if rolled.is_kept() {
                let draft = self.rollout_entry(&rolled, None, &self.state);
                self.keeper.defer(draft);
            }
            self.publish_rolled(rolled, None);
        }
    }

    /// Continues with the rollouts of the state, where these differ from those that live here.
    pub(in crate::control::controller) fn resume_rollouts(&mut self) {
        let kept = self.state.rollouts().clone();
        self.rollouts.retain(|service, _| kept.contains_key(service));
        for (service, rollout) in kept {
            let lives = self.rollouts.get(&service);
            if lives.is_none_or(|live| *live.rollout != **rollout) {
                let same = lives.filter(|live| live.rollout.is_same(&rollout));
                let begun = same.and_then(|live| live.begun.clone());
                let live = Live { begun, ..Live::of(Rollout::clone(&rollout).resumed()) };
                self.rollouts.insert(service.clone(), live);
                self.begin_count(&service);
            }
        }
        self.rollout_news.notify_one();
    }

    /// The entry of what `rolled` does, which leads to the state `then`. `by` is the caller, if it is a command.
    pub(super) fn rollout_entry(
        &self,
        rolled: &Rolled,
        by: Option<&Actor>,
        then: &ControlState,
    ) -> Draft {
        let Rolled { before, rollout, .. } = rolled;
        let kept: Vec<&Entry> = rolled.entries().filter(|entry| entry.is_kept()).collect();
        let reason = match (before, &*kept) {
            (None, _) => rollout.reason.clone(),
            (Some(_), []) => rollout.cause.clone(),
            (Some(_), [first, ..]) => first.reason.clone(),
        };
        let kind = if before.is_none() { "rollout_started" } else { "rollout" };
        let actor = by.cloned().unwrap_or_else(itself);
        let mut draft = self.draft_of(kind, actor, &reason, (&rollout.service, then));
        draft.before = before.as_deref().map_or(Value::Null, described);
        draft.after = described(rollout);
        match before {
            None => {
                draft.after["plan"] = without_secrets(json!(rollout.plan));
                draft.after["urgent"] = json!(rollout.due.is_some());
            }
            Some(_) => tell_decisions(&mut draft.after, &kept),
        }
        let leave = kept.iter().find_map(|entry| entry.break_in.as_ref());
        if let Some(leave) = leave {
            draft.after["break_in"] = json!(leave);
            draft.second.clone_from(&leave.second);
        }
        draft.generation = then.generation();
        draft
    }

    /// Tells that the step of `rollout` waits for a person to approve it.
    fn tell_wanted(&mut self, rollout: &Rollout) {
        let Rollout { service, to, step, plan, second_person, by, .. } = rollout;
        let who = match second_person {
            true => format!("another person than {by}"),
            false => "a person".to_owned(),
        };
        let text = format!(
            "step {} of {} waits for {who} to approve it: `tidegate rollout approve {service}`, or `tidegate rollout \
             reject {service}`",
            step + 1,
            plan.steps().len()
        );
        tracing::info!(service, version = to, step = step + 1, "the rollout waits for an approval");
        let matter = EventDetails::of_place(service.clone(), to.clone(), text);
        self.record(EventKind::RolloutWantsApproval, matter);
    }

    fn tell_started(&mut self, rollout: &Rollout, second: Option<&str>, entry: Option<Head>) {
        let Rollout { service, to, by, reason, .. } = rollout;
        let plan = rollout.plan.name.clone().unwrap_or_else(|| "its own steps".to_owned());
        tracing::info!(service, version = to, plan, by, reason, "rollout started");
        let gap = if reason.is_empty() { "" } else { ": " };
        let text = format!("a rollout by {plan} begins{gap}{reason}");
        let matter = EventDetails {
            journal: entry,
            second: second.map(str::to_owned),
            ..EventDetails::of_version(service.clone(), to.clone(), by.clone(), text)
        };
        self.record(EventKind::RolloutStarted, matter);
    }

    fn tell_transition(
        &mut self,
        rollout: &Rollout,
        (entry, second): (&Entry, Option<&str>),
        journal: Option<Head>,
    ) {
        let Rollout { service, to, .. } = rollout;
        let Entry { on, from, to: phase, by, reason, step, .. } = entry;
        let (step, share, what) = (step + 1, rollout.share_served(), entry.decided());
        tracing::info!(
            service, version = to, what, %from, %phase, step, share, by, second, reason, "rollout"
        );
        if !entry.is_kept() {
            return;
        }
        let text = entry.told();
        // Growth that rests on a break-in has its second person.
        let leave = entry.break_in.as_ref().and_then(|leave| leave.second.as_deref());
        let matter = EventDetails {
            journal,
            what: Some(what.to_owned()),
            second: second.or(leave).map(str::to_owned),
            share: matches!(on, On::Grow | On::Bake | On::Restored | On::Ejected).then_some(share),
            ..EventDetails::of_version(service.clone(), to.clone(), by.clone(), text)
        };
        self.record(EventKind::Rollout, matter);
    }

    fn tell_ended(&mut self, live: &Live, outcome: Outcome, journal: Option<Head>) {
        let Rollout { service, to, cause, .. } = &*live.rollout;
        let incident = self.finished_rollout(&live.rollout);
        let report = incident.as_ref().map(|incident| incident.path.clone());
        let ended = outcome.phase().label();
        match outcome {
            Outcome::Done => tracing::info!(service, version = to, cause, report, "rollout done"),
            _ => tracing::warn!(service, version = to, ended, cause, report, "rollout ended"),
        }
        let matter = EventDetails {
            journal,
            incident,
            by: Some(live.rollout.led_by().to_owned()),
            ..EventDetails::of_place(service.clone(), to.clone(), format!("{ended}: {cause}"))
        };
        let kind = match outcome {
            Outcome::Done => EventKind::RolloutDone,
            Outcome::RolledBack => EventKind::RolloutRolledBack,
            Outcome::Aborted => EventKind::RolloutAborted,
        };
        self.record(kind, matter);
        *self.rollouts_ended.entry((service.clone(), outcome.phase())).or_default() += 1;
        // A checkpoint follows.
        self.rollout_news.notify_one();
    }

    pub(super) fn warn_of_rollout(&mut self, rollout: &Rollout, reason: String) {
        let Rollout { service, to, .. } = rollout;
        // Not as `message`, which is that of the line.
        tracing::warn!(service, version = to, reason, "rollout");
        let matter = EventDetails::of_place(service.clone(), to.clone(), reason);
        self.record(EventKind::RolloutWarning, matter);
    }
}

impl Live {
    pub(super) fn of(rollout: Rollout) -> Self {
        Self {
            rollout: Arc::new(rollout),
            since: Counted::default(),
            asks: Vec::new(),
            replies: Vec::new(),
            failed: BTreeMap::new(),
            begun: None,
            told: BTreeSet::new(),
        }
    }
}

/// What was decided, by whom and why, and what the gates said that it rests on.
fn tell_decisions(after: &mut Value, kept: &[&Entry]) {
    after["on"] = json!(kept.iter().map(|entry| entry.on).collect::<Vec<_>>());
    let decided = kept
        .iter()
        .map(|entry| json!({ "what": entry.decided(), "by": entry.by, "reason": entry.reason }));
    after["decided"] = decided.collect();
    if let Some(judged) = kept.iter().find_map(|entry| entry.judged.as_ref()) {
        after["judged"] = json!(judged);
    }
}

/// A plan without the paths of its webhooks, which may be secrets.
fn without_secrets(mut plan: Value) -> Value {
    let steps = plan["steps"].as_array_mut().into_iter().flatten();
    let gates = steps.filter_map(|step| step.get_mut("gates")?.as_array_mut()).flatten();
    for url in gates.filter_map(|gate| gate.get_mut("webhook")?.get_mut("url")) {
        let parsed: Option<http::Uri> = url.as_str().and_then(|url| url.parse().ok());
        let host = parsed.as_ref().and_then(|url| Some((url.scheme_str()?, url.authority()?)));
        *url = match host {
            Some((scheme, host)) => json!(format!("{scheme}://{host}/…")),
            None => json!("…"),
        };
    }
    plan
}

/// A rollout in an entry of the journal.
fn described(rollout: &Rollout) -> Value {
    let Rollout { to, plan, phase, step, weights, .. } = rollout;
    json!({
        "version": to,
        "phase": phase,
        "step": step + 1,
        "steps": plan.steps().len(),
        "plan_name": plan.name,
        "weights": weights,
        "shares": shares(&rollout.serving(weights)),
    })
}

/// The number of rollouts that ended in each phase, by service.
pub type RolloutsEnded = std::collections::BTreeMap<(String, Phase), u64>;
