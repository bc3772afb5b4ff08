//! Commands of people to rollouts, and the steps that a rollout takes by itself, as changes.

use std::{sync::Arc, time::SystemTime};

use super::{applied, split_of, take_over};
use crate::{
    config::{
        check_smoke_gates,
        problem::FieldPath,
        schema::{self, GateQuestion, Step},
        unanswered,
    },
    control::{
        controller::{
            ChangeHead, Controller, Moment, Operation, Plan as Written, Rejected,
            prepare::Prepared, rolled::Rolled, split::list,
        },
        incidents::counted_now,
        overtaken::{Concern, Kind, Retreat},
        reach::Reach,
        state::{Change, ControlState},
    },
    rollout::{self, Entry, Event, Missing, On, Plan, PlanError, Refused, Rollout, Start},
};

/// A command to a rollout, or a step that it takes by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutChange {
    /// The service.
    pub service: String,
    /// What is to happen.
    pub asked: RolloutAsked,
    /// What is known of the endpoints of the split before, of a command that leads back to it.
    pub reach: Reach,
    /// Who asks, why, and under which conditions.
    pub head: ChangeHead,
}

/// A command that takes players away from the version of a rollout. It is made also while the journal cannot be
/// written: nobody waits for a disk to leave a bad version.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutRetreat(pub RolloutChange);

/// What is to happen to a rollout.
#[derive(Debug, Clone, PartialEq)]
pub enum RolloutAsked {
    /// It is to start.
    Start {
        /// The version that is to grow.
        to: String,
        /// By which plan.
        plan: PlanAsked,
        /// Whether it is urgent.
        urgent: bool,
    },
    /// An event of the one in progress.
    Event(Box<Event>),
}

/// The plan of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub enum PlanAsked {
    /// That which the file names for the service.
    OfService,
    /// One of the file, by name.
    Named(String),
    /// These steps.
    Steps(Vec<Step>),
}

/// The result of a change of a rollout, or of a dry run.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutChanged {
    /// Generation in force afterwards; for a dry run, the current one.
    pub generation: u64,
    /// The rollout afterwards.
    pub rollout: Rollout,
    /// What people should know, such as that it begins at a later step.
    pub warnings: Vec<String>,
    /// Why its entry is not in the journal yet, although it is in force; `None` if it is, or there is no journal.
    pub unwritten: Option<String>,
}

/// A change of a rollout that was checked.
pub(super) struct Checked {
    rolled: Rolled,
    /// The state that it leads to, and the snapshot if weights change.
    then: Then,
}

enum Then {
    /// The state is as before: time has passed.
    Same,
    /// Nobody gets another version.
    Quiet(Box<ControlState>),
    Moves(Box<Prepared>),
}

impl Checked {
    pub(super) fn grows(&self) -> bool {
        self.rolled.grows()
    }

    /// Whether it only begins or ends to hold. While a step of the rollout is being written, that waits for the next tick:
    /// the entry of the step says from which phase it grew.
    pub(super) fn is_passing(&self) -> bool {
        !self.rolled.is_kept() && self.rolled.entries().next().is_some()
    }

    /// The state that it leads to, from the state `now`.
    fn state<'a>(&'a self, now: &'a ControlState) -> &'a ControlState {
        match &self.then {
            Then::Same => now,
            Then::Quiet(state) => state,
            Then::Moves(prepared) => prepared.state(),
        }
    }
}

impl Operation for RolloutChange {
    type Outcome = RolloutChanged;
    type Error = Rejected;

