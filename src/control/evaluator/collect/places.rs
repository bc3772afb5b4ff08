//! Where attempts are counted, by the numbers of their evidence and of their endpoint.

use std::sync::Arc;

use crate::{
    registry::{ENDPOINTS, EndpointState},
    snapshot::Snapshot,
};

/// Where attempts are counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Number in the snapshot.
    pub(super) service: usize,
    /// Number of the service's collector.
    pub(super) collector: usize,
    pub(super) stratum: usize,
    /// Number of the named route, if the attempts belong to one.
    pub(super) named: Option<usize>,
    pub(super) version: u16,
}

/// Places by the number of their evidence, and endpoints by their number.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: Vec<(u32, Place)>,
    endpoints: Vec<(u32, Arc<EndpointState>)>,
}

impl Places {
    /// The places of everything that `snapshot` compares; `collector` returns the number of a service's
    /// collector.
    pub(super) fn new(snapshot: &Snapshot, collector: impl Fn(&str) -> Option<usize>) -> Self {
        let mut places = Vec::new();
        for (service, of) in snapshot.services.iter().enumerate() {
            let Some(collector) = collector(&of.name) else { continue };
            let strata = of.compared.iter().flat_map(|compared| compared.strata.iter().enumerate());
            for (stratum, of) in strata {
                let place = |named, version| Place { service, collector, stratum, named, version };
                let all = (0..).zip(&of.arms);
                places.extend(all.map(|(version, arm)| (arm.attempts.id, place(None, version))));
                for (number, named) in of.named.iter().enumerate() {
                    let arms = (0..).zip(&named.arms);
                    places
                        .extend(arms.map(|(version, arm)| (arm.id, place(Some(number), version))));
                }
            }
        }
        places.sort_unstable_by_key(|(evidence, _)| *evidence);
        let compared = snapshot.services.iter().filter(|service| service.compared.is_some());
        let known = compared.flat_map(|service| &service.versions).flat_map(|of| &of.known);
        let mut endpoints: Vec<_> =
            known.map(|known| (known.state.id % ENDPOINTS, Arc::clone(&known.state))).collect();
        endpoints.sort_unstable_by_key(|(number, _)| *number);
        Self { places, endpoints }
    }

    pub(super) fn of(&self, evidence: u32) -> Option<&Place> {
        let at = self.places.binary_search_by_key(&evidence, |(evidence, _)| *evidence).ok()?;
        Some(&self.places[at].1)
    }

    pub(super) fn endpoint(&self, number: u32) -> Option<&EndpointState> {
        let at = self.endpoints.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(&self.endpoints[at].1)
    }
}
