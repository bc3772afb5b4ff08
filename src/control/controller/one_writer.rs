//! What becomes of the writes of a service whose fence becomes required while several versions have them.
//!
//! From a file that is read again it is refused: the split in force stays, and the error says how to end it. So is
//! a takeover by a process with such a file, since the writes in flight in the process before would overlap those
//! of this one. A process that starts with such a file has no writes in flight: there one version gets them all
//! (`fencing.rs`).

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::{Controller, Rejected, split::list};
use crate::{
    config::{
        Config,
        schema::{self, Class},
        units::Weight,
    },
    control::state::ControlState,
    policy::class::Class as InFlight,
    rollout::Rollout,
    snapshot::{Overrides, weights_in_force},
};

impl Controller {
    /// Refuses the state `then` if it gives writes of `service` to a version that has none, although they move only
    /// behind its fence. Where several versions have writes, what only takes players off some of them is never
    /// refused.
    pub(super) fn refuse_new_writer(
        &self,
        service: &str,
        then: &ControlState,
    ) -> Result<(), Rejected> {
        if !is_required(&self.config, service) {
            return Ok(());
        }
        let before = self.shares_with(service, &self.state, None);
        let after = self.shares_with(service, then, None);
        match moves_to_a_new_writer(&before, &after) {
            true => self.refuse_unfenced(service),
            false => Ok(()),
        }
    }

    /// Refuses the configuration `new`, which leads to the state `then`, if it requires the fence of a service of
    /// which several versions have writes now, or moves them to another version.
    pub(super) fn refuse_split_writes(
        &self,
        new: &Config,
        then: &ControlState,
    ) -> Result<(), Rejected> {
        let required = new.services.keys().filter(|name| {
            is_required(new, name)
                && !is_required(&self.config, name)
                && self.config.services.contains_key(*name)
        });
        for name in required {
            let moved = || self.moved_writes(name, &new.services[name], then);
            if let Some(why) = self.split_writes(name).or_else(moved) {
                return Err(Rejected::SplitWrites { service: name.clone(), why });
            }
        }
        Ok(())
    }

    /// Why more than one version of `service` may have writes at this moment.
    fn split_writes(&self, service: &str) -> Option<String> {
        let known = self.config.services.get(service)?;
        let ahead = self.state.weights_ahead();
        let ejected = |version: &str| self.state.ejection(service, version).is_some();
        if let Some(why) = several((service, known), &ahead, ejected)
            .or_else(|| self.rollouts.get(service).and_then(|live| under_way(&live.rollout)))
        {
            return Some(why);
        }
        let routes = self.config.routes.iter();
        let routes = routes.filter(|r| r.service == service && r.class != Some(Class::Read));
        let named = routes.filter_map(|route| route.version.as_ref());
        let named: BTreeSet<&String> =
            named.chain(known.rules.iter().map(|rule| &rule.version)).collect();
        if !named.is_empty() {
            return Some(format!(
                "rules or routes of the file in force send writes to {}; take them out of the file first",
                list(named.into_iter())
            ));
        }
        let writer = with_weight((service, known), &ahead, ejected).into_keys().next();
        let others = self.registry.other_versions(service, writer.as_deref()).into_iter();
        let mut busy =
            others.map(|(version, state)| (version, state.in_flight_of(InFlight::Write)));
        let (version, writes) = busy.find(|(_, writes)| *writes > 0)?;
        Some(format!(
            "{version} still has {writes} write(s) in flight; try again when they have ended"
        ))
    }

    /// The services of which more than one version may have writes at this moment, each with why: another process
    /// may require their fences.
    pub fn all_split_writes(&self) -> BTreeMap<String, String> {
        let free = self.config.services.keys().filter(|name| !is_required(&self.config, name));
        free.filter_map(|name| Some((name.clone(), self.split_writes(name)?))).collect()
    }

    /// That `service`, as the state `then` has it, gives the writes to another version than now.
    fn moved_writes(
        &self,
        name: &str,
        service: &schema::Service,
        then: &ControlState,
    ) -> Option<String> {
        let first = |service, state: &ControlState| {
            let ejected = |version: &str| state.ejection(name, version).is_some();
            with_weight((name, service), &state.weights_ahead(), ejected).into_keys().next()
        };
        let before = first(self.config.services.get(name)?, &self.state)?;
        (first(service, then).as_ref() != Some(&before)).then(|| {
            format!(
                "{before} has them, and the weights of the file move them; change the weights first"
            )
        })
    }

    /// What a release that neither continues rollouts nor keeps fences would forget, to harm; `None` if there is
    /// nothing.
    pub fn to_know(&self) -> Option<String> {
        let mut runs = self.rollouts.values().filter(|live| !live.rollout.phase.is_end());
        let rollout = runs.next().map(|live| {
            let service = &live.rollout.service;
            format!(
                "the rollout of `{service}`; end it first, with `tidegate rollout abort {service}`"
            )
        });
        rollout.or_else(|| {
            let service =
                self.config.services.keys().find(|name| is_required(&self.config, name))?;
            Some(format!(
                "which version has the writes of `{service}`, of which `fence.required` allows one"
            ))
        })
    }

