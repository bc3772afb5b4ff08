//! Weights that are set at runtime.

use std::{fmt::Write, time::SystemTime};

use indexmap::IndexMap;
use serde_json::json;

use super::{
    Asked, ChangeHead, Controller, Moment, Operation, Plan, Rejected, moves, percent,
    prepare::Prepared, split::list,
};
use crate::{
    config::{Config, schema, units::Weight},
    control::{
        carried::{SetWeights, WhySet},
        events::{EventDetails, EventKind},
        overtaken::{Concern, Kind},
        reach::Reach,
        state::{Change, ControlState},
        undo::{Undo, left_by_hand},
    },
    rollout::Phase,
    snapshot::weights_in_force,
    store::Actor,
};

/// A change of weights as requested.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightsChange {
    /// The service.
    pub service: String,
    /// The requested weights.
    pub asked: Asked,
    /// What is known of the endpoints that get traffic.
    pub reach: Reach,
    /// Who asks, why, and under which conditions.
    pub head: ChangeHead,
}

/// The result of a change or of a dry run.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Generation in force afterwards; for a dry run, the current one.
    pub generation: u64,
    /// Weights before, by version.
    pub before: IndexMap<String, Weight>,
    /// Weights after, by version.
    pub after: IndexMap<String, Weight>,
    /// Shares of players before, 0 to 1, by version.
    pub shares_before: IndexMap<String, f64>,
    /// Shares of players after, 0 to 1, by version.
    pub shares_after: IndexMap<String, f64>,
    /// Ejected versions, and the share that each gets with these weights when it is reinstated.
    pub returning: IndexMap<String, f64>,
    /// Versions with weight that get no players because none of their endpoints serves.
    pub unserved: Vec<Unserved>,
    /// The version of the rollout that these weights stop, and the phase in which it is afterwards.
    pub rollout: Option<(String, Phase)>,
}

/// A version with weight that gets no players because none of its endpoints serves.
#[derive(Debug, Clone, PartialEq)]
pub struct Unserved {
    /// The version.
    pub version: String,
    /// A sentence that no endpoint serves, with their states.
    pub why: String,
    /// The share of players that the version gets once an endpoint serves, 0 to 1.
    pub share: f64,
}

impl Applied {
    fn moves_nothing(&self) -> bool {
        self.before == self.after && self.shares_before == self.shares_after
    }

    /// Shares before and after, and the future shares of ejected versions.
    fn moves(&self) -> String {
        let mut text = moves(&self.shares_before, &self.shares_after);
        for (version, share) in &self.returning {
            let share = percent(*share);
            // Writing to a string does not fail.
            let _ = write!(text, "; {version} is ejected, and gets {share} when it is reinstated");
        }
        for Unserved { version, why, share } in &self.unserved {
            let share = percent(*share);
            let _ =
                write!(text, "; {version} gets no players: {why}; it gets {share} once one does");
        }
        text
    }
}

/// A change of weights that was checked.
pub(super) struct Weighed {
    pub(super) prepared: Prepared,
    pub(super) planned: Applied,
    /// Whether it moves nothing.
    pub(super) as_before: bool,
}

fn weights_set(service: String, weights: SetWeights) -> Change {
    Change::WeightsSet { service, weights }
}

impl Operation for WeightsChange {
    type Outcome = Applied;
    type Error = Rejected;

    fn plan(&self, controller: &Controller, at: SystemTime) -> Result<Option<Plan>, Rejected> {
        let weighed = controller.weigh_by_hand(self, at)?;
        Ok(Some(controller.planned_weights("weights", self, &weighed)))
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<Applied, Rejected> {
        controller.set_weights_at(self, moment)
    }

    fn concerns(&self) -> Option<Concern> {
        let what = format!("the change of weights by {}", self.head.by.name);
        Some(Concern { service: Some(self.service.clone()), what, kind: Kind::Split })
    }
}

impl Controller {
    /// Whether a caller who saw the generation `expected` may make a change now: nobody decided anything since.
    /// Returns the generation in force.
    pub(super) fn admit_change(&self, expected: Option<u64>) -> Result<u64, Rejected> {
        if self.handed_over {
            return Err(Rejected::HandedOver);
        }
        let actual = self.snapshot().generation;
        match expected.filter(|expected| !(self.decided..=actual).contains(expected)) {
            Some(expected) => Err(Rejected::Outdated { expected, actual, decided: self.decided }),
            None => Ok(actual),
        }
    }

    /// The configuration of `service`, from the file.
    pub fn known_service(&self, service: &str) -> Result<&schema::Service, Rejected> {
        self.config.services.get(service).ok_or_else(|| {
            let known = list(self.config.services.keys());
            Rejected::NoService { service: service.to_owned(), known }
        })
    }

    /// Changes the weights of a service, without a journal. When this returns, they are in force on every
    /// worker.
    pub fn set_weights(&mut self, asked: WeightsChange) -> Result<Applied, Rejected> {
        self.set_weights_at(asked, Moment::now())
    }

