//! The moment from which a process writes to its journal: at its start, after a takeover, and when it gets the
//! journal back. Then the journal is told what is in force, and how that differs from what it knew.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{
    Controller, Dropped,
    keeping::{Checked, Place},
    splits::{Splits, splits, tell_all},
};
use crate::{
    config::actor,
    control::{
        fences::first_epoch,
        kept::{GENERATIONS_AHEAD, KeptRows},
        state::{
            ControlState, Ejection, ManualEjection,
            rows::{Row, Rows, is_known, value_of},
        },
    },
    store::{Actor, Draft, Journal, StateChange},
    telemetry::rfc3339,
};

/// Most rows of the state that an entry names because they are gone.
const MOST_GONE: usize = 1_000;

/// A journal as it was opened.
#[derive(Debug)]
pub struct Opened {
    /// Its folder.
    pub folder: PathBuf,
    /// The journal.
    pub journal: Arc<Journal>,
    /// Its state.
    pub rows: Rows,
    /// The weights that it knew last, by service and version.
    pub weights: BTreeMap<String, Value>,
    /// Why it is opened now.
    pub reason: String,
    /// What of its state does not apply.
    pub dropped: Dropped,
}

impl Controller {
    /// Writes to a journal from now on. Its next entry says why, what is in force, and what was dropped of its
    /// state. Decisions that it does not know get entries of their own before that.
    pub fn attach_journal(&mut self, opened: Opened) {
        let Opened { folder, journal, rows, weights, reason, dropped } = opened;
        let missed = match std::mem::replace(&mut self.keeper.place, Place::Memory) {
            Place::Closed { missed, .. } => missed,
            Place::Memory | Place::Open { .. } => VecDeque::new(),
        };
        let has_missed = !missed.is_empty();
        missed.into_iter().for_each(|draft| journal.write_late(draft, Vec::new()));
        let rows: Rows = rows.into_iter().filter(|(key, _)| is_known(key)).collect();
        // They were read as a state before.
        let known = ControlState::from_rows(&rows).unwrap_or_default();
        self.keeper.rows = KeptRows::new(rows.clone());
        let mut changes = self.keeper.rows.late(&self.state.rows());
        let entries = journal.health().head.seq;
        self.keeper.place = Place::Open { folder, journal, entries };
        self.keeper.checked = Checked::NotYet;
        // What was missed has the entries of what was decided meanwhile.
        if !has_missed {
            for (draft, key) in self.unknown_decisions(&changes, &rows) {
                let own: Vec<StateChange> =
                    changes.extract_if(.., |change| change.key == key).collect();
                self.send_late(draft, own);
            }
        }
        let mut draft = self.draft("resumed", Actor::system(), &reason);
        draft.after = dropped.described();
        let is_gone = |change: &&StateChange| change.value.is_none();
        let gone: Vec<&str> = changes.iter().filter(is_gone).map(|change| &*change.key).collect();
        if !gone.is_empty() {
            draft.after["rows_gone"] = json!(gone.iter().take(MOST_GONE).collect::<Vec<_>>());
        }
        self.tell_weights(&mut draft, known_weights(weights, &known));
        self.send_late(draft, changes);
        self.keeper.opened.notify_one();
    }

    /// Takes over the state that a journal has, by the rules of a reload. Returns what no longer applies.
    pub fn resume_from(&mut self, rows: &ControlState) -> Dropped {
        let rows = rows.clone().ahead(GENERATIONS_AHEAD);
        self.inherit_as(rows.fenced_from(first_epoch(self.started.1)), actor::RESTART)
    }

    /// Writes into the entry what is in force of all services, and the weights that were in force, of those
    /// that have others now.
    fn tell_weights(&self, draft: &mut Draft, known: BTreeMap<String, Value>) {
        let after = splits(&self.snapshot());
        let was = |(service, weights): (String, Value)| {
            let now = after.get(&service).map(|split| &split["weights"]);
            (!is_same(now, &weights)).then(|| (service, json!({ "weights": weights })))
        };
        let before: Splits = known.into_iter().filter_map(was).collect();
        tell_all(draft, &before, &after);
    }

    /// Entries of decisions among `changes` of the `known` rows, each with the key of its row: they were made
    /// while there was no journal.
    fn unknown_decisions(&self, changes: &[StateChange], known: &Rows) -> Vec<(Draft, String)> {
        let rows = changes.iter().filter(|change| change.value.is_some());
        let rows = rows.filter_map(|change| Some((change.key.clone(), change.value.clone()?)));
        let is_new = |(key, row): &(String, Row)| {
            let is_same = |old: &Row| is_same_decision(&value_of(old), &value_of(row));
            !known.get(key).is_some_and(is_same)
        };
        let rows: Rows = rows.filter(|(key, _)| is_known(key)).filter(is_new).collect();
        let mut all = Vec::new();
        for (key, value) in rows {
            let one = Rows::from([(key.clone(), value)]);
            // It comes from a state.
            let Ok(part) = ControlState::from_rows(&one) else { continue };
            all.extend(self.decision_of(&part).map(|draft| (draft, key)));
        }
        all
    }

