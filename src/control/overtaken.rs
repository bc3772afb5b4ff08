//! Changes that wait for the disk, and retreats that do not.
//!
//! A retreat, such as an ejection or a rollback, is made at once, although a change that came before it is still being
//! written. Whoever got its answer relies on it, so an earlier change of the same service, which nobody got an answer
//! for, is not made any more: it is withdrawn. A rollback leads back from the last change; if that is one that waits,
//! withdrawing it is all of the rollback.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a change that may wait is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    /// Its service; `None` for a file, which is about all of them.
    pub service: Option<String>,
    /// What it is, such as `the cutover to v3 by ana`.
    pub what: String,
    /// Its kind.
    pub kind: Kind,
}

/// Kinds of changes that may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It sets weights: a rollback leads back from it.
    Split,
    /// It reinstates this version, or an endpoint of it.
    Reinstates(String),
    /// A file is taken over; whether it is withdrawn depends on its weights.
    File,
    /// Another one.
    Other,
}

/// A change that waits for nothing and withdraws what waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retreat {
    /// Its service.
    pub service: String,
    /// What it is, such as `the rollback by ben`.
    pub what: String,
    /// The version of which it withdraws reinstatements alone; `None` if it withdraws all changes of the service.
    pub only: Option<String>,
    /// Whether it is an ejection, which the weights of a file do not undo.
    pub ejects: bool,
}

impl Retreat {
    /// Whether it withdraws a change that waits.
    fn concerns(&self, waits: &Concern) -> bool {
        let is_same = waits.service.as_ref().is_none_or(|service| *service == self.service);
        is_same
            && match (&self.only, &waits.kind) {
                (None, _) => true,
                (Some(version), Kind::Reinstates(of)) => version == of,
                (Some(_), _) => false,
            }
    }
}

/// That a change was overtaken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it still waited for the disk when {} of `{}` came, which waits for nothing; it is withdrawn, and nothing of it is in \
     force",
    by.what, by.service
)]
pub struct Overtaken {
    /// By what.
    pub by: Retreat,
}

/// A change that waits.
#[derive(Debug)]
struct Waits {
    concern: Concern,
    /// Whether it moves anything; assumed until it is planned.
    moves: bool,
    overtaken: Option<Overtaken>,
}

/// The changes that wait, in the order of their arrival.
#[derive(Debug, Default)]
pub struct Queue {
    last: u64,
    waiting: BTreeMap<u64, Waits>,
}

impl Queue {
    /// A change arrives. Returns its number.
    pub fn enter(&mut self, concern: Concern) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, Waits { concern, moves: true, overtaken: None });
        self.last
    }

    /// Notes whether change `number` moves anything.
    pub fn moves(&mut self, number: u64, moves: bool) {
        if let Some(waits) = self.waiting.get_mut(&number) {
            waits.moves = moves;
        }
    }

    /// Those that `retreat` would withdraw, without files: what each is, and whether it is one that a rollback leads back from.
    pub fn before(&self, retreat: &Retreat) -> Vec<(String, bool)> {
        let those = self.waiting.values();
        let those = those.filter(|w| w.concern.kind != Kind::File);
        let those = those.filter(|w| w.overtaken.is_none() && retreat.concerns(&w.concern));
        let each =
            those.map(|w| (w.concern.what.clone(), w.moves && w.concern.kind == Kind::Split));
        each.collect()
    }

    /// Withdraws them.
    pub fn overtake(&mut self, retreat: &Retreat) {
        for waits in self.waiting.values_mut() {
            if waits.overtaken.is_none() && retreat.concerns(&waits.concern) {
                waits.overtaken = Some(Overtaken { by: retreat.clone() });
            }
        }
    }

    /// What has overtaken change `number`.
    pub fn overtaken(&self, number: u64) -> Option<Overtaken> {
        self.waiting.get(&number)?.overtaken.clone()
    }

    /// Change `number` was made, or is not made.
    pub fn leave(&mut self, number: u64) {
        self.waiting.remove(&number);
    }
}

/// The changes that wait, as all see them who make changes. Whoever holds the controller may lock it, and nobody who
/// has locked it waits for anything.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<Queue>>);

impl Waiting {
    /// The queue.
    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a change, which it leaves when it is dropped; `None` for one that nothing withdraws.
    pub fn place(&self, concern: Option<Concern>) -> Place {
        let number = concern.map(|concern| self.queue().enter(concern));
        Place { waiting: self.clone(), number }
    }
}

/// The place of a change among those that wait.
#[derive(Debug)]
pub struct Place {
    waiting: Waiting,
    number: Option<u64>,
}

impl Place {
    /// Notes whether the change moves anything.
    pub fn moves(&self, moves: bool) {
        if let Some(number) = self.number {
            self.waiting.queue().moves(number, moves);
        }
    }

