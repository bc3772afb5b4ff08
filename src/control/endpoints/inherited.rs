//! Endpoints that an operator ejected stay out when another process takes over; all else is soon found again.

use std::{collections::BTreeSet, time::Duration};

use super::EndpointMonitor;
use crate::{
    control::carried::Endpoints,
    health::Cause,
    registry::EndpointState,
    snapshot::{Endpoint, Service, Snapshot, Version},
};

impl EndpointMonitor {
    /// Those of `snapshot` that an operator ejected.
    pub(in crate::control) fn by_word(&self, snapshot: &Snapshot) -> Endpoints {
        let mut all = self.inherited.clone();
        for service in &snapshot.services {
            for version in &service.versions {
                let states = version.known.iter().map(|known| &known.state);
                let out = states.filter(|state| state.standing.cause() == Some(Cause::Word));
                let out: BTreeSet<_> = out.map(|state| state.label.to_string()).collect();
                if !out.is_empty() {
                    let of_service = all.entry(service.name.to_string()).or_default();
                    of_service.entry(version.name.to_string()).or_default().extend(out);
                }
            }
        }
        all
    }

    /// Goes on where another process was: those of `out` are out by word, at once or when their names are
    /// resolved, and no others are.
    pub(in crate::control) fn inherit(
        &mut self,
        snapshot: &Snapshot,
        out: Endpoints,
        now: Duration,
    ) {
        self.follow(snapshot, now, fastrand::f64);
        self.inherited = out;
        for service in &snapshot.services {
            for version in &service.versions {
                for Endpoint { state, .. } in &version.known {
                    let is_out = take(&mut self.inherited, service, version, state);
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

/// Whether an endpoint is among `endpoints`, which it is no more.
pub(super) fn take(
    endpoints: &mut Endpoints,
    service: &Service,
    version: &Version,
    state: &EndpointState,
) -> bool {
    let of_version = endpoints.get_mut(&*service.name).and_then(|s| s.get_mut(&*version.name));
    of_version.is_some_and(|addresses| addresses.remove(&*state.label))
}
