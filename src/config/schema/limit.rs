//! Limits on the requests of a route.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::concurrency::Concurrency;
use crate::config::{
    address,
    pattern::KeySource,
    units::{self, OneOrMany},
};

/// Limits on the requests of a route: of their rate, and of those in flight; at least one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limit {
    /// Limits of rates, at most 8; a request must be within all of them, else it gets 429. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub rates: Vec<RateLimit>,
    /// Limit of requests in flight; further ones wait, or get 503. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
}

/// A limit of the rate of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Its name in responses and metrics, unique in the route. Default: what it goes by, such as `client-ip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Za-z0-9._:-]{1,64}$"))]
    pub name: Option<String>,
    /// What tells those apart who each have the limit, as in `cohort.key`; one or a list, of which the first one that is
    /// present counts, and the client's address if none is. Default: all requests of the route have it together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<OneOrMany<KeySource>>,
    /// Requests that are admitted in `per`, at least 1.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// The span of time, at most a day. Default `1s`.
    #[serde(default = "default_per", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub per: Duration,
    /// Requests that are admitted at once, at least 1. Default: as `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// Keys that are remembered at once, 16 bytes each, at most 10,000,000. Beyond them, those that are soonest within
    /// the limit again are forgotten. Default `100000`.
    #[serde(default = "default_keys")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub keys: u32,
    /// What becomes of a request over it: it gets 429, or goes on and is only counted. Default `act`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: LimitMode,
    /// Requests that it is not asked about, and that take nothing of it. Default: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exempt: Exempt,
}

/// What becomes of requests over a limit of a rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LimitMode {
    /// They get 429.
    #[default]
    Act,
    /// They go on: the limit only reports them, by metric and access log.
    Advise,
}

/// Requests that a limit of a rate is not asked about: those of any of the addresses, and those with all of the claims.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exempt {
    /// Clients: ranges such as `10.0.0.0/8`, or single addresses. Default: none.
    #[serde(with = "address::exact_networks", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<address::NetworkText>")]
    pub addresses: Vec<IpNet>,
    /// Claims of the token, each with a value or several of which one must be there, as in `auth.require`. Default: none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, OneOrMany<String>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl RateLimit {
    /// Its name in responses and metrics.
    pub fn label(&self) -> String {
        match (&self.name, &self.by) {
            (Some(name), _) => name.clone(),
            (None, None) => "route".to_owned(),
            (None, Some(by)) => {
                let sources = by.as_slice().iter().map(ToString::to_string);
                sources.collect::<Vec<_>>().join("-or-")
            }
        }
    }
}

fn default_per() -> Duration {
    Duration::from_secs(1)
}

fn default_keys() -> u32 {
    100_000
}
