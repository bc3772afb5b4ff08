//! Rollouts in a journal that was restored from a backup.
//!
//! Between the backup and the restoration the rollout may have been rolled back, and its version ejected. Nothing here
//! knows that, so nobody is sent to that version before a person has looked.

use std::time::SystemTime;

use super::Controller;
use crate::{
    config::actor,
    rollout::{Event, Phase},
};

/// Who pauses them.
const RESTORE: &str = actor::RESTORE;

impl Controller {
    /// Pauses the rollouts in progress, because the state is that of a backup.
    pub fn pause_restored(&mut self) {
        for service in self.rolling() {
            let Some(live) = self.rollouts.get(&service) else { continue };
            let rollout = live.rollout.clone();
            if rollout.phase == Phase::RollingBack {
                continue;
            }
            let to = &rollout.to;
            let reason = format!(
                "the state is that of a backup, and what happened to {to} since is not in it; find that out, then \
                 `resume` the rollout or `abort` it"
            );
            let event = Event::Pause { by: RESTORE.to_owned(), reason: reason.clone() };
            // Whoever had paused it before has the warning all the same.
            if let Ok(checked) = self.check_event(&rollout, event, SystemTime::now()) {
                self.make_rollout(checked, None);
            }
            self.warn_of_rollout(&rollout, format!("the rollout is paused: {reason}"));
        }
    }
}
