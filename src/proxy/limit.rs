//! The limits of connections and requests.

/// Connections to which a 503 is sent at the same time; further ones are closed without a response.
pub(super) const SHED_AT_ONCE: usize = 256;

/// The limit that a connection or a request exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitKind {
    /// `limits.connections`, or `limits.requests`.
    OfAll,
    /// `limits.connections_per_client`, or `limits.requests_per_client`.
    OfClient,
}
