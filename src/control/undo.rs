//! Which splits the rollbacks of a service lead to, one after the other.
//!
//! Each change that moves players leaves a split behind, on top of a stack. A rollback takes the top one away and
//! brings it into force; what the rollback itself leaves is never put there, so no rollback leads to it.
//!
//! A rollout is one change from its start to its end, with the weights that people set meanwhile: each of them
//! leaves the split before it ([`left_by_hand`]). So no rollback gives players back to a version that failed.

use indexmap::IndexMap;

use super::carried::SetWeights;
use crate::{
    config::units::Weight,
    rollout::{self, Rollout},
};

/// Weights by version.
pub type Split = IndexMap<String, Weight>;

/// Most splits that are remembered per service; the oldest are forgotten.
pub const MOST: usize = 16;

/// The stack of a service; the default one is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Undo {
    /// The top: where the next rollback leads.
    pub before: Option<Split>,
    /// The others; the last is the next one below the top.
    pub earlier: Vec<Split>,
}

impl Undo {
    /// The stack beside `set`, without what is in force already.
    pub fn of(set: Option<&SetWeights>) -> Self {
        let Some(set) = set else { return Self::default() };
        let mut undo = Self { before: set.before.clone(), earlier: set.earlier.clone() };
        while undo.before.as_ref().is_some_and(|top| is_same_split(top, &set.set)) {
            undo = undo.back();
        }
        undo
    }

    /// The stack after a change from the split `left` to the split `set`. What moves nobody adds nothing, and the
    /// steps of a rollout, which all leave the split before it, add one.
    #[must_use]
    pub fn after(self, left: Split, set: &Split) -> Self {
        let is_top = self.before.as_ref().is_some_and(|top| is_same_split(top, &left));
        match (is_same_split(&left, set), is_top) {
            // A rollout went back to where it began.
            (true, true) => self.back(),
            (true, false) | (false, true) => self,
            (false, false) => {
                let Self { before, mut earlier } = self;
                earlier.extend(before);
                let surplus = (earlier.len() + 1).saturating_sub(MOST);
                earlier.drain(..surplus);
                Self { before: Some(left), earlier }
            }
        }
    }

    /// The stack after a rollback.
    #[must_use]
    pub fn back(self) -> Self {
        let mut earlier = self.earlier;
        Self { before: earlier.pop(), earlier }
    }
}

/// The split that weights leave which somebody sets instead of `written`: the one before the last `rollout` of the
/// service, while that goes on.
pub fn left_by_hand(rollout: Option<&Rollout>, written: Split) -> Split {
    let going = rollout.filter(|rollout| !rollout.phase.is_end());
    going.map_or(written, |rollout| rollout.before.clone())
}

/// Whether both give the same players to each version.
pub fn is_same_split(one: &Split, other: &Split) -> bool {
    let mut names = one.keys().chain(other.keys());
    names.all(|name| {
        (rollout::share(one, name) - rollout::share(other, name)).abs() <= f64::EPSILON * 8.0
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::SystemTime};

    use super::*;
    use crate::{
        config::{problem::FieldPath, schema::Step},
        rollout::{Plan, Start},
    };

    fn split(each: &[(&str, f64)]) -> Split {
        let weight = |w| Weight::new(w).expect("a weight");
        each.iter().map(|(version, w)| ((*version).to_owned(), weight(*w))).collect()
    }

    fn all(version: &str) -> Split {
        split(&[(version, 1.0)])
    }

    #[test]
    fn each_rollback_leads_one_change_further_and_none_to_what_a_rollback_left() {
        let undo = Undo::default().after(all("a"), &all("b")).after(all("b"), &all("c"));
        assert_eq!(undo.before, Some(all("b")));
        let undo = undo.back();
        assert_eq!(undo.before, Some(all("a")), "not c, which was left by the rollback");
        let again = undo.clone().after(all("b"), &all("d"));
        assert_eq!((&again.before, &*again.earlier), (&Some(all("b")), &[all("a")][..]));
        assert_eq!(undo.back(), Undo::default());
    }

    #[test]
    fn what_moves_nobody_is_no_step() {
        let undo = Undo::default().after(all("a"), &all("b"));
        let twice = split(&[("b", 50.0), ("a", 0.0)]);
        assert_eq!(undo.clone().after(all("b"), &twice), undo);
    }

    #[test]
    fn a_rollout_is_one_step_and_none_when_it_went_back() {
        let undo = Undo::default().after(all("z"), &all("a"));
        let (tenth, half) = (split(&[("a", 9.0), ("b", 1.0)]), split(&[("a", 1.0), ("b", 1.0)]));
        let steps = undo.clone().after(all("a"), &tenth).after(all("a"), &half);
        assert_eq!((&steps.before, &*steps.earlier), (&Some(all("a")), &[all("z")][..]));
        assert_eq!(steps.clone().after(all("a"), &all("a")), undo);
        // A rollback by command has taken it away already.
        assert_eq!(steps.back().after(all("a"), &all("a")), undo);
    }

    /// A rollout from `before` to b.
    fn rollout(before: Split) -> Rollout {
        let steps = serde_json::from_str(r#"[{"weight":"100%"}]"#).expect("steps");
        let steps: Vec<Step> = steps;
        let begin = Start {
            service: "game-api".to_owned(),
            to: "b".to_owned(),
            plan: Plan::new(None, &steps, &FieldPath::default()).expect("a plan"),
            by: "ci".to_owned(),
            reason: String::new(),
            urgent: false,
            second_person: false,
            weights: before,
            ejected: BTreeSet::new(),
        };
        rollout::start(begin, None, SystemTime::UNIX_EPOCH).expect("started").0
    }

    /// Regression: a rollback after a rollout had failed gave its version the share of its last step again.
    #[test]
    fn weights_set_by_hand_are_a_part_of_the_rollout_that_goes_on() {
        let undo = Undo::default().after(all("z"), &all("a"));
        let share = |b: f64| split(&[("a", 100.0 - b), ("b", b)]);
        let mut rollout = rollout(all("a"));
        let by_hand = |undo: Undo, written: f64, set: &Split| {
            undo.after(left_by_hand(Some(&rollout), share(written)), set)
        };
        let step = |undo: Undo, set: &Split| undo.after(all("a"), set);
        let set = by_hand(step(undo.clone(), &share(50.0)), 50.0, &share(30.0));
        let set = by_hand(set, 30.0, &share(20.0));
        let resumed = step(set.clone(), &share(50.0));
        for undo in [set, resumed.clone()] {
            assert_eq!((&undo.before, &*undo.earlier), (&Some(all("a")), &[all("z")][..]));
        }
        assert_eq!(step(resumed.clone(), &all("a")), undo, "it went back");
        assert_eq!(by_hand(resumed, 50.0, &all("a")), undo, "somebody went back by hand");
        rollout.phase = rollout::Phase::Done;
        assert_eq!(left_by_hand(Some(&rollout), share(50.0)), share(50.0));
        assert_eq!(left_by_hand(None, share(50.0)), share(50.0));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let name = |n: usize| format!("v{n}");
        let mut undo = Undo::default();
        for n in 0..100 {
            undo = undo.after(all(&name(n)), &all(&name(n + 1)));
        }
        let mut led = Vec::new();
        while let Some(top) = undo.before.clone() {
            led.push(top);
            undo = undo.back();
        }
        let last: Vec<_> = (0..100).rev().take(MOST).map(|n| all(&name(n))).collect();
        assert_eq!(led, last);
    }
}
