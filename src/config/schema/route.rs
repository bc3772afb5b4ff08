//! A route: sends matching requests to a service.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    access::Access,
    cohort::OnEject,
    concurrency::Priority,
    eject::{Eject, Failures},
    hold::OnReadOnly,
    idempotency::Idempotency,
    jwt::Auth,
    limit::Limit,
    retry::Retry,
    slo::Slo,
};
use crate::config::{
    pattern::{HostPattern, PathPattern},
    units::{self, ByteSize, OneOrMany},
};

/// A route: sends matching requests to a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Unique label of its metrics and log lines. Default: the path of its match, or `default`.
    #[serde(default)]
    #[schemars(regex(pattern = "^[A-Za-z0-9._/{}*:-]{1,64}$"))]
    pub name: Option<String>,
    /// Conditions of the route. Default: all requests.
    #[serde(default, rename = "match")]
    pub matches: RouteMatch,
    /// The service of the requests.
    pub service: String,
    /// A version that serves all requests of this route, before rules and split.
    #[serde(default)]
    pub version: Option<String>,
    /// What happens to the requests while that version is ejected; only with `version`. Default
    /// `move`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_eject: Option<OnEject>,
    /// Whether its requests read or write. Default: by method; GET, HEAD, OPTIONS and TRACE read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// Longest wait for the head of the response once the request was sent; after that the client
    /// gets 504. Default `30s`.
    #[serde(default = "default_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub timeout: Duration,
    /// Longest time without a byte moving while a body of this route is sent or received. Default:
    /// `limits.body_timeout`.
    #[serde(default, with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub body_timeout: Option<Duration>,
    /// Least rate of a body of this route, as `limits.body_rate`, which is the default.
    #[serde(default)]
    pub body_rate: Option<ByteSize>,
    /// Longest time without a byte in either direction on a connection of this route that switched
    /// to another protocol. Default: `limits.upgrade_timeout`.
    #[serde(default, with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub upgrade_timeout: Option<Duration>,
    /// Protocols to which a client may switch by `Upgrade`; an empty list forbids it. Never `h2c`
    /// or another form of HTTP or TLS. Default `[ websocket ]`.
    #[serde(default = "default_upgrades")]
    pub upgrades: Vec<String>,
    /// Limits of the comparison for the requests of this route, which are then compared separately.
    /// Missing fields are those of the service; `mode` can only be `off`, which excludes the
    /// requests from the comparison. Default: compared together with all others of the service.
    #[serde(default)]
    pub eject: Option<Eject>,
    /// Absolute limits of this route instead of the service's. A route that has some is compared
    /// separately. Default: the service's.
    #[serde(default)]
    pub slo: Option<Slo>,
    /// Responses that count as failures of the version. Default: as in the service.
    #[serde(default)]
    pub failures: Option<Failures>,
    /// Client addresses that are admitted or refused with 403. Default: all are admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Who its clients must be. Default: anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Limits on its requests. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// How important its requests are where requests of several routes compete, which is the `concurrency` of the
    /// service: `high`, `normal` or `low`. Default `normal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Whether failed requests are sent again, and where. Default: only after a connection that
    /// could not be made or was stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Writes with an `Idempotency-Key` are processed once, and their responses replayed. Default: they are
    /// forwarded like others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
    /// What becomes of its writes while its service, or the whole process, is read-only: `pass`, or `hold` with
    /// bounds. Default: they are refused with 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<OnReadOnly>,
    /// Whether a GET of this route gets the notices of now and later as JSON, from Tidegate itself. Default
    /// `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notices: bool,
}

/// Whether a request reads or writes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// It changes nothing.
    Read,
    /// It may change something, such as a balance.
    Write,
}

fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_upgrades() -> Vec<String> {
    vec!["websocket".to_owned()]
}

impl Route {
    /// The label of its metrics and log lines: its name, otherwise the path of its match, otherwise
    /// `default`. In a checked configuration labels are unique.
    pub fn label(&self) -> Cow<'_, str> {
        match (&self.name, &self.matches.path) {
            (Some(name), _) => Cow::Borrowed(name),
            (None, Some(path)) => Cow::Owned(path.to_string()),
            (None, None) => Cow::Borrowed("default"),
        }
    }
}

/// Conditions of a route, all of which must hold.
///
/// Precedence: exact host, then longest `*.` host; exact path, then longest prefix; then a named
/// method; then the number of header, query and claim conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteMatch {
    /// `api.example.com`, or `*.example.com` for every name below it; one or a list.
    pub host: Option<OneOrMany<HostPattern>>,
    /// `/exact`, `/prefix/*`, `/rounds/{id}/settle`.
    pub path: Option<PathPattern>,
    /// Methods, upper case. Default: all.
    #[schemars(inner(regex(pattern = "^[!#$%&'*+.^_`|~0-9A-Z-]+$")))]
    pub methods: Vec<String>,
    /// Header fields by name; one value, or several of which one must match.
    pub headers: BTreeMap<String, OneOrMany<String>>,
    /// Query parameters by name; likewise.
    pub query: BTreeMap<String, OneOrMany<String>>,
    /// Claims of the client's token by name; likewise. The route says with `auth.jwt` whose tokens count.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, OneOrMany<String>>,
}
