//! Weights that give one version a share of players.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use crate::config::units::Weight;

/// Relative weights by version, on any scale.
pub type Weights = IndexMap<String, Weight>;

/// The share of players of `version`, 0 to 1; 0 only if it has no weight, however small that is beside the others.
pub fn share(weights: &Weights, version: &str) -> f64 {
    let sum: f64 = weights.values().map(|weight| weight.value()).sum();
    let own = weights.get(version).map_or(0.0, |weight| weight.value());
    if own > 0.0 { (own / sum).max(f64::MIN_POSITIVE) } else { 0.0 }
}

/// The share of players that `version` gets, 0 to 1, where those of versions that are `out` are spread over the others.
pub fn share_served(weights: &Weights, version: &str, out: &BTreeSet<String>) -> f64 {
    share(&without(weights, out), version)
}

/// Weights that give `version` the share `share`, 0 to 1, and the others the rest in the proportions of
/// `before`; they add up to 100. If no other version has weight in `before`, `version` gets all.
pub fn with_share(before: &Weights, version: &str, share: f64) -> Weights {
    let others = before.iter().filter(|(name, _)| *name != version);
    let others: Vec<(&String, f64)> = others.map(|(name, w)| (name, w.value())).collect();
    let sum: f64 = others.iter().map(|(_, weight)| weight).sum();
    let own = if sum > 0.0 { (share * 100.0).clamp(0.0, 100.0) } else { 100.0 };
    let weight = |value: f64| Weight::new(value).unwrap_or(Weight::ZERO);
    let rest = |w: f64| if sum > 0.0 { w / sum * (100.0 - own) } else { 0.0 };
    let mut weights: Weights =
        others.iter().map(|(name, w)| ((*name).clone(), weight(rest(*w)))).collect();
    weights.insert(version.to_owned(), weight(own));
    weights
}

/// The share of all players, 0 to 1, with which `version` gets the share `share` of those players that versions outside
/// of `out` get; the others have weight in the proportions of `before`. Without anybody else it is `share`.
pub(super) fn share_beside(
    before: &Weights,
    version: &str,
    share: f64,
    out: &BTreeSet<String>,
) -> f64 {
    let others = before.iter().filter(|(name, _)| *name != version);
    let sum = |of: &mut dyn Iterator<Item = (&String, &Weight)>| -> f64 {
        of.map(|(_, weight)| weight.value()).sum()
    };
    let all = sum(&mut others.clone());
    let left = sum(&mut others.filter(|(name, _)| !out.contains(*name)));
    if left <= 0.0 || left == all || share >= 1.0 {
        return share;
    }
    let left = left / all;
    share * left / (1.0 - share * (1.0 - left))
}

/// `weights` with nothing for `versions`. Weights without these versions stay exactly as they are.
pub(super) fn without(weights: &Weights, versions: &BTreeSet<String>) -> Weights {
    let mut left = weights.clone();
    for (name, weight) in &mut left {
        if versions.contains(name) {
            *weight = Weight::ZERO;
        }
    }
    left
}

