//! Cutovers: all traffic of a service moves to one version in one swap, and one command leads back.
//!
//! A cutover is a change of weights that gives one version all players. What the weights were before stands
//! beside them in the state, and so in the journal, and [`Destination::Before`] returns to it (`undo.rs`).

use std::time::SystemTime;

use indexmap::IndexMap;
use serde_json::json;

use super::{
    Applied, Asked, ChangeHead, Controller, Moment, Operation, Plan, Rejected, WeightsChange,
    split::list, weights::Weighed,
};
use crate::{
    config::units::Weight,
    control::{
        carried::SetWeights,
        events::{EventDetails, EventKind},
        overtaken::{Concern, Kind, Retreat},
        reach::Reach,
        state::Change,
        undo::Undo,
    },
    store::Draft,
};

/// A cutover as requested.
#[derive(Debug, Clone, PartialEq)]
pub struct Cutover {
    /// The service.
    pub service: String,
    /// Where its traffic goes.
    pub to: Destination,
    /// Whether writes are held meanwhile; `None`: if the service has a fence.
    pub fence: Option<bool>,
    /// What is known of the endpoints that get the traffic.
    pub reach: Reach,
    /// Who asks, why, and under which conditions.
    pub head: ChangeHead,
}

/// Where a cutover leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// This version gets all players.
    Version(String),
    /// The split before the last cutover, or change of weights by an operator, comes back; called again, the one
    /// before that.
    Before,
}

impl Destination {
    /// The kind of its entries in the journal.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Version(_) => "cutover",
            Self::Before => "rollback",
        }
    }
}

/// The result of a cutover or of a dry run.
#[derive(Debug, Clone, PartialEq)]
pub struct Moving {
    /// What moved.
    pub applied: Applied,
    /// Routes and rules of the file that name a version which lost its players: they still send their requests
    /// there. A sentence for each.
    pub named: Vec<String>,
    /// Why the entry of a rollback is not in the journal yet, although it is in force; `None` if it is, or there is no
    /// journal.
    pub unwritten: Option<String>,
}

impl Moving {
    /// Versions that had players before and have none after.
    pub fn left(&self) -> Vec<String> {
        left(&self.applied)
    }
}

/// Versions that had players before and have none after.
pub(super) fn left(applied: &Applied) -> Vec<String> {
    let has = |shares: &IndexMap<String, f64>, version: &str| {
        shares.get(version).is_some_and(|share| *share > 0.0)
    };
    let versions = applied.shares_before.keys();
    let left =
        versions.filter(|v| has(&applied.shares_before, v) && !has(&applied.shares_after, v));
    left.cloned().collect()
}

impl Cutover {
    /// Makes the cutover, which was planned before the fence of its service was raised. Changes of other services may
    /// have passed since: they are none that its caller must have seen.
    pub(in crate::control) fn make_at(
        &self,
        controller: &mut Controller,
        moment: Moment,
    ) -> Result<Moving, Rejected> {
        let head = ChangeHead { if_generation: None, ..self.head.clone() };
        controller.cut_over_at(&Self { head, ..self.clone() }, moment)
    }
}

impl Operation for Cutover {
    type Outcome = Moving;
    type Error = Rejected;

    // The way back does not wait for a disk. Behind a fence it does, and no write is held meanwhile.
    fn acts_first(&self) -> bool {
        self.to == Destination::Before
    }

    fn entry_waits(outcome: &mut Moving, why: String) {
        outcome.unwritten = Some(why);
    }

    fn plan(&self, controller: &Controller, at: SystemTime) -> Result<Option<Plan>, Rejected> {
        // Whether it is made behind it is decided by `ControlPlane::cut_over`.
        controller.fence_for(self)?;
        let (asked, weighed) = controller.weigh_cutover(self, at)?;
        Ok(Some(controller.planned_weights(self.to.kind(), &asked, &weighed)))
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<Moving, Rejected> {
        controller.cut_over_at(&self, moment)
    }

    fn concerns(&self) -> Option<Concern> {
        let Destination::Version(version) = &self.to else { return None };
        let what = format!("the cutover to {version} by {}", self.head.by.name);
        Some(Concern { service: Some(self.service.clone()), what, kind: Kind::Split })
    }

    fn retreat(&self) -> Option<Retreat> {
        let (service, what) =
            (self.service.clone(), format!("the rollback by {}", self.head.by.name));
        let is_back = self.to == Destination::Before;
        is_back.then_some(Retreat { service, what, only: None, ejects: false })
    }

    fn undo(
        &self,
        controller: &mut Controller,
        undone: &[String],
    ) -> Option<Result<(Draft, Moving), Rejected>> {
        // The way back from a rollout leads further than from weights that somebody sets meanwhile.
        let is_rolling = controller.rolling().contains(&self.service);
        (!is_rolling).then(|| controller.undo_waiting(self, undone))
    }
}

impl Controller {
    /// Moves all traffic of a service, without a journal. When this returns, no request that begins later is
    /// assigned by the split before, on any worker.
    pub fn cut_over(&mut self, asked: &Cutover) -> Result<Moving, Rejected> {
        self.cut_over_at(asked, Moment::now())
    }

