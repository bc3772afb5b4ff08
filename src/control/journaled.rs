//! How a change on request passes: it is written first, in force next, and its caller gets the answer last.
//!
//! Only an ejection by an operator, and what else leaves a bad version, does not wait for a journal that cannot be written: it is made, and its entry
//! follows.
//!
//! What it overtakes of the same service, and nobody was told of, is withdrawn (`overtaken.rs`).
//!
//! Such changes pass one after the other; only a fenced cutover lets others pass while it waits for writes in flight
//! (`fenced.rs`). The safety thread waits for none of them, so a verdict may come
//! between the two halves of a change; `kept.rs` says what is written then.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{error::Elapsed, timeout},
};

use super::{
    controller::{First, Moment, Operation, PreparedFile, Reloaded},
    overtaken::{Overtaken, Place},
    tasks::ControlPlane,
};
use crate::{
    config::LoadError,
    store::{Draft, Head, Journal, StoreError},
};

/// Pause between two looks at a journal that fails or has late changes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a change that acts first waits for its turn, and for the disk.
const PATIENCE: Duration = Duration::from_millis(500);

/// The turn of a change.
pub(super) type Turn = OwnedMutexGuard<()>;

/// Why a change was not made.
#[derive(Debug)]
pub enum Unmade<E> {
    /// It is refused.
    Refused(E),
    /// It is not in the journal.
    Unwritten(StoreError),
}

impl ControlPlane {
    /// Writes a change to the journal and makes it, also if the caller does not wait for the end.
    ///
    /// # Errors
    ///
    /// If the change is refused, or cannot be written.
    pub async fn change<O>(&self, operation: O) -> Result<O::Outcome, Unmade<O::Error>>
    where
        O: Operation<Outcome: Send, Error: Display + Send> + Send + 'static,
    {
        let observatory = self.clone();
        self.detached(async move { observatory.pass(operation).await }).await
    }

