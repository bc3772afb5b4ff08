//! The writer's side of pins.

use super::{FOR_EJECTIONS, Writer};
#[cfg(test)]
use crate::store::sqlite;
use crate::store::{
    error::StoreError,
    pins::{self, PinJob, Unkept},
};

impl Writer {
    /// Writes changes of pins, and answers. What is left of a full disk is not for them. A failure is the
    /// caller's, who tries again: the journal's health is found out by its own entries.
    pub(super) fn keep_pins(&mut self, job: PinJob) {
        let PinJob { changes, answer } = job;
        let kept = match self.ballast.is_there() {
            true => self.begin(),
            false => Err(StoreError::Full(FOR_EJECTIONS.to_owned())),
        };
        let kept = kept.and_then(|()| {
            let Some(connection) = &self.connection else { return Err(StoreError::Closed) };
            #[cfg(test)]
            sqlite::limit(connection, &self.shared.max_pages);
            match pins::commit(connection, &changes) {
                Ok(()) => self.look(true),
                Err(error) => {
                    self.connection = None;
                    Err(error.into())
                }
            }
        });
        // Whoever asked may have gone.
        let _ = answer.send(kept.map_err(|why| Unkept { why, changes }));
    }
}
