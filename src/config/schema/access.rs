//! Which clients a route admits, by address.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::config::address;

/// Lists of client addresses; a client on `deny` is refused even if it is on `allow`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// The only clients that are admitted: ranges such as `10.0.0.0/8`, or single addresses. Default: all.
    #[serde(
        deserialize_with = "admitted",
        serialize_with = "address::exact_networks::serialize",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(with = "Vec<address::NetworkText>", length(min = 1))]
    pub allow: Vec<IpNet>,
    /// Clients that are refused. Default: none.
    #[serde(with = "address::exact_networks", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<address::NetworkText>")]
    pub deny: Vec<IpNet>,
}

/// A list of those who are admitted. An empty one, such as a script makes by mistake, must not admit everybody.
fn admitted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let networks = address::exact_networks::deserialize(deserializer)?;
    match networks.is_empty() {
        true => Err(D::Error::custom(
            "admits nobody; write the addresses, or leave `allow` out to admit all",
        )),
        false => Ok(networks),
    }
}