    /// Runs `change` to its end, also if the caller does not wait for it.
    pub(super) async fn detached<T: Send + 'static>(
        &self,
        change: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match tokio::spawn(change).await {
            Ok(made) => made,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The process ends.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Takes its turn, writes the entry of a change and makes it. A change that takes players away from a version
    /// waits for neither for long: then it is made first.
    async fn pass<O: Operation<Error: Display>>(
        &self,
        operation: O,
    ) -> Result<O::Outcome, Unmade<O::Error>> {
        let acts_first = operation.acts_first();
        let place = self.waiting().place(operation.concerns());
        let turn = match acts_first {
            true => self.turn(Some(PATIENCE)).await.ok(),
            false => Some(self.turn(O::PATIENCE).await.map_err(Unmade::Unwritten)?),
        };
        let at = SystemTime::now();
        let Some(turn) = turn else { return self.overtake(operation, at) };
        if let Some(overtaken) = self.withdrawn(&place, &operation) {
            return Err(Unmade::Refused(overtaken.into()));
        }
        let (first, late) = {
            let mut controller = self.controller();
            // Without a journal nothing is written first, and making the change checks it, too.
            let plan = match controller.has_journal() {
                true => operation.plan(&controller, at).map_err(Unmade::Refused)?,
                false => None,
            };
            let late = plan.as_ref().filter(|_| acts_first).map(|plan| plan.draft.clone());
            // Before anything else happens: a rollout that began to hold between the two would need another entry.
            place.moves(plan.as_ref().is_none_or(|plan| plan.then.is_some()));
            (controller.begin(plan), late)
        };
        let plane = self.clone();
        let mut writing = Box::pin(async move {
            match first {
                Ok(first) => plane.write_first(first).await,
                Err(error) => Err(error),
            }
        });
        let written = match acts_first {
            true => timeout(PATIENCE, &mut writing).await,
            false => Ok(writing.as_mut().await),
        };
        let entry = match (written, late) {
            (Ok(Ok(entry)), _) => entry,
            (Ok(Err(error)), Some(draft)) => {
                return self.act(operation, at, Some(draft), &error.to_string());
            }
            (Ok(Err(error)), None) => return Err(Unmade::Unwritten(error)),
            // The disk does not answer. The entry is on its way, and the change does not wait for it.
            (Err(_), late) => {
                let made = self.act(operation, at, None, "the disk does not answer");
                let refused = made.as_ref().err().and_then(|unmade| match unmade {
                    Unmade::Refused(why) => Some(why.to_string()),
                    Unmade::Unwritten(_) => None,
                });
                let plane = self.clone();
                tokio::spawn(async move {
                    let _turn = turn;
                    let written = writing.await;
                    let mut controller = plane.controller();
                    match (written, late) {
                        (Ok(Some(entry)), _) => controller.settle(entry, refused),
                        (Err(_), Some(draft)) if refused.is_none() => controller.write_late(draft),
                        _ => {}
                    }
                });
                return made;
            }
        };
        let mut controller = self.controller();
        let overtaken = place.overtaken();
        let made = match overtaken.filter(|by| operation.is_withdrawn(&controller, by)) {
            Some(overtaken) => Err(overtaken.into()),
            None => operation.make(&mut controller, Moment { at, entry }),
        };
        if let Some(entry) = entry {
            controller.settle(entry, made.as_ref().err().map(ToString::to_string));
        }
        made.map_err(Unmade::Refused)
    }

    /// What has overtaken a change that is not made yet, if it is withdrawn for that.
    fn withdrawn<O: Operation>(&self, place: &Place, operation: &O) -> Option<Overtaken> {
        let overtaken = place.overtaken()?;
        operation.is_withdrawn(&self.controller(), &overtaken).then_some(overtaken)
    }

    /// Makes a change that acts first while another one has its turn, and withdraws those before it that wait.
    fn overtake<O: Operation>(
        &self,
        operation: O,
        at: SystemTime,
    ) -> Result<O::Outcome, Unmade<O::Error>> {
        let mut controller = self.controller();
        let retreat = operation.retreat();
        let before = retreat.as_ref().map(|retreat| self.waiting().queue().before(retreat));
        let before = before.unwrap_or_default();
        let of_split = before.iter().filter(|(_, is_of_split)| *is_of_split);
        let undone: Vec<String> = of_split.map(|(what, _)| what.clone()).collect();
        let undone = match &*undone {
            [] => None,
            undone => operation.undo(&mut controller, undone),
        };
        let (draft, mut outcome) = match undone {
            Some(undone) => undone.map(|(draft, outcome)| (Some(draft), outcome)),
            None => {
                // Without a journal making the change checks it.
                let plan = match controller.has_journal() {
                    true => operation.plan(&controller, at).map_err(Unmade::Refused)?,
                    false => None,
                };
                let made = operation.make(&mut controller, Moment { at, entry: None });
                made.map(|outcome| (plan.map(|plan| plan.draft), outcome))
            }
        }
        .map_err(Unmade::Refused)?;
        if let Some(retreat) = &retreat {
            self.waiting().queue().overtake(retreat);
        }
        if let Some(draft) = draft {
            controller.write_late(draft);
        }
        if controller.has_journal() {
            let what: Vec<String> = before.into_iter().map(|(what, _)| what).collect();
            let why = "another change is being made".to_owned();
            let why = match what.is_empty() {
                true => why,
                false => {
                    format!("{why}; withdrawn, since it was not in force yet: {}", what.join(", "))
                }
            };
            O::entry_waits(&mut outcome, why);
        }
        Ok(outcome)
    }

    /// Waits for the turn of a change, for `patience` at most if that is given.
    ///
    /// # Errors
    ///
    /// If the changes before it take longer: nothing of it is done then, nor later.
    pub(super) async fn turn(&self, patience: Option<Duration>) -> Result<Turn, StoreError> {
        turn_at(self.turnstile(), patience).await
    }

    /// Makes a change that acts first, and queues its entry, the `late` one, unless that is on its way. `why` it is
    /// not written yet is told to the caller if there is a journal.
    fn act<O: Operation>(
        &self,
        operation: O,
        at: SystemTime,
        late: Option<Draft>,
        why: &str,
    ) -> Result<O::Outcome, Unmade<O::Error>> {
        let mut controller = self.controller();
        let made = operation.make(&mut controller, Moment { at, entry: None });
        let mut outcome = made.map_err(Unmade::Refused)?;
        if let Some(draft) = late {
            controller.write_late(draft);
        }
        if controller.has_journal() {
            O::entry_waits(&mut outcome, why.to_owned());
        }
        Ok(outcome)
    }

    /// Plans a change at `now`: what must be written before it is made. The caller holds the turnstile.
    pub(super) fn plan_first<O: Operation>(
        &self,
        operation: &O,
        now: SystemTime,
    ) -> Result<First, Unmade<O::Error>> {
        let mut controller = self.controller();
        let plan = operation.plan(&controller, now).map_err(Unmade::Refused)?;
        controller.begin(plan).map_err(Unmade::Unwritten)
    }

    /// Writes the entry of a change, which the caller settles.
    pub(super) async fn write_first(&self, first: First) -> Result<Option<Head>, StoreError> {
        let First::Write(journal, draft, rows) = first else { return Ok(None) };
        let written = journal.write(*draft, rows).await;
        written.map(Some).inspect_err(|_| self.controller().not_written())
    }

    /// Takes over a file that was read again; returns whether it is in force. Blocks. An error is logged,
    /// counted and shown in the status.
    pub fn reload(&self, file: Result<PreparedFile, LoadError>) -> bool {
        let file = match file {
            Ok(file) => file,
            Err(error) => return self.controller().reload(Err(error), Moment::now()).is_ok(),
        };
        // A thread of its own may block, whatever runs on this one.
        let passing = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.map_err(|error| LoadError::Named { why: error.to_string() })?;
            Ok(runtime.block_on(self.pass(file)))
        };
        let passed = std::thread::scope(|scope| scope.spawn(passing).join());
        let error = match passed {
            Ok(Ok(Ok(Reloaded::Unchanged | Reloaded::Applied(_)))) => return true,
            Ok(Ok(Err(Unmade::Refused(error)))) => match Arc::try_unwrap(error) {
                Ok(error) => error,
                // It is recorded already.
                Err(_) => return false,
            },
            Ok(Ok(Err(Unmade::Unwritten(error)))) => LoadError::Named {
                why: format!("the change cannot be written to the journal: {error}"),
            },
            Ok(Err(error)) => error,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let _ = self.controller().reload(Err(error), Moment::now());
        false
    }

    /// Lets the changes under way end, and then decides nothing more. Gives the journal to the caller, who
    /// closes it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If the changes do not end `within` this time.
    pub async fn release_journal(&self, within: Duration) -> Result<Option<Arc<Journal>>, Elapsed> {
        let undo = || self.controller().undo_fences("another process takes over");
        undo();
        let _ended = timeout(within, async {
            let turn = self.turnstile().lock().await;
            // One may have been raised before this turn.
            undo();
            (turn, self.moving().write().await)
        })
        .await?;
        let mut controller = self.controller();
        controller.hand_over();
        Ok(controller.release_journal())
    }

    /// Watches the journal, for events and alerts, while anything is written to it.
    pub async fn watch_journal(self) {
        let news = self.controller().journal_news();
        loop {
            while self.controller().watch_journal() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            news.notified().await;
        }
    }
}

async fn turn_at(
    turnstile: &Arc<Mutex<()>>,
    patience: Option<Duration>,
) -> Result<Turn, StoreError> {
    let turn = Arc::clone(turnstile).lock_owned();
    let Some(patience) = patience else { return Ok(turn.await) };
    timeout(patience, turn).await.map_err(|_| {
        let patience = humantime::format_duration(patience);
        let why = format!("after {patience} the changes before it are still being written");
        StoreError::Refused(why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a change that was refused, since those before it took too long, came into force later.
    #[test]
    fn a_change_without_a_turn_in_time_never_has_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let turnstile = Arc::default();
            let first = turn_at(&turnstile, None).await.expect("nobody is before it");
            let late = turn_at(&turnstile, Some(Duration::ZERO)).await;
            let why = late.expect_err("another has its turn").to_string();
            assert!(why.contains("the changes before it are still being written"), "{why}");
            drop(first);
            drop(turn_at(&turnstile, Some(Duration::ZERO)).await.expect("it is free"));
        });
    }
}