    /// Refuses to continue from `carried`, the state of the process that serves, if the configuration requires the
    /// fence of a service of which several versions have writes there; `split` is what that process says of it.
    ///
    /// # Errors
    ///
    /// The refusal, which says what to do.
    pub fn refuses_to_inherit(
        &self,
        carried: &ControlState,
        split: &BTreeMap<String, String>,
    ) -> Result<(), Rejected> {
        let overrides = carried.overrides();
        for (name, service) in &self.config.services {
            if !is_required(&self.config, name) {
                continue;
            }
            let ejected = |version: &str| carried.ejection(name, version).is_some();
            let rollout = || carried.rollouts().get(name).and_then(|it| under_way(it));
            // An earlier release says nothing of it, but its weights do.
            let set = || several((name, service), &overrides, ejected);
            if let Some(why) = split.get(name).cloned().or_else(set).or_else(rollout) {
                return Err(Rejected::SplitWrites { service: name.clone(), why });
            }
        }
        Ok(())
    }
}

/// Whether the writes of `service` move only behind a fence.
pub(super) fn is_required(config: &Config, service: &str) -> bool {
    let service = config.services.get(service);
    service.and_then(|service| service.fence.as_ref()).is_some_and(|fence| fence.required)
}

/// Whether a change of shares gives writes to a version that has none, or is the only one that loses any. Where
/// several versions have writes already, nothing that stays among them is a new one.
fn moves_to_a_new_writer(before: &IndexMap<String, f64>, after: &IndexMap<String, f64>) -> bool {
    let with = |shares: &IndexMap<String, f64>| -> BTreeSet<String> {
        let with = shares.iter().filter(|(_, share)| **share > 0.0);
        with.map(|(version, _)| version.clone()).collect()
    };
    let (had, have) = (with(before), with(after));
    before != after && !(had.len() > 1 && have.is_subset(&had))
}

/// The version of `service` that gets all writes where `state` gives them to several: that with the largest share,
/// the baseline before others of the same share.
pub(super) fn largest(
    name: &str,
    service: &schema::Service,
    state: &ControlState,
    overrides: &Overrides,
) -> Option<String> {
    let ejected = |version: &str| state.ejection(name, version).is_some();
    let with = with_weight((name, service), overrides, ejected);
    let order = |version: &String, weight: Weight| (weight.value(), *version == service.baseline);
    let mut most: Option<(String, Weight)> = None;
    for (version, weight) in with {
        let is_more = |(held, of): &(String, Weight)| order(&version, weight) > order(held, *of);
        if most.as_ref().is_none_or(is_more) {
            most = Some((version, weight));
        }
    }
    most.map(|(version, _)| version)
}

/// The versions with weight that are not ejected.
fn with_weight(
    (name, service): (&str, &schema::Service),
    overrides: &Overrides,
    ejected: impl Fn(&str) -> bool,
) -> BTreeMap<String, Weight> {
    let each = weights_in_force(name, service, overrides).into_iter();
    let with = each.filter(|(version, weight)| *weight > Weight::ZERO && !ejected(version));
    with.map(|(version, weight)| (version.clone(), weight)).collect()
}

/// That several versions have players.
fn several(
    service: (&str, &schema::Service),
    overrides: &Overrides,
    ejected: impl Fn(&str) -> bool,
) -> Option<String> {
    let with = with_weight(service, overrides, ejected);
    (with.len() > 1).then(|| {
        format!(
            "{} have players; give one version all of them first, with `tidegate cutover {} VERSION --wait drained`",
            list(with.keys()),
            service.0
        )
    })
}

/// That `rollout` is under way.
fn under_way(rollout: &Rollout) -> Option<String> {
    let service = &rollout.service;
    (!rollout.phase.is_end()).then(|| {
        format!(
            "a rollout to {} is under way; wait for its end, or end it with `tidegate rollout abort {service}`",
            rollout.to
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_players_off_one_of_several_writers_is_never_refused() {
        let split = |shares: [f64; 3]| -> IndexMap<String, f64> {
            ["v1", "v2", "v3"].map(str::to_owned).into_iter().zip(shares).collect()
        };
        for (before, after, refused) in [
            ([0.5, 0.5, 0.0], [1.0, 0.0, 0.0], false),
            ([0.5, 0.5, 0.0], [0.0, 1.0, 0.0], false),
            ([0.2, 0.3, 0.5], [0.4, 0.6, 0.0], false),
            ([0.5, 0.5, 0.0], [0.9, 0.1, 0.0], false),
            ([0.5, 0.5, 0.0], [0.5, 0.0, 0.5], true),
            ([0.5, 0.5, 0.0], [0.0, 0.0, 1.0], true),
            ([1.0, 0.0, 0.0], [0.9, 0.1, 0.0], true),
            ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], true),
            ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], false),
            ([1.0, 0.0, 0.0], [0.0, 0.0, 0.0], true),
        ] {
            let moves = moves_to_a_new_writer(&split(before), &split(after));
            assert_eq!(moves, refused, "{before:?} -> {after:?}");
        }
    }
}
