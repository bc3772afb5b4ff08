//! Weights as requested, and the weights that result.
//!
//! A share in percent is of all players: the versions that are not named divide the rest in their old
//! proportions. A bare number is relative to the other numbers only: `v42: 50` alone means all players. That is
//! rarely intended, so a version that has weight and is not named is an error unless the caller sets `only`. The
//! same holds for shares of several versions that add up to 100 %.

use std::fmt::Write;

use indexmap::IndexMap;

use crate::config::units::{Share, Weight};

/// Tolerance for rounding errors in sums of shares.
const ROUNDING: f64 = 1e-9;

/// New weights as requested.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// Relative weights, on any scale; a version that is not named gets 0.
    Weights {
        /// By version.
        weights: IndexMap<String, Weight>,
        /// Versions that have weight and are not named get none.
        only: bool,
    },
    /// Shares of all players; the other versions keep their proportions in the rest.
    Shares {
        /// By version.
        shares: IndexMap<String, Share>,
        /// Versions that have weight and are not named get none.
        only: bool,
    },
}

impl Asked {
    /// The versions that are named.
    pub fn versions(&self) -> impl Iterator<Item = &String> {
        let (weights, shares) = match self {
            Self::Weights { weights, .. } => (Some(weights.keys()), None),
            Self::Shares { shares, .. } => (None, Some(shares.keys())),
        };
        weights.into_iter().flatten().chain(shares.into_iter().flatten())
    }

    /// The resulting weights, given the weights `in_force`. A version that is not in the result has weight 0.
    pub fn weights(
        &self,
        in_force: &IndexMap<String, Weight>,
    ) -> Result<IndexMap<String, Weight>, String> {
        match self {
            Self::Weights { weights, .. } => Ok(weights.clone()),
            Self::Shares { shares, only } => of_shares(shares, *only, in_force),
        }
    }

    /// Versions that have weight and would lose it because they are not named.
    pub fn not_named<'a>(&self, in_force: &'a IndexMap<String, Weight>) -> Vec<&'a str> {
        let loses = match self {
            Self::Weights { only, .. } => !only,
            // All players for one version can mean nothing else.
            Self::Shares { shares, only } => !only && shares.len() > 1 && is_whole(shares),
        };
        if !loses {
            return Vec::new();
        }
        let with_weight = in_force.iter().filter(|(_, weight)| **weight > Weight::ZERO);
        let names = with_weight.map(|(version, _)| version.as_str());
        names.filter(|name| self.versions().all(|version| version != name)).collect()
    }
}

/// Whether the shares are those of all players, so that nothing is left for other versions.
fn is_whole(shares: &IndexMap<String, Share>) -> bool {
    shares.values().map(|share| share.0).sum::<f64>() > 1.0 - ROUNDING
}

/// The weights, on a scale of 100.
fn of_shares(
    shares: &IndexMap<String, Share>,
    only: bool,
    in_force: &IndexMap<String, Weight>,
) -> Result<IndexMap<String, Weight>, String> {
    let named: f64 = shares.values().map(|share| share.0).sum();
    if named > 1.0 + ROUNDING {
        let all = percent(named);
        return Err(format!("the shares add up to {all}; they are of all players: at most 100%"));
    }
    let rest = if is_whole(shares) { 0.0 } else { 1.0 - named };
    if only && rest > 0.0 {
        let (all, rest) = (percent(named), percent(rest));
        return Err(format!(
            "the shares add up to {all}, and with `only` no other version takes the other {rest}; leave `only` \
             out, or write shares that add up to 100%"
        ));
    }
    let others = in_force.iter().filter(|(version, _)| !shares.contains_key(*version));
    let others: IndexMap<&String, f64> = others.map(|(v, weight)| (v, weight.value())).collect();
    let of_others: f64 = others.values().sum();
    if rest > 0.0 && of_others <= 0.0 {
        let (all, rest) = (percent(named), percent(rest));
        return Err(format!(
            "the shares add up to {all}, and no other version has weight to take the other \
             {rest}; name the version that takes it"
        ));
    }
    let named = shares.iter().map(|(version, share)| (version, share.0));
    let others = others.into_iter().map(|(version, weight)| {
        (version, if of_others > 0.0 { rest * (weight / of_others) } else { 0.0 })
    });
    let each = named.chain(others).map(|(version, share)| {
        // A share of 100 is a valid weight.
        (version.clone(), Weight::new(short(share * 100.0)).unwrap_or(Weight::ZERO))
    });
    Ok(each.collect())
}

/// Rounds away the digits of `number` that are rounding errors.
fn short(number: f64) -> f64 {
    let short = (number * 1e9).round() / 1e9;
    if (short - number).abs() <= number * 1e-12 { short } else { number }
}

/// A share from 0 to 1 in percent, with as many digits as it needs not to read as 0.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent == 0.0 || percent >= 0.01 { 2 } else { 6 };
    let text = format!("{percent:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}%")
}

/// Shares before and after a change, `v41 95% -> 90%, v42 5% -> 10%`.
pub fn moves(before: &IndexMap<String, f64>, after: &IndexMap<String, f64>) -> String {
    let mut text = String::new();
    for (version, after) in after {
        let before = before.get(version).copied().unwrap_or(0.0);
        let gap = if text.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{gap}{version} {} -> {}", percent(before), percent(*after));
    }
    text
}

