//! The configuration file as types: what may be written, with meaning, unit, default and range.
//!
//! The same types give the parser, the JSON Schema (`tidegate schema`) and the documentation of the
//! fields, so the three cannot disagree. A value of these types is well formed; whether it is
//! *consistent* (a weight names a version that exists) is the question of `check`.

mod alerts;
mod amount;
mod eject;
mod health;
mod slo;
mod tls;

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use indexmap::IndexMap;
use ipnet::IpNet;
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

use super::{
    address,
    pattern::{EndpointAddress, HostPattern, KeySource, PathPattern},
    units::{self, ByteSize, OneOrMany, Share, Weight},
};

pub use alerts::{Alerts, Webhook};
pub use amount::{Amount, AmountSum, AmountTerm, MAX_AMOUNTS};
pub use eject::{
    Eject, EjectErrors, EjectLatency, Failures, Mode, OnMistake, Probability, Statuses,
};
pub use health::{Breaker, GrpcCheck, Health, HttpCheck, TcpCheck};
pub use slo::Slo;
pub use tls::{
    CertificateFiles, ClientCertificates, ClientIdentity, ClientMode, ListenTls, TlsVersion,
    VersionTls,
};

/// What names of services, versions and tokens look like.
const NAME: &str = "^[A-Za-z0-9._-]{1,64}$";

/// The JSON Schema of a configuration file, draft 2020-12.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schema_for!(Config);
    schema.insert("title".to_owned(), "Tidegate configuration".into());
    schema.to_value()
}

/// A whole configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Worker threads, each with its own runtime and upstream pools. Default: the cores this
    /// process may use (affinity and cgroup quota), read at start; a reload does not change it.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<u16>,
    /// Where clients are accepted; at least one address. Read at start.
    #[schemars(length(min = 1))]
    pub listen: Vec<Listen>,
    /// Proxies in front that are believed when they say in `X-Forwarded-For`, `-Proto` and `-Host`
    /// whose request it is: ranges such as `10.0.0.0/8`, or single addresses. What others say there
    /// is replaced. Default: none.
    #[serde(default, with = "address::networks")]
    #[schemars(with = "Vec<address::NetworkText>")]
    pub trusted_proxies: Vec<IpNet>,
    /// The admin endpoint. Default: none.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// Services by name, at least one. Metrics and the admin API use the name.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME }))]
    pub services: IndexMap<String, Service>,
    /// Routes, at least one. Their order does not matter: the most specific match wins.
    #[schemars(length(min = 1))]
    pub routes: Vec<Route>,
    /// Bounds on what clients may send and hold.
    #[serde(default)]
    pub limits: Limits,
    /// What is added to messages on their way.
    #[serde(default)]
    pub forwarding: Forwarding,
    /// One JSON line per request. Default: off.
    #[serde(default)]
    pub access_log: Option<AccessLog>,
    /// The process's own log, on standard error.
    #[serde(default)]
    pub log: Log,
    /// How names of endpoints are resolved.
    #[serde(default)]
    pub resolver: Resolver,
    /// How the process ends.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// Who is told of ejections, near-misses and outages. Default: nobody.
    #[serde(default)]
    pub alerts: Option<Alerts>,
    /// Where another process may ask for the listening sockets. Default: nowhere; SIGUSR2 works
    /// without it.
    #[serde(default)]
    pub takeover: Option<Takeover>,
}

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port, `127.0.0.1:8080` or `[::]:8080`. Port 0 takes a free one.
    #[serde(with = "address::socket")]
    #[schemars(with = "address::SocketText")]
    pub address: SocketAddr,
    /// Certificates. Default: clients speak without TLS.
    #[serde(default)]
    pub tls: Option<ListenTls>,
    /// Balancers whose connections begin with a head of the PROXY protocol. Default: none.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Which connections begin with a head of the PROXY protocol, version 1 or 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Those from these addresses, all of them: ranges such as `10.0.0.0/8`, or single ones. A
    /// connection without a good head is closed; one from elsewhere has none.
    #[serde(with = "address::networks")]
    #[schemars(with = "Vec<address::NetworkText>", length(min = 1))]
    pub from: Vec<IpNet>,
}

