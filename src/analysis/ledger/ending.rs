//! Outcomes of first attempts.

/// How a first attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// No evidence about the version.
    Void,
    /// A response.
    Served,
    /// A response that refuses the request: 400 to 499.
    Refused,
    /// A failure, which may be fast.
    Failed,
    /// No response in time.
    TimedOut,
    /// The client left before a response.
    Left,
    /// Recorded as served before; the response broke.
    Broke,
    /// Recorded as served before; the client left before the response was complete.
    LeftLater,
    /// Recorded as served before; the response is complete.
    Whole,
    /// Sent to the baseline to test the player, and served.
    AskedServed,
    /// Sent to the baseline to test the player, and failed.
    AskedFailed,
}

impl What {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Void,
        Self::Served,
        Self::Refused,
        Self::Failed,
        Self::TimedOut,
        Self::Left,
        Self::Broke,
        Self::LeftLater,
        Self::Whole,
        Self::AskedServed,
        Self::AskedFailed,
    ];
}

/// A time that is unknown, or does not count.
pub const NO_TIME: u32 = u32::MAX;

/// The outcome of a first attempt, with its version, player and endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Number of the evaluation in which it began.
    pub look: u32,
    /// The split by which its version was chosen: the low bits of the number of the service's epoch.
    pub split: u8,
    /// Number of the version's evidence on the route, below 2^24.
    pub arm: u32,
    /// The player's bucket.
    pub player: u16,
    /// The bucket of the client's network, if networks count.
    pub network: u16,
    /// Number of the endpoint, its low 23 bits.
    pub endpoint: u32,
    /// The endpoint's group.
    pub group: u8,
    /// Whether a connection was made for it.
    pub fresh: bool,
    /// What happened.
    pub what: What,
    /// Microseconds from when the endpoint had the request to the head of the response, or until
    /// the client left; or [`NO_TIME`].
    pub head_us: u32,
    /// Likewise, to the last byte.
    pub whole_us: u32,
}
