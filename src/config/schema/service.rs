//! A service and its versions.

use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    amount::Amount,
    cohort::{Cohort, Rule},
    eject::{Eject, Failures},
    health::{Breaker, Health},
    slo::Slo,
    tls::VersionTls,
};
use crate::config::{
    pattern::{EndpointAddress, NAME},
    units::{self, Weight},
};

/// A service: what routes lead to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The version that others are compared with and that serves when nothing else is said.
    pub baseline: String,
    /// Versions by name, at least one.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME }))]
    pub versions: IndexMap<String, Version>,
    /// Relative share of players per version, on any scale, decimals allowed. A version not named
    /// has weight 0. Default: everything to the baseline.
    #[serde(default)]
    pub weights: Option<IndexMap<String, Weight>>,
    /// How players are told apart.
    #[serde(default)]
    pub cohort: Cohort,
    /// Rules that send chosen players to a chosen version ahead of the split; the first that
    /// matches wins.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Business amounts in the answers, by name, at most 8: shown by the API and by metrics, and
    /// compared if `eject` says so. Default: none.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 8, "propertyNames" = { "pattern": NAME }))]
    pub amounts: IndexMap<String, Amount>,
    /// How each canary is compared with the baseline, and ejected when it is worse. Default: no
    /// comparison.
    #[serde(default)]
    pub eject: Option<Eject>,
    /// Absolute limits, by which a version is judged that has no baseline beside it, such as straight
    /// after a cutover; with `eject` only. Default: none.
    #[serde(default)]
    pub slo: Option<Slo>,
    /// Which answers count as failures of the version. Default: 500 and above.
    #[serde(default)]
    pub failures: Option<Failures>,
    /// Which endpoints get requests: checks of them, and what a fault does. Default: no checks; an
    /// endpoint that cannot be connected three times in a row is ejected.
    #[serde(default)]
    pub health: Option<Health>,
    /// How much each version takes at once. Default: no such limit.
    #[serde(default)]
    pub breaker: Option<Breaker>,
    /// Longest time for a TCP connection to an endpoint. Default `1s`.
    #[serde(default = "default_connect_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub connect_timeout: Duration,
    /// Keep-alive connections to the endpoints.
    #[serde(default)]
    pub pool: Pool,
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(1)
}

/// One release of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Addresses, `127.0.0.1:9001` or `game-v41.internal:9001`. A name stands for all its
    /// addresses and is resolved again as its records age.
    #[schemars(length(min = 1))]
    pub endpoints: Vec<EndpointAddress>,
    /// What this release is; shown by the API and by `tidegate_version_info`.
    #[serde(default)]
    pub labels: Labels,
    /// TLS towards the endpoints; `{}` takes the defaults. Default: none.
    #[serde(default)]
    pub tls: Option<VersionTls>,
    /// What the endpoints speak. Default `h1`.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A version of HTTP towards endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on a connection.
    #[default]
    H1,
    /// HTTP/2, in clear with prior knowledge; what gRPC needs.
    H2,
    /// Under TLS what the endpoint prefers of the two; in clear HTTP/1.1.
    Auto,
}

/// Labels of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Semantic version of the release.
    #[serde(default, with = "units::as_written", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "units::LabelText")]
    pub semver: Option<String>,
    /// Build identifier.
    #[serde(default, with = "units::as_written", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "units::LabelText")]
    pub build: Option<String>,
    /// Version of the API contract.
    #[serde(default, with = "units::as_written", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "units::LabelText")]
    pub contract: Option<String>,
    /// Version of the calculation rules.
    #[serde(default, with = "units::as_written", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "units::LabelText")]
    pub calc: Option<String>,
}

/// Keep-alive connections to endpoints, per worker and endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// Idle connections kept; more are closed after use. Default 1024; 0 closes every one.
    pub idle_connections: u32,
    /// An idle connection is closed after this time, or sooner if the endpoint says so in its
    /// `Keep-Alive` field. Default `55s`, below the 60 s after which common servers close.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub idle_timeout: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle_connections: 1024, idle_timeout: Duration::from_secs(55) }
    }
}