/// The admin endpoint: JSON API, `/metrics`, `/healthz`, `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port. Beyond loopback at least one token is required.
    #[serde(with = "address::socket")]
    #[schemars(with = "address::SocketText")]
    pub address: SocketAddr,
    /// Bearer tokens that may call the API. Default: none, which only loopback allows.
    #[serde(default)]
    pub tokens: Vec<Token>,
}

/// A bearer token of the admin endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Who holds it, 1 to 64 letters, digits, `.`, `_` and `-`; written to the log with each change made by it.
    #[schemars(regex(pattern = NAME))]
    pub name: String,
    /// The file that holds the token, relative to the folder of this file,
    /// read at start and at each reload; surrounding white space is
    /// dropped; at least 16 bytes.
    pub file: PathBuf,
    /// What its holder may do. Default `operate`.
    #[serde(default)]
    pub role: Role,
}

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look: status, services, events, records and metrics. For scrapers and dashboards.
    Read,
    /// Also change weights, eject and reinstate.
    #[default]
    Operate,
}

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
    #[serde(default = "default::connect_timeout", with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub connect_timeout: Duration,
    /// Keep-alive connections to the endpoints.
    #[serde(default)]
    pub pool: Pool,
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

/// How players are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cohort {
    /// Where the player's key is found; the first source that is present decides:
    /// `header:NAME`, `cookie:NAME`, `query:NAME`, `path:NAME` (a parameter of the route's path),
    /// `client-ip`. Default `[ client-ip ]`, which also ends every list.
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

/// Sends the requests that match to one version, ahead of the split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// All conditions named must hold.
    #[serde(rename = "match")]
    pub when: RuleMatch,
    /// The version that serves them, whatever its weight.
    pub version: String,
    /// What becomes of them while the version is ejected. Default `move`.
    #[serde(default)]
    pub on_eject: OnEject,
}

/// What becomes of requests that a rule or a route sends to a version which is ejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnEject {
    /// They go on to the next rule, at last to the split: the ejected version serves nobody.
    #[default]
    Move,
    /// The ejected version serves them: testers, who are to see what is wrong with it.
    Keep,
}

/// Conditions of a rule; of each list one value must be equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuleMatch {
    /// Header fields by name.
    pub headers: BTreeMap<String, OneOrMany<String>>,
    /// Cookies by name.
    pub cookies: BTreeMap<String, OneOrMany<String>>,
    /// Query parameters by name.
    pub query: BTreeMap<String, OneOrMany<String>>,
    /// Parameters of the route's path by name.
    pub params: BTreeMap<String, OneOrMany<String>>,
    /// Client addresses: ranges such as `10.0.0.0/8`, or single ones.
    #[serde(with = "address::networks")]
    #[schemars(with = "Vec<address::NetworkText>")]
    pub clients: Vec<IpNet>,
    /// Players by the value of their cohort key.
    pub players: Vec<String>,
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

/// A route: which requests lead to which service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Label of its metrics and log lines, different for every route. Default: the path of its
    /// match, or `default`.
    #[serde(default)]
    #[schemars(regex(pattern = "^[A-Za-z0-9._/{}*:-]{1,64}$"))]
    pub name: Option<String>,
    /// Which requests. Default: all.
    #[serde(default, rename = "match")]
    pub matches: RouteMatch,
    /// The service that answers.
    pub service: String,
    /// A version that serves all requests of this route, ahead of rules and split.
    #[serde(default)]
    pub version: Option<String>,
    /// What becomes of the requests while that version is ejected; with `version` only. Default `move`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_eject: Option<OnEject>,
    /// Longest wait for the head of the answer once the request was sent; later the client reads 504.
    /// Default `30s`.
    #[serde(default = "default::route_timeout", with = "units::duration")]
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
    /// Longest time without a byte either way on a connection of this route that went on in another
    /// protocol. Default: `limits.upgrade_timeout`.
    #[serde(default, with = "units::optional_duration")]
    #[schemars(with = "Option<units::DurationText>")]
    pub upgrade_timeout: Option<Duration>,
    /// Protocols that a client may go on in by `Upgrade`; an empty list forbids it. Never `h2c` or
    /// another form of HTTP or TLS. Default `[ websocket ]`.
    #[serde(default = "default::upgrades")]
    pub upgrades: Vec<String>,
    /// Limits of the comparison for the requests of this route, which are then compared by
    /// themselves. What is left out is as the service has it; its `mode` can only be `off`, which
    /// keeps the requests out of the comparison. Default: compared with all others of the service.
    #[serde(default)]
    pub eject: Option<Eject>,
    /// Absolute limits of this route, ahead of the service's. A route that has some is compared by
    /// itself. Default: the service's.
    #[serde(default)]
    pub slo: Option<Slo>,
    /// Which answers count as failures of the version. Default: as the service has it.
    #[serde(default)]
    pub failures: Option<Failures>,
}

