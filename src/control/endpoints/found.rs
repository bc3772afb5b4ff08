//! What is reported of endpoints.

use std::time::Duration;

use crate::{
    health::{Cause, State},
    snapshot::{Service, Version},
};

/// An endpoint whose state changed, or would have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Its service.
    pub service: Box<str>,
    /// Its version.
    pub version: Box<str>,
    /// Its address.
    pub endpoint: Box<str>,
    /// Its new state.
    pub to: State,
    /// The cause of an ejection.
    pub cause: Option<Cause>,
    /// The shortest time until it returns, if that is known.
    pub pause: Option<Duration>,
    /// Advisory only: the state has not changed.
    pub advice: bool,
    /// A short reason.
    pub reason: String,
}

/// A condition that changes no endpoint's state but that operators should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The service.
    pub service: Box<str>,
    /// The version.
    pub version: Box<str>,
    /// The condition.
    pub what: NoticeKind,
    /// Whether the condition began or ended.
    pub begins: bool,
}

/// The condition of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeKind {
    /// So few endpoints of a version serve that those ejected for connect faults or failed checks get requests,
    /// too.
    Panic {
        /// Endpoints that serve.
        serving: usize,
        /// All endpoints.
        of: usize,
    },
    /// Connections to it fail, and its version has no other that accepts one.
    Unreachable {
        /// Its address.
        endpoint: Box<str>,
    },
}

impl Notice {
    pub(super) fn of(service: &Service, version: &Version, what: NoticeKind, begins: bool) -> Self {
        Self { service: service.name.clone(), version: version.name.clone(), what, begins }
    }
}
