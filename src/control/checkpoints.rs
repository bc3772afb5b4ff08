//! Signed checkpoints of the journal: one a day, while the journal grows.
//!
//! A chain of hashes does not show that its end was cut off; a checkpoint that is kept elsewhere does. So each
//! one stands in the log, too.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::tasks::ControlPlane;
use crate::store::{Checkpoint, Head, Journal, StoreError};

/// Time between two checkpoints.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// Pause between two looks at whether one is due. The clock may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Whether a checkpoint is due `now` of a journal that ends with `head`, after the `last` one.
fn is_due(last: Option<&Checkpoint>, head: Head, now: SystemTime) -> bool {
    last.is_none_or(|last| {
        // One of the future was made before the clock was set back.
        let age = now.duration_since(last.at).unwrap_or(EVERY);
        last.head != head && age >= EVERY
    })
}

impl ControlPlane {
    /// Makes checkpoints for as long as the process has a journal.
    pub async fn make_checkpoints(self) {
        loop {
            if let Err(error) = self.make_checkpoint(SystemTime::now()).await {
                tracing::warn!(%error, "there is no new checkpoint of the journal");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn make_checkpoint(&self, now: SystemTime) -> Result<(), StoreError> {
        // Whoever takes the journal over waits for the last one who holds it.
        let _turn = self.turnstile().lock().await;
        let Some(journal) = self.controller().open_journal() else { return Ok(()) };
        let head = journal.health().head;
        let last = {
            let journal = Arc::clone(&journal);
            let read = move || last_of(&journal);
            tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))?
        };
        if is_due(last.as_ref(), head, now) {
            let note = journal.checkpoint().await?;
            let seq = Checkpoint::read(&note).map_or(head.seq, |checkpoint| checkpoint.head.seq);
            tracing::info!(journal.seq = seq, note, "checkpoint of the journal");
        }
        Ok(())
    }
}

/// The last checkpoint that is in the journal.
fn last_of(journal: &Journal) -> Result<Option<Checkpoint>, StoreError> {
    let note = journal.reader()?.checkpoints(1)?.pop();
    Ok(note.and_then(|(_, note)| Checkpoint::read(&note).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Hash;

    #[test]
    fn a_journal_that_grows_gets_one_checkpoint_a_day() {
        let head = |seq| Head { seq, hash: Hash::of(&[seq as u8]) };
        let at = SystemTime::UNIX_EPOCH + 1_000 * EVERY;
        let last = Checkpoint { origin: "tidegate/edge".to_owned(), head: head(7), at };
        assert!(is_due(None, head(1), at));
        for (seq, later, due) in [
            (7, 2 * EVERY, false),
            (8, EVERY - Duration::from_secs(1), false),
            (8, EVERY, true),
            (8, 9 * EVERY, true),
        ] {
            assert_eq!(is_due(Some(&last), head(seq), at + later), due, "{seq} {later:?}");
        }
        assert!(is_due(Some(&last), head(8), at - EVERY), "the clock was set back");
    }
}
