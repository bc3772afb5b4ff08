//! Rates and failed attempts of each version in the last ten minutes.

use std::collections::HashMap;

use super::failures::Failures;
use crate::{
    incident::{FailureKinds, Sums},
    registry::Origin,
    snapshot::{Service, Snapshot, Version},
    telemetry::rates::{Rates, Second},
};

/// Rates by the id of a version. A version without a request has none.
#[derive(Debug, Default)]
pub(in crate::control) struct History {
    rates: HashMap<u32, Rates>,
    failures: HashMap<u32, Failures>,
}

impl History {
    /// Reads the counters of all versions, within second `at_s` of the process.
    pub(super) fn note(&mut self, snapshot: &Snapshot, at_s: u32) {
        for version in snapshot.services.iter().flat_map(|service| &service.versions) {
            let (requests, failures) = counted(version);
            if requests > 0 {
                let rates = self.rates.entry(version.state.id).or_default();
                rates.note(at_s, requests, failures);
                self.failures.entry(version.state.id).or_default().note(version, at_s);
            }
        }
    }

    /// The seconds of a version from `at_s` on in which requests ended.
    pub(super) fn since(&self, version: u32, at_s: u32) -> Vec<Second> {
        self.rates.get(&version).map(|rates| rates.since(at_s).collect()).unwrap_or_default()
    }

    /// Requests and failures of a version since the start, by the end of second `at_s`.
    pub(super) fn until(&self, version: u32, at_s: u32) -> (u64, u64) {
        self.rates.get(&version).map(|rates| rates.until(at_s)).unwrap_or_default()
    }

    /// The seconds of a version from `at_s` on in which attempts failed, by kind.
    pub(super) fn failed_since(&self, version: u32, at_s: u32) -> Vec<(u32, FailureKinds)> {
        let failures = self.failures.get(&version);
        failures.map(|failures| failures.since(at_s).collect()).unwrap_or_default()
    }

    /// Forgets a version.
    pub(in crate::control) fn forget(&mut self, version: u32) {
        self.rates.remove(&version);
        self.failures.remove(&version);
    }

    /// Forgets an endpoint.
    pub(in crate::control) fn forget_endpoint(&mut self, endpoint: u32) {
        self.failures.values_mut().for_each(|failures| failures.forget(endpoint));
    }
}

/// What the versions of a service have counted so far. This reads counters only, so the controller may do it whenever a
/// split changes.
pub(in crate::control) fn counted_now(service: &Service) -> Sums {
    service.versions.iter().map(|version| (version.name.to_string(), counted(version))).collect()
}

/// Requests that have ended, and of these the ones answered 500 or above.
fn counted(version: &Version) -> (u64, u64) {
    version.state.ended(&Origin::ALL)
}
