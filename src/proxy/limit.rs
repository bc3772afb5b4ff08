//! Which limits there are, and which one somebody is above.

/// Connections told at once that there are too many; further ones are closed without a word.
pub(super) const SHED_AT_ONCE: usize = 256;

/// Which limit a connection, or a request, is above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitKind {
    /// `limits.connections`, or `limits.requests`.
    OfAll,
    /// `limits.connections_per_client`, or `limits.requests_per_client`.
    OfClient,
}
