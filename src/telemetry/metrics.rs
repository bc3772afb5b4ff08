//! The Prometheus text of a scrape.
//!
//! Nothing here is registered or updated: the controller collects a [`Scrape`], plain data, and
//! [`render`] writes it. So every number exists once, metrics of parts that left the configuration
//! vanish by themselves, and the page can be tested as text.
//!
//! Names and labels are part of the public contract. Label values come from the configuration, and
//! never from a client. Counters begin at zero with the process.
//!
//! Quantiles are of the last minute, `_sum` and `_count` since start, as summaries are; quantiles
//! cannot be added up over instances, the duration histogram can.

mod concurrency;
mod endpoints;
mod idempotency;
mod identity;
mod itself;
mod limits;
mod pins;
mod process;
mod read_only;
mod services;
mod text;

use std::time::{Duration, SystemTime};

pub use concurrency::ConcurrencyUse;
pub use idempotency::{Idempotency, KeysKept};
pub use identity::IssuerUse;
pub use limits::{RateUse, RefusedUse};
pub use pins::Pins;
pub use process::Process;
pub use read_only::{HoldUse, ReadOnly};

use super::{access_log::Lost, collector::Durations, histogram::Quantiles};

/// Media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The data of one scrape.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// Services of the snapshot, in the file's order.
    pub services: Vec<Service>,
    /// Names of endpoints, and whether the last query for each was answered.
    pub names: Vec<(String, bool)>,
    /// Requests by service, version and route.
    pub series: Vec<Series>,
    /// Idempotency keys of the routes that have some.
    pub idempotency: Vec<Idempotency>,
    /// What keeps them on disk; `None` without `state`.
    pub keys_kept: Option<KeysKept>,
    /// Responses made by Tidegate before a version was chosen, by status.
    pub unrouted: Vec<(u16, u64)>,
    /// Refused requests of routes.
    pub refused: Vec<RefusedUse>,
    /// Limits of rates of routes.
    pub rates: Vec<RateUse>,
    /// Limits of requests in flight.
    pub concurrency: Vec<ConcurrencyUse>,
    /// Modes of services.
    pub read_only: Vec<ReadOnly>,
    /// Writes of routes that wait for the end of a mode.
    pub holds: Vec<HoldUse>,
    /// Requests about which an authorizer was asked, by authorizer, each with counts by result.
    pub authorizers: Vec<(String, Vec<(&'static str, u64)>)>,
    /// Refused calls of the admin endpoint, by reason.
    pub callers_refused: Vec<(&'static str, u64)>,
    /// Issuers of clients' tokens.
    pub issuers: Vec<IssuerUse>,
    /// Requests answered 503 because too many were in flight.
    pub requests_shed: u64,
    /// Requests answered 503 because too many of the same client were in flight.
    pub requests_shed_per_client: u64,
    /// Connections that failed because a resource was exhausted, such as descriptors: of clients,
    /// and to endpoints.
    pub exhausted: [u64; 2],
    /// Limit of client connections in force, which depends on the descriptors of the process.
    pub connections_limit: u32,
    /// Limit of requests in flight in force.
    pub requests_limit: u32,
    /// Listening sockets.
    pub listeners: Vec<Listener>,
    /// Certificates in force.
    pub certificates: Vec<Certificate>,
    /// Generation of the snapshot.
    pub generation: u64,
    /// Reloads that were applied completely, or found nothing to change.
    pub reloads_applied: u64,
    /// Reloads of an invalid file, which changed nothing, or of one whose weights are not all in
    /// force.
    pub reloads_rejected: u64,
    /// Access-log lines lost.
    pub access_log: Lost,
    /// Lines of the process's own log lost.
    pub log: Lost,
    /// Panics of tasks of the control plane, by name.
    pub control_panics: Vec<(&'static str, u64)>,
    /// Panics in workers; each cost one connection or request.
    pub worker_panics: u64,
    /// Latency samples that workers dropped.
    pub samples_lost: u64,
    /// Outcomes of requests that the comparison lost.
    pub outcomes_lost: u64,
    /// HTTP/2 connections ended because of a flood of frames.
    pub http2_floods: u64,
    /// Version of Tidegate.
    pub build: &'static str,
    /// When the process started.
    pub started: SystemTime,
    /// Messages to receivers of alerts by name: accepted ones, and failed ones.
    pub alert_posts: Vec<(String, [u64; 2])>,
    /// Smoke checks by service, version and name: passed ones, and failed ones.
    pub smoke_checks: Vec<([String; 3], [u64; 2])>,
    /// The journal; `None` if the process has none.
    pub journal: Option<Journal>,
    /// Attempts to keep checkpoints of the journal, by kind of place: successful, and failed.
    pub checkpoints_sent: Vec<(&'static str, [u64; 2])>,
    /// The kernel's data about the process; `None` where there is no `/proc`.
    pub process: Option<Process>,
}

/// The journal.
#[derive(Debug, Clone, Copy)]
pub struct Journal {
    /// Entries written since it was opened.
    pub entries: u64,
    /// Whether it cannot be written.
    pub failing: bool,
    /// Changes that wait to be written.
    pub waiting: u64,
}

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Its versions, in the file's order.
    pub versions: Vec<Version>,
    /// Whether a version with a share has an endpoint that serves.
    pub available: bool,
    /// Whether baseline and canaries fail alike; `None` if they are not compared.
    pub shared_outage: Option<bool>,
    /// Whether its configured weights are not in force because no version would serve.
    pub weights_refused: bool,
    /// Its rollout in progress, or the last one.
    pub rollout: Option<Rollout>,
    /// Rollouts that ended since start, by outcome.
    pub rollouts_ended: Vec<(&'static str, u64)>,
    /// Cutovers since the start, by result.
    pub cutovers: Vec<(&'static str, u64)>,
    /// Writes that are held now, and how long writes were; `None` if the service has no fence.
    pub fence: Option<FenceUse>,
    /// Incidents, by kind.
    pub incidents: Vec<(&'static str, u64)>,
    /// Its pins; `None` if it has none.
    pub pins: Option<Pins>,
}

/// A rollout.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// The version that grows.
    pub version: String,
    /// All phases, and whether it is in each.
    pub phases: Vec<(&'static str, bool)>,
    /// The step, counted from 1.
    pub step: usize,
    /// Number of steps.
    pub steps: usize,
    /// Whether its step waits for a person to approve it.
    pub wants_approval: bool,
    /// Seconds left until the version must have all players, below 0 once they are over; `None` if it is not
    /// urgent, or has ended.
    pub due_s: Option<f64>,
}

/// A version of a service.
#[derive(Debug, Clone, Default)]
pub struct Version {
    /// Name.
    pub name: String,
    /// Relative weight.
    pub weight: f64,
    /// State.
    pub state: State,
    /// Semantic version of the release; empty if not given, as the other labels.
    pub semver: String,
    /// Build identifier.
    pub build: String,
    /// Version of the API contract.
    pub contract: String,
    /// Version of the calculation rules.
    pub calc: String,
    /// Requests in flight.
    pub in_flight: u64,
    /// Log evidence against it in nats, by the compared quantity.
    pub evidence_log: Vec<(String, f64)>,
    /// Log evidence of all quantities together at which it is ejected, likewise.
    pub evidence_threshold: Vec<(String, f64)>,
    /// Ejections of the whole version, by reason.
    pub ejections: Vec<(&'static str, u64)>,
    /// Events of its comparison that change nothing by themselves, by kind.
    pub events: Vec<(&'static str, u64)>,
    /// Requests rejected by its circuit breaker, by limit.
    pub shed: Vec<(&'static str, u64)>,
    /// Attempts beyond the first, by reason.
    pub retries: Vec<(&'static str, u64)>,
    /// Failed requests that were not repeated, by reason.
    pub withheld: Vec<(&'static str, u64)>,
    /// Requests that it failed and the baseline answered.
    pub rescued: u64,
    /// Amounts in its responses.
    pub amounts: Vec<Amount>,
    /// Whether too few of its endpoints serve, so that others get requests, too.
    pub health_panic: bool,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A measured amount of a version.
#[derive(Debug, Clone, Default)]
pub struct Amount {
    /// Name.
    pub name: String,
    /// Responses with this amount.
    pub count: u64,
    /// The sum of the amounts.
    pub sum: f64,
    /// Responses in which it was malformed.
    pub malformed: u64,
}

/// State of a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Gets new players.
    Serving,
    /// Has weight 0.
    #[default]
    Idle,
    /// Finishes its requests in flight.
    Draining,
    /// Ejected by a verdict or by an operator.
    Ejected,
}

/// An endpoint of a version.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    /// Address as in the configuration.
    pub address: String,
    /// Time to the head of the response: the last minute.
    pub minute: Quantiles,
    /// Time to the head of the response: since start.
    pub total: Quantiles,
    /// Connections made to it.
    pub connections: u64,
    /// Total time spent on making them.
    pub connecting: Duration,
    /// Errors of this endpoint.
    pub errors: Errors,
    /// Whether it serves and can be connected.
    pub serves: bool,
    /// Good and bad health checks.
    pub checks: [u64; 2],
    /// Ejections of this endpoint alone, by reason.
    pub ejections: Vec<(&'static str, u64)>,
    /// Its share of requests relative to its peers, 0 to 1.
    pub share: f64,
    /// Responses that say that it has too much to do.
    pub overloaded: u64,
}

/// Errors by kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Errors {
    /// No connection.
    pub connect: u64,
    /// No response in time.
    pub timeout: u64,
    /// Connection closed or reset before the response ended.
    pub reset: u64,
    /// A response that is not HTTP.
    pub protocol: u64,
    /// A response with a status of 500 or more.
    pub status: u64,
}

/// Requests of one (service, version, route).
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Service.
    pub service: String,
    /// Version.
    pub version: String,
    /// Route.
    pub route: String,
    /// Responses 1xx, 2xx, 3xx, 4xx and 5xx.
    pub by_class: [u64; 5],
    /// Time to the last byte.
    pub durations: Durations,
}

/// A listening socket.
#[derive(Debug, Clone, Default)]
pub struct Listener {
    /// Address as in the configuration.
    pub name: String,
    /// Open client connections.
    pub open: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub shed: u64,
    /// Connections closed at once because there were too many of their address.
    pub shed_per_client: u64,
    /// Connections closed without a valid PROXY protocol header.
    pub proxy_protocol_errors: u64,
    /// Connections closed because the TLS handshake failed.
    pub tls_handshakes_failed: u64,
}

/// A certificate in force at a listener.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The listener's address as in the configuration.
    pub listener: String,
    /// The certificate's file.
    pub file: String,
    /// The last moment of its validity.
    pub not_after: SystemTime,
}

/// The fence of a service.
#[derive(Debug, Clone, Default)]
pub struct FenceUse {
    /// Writes that wait.
    pub waiting: u64,
    /// How long writes were held.
    pub holds: Durations,
    /// Writes that were ended because their bodies had not arrived in time.
    pub uploads_cut: u64,
}

/// The text of a scrape, in the exposition format 0.0.4.
pub fn render(scrape: &Scrape) -> String {
    let mut page = text::Page::default();
    services::traffic(scrape, &mut page);
    services::services(scrape, &mut page);
    services::rollouts(scrape, &mut page);
    services::cutovers(scrape, &mut page);
    services::versions(scrape, &mut page);
    pins::pins(scrape, &mut page);
    limits::refused(scrape, &mut page);
    limits::limits(scrape, &mut page);
    concurrency::concurrency(scrape, &mut page);
    identity::tokens(scrape, &mut page);
    identity::authorizers(scrape, &mut page);
    identity::callers(scrape, &mut page);
    idempotency::idempotency(scrape, &mut page);
    read_only::read_only(scrape, &mut page);
    services::breakers(scrape, &mut page);
    services::evidence(scrape, &mut page);
    services::smoke_checks(scrape, &mut page);
    services::amounts(scrape, &mut page);
    endpoints::endpoints(scrape, &mut page);
    itself::itself(scrape, &mut page);
    itself::certificates(scrape, &mut page);
    itself::process(scrape, &mut page);
    page.into_text()
}

#[cfg(test)]
mod tests;
