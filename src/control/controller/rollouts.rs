//! Rollouts: what happens to them, and what follows for the weights of their services.
//!
//! [`crate::rollout`] decides; here its decisions come into force. A rollout in progress lives in the
//! controller, where each tick changes it, and in the state as of its last transition, which is what the
//! journal has. Growth and commands are written to the journal first. What takes players away from a version
//! that was failed is made first and written late, as an ejection is.
//!
//! What others do to a service with a rollout reaches the rollout in the same change ([`Controller::follow`]):
//! weights set by hand pause it, and the ejection of its version ends it and restores the split before it, in
//! one swap of the snapshot.

mod change;
mod observe;
mod possible;
mod publish;
mod restored;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use indexmap::IndexMap;
use tokio::sync::Notify;

pub(in crate::control) use self::observe::Advance;
use self::observe::Counted;
pub use self::{
    change::{PlanAsked, RolloutAsked, RolloutChange, RolloutChanged, RolloutRetreat},
    observe::Latencies,
    publish::RolloutsEnded,
};
use super::{
    Controller,
    leavers::{heirs_in, under_file},
    rolled::Rolled,
};
use crate::{
    config::{Config, schema::Mode, units::Weight},
    control::{
        carried::{SetWeights, WhySet},
        evaluator::CanaryFinding,
        state::{Change, ControlState},
        undo::{Undo, is_same_split},
    },
    incident::Sums,
    rollout::{self, Action, Event, GateReply, ITSELF, Phase, Refused, Rollout, Weights},
    snapshot::weights_in_force,
    store::Actor,
};

/// Who made a change that a rollout made.
fn itself() -> Actor {
    Actor { name: ITSELF.to_owned(), ..Actor::system() }
}

/// A rollout in progress, or the last one of its service.
#[derive(Debug, Clone)]
pub struct Live {
    /// As of the last tick.
    pub rollout: Arc<Rollout>,
    /// What the versions had counted when its weights were set last.
    since: Counted,
    /// Smoke checks and webhooks that are to be asked.
    asks: Vec<Action>,
    /// Their replies since the last tick.
    replies: Vec<(u64, GateReply)>,
    /// Why endpoints of its version could not be reached when they were tried last, by number.
    failed: BTreeMap<u32, String>,
    /// What the versions had counted just before its first step was set, if this process set it.
    pub(super) begun: Option<Sums>,
    /// What hinders it, as was reported since its last transition, without the numbers.
    told: BTreeSet<String>,
}

impl Controller {
    /// The rollout of `service` in progress, or its last one.
    pub fn rollout(&self, service: &str) -> Option<&Live> {
        self.rollouts.get(service)
    }

    /// Wakes the task that lets time pass for rollouts.
    pub(in crate::control) fn rollout_news(&self) -> Arc<Notify> {
        Arc::clone(&self.rollout_news)
    }

    /// The number of rollouts that ended since the start, by service and by how they ended.
    pub fn rollouts_ended(&self) -> &RolloutsEnded {
        &self.rollouts_ended
    }

    /// The number of rollouts of `service` that ended since the start.
    pub(super) fn rollouts_ended_of(&self, service: &str) -> u64 {
        let of_it = self.rollouts_ended.iter().filter(|((of, _), _)| of == service);
        of_it.map(|(_, count)| count).sum()
    }

    /// Services whose rollouts have not ended.
    pub(in crate::control) fn rolling(&self) -> Vec<String> {
        if self.handed_over {
            return Vec::new();
        }
        let going = self.rollouts.iter().filter(|(_, live)| !live.rollout.phase.is_end());
        going.map(|(service, _)| service.clone()).collect()
    }

    /// Whether `rollout` goes on in this process.
    pub(in crate::control) fn is_rolling(&self, rollout: &Rollout) -> bool {
        let live = self.rollouts.get(&rollout.service).filter(|_| !self.handed_over);
        live.is_some_and(|live| live.rollout.is_same(rollout) && !live.rollout.phase.is_end())
    }

    /// Whether a version that is judged alone has all players by a rollout that is still judged: then its
    /// ejection restores the split before.
    pub(super) fn has_way_back(&self, suspect: &CanaryFinding) -> bool {
        let Some(live) = self.rollouts.get(&*suspect.service) else { return false };
        let snapshot = self.snapshot();
        let compared = snapshot.service(&suspect.service).and_then(|s| s.compared.as_ref());
        suspect.verdict.alone
            && live.rollout.to == *suspect.version
            && !live.rollout.phase.is_end()
            && compared.is_some_and(|compared| compared.mode == Mode::Act)
    }

