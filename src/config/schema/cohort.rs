//! Assignment of versions beside the weights: the cohort key, and rules that come before the split.

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{address, pattern::KeySource, units::OneOrMany};

/// The cohort key, which identifies players.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cohort {
    /// Sources of the player's key; the first one that is present is used: `header:NAME`,
    /// `cookie:NAME`, `query:NAME`, `path:NAME` (a parameter of the route's path), `claim:NAME` (of the
    /// token that the route's `auth.jwt` asks for), `client-ip`.
    /// Default `[ client-ip ]`, which also ends every list.
    #[schemars(length(min = 1))]
    pub key: Vec<KeySource>,
    /// Mixed into the hash, so that releases draw independent cohorts. Default empty; at most
    /// 256 bytes.
    pub salt: String,
}

impl Default for Cohort {
    fn default() -> Self {
        Self { key: vec![KeySource::ClientIp], salt: String::new() }
    }
}

/// Sends matching requests to one version, before the split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Conditions, all of which must hold.
    #[serde(rename = "match")]
    pub when: RuleMatch,
    /// The version that serves them, whatever its weight.
    pub version: String,
    /// What happens to them while the version is ejected. Default `move`.
    #[serde(default)]
    pub on_eject: OnEject,
}

/// What happens to requests that a rule or a route sends to an ejected version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnEject {
    /// The next rule decides, and finally the split: the ejected version serves no request.
    #[default]
    Move,
    /// The ejected version serves them: for testers who investigate the fault.
    Keep,
}

/// Conditions of a rule; one value of each list must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleMatch {
    /// Header fields by name.
    pub headers: BTreeMap<String, OneOrMany<String>>,
    /// Cookies by name.
    pub cookies: BTreeMap<String, OneOrMany<String>>,
    /// Query parameters by name.
    pub query: BTreeMap<String, OneOrMany<String>>,
    /// Claims of the client's token by name, on routes with `auth.jwt`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, OneOrMany<String>>,
    /// Parameters of the route's path by name.
    pub params: BTreeMap<String, OneOrMany<String>>,
    /// Client addresses: ranges such as `10.0.0.0/8`, or single ones.
    #[serde(with = "address::networks")]
    #[schemars(with = "Vec<address::NetworkText>")]
    pub clients: Vec<IpNet>,
    /// Players by the value of their cohort key.
    pub players: Vec<String>,
}
