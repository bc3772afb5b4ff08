//! How it is known which endpoints serve, and how much a version takes at once.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Statuses;
use crate::config::units;

/// Which endpoints of a service's versions get requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Endpoints are asked by HTTP, as the version speaks it. Default: they are not.
    pub http: Option<HttpCheck>,
    /// Endpoints are asked by gRPC's health protocol, `grpc.health.v1.Health/Check`, which takes HTTP/2.
    /// Default: they are not.
    pub grpc: Option<GrpcCheck>,
    /// Endpoints are connected, under TLS if the version is; `{}`. Default: they are not.
    pub tcp: Option<TcpCheck>,
    /// From one check of an endpoint to the next, a tenth more or less by chance. Default `2s`, at
    /// least `10ms`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub interval: Duration,
    /// Longest time of a check, from the connection to the head of the answer. Default `1s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// Good checks in a row after which an endpoint that was down serves. Default 2.
    #[schemars(range(min = 1))]
    pub healthy: u32,
    /// Bad checks in a row after which an endpoint is down; one is enough where none was ever good.
    /// Default 3.
    #[schemars(range(min = 1))]
    pub unhealthy: u32,
    /// How long the share of requests of an endpoint that comes back grows until it is as large as the
    /// others'. Default `30s`; `0s` gives it all at once.
    #[serde(with = "units::pause")]
    #[schemars(with = "units::DurationText")]
    pub slow_start: Duration,
    /// Connections that fail one after the other until an endpoint is ejected; 0 never does. Needs no
    /// checks. A version's only endpoint is never ejected. Default 3.
    pub connect_faults: u32,
    /// Where a smaller share of a version's endpoints serves, connect faults and checks are not believed:
    /// requests go to those that are out for them, too. `0%` switches this off. Default `50%`.
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

/// A check by HTTP: a GET whose answer has a status that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpCheck {
    /// What is asked for, with its query. Default `/healthz`.
    #[schemars(regex(pattern = "^/[!-~]*$"))]
    pub path: String,
    /// The host that is asked for, with its port if that is to be sent. Default: the version's
    /// `tls.server_name`, else the endpoint as `endpoints` has it; with its port, unless that is the
    /// usual one.
    pub host: Option<String>,
    /// Statuses of a good answer: `204`, a class such as `2xx`, or a range such as `200-204`. Default
    /// `[ 2xx, 3xx ]`.
    #[schemars(length(min = 1))]
    pub expect: Vec<Statuses>,
}

impl Default for HttpCheck {
    fn default() -> Self {
        let class = |first| Statuses { first, last: first + 99 };
        Self { path: "/healthz".to_owned(), host: None, expect: vec![class(200), class(300)] }
    }
}

/// A check by gRPC: good if the answer is `SERVING`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcCheck {
    /// The gRPC service that is asked about. Default: empty, the server as a whole.
    pub service: String,
    /// The authority of the call. Default: as that of `http.host`.
    pub host: Option<String>,
}

/// A check by a connection alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {}

/// How much a version takes at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Requests in flight on a version; one more is answered 503. Each worker takes an equal part,
    /// rounded up. Default 1024.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// Of those, requests that wait for a connection to an endpoint; one more is answered 503. Likewise
    /// by worker. Default 256.
    #[schemars(range(min = 1))]
    pub pending: u32,
    /// What such an answer says in `Retry-After`, in whole seconds, rounded up. Default `1s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub retry_after: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { requests: 1024, pending: 256, retry_after: Duration::from_secs(1) }
    }
}