    /// What has overtaken the change.
    pub fn overtaken(&self) -> Option<Overtaken> {
        self.waiting.queue().overtaken(self.number?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.waiting.queue().leave(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

    /// What happens to a service whose disk is slow.
    #[derive(Debug, Clone)]
    enum Step {
        /// A cutover, or a reinstatement, arrives, and waits.
        Cutover(usize),
        Reinstate(usize),
        /// The change that has waited longest is written.
        Written,
        /// These do not wait.
        Eject(usize),
        Rollback,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_usize).prop_map(Step::Cutover),
            (0..3_usize).prop_map(Step::Reinstate),
            Just(Step::Written),
            Just(Step::Written),
            (0..3_usize).prop_map(Step::Eject),
            Just(Step::Rollback),
        ]
    }

    /// A service in short: who has the players, where rollbacks lead, and who is ejected.
    #[derive(Debug, Clone, PartialEq, Default)]
    struct Service {
        at: usize,
        undo: Vec<usize>,
        ejected: [bool; 3],
    }

    impl Service {
        fn cut_over(&mut self, to: usize) {
            if to != self.at {
                self.undo.push(std::mem::replace(&mut self.at, to));
            }
        }

        fn roll_back(&mut self) {
            if let Some(before) = self.undo.pop() {
                self.at = before;
            }
        }
    }

    fn retreat(ejected: Option<usize>) -> Retreat {
        let what = "a retreat".to_owned();
        Retreat { service: "s".to_owned(), what, only: None, ejects: ejected.is_some() }
    }

    proptest! {
        /// Whatever the order: what was answered last holds, and a rollback is what it would be if the change that it
        /// overtakes had been made.
        #[test]
        fn no_change_that_came_before_a_retreat_is_made_after_it(
            steps in prop::collection::vec(step(), 1..40),
        ) {
            let (mut queue, mut service) = (Queue::default(), Service::default());
            let mut waiting: Vec<(u64, Step)> = Vec::new();
            // The number of the last change that arrived before the last retreat.
            let mut answered = 0;
            for step in steps {
                // The one that is being written is planned.
                if let Some((number, Step::Cutover(to))) = waiting.first() {
                    queue.moves(*number, *to != service.at);
                }
                match &step {
                    Step::Cutover(to) => {
                        let (service_name, what) = (Some("s".to_owned()), VERSIONS[*to].to_owned());
                        let concern = Concern { service: service_name, what, kind: Kind::Split };
                        waiting.push((queue.enter(concern), step));
                    }
                    Step::Reinstate(of) => {
                        let version = VERSIONS[*of].to_owned();
                        let (what, kind) = (version.clone(), Kind::Reinstates(version));
                        let number = queue.enter(Concern { service: Some("s".to_owned()), what, kind });
                        waiting.push((number, step));
                    }
                    Step::Written if waiting.is_empty() => {}
                    Step::Written => {
                        let (number, change) = waiting.remove(0);
                        let is_overtaken = queue.overtaken(number).is_some();
                        queue.leave(number);
                        prop_assert_eq!(is_overtaken, number <= answered);
                        match change {
                            _ if is_overtaken => {}
                            Step::Cutover(to) => service.cut_over(to),
                            Step::Reinstate(of) => service.ejected[of] = false,
                            _ => unreachable!("only these wait"),
                        }
                    }
                    Step::Eject(of) => {
                        queue.overtake(&retreat(Some(*of)));
                        service.ejected[*of] = true;
                        answered = queue.last;
                    }
                    Step::Rollback => {
                        let before = queue.before(&retreat(None));
                        let undoes = before.iter().any(|(_, moves)| *moves);
                        let mut expected = service.clone();
                        let live = waiting.iter().filter(|(number, _)| *number > answered);
                        let cutovers = live.filter_map(|(_, change)| match change {
                            Step::Cutover(to) => Some(*to),
                            _ => None,
                        });
                        let cutovers: Vec<usize> = cutovers.collect();
                        // As if the last one had been made; of several, all are withdrawn.
                        if cutovers.len() <= 1 {
                            cutovers.iter().for_each(|to| expected.cut_over(*to));
                            expected.roll_back();
                        }
                        // That which is not planned yet might move nothing; then nothing moves, either.
                        let is_planned = waiting.first().is_some_and(|(number, change)| {
                            *number > answered && matches!(change, Step::Cutover(_))
                        });
                        if cutovers.len() == 1 && !is_planned {
                            expected = service.clone();
                        }
                        if !undoes {
                            service.roll_back();
                        }
                        queue.overtake(&retreat(None));
                        answered = queue.last;
                        prop_assert_eq!(&service, &expected);
                    }
                }
            }
        }
    }

    #[test]
    fn the_ejection_of_an_endpoint_withdraws_what_reinstates_its_version_alone() {
        let mut queue = Queue::default();
        let mut enter = |service: Option<&str>, kind: Kind| {
            let service = service.map(str::to_owned);
            queue.enter(Concern { service, what: "it".to_owned(), kind })
        };
        let back = |version: &str| Kind::Reinstates(version.to_owned());
        let all = [
            enter(Some("s"), back("v2")),
            enter(Some("s"), back("v1")),
            enter(Some("s"), Kind::Split),
            enter(Some("other"), back("v2")),
            enter(None, Kind::Other),
        ];
        let overtaken = |queue: &Queue| all.map(|number| queue.overtaken(number).is_some());
        let only = Some("v2".to_owned());
        queue.overtake(&Retreat { only, ejects: true, ..retreat(None) });
        assert_eq!(overtaken(&queue), [true, false, false, false, false]);
        queue.overtake(&retreat(None));
        assert_eq!(overtaken(&queue), [true, true, true, false, true]);
        let first = queue.overtaken(all[0]).expect("overtaken").by;
        assert!(first.ejects, "by the first one");
        assert_eq!(queue.before(&retreat(None)), []);
    }

    #[test]
    fn a_place_is_left_when_it_is_dropped() {
        let waiting = Waiting::default();
        let concern = || Concern { service: None, what: "it".to_owned(), kind: Kind::Split };
        let place = waiting.place(Some(concern()));
        place.moves(true);
        assert_eq!(waiting.queue().before(&retreat(None)), [("it".to_owned(), true)]);
        assert_eq!(place.overtaken(), None);
        assert_eq!(waiting.place(None).overtaken(), None);
        waiting.queue().overtake(&retreat(None));
        let text = place.overtaken().expect("overtaken").to_string();
        assert!(
            text.starts_with("it still waited for the disk when a retreat of `s` came"),
            "{text}"
        );
        drop(place);
        assert_eq!(waiting.queue().waiting.len(), 0);
    }
}