    /// The entry of the one decision in `part`, if it is one of an operator or a verdict.
    fn decision_of(&self, part: &ControlState) -> Option<Draft> {
        let entry = |kind, service: &str, by: &str, reason: &str, at| {
            let at = rfc3339::seconds(at);
            let since = format!("decided at {at}, when there was no journal");
            let reason = if reason.is_empty() { since } else { format!("{reason} ({since})") };
            let actor = Actor { name: by.to_owned(), role: "unknown".to_owned(), address: None };
            self.draft_of(kind, actor, &reason, (service, &self.state))
        };
        if let Some((service, weights)) = part.weights().iter().next() {
            let why = weights.why.as_ref()?;
            let mut draft = entry("weights", service, &why.by, &why.reason, why.at());
            (draft.before, draft.after) = (json!(weights.file), json!(weights.set));
            return Some(draft);
        }
        if let Some((service, rollout)) = part.rollouts().iter().next() {
            let started = UNIX_EPOCH + Duration::from_millis(rollout.started_unix_ms);
            let mut draft =
                entry("rollout_started", service, &rollout.by, &rollout.reason, started);
            draft.after =
                json!({ "version": rollout.to, "phase": rollout.phase, "step": rollout.step + 1 });
            return Some(draft);
        }
        if let Some(((service, version), ejection)) = part.ejections().iter().next() {
            let Ejection { since, by, reason, verdict } = ejection;
            let mut draft = entry("ejected", service, by, reason, *since);
            draft.before = json!({ "version": version, "ejected": false });
            draft.after = json!({ "version": version, "ejected": true });
            draft.verdict = verdict.as_ref().and_then(|(_, v)| serde_json::to_value(v).ok());
            return Some(draft);
        }
        let ((service, version, address), ejection) = part.endpoints().iter().next()?;
        let ManualEjection { since, by, reason } = ejection;
        let mut draft = entry("ejected", service, by, reason, *since);
        let subject =
            |is_ejected| json!({ "version": version, "endpoint": address, "ejected": is_ejected });
        (draft.before, draft.after) = (subject(false), subject(true));
        Some(draft)
    }
}

/// The weights that were in force as far as a journal with the state `known` says, by service: those that were set, and
/// of other services the `last` ones in its entries.
fn known_weights(
    mut last: BTreeMap<String, Value>,
    known: &ControlState,
) -> BTreeMap<String, Value> {
    last.extend(
        known.weights().iter().map(|(service, weights)| (service.clone(), json!(weights.set))),
    );
    last
}

/// Whether two rows are of one decision, maybe in the forms of two releases.
fn is_same_decision(old: &Value, new: &Value) -> bool {
    let of = |row: &Value| {
        let why = row.get("why").unwrap_or(row);
        (why["by"].clone(), why["at_unix_ms"].clone())
    };
    of(old) == of(new)
}

/// Whether both are the same weights; a version that is not named has 0.
fn is_same(now: Option<&Value>, known: &Value) -> bool {
    let (Some(now), Some(known)) = (now.and_then(Value::as_object), known.as_object()) else {
        return false;
    };
    let weight = |of: &serde_json::Map<String, Value>, name: &String| {
        of.get(name).and_then(Value::as_f64).unwrap_or_default()
    };
    now.keys().chain(known.keys()).all(|name| weight(now, name) == weight(known, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_in_another_form_is_no_other_decision() {
        let row =
            |by: &str, at: u64| json!({ "by": by, "at_unix_ms": at, "reason": "", "verdict": {} });
        let without = json!({ "by": "ann", "at_unix_ms": 5, "reason": "" });
        assert!(is_same_decision(&row("ann", 5), &without));
        assert!(!is_same_decision(&row("ben", 5), &without));
        assert!(!is_same_decision(&row("ann", 6), &without));
        let weights =
            |at: u64| json!({ "set": { "v1": at }, "why": { "by": "ann", "at_unix_ms": at } });
        assert!(
            is_same_decision(&weights(1), &weights(1))
                && !is_same_decision(&weights(1), &weights(2))
        );
    }

    /// Regression: after a kill during a rollout the entry `resumed` named the weights from before it as those that had
    /// been in force, since only entries of the kind `weights` were read.
    #[test]
    fn weights_that_were_set_are_those_of_the_state() {
        let weights = json!({ "a": { "set": { "v41": 0.0, "v42": 100.0 }, "file": null } });
        let state = json!({ "generation": 7, "weights": weights });
        let state: ControlState = serde_json::from_value(state).expect("a state");
        let split = |v42: f64| json!({ "v41": 100.0 - v42, "v42": v42 });
        let last = BTreeMap::from(
            [("a", 0.0), ("b", 5.0)].map(|(name, v42)| (name.to_owned(), split(v42))),
        );
        let known = known_weights(last, &state);
        assert_eq!((&known["a"], &known["b"]), (&split(100.0), &split(5.0)));
    }

    #[test]
    fn a_version_that_is_not_named_has_no_weight() {
        let now = json!({ "v1": 95.0, "v2": 0.0 });
        assert!(is_same(Some(&now), &json!({ "v1": 95 })));
        assert!(!is_same(Some(&now), &json!({ "v1": 95, "v3": 1 })));
        assert!(!is_same(None, &json!({ "v1": 95 })));
    }
}
