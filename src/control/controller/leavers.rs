//! Where the players of versions go that a file no longer has.
//!
//! Weights that were set at runtime outlive a file, so a file may lack a version that they name. What that version had
//! goes to the baseline of the file, or, if that is ejected, to versions by the weights of the file: to those that the
//! file itself names, and to nobody else. Otherwise the file would give a canary more players than anybody decided, and
//! in a window that freezes growth. Where neither is possible, the file is refused.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::{
    Controller, Rejected, moves, percent,
    split::list,
    written::{ROUNDING, written},
};
use crate::{
    config::{Config, schema, units::Weight},
    control::{
        carried::SetWeights,
        state::{Change, ControlState},
    },
    rollout::{Weights, inherited, share},
};

/// Who gets the players of versions that `service` no longer has, in these proportions; empty if nobody may.
pub(super) fn heirs(service: &schema::Service, is_ejected: impl Fn(&str) -> bool) -> Weights {
    if !is_ejected(&service.baseline) {
        return Weights::from([(service.baseline.clone(), Weight::ONE)]);
    }
    let written = service.weights.iter().flatten();
    let serve = written.filter(|(version, w)| **w > Weight::ZERO && !is_ejected(version));
    serve.map(|(version, weight)| (version.clone(), *weight)).collect()
}

/// As [`heirs`], of the service `name` in `state`. If nobody may have them, they are the baseline's, which gets them
/// when it is reinstated.
pub(super) fn heirs_in(name: &str, service: &schema::Service, state: &ControlState) -> Weights {
    let heirs = heirs(service, |version| state.ejection(name, version).is_some());
    match heirs.is_empty() {
        true => Weights::from([(service.baseline.clone(), Weight::ONE)]),
        false => heirs,
    }
}

/// `weights` of the service `name` under the file that describes it as `service`.
pub(super) fn under_file(
    (name, service): (&str, &schema::Service),
    weights: &Weights,
    state: &ControlState,
) -> Weights {
    let versions: BTreeSet<String> = service.versions.keys().cloned().collect();
    inherited(weights, &versions, &heirs_in(name, service, state))
}

/// What becomes of the weights `set` of the service `name` under the file that describes it as `service`; `None` if it
/// still has all versions with weight.
pub(super) fn without_leavers(
    place: (&str, &schema::Service),
    set: &SetWeights,
    state: &ControlState,
) -> Option<SetWeights> {
    let versions = &place.1.versions;
    let mut gone = set.set.iter().filter(|(v, w)| **w > Weight::ZERO && !versions.contains_key(*v));
    gone.next()?;
    Some(SetWeights { set: under_file(place, &set.set, state), ..set.clone() })
}

/// A sentence for each service of whose weights in `state`, set at runtime, the file takes a version away: `moved` are
/// the weights that follow.
pub(super) fn told(
    state: &ControlState,
    moved: &BTreeMap<String, SetWeights>,
    new: &Config,
) -> Vec<String> {
    let each = moved.iter().filter_map(|(name, after)| {
        let (before, service) = (&state.weights().get(name)?.set, new.services.get(name)?);
        let has = |weights: &Weights, version: &String| {
            weights.get(version).is_some_and(|weight| *weight > Weight::ZERO)
        };
        let gone = before.keys().filter(|v| has(before, v) && !service.versions.contains_key(*v));
        let heirs = heirs_in(name, service, state);
        let of = |weights: &Weights| {
            let names = before.keys().chain(after.set.keys());
            names.map(|version| (version.clone(), share(weights, version))).collect()
        };
        Some(format!(
            "{name}: the file no longer has {}, whose players go to {}: {}",
            list(gone),
            list(heirs.keys()),
            moves(&of(before), &of(&after.set))
        ))
    });
    each.collect()
}

impl Controller {
    /// Refuses a file that lacks a version with players if they would go to versions that nobody gave them to: its
    /// baseline is ejected, and it says no weights.
    pub(super) fn refuse_growth_by_leaving(
        &self,
        change: &Change,
        (then, new): (&ControlState, &Config),
    ) -> Result<(), Rejected> {
        let growth = match change {
            Change::FileTaken { .. } => growth((&self.state, &self.config), (then, new)),
            _ => None,
        };
        growth.map_or(Ok(()), Err)
    }
}

/// The first version that grows because the file `new`, with the state `then`, lacks one that has players in `state`.
fn growth(
    (state, old): (&ControlState, &Config),
    (then, new): (&ControlState, &Config),
) -> Option<Rejected> {
    new.services.iter().find_map(|(name, service)| {
        let before = written(name, old.services.get(name)?, state);
        let is_ejected = |version: &str| then.ejection(name, version).is_some();
        // Its own weights are in force.
        let says = service.weights.is_some() && !then.weights().contains_key(name);
        if says || !heirs(service, is_ejected).is_empty() {
            return None;
        }
        let is_gone = |version: &String| !service.versions.contains_key(version);
        let (gone, had) = before.iter().find(|(v, share)| **share > 0.0 && is_gone(v))?;
        let (version, has, gets) =
            grown(service, &before, &written(name, service, then), is_ejected)?;
        let (baseline, had) = (&service.baseline, percent(*had));
        let (has, gets) = (percent(has), percent(gets));
        let why = format!(
            "this file no longer has `{gone}`, which has {had} of the players, and its baseline `{baseline}` is \
             ejected, so `{version}` would have {gets} instead of {has}: keep `{gone}`, reinstate `{baseline}`, or \
             write `weights`"
        );
        Some(Rejected::GrowthByFile { service: name.clone(), why })
    })
}

