//! Health checks of endpoints, and circuit breakers of versions.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Statuses;
use crate::config::units;

/// Health checks and ejection of endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Checks endpoints by HTTP, in the version's protocol. Default: no such checks.
    pub http: Option<HttpCheck>,
    /// Checks endpoints by gRPC's health protocol, `grpc.health.v1.Health/Check`, which needs
    /// HTTP/2. Default: no such checks.
    pub grpc: Option<GrpcCheck>,
    /// Checks endpoints by a connection, with TLS if the version has it; `{}`. Default: no such
    /// checks.
    pub tcp: Option<TcpCheck>,
    /// Interval of checks of an endpoint, with a random deviation of up to a tenth. Default `2s`,
    /// at least `10ms`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub interval: Duration,
    /// Longest time of a check, from the connection to the head of the response. Default `1s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// Consecutive good checks after which an endpoint that was down serves. Default 2.
    #[schemars(range(min = 1))]
    pub healthy: u32,
    /// Consecutive bad checks after which an endpoint is down; one is enough if none was ever good.
    /// Default 3.
    #[schemars(range(min = 1))]
    pub unhealthy: u32,
    /// Time in which the share of a returning endpoint grows to that of the others. Default `30s`;
    /// `0s` gives the full share at once.
    #[serde(with = "units::pause")]
    #[schemars(with = "units::DurationText")]
    pub slow_start: Duration,
    /// Consecutive failed connections after which an endpoint is ejected; 0 disables this. Needs no
    /// checks. A version's only endpoint is never ejected. Default 3.
    pub connect_faults: u32,
    /// If a smaller share of a version's endpoints serves, connect errors and checks are ignored:
    /// endpoints that are out because of them get requests, too. `0%` disables this. Default `50%`.
    pub panic_threshold: units::Share,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            http: None,
            grpc: None,
            tcp: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy: 2,
            unhealthy: 3,
            slow_start: Duration::from_secs(30),
            connect_faults: 3,
            panic_threshold: units::Share(0.5),
        }
    }
}

impl Health {
    /// Whether endpoints are checked all the time.
    pub fn checks(&self) -> bool {
        self.http.is_some() || self.grpc.is_some() || self.tcp.is_some()
    }
}

/// A check by HTTP: a GET whose response must have an expected status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpCheck {
    /// Path and query of the request. Default `/healthz`.
    #[schemars(regex(pattern = "^/[!-~]*$"))]
    pub path: String,
    /// The host of the request, with a port if that is to be sent. Default: the version's
    /// `tls.server_name`, otherwise the endpoint as in `endpoints`; with its port, unless that is
    /// the scheme's default.
    pub host: Option<String>,
    /// Statuses of a good response: `204`, a class such as `2xx`, or a range such as `200-204`.
    /// Default `[ 2xx, 3xx ]`.
    #[schemars(length(min = 1))]
    pub expect: Vec<Statuses>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        let class = |first| Statuses { first, last: first + 99 };
        Self { path: "/healthz".to_owned(), host: None, expect: vec![class(200), class(300)] }
    }
}

/// A check by gRPC: good if the status is `SERVING`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcCheck {
    /// The gRPC service that is checked. Default: empty, the server as a whole.
    pub service: String,
    /// The authority of the call. Default: as for `http.host`.
    pub host: Option<String>,
}

/// A check only by a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {}

/// Limits of concurrent requests of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Most requests in flight on a version; further ones get 503. Each worker has an equal part,
    /// rounded up. Default 1024.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// Most of those that wait for a connection to an endpoint; further ones get 503. Likewise
    /// divided among workers. Default 256.
    #[schemars(range(min = 1))]
    pub pending: u32,
    /// `Retry-After` of these responses, in whole seconds, rounded up. Default `1s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub retry_after: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { requests: 1024, pending: 256, retry_after: Duration::from_secs(1) }
    }
}
