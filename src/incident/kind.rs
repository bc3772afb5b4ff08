//! Kinds and states of incidents.

use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A version was ejected, by a verdict or by an operator.
    Ejected,
    /// An endpoint was ejected.
    EndpointEjected,
    /// A split was rolled back.
    RolledBack,
    /// A rollout has given its version all players.
    RolloutDone,
    /// A rollout ended with the split before it.
    RolloutRolledBack,
    /// A rollout was given up.
    RolloutAborted,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Ejected,
        Self::EndpointEjected,
        Self::RolledBack,
        Self::RolloutDone,
        Self::RolloutRolledBack,
        Self::RolloutAborted,
    ];

    /// The name in the API and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ejected => "ejected",
            Self::EndpointEjected => "endpoint_ejected",
            Self::RolledBack => "rolled_back",
            Self::RolloutDone => "rollout_done",
            Self::RolloutRolledBack => "rollout_rolled_back",
            Self::RolloutAborted => "rollout_aborted",
        }
    }
}

/// Whether the time after an incident is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not yet; or never, if the process ended first.
    Open,
    /// Everything is there.
    Complete,
}

impl State {
    /// The name in the API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
        }
    }
}
