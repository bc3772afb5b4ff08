//! Which rows of the state the journal has, while changes cross each other.
//!
//! A change on request is written first and made then; a change by a verdict is made first and written late,
//! and may come between the two. Then the rows that were written first may differ from the state in force, and
//! which of both was written last is not known for rows that both have. [`KeptRows::settle`] returns what makes
//! the journal and the state the same again, whatever the order was.
//!
//! The generation is different: it counts the snapshots, and most of them are published without any change of
//! the state, since an endpoint fails or its name gets another address. Those are not entries, so the row lags
//! behind the generation in force by less than [`GENERATIONS_AHEAD`], and a process that is started anew begins
//! that far above the row: no generation is ever given twice.

use std::collections::BTreeSet;

use super::state::rows::{GENERATION, Rows, apply, difference, is_as_before};
use crate::store::StateChange;

/// A new process begins so many generations above the one in the journal.
pub(super) const GENERATIONS_AHEAD: u64 = 1_000;

/// The row of the generation is written anew when it lags behind by so many. What is written late may be lost
/// in a crash, so this is half of what may be lost.
const GENERATIONS_BEHIND: u64 = GENERATIONS_AHEAD / 2;

/// The rows that the journal has once all that was sent to it is written.
#[derive(Debug, Default)]
pub(super) struct KeptRows {
    rows: Rows,
    /// Rows of the change that is being written first.
    under_way: Vec<StateChange>,
    /// Keys of rows that were written late meanwhile.
    crossed: BTreeSet<String>,
}

impl KeptRows {
    /// Those of a journal that has `rows`.
    pub(super) fn new(rows: Rows) -> Self {
        Self { rows, ..Self::default() }
    }

    /// The rows of a change that is made after they are written, and leads to the state `then`.
    ///
    /// [`KeptRows::settle`] or [`KeptRows::not_written`] follows.
    pub(super) fn first(&mut self, then: &Rows) -> Vec<StateChange> {
        self.crossed.clear();
        self.under_way = difference(&self.rows, then);
        self.under_way.clone()
    }

    /// The rows of a change that has been made, and led to the state `now`.
    pub(super) fn late(&mut self, now: &Rows) -> Vec<StateChange> {
        let changes = difference(&self.rows, now);
        self.crossed.extend(changes.iter().map(|change| change.key.clone()));
        apply(&mut self.rows, &changes);
        changes
    }

    /// The change that was being written first is not in the journal.
    pub(super) fn not_written(&mut self) {
        self.under_way.clear();
    }

    /// The change that was being written first is in the journal, and was made or not: the state is `now`.
    /// Returns the rows that are still to be written, mostly none.
    pub(super) fn settle(&mut self, now: &Rows) -> Vec<StateChange> {
        let written = std::mem::take(&mut self.under_way);
        apply(&mut self.rows, &written);
        let mut rest = difference(&self.rows, now);
        // What only time has changed follows with a later entry.
        let rows = &self.rows;
        rest.retain(|change| {
            let kept = rows.get(&change.key).zip(change.value.as_ref());
            !kept.is_some_and(|(kept, now)| is_as_before(&change.key, kept, now))
        });
        let crossed = written.iter().filter(|change| self.crossed.contains(&change.key));
        for key in crossed.map(|change| &change.key) {
            if rest.iter().all(|change| change.key != *key) {
                rest.push(StateChange {
                    key: key.clone(),
                    value: now.get(key).map(|row| (**row).clone()),
                });
            }
        }
        if rest.iter().all(|change| change.key == GENERATION) {
            return Vec::new();
        }
        apply(&mut self.rows, &rest);
        rest
    }

    /// Whether the row of the generation lags too far behind `generation`.
    pub(super) fn is_behind(&self, generation: u64) -> bool {
        let written = self.rows.get(GENERATION).and_then(|row| row.as_u64());
        generation.saturating_sub(written.unwrap_or_default()) >= GENERATIONS_BEHIND
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rows() -> impl Strategy<Value = Rows> {
        let key = prop::sample::select(vec!["weights/a", "ejected/a/v2", "epoch/a", "generation"]);
        prop::collection::btree_map(
            key.prop_map(str::to_owned),
            (0..3).prop_map(|n| Arc::new(json!(n))),
            0..4,
        )
    }

    fn without_generation(mut rows: Rows) -> Rows {
        rows.remove(GENERATION);
        rows
    }

    proptest! {
        /// Late changes wait in a queue of their own, so the change that is written first may come between any
        /// two of those that were made since it was planned.
        #[test]
        fn journal_and_state_agree_in_the_end(
            start in rows(),
            then in rows(),
            made in rows(),
            between in prop::collection::vec(rows(), 0..4),
            place in 0_usize..5,
            is_made in any::<bool>(),
        ) {
            let mut kept = KeptRows::new(start.clone());
            let first = kept.first(&then);
            let mut writes: Vec<_> = between.iter().map(|now| kept.late(now)).collect();
            writes.insert(place.min(writes.len()), first);
            let now = if is_made { made } else { between.last().unwrap_or(&start).clone() };
            writes.push(kept.settle(&now));
            let mut journal = start;
            writes.iter().for_each(|changes| apply(&mut journal, changes));
            prop_assert_eq!(without_generation(journal), without_generation(now));
        }

        /// Regression: every pause of a rollout had an entry `adjusted` after it.
        #[test]
        fn time_that_passes_meanwhile_needs_no_second_entry(before in 0_u64..9, passed in 1_u64..9) {
            let row = |clock: u64, phase: &str| {
                let progress = json!({ "begun": true, "watched_ms": clock, "requests": clock });
                let row = json!({ "phase": phase, "clock_ms": clock, "progress": progress });
                Rows::from([("rollout/a".to_owned(), Arc::new(row))])
            };
            let mut kept = KeptRows::new(row(before, "growing"));
            kept.first(&row(before, "paused"));
            prop_assert_eq!(kept.settle(&row(before + passed, "paused")), vec![]);
            prop_assert_eq!(kept.late(&row(before + passed, "paused")).len(), 1);
            kept.first(&row(before, "growing"));
            prop_assert_eq!(kept.settle(&row(before + passed, "paused")).len(), 1);
        }

        #[test]
        fn what_nothing_crossed_needs_no_second_entry(start in rows(), then in rows()) {
            let mut kept = KeptRows::new(start);
            kept.first(&then);
            prop_assert_eq!(kept.settle(&then), []);
        }

        #[test]
        fn what_is_not_written_is_forgotten(start in rows(), then in rows(), now in rows()) {
            let mut kept = KeptRows::new(start.clone());
            kept.first(&then);
            kept.not_written();
            prop_assert_eq!(kept.late(&now), difference(&start, &now));
        }
    }

    #[test]
    fn the_generation_alone_is_written_only_when_it_is_far_ahead() {
        let at =
            |generation: u64| Rows::from([(GENERATION.to_owned(), Arc::new(json!(generation)))]);
        let mut kept = KeptRows::new(at(10));
        kept.first(&at(11));
        assert!(kept.settle(&at(13)).is_empty());
        assert!(!kept.is_behind(510) && kept.is_behind(511));
        assert_eq!(kept.late(&at(511)).len(), 1);
        assert!(!kept.is_behind(600));
    }
}