    fn plan(&self, controller: &Controller, at: SystemTime) -> Result<Option<Written>, Rejected> {
        let checked = controller.check_rollout(self, at)?;
        let state = checked.state(&controller.state);
        let mut draft = controller.rollout_entry(&checked.rolled, Some(&self.head.by), state);
        self.head.mark(&mut draft);
        Ok(Some(Written { draft, then: Some(state.clone()) }))
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<RolloutChanged, Rejected> {
        controller.change_rollout_at(self, moment)
    }

    fn concerns(&self) -> Option<Concern> {
        let by = &self.head.by.name;
        let what = match &self.asked {
            RolloutAsked::Start { to, .. } => format!("the start of a rollout of {to} by {by}"),
            RolloutAsked::Event(event) => match **event {
                Event::Tick(_) => "the next step of the rollout".to_owned(),
                _ => format!("a command to the rollout by {by}"),
            },
        };
        Some(Concern { service: Some(self.service.clone()), what, kind: Kind::Other })
    }
}

impl Operation for RolloutRetreat {
    type Outcome = RolloutChanged;
    type Error = Rejected;
    const ACTS_FIRST: bool = true;

    fn plan(&self, controller: &Controller, at: SystemTime) -> Result<Option<Written>, Rejected> {
        self.0.plan(controller, at)
    }

    fn make(self, controller: &mut Controller, moment: Moment) -> Result<RolloutChanged, Rejected> {
        self.0.make(controller, moment)
    }

    fn entry_waits(outcome: &mut RolloutChanged, why: String) {
        outcome.unwritten = Some(why);
    }

    fn retreat(&self) -> Option<Retreat> {
        let Self(RolloutChange { service, asked, head, .. }) = self;
        let aborts =
            matches!(asked, RolloutAsked::Event(event) if matches!(**event, Event::Abort { .. }));
        let command = if aborts { "abort" } else { "rollback" };
        let what = format!("the {command} of the rollout by {}", head.by.name);
        Some(Retreat { service: service.clone(), what, only: None, ejects: false })
    }
}

impl Controller {
    /// Makes a change of a rollout, without a journal; for a dry run only reports it.
    pub fn change_rollout(&mut self, change: RolloutChange) -> Result<RolloutChanged, Rejected> {
        self.change_rollout_at(change, Moment::now())
    }

    fn change_rollout_at(
        &mut self,
        change: RolloutChange,
        moment: Moment,
    ) -> Result<RolloutChanged, Rejected> {
        let checked = self.check_rollout(&change, moment.at)?;
        if checked.grows() && moment.entry.is_some() {
            self.still_grows(&change)?;
        }
        let (rollout, warnings) = (checked.rolled.rollout.clone(), checked.rolled.warnings());
        let generation = match change.head.dry_run {
            true => self.snapshot().generation,
            false => self.make_rollout(checked, Some(moment)),
        };
        Ok(RolloutChanged { generation, rollout, warnings, unwritten: None })
    }

    /// Brings a checked change into force. `moment` is that of a change that was written first, or that needs no
    /// entry; without it, its entry is written late. Returns the generation in force.
    pub(super) fn make_rollout(&mut self, checked: Checked, moment: Option<Moment>) -> u64 {
        let Checked { rolled, then } = checked;
        self.note_begin(&rolled);
        let generation = match then {
            Then::Same => self.snapshot().generation,
            Then::Quiet(state) => {
                self.note(Change::RolloutMoved(Box::new(rolled.rollout.clone())));
                debug_assert!(state.decides_as(self.state()));
                self.snapshot().generation
            }
            Then::Moves(prepared) => self.commit(*prepared, None),
        };
        let is_late = moment.is_none() && rolled.is_kept();
        let late = is_late.then(|| self.rollout_entry(&rolled, None, &self.state));
        let service = rolled.rollout.service.clone();
        self.publish_rolled(rolled, moment.and_then(|moment| moment.entry));
        match late {
            Some(draft) => self.write_late(draft),
            None => self.keep_progress(&service),
        }
        generation
    }

    /// Before the first step of a rollout comes into force, notes what the versions have counted: its harm begins there.
    fn note_begin(&mut self, rolled: &Rolled) {
        let Some(before) = rolled.before.as_ref().filter(|_| rolled.grows()) else { return };
        let is_step = |entry: &Entry| matches!(entry.on, On::Grow | On::Bake);
        if before.entries.iter().any(is_step) || !rolled.entries().any(is_step) {
            return;
        }
        let snapshot = self.snapshot();
        let counted = snapshot.service(&before.service).map(counted_now);
        if let Some(live) = self.rollouts.get_mut(&before.service) {
            live.begun = counted;
        }
    }

