//! The descriptors and memory that the process is granted, and the limits that follow from them.
//!
//! A client's connection needs a descriptor, and most requests need another one for a connection to
//! an endpoint. If clients could take all descriptors, requests would fail for lack of one, and
//! neither probes nor operators would get through. So clients get half of them, endpoints the rest
//! except a reserve, which only the admin endpoint, health checks and files may use.
//!
//! A connection needs little memory until it sends a request, and a request needs most if its
//! client or its endpoint does not read: `docs/operations.md` has the sum. The default limits give
//! half of the granted memory to requests and a quarter to connections.

use std::{fs, os::fd::RawFd};

use rustix::process::{Resource, getrlimit};

use super::cgroup;
use crate::config::schema::Limits;

/// Reserve of descriptors for the admin endpoint, health checks and files: a sixteenth, within
/// these bounds. The admin endpoint takes 256 connections at most.
const RESERVE: std::ops::RangeInclusive<u64> = 16..=320;

/// Descriptors that a worker's runtime needs beside its connections.
const PER_WORKER: u64 = 4;

/// Assumed descriptors in use where the system does not report the number.
const OPEN_AT_START: u64 = 32;

/// The most memory of a request, in bytes: three buffers of 16 KiB, 128 KiB received but unread
/// from each side, and 64 KiB unsent; or the window and the buffers of a stream.
const REQUEST_BYTES: u64 = 384 << 10;

/// The most memory of a connection without a request: an incomplete head of 32 KiB, and a TLS
/// session. The buffers of HTTP/2 are 12 KiB more.
const CONNECTION_BYTES: u64 = 64 << 10;

/// Below this memory a socket receives at most [`RECEIVED_BYTES`] that are not read yet. That
/// limits the speed of bodies from far away, so it is done only where many sockets could use up the
/// memory.
const SHORT: u64 = 1 << 30;

/// The system takes twice as much memory for them.
const RECEIVED_BYTES: u32 = 64 << 10;

/// Limits where memory is not short.
const CONNECTIONS: u64 = 16_384;
const REQUESTS: u64 = 65_536;
const REQUESTS_PER_CLIENT: u32 = 8192;

/// Least default of either limit: less would be useless.
const LEAST: u64 = 16;

/// The resources that the process is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Most connections of clients that leave enough descriptors for their requests.
    connections: u32,
    /// Connections only use descriptors below this number.
    ceiling: RawFd,
    /// A client above a limit gets a 503 only on a descriptor below this number.
    telling: RawFd,
    /// Bytes that a socket receives before they are read; `None` if the system decides.
    received: Option<u32>,
    /// Limits where the configuration sets none.
    defaults: Defaults,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Defaults {
    connections: u32,
    requests: u32,
}

/// The limits in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections of clients at once.
    pub connections: u32,
    /// Of those, connections of one client.
    pub connections_per_client: u32,
    /// Requests in flight at once.
    pub requests: u32,
    /// Of those, requests of one client.
    pub requests_per_client: u32,
}

impl Defaults {
    /// Defaults of a process that is granted `memory` bytes.
    fn of(memory: Option<u64>) -> Self {
        let memory = memory.unwrap_or(u64::MAX);
        let fitting = |part: u64, each: u64, most: u64| {
            // At most 65,536.
            (memory / part / each).clamp(LEAST, most) as u32
        };
        Self {
            connections: fitting(4, CONNECTION_BYTES, CONNECTIONS),
            requests: fitting(2, REQUEST_BYTES, REQUESTS),
        }
    }
}

impl Granted {
    /// Asks the system; the `workers` are not started yet.
    pub fn read(workers: usize) -> Self {
        let open = fs::read_dir("/proc/self/fd").map(|each| each.count() as u64);
        let open = open.unwrap_or(OPEN_AT_START) + workers as u64 * PER_WORKER;
        Self::of(getrlimit(Resource::Nofile).current, open, cgroup::memory())
    }

    /// With this many descriptors, of which `open` are in use, and `memory` bytes.
    fn of(descriptors: Option<u64>, open: u64, memory: Option<u64>) -> Self {
        let defaults = Defaults::of(memory);
        let received = memory.filter(|memory| *memory < SHORT).map(|_| RECEIVED_BYTES);
        let Some(descriptors) = descriptors else {
            let (connections, ceiling, telling) = (u32::MAX, RawFd::MAX, RawFd::MAX);
            return Self { connections, ceiling, telling, received, defaults };
        };
        let reserve = (descriptors / 16).clamp(*RESERVE.start(), *RESERVE.end());
        let ceiling = descriptors.saturating_sub(reserve);
        let room = ceiling.saturating_sub(open);
        let number = |descriptor| RawFd::try_from(descriptor).unwrap_or(RawFd::MAX);
        Self {
            connections: u32::try_from((room / 2).max(1)).unwrap_or(u32::MAX),
            ceiling: number(ceiling),
            telling: number(ceiling - room / 4),
            received,
            defaults,
        }
    }

    /// Bytes that a socket receives before they are read; `None` if the system decides.
    pub fn received(&self) -> Option<u32> {
        self.received
    }

