//! What happens to pins.

use crate::routing::pin::Fate;

/// What happens to pins; the `event` label of `tidegate_pins_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinEvent {
    /// It began.
    Begun,
    /// A response ended it.
    Ended,
    /// It ended because it was not used.
    Idle,
    /// It ended because it was too old.
    Limit,
    /// Its version was ejected or lost, and another one has it.
    Moved,
    /// An operator moved it.
    Forced,
    /// It did not begin, because there were too many.
    RefusedFull,
    /// A cookie is malformed or forged, or names a key or a version that there is not.
    CookieRejected,
}

impl PinEvent {
    /// All events, in the order of the counters.
    pub const ALL: [Self; 8] = [
        Self::Begun,
        Self::Ended,
        Self::Idle,
        Self::Limit,
        Self::Moved,
        Self::Forced,
        Self::RefusedFull,
        Self::CookieRejected,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Ended => "ended",
            Self::Idle => "idle",
            Self::Limit => "limit",
            Self::Moved => "moved",
            Self::Forced => "forced",
            Self::RefusedFull => "refused_full",
            Self::CookieRejected => "cookie_rejected",
        }
    }

    /// The event of a pin that `ended` by its times.
    pub(super) fn of(ended: Fate) -> Self {
        match ended {
            Fate::Limit => Self::Limit,
            _ => Self::Idle,
        }
    }
}
