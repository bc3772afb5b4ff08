//! How a client wants its response: protocol, connection, and what of a body.

use super::rewrite::Persistence;

/// How a client wants its response.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseMode {
    pub(super) protocol: Protocol,
    /// A gRPC call, whose failures have a form of their own.
    pub(super) grpc: bool,
    pub(super) keep_alive: bool,
    /// HEAD: a response without its body.
    pub(super) head_only: bool,
    /// The client takes fields that follow the body.
    pub(super) trailers: bool,
}

/// A client's protocol; in the order of [`crate::snapshot::Forwarding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http10,
    Http11,
    Http2,
}

impl Protocol {
    /// As the access log writes it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

impl ResponseMode {
    /// For a request whose head is not understood.
    pub(super) const UNREAD: Self = Self {
        protocol: Protocol::Http11,
        grpc: false,
        keep_alive: false,
        head_only: false,
        trailers: false,
    };

    pub(super) fn is_http10(self) -> bool {
        self.protocol == Protocol::Http10
    }

    /// The `Connection` field of the response, if the connection stays (`keep`) or not.
    pub(super) fn persistence(self, keep: bool) -> Persistence {
        match (keep, self.is_http10()) {
            (false, _) => Persistence::Close,
            (true, true) => Persistence::KeepAlive,
            (true, false) => Persistence::Implied,
        }
    }
}