    /// Connections only use descriptors below this number, so that the others stay free.
    pub fn ceiling(&self) -> RawFd {
        self.ceiling
    }

    /// A client above a limit gets a 503 only on a descriptor below this number: it holds the
    /// descriptor for a moment, and half of the endpoints' descriptors must stay free.
    pub fn telling(&self) -> RawFd {
        self.telling
    }

    /// The limits in force for the configured `limits`. If they are cut, one client gets at most
    /// half.
    pub fn bound(&self, limits: &Limits) -> Bounds {
        let Defaults { connections, requests } = self.defaults;
        let wanted = limits.connections.unwrap_or(connections);
        let of_client = limits.connections_per_client.unwrap_or((connections / 2).max(1));
        let connections = wanted.min(self.connections);
        let is_cut = connections < wanted;
        let half = if is_cut { (connections / 2).max(1) } else { u32::MAX };
        let most = REQUESTS_PER_CLIENT.min(requests / 2);
        Bounds {
            connections,
            connections_per_client: of_client.min(half),
            requests: limits.requests.unwrap_or(requests),
            requests_per_client: limits.requests_per_client.unwrap_or(most),
        }
    }

    /// If `limits` allow more connections than there are descriptors for, the number that is
    /// possible.
    pub fn cuts(&self, limits: &Limits) -> Option<u32> {
        let wanted = limits.connections.unwrap_or(self.defaults.connections);
        (self.connections < wanted).then_some(self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMPLE: Defaults = Defaults { connections: 16_384, requests: 65_536 };

    #[test]
    fn clients_leave_as_many_descriptors_to_endpoints_and_a_reserve_to_all_else() {
        for (descriptors, open, connections, ceiling, telling) in [
            (None, 30, u32::MAX, RawFd::MAX, RawFd::MAX),
            (Some(200), 30, 77, 184, 146),
            (Some(1024), 40, 460, 960, 730),
            (Some(65_536), 40, 32_588, 65_216, 48_922),
            (Some(u64::MAX), 40, u32::MAX, RawFd::MAX, RawFd::MAX),
            // Hardly any descriptors: one client at a time.
            (Some(20), 30, 1, 4, 4),
            (Some(0), 0, 1, 0, 0),
        ] {
            let granted = Granted::of(descriptors, open, None);
            let received = None;
            let expected = Granted { connections, ceiling, telling, received, defaults: AMPLE };
            assert_eq!(granted, expected, "{descriptors:?}");
        }
    }

    #[test]
    fn a_limit_is_cut_to_what_is_granted_and_one_client_gets_half_at_most() {
        for (granted, connections, per_client, cut, cut_per_client) in [
            (100_000, None, None, 16_384, 8192),
            (77, None, None, 77, 38),
            (77, None, Some(3), 77, 3),
            (77, Some(50), Some(1000), 50, 1000),
            (1, Some(u32::MAX), Some(1), 1, 1),
            (77, Some(u32::MAX), Some(u32::MAX), 77, 38),
        ] {
            let defaults = AMPLE;
            let (ceiling, telling, received) = (0, 0, None);
            let granted = Granted { connections: granted, ceiling, telling, received, defaults };
            let limits = Limits {
                connections,
                connections_per_client: per_client,
                requests: Some(7),
                requests_per_client: Some(9),
                ..Limits::default()
            };
            let bounds = granted.bound(&limits);
            let expected = Bounds {
                connections: cut,
                connections_per_client: cut_per_client,
                requests: 7,
                requests_per_client: 9,
            };
            assert_eq!(bounds, expected, "{connections:?} {per_client:?}");
            assert_eq!(granted.cuts(&limits).is_some(), cut != connections.unwrap_or(16_384));
        }
    }

    #[test]
    fn limits_that_no_file_sets_leave_room_in_the_memory_that_is_granted() {
        for (mib, connections, requests) in [
            (None, 16_384, 65_536),
            (Some(256), 1024, 341),
            (Some(1), 16, 16),
            (Some(1 << 20), 16_384, 65_536),
        ] {
            let memory = mib.map(|mib: u64| mib << 20);
            let granted = Granted::of(None, 0, memory);
            assert_eq!(granted.received().is_some(), memory.is_some_and(|memory| memory < SHORT));
            let bounds = granted.bound(&Limits::default());
            assert_eq!((bounds.connections, bounds.requests), (connections, requests), "{mib:?}");
            assert_eq!(bounds.connections_per_client, connections / 2);
            assert_eq!(bounds.requests_per_client, REQUESTS_PER_CLIENT.min(requests / 2));
            let most =
                u64::from(connections) * CONNECTION_BYTES + u64::from(requests) * REQUEST_BYTES;
            assert!(
                memory.is_none_or(|memory| memory < 8 << 20 || most <= memory / 4 * 3),
                "{mib:?}"
            );
        }
    }

    #[test]
    fn the_system_says_what_is_granted() {
        let granted = Granted::read(1);
        assert!(granted.connections > 0 && granted.ceiling() > 0, "{granted:?}");
    }
}
