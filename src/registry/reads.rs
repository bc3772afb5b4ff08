//! Which requests in flight count as reads of a service.
//!
//! A file can make writes of what was read before. Nobody knows which of the reads in flight it concerns. So those
//! that begin from then on are counted apart, and those before count as writes until they end.

use crate::policy::class::Class;

/// Which of two counters counts the reads of a service that begin; those that the other one still counts began before a
/// file that may have made writes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reads {
    /// The first one.
    #[default]
    First,
    /// The second one.
    Second,
}

impl Reads {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// The index of the counter of a request of `class`, where reads are counted here.
    #[inline]
    pub fn counter(self, class: Class) -> usize {
        match (class, self) {
            (Class::Read, Self::First) => 0,
            (Class::Write, _) => 1,
            (Class::Read, Self::Second) => 2,
        }
    }
}
