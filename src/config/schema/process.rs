//! Forwarding fields, name resolution and shutdown.

use std::{net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{address, units};

/// Fields that proxies add to messages (RFC 9110 section 7.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarding {
    /// Name of this proxy in the `Via` field of requests: letters, digits and `.`, `_`, `-`; an
    /// empty text adds no field. Default `tidegate`.
    pub via: String,
    /// Whether responses get a `Via` field, too. Default `false`.
    pub via_answers: bool,
    /// Whether `Max-Forwards` of OPTIONS and TRACE is counted down; a request with 0 is answered
    /// here. Default `true`.
    pub max_forwards: bool,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { via: "tidegate".to_owned(), via_answers: false, max_forwards: true }
    }
}

/// How names of endpoints are resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resolver {
    /// DNS servers, `10.0.0.2:53`; names are looked up as written, without search domains. Default:
    /// those of `/etc/resolv.conf`. Read at start.
    #[serde(with = "address::sockets")]
    #[schemars(with = "Vec<address::SocketText>")]
    pub servers: Vec<SocketAddr>,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// Time between the signal, at which `/readyz` turns 503, and the drain. Until then all
    /// requests are served, with `Connection: close` in each response. Default `0s`.
    #[serde(with = "units::pause")]
    #[schemars(with = "units::DurationText")]
    pub delay: Duration,
    /// Longest wait for requests in flight once the drain begins; after that they are aborted.
    /// Default `30s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { delay: Duration::ZERO, deadline: Duration::from_secs(30) }
    }
}