    /// Applies `event` to the rollout `base`, and its result to `state`.
    fn roll(
        state: &mut ControlState,
        config: &Config,
        (base, event): (&Arc<Rollout>, Event),
        at: SystemTime,
    ) -> Result<Rolled, Refused> {
        let rolled = applied(base, event, at)?;
        take_over(state, config, &rolled, at);
        Ok(rolled)
    }

    /// What follows for rollouts from `change`, which led to `state` under `config`; `state` is changed
    /// accordingly.
    pub(super) fn follow(
        &self,
        state: &mut ControlState,
        change: &Change,
        config: &Config,
    ) -> Vec<Rolled> {
        let mut followed = Vec::new();
        for (service, event, at) in self.consequences(state, change, config) {
            let Some(base) = self.base(&service, state, &followed, change) else { continue };
            // Only commands are refused.
            if let Ok(rolled) = Self::roll(state, config, (&base, event), at)
                && rolled.before.as_deref() != Some(&rolled.rollout)
            {
                followed.push(rolled);
            }
        }
        if let Change::FileTaken { .. } = change {
            let gone = state.rollouts().iter().filter(|(service, rollout)| {
                rollout.phase.is_end() && !config.services.contains_key(*service)
            });
            let gone: Vec<String> = gone.map(|(service, _)| service.clone()).collect();
            for service in gone {
                state.apply(Change::RolloutForgotten { service });
            }
        }
        followed
    }

    /// The rollout that the next event of `service` finds.
    fn base(
        &self,
        service: &str,
        state: &ControlState,
        followed: &[Rolled],
        change: &Change,
    ) -> Option<Arc<Rollout>> {
        let last = followed.iter().rev().find(|rolled| rolled.rollout.service == service);
        let live = || self.rollouts.get(service).map(|live| Arc::clone(&live.rollout));
        let kept = || state.rollouts().get(service).map(|kept| Arc::new(Rollout::clone(kept)));
        match (last, change) {
            (Some(rolled), _) => Some(Arc::new(rolled.rollout.clone())),
            // The state of another process: what lives here is older.
            (None, Change::Resumed(_)) => kept(),
            (None, _) => live().or_else(kept),
        }
    }

    /// The events that `change` is for rollouts, in order.
    fn consequences(
        &self,
        state: &ControlState,
        change: &Change,
        config: &Config,
    ) -> Vec<(String, Event, SystemTime)> {
        let has_one = |service: &str| state.rollouts().contains_key(service);
        match change {
            Change::WeightsSet { service, weights } | Change::CutOver { service, weights }
                if has_one(service) =>
            {
                let why = weights.why.as_ref();
                let at = why.map_or_else(SystemTime::now, WhySet::at);
                let by = why.map_or("another process", |why| &why.by);
                let back = matches!(change, Change::CutOver { .. })
                    .then(|| self.way_back(service, weights))
                    .flatten();
                let event = back.map(|event| (service.clone(), event, at));
                let by_hand =
                    || by_hand(self.live_or_kept(service, state)?, (state, config), by, at);
                event.or_else(by_hand).into_iter().collect()
            }
            Change::VersionEjected { service, version, ejection } if has_one(service) => {
                let (version, reason) = (version.clone(), ejection.reason.clone());
                vec![(service.clone(), Event::Ejected { version, reason }, ejection.since)]
            }
            Change::VersionReinstated { service, version, .. } if has_one(service) => {
                let version = version.clone();
                vec![(service.clone(), Event::Reinstated { version }, SystemTime::now())]
            }
            Change::FileTaken { at, .. } => {
                self.by_file((state, config), |service| self.live_or_kept(service, state), *at)
            }
            // What lives here is older than the state, and its weights may be those of a step before.
            Change::Resumed(_) => {
                let kept = |service: &str| state.rollouts().get(service).map(|kept| &***kept);
                self.by_file((state, config), kept, SystemTime::now())
            }
            _ => Vec::new(),
        }
    }