impl Route {
    /// The label of its metrics and log lines: its name, else the path of its match, else
    /// `default`. In a checked configuration no two routes share one.
    pub fn label(&self) -> Cow<'_, str> {
        match (&self.name, &self.matches.path) {
            (Some(name), _) => Cow::Borrowed(name),
            (None, Some(path)) => Cow::Owned(path.to_string()),
            (None, None) => Cow::Borrowed("default"),
        }
    }
}

/// Conditions of a route; all that are named must hold.
///
/// Precedence: exact host, then longest `*.` host; exact path, then longest prefix; then a named
/// method; then the number of header and query conditions.
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
    /// Header fields by name; one value, or several of which one must be equal.
    pub headers: BTreeMap<String, OneOrMany<String>>,
    /// Query parameters by name; likewise.
    pub query: BTreeMap<String, OneOrMany<String>>,
}

/// Bounds on what clients may send and hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at once; one more is answered 503 and closed. Default 16384, or one for each
    /// 256 KiB of memory that the process is granted, if that is fewer.
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// Of those, connections of one client address at once, an IPv6 address with its /64; one more is
    /// answered 503 and closed. Trusted proxies are not counted. Default half of the default of
    /// `connections`.
    #[schemars(range(min = 1))]
    pub connections_per_client: Option<u32>,
    /// Requests in flight at once, of all clients together; one more is answered 503. Each worker takes
    /// an equal part, rounded up. Default 65536, or one for each 768 KiB of memory that the process is
    /// granted, if that is fewer.
    #[schemars(range(min = 1))]
    pub requests: Option<u32>,
    /// Of those, requests of one client address at once, an IPv6 address with its /64; one more is
    /// answered 503. Trusted proxies are not counted, the clients that they name are. Default 8192, or half
    /// of the default of `requests`, if that is fewer.
    #[schemars(range(min = 1))]
    pub requests_per_client: Option<u32>,
    /// Size of a request's head; above it 431, or 414 if the target alone is larger.
    /// Default `32KiB`, range `1KiB` to `1MiB`.
    pub header_bytes: ByteSize,
    /// Header fields of a request; above it 431. Default 100, at most 256.
    #[schemars(range(min = 1, max = 256))]
    pub header_count: u16,
    /// Longest time from a head's first byte to its last; later 408. Default `10s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub header_timeout: Duration,
    /// A connection without a request is closed after this time. Default `60s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub idle_timeout: Duration,
    /// Longest time without a byte moving while a body is sent or received. Default `60s`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub body_timeout: Duration,
    /// Least rate of a body, in bytes per second: it has to be over after four times `body_timeout` and a
    /// second for every so many bytes. Not of events, calls of gRPC and upgrades. Default `256B`; `0B` is
    /// no bound.
    pub body_rate: ByteSize,
    /// Longest time without a byte either way on a connection that went on in another protocol, such
    /// as a WebSocket. Default `5m`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub upgrade_timeout: Duration,
    /// Requests at once on a client's connection of HTTP/2; it is told, and one more is refused.
    /// Default 128, range 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_client: None,
            requests: None,
            requests_per_client: None,
            header_bytes: ByteSize(32 * 1024),
            header_count: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            body_rate: ByteSize(256),
            upgrade_timeout: Duration::from_secs(300),
            streams: 128,
        }
    }
}

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

/// One JSON line per request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// A file to append to, or `stdout`.
    pub path: String,
    /// Share of requests written. Default `100%`.
    #[serde(default = "default::whole")]
    pub sample: Share,
}

