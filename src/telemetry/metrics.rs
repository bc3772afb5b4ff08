//! The Prometheus text of a scrape.
//!
//! Nothing here is registered or updated: the controller gathers what it knows into a [`Scrape`],
//! plain data, and [`render`] writes it. So there is one truth for a number, metrics of what left
//! the configuration vanish by themselves, and the page can be tested as text.
//!
//! Names and labels are part of the public contract. Labels carry names from the configuration, and
//! never what a client chose. Counters begin at zero with the process.
//!
//! Quantiles are of the last minute, `_sum` and `_count` since start, as summaries are; quantiles
//! cannot be added up over instances, the duration histogram can.

mod families;
mod process;
mod text;

use std::time::{Duration, SystemTime};

pub use process::Process;

use super::{access_log::Lost, collector::Durations, histogram::Quantiles};

/// Media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All that one scrape tells.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// Services of the snapshot, in the file's order.
    pub services: Vec<Service>,
    /// Names of endpoints, and whether the last question for each had an answer.
    pub names: Vec<(String, bool)>,
    /// Requests by service, version and route.
    pub series: Vec<Series>,
    /// Answers given where no route matched, or none could be assigned, by status.
    pub unrouted: Vec<(u16, u64)>,
    /// Requests answered 503, since there were too many in flight.
    pub requests_shed: u64,
    /// Likewise, since there were too many of their client.
    pub requests_shed_per_client: u64,
    /// Connections that could not be had for want of a resource, such as a descriptor: of clients, and to
    /// endpoints.
    pub wants: [u64; 2],
    /// Connections of clients that are taken at once, as the process is granted descriptors.
    pub connections_limit: u32,
    /// Requests in flight that are taken at once.
    pub requests_limit: u32,
    /// Listening sockets.
    pub listeners: Vec<Listener>,
    /// Certificates in force.
    pub certificates: Vec<Certificate>,
    /// Generation of the snapshot.
    pub generation: u64,
    /// Reloads that changed the snapshot or found nothing to change.
    pub reloads_applied: u64,
    /// Reloads of a bad file, which changed nothing, or of one whose weights are not all in force.
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
    /// Outcomes of requests that the comparison did not hear.
    pub outcomes_lost: u64,
    /// Connections of HTTP/2 ended for a flood of frames.
    pub http2_floods: u64,
    /// Version of Tidegate.
    pub build: &'static str,
    /// When the process started.
    pub started: SystemTime,
    /// Messages to receivers of alerts by name: those that were taken, and the others.
    pub alert_posts: Vec<(String, [u64; 2])>,
    /// What the kernel says of the process; absent where it does not.
    pub process: Option<Process>,
}

/// A service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Its versions, in the file's order.
    pub versions: Vec<Version>,
    /// Whether a version that has a share has an endpoint that serves.
    pub available: bool,
    /// Whether baseline and canaries fail alike; nothing if they are not compared.
    pub shared_outage: Option<bool>,
    /// Whether its weights are not in force, since nobody would serve by them.
    pub weights_refused: bool,
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
    /// Log evidence against it, in nats, by what is compared.
    pub evidence_log: Vec<(String, f64)>,
    /// Log evidence of all that is compared together at which it is ejected, likewise.
    pub evidence_threshold: Vec<(String, f64)>,
    /// Times the whole version was taken out, by reason.
    pub ejections: Vec<(&'static str, u64)>,
    /// Events of its comparison that change nothing by themselves, by kind.
    pub events: Vec<(&'static str, u64)>,
    /// Requests that its circuit breaker answered, by the limit reached.
    pub shed: Vec<(&'static str, u64)>,
    /// Attempts beyond the first, by reason.
    pub retries: Vec<(&'static str, u64)>,
    /// What its answers carried.
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
    /// Answers that carried it.
    pub count: u64,
    /// What they carried together.
    pub sum: f64,
    /// Answers in which it could not be read.
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
    /// Finishes what is in flight.
    Draining,
    /// Ejected by a verdict or by an operator.
    Ejected,
}

/// An endpoint of a version.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    /// Address as in the configuration.
    pub address: String,
    /// Until the head of the answer: the last minute.
    pub minute: Quantiles,
    /// Until the head of the answer: since start.
    pub total: Quantiles,
    /// Connections made to it.
    pub connections: u64,
    /// What making them took altogether.
    pub connecting: Duration,
    /// Faults of this endpoint.
    pub errors: Errors,
    /// Whether it serves and can be connected.
    pub serves: bool,
    /// Good and bad checks of it.
    pub checks: [u64; 2],
    /// Times this endpoint alone was taken out, by reason.
    pub ejections: Vec<(&'static str, u64)>,
}

/// Faults by kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Errors {
    /// No connection.
    pub connect: u64,
    /// No answer in time.
    pub timeout: u64,
    /// Connection closed or reset before the answer ended.
    pub reset: u64,
    /// An answer that is not HTTP.
    pub protocol: u64,
    /// An answer with a status of 500 or more.
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
    /// Answers 1xx, 2xx, 3xx, 4xx and 5xx.
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
    /// Connections closed at once, since there were too many.
    pub shed: u64,
    /// Likewise, since there were too many of their address.
    pub shed_per_client: u64,
    /// Connections closed for want of a good PROXY protocol head.
    pub proxy_protocol_errors: u64,
    /// Connections closed, since their client did not come to speak TLS.
    pub tls_handshakes_failed: u64,
}

/// A certificate in force at a listener.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The listener's address as in the configuration.
    pub listener: String,
    /// The certificate's file.
    pub file: String,
    /// Its last moment.
    pub not_after: SystemTime,
}

/// The text of a scrape, in the exposition format 0.0.4.
pub fn render(scrape: &Scrape) -> String {
    let mut page = text::Page::default();
    families::traffic(scrape, &mut page);
    families::services(scrape, &mut page);
    families::versions(scrape, &mut page);
    families::breakers(scrape, &mut page);
    families::evidence(scrape, &mut page);
    families::amounts(scrape, &mut page);
    families::endpoints(scrape, &mut page);
    families::proxy(scrape, &mut page);
    families::certificates(scrape, &mut page);
    families::process(scrape, &mut page);
    page.into_text()
}

#[cfg(test)]
mod tests;
