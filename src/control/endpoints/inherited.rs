//! Manually ejected endpoints stay ejected after a takeover, and while their version is in no file; all other
//! findings are soon made again.

use std::time::Duration;

use super::EndpointMonitor;
use crate::{
    control::carried::Endpoints,
    health::Cause,
    registry::EndpointState,
    snapshot::{Endpoint, Service, Snapshot, Version},
};

impl EndpointMonitor {
    /// Continues from the state of another process, or with a new file: exactly the endpoints in `out` are
    /// manually ejected, now or as soon as they exist.
    pub(in crate::control) fn inherit(
        &mut self,
        snapshot: &Snapshot,
        out: Endpoints,
        now: Duration,
    ) {
        self.follow(snapshot, now, fastrand::f64);
        self.kept_out = out;
        for service in &snapshot.services {
            for version in &service.versions {
                for Endpoint { state, .. } in &version.known {
                    let is_out = contains(&self.kept_out, service, version, state);
                    let Some(watched) = self.endpoints.get_mut(&state.id) else { continue };
                    match (is_out, watched.health.cause() == Some(Cause::Manual)) {
                        (true, false) => drop(watched.health.eject(Cause::Manual, None, now)),
                        (false, true) => watched.health.reinstate(&service.health, now),
                        _ => continue,
                    }
                    watched.write_status(state, &service.health, now);
                }
            }
        }
    }
}

/// Whether an endpoint is among `endpoints`.
pub(super) fn contains(
    endpoints: &Endpoints,
    service: &Service,
    version: &Version,
    state: &EndpointState,
) -> bool {
    let of_version = endpoints.get(&*service.name).and_then(|s| s.get(&*version.name));
    of_version.is_some_and(|addresses| addresses.contains(&*state.label))
}

/// Removes an endpoint from `endpoints`.
pub(super) fn forget(
    endpoints: &mut Endpoints,
    service: &Service,
    version: &Version,
    state: &EndpointState,
) {
    let Some(of_service) = endpoints.get_mut(&*service.name) else { return };
    let Some(addresses) = of_service.get_mut(&*version.name) else { return };
    addresses.remove(&*state.label);
}
