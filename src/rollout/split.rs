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

/// `weights` with nothing for `versions`; `None` if nobody would be left. Weights without these versions
/// stay exactly as they are.
pub fn without(weights: &Weights, versions: &BTreeSet<String>) -> Option<Weights> {
    let mut left = weights.clone();
    for (name, weight) in &mut left {
        if versions.contains(name) {
            *weight = Weight::ZERO;
        }
    }
    left.values().any(|weight| weight.value() > 0.0).then_some(left)
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

    #[test]
    fn who_is_out_gets_nobody() {
        let out = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let before = weights(&[("v41", 3.0), ("v42", 1.0)]);
        assert_eq!(without(&before, &out(&["v9"])), Some(before.clone()));
        assert_eq!(without(&before, &out(&["v42"])), Some(weights(&[("v41", 3.0), ("v42", 0.0)])));
        assert_eq!(without(&before, &out(&["v41", "v42"])), None);
    }
}
