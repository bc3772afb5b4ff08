//! Endpoints that an operator ejected stay out when another process takes over; all else is soon found again.

use std::time::Duration;

use super::EndpointMonitor;
use crate::{
    control::carried::Endpoints,
    health::Cause,
    registry::EndpointState,
    snapshot::{Endpoint, Service, Snapshot, Version},
};

impl EndpointMonitor {
    /// Goes on where another process was: those of `out` are out by word, at once or when their names are
    /// resolved, and no others are.
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
                    match (is_out, watched.health.cause() == Some(Cause::Word)) {
                        (true, false) => drop(watched.health.eject(Cause::Word, None, now)),
                        (false, true) => watched.health.reinstate(&service.health, now),
                        _ => continue,
                    }
                    watched.tell(state, &service.health, now);
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

/// Takes an endpoint out of `endpoints`.
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
