//! The version to which the requests of a smoke check go (`smoke.rs`).

use std::sync::{Arc, OnceLock};

use super::problem::Problem;

/// Where the requests of a smoke connection go.
#[derive(Debug)]
pub struct SmokeTarget {
    /// The service to which their routes must lead.
    pub service: Box<str>,
    /// The version of it.
    pub version: Box<str>,
    /// The path as it was written, without kept values: those are in no log.
    pub path: Box<str>,
    /// Whether endpoints are told that the client used TLS (`X-Forwarded-Proto: https`).
    pub encrypted: bool,
    /// Set if Tidegate itself answers a request, with the reason: nothing else tells such an answer from the
    /// version's.
    pub fault: Arc<OnceLock<&'static str>>,
}

impl SmokeTarget {
    /// Notes that Tidegate itself answers with `problem`.
    #[cold]
    pub(super) fn note(&self, problem: &Problem) {
        // The first one is the cause.
        let _ = self.fault.set(problem.detail);
    }
}