    fn set_weights_at(
        &mut self,
        asked: WeightsChange,
        moment: Moment,
    ) -> Result<Applied, Rejected> {
        let weighed = self.weigh_by_hand(&asked, moment.at)?;
        match asked.head.dry_run {
            true => Ok(weighed.planned),
            false => Ok(self.make_weights((EventKind::Weights, None), asked, weighed, moment)),
        }
    }

    /// The plan of a change of weights, whose entry is of this `kind`.
    pub(super) fn planned_weights(
        &self,
        kind: &str,
        asked: &WeightsChange,
        Weighed { prepared, planned, as_before }: &Weighed,
    ) -> Plan {
        let then = prepared.state();
        let mut draft = self.draft_asked(kind, &asked.head, (&asked.service, then));
        (draft.before, draft.after) = (json!(planned.before), json!(planned.after));
        if !as_before {
            draft.generation = then.generation();
        }
        Plan { draft, then: (!as_before).then(|| then.clone()) }
    }

    /// Brings a change of weights into force, and records an event of this `kind`; `what` was done, if the kind does not
    /// say it.
    pub(super) fn make_weights(
        &mut self,
        (kind, what): (EventKind, Option<&str>),
        asked: WeightsChange,
        Weighed { prepared, planned, as_before }: Weighed,
        moment: Moment,
    ) -> Applied {
        let generation = planned.generation;
        let WeightsChange { service, head, .. } = asked;
        let ChangeHead { by: Actor { name: by, .. }, second, reason, .. } = head;
        let moved = planned.moves();
        let shown = match what {
            Some("rollback") => format!("rolled back: {moved}"),
            _ => moved.clone(),
        };
        let text = if reason.is_empty() { shown } else { format!("{shown}: {reason}") };
        let matter = EventDetails {
            service: Some(service.clone()),
            what: what.map(str::to_owned),
            by: Some(by.clone()),
            second,
            reason: text,
            journal: moment.entry,
            ..EventDetails::default()
        };
        let generation = match as_before {
            true => {
                self.record(kind, matter);
                generation
            }
            false => self.commit(prepared, Some((kind, matter))),
        };
        let (journal_seq, journal_hash) = moment.logged();
        tracing::info!(
            service,
            moved,
            generation,
            by,
            reason,
            journal.seq = journal_seq,
            journal.hash = journal_hash,
            "weights changed"
        );
        Applied { generation, ..planned }
    }

    /// Checks and prepares weights that somebody sets.
    pub(super) fn weigh_by_hand(
        &self,
        asked: &WeightsChange,
        at: SystemTime,
    ) -> Result<Weighed, Rejected> {
        let weighed = self.weigh(asked, at, weights_set)?;
        self.refuse_unreached_weights(&asked.service, &weighed.planned, &asked.reach)?;
        let then = weighed.prepared.state();
        self.refuse_growth_alone((&asked.service, then), "growth by hand", &asked.head)?;
        Ok(weighed)
    }

    /// Checks and prepares a change of weights, which becomes a change by `as_change`.
    pub(super) fn weigh(
        &self,
        asked: &WeightsChange,
        at: SystemTime,
        as_change: impl FnOnce(String, SetWeights) -> Change,
    ) -> Result<Weighed, Rejected> {
        let generation = self.admit_change(asked.head.if_generation)?;
        let (set, planned) = self.plan_weights(asked, generation, at)?;
        let change = as_change(asked.service.clone(), set);
        let prepared = match asked.reach {
            Reach::Insisted => self.prepare_insisting(change)?,
            Reach::Unasked | Reach::Asked(_) => self.prepare(change)?,
        };
        // A change without effect must not invalidate another caller's `If-Match`.
        let has_stand_in = self.state.stand_ins().contains_key(&asked.service);
        let as_before = planned.moves_nothing() && !has_stand_in;
        Ok(Weighed { prepared, planned, as_before })
    }

    /// The result of a change of the weights of `name` that moves nothing.
    pub(super) fn as_it_is(&self, name: &str, generation: u64) -> Result<Applied, Rejected> {
        let ahead = self.state.weights_ahead();
        let weights = weights_in_force(name, self.known_service(name)?, &ahead).into_iter();
        let weights: IndexMap<String, Weight> =
            weights.map(|(version, weight)| (version.clone(), weight)).collect();
        let shares = self.shares_with(name, &self.state, None);
        Ok(Applied {
            generation,
            before: weights.clone(),
            after: weights,
            shares_before: shares.clone(),
            shares_after: shares,
            returning: self.returning(name, &self.state),
            unserved: self.waiting(name, &self.state),
            rollout: None,
        })
    }

