//! The journal is verified once after it was opened, and before each signed checkpoint of it. There is one
//! checkpoint a day, while the journal grows.
//!
//! A chain of hashes does not show that its end was cut off; a checkpoint that is kept elsewhere does. So each
//! one stands in the log, too.

use std::time::{Duration, SystemTime};

use super::{controller::Checked, tasks::ControlPlane};
use crate::store::{Checkpoint, Head, Journal, Reader, StoreError};

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
        let opened = self.controller().journal_opened();
        loop {
            self.verify_new_journal().await;
            if let Err(error) = self.make_checkpoint_if_due(SystemTime::now()).await {
                tracing::warn!(%error, "there is no new checkpoint of the journal");
            }
            // After the pause, or when a journal was opened, whichever comes first.
            let _ = tokio::time::timeout(LOOK_EVERY, opened.notified()).await;
        }
    }

    /// Makes a checkpoint now, as after a change that matters; returns its text. `None` if there is no journal
    /// that is open, or if it does not verify, which has been told.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read or written.
    pub async fn checkpoint_journal(&self) -> Result<Option<String>, StoreError> {
        if !self.verify_journal().await {
            return Ok(None);
        }
        // Whoever takes the journal over waits for the last one who holds it.
        let _turn = self.turnstile().lock().await;
        let Some(journal) = self.controller().open_journal() else { return Ok(None) };
        let note = journal.checkpoint().await?;
        let seq = Checkpoint::read(&note).map(|checkpoint| checkpoint.head.seq).ok();
        tracing::info!(journal.seq = seq, note, "checkpoint of the journal");
        self.controller().offer_checkpoint(&note);
        Ok(Some(note))
    }

    /// Verifies a journal that was opened and not verified since.
    async fn verify_new_journal(&self) {
        let is_new = self.controller().journal().is_some_and(|journal| {
            let is_verified =
                matches!(journal.checked, Checked::Intact | Checked::Faulty { is_all: true, .. });
            journal.health.is_ok() && !is_verified
        });
        if is_new {
            self.verify_journal().await;
        }
    }

    /// Verifies the journal, beside those who write it; returns whether it is intact. False if there is none
    /// that is open.
    async fn verify_journal(&self) -> bool {
        // Its folder only: a process that takes over waits until nobody holds the journal itself.
        let journal = self.controller().journal().filter(|journal| journal.health.is_ok());
        let Some(journal) = journal else { return false };
        let verify = move || match Reader::open(&journal.folder) {
            Ok(reader) => {
                reader.verify(None, None).faults.iter().map(ToString::to_string).collect()
            }
            Err(error) => vec![format!("it cannot be read: {error}")],
        };
        // Fails only if the process ends.
        let faults: Vec<String> = tokio::task::spawn_blocking(verify).await.unwrap_or_default();
        let is_intact = faults.is_empty();
        self.controller().journal_checked(faults, true);
        is_intact
    }

    async fn make_checkpoint_if_due(&self, now: SystemTime) -> Result<(), StoreError> {
        // What was found once is found again.
        let is_faulty = self
            .controller()
            .journal()
            .is_some_and(|journal| matches!(journal.checked, Checked::Faulty { is_all: true, .. }));
        if !is_faulty && self.is_checkpoint_due(now).await? {
            self.checkpoint_journal().await?;
        }
        Ok(())
    }

    async fn is_checkpoint_due(&self, now: SystemTime) -> Result<bool, StoreError> {
        // Whoever takes the journal over waits for the last one who holds it.
        let _turn = self.turnstile().lock().await;
        let Some(journal) = self.controller().open_journal() else { return Ok(false) };
        let head = journal.health().head;
        let read = move || last_of(&journal);
        let last = tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))?;
        if let Some(note) = &last {
            // A process before may not have got it out.
            self.controller().offer_checkpoint(note);
        }
        let last = last.and_then(|note| Checkpoint::read(&note).ok());
        Ok(is_due(last.as_ref(), head, now))
    }
}

/// The last checkpoint that is in the journal.
fn last_of(journal: &Journal) -> Result<Option<String>, StoreError> {
    Ok(journal.reader()?.checkpoints(1)?.pop().map(|(_, note)| note))
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