/// Names as a list within a sentence.
pub(super) fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights(each: &[(&str, f64)]) -> IndexMap<String, Weight> {
        let weight = |w| Weight::new(w).expect("a weight");
        each.iter().map(|(version, w)| ((*version).to_owned(), weight(*w))).collect()
    }

    fn shares(each: &[(&str, f64)]) -> Asked {
        let share =
            |(version, percent): &(&str, f64)| ((*version).to_owned(), Share(percent / 100.0));
        Asked::Shares { shares: each.iter().map(share).collect(), only: false }
    }

    #[test]
    fn a_share_is_of_all_players_and_the_others_keep_their_proportions() {
        let two = weights(&[("v41", 95.0), ("v42", 5.0)]);
        let come_to = |asked: &Asked, in_force| asked.weights(in_force).expect("good");
        let half = come_to(&shares(&[("v42", 50.0)]), &two);
        assert_eq!(half, weights(&[("v42", 50.0), ("v41", 50.0)]));
        let three = weights(&[("v40", 3.0), ("v41", 1.0), ("v42", 0.0)]);
        let third = come_to(&shares(&[("v42", 20.0)]), &three);
        assert_eq!(third, weights(&[("v42", 20.0), ("v40", 60.0), ("v41", 20.0)]));
        let all = come_to(&shares(&[("v42", 100.0)]), &three);
        assert_eq!(all, weights(&[("v42", 100.0), ("v40", 0.0), ("v41", 0.0)]));
        let small = come_to(&shares(&[("v42", 33.3)]), &two);
        assert_eq!(small["v42"].value(), 33.3);
    }

    #[test]
    fn invalid_shares_are_explained() {
        let blue = weights(&[("blue", 1.0), ("green", 0.0)]);
        let why = |asked: &Asked| asked.weights(&blue).expect_err("bad");
        let too_much = why(&shares(&[("blue", 60.0), ("green", 60.0)]));
        assert!(too_much.starts_with("the shares add up to 120%"), "{too_much}");
        let alone = why(&shares(&[("blue", 50.0)]));
        assert!(alone.contains("no other version has weight to take the other 50%"), "{alone}");
    }

    #[test]
    fn numbers_need_every_version_that_has_weight_unless_only_they_are_meant() {
        let in_force = weights(&[("v40", 0.0), ("v41", 95.0), ("v42", 5.0)]);
        let asked = |each, only| Asked::Weights { weights: weights(each), only };
        assert_eq!(asked(&[("v42", 50.0)], false).not_named(&in_force), ["v41"]);
        assert_eq!(asked(&[("v40", 1.0)], false).not_named(&in_force), ["v41", "v42"]);
        let named = asked(&[("v41", 50.0), ("v42", 50.0)], false);
        assert!(named.not_named(&in_force).is_empty());
        assert!(asked(&[("v42", 50.0)], true).not_named(&in_force).is_empty());
        assert!(shares(&[("v42", 50.0)]).not_named(&in_force).is_empty());
    }

    /// A version that was forgotten lost all its players.
    #[test]
    fn shares_of_several_versions_that_add_up_to_all_players_need_every_version_with_weight() {
        let in_force = weights(&[("v40", 50.0), ("v41", 45.0), ("v42", 5.0), ("v43", 0.0)]);
        let both = [("v41", 60.0), ("v42", 40.0)];
        assert_eq!(shares(&both).not_named(&in_force), ["v40"]);
        let only = |each: &[(&str, f64)]| match shares(each) {
            Asked::Shares { shares, .. } => Asked::Shares { shares, only: true },
            other => other,
        };
        assert!(only(&both).not_named(&in_force).is_empty());
        assert!(only(&both).weights(&in_force).is_ok());
        let why = only(&[("v41", 60.0)]).weights(&in_force).expect_err("a rest");
        assert!(why.contains("no other version takes the other 40%"), "{why}");
        let all = [("v40", 0.0), ("v41", 60.0), ("v42", 40.0)];
        assert!(shares(&all).not_named(&in_force).is_empty());
        assert!(shares(&[("v42", 100.0)]).not_named(&in_force).is_empty());
    }

    #[test]
    fn shares_are_shown_in_percent() {
        for (share, text) in [
            (0.0, "0%"),
            (1.0, "100%"),
            (0.5, "50%"),
            (0.333_333, "33.33%"),
            (0.003, "0.3%"),
            (0.000_02, "0.002%"),
        ] {
            assert_eq!(percent(share), text);
        }
        let of = |v41, v42| IndexMap::from([("v41".to_owned(), v41), ("v42".to_owned(), v42)]);
        assert_eq!(moves(&of(0.95, 0.05), &of(0.5, 0.5)), "v41 95% -> 50%, v42 5% -> 50%");
    }

    proptest! {
        #[test]
        fn shares_come_true_and_the_rest_keeps_its_proportions(
            asked in 0.0_f64..100.0,
            others in prop::collection::vec(1e-3_f64..1e6, 1..5),
        ) {
            let named: Vec<String> = (0..others.len()).map(|n| format!("v{n}")).collect();
            let names = named.iter().map(String::as_str);
            let each: Vec<_> = names.zip(others.iter().copied()).collect();
            let after = shares(&[("canary", asked)]).weights(&weights(&each)).expect("good");
            let sum: f64 = after.values().map(|w| w.value()).sum();
            prop_assert!((sum - 100.0).abs() < 1e-6, "{}", sum);
            prop_assert!((after["canary"].value() - asked).abs() < 1e-6);
            let (first, last) = (&named[0], &named[named.len() - 1]);
            let kept = after[first].value() * others[others.len() - 1];
            let wanted = after[last].value() * others[0];
            prop_assert!((kept - wanted).abs() <= 1e-6 * kept.max(wanted) + 1e-9);
        }
    }
}
