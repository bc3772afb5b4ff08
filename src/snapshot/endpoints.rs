//! The endpoints of a version, and which versions have none that serve.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::Resolved;
use crate::{
    config::{
        pattern::{EndpointAddress, EndpointHost},
        schema,
    },
    registry::{EndpointState, Registry},
};

/// An endpoint of a version, whether it serves or not.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Live state.
    pub state: Arc<EndpointState>,
    /// Its host in the file, without the port.
    pub host: EndpointHost,
}

/// The endpoints of the version with id `version` that are configured as `written`, without
/// duplicates.
pub fn endpoints(
    written: &[EndpointAddress],
    resolved: &Resolved,
    version: u32,
    registry: &Registry,
) -> Box<[Endpoint]> {
    let each = addresses(written, resolved).map(|(host, address)| Endpoint {
        state: registry.endpoint(version, address),
        host: host.clone(),
    });
    each.collect()
}

/// Facts about a version, for [`unserved`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// It has weight and is not ejected.
    pub has_share: bool,
    /// It is the baseline.
    pub is_baseline: bool,
    /// None of its endpoints serves, or it has no endpoint because names are not resolved.
    pub is_out: bool,
}

/// For each version, whether it gets no players because none of its endpoints serves. The baseline
/// always keeps its players, and so do other versions if no version would be left.
pub fn unserved(versions: &[Candidate]) -> Vec<bool> {
    let leaves = |v: &Candidate| v.has_share && v.is_out && !v.is_baseline;
    let somebody_stays = versions.iter().any(|v| v.has_share && !leaves(v));
    versions.iter().map(|version| somebody_stays && leaves(version)).collect()
}

/// The socket addresses of `endpoints`, without duplicates, each with its configured host.
fn addresses<'a>(
    endpoints: &'a [EndpointAddress],
    resolved: &'a Resolved,
) -> impl Iterator<Item = (&'a EndpointHost, SocketAddr)> + 'a {
    let mut seen = HashSet::new();
    endpoints
        .iter()
        .flat_map(move |endpoint| {
            let known: &[IpAddr] = match &endpoint.host {
                EndpointHost::Address(address) => std::slice::from_ref(address),
                EndpointHost::Name(name) => resolved.get(name).map_or(&[], Vec::as_slice),
            };
            known.iter().map(|ip| (&endpoint.host, (*ip, endpoint.port).into()))
        })
        .filter(move |(_, address)| seen.insert(*address))
}

/// The circuit breaker of a version: one worker's part of each limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// Requests in flight.
    pub requests: u64,
    /// Requests that wait for a connection.
    pub pending: u64,
    /// `Retry-After`, in seconds.
    pub retry_after: u32,
}

impl Breaker {
    /// The configured limits, divided among `workers`.
    pub fn new(written: &schema::Breaker, workers: usize) -> Self {
        // Rounded up, so that no part is 0.
        let part = |limit: u32| u64::from(limit).div_ceil(workers.max(1) as u64);
        let up = written.retry_after + Duration::from_nanos(999_999_999);
        Self {
            requests: part(written.requests),
            pending: part(written.pending),
            retry_after: u32::try_from(up.as_secs()).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(has_share: bool, is_baseline: bool, is_out: bool) -> Candidate {
        Candidate { has_share, is_baseline, is_out }
    }

    #[test]
    fn a_canary_that_is_out_leaves_its_players_and_a_baseline_keeps_them() {
        let (baseline, canary) = (version(true, true, false), version(true, false, false));
        let out = |version: Candidate| Candidate { is_out: true, ..version };
        assert_eq!(unserved(&[baseline, canary]), [false, false]);
        assert_eq!(unserved(&[baseline, out(canary)]), [false, true]);
        assert_eq!(unserved(&[out(baseline), canary]), [false, false]);
        assert_eq!(unserved(&[out(baseline), out(canary)]), [false, true]);
        let without_weight = Candidate { has_share: false, ..baseline };
        assert_eq!(unserved(&[without_weight, out(canary)]), [false, false], "the last one");
        assert_eq!(unserved(&[without_weight, out(canary), out(canary)]), [false; 3]);
        assert_eq!(unserved(&[without_weight, out(canary), canary]), [false, true, false]);
    }

    #[test]
    fn parts_of_a_breaker_are_rounded_up_and_so_are_seconds() {
        let written =
            schema::Breaker { requests: 10, pending: 1, retry_after: Duration::from_millis(1500) };
        let expected = Breaker { requests: 3, pending: 1, retry_after: 2 };
        assert_eq!(Breaker::new(&written, 4), expected);
    }

    proptest! {
        #[test]
        fn whoever_has_a_share_leaves_it_only_to_somebody(
            versions in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 0..6),
        ) {
            let versions: Vec<_> =
                versions.into_iter().map(|(share, base, out)| version(share, base, out)).collect();
            let left = unserved(&versions);
            let stays = versions.iter().zip(&left).any(|(v, left)| v.has_share && !left);
            prop_assert_eq!(stays, versions.iter().any(|v| v.has_share));
            for (version, left) in versions.iter().zip(&left) {
                prop_assert!(!left || version.is_out && !version.is_baseline);
            }
        }
    }
}
