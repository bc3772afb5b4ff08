//! The retries of a route: one budget for all workers.

use std::sync::{Mutex, PoisonError};

use crate::policy::retry::{Allowance, Budget};

/// The retries of a route. It is locked only when a request has failed and would be repeated.
#[derive(Debug, Default)]
pub struct RetryState(Mutex<Budget>);

impl RetryState {
    /// Takes one retry out of the budget of `allowance`; false if there is none left. `second`: whole
    /// seconds since the process started; `requests`: requests of the route so far.
    pub fn withdraw(&self, second: u64, requests: u64, allowance: Allowance) -> bool {
        // No panic leaves a half-done change.
        let mut budget = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        budget.withdraw(second, requests, allowance)
    }
}
