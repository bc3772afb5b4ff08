//! How the process treats messages, names and its end.

use std::{net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{address, units};

/// What proxies add to messages on their way (RFC 9110 section 7.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarding {
    /// The name by which requests are told, in `Via`, that they came through here: letters, digits and
    /// `.`, `_`, `-`; an empty text adds nothing. Default `tidegate`.
    pub via: String,
    /// Answers are told, too. Default `false`.
    pub via_answers: bool,
    /// `Max-Forwards` of OPTIONS and TRACE is counted down, and who has 0 is answered here. Default `true`.
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
    /// DNS servers, `10.0.0.2:53`; they are asked for names as written, without search domains.
    /// Default: those of `/etc/resolv.conf`. Read at start.
    #[serde(with = "address::sockets")]
    #[schemars(with = "Vec<address::SocketText>")]
    pub servers: Vec<SocketAddr>,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// Time between the signal, at which `/readyz` turns 503, and the drain. Until then everything
    /// is served, each answer with `Connection: close`. Default `0s`.
    #[serde(with = "units::pause")]
    #[schemars(with = "units::DurationText")]
    pub delay: Duration,
    /// Longest wait for answers in flight once the drain begins; what is left then is cut. Default
    /// `30s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { delay: Duration::ZERO, deadline: Duration::from_secs(30) }
    }
}
