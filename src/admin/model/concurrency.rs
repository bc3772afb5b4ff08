//! Limits of requests in flight, as the API shows them.

use serde::{Deserialize, Serialize};

use super::Service;
use crate::snapshot::{ConcurrencyLimit, Snapshot};

/// A limit of requests in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// The route; null if all routes of the service share the limit.
    pub route: Option<String>,
    /// The limit in force.
    pub limit: u32,
    /// As written.
    pub max: u32,
    /// Whether it follows the latency.
    pub adaptive: bool,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait.
    pub waiting: usize,
}

impl Concurrency {
    fn new(limit: &ConcurrencyLimit) -> Self {
        Self {
            route: limit.route.as_deref().map(str::to_owned),
            limit: limit.state.limit(),
            max: limit.terms.max,
            adaptive: limit.is_adaptive(),
            in_flight: limit.state.in_flight(),
            waiting: limit.state.waiting(),
        }
    }
}

impl Service {
    /// The same with the limits that `snapshot` has for it.
    pub fn with_limits(mut self, snapshot: &Snapshot) -> Self {
        let own = snapshot.concurrency.iter().filter(|limit| *limit.service == *self.name);
        self.concurrency = own.map(|limit| Concurrency::new(limit)).collect();
        self
    }
}
