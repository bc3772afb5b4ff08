//! What few requests have beside what all have. It is boxed, so that it costs other requests one pointer.

use std::{cell::RefCell, rc::Rc};

use tokio::time::Instant;

use super::{idempotency::Key, pin::PinTurn, places::Places};
use crate::routing::Claims;

/// What few requests have.
#[derive(Default)]
pub(super) struct RareOptions {
    /// The deadline of the whole call, if the client set one.
    pub(super) ends_by: Option<Instant>,
    /// The protocol to which the client asks to switch, if that is allowed.
    pub(super) upgrade: Option<Box<str>>,
    /// What the response may do to pins.
    pub(super) pin: Option<Box<PinTurn>>,
    /// What the route's policies add.
    pub(super) additions: Additions,
    /// Its idempotency key.
    pub(super) key: Option<Rc<Key>>,
    /// Its places among the requests in flight, if they are limited.
    pub(super) places: Option<RefCell<Box<Places>>>,
}

/// What policies add to a request that goes on.
#[derive(Debug, Default)]
pub(super) struct Additions {
    /// Header fields for the version, each a line with its end.
    pub(super) request: Vec<u8>,
    /// Header fields for the client beside those of the response, likewise.
    pub(super) answer: Vec<u8>,
    /// What the client's token says.
    pub(super) claims: Option<Rc<Claims>>,
}

impl Additions {
    /// Whether nothing is added.
    pub(super) fn is_empty(&self) -> bool {
        self.request.is_empty() && self.answer.is_empty() && self.claims.is_none()
    }
}
