//! What the process is granted, and what its limits come to by that.
//!
//! A client's connection needs a descriptor, and most requests need another one towards an endpoint. If
//! clients could take all of them, requests would fail for want of a connection, and neither probes nor
//! operators would get through. So clients get half, endpoints what is left but for a reserve, and the
//! admin endpoint, checks of health and files can use that, too.

use std::{fs, os::fd::RawFd};

use rustix::process::{Resource, getrlimit};

use crate::config::schema::Limits;

/// Descriptors that are kept for the admin endpoint, checks and files: a sixteenth, in these bounds. The
/// admin endpoint takes 256 connections at most.
const RESERVE: std::ops::RangeInclusive<u64> = 16..=320;

/// Descriptors of a worker beside its connections: what its runtime waits with.
const PER_WORKER: u64 = 4;

/// Descriptors in use where the system does not say how many.
const OPEN_AT_START: u64 = 32;

/// What the process is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Connections of clients that leave enough descriptors for what they ask.
    connections: u32,
    /// Connections get descriptors below this number.
    ceiling: RawFd,
    /// Clients that are too many are told so on descriptors below this number.
    telling: RawFd,
}

/// Limits as they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections of clients at once.
    pub connections: u32,
    /// Of those, connections of one client.
    pub connections_per_client: u32,
}

impl Granted {
    /// Asks the system; `workers` are yet to be started.
    pub fn read(workers: usize) -> Self {
        let open = fs::read_dir("/proc/self/fd").map(|each| each.count() as u64);
        let open = open.unwrap_or(OPEN_AT_START) + workers as u64 * PER_WORKER;
        Self::of(getrlimit(Resource::Nofile).current, open)
    }

    /// With that many descriptors, of which so many are `open`.
    fn of(descriptors: Option<u64>, open: u64) -> Self {
        let Some(descriptors) = descriptors else {
            return Self { connections: u32::MAX, ceiling: RawFd::MAX, telling: RawFd::MAX };
        };
        let reserve = (descriptors / 16).clamp(*RESERVE.start(), *RESERVE.end());
        let ceiling = descriptors.saturating_sub(reserve);
        let room = ceiling.saturating_sub(open);
        let number = |descriptor| RawFd::try_from(descriptor).unwrap_or(RawFd::MAX);
        Self {
            connections: u32::try_from((room / 2).max(1)).unwrap_or(u32::MAX),
            ceiling: number(ceiling),
            telling: number(ceiling - room / 4),
        }
    }

    /// Connections get descriptors below this number, so that the others stay free.
    pub fn ceiling(&self) -> RawFd {
        self.ceiling
    }

    /// Clients that are too many are told so on descriptors below this number: they hold one for a moment, and
    /// half of what endpoints have is to be left.
    pub fn telling(&self) -> RawFd {
        self.telling
    }

    /// What `limits` come to. Where they are cut, one client gets half at most.
    pub fn bound(&self, limits: &Limits) -> Bounds {
        let connections = limits.connections.min(self.connections);
        let is_cut = connections < limits.connections;
        let half = if is_cut { (connections / 2).max(1) } else { u32::MAX };
        let connections_per_client = limits.connections_per_client.min(half);
        Bounds { connections, connections_per_client }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: u32, connections_per_client: u32) -> Limits {
        Limits { connections, connections_per_client, ..Limits::default() }
    }

    #[test]
    fn clients_leave_as_many_descriptors_to_endpoints_and_a_reserve_to_all_else() {
        for (descriptors, open, connections, ceiling, telling) in [
            (None, 30, u32::MAX, RawFd::MAX, RawFd::MAX),
            (Some(200), 30, 77, 184, 146),
            (Some(1024), 40, 460, 960, 730),
            (Some(65_536), 40, 32_588, 65_216, 48_922),
            (Some(u64::MAX), 40, u32::MAX, RawFd::MAX, RawFd::MAX),
            // Too few for anything: one client at a time.
            (Some(20), 30, 1, 4, 4),
            (Some(0), 0, 1, 0, 0),
        ] {
            let granted = Granted::of(descriptors, open);
            let expected = Granted { connections, ceiling, telling };
            assert_eq!(granted, expected, "{descriptors:?}");
        }
    }

    #[test]
    fn a_limit_is_cut_to_what_is_granted_and_one_client_gets_half_at_most() {
        for (granted, connections, per_client, cut, cut_per_client) in [
            (100_000, 16_384, 8192, 16_384, 8192),
            (77, 16_384, 8192, 77, 38),
            (77, 16_384, 3, 77, 3),
            (77, 50, 1000, 50, 1000),
            (1, u32::MAX, 1, 1, 1),
            (77, u32::MAX, u32::MAX, 77, 38),
        ] {
            let granted = Granted { connections: granted, ceiling: 0, telling: 0 };
            let bounds = granted.bound(&limits(connections, per_client));
            let expected = Bounds { connections: cut, connections_per_client: cut_per_client };
            assert_eq!(bounds, expected, "{connections} {per_client}");
        }
    }

    #[test]
    fn the_system_says_what_is_granted() {
        let granted = Granted::read(1);
        assert!(granted.connections > 0 && granted.ceiling() > 0, "{granted:?}");
    }
}
