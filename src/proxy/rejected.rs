//! Requests that are answered by the proxy, before any version gets them.

use std::rc::Rc;

use tokio::time::Instant;

use super::{
    head::HeadError,
    log_text::LogText,
    problem::{Extra, Problem},
    response_mode::ResponseMode,
    rewrite::RequestId,
    waiting::{Wait, Waiting},
    worker::WorkerSnapshot,
};
use crate::snapshot::{Route, Service};

/// Why a request does not go on.
pub(super) enum Stop {
    /// It is answered with this problem, and with more than a problem says by itself.
    Answer(Problem, Option<Box<Extra>>),
    /// It waits, and is planned again.
    Wait(Wait),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Answer(problem, None)
    }
}

/// A request that is answered by the proxy.
pub(super) struct Rejected {
    pub(super) problem: Problem,
    /// What the response says beside the problem.
    pub(super) extra: Option<Box<Extra>>,
    pub(super) id: Option<RequestId>,
    pub(super) mode: ResponseMode,
    /// Length of the request in bytes, if it was read to its end and the connection can be kept.
    pub(super) whole: Option<usize>,
    /// When its head was complete, or was given up.
    pub(super) head_at: Instant,
    /// Bytes of its body that have arrived.
    pub(super) bytes_in: u64,
    pub(super) log: Option<Box<LogText>>,
    /// Where it was routed to; `None` if it was not.
    pub(super) routed: Option<Routed>,
    /// It waits, and is planned again; `problem` is not sent then.
    pub(super) waiting: Option<Box<Waiting>>,
}

/// Where a request was routed to that is answered by the proxy.
pub(super) struct Routed {
    pub(super) snapshot: Rc<WorkerSnapshot>,
    /// Number of the route.
    pub(super) route: u32,
}

impl Routed {
    pub(super) fn route(&self) -> &Route {
        &self.snapshot.routes[self.route as usize]
    }

    pub(super) fn service(&self) -> &Service {
        &self.snapshot.services[self.route().service as usize]
    }
}

impl Rejected {
    /// A request with an unreadable head; no request can follow it.
    pub(super) fn unread(problem: impl Into<Problem>) -> Self {
        let problem = problem.into();
        Self {
            problem,
            extra: None,
            id: None,
            mode: ResponseMode::UNREAD,
            whole: None,
            head_at: Instant::now(),
            bytes_in: 0,
            log: None,
            routed: None,
            waiting: None,
        }
    }

    /// A request whose head exceeds the limit, of which `bytes` have arrived. If the first line alone exceeds
    /// it, the target is too long.
    pub(super) fn too_large(bytes: &[u8], limit: u64) -> Self {
        let line = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len()) as u64;
        Self::unread(if line >= limit {
            HeadError { status: 414, detail: "the request line is longer than the limit" }
        } else {
            HeadError { status: 431, detail: "the header is larger than the limit" }
        })
    }
}
