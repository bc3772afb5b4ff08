//! What the access log says of a request beside what became of it.

use std::{
    cell::{Cell, OnceCell},
    net::IpAddr,
};

use crate::{registry::Player, routing::CohortKey};

/// The fields of an access log line that come from a request's head.
#[derive(Debug)]
pub(super) struct LogText {
    /// The client's address; behind a trusted proxy it differs from the connection's.
    pub(super) client: IpAddr,
    pub(super) method: Box<str>,
    pub(super) host: Box<str>,
    pub(super) path: Box<str>,
    /// Known once the request has a route.
    pub(super) who: Cell<Who>,
    /// The limit of a rate that it is over, and that only advises.
    pub(super) advised: OnceCell<Box<str>>,
    /// The authorizer that failed, so that the request goes on without its answer.
    pub(super) unasked: OnceCell<Box<str>>,
}

/// Who sent a request, and its idempotency key: by their hashes, since a log is read by many.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Who {
    /// The hash of the cohort key, and the number of its source.
    pub(super) player: Option<(u32, u16)>,
    /// The short name of the idempotency key, and what became of it.
    pub(super) key: Option<(u64, KeyUse)>,
}

/// What became of a request with an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyUse {
    /// It was the first one, and went on.
    New,
    /// It went on although an earlier one may have been processed.
    Asked,
    /// It got the response that was kept.
    Replayed,
    /// It waited for the first one, and got its response.
    Held,
    /// It was refused, by the key or by anything else.
    Refused,
}

impl KeyUse {
    /// The value in the log.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Asked => "asked",
            Self::Replayed => "replayed",
            Self::Held => "held",
            Self::Refused => "refused",
        }
    }
}

impl LogText {
    /// Notes the cohort key and the idempotency key of the request.
    pub(super) fn note(&self, player: CohortKey<'_>, key: Option<(u64, KeyUse)>) {
        let hash = Player::hash(player.value);
        self.who.set(Who { player: Some((hash, player.source)), key });
    }
}