    /// The resulting weights and shares of `change`, or why it is refused.
    fn plan_weights(
        &self,
        change: &WeightsChange,
        generation: u64,
        at: SystemTime,
    ) -> Result<(SetWeights, Applied), Rejected> {
        let (name, service) = (change.service.as_str(), self.known_service(&change.service)?);
        let unknown = change.asked.versions().find(|v| !service.versions.contains_key(*v));
        if let Some(version) = unknown.cloned() {
            let (service, known) = (change.service.clone(), list(service.versions.keys()));
            return Err(Rejected::NoVersionToWeigh { service, version, known });
        }
        let in_force = |state: &ControlState| -> IndexMap<String, Weight> {
            let ahead = state.weights_ahead();
            let weights = weights_in_force(name, service, &ahead).into_iter();
            weights.map(|(version, weight)| (version.clone(), weight)).collect()
        };
        let before = in_force(&self.state);
        let weights = change.asked.weights(&before).map_err(Rejected::Shares)?;
        if weights.values().all(|weight| *weight == Weight::ZERO) {
            return Err(Rejected::NoWeight { right: no_weight(&change.asked, &before) });
        }
        let why = Some(WhySet::new(&change.head.by.name, &change.head.reason, at));
        // As written: a version that only stands in is nothing to return to.
        let written = weights_in_force(name, service, &self.state.overrides()).into_iter();
        let written = written.map(|(version, weight)| (version.clone(), weight)).collect();
        let file = service.weights.clone();
        let undo = Undo::of(self.state.weights().get(name));
        let rollout = self.rollouts.get(name).map(|live| &*live.rollout);
        let undo = undo.after(left_by_hand(rollout, written), &weights);
        let (top, earlier) = (undo.before, undo.earlier);
        let set = SetWeights { set: weights.clone(), file, why, before: top, earlier };
        let then = self.state.after(weights_set(name.to_owned(), set.clone()));
        let planned = Applied {
            generation,
            after: in_force(&then),
            shares_before: self.shares_with(name, &self.state, None),
            shares_after: self.shares_with(name, &then, None),
            returning: self.returning(name, &then),
            unserved: self.waiting(name, &then),
            rollout: self.stopped_by_hand(name, &then),
            before,
        };
        let not_named = change.asked.not_named(&planned.before);
        if !not_named.is_empty() {
            return Err(not_all_named(&change.asked, &not_named, &weights, planned.moves()));
        }
        Ok((set, planned))
    }
}

/// Suggests what to write instead of weights that are all 0: shares, if a version with weight is not named.
fn no_weight(asked: &Asked, in_force: &IndexMap<String, Weight>) -> String {
    if asked.not_named(in_force).is_empty() || asked.versions().next().is_none() {
        return "give at least one version a weight".to_owned();
    }
    let shares: Vec<_> = asked.versions().map(|version| format!("`{version}=0%`")).collect();
    format!("write {} for no players; the other versions share them as before", shares.join(" "))
}

/// The error that versions with weight are not named. It shows the resulting shares and what was probably
/// meant.
fn not_all_named(
    asked: &Asked,
    not_named: &[&str],
    weights: &IndexMap<String, Weight>,
    preview: String,
) -> Rejected {
    let quoted = |name: &str| format!("`{name}`");
    let sum: f64 = weights.values().map(|weight| weight.value()).sum();
    let are_shares = matches!(asked, Asked::Shares { .. });
    // Shares that add up to 100 % would be refused for the same reason.
    let right = match are_shares || (sum == 100.0 && weights.len() > 1) {
        true => {
            let none = if are_shares { "0%" } else { "0" };
            let none = not_named.iter().map(|name| format!("`{name}={none}`"));
            let none = none.collect::<Vec<_>>().join(" ");
            format!("Name every version, with {none} for no players")
        }
        false if sum <= 100.0 => {
            let each = weights.iter().map(|(v, w)| format!("`{v}={}`", percent(w.value() / 100.0)));
            let each = each.collect::<Vec<_>>().join(" ");
            format!("Write {each} for a share of all players, or name every version")
        }
        false => "Write shares of all players in percent, or name every version".to_owned(),
    };
    let named = asked.versions().map(|version| quoted(version)).collect::<Vec<_>>().join(", ");
    Rejected::NotNamed {
        not_named: not_named.iter().map(|v| quoted(v)).collect::<Vec<_>>().join(", "),
        named,
        preview,
        right: format!("{right}, or add `only` (`--only` on the command line)"),
    }
}

/// Whether weights set at runtime outlive a reload: only if the file's own weights for the service are unchanged. If
/// it has none, and no version that has weight, they are those of a file without weights anyway.
pub(super) fn keeps_override(name: &str, weights: &SetWeights, new: &Config) -> bool {
    let Some(service) = new.services.get(name) else { return false };
    let mut set = weights.set.iter();
    let serves = set.any(|(v, w)| service.versions.contains_key(v) && *w > Weight::ZERO);
    (serves || service.weights.is_some()) && weights.is_of_file(service.weights.as_ref())
}
