//! Which clients a route admits, by address.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::address;

/// Lists of client addresses; a client on `deny` is refused even if it is on `allow`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// The only clients that are admitted: ranges such as `10.0.0.0/8`, or single addresses. Default: all.
    #[serde(with = "address::networks", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<address::NetworkText>")]
    pub allow: Vec<IpNet>,
    /// Clients that are refused. Default: none.
    #[serde(with = "address::networks", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<address::NetworkText>")]
    pub deny: Vec<IpNet>,
}
