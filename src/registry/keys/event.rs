//! What happens to keys and their requests.

/// What happens to keys and their requests; the `event` label of `tidegate_idempotency_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyEvent {
    /// A key began.
    Begun,
    /// It ended with a final response.
    Answered,
    /// It ended without being processed.
    Freed,
    /// It ended unsure.
    Unsure,
    /// A request waited for the response to another one.
    Held,
    /// A response was replayed.
    Replayed,
    /// A request was sent although its key was unsure.
    Asked,
    /// A request without a key was refused.
    Missing,
    /// A request with a malformed key was refused.
    Malformed,
    /// A request with the key of another request was refused.
    Mismatch,
    /// A request with an unsure key was refused.
    RefusedUnsure,
    /// A request was refused since the response to its key is not kept.
    RefusedNotKept,
    /// A request waited for too long, or too many waited.
    RefusedBusy,
    /// A request was refused since there were too many keys.
    RefusedFull,
    /// A request was refused since its key could not be written.
    RefusedUnstored,
    /// A request was refused since its body is too large, or a stream.
    RefusedBody,
}

impl KeyEvent {
    /// All events, in the order of the counters.
    pub const ALL: [Self; 16] = [
        Self::Begun,
        Self::Answered,
        Self::Freed,
        Self::Unsure,
        Self::Held,
        Self::Replayed,
        Self::Asked,
        Self::Missing,
        Self::Malformed,
        Self::Mismatch,
        Self::RefusedUnsure,
        Self::RefusedNotKept,
        Self::RefusedBusy,
        Self::RefusedFull,
        Self::RefusedUnstored,
        Self::RefusedBody,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Answered => "answered",
            Self::Freed => "freed",
            Self::Unsure => "unsure",
            Self::Held => "held",
            Self::Replayed => "replayed",
            Self::Asked => "asked",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Mismatch => "mismatch",
            Self::RefusedUnsure => "refused_unsure",
            Self::RefusedNotKept => "refused_not_kept",
            Self::RefusedBusy => "refused_busy",
            Self::RefusedFull => "refused_full",
            Self::RefusedUnstored => "refused_unstored",
            Self::RefusedBody => "refused_body",
        }
    }
}