    fn cut_over_at(&mut self, asked: &Cutover, moment: Moment) -> Result<Moving, Rejected> {
        let (change, weighed) = self.weigh_cutover(asked, moment.at)?;
        let named = self.named(&asked.service, &left(&weighed.planned));
        if asked.head.dry_run {
            return Ok(Moving { applied: weighed.planned, named, unwritten: None });
        }
        let (by, reason) = (asked.head.by.name.clone(), asked.head.reason.clone());
        let ended = self.rollouts_ended_of(&asked.service);
        let kind = (EventKind::Cutover, Some(asked.to.kind()));
        let applied = self.make_weights(kind, change, weighed, moment);
        // The end of a rollout has a report of its own.
        let is_told = self.rollouts_ended_of(&asked.service) > ended;
        if let (Destination::Before, [from, ..], false) = (&asked.to, &*left(&applied), is_told) {
            let report = self.rolled_back((&asked.service, from), &by, &reason);
            let report = report.map(|incident| incident.path);
            tracing::info!(service = asked.service, from, report, "rolled back");
        }
        self.count_cutover(&asked.service, "made");
        Ok(Moving { applied, named, unwritten: None })
    }

    /// Goes back from changes that are not in force, the `undone` ones: nobody moves.
    fn undo_waiting(
        &mut self,
        asked: &Cutover,
        undone: &[String],
    ) -> Result<(Draft, Moving), Rejected> {
        let generation = self.admit_change(asked.head.if_generation)?;
        let applied = self.as_it_is(&asked.service, generation)?;
        let mut draft = self.draft_asked("rollback", &asked.head, (&asked.service, &self.state));
        (draft.before, draft.after) = (json!(applied.before), json!(applied.after));
        let (service, by) = (asked.service.clone(), asked.head.by.name.clone());
        let undone = undone.join(", ");
        let gap = if asked.head.reason.is_empty() { "" } else { ": " };
        let reason = format!(
            "nobody moves, since what it undoes was not in force yet, and is withdrawn: {undone}{gap}{}",
            asked.head.reason
        );
        tracing::info!(service, by, reason, "rolled back");
        let (service, by) = (Some(service), Some(by));
        self.record(
            EventKind::Cutover,
            EventDetails { service, by, reason, ..EventDetails::default() },
        );
        Ok((draft, Moving { applied, named: Vec::new(), unwritten: None }))
    }

    /// Whether `asked` would move anything.
    pub(in crate::control) fn moves_something(&self, asked: &Cutover) -> Result<bool, Rejected> {
        Ok(!self.weigh_cutover(asked, SystemTime::now())?.1.as_before)
    }

    /// Checks and prepares a cutover, as a change of weights.
    pub(super) fn weigh_cutover(
        &self,
        asked: &Cutover,
        at: SystemTime,
    ) -> Result<(WeightsChange, Weighed), Rejected> {
        let change = WeightsChange {
            service: asked.service.clone(),
            asked: Asked::Weights { weights: self.destination(asked)?, only: true },
            reach: asked.reach.clone(),
            head: asked.head.clone(),
        };
        let cut_over = |service: String, weights: SetWeights| {
            let Undo { before, earlier } = match asked.to {
                Destination::Version(_) => Undo::of(Some(&weights)),
                Destination::Before => Undo::of(self.state.weights().get(&service)).back(),
            };
            Change::CutOver { service, weights: SetWeights { before, earlier, ..weights } }
        };
        let weighed = self.weigh(&change, at, cut_over)?;
        self.refuse_unreached(&asked.service, &weighed.planned, &asked.reach)?;
        let then = weighed.prepared.state();
        self.refuse_cutover_alone((&asked.service, &asked.to, then), &asked.head)?;
        Ok((change, weighed))
    }

    /// The weights that a cutover leads to.
    fn destination(&self, asked: &Cutover) -> Result<IndexMap<String, Weight>, Rejected> {
        let (name, service) = (&asked.service, self.known_service(&asked.service)?);
        let version = match &asked.to {
            Destination::Version(version) => version,
            Destination::Before => return self.weights_before(name),
        };
        if !service.versions.contains_key(version) {
            let (service, known) = (name.clone(), list(service.versions.keys()));
            return Err(Rejected::NoVersion { service, version: version.clone(), known });
        }
        Ok(IndexMap::from([(version.clone(), Weight::ONE)]))
    }

    /// The weights of `service` before they were set last.
    pub(super) fn weights_before(
        &self,
        service: &str,
    ) -> Result<IndexMap<String, Weight>, Rejected> {
        let before = Undo::of(self.state.weights().get(service)).before;
        let service = service.to_owned();
        let Some(mut before) = before else { return Err(Rejected::NothingBefore { service }) };
        let gone = |version: &String| !self.config.has_version(&service, version);
        let lost =
            before.iter().filter(|(version, weight)| **weight > Weight::ZERO && gone(version));
        let lost: Vec<_> = lost.map(|(version, _)| format!("`{version}`")).collect();
        if !lost.is_empty() {
            return Err(Rejected::BeforeIsGone { service, versions: lost.join(", ") });
        }
        before.retain(|version, _| self.config.has_version(&service, version));
        Ok(before)
    }

    /// A sentence for each route and rule of `service` that names one of `versions`.
    fn named(&self, service: &str, versions: &[String]) -> Vec<String> {
        let is_left = |version: &String| versions.contains(version);
        let routes = self.config.routes.iter().enumerate().filter(|(_, r)| r.service == service);
        let routes = routes.filter_map(|(index, route)| {
            let version = route.version.as_ref().filter(|version| is_left(version))?;
            Some(match &route.name {
                Some(name) => format!("route `{name}` names {version}"),
                None => format!("routes[{index}] names {version}"),
            })
        });
        let rules = self.config.services.get(service).into_iter().flat_map(|s| &s.rules);
        let rules = rules.enumerate().filter(|(_, rule)| is_left(&rule.version));
        let rules = rules.map(|(index, rule)| {
            format!("services.{service}.rules[{index}] names {}", rule.version)
        });
        routes.chain(rules).collect()
    }
}
