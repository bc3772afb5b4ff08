//! A service and its versions.

use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    amount::Amount,
    cohort::{Cohort, Rule},
    concurrency::Concurrency,
    eject::{Eject, Failures},
    fence::Fence,
    health::{Breaker, Health},
    pin::Pin,
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
    /// The version with which others are compared, and which serves by default.
    pub baseline: String,
    /// Versions by name, at least one.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME }))]
    pub versions: IndexMap<String, Version>,
    /// Relative share of players per version, on any scale, decimals allowed. A missing version has
    /// weight 0. Default: everything to the baseline.
    #[serde(default)]
    pub weights: Option<IndexMap<String, Weight>>,
    /// The cohort key, which identifies players.
    #[serde(default)]
    pub cohort: Cohort,
    /// Rules that send selected players to a version before the split; the first match wins.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Pins: a player or a round stays on the version that it began with, whatever the weights become.
    /// Default: none.
    #[serde(default)]
    pub pin: Option<Pin>,
    /// Business amounts in responses, by name, at most 8: shown by the API and by metrics, and
    /// compared if `eject` names them. Default: none.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 8, "propertyNames" = { "pattern": NAME }))]
    pub amounts: IndexMap<String, Amount>,
    /// How each canary is compared with the baseline, and ejected when it is worse. Default: no
    /// comparison.
    #[serde(default)]
    pub eject: Option<Eject>,
    /// Absolute limits for a version without a baseline to compare with, such as directly after a
    /// cutover, and for the gate `slo` of rollouts; only with `eject` or `rollout`. Default: none.
    #[serde(default)]
    pub slo: Option<Slo>,
    /// The plan of its rollouts, if a rollout is started without one. Default: none.
    #[serde(default)]
    pub rollout: Option<String>,
    /// Whether an approval in a rollout must come from another person than the one who started it, and
    /// growth in any other way than by the plan of the service needs a second person. Default `false`.
    #[serde(default)]
    pub second_person: bool,
    /// Responses that count as failures of the version. Default: 500 and above.
    #[serde(default)]
    pub failures: Option<Failures>,
    /// Health checks and ejection of endpoints. Default: no checks; an endpoint that cannot be
    /// connected three times in a row is ejected.
    #[serde(default)]
    pub health: Option<Health>,
    /// Limits of concurrent requests of each version. Default: none.
    #[serde(default)]
    pub breaker: Option<Breaker>,
    /// Limit of requests in flight of all routes to the service together: the least important ones (`priority`) give
    /// way first. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Holds writes while a cutover moves them to another version; `{}` uses the defaults. Default: none.
    #[serde(default)]
    pub fence: Option<Fence>,
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
    /// Addresses, `127.0.0.1:9001` or `game-v41.internal:9001`. A name stands for all its addresses
    /// and is resolved again when its records expire.
    #[schemars(length(min = 1))]
    pub endpoints: Vec<EndpointAddress>,
    /// Labels of this release; shown by the API and by `tidegate_version_info`.
    #[serde(default)]
    pub labels: Labels,
    /// TLS to the endpoints; `{}` uses the defaults. Default: none.
    #[serde(default)]
    pub tls: Option<VersionTls>,
    /// Protocol of the endpoints. Default `h1`.
    #[serde(default)]
    pub protocol: Protocol,
}

/// HTTP version for endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on a connection.
    #[default]
    H1,
    /// HTTP/2, in clear with prior knowledge; what gRPC needs.
    H2,
    /// With TLS the one that the endpoint prefers; in clear HTTP/1.1.
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
    /// Most idle connections that are kept; further ones are closed after use. Default 1024; 0
    /// closes all.
    pub idle_connections: u32,
    /// An idle connection is closed after this time, or sooner if the endpoint's `Keep-Alive` field
    /// requires it. Default `55s`, below the 60 s after which common servers close.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub idle_timeout: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle_connections: 1024, idle_timeout: Duration::from_secs(55) }
    }
}