/// A version other than the baseline that has a larger share after than before, with both. Where no version with weight
/// is left, one stands in and gets all: that which has them already, if there is one.
fn grown(
    service: &schema::Service,
    before: &IndexMap<String, f64>,
    after: &IndexMap<String, f64>,
    is_ejected: impl Fn(&str) -> bool,
) -> Option<(String, f64, f64)> {
    let share =
        |of: &IndexMap<String, f64>, version: &String| of.get(version).copied().unwrap_or(0.0);
    let others = service.versions.keys();
    let others = others.filter(|version| **version != service.baseline && !is_ejected(version));
    let is_served = after.values().any(|share| *share > 0.0);
    if !is_served && others.clone().any(|version| share(before, version) >= 1.0 - ROUNDING) {
        return None;
    }
    let mut each = others.map(|version| {
        let gets = if is_served { share(after, version) } else { 1.0 };
        (version.clone(), share(before, version), gets)
    });
    each.find(|(_, has, gets)| *gets > has * (1.0 + ROUNDING))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::control::{controller::reload::what_a_file_ends, state::Ejection};

    const NAMES: [&str; 5] = ["v40", "v41", "v41b", "v42", "v43"];

    /// A file with these versions of the service `s`, of which the first one is the baseline.
    fn file(versions: &[&str], weights: Option<&Weights>) -> Config {
        let each = versions.iter().map(|v| format!("{v}: {{ endpoints: [ 127.0.0.1:1 ] }}"));
        let each = each.collect::<Vec<_>>().join(", ");
        let weights = weights.filter(|weights| !weights.is_empty());
        let weights = weights.map_or(String::new(), |w| {
            format!("weights: {}, ", serde_json::to_string(w).expect("JSON"))
        });
        let baseline = versions[0];
        crate::config::parse(&format!(
            "listen: [ {{ address: 127.0.0.1:0 }} ]\n\
             services: {{ s: {{ baseline: {baseline}, {weights}versions: {{ {each} }} }} }}\n\
             routes: [ {{ service: s }} ]"
        ))
        .expect("a good file")
    }

    fn weights(each: &[(&str, f64)]) -> Weights {
        each.iter().map(|(v, w)| ((*v).to_owned(), Weight::new(*w).expect("a weight"))).collect()
    }

    /// The state with these weights, set at runtime under `old`, and without these versions.
    fn state(set: Option<Weights>, ejected: &[&str], old: &Config) -> ControlState {
        let mut state = ControlState::default();
        if let Some(set) = set {
            let (service, file) = ("s".to_owned(), old.services["s"].weights.clone());
            let weights = SetWeights { set, file, why: None, before: None, earlier: Vec::new() };
            state.apply(Change::WeightsSet { service, weights });
        }
        for version in ejected {
            let (service, version) = ("s".to_owned(), (*version).to_owned());
            let (since, by) = (SystemTime::UNIX_EPOCH, "ana".to_owned());
            let ejection = Ejection { since, by, reason: String::new(), verdict: None };
            state.apply(Change::VersionEjected { service, version, ejection });
        }
        state
    }

    /// The state under the file `new`; or why it is refused.
    fn under(state: &ControlState, old: &Config, new: &Config) -> Result<ControlState, Rejected> {
        let then = state.after(what_a_file_ends(state, new, SystemTime::UNIX_EPOCH));
        growth((state, old), (&then, new)).map_or(Ok(then), Err)
    }

    fn shares(state: &ControlState, config: &Config) -> IndexMap<String, f64> {
        written("s", &config.services["s"], state)
    }

    /// Regression: the canary got all players of a baseline that another one replaced.
    #[test]
    fn the_players_of_a_version_that_leaves_go_to_the_baseline() {
        let split = || weights(&[("v41", 99.0), ("v42", 1.0)]);
        let old = file(&["v41", "v42"], None);
        let before = state(Some(split()), &[], &old);
        let new = file(&["v41b", "v42"], None);
        let then = under(&before, &old, &new).expect("taken over");
        let expected = weights(&[("v42", 1.0), ("v41b", 99.0)]);
        assert_eq!(then.weights()["s"].set, expected);
        let told = told(&before, &then.weights().clone(), &new).join("");
        let says =
            "s: the file no longer has v41, whose players go to v41b: v41 99% -> 0%, v42 1% -> 1%";
        assert!(told.starts_with(says), "{told}");
        // And back.
        let again = under(&then, &new, &old).expect("taken over");
        assert_eq!((shares(&again, &old)["v41"], shares(&again, &old)["v42"]), (0.99, 0.01));
        // A version that comes back has nobody until somebody says so.
        let without = under(&before, &old, &file(&["v41"], None)).expect("taken over");
        assert_eq!(shares(&without, &old)["v42"], 0.0);
    }

    #[test]
    fn where_the_baseline_is_ejected_only_the_weights_of_the_file_say_who_gets_them() {
        let split = || weights(&[("v41", 99.0), ("v42", 1.0), ("v43", 0.0)]);
        let old = file(&["v41", "v42", "v43"], None);
        let before = state(Some(split()), &["v41b"], &old);
        let refused = under(&before, &old, &file(&["v41b", "v42", "v43"], None)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "services.s: this file no longer has `v41`, which has 99% of the players, and its baseline `v41b` is \
             ejected, so `v42` would have 100% instead of 1%: keep `v41`, reinstate `v41b`, or write `weights`"
        );
        // Without weights set at runtime a version would stand in.
        let all = state(None, &["v41b"], &old);
        let refused = under(&all, &old, &file(&["v41b", "v42"], None)).unwrap_err().to_string();
        assert!(refused.contains("`v42` would have 100% instead of 0%"), "{refused}");
        // Whoever had all players may keep them.
        let ejected = state(Some(split()), &["v41", "v41b"], &old);
        let then = under(&ejected, &old, &file(&["v41b", "v42"], None)).expect("taken over");
        assert_eq!(then.weights()["s"].set, weights(&[("v42", 1.0), ("v41b", 99.0)]));
        let by_file = weights(&[("v43", 3.0)]);
        let old = file(&["v41", "v42", "v43"], Some(&by_file));
        let before = state(Some(split()), &["v41b"], &old);
        let new = file(&["v41b", "v42", "v43"], Some(&by_file));
        let then = under(&before, &old, &new).expect("taken over");
        assert_eq!(then.weights()["s"].set, weights(&[("v42", 1.0), ("v43", 99.0)]));
    }

    proptest! {
        #[test]
        fn no_file_without_weights_gives_a_canary_more_players(
            old in prop::sample::subsequence(NAMES.to_vec(), 1..=5).prop_shuffle(),
            new in prop::sample::subsequence(NAMES.to_vec(), 1..=5).prop_shuffle(),
            of_file in prop::option::of(prop::collection::vec(0.0f64..10.0, 5)),
            set in prop::option::of(prop::collection::vec(prop_oneof![Just(0.0), 0.0f64..100.0], 5)),
            out in prop::sample::subsequence(NAMES.to_vec(), 0..=3),
            is_same in any::<bool>(),
        ) {
            let of = |values: &[f64], versions: &[&str]| -> Weights {
                let each = NAMES.into_iter().zip(values).filter(|(name, _)| versions.contains(name));
                weights(&each.map(|(name, value)| (name, *value)).collect::<Vec<_>>())
            };
            let some = |weights: &Weights| weights.values().any(|weight| *weight > Weight::ZERO);
            // Weights of the file that stay as they are name only versions that stay.
            let named: Vec<&str> = match is_same {
                true => old.iter().filter(|name| new.contains(name)).copied().collect(),
                false => old.clone(),
            };
            let of_file = of_file.map(|values| of(&values, &named)).filter(some);
            let (before, after) =
                (file(&old, of_file.as_ref()), file(&new, of_file.as_ref().filter(|_| is_same)));
            let set = set.map(|values| of(&values, &old)).filter(some);
            let was = state(set, &out, &before);
            let service = &after.services["s"];
            let is_out = out.contains(&&*service.baseline);
            let now = match under(&was, &before, &after) {
                Ok(now) => now,
                Err(why) => {
                    prop_assert!(is_out, "{why}");
                    return Ok(());
                }
            };
            let (had, has) = (shares(&was, &before), shares(&now, &after));
            // Its own weights say who gets players whom an ejected baseline cannot have.
            if is_out && service.weights.is_some() {
                return Ok(());
            }
            for (version, share) in has.iter().filter(|(version, _)| **version != service.baseline) {
                let had = had.get(version).copied().unwrap_or(0.0);
                prop_assert!(*share <= had + 1e-9, "{version} {had} -> {share}");
            }
            // Nor does one that stands in, if players lose their version.
            let is_left = had.iter().any(|(v, share)| *share > 0.0 && !service.versions.contains_key(v));
            if is_left && has.values().all(|share| *share == 0.0) {
                let others = service.versions.keys().filter(|v| !out.contains(&v.as_str()));
                let mut all = others.map(|v| had.get(v).copied().unwrap_or(0.0));
                prop_assert!(all.clone().next().is_none() || all.any(|had| had > 1.0 - 1e-9));
            }
        }
    }
}
