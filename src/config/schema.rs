//! The configuration file as types: fields with meaning, unit, default and range.
//!
//! The same types give the parser, the JSON Schema (`tidegate schema`) and the documentation of the
//! fields, so the three cannot disagree. A value of these types is well formed; whether it is
//! *consistent* (a weight names a version that exists) is checked by `check`.

mod access;
mod admin;
mod alerts;
mod amount;
mod authorizer;
mod cohort;
mod concurrency;
mod eject;
mod fence;
mod files;
mod health;
mod hold;
mod idempotency;
mod jwt;
mod limit;
mod limits;
mod listen;
mod log;
mod notice;
mod pin;
mod plan;
mod process;
mod retry;
mod route;
mod service;
mod slo;
mod smoke;
mod state;
#[cfg(test)]
mod tests;
mod tls;
mod window;

use indexmap::IndexMap;
use ipnet::IpNet;
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};

use super::{address, pattern::NAME};

pub use self::{
    access::Access,
    admin::{Admin, Holder, Role, Token},
    alerts::{Alerts, Webhook},
    amount::{Amount, AmountSum, AmountTerm, MAX_AMOUNTS},
    authorizer::{Authorizer, AuthorizerCache, OnFailure},
    cohort::{Cohort, OnEject, Rule, RuleMatch},
    concurrency::{Adaptive, Concurrency, Priority},
    eject::{Eject, EjectErrors, EjectLatency, Failures, Mode, OnMistake, Probability, Statuses},
    fence::Fence,
    health::{Breaker, GrpcCheck, Health, HttpCheck, TcpCheck},
    hold::{Hold, OnReadOnly},
    idempotency::{ErrorAnswers, Idempotency, Unsure},
    jwt::{Auth, Jwt, JwtAlgorithm},
    limit::{Exempt, Limit, LimitMode, RateLimit},
    limits::Limits,
    listen::{Listen, ProxyProtocol, Takeover},
    log::{AccessLog, Log, LogFormat, LogLevel},
    notice::{Announcements, MAX_NOTICES, Notice, NoticeKind, ReadOnly, UtcTime},
    pin::{
        Pin, PinBegin, PinCookie, PinCookieKey, PinEnd, PinEndAnswer, PinKeyAnswer, PinOnEject,
        PinSecret,
    },
    plan::{
        Gate, GateKind, GateQuestion, GateWebhook, MAX_GATES, MAX_STEPS, MAX_WEBHOOK_TIMEOUT, Step,
    },
    process::{Forwarding, Resolver, Shutdown},
    retry::{KeyTrust, MAX_ATTEMPTS, MAX_BODY_WAIT, MAX_KEPT_BODY, Rescue, Retry, RetryOn},
    route::{Class, Route, RouteMatch},
    service::{Labels, Pool, Protocol, Service, Version},
    slo::Slo,
    smoke::{
        HeaderExpectation, HeaderPattern, Kept, MAX_SMOKE_STEPS, MAX_SMOKE_TIME, Piece,
        RequestLine, Scheme, SmokeCheck, SmokeExpectation, SmokeStep, Template, is_variable,
        json_path,
    },
    state::{Checkpoints, State, StateFolder},
    tls::{
        CertificateFiles, ClientCertificates, ClientIdentity, ClientMode, ListenTls, TlsVersion,
        VersionTls,
    },
    window::{LocalTime, READ_ONLY, Weekly, Window, time_zone, time_zone_names},
};

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
    /// Proxies in front whose `X-Forwarded-For`, `-Proto` and `-Host` are trusted: ranges such as
    /// `10.0.0.0/8`, or single addresses. Those fields of other peers are replaced. Default: none.
    #[serde(default, with = "address::networks")]
    #[schemars(with = "Vec<address::NetworkText>")]
    pub trusted_proxies: Vec<IpNet>,
    /// The admin endpoint. Default: none.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// The folder of the release journal: the record of all changes made at run time, and the state
    /// that they lead to, which survives restart and crash. It belongs to one process, and is made
    /// with mode 0700. A relative path begins at the process's working folder. Read at start.
    /// Default: none; weights and ejections set at run time then live as long as the process.
    /// Instead of a text, a map with `folder` and `checkpoints` says where signed checkpoints go.
    #[serde(default)]
    pub state: Option<State>,
    /// Services by name, at least one. Metrics and the admin API use the name.
    #[schemars(extend("minProperties" = 1, "propertyNames" = { "pattern": NAME }))]
    pub services: IndexMap<String, Service>,
    /// Routes, at least one. Their order does not matter: the most specific match wins.
    #[schemars(length(min = 1))]
    pub routes: Vec<Route>,
    /// Issuers of clients' tokens by name, for `auth` of routes. Default: none.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = { "pattern": NAME }))]
    pub jwt: IndexMap<String, Jwt>,
    /// Services that are asked whether requests may go on, by name, for `auth` of routes. Default: none.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(extend("propertyNames" = { "pattern": NAME }))]
    pub authorizers: IndexMap<String, Authorizer>,
    /// Bounds on what clients may send and hold.
    #[serde(default)]
    pub limits: Limits,
    /// Fields that are added to forwarded messages.
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
    /// Receivers of alerts about ejections, near-misses and outages. Default: none.
    #[serde(default)]
    pub alerts: Option<Alerts>,
    /// The socket at which another process can take over. Default: none; SIGUSR2 works without it.
    #[serde(default)]
    pub takeover: Option<Takeover>,
    /// Plans of rollouts by name: the steps in which a new version gets players. Default: none.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": NAME }))]
    pub plans: IndexMap<String, Vec<Step>>,
    /// Smoke checks by name: requests that a version must answer as expected. Default: none.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": NAME }))]
    pub smoke: IndexMap<String, SmokeCheck>,
    /// Windows in which rollouts do not grow, or only in which they do. Default: they may grow at any
    /// time.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// Notices by name: planned work that players and clients are told of in advance. Default: none.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "pattern": NAME }))]
    pub notices: IndexMap<String, Notice>,
    /// Who is told of notices before they begin. Default: nobody.
    #[serde(default)]
    pub announcements: Option<Announcements>,
    /// What clients are told whose writes are refused in read-only mode.
    #[serde(default)]
    pub read_only: ReadOnly,
}

impl Config {
    /// Whether the file has `version` of `service`.
    pub fn has_version(&self, service: &str, version: &str) -> bool {
        self.services.get(service).is_some_and(|service| service.versions.contains_key(version))
    }
}
