//! How a route repeats failed requests, compiled.

use std::{sync::Arc, time::Duration};

use crate::{
    config::schema::{self, RetryOn},
    policy::retry::Rules,
    registry::{Registry, RetryState},
};

/// How a route repeats failed requests.
#[derive(Debug)]
pub struct RetryPlan {
    /// What decides.
    pub rules: Rules,
    /// Longest time of one attempt; `None`: only the route's time for all.
    pub attempt_timeout: Option<Duration>,
    /// Largest body that is kept, in bytes.
    pub body_bytes: u64,
    /// Longest wait for the rest of such a body.
    pub body_wait: Duration,
    /// The line that tells a version the time for the request.
    pub deadline_line: Box<[u8]>,
    /// The retries of the route so far.
    pub state: Arc<RetryState>,
}

impl RetryPlan {
    /// The `written` policy of `route` with this `label`.
    pub(super) fn new(
        written: &schema::Retry,
        route: &schema::Route,
        label: &str,
        registry: &Registry,
    ) -> Self {
        let divided = || {
            let ends_attempts = written.on.contains(&RetryOn::Timeout);
            ends_attempts.then(|| route.timeout / written.attempts.max(1))
        };
        let milliseconds = route.timeout.as_millis();
        Self {
            rules: Rules::new(written),
            attempt_timeout: written.attempt_timeout.or_else(divided),
            body_bytes: written.body.0,
            body_wait: written.body_wait,
            deadline_line: format!("{}: {milliseconds}\r\n", Self::DEADLINE).into_bytes().into(),
            state: registry.retries(&route.service, label),
        }
    }

    /// The field that tells a version how many milliseconds are left for the request, as other proxies
    /// name it.
    pub const DEADLINE: &str = "X-Envoy-Expected-Rq-Timeout-Ms";
}