/// The process's own log, on standard error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Least severity written. Default `info`.
    pub level: LogLevel,
    /// Form of a line. Default `json`.
    pub format: LogFormat,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Faults that need a person.
    Error,
    /// What may become a fault.
    Warn,
    /// Changes of state.
    #[default]
    Info,
    /// Everything.
    Debug,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// For reading in a terminal.
    Text,
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

/// Where another process may ask for the listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Takeover {
    /// A Unix socket, made with mode 0600. A relative path begins at the process's working folder.
    /// Read at start.
    pub socket: PathBuf,
}

mod default {
    use std::time::Duration;

    use super::Share;

    pub(super) fn connect_timeout() -> Duration {
        Duration::from_secs(1)
    }

    pub(super) fn route_timeout() -> Duration {
        Duration::from_secs(30)
    }

    pub(super) fn upgrades() -> Vec<String> {
        vec!["websocket".to_owned()]
    }

    pub(super) fn whole() -> Share {
        Share(1.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_schema_is_valid_and_refuses_unknown_fields() {
        let schema = json_schema();
        jsonschema::draft202012::meta::validate(&schema).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["title"], "Tidegate configuration");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["$defs"]["Pool"]["properties"]["idle_timeout"]["default"], "55s");
        let loose = schema["$defs"].as_object().unwrap().iter().filter(|(_, def)| {
            def["properties"].is_object() && def["additionalProperties"] != json!(false)
        });
        assert_eq!(loose.count(), 0);
    }

    #[test]
    fn every_field_is_documented() {
        let page = include_str!("../../docs/configuration.md");
        let schema = json_schema();
        let defs = schema["$defs"].as_object().unwrap().values().chain([&schema]);
        for name in defs.filter_map(|def| def["properties"].as_object()).flat_map(|p| p.keys()) {
            let row = |line: &str| line.starts_with('|') && line.contains(&format!("`{name}`"));
            assert!(page.lines().any(row), "`{name}` has no row in docs/configuration.md");
        }
    }

    #[test]
    fn the_schema_knows_the_small_languages() {
        let schema = json_schema();
        let accepts = |def: &str, value: serde_json::Value| {
            let schema = json!({ "$ref": format!("#/$defs/{def}"), "$defs": schema["$defs"] });
            jsonschema::validator_for(&schema).unwrap().is_valid(&value)
        };
        for good in ["/", "/*", "/a", "/a/", "/a/*", "/rounds/{id}/settle", "/v1/{a}/*"] {
            assert!(
                good.parse::<PathPattern>().is_ok() && accepts("PathPattern", good.into()),
                "{good}"
            );
        }
        for bad in ["", "a", "/a*", "/*/a", "/{a", "/{}", "/a b", "/a?b", "/{a}{b}"] {
            assert!(
                bad.parse::<PathPattern>().is_err() && !accepts("PathPattern", bad.into()),
                "{bad}"
            );
        }
        for good in
            ["127.0.0.1:9001", "[::1]:9001", "game-v41.internal:9001", "game.ns.svc.local.:9001"]
        {
            assert!(good.parse::<EndpointAddress>().is_ok(), "{good}");
            assert!(accepts("EndpointAddress", good.into()), "{good}");
        }
        for good in ["api.example.com", "*.example.com", "api.example.com."] {
            assert!(good.parse::<HostPattern>().is_ok(), "{good}");
            assert!(accepts("HostPattern", good.into()), "{good}");
        }
        for bad in [".", "a..", "*."] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
            assert!(!accepts("HostPattern", bad.into()), "{bad}");
        }
        for bad in ["127.0.0.1", "http://a:80", ":80", "a:"] {
            assert!(bad.parse::<EndpointAddress>().is_err(), "{bad}");
            assert!(!accepts("EndpointAddress", bad.into()), "{bad}");
        }
        for good in ["client-ip", "header:x-player-id", "cookie:uid", "path:id", "query:p"] {
            assert!(
                good.parse::<KeySource>().is_ok() && accepts("KeySource", good.into()),
                "{good}"
            );
        }
        for bad in ["ip", "claim:sub", "header:", "header:a b"] {
            assert!(
                bad.parse::<KeySource>().is_err() && !accepts("KeySource", bad.into()),
                "{bad}"
            );
        }
        assert!(accepts("Labels", json!({ "contract": 2 })));
        assert!(!accepts("Labels", json!({ "kontract": "2" })));
    }
}