    /// What another file is for all rollouts: its versions, and its weights where these are others.
    fn by_file<'a>(
        &self,
        (state, config): (&ControlState, &Config),
        rollout: impl Fn(&str) -> Option<&'a Rollout>,
        at: SystemTime,
    ) -> Vec<(String, Event, SystemTime)> {
        let each = state.rollouts().keys().flat_map(|service| {
            let known = config.services.get(service);
            let versions: BTreeSet<String> =
                known.into_iter().flat_map(|service| service.versions.keys().cloned()).collect();
            let second_person = known.is_some_and(|service| service.second_person);
            let heirs = known.map(|known| heirs_in(service, known, state)).unwrap_or_default();
            let event = Event::Reloaded { versions, heirs, second_person };
            let event = (service.clone(), event, at);
            let by_hand = rollout(service)
                .and_then(|rollout| by_hand(rollout, (state, config), "the file", at));
            [Some(event), by_hand]
        });
        each.flatten().collect()
    }

    /// That somebody went back to the split before the rollout of `service`, if that is what `weights` are and the
    /// rollout can be rolled back.
    pub(super) fn way_back(&self, service: &str, weights: &SetWeights) -> Option<Event> {
        let rollout = &self.rollouts.get(service)?.rollout;
        let why = weights.why.clone()?;
        let is_back = rollout.can_go_back() && is_same_split(&rollout.before, &weights.set);
        is_back.then_some(Event::Rollback { by: why.by, reason: why.reason, at_once: true })
    }

    /// The version of the rollout of `service` that the weights of `state` stop, and its phase afterwards; `None` if they
    /// stop none.
    pub(super) fn stopped_by_hand(
        &self,
        service: &str,
        state: &ControlState,
    ) -> Option<(String, Phase)> {
        let rollout = &self.rollouts.get(service)?.rollout;
        by_hand(rollout, (state, &self.config), "", SystemTime::UNIX_EPOCH)?;
        rollout.phase.after_weights_by_hand().map(|phase| (rollout.to.clone(), phase))
    }

    /// The rollout of `service` as of its last tick, or else as `state` has it.
    fn live_or_kept<'a>(&'a self, service: &str, state: &'a ControlState) -> Option<&'a Rollout> {
        let live = self.rollouts.get(service).map(|live| &*live.rollout);
        live.or_else(|| state.rollouts().get(service).map(|kept| &***kept))
    }
}

/// That somebody set the weights of the service of `rollout`, if they are not those of the rollout. What versions had that
/// are not in the file is not set by hand.
fn by_hand(
    rollout: &Rollout,
    (state, config): (&ControlState, &Config),
    by: &str,
    at: SystemTime,
) -> Option<(String, Event, SystemTime)> {
    let service = &rollout.service;
    let weights = split_of(service, state, config)?;
    let event = Event::WeightsByHand { weights: weights.clone(), by: by.to_owned() };
    let own = under_file((service, config.services.get(service)?), &rollout.weights, state);
    (!is_same_split(&own, &weights)).then(|| (service.clone(), event, at))
}

/// What `event` makes of the rollout `base`.
fn applied(base: &Arc<Rollout>, event: Event, at: SystemTime) -> Result<Rolled, Refused> {
    let heard = match &event {
        Event::Tick(seen) => seen.replies.iter().map(|(ask, _)| *ask).collect(),
        _ => Vec::new(),
    };
    let (rollout, actions) = rollout::apply(base, event, at)?;
    Ok(Rolled { before: Some(Arc::clone(base)), rollout, actions, heard, second: None })
}

/// Applies what `rolled` does to `state`.
fn take_over(state: &mut ControlState, config: &Config, rolled: &Rolled, at: SystemTime) {
    let service = &rolled.rollout.service;
    if let (Some(weights), Some(known)) = (rolled.weights(), config.services.get(service)) {
        let why = Some(WhySet::new(rolled.rollout.led_by(), &rolled.rollout.cause, at));
        let undo = Undo::of(state.weights().get(service));
        let Undo { before, earlier } = undo.after(rolled.rollout.before.clone(), weights);
        let (set, file) = (weights.clone(), known.weights.clone());
        let weights = SetWeights { set, file, why, before, earlier };
        state.apply(Change::WeightsSet { service: service.clone(), weights });
    }
    if rolled.changes_state() {
        state.apply(Change::RolloutMoved(Box::new(rolled.rollout.clone())));
    }
}

/// The weights of `service` that were set or that the file has, whether they serve or not.
fn split_of(service: &str, state: &ControlState, config: &Config) -> Option<Weights> {
    let known = config.services.get(service)?;
    let weights = weights_in_force(service, known, &state.overrides()).into_iter();
    Some(weights.map(|(version, weight)| (version.clone(), weight)).collect())
}

/// Shares of players by version, 0 to 1.
fn shares(weights: &Weights) -> IndexMap<String, f64> {
    let share = |name: &String| (name.clone(), rollout::share(weights, name));
    let with_weight = weights.iter().filter(|(_, weight)| **weight > Weight::ZERO);
    with_weight.map(|(name, _)| share(name)).collect()
}
