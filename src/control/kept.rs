//! Which rows of the state the journal has, while changes cross each other.
//!
//! A change on request is written first and made then; a change by a verdict is made first and written late,
//! and may come between the two. Then the rows that were written first may differ from the state in force, and
//! which of both was written last is not known for rows that both have. [`KeptRows::settle`] returns what makes
//! the journal and the state the same again, whatever the order was.
//!
//! A fenced cutover is written first and made much later. It is parked meanwhile, so that other changes pass.
//!
//! The generation is different: it counts the snapshots, and most of them are published without any change of
//! the state, since an endpoint fails or its name gets another address. Those are not entries, so the row lags
//! behind the generation in force by less than [`GENERATIONS_AHEAD`], and a process that is started anew begins
//! that far above the row: no generation is ever given twice.

use std::collections::{BTreeMap, BTreeSet};

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
    /// The change that is being written first.
    under_way: UnderWay,
    /// Changes that are in the journal and have not been made yet, by service.
    parked: BTreeMap<String, UnderWay>,
}

/// A change that is written before it is made.
#[derive(Debug, Default)]
struct UnderWay {
    /// Its rows.
    rows: Vec<StateChange>,
    /// Keys of rows that others have written since.
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
        let rows = difference(&self.rows, then);
        self.cross(&rows);
        self.under_way = UnderWay { rows: rows.clone(), ..UnderWay::default() };
        rows
    }

    /// The change that was being written first is in the journal. It is made later, and others come before.
    ///
    /// [`KeptRows::settle_parked`] follows.
    pub(super) fn park(&mut self, service: &str) {
        let under_way = std::mem::take(&mut self.under_way);
        self.parked.insert(service.to_owned(), under_way);
    }

    /// Notes rows that are written while other changes are under way.
    fn cross(&mut self, rows: &[StateChange]) {
        for other in self.parked.values_mut().chain([&mut self.under_way]) {
            other.crossed.extend(rows.iter().map(|change| change.key.clone()));
        }
    }

    /// The rows of a change that has been made, and led to the state `now`.
    pub(super) fn late(&mut self, now: &Rows) -> Vec<StateChange> {
        let changes = difference(&self.rows, now);
        self.cross(&changes);
        apply(&mut self.rows, &changes);
        changes
    }

    /// The change that was being written first is not in the journal.
    pub(super) fn not_written(&mut self) {
        self.under_way = UnderWay::default();
    }

    /// The change that was being written first is in the journal, and was made or not: the state is `now`.
    /// Returns the rows that are still to be written, mostly none.
    pub(super) fn settle(&mut self, now: &Rows) -> Vec<StateChange> {
        let under_way = std::mem::take(&mut self.under_way);
        self.settle_one(under_way, now)
    }

    /// As [`KeptRows::settle`], for the change of `service` that was parked.
    pub(super) fn settle_parked(&mut self, service: &str, now: &Rows) -> Vec<StateChange> {
        let parked = self.parked.remove(service).unwrap_or_default();
        self.settle_one(parked, now)
    }

    fn settle_one(&mut self, under_way: UnderWay, now: &Rows) -> Vec<StateChange> {
        let UnderWay { rows: written, crossed } = under_way;
        apply(&mut self.rows, &written);
        let mut rest = difference(&self.rows, now);
        // What only time has changed follows with a later entry.
        let rows = &self.rows;
        rest.retain(|change| {
            let kept = rows.get(&change.key).zip(change.value.as_ref());
            !kept.is_some_and(|(kept, now)| is_as_before(&change.key, kept, now))
        });
        let crossed = written.iter().filter(|change| crossed.contains(&change.key));
        for key in crossed.map(|change| &change.key) {
            if rest.iter().all(|change| change.key != *key) {
                rest.push(StateChange { key: key.clone(), value: now.get(key).cloned() });
            }
        }
        if rest.iter().all(|change| change.key == GENERATION) {
            return Vec::new();
        }
        self.cross(&rest);
        apply(&mut self.rows, &rest);
        rest
    }

    /// Whether the row of the generation lags too far behind `generation`.
    pub(super) fn is_behind(&self, generation: u64) -> bool {
        let written = self.rows.get(GENERATION).and_then(|row| row.parse::<u64>().ok());
        generation.saturating_sub(written.unwrap_or_default()) >= GENERATIONS_BEHIND
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{super::state::rows::row_of, *};

    fn rows() -> impl Strategy<Value = Rows> {
        let key = prop::sample::select(vec!["weights/a", "ejected/a/v2", "epoch/a", "generation"]);
        prop::collection::btree_map(
            key.prop_map(str::to_owned),
            (0..3).prop_map(|n| row_of(&json!(n))),
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

        /// A fenced cutover waits between its entry and its move, while other changes pass in full, and others wait.
        #[test]
        fn journal_and_state_agree_whatever_passes_a_change_that_waits(
            start in rows(),
            parked in prop::collection::vec((rows(), 0_usize..9, rows(), any::<bool>()), 1..3),
            passing in prop::collection::vec((rows(), any::<bool>(), 0_usize..4, any::<bool>()), 0..6),
        ) {
            let (mut kept, mut now) = (KeptRows::new(start.clone()), start.clone());
            // Late changes wait in a queue; a change that is written first comes after those that waited before it.
            let (mut journal, mut queue) = (start, std::collections::VecDeque::new());
            let write = |journal: &mut Rows, queue: &mut std::collections::VecDeque<_>, most: usize| {
                for rows in queue.drain(..most.min(queue.len())) {
                    let rows: Vec<StateChange> = rows;
                    apply(journal, &rows);
                }
            };
            let mut waiting = Vec::new();
            for (number, (then, until, made, is_made)) in parked.into_iter().enumerate() {
                apply(&mut journal, &kept.first(&then));
                kept.park(&number.to_string());
                waiting.push((until, number, made, is_made));
            }
            for (step, (then, is_late, most, is_slow)) in passing.into_iter().enumerate() {
                if is_late {
                    now = then;
                    queue.push_back(kept.late(&now));
                    write(&mut journal, &mut queue, most);
                    continue;
                }
                write(&mut journal, &mut queue, usize::MAX);
                let first = kept.first(&then);
                if !is_slow {
                    apply(&mut journal, &first);
                }
                // Others are made between the two halves of this one.
                for (_, number, made, is_made) in waiting.extract_if(.., |w| w.0 <= step) {
                    now = if is_made { made } else { now };
                    queue.push_back(kept.settle_parked(&number.to_string(), &now));
                }
                if is_slow {
                    write(&mut journal, &mut queue, most);
                    apply(&mut journal, &first);
                }
                now = then;
                queue.push_back(kept.settle(&now));
                write(&mut journal, &mut queue, most);
            }
            for (_, number, made, is_made) in waiting {
                now = if is_made { made } else { now };
                queue.push_back(kept.settle_parked(&number.to_string(), &now));
            }
            queue.iter().for_each(|rows| apply(&mut journal, rows));
            prop_assert_eq!(without_generation(journal), without_generation(now));
        }

        /// Regression: every pause of a rollout had an entry `adjusted` after it.
        #[test]
        fn time_that_passes_meanwhile_needs_no_second_entry(before in 0_u64..9, passed in 1_u64..9) {
            let row = |clock: u64, phase: &str| {
                let progress = json!({ "begun": true, "watched_ms": clock, "requests": clock });
                let due = json!({ "by_unix_ms": 7, "warned": clock });
                let row =
                    json!({ "phase": phase, "clock_ms": clock, "progress": progress, "due": due });
                Rows::from([("rollout/a".to_owned(), row_of(&row))])
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
            |generation: u64| Rows::from([(GENERATION.to_owned(), row_of(&json!(generation)))]);
        let mut kept = KeptRows::new(at(10));
        kept.first(&at(11));
        assert!(kept.settle(&at(13)).is_empty());
        assert!(!kept.is_behind(510) && kept.is_behind(511));
        assert_eq!(kept.late(&at(511)).len(), 1);
        assert!(!kept.is_behind(600));
    }
}
