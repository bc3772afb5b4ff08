//! A rollout as of its last transition, with its row of the journal.
//!
//! Each change of the state compares the rows of all that is kept, so the row of a rollout that stays as it is is made
//! once: it has the plan and all transitions with their reasons.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use super::rows::Row;
use crate::rollout::Rollout;

/// A rollout of the state; it does not change.
#[derive(Debug)]
pub struct KeptRollout {
    rollout: Rollout,
    row: OnceLock<Row>,
}

impl KeptRollout {
    /// Its row, which `make` makes of it.
    pub(super) fn row(&self, make: impl FnOnce(&Rollout) -> Row) -> Row {
        Arc::clone(self.row.get_or_init(|| make(&self.rollout)))
    }
}

impl From<Rollout> for KeptRollout {
    fn from(rollout: Rollout) -> Self {
        Self { rollout, row: OnceLock::new() }
    }
}

impl Deref for KeptRollout {
    type Target = Rollout;

    fn deref(&self) -> &Rollout {
        &self.rollout
    }
}

impl PartialEq for KeptRollout {
    fn eq(&self, other: &Self) -> bool {
        self.rollout == other.rollout
    }
}
