//! What becomes of the writes of a route in read-only mode, compiled.

use std::{sync::Arc, time::Duration};

use crate::{
    config::schema,
    registry::{HoldState, Registry},
};

/// What becomes of the writes of a route in read-only mode, if they are not refused.
#[derive(Debug)]
pub enum OnReadOnly {
    /// They go on as usual.
    Pass,
    /// They wait.
    Hold(Hold),
}

/// How writes wait.
#[derive(Debug)]
pub struct Hold {
    /// Most that wait at once.
    pub queue: usize,
    /// Most memory of those that wait, in bytes.
    pub bytes: usize,
    /// Longest wait.
    pub deadline: Duration,
    /// Those that wait.
    pub state: Arc<HoldState>,
}

impl OnReadOnly {
    pub(super) fn compile(route: &schema::Route, label: &str, registry: &Registry) -> Option<Self> {
        let hold = match route.read_only.as_ref()? {
            schema::OnReadOnly::Pass => return Some(Self::Pass),
            schema::OnReadOnly::Hold(hold) => hold,
        };
        Some(Self::Hold(Hold {
            queue: hold.queue as usize,
            bytes: usize::try_from(hold.bytes.0).unwrap_or(usize::MAX),
            deadline: hold.deadline,
            state: registry.hold(&route.service, label),
        }))
    }

    /// How writes wait, if they do.
    pub fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Pass => None,
            Self::Hold(hold) => Some(hold),
        }
    }
}
