//! What is said of a first attempt.

/// How a first attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// In a way that says nothing of the version.
    Void,
    /// With an answer.
    Served,
    /// With an answer that refuses the request: 400 to 499.
    Refused,
    /// With a failure, which may have come fast.
    Failed,
    /// With no answer in time.
    TimedOut,
    /// With a client that left before an answer.
    Left,
    /// It was taken for served, and its answer broke.
    Broke,
    /// It was taken for served, and its client left before the answer was whole.
    LeftLater,
    /// It was taken for served, and its answer is whole.
    Whole,
    /// Sent to the baseline to see whether it is the player who fails; served.
    AskedServed,
    /// The same; failed.
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

/// A time that is not known, or does not count.
pub const NO_TIME: u32 = u32::MAX;

/// How a first attempt ended, and whose it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Number of the evaluator's look in which it began.
    pub look: u32,
    /// Number of the version's evidence on the route.
    pub arm: u32,
    /// The player's bucket.
    pub player: u16,
    /// The bucket of the client's network, where networks are asked too.
    pub network: u16,
    /// Number of the endpoint, its low 23 bits.
    pub endpoint: u32,
    /// The endpoint's group.
    pub group: u8,
    /// A connection was made for it.
    pub fresh: bool,
    /// What happened.
    pub what: What,
    /// Microseconds from when the request was with the endpoint to the head of its answer, or until the
    /// client left; or [`NO_TIME`].
    pub head_us: u32,
    /// The same to the last byte.
    pub whole_us: u32,
}
