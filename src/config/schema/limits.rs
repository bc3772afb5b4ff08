//! Limits of clients.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{self, ByteSize};

/// Limits of what clients may send and hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most client connections; further ones get 503 and are closed. Default 16384, or one for each
    /// 256 KiB of memory that the process is granted, if that is fewer.
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// Most connections of one client address, for IPv6 of one /64; further ones get 503 and are
    /// closed. Trusted proxies are not counted. Default half of the default of `connections`.
    #[schemars(range(min = 1))]
    pub connections_per_client: Option<u32>,
    /// Most requests in flight of all clients together; further ones get 503. Each worker has an
    /// equal part, rounded up. Default 65536, or one for each 768 KiB of memory that the process is
    /// granted, if that is fewer.
    #[schemars(range(min = 1))]
    pub requests: Option<u32>,
    /// Most requests in flight of one client address, for IPv6 of one /64; further ones get 503.
    /// Trusted proxies are not counted, but the clients that they report are. Default 8192, or half
    /// of the default of `requests`, if that is fewer.
    #[schemars(range(min = 1))]
    pub requests_per_client: Option<u32>,
    /// Size of a request's head; above it 431, or 414 if the target alone is larger.
    /// Default `32KiB`, range `1KiB` to `1MiB`.
    pub header_bytes: ByteSize,
    /// Header fields of a request; above it 431. Default 100, at most 256.
    #[schemars(range(min = 1, max = 256))]
    pub header_count: u16,
    /// Longest time from a head's first byte to its last; after that the client gets 408. Default
    /// `10s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub header_timeout: Duration,
    /// A connection without a request is closed after this time. Default `60s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub idle_timeout: Duration,
    /// Longest time without a byte moving while a body is sent or received. Default `60s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub body_timeout: Duration,
    /// Least rate of a body, in bytes per second: the body must end within four times
    /// `body_timeout` plus a second for each of this number of bytes. Does not apply to events,
    /// gRPC calls and upgrades. Default `256B`; `0B` is no limit.
    pub body_rate: ByteSize,
    /// Longest time without a byte in either direction on a connection that switched to another
    /// protocol, such as a WebSocket. Default `5m`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub upgrade_timeout: Duration,
    /// Most concurrent requests on a client's HTTP/2 connection, which is announced to the client;
    /// further ones are refused. Default 128, range 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_client: None,
            requests: None,
            requests_per_client: None,
            header_bytes: ByteSize(32 * 1024),
            header_count: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            body_rate: ByteSize(256),
            upgrade_timeout: Duration::from_secs(300),
            streams: 128,
        }
    }
}