    /// Refuses a step that was written if what allowed it has changed meanwhile: a window may have begun, or a
    /// guardrail fail.
    fn still_grows(&self, change: &RolloutChange) -> Result<(), Rejected> {
        let (Some(live), RolloutAsked::Event(event)) =
            (self.rollouts.get(&change.service), &change.asked)
        else {
            return Ok(());
        };
        let Event::Tick(seen) = &**event else { return Ok(()) };
        let now = SystemTime::now();
        let seen = self.seen_again(live, seen, now);
        match self.check_event(&live.rollout, Event::Tick(seen), now)?.grows() {
            true => Ok(()),
            false => {
                let why = "what allowed the step has changed while it was written".to_owned();
                Err(Rejected::Rollout(Refused::Rule(why)))
            }
        }
    }

    fn check_rollout(&self, change: &RolloutChange, at: SystemTime) -> Result<Checked, Rejected> {
        self.admit_change(change.head.if_generation)?;
        let known = self.known_service(&change.service)?;
        match &change.asked {
            RolloutAsked::Start { to, plan, urgent } => {
                self.refuses_to_move(&change.service)?;
                self.refuse_plan_alone((&change.service, known), plan, &change.head)?;
                let plan = self.plan_of(&change.service, known, plan)?;
                let weights =
                    split_of(&change.service, &self.state, &self.config).unwrap_or_default();
                let ejected = self.state.ejected().remove(&change.service).unwrap_or_default();
                let has = rollout::share_served(&weights, to, &ejected);
                let place = (&*change.service, known);
                self.refuse_skipping_alone(place, &plan, has, &change.head)?;
                let start = Start {
                    service: change.service.clone(),
                    to: to.clone(),
                    plan,
                    by: change.head.by.name.clone(),
                    reason: change.head.reason.clone(),
                    urgent: *urgent,
                    second_person: known.second_person,
                    weights,
                    ejected,
                };
                if !known.versions.contains_key(to) {
                    let (service, known) = (change.service.clone(), list(known.versions.keys()));
                    return Err(Rejected::NoVersion { service, version: to.clone(), known });
                }
                let current = self.rollouts.get(&change.service).map(|live| &*live.rollout);
                let (rollout, mut actions) =
                    rollout::start(start, current, at).map_err(Rejected::Rollout)?;
                let frozen = self.frozen(&change.service, at);
                let rollout = rollout::begun_in(rollout, frozen, at);
                actions.extend(self.doubts(&rollout).into_iter().map(rollout::Action::Warn));
                let (heard, second) = (Vec::new(), change.head.second.clone());
                let rolled = Rolled { before: None, rollout, actions, heard, second };
                let mut state = self.state.clone();
                take_over(&mut state, &self.config, &rolled, at);
                Ok(Checked { rolled, then: Then::Quiet(Box::new(state)) })
            }
            RolloutAsked::Event(event) => {
                let current = self.rollouts.get(&change.service);
                let Some(live) = current else {
                    return Err(Rejected::NoRollout { service: change.service.clone() });
                };
                self.refuse_way_back_alone(&live.rollout, event, &change.head)?;
                self.refuse_resuming_alone(&live.rollout, event, &change.head)?;
                self.refuse_dead_way(&live.rollout, event, &change.reach)?;
                let base = match change.reach {
                    Reach::Insisted => &Arc::new(live.rollout.insisting()),
                    _ => &live.rollout,
                };
                let mut checked = self.check_event(base, (**event).clone(), at)?;
                checked.rolled.second.clone_from(&change.head.second);
                Ok(checked)
            }
        }
    }

