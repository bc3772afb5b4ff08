//! How failures spread over the endpoints of a baseline, window by window.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    analysis::{Counter, DISPERSION_WINDOW, Dispersion, Tally},
    registry::EndpointState,
};

/// The windows, and what they have shown.
#[derive(Debug)]
pub(super) struct Spread {
    opened: Duration,
    /// Counts at the beginning of the open window, by number of the endpoint.
    before: HashMap<u32, Counter>,
    dispersion: Dispersion,
}

impl Spread {
    pub(super) fn new(now: Duration) -> Self {
        Self { opened: now, before: HashMap::new(), dispersion: Dispersion::default() }
    }

    /// The size of clusters.
    pub(super) fn phi(&self) -> f64 {
        self.dispersion.phi()
    }

    /// Closes the window if it is over; answers whether it was.
    pub(super) fn poll(&mut self, endpoints: &[Arc<EndpointState>], now: Duration) -> bool {
        let age = now.saturating_sub(self.opened);
        if age < DISPERSION_WINDOW {
            return false;
        }
        self.opened = now;
        let counters: HashMap<u32, Counter> =
            endpoints.iter().map(|e| (e.id, counter(e))).collect();
        // An endpoint that has just come has no window behind it.
        let known = counters.iter().filter_map(|(id, now)| Some(now.since(*self.before.get(id)?)));
        self.dispersion.observe(&known.collect::<Vec<Tally>>(), age);
        self.before = counters;
        true
    }
}

fn counter(endpoint: &EndpointState) -> Counter {
    let failures = endpoint.cells.sum(|cells| cells.player_failures.read());
    Counter { trials: endpoint.cells.sum(|cells| cells.player_trials.read()), failures }
}
