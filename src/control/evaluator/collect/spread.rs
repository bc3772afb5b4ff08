//! How failures spread over the endpoints of a baseline, by windows.
//!
//! An endpoint counts in a window if it served at both ends of the window. An endpoint that was ejected or down
//! is broken or being replaced: its failures do not show how failures normally cluster.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::super::blocks::EndpointWindow;
use crate::{
    analysis::{Counter, DISPERSION_WINDOW, ENDPOINT_GROUPS},
    registry::EndpointState,
};

/// The open window.
#[derive(Debug)]
pub(super) struct EndpointWindows {
    opened: Duration,
    /// Counts at the start of the open window, by group, of the endpoints that served at that time.
    before: HashMap<u8, Counter>,
}

impl EndpointWindows {
    pub(super) fn new(now: Duration) -> Self {
        Self { opened: now, before: HashMap::new() }
    }

    /// Closes the window if it is over. `groups`: trials and failures of players so far, by group of endpoints.
    pub(super) fn poll(
        &mut self,
        endpoints: &[Arc<EndpointState>],
        groups: &[Counter; ENDPOINT_GROUPS],
        now: Duration,
    ) -> Option<EndpointWindow> {
        let age = now.saturating_sub(self.opened);
        if age < DISPERSION_WINDOW {
            return None;
        }
        self.opened = now;
        let serving = endpoints.iter().filter(|endpoint| endpoint.standing.serves());
        let counter = |e: &Arc<EndpointState>| groups[usize::from(e.group) % ENDPOINT_GROUPS];
        // Endpoints in the same group are treated as one.
        let counters: HashMap<u8, Counter> = serving.map(|e| (e.group, counter(e))).collect();
        // An endpoint that is new or did not serve at the start is not counted.
        let known = counters.iter().filter_map(|(id, now)| Some(now.since(*self.before.get(id)?)));
        let endpoints = known.collect();
        self.before = counters;
        Some(EndpointWindow { endpoints, length: age })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis::Dispersion,
        health::{Cause, State},
        registry::Registry,
    };

    /// A baseline with endpoints that are counted over windows.
    struct Baseline {
        endpoints: Vec<Arc<EndpointState>>,
        groups: [Counter; ENDPOINT_GROUPS],
        windows: EndpointWindows,
        dispersion: Dispersion,
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
                windows: EndpointWindows::new(now),
                dispersion: Dispersion::default(),
                now,
            };
            baseline.window([0; 4]);
            baseline
        }

        /// A window; `failures`: failures of each endpoint, of 100 requests.
        fn window(&mut self, failures: [u64; 4]) {
            for (endpoint, failures) in self.endpoints.iter().zip(failures) {
                let group = &mut self.groups[usize::from(endpoint.group)];
                *group = group.with(Counter { trials: 100, failures });
            }
            self.now += DISPERSION_WINDOW;
            let window = self.windows.poll(&self.endpoints, &self.groups, self.now);
            let EndpointWindow { endpoints, length } = window.expect("it is over");
            self.dispersion.observe(&endpoints, length);
        }

        fn stand(&self, endpoint: usize, state: State) {
            self.endpoints[endpoint].standing.set(state, Some(Cause::Connect));
        }
    }

    #[test]
    fn clusters_show_when_a_window_is_over() {
        let mut baseline = Baseline::new();
        let window = baseline.windows.poll(&baseline.endpoints, &baseline.groups, baseline.now);
        assert_eq!(window, None);
        (0..40).for_each(|_| baseline.window([6, 0, 6, 0]));
        let phi = baseline.dispersion.phi();
        assert!(phi > 2.0, "{phi}");
    }

    #[test]
    fn who_did_not_serve_all_the_time_is_left_out() {
        let mut baseline = Baseline::new();
        for _ in 0..40 {
            baseline.stand(1, State::Ejected);
            baseline.window([0, 6, 0, 0]);
            // It serves again, but did not at the start of this window.
            baseline.stand(1, State::Serving);
            baseline.window([0, 6, 0, 0]);
        }
        assert_eq!(baseline.dispersion.phi(), 1.0);
    }
}
