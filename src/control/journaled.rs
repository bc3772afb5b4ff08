//! How a change on request passes: it is written first, in force next, and its caller gets the answer last.
//!
//! Only an ejection by an operator does not wait for a journal that cannot be written: it is made, and its entry
//! follows.
//!
//! Such changes pass one after the other. The safety thread waits for none of them, so a verdict may come
//! between the two halves of a change; `kept.rs` says what is written then.

use std::{
    fmt::Display,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{error::Elapsed, timeout};

use super::{
    controller::{First, Moment, Operation, PreparedFile, Reloaded},
    tasks::ControlPlane,
};
use crate::{
    config::LoadError,
    store::{Head, Journal, StoreError},
};

/// Pause between two looks at a journal that fails or has late changes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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

    async fn pass<O: Operation<Error: Display>>(
        &self,
        operation: O,
    ) -> Result<O::Outcome, Unmade<O::Error>> {
        let _turn = self.turnstile().lock().await;
        let at = SystemTime::now();
        let (first, late) = {
            let mut controller = self.controller();
            // Without a journal nothing is written first, and making the change checks it, too.
            let plan = match controller.has_journal() {
                true => operation.plan(&controller, at).map_err(Unmade::Refused)?,
                false => None,
            };
            let late = plan.as_ref().filter(|_| O::ACTS_FIRST).map(|plan| plan.draft.clone());
            (controller.begin(plan), late)
        };
        let written = match first {
            Ok(first) => self.write_first(first).await,
            Err(error) => Err(error),
        };
        let (entry, unwritten) = match written {
            Ok(entry) => (entry, None),
            Err(error) => match late {
                Some(draft) => (None, Some((draft, error))),
                None => return Err(Unmade::Unwritten(error)),
            },
        };
        let mut controller = self.controller();
        let made = operation.make(&mut controller, Moment { at, entry });
        if let Some(entry) = entry {
            controller.settle(entry, made.as_ref().err().map(ToString::to_string));
        }
        let mut outcome = made.map_err(Unmade::Refused)?;
        if let Some((draft, error)) = unwritten {
            controller.write_late(draft);
            O::entry_waits(&mut outcome, error.to_string());
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
            let runtime = tokio::runtime::Builder::new_current_thread().build();
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
        self.controller().undo_fences("another process takes over");
        let _turn = timeout(within, self.turnstile().lock()).await?;
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