    /// What people should know before a rollout that is being started grows: nobody answers there, nobody can judge it, or
    /// a window freezes it.
    fn doubts(&self, rollout: &Rollout) -> Vec<String> {
        let Rollout { service, to, plan, .. } = rollout;
        let dead = self.known_unreached(service, to);
        let dead =
            dead.map(|why| format!("no endpoint of `{to}` can be reached, so it waits: {why}"));
        let is_compared = self.snapshot().service(service).is_some_and(|s| s.compared.is_some());
        let blind = self.incomparable(service, to).filter(|_| is_compared);
        let blind = blind.map(|why| {
            let is_evidence = |step: &Step| {
                let mut gates = step.gates.iter();
                step.weight.0 < 1.0 && gates.any(|gate| gate.question == GateQuestion::Evidence)
            };
            let then = match plan.steps().iter().any(is_evidence) {
                true => "`evidence` holds the rollout until then",
                false => "no comparison ejects it meanwhile",
            };
            format!("{why}; {then}")
        });
        let frozen = rollout.missing.iter().find(|one| matches!(one, Missing::Window(_)));
        let frozen = frozen.map(|window| {
            format!(
                "growth of `{service}` is frozen by {window}: the rollout waits for its end, unless somebody breaks in \
                 (`tidegate rollout break-in {service}`)"
            )
        });
        dead.into_iter().chain(blind).chain(frozen).collect()
    }

    /// Checks an event of the rollout `base`, and prepares the weights that it sets.
    pub(super) fn check_event(
        &self,
        base: &Arc<Rollout>,
        event: Event,
        at: SystemTime,
    ) -> Result<Checked, Rejected> {
        let rolled = applied(base, event, at).map_err(Rejected::Rollout)?;
        // Most ticks, of all rollouts several times a second.
        if rolled.weights().is_none() && !rolled.changes_state() {
            return Ok(Checked { rolled, then: Then::Same });
        }
        let mut state = self.state.clone();
        take_over(&mut state, &self.config, &rolled, at);
        if rolled.weights().is_none() {
            return Ok(Checked { rolled, then: Then::Quiet(Box::new(state)) });
        }
        if rolled.grows() {
            self.refuses_to_move(&base.service)?;
            let set = state.weights().get(&base.service).cloned();
            if let Some(weights) = set {
                let change = Change::WeightsSet { service: base.service.clone(), weights };
                self.refuse_unserved(&change, &state, &self.config)?;
            }
        } else {
            self.refuse_new_writer(&base.service, &state)?;
        }
        let prepared = self.compile(state, self.inputs(&self.snapshot()));
        Ok(Checked { rolled, then: Then::Moves(Box::new(prepared)) })
    }

    fn plan_of(
        &self,
        name: &str,
        service: &schema::Service,
        asked: &PlanAsked,
    ) -> Result<Plan, Rejected> {
        let plans = &self.config.plans;
        let named = |plan: &String| {
            let steps = plans.get(plan).ok_or_else(|| {
                let known = match plans.is_empty() {
                    true => "the file has no `plans`".to_owned(),
                    false => format!("there are: {}", list(plans.keys())),
                };
                Rejected::NoPlan { plan: plan.clone(), known }
            })?;
            Plan::new(Some(plan), steps, &FieldPath::default()).map_err(Rejected::Plan)
        };
        let plan = match asked {
            PlanAsked::Named(plan) => named(plan)?,
            PlanAsked::OfService => match &service.rollout {
                Some(plan) => named(plan)?,
                None => return Err(Rejected::PlanMissing { service: name.to_owned() }),
            },
            PlanAsked::Steps(steps) => Plan::new(None, steps, &FieldPath::default().key("steps"))
                .map_err(Rejected::Plan)?,
        };
        let path = FieldPath::default().key("steps");
        let findings = check_smoke_gates(plan.steps(), &self.config, &path);
        if !findings.is_empty() {
            return Err(Rejected::Plan(PlanError { findings }));
        }
        match &*unanswered(plan.steps(), service) {
            [] => Ok(plan),
            why => Err(Rejected::PlanDoesNotFit { why: why.join("; ") }),
        }
    }
}

impl Rolled {
    fn warnings(&self) -> Vec<String> {
        let each = self.actions.iter().filter_map(|action| match action {
            rollout::Action::Warn(message) => Some(message.clone()),
            _ => None,
        });
        each.collect()
    }
}
