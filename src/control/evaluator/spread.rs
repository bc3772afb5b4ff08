//! How failures spread over the endpoints of a baseline, window by window.
//!
//! An endpoint counts in a window if it served at both ends of it. One that was ejected or down is
//! broken or being replaced; its failures are no clusters.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    analysis::{Counter, DISPERSION_WINDOW, Dispersion, ENDPOINT_GROUPS, Tally},
    registry::EndpointState,
};

/// The windows, and what they have shown.
#[derive(Debug)]
pub(super) struct ClusterEstimate {
    opened: Duration,
    /// Counts at the beginning of the open window of the endpoints that served then, by group.
    before: HashMap<u8, Counter>,
    dispersion: Dispersion,
}

impl ClusterEstimate {
    pub(super) fn new(now: Duration) -> Self {
        Self { opened: now, before: HashMap::new(), dispersion: Dispersion::default() }
    }

    /// The size of clusters.
    pub(super) fn phi(&self) -> f64 {
        self.dispersion.phi()
    }

    /// Closes the window if it is over; answers whether it was.
    /// `groups`: trials and failures of players so far, by group of endpoints.
    pub(super) fn poll(
        &mut self,
        endpoints: &[Arc<EndpointState>],
        groups: &[Counter; ENDPOINT_GROUPS],
        now: Duration,
    ) -> bool {
        let age = now.saturating_sub(self.opened);
        if age < DISPERSION_WINDOW {
            return false;
        }
        self.opened = now;
        let serving = endpoints.iter().filter(|endpoint| endpoint.standing.serves());
        let counter = |e: &Arc<EndpointState>| groups[usize::from(e.group) % ENDPOINT_GROUPS];
        // Endpoints that share a group are seen as one.
        let counters: HashMap<u8, Counter> = serving.map(|e| (e.group, counter(e))).collect();
        // An endpoint that has just come has no window behind it, nor has one that did not serve.
        let known = counters.iter().filter_map(|(id, now)| Some(now.since(*self.before.get(id)?)));
        self.dispersion.observe(&known.collect::<Vec<Tally>>(), age);
        self.before = counters;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        health::{Cause, State},
        registry::Registry,
    };

    /// Endpoints that count, and windows of them.
    struct Baseline {
        endpoints: Vec<Arc<EndpointState>>,
        groups: [Counter; ENDPOINT_GROUPS],
        spread: ClusterEstimate,
        now: Duration,
    }

    impl Baseline {
        fn new() -> Self {
            let registry = Registry::new(1);
            let version = registry.version("a", "v1").id;
            let address = |port| ([127, 0, 0, 1], port).into();
            let endpoints = (1..=4).map(|port| registry.endpoint(version, address(port)));
            let (endpoints, now) = (endpoints.collect(), Duration::ZERO);
            let mut baseline = Self {
                endpoints,
                groups: Default::default(),
                spread: ClusterEstimate::new(now),
                now,
            };
            baseline.window([0; 4]);
            baseline
        }

        /// A window in which endpoints fail so many of 100 requests each.
        fn window(&mut self, failures: [u64; 4]) {
            for (endpoint, failures) in self.endpoints.iter().zip(failures) {
                let group = &mut self.groups[usize::from(endpoint.group)];
                *group = group.with(Counter { trials: 100, failures });
            }
            self.now += DISPERSION_WINDOW;
            assert!(self.spread.poll(&self.endpoints, &self.groups, self.now));
        }

        fn stand(&self, endpoint: usize, state: State) {
            self.endpoints[endpoint].standing.set(state, Some(Cause::Connect));
        }
    }

    #[test]
    fn clusters_show_when_a_window_is_over() {
        let mut baseline = Baseline::new();
        assert!(!baseline.spread.poll(&baseline.endpoints, &baseline.groups, baseline.now));
        (0..40).for_each(|_| baseline.window([6, 0, 6, 0]));
        assert!(baseline.spread.phi() > 2.0, "{}", baseline.spread.phi());
    }

    #[test]
    fn who_did_not_serve_all_the_time_is_left_out() {
        let mut baseline = Baseline::new();
        for _ in 0..40 {
            baseline.stand(1, State::Ejected);
            baseline.window([0, 6, 0, 0]);
            // It serves again, but did not when this window began.
            baseline.stand(1, State::Serving);
            baseline.window([0, 6, 0, 0]);
        }
        assert_eq!(baseline.spread.phi(), 1.0);
    }
}