/// `weights` under a file that has these `versions`: what the others had goes to `heirs`, in their proportions. If
/// nobody with weight is gone, the weights stay exactly as they are.
pub fn inherited(weights: &Weights, versions: &BTreeSet<String>, heirs: &Weights) -> Weights {
    let mut left = weights.clone();
    left.retain(|name, _| versions.contains(name));
    let gone = weights.iter().filter(|(name, _)| !versions.contains(*name));
    let gone: f64 = gone.map(|(_, weight)| weight.value()).sum();
    let heirs = heirs.iter().filter(|(name, _)| versions.contains(*name));
    let heirs: Vec<(&String, f64)> = heirs.map(|(name, w)| (name, w.value())).collect();
    let sum: f64 = heirs.iter().map(|(_, weight)| weight).sum();
    if gone <= 0.0 || sum <= 0.0 {
        return left;
    }
    let of_heir =
        |name: &String| heirs.iter().find(|(heir, _)| *heir == name).map(|(_, w)| w / sum);
    let own = |name: &String| left.get(name).map_or(0.0, |weight| weight.value());
    let new = heirs.iter().map(|(name, _)| *name).filter(|name| !left.contains_key(*name));
    let names: Vec<String> = left.keys().chain(new).cloned().collect();
    let values: Vec<f64> =
        names.iter().map(|name| own(name) + gone * of_heir(name).unwrap_or(0.0)).collect();
    let is_large = values.iter().any(|value| Weight::new(*value).is_none());
    // As shares in percent if a sum is too large for a weight.
    let scale = if is_large { 100.0 / values.iter().sum::<f64>() } else { 1.0 };
    let weight = |value: f64| Weight::new(value * scale).unwrap_or(Weight::ZERO);
    names.into_iter().zip(values.into_iter().map(weight)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights(of: &[(&str, f64)]) -> Weights {
        of.iter().map(|(n, w)| ((*n).to_owned(), Weight::new(*w).expect("a weight"))).collect()
    }

    #[test]
    fn the_others_keep_their_proportions() {
        let before = weights(&[("v40", 1.0), ("v41", 3.0), ("v42", 4.0)]);
        let grown = with_share(&before, "v43", 0.2);
        assert_eq!(grown, weights(&[("v40", 10.0), ("v41", 30.0), ("v42", 40.0), ("v43", 20.0)]));
        assert_eq!(share(&grown, "v41"), 0.3);
        let all = with_share(&before, "v42", 1.0);
        assert_eq!(all, weights(&[("v40", 0.0), ("v41", 0.0), ("v42", 100.0)]));
        let alone = with_share(&weights(&[("v41", 0.0)]), "v42", 0.1);
        assert_eq!(share(&alone, "v42"), 1.0);
        assert_eq!(share(&weights(&[]), "v42"), 0.0);
    }

    proptest::proptest! {
        #[test]
        fn the_version_gets_its_share_and_no_other_one_more_than_before(
            of in proptest::collection::vec(0.0f64..1000.0, 1..6), share_of_new in 0.0f64..1.0, more in 0.0f64..1.0,
        ) {
            proptest::prop_assume!(of.iter().sum::<f64>() > 1e-3);
            let names = ["a", "b", "c", "d", "e", "f"];
            let before = weights(&names.into_iter().zip(of).collect::<Vec<_>>());
            let grown = with_share(&before, "new", share_of_new);
            proptest::prop_assert!((share(&grown, "new") - share_of_new).abs() < 1e-9);
            // From step to step players move to the new version only.
            let next = with_share(&before, "new", share_of_new + (1.0 - share_of_new) * more);
            for name in before.keys() {
                proptest::prop_assert!(share(&next, name) <= share(&grown, name) + 1e-9);
                let kept = share(&before, name) * (1.0 - share_of_new);
                proptest::prop_assert!((share(&grown, name) - kept).abs() < 1e-9);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn what_a_version_had_that_leaves_goes_to_its_heirs_alone(
            of in proptest::collection::vec(prop_oneof![Just(0.0), 0.0f64..100.0, Just(1e12)], 1..6),
            stays in proptest::collection::vec(any::<bool>(), 6),
            heirs in proptest::collection::vec(0.0f64..10.0, 6),
        ) {
            let names = ["a", "b", "c", "d", "e", "new"];
            let before = weights(&names.into_iter().zip(of).collect::<Vec<_>>());
            let versions: BTreeSet<String> =
                names.iter().zip(stays).filter(|(_, stays)| *stays).map(|(n, _)| (*n).to_owned()).collect();
            let heirs: Vec<_> = names.into_iter().zip(heirs).filter(|(n, _)| versions.contains(*n)).collect();
            let heirs = weights(&heirs);
            let sum: f64 = heirs.values().map(|weight| weight.value()).sum();
            proptest::prop_assume!(sum > 1e-3 && before.values().any(|weight| weight.value() > 0.0));
            let after = inherited(&before, &versions, &heirs);
            let gone: f64 =
                before.keys().filter(|n| !versions.contains(*n)).map(|n| share(&before, n)).sum();
            proptest::prop_assert!(after.keys().all(|name| versions.contains(name)));
            for name in &versions {
                let due = share(&before, name) + gone * share(&heirs, name);
                let has = share(&after, name);
                proptest::prop_assert!((has - due).abs() < 1e-9, "{name}: {has}, not {due}");
            }
            if gone == 0.0 {
                let mut same = before.clone();
                same.retain(|name, _| versions.contains(name));
                proptest::prop_assert_eq!(after, same);
            }
        }
    }

    /// Regression: the share of a tiny weight beside a large one was 0, so it was no growth.
    #[test]
    fn a_version_with_weight_has_a_share() {
        for tiny in [5e-324, 1e-300, 1e-12] {
            let split = weights(&[("v41", 1e12), ("v42", tiny), ("v43", 0.0)]);
            assert!(share(&split, "v42") > 0.0, "{tiny}");
            assert_eq!((share(&split, "v41"), share(&split, "v43")), (1.0, 0.0));
        }
        assert_eq!(share(&weights(&[("v42", 5e-324)]), "v42"), 1.0);
    }

    fn names(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_is_out_gets_nobody() {
        let before = weights(&[("v41", 3.0), ("v42", 1.0)]);
        assert_eq!(without(&before, &names(&["v9"])), before);
        assert_eq!(without(&before, &names(&["v42"])), weights(&[("v41", 3.0), ("v42", 0.0)]));
    }

    /// The step of a rollout is a share of those who get a version, and an ejected one keeps its weight.
    #[test]
    fn a_share_beside_versions_that_are_out_is_one_of_the_others() {
        let before = weights(&[("v40", 90.0), ("v41", 10.0), ("v42", 7.0)]);
        for out in [names(&[]), names(&["v40"]), names(&["v41"]), names(&["v40", "v41"])] {
            for share_of_new in [0.0, 0.01, 0.2, 0.5, 1.0] {
                let all = share_beside(&before, "v42", share_of_new, &out);
                let split = with_share(&before, "v42", all);
                let served = share(&without(&split, &out), "v42");
                let is_alone = out.len() == 2 && share_of_new > 0.0;
                let expected = if is_alone { 1.0 } else { share_of_new };
                assert!((served - expected).abs() < 1e-12, "{out:?} {share_of_new}: {served}");
                assert!(all <= share_of_new);
            }
        }
        assert_eq!(share_beside(&before, "v42", 0.1, &names(&["v42"])), 0.1);
    }
}
