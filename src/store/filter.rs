//! Which entries to show.

use std::time::SystemTime;

/// Most entries that are shown at once.
pub const MOST_SHOWN: u32 = 10_000;

/// Which entries to show. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this service.
    pub service: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// By an actor with this name.
    pub actor: Option<String>,
    /// Made then or later.
    pub from: Option<SystemTime>,
    /// Made before then.
    pub to: Option<SystemTime>,
    /// Behind this entry.
    pub after: u64,
    /// At most so many; 100 if it is not set, and never more than [`MOST_SHOWN`].
    pub limit: Option<u32>,
    /// No more entries once their lines have so many bytes together.
    pub most_bytes: Option<usize>,
    /// The last ones first, else the first ones.
    pub newest_first: bool,
}
