//! JSON documents of the admin API. Names of fields are part of the public contract.
//!
//! A rate or a quantile without samples is `null`, not 0: a version without requests must not look
//! like one that responds at once and without errors.

mod audit;
mod change;
mod concurrency;
mod cutover;
mod digits;
mod ejection;
mod gate;
mod incident;
mod issuer;
mod key;
mod mode;
mod pins;
mod rollout;
mod said;
mod smoke;
mod status;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use indexmap::IndexMap;

pub use audit::{AuditEntry, AuditPage};
pub(super) use change::each_once;
pub use change::{
    NewWeight, RolloutStopped, Shares, SubjectAnswer, SubjectRequest, Unserved, WeightsAnswer,
    WeightsRequest,
};
pub use concurrency::Concurrency;
pub use cutover::{CutoverAnswer, CutoverRequest, RollbackRequest};
use digits::six_digits;
pub use ejection::{Decisions, Ejected, Ejection, WeightsSet};
pub use gate::Gate;
pub use incident::{IncidentList, KeptIn};
pub use issuer::Issuer;
pub use key::{KeyAnswer, KeyKnown};
pub use mode::{
    Mode, ModeAnswer, ModeName, ModeRequest, ModeService, Modes, Notice, NoticeAnswer, NoticeList,
};
pub use pins::{KeptBy, PinList, PinMoveAnswer, PinMoveRequest, ServicePins, VersionPins};
pub use rollout::{
    Priority, Rollout, RolloutAnswer, RolloutCommand, RolloutEntry, RolloutGate, RolloutRequest,
    RolloutStep, RolloutSummary,
};
pub use said::{ChangeBody, Said};
use serde::{Deserialize, Serialize};
pub use smoke::SmokeQuestion;
pub use status::{
    Certificate, Failing, Journal, Listener, ListenerTls, Reload, ReloadError, Status, Takeover,
    TakeoverError, VersionFault,
};

use crate::{
    analysis::Verdict,
    config::schema::Labels,
    control::{controller::Coverage, events::Event, scrape},
    health,
    policy::class::Class,
    registry::{AmountState, Origin},
    snapshot,
    telemetry::{collector::Latency, histogram::Quantiles, metrics, rfc3339},
};

/// `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// All services, in the order of the file.
    pub services: Vec<Service>,
}

/// `GET /v1/services/{s}`: a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// The version that others are compared with.
    pub baseline: String,
    /// Whether a version with a share has an endpoint that serves.
    #[serde(default)]
    pub available: bool,
    /// Why the configured weights are not in force: no version would serve, so one version serves
    /// all. Null if they are in force.
    #[serde(default)]
    pub weights_refused: Option<String>,
    /// Who set the weights at run time, when and why; null if they are those of the file.
    #[serde(default)]
    pub weights_set: Option<WeightsSet>,
    /// Its rollout in progress; null if there is none.
    #[serde(default)]
    pub rollout: Option<RolloutSummary>,
    /// Its limits of requests in flight: the one that its routes share, and those of routes.
    #[serde(default)]
    pub concurrency: Vec<Concurrency>,
    /// Its versions, in the order of the file.
    pub versions: Vec<Version>,
    /// How canaries compare with the baseline, and the verdicts that ejected versions, these first.
    pub verdicts: Vec<VersionVerdict>,
}

/// `GET /v1/events` for clients that accept only JSON: events, the oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventList {
    /// Number of the newest event, whether it is listed or not.
    pub newest: u64,
    /// The events that are kept.
    pub events: Vec<Arc<Event>>,
}

/// A verdict on a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionVerdict {
    /// The version.
    pub version: String,
    /// The route with limits of its own that was judged; null for all other routes together.
    pub route: Option<String>,
    /// When the difference of the first finding began, most likely, as RFC 3339 in UTC: its `onset_s`.
    /// Null if it has none.
    #[serde(default)]
    pub onset_at: Option<String>,
    /// The verdict with its numbers.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl VersionVerdict {
    /// A verdict of a comparison that began at `began`.
    fn new(
        version: String,
        route: Option<String>,
        verdict: Verdict,
        began: Option<SystemTime>,
    ) -> Self {
        let onset = verdict.findings.first().and_then(|finding| finding.onset_s);
        let onset = onset.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let onset = began.zip(onset).map(|(began, onset)| began + onset);
        let onset_at = onset.map(|at| rfc3339::seconds(at).to_string());
        Self { version, route, onset_at, verdict }
    }
}

/// A version of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// Its relative weight.
    pub weight: f64,
    /// Its share of players: the weight divided by the sum of weights; an ejected version and an
    /// unavailable canary have no weight.
    pub share: f64,
    /// Its state.
    pub state: State,
    /// Whether any of its endpoints serves. If none does, a canary's share is 0 until one does; the
    /// baseline, or the last version with a share, gets requests nevertheless.
    pub available: bool,
    /// Whether so few of its endpoints serve that endpoints which are out because of connect errors
    /// or health checks get requests, too.
    #[serde(default)]
    pub health_panic: bool,
    /// Names among its endpoints that cannot be resolved, with the reason. Earlier addresses of
    /// such a name are still used.
    #[serde(default)]
    pub unresolved: BTreeMap<String, String>,
    /// Who ejected it, when and why; null if it is not ejected.
    #[serde(default)]
    pub ejection: Option<Ejection>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Of those, writes: requests with a method that is not safe (RFC 9110 section 9.2.1).
    #[serde(default)]
    pub writes_in_flight: u64,
    /// Labels of the release.
    pub labels: Labels,
    /// Requests ended since start.
    pub requests: u64,
    /// Of those, requests with status 500 or above, from the version or made by Tidegate in its
    /// place.
    pub errors: u64,
    /// `errors` over `requests`, to six digits; null before the first request ended.
    pub error_rate: Option<f64>,
    /// Of `requests`, those that it failed and the baseline answered instead. They count against it
    /// in the comparison and are no `errors`, since the client saw none.
    #[serde(default)]
    pub rescued: u64,
    /// Time to the head of the response over the last minute; null if there was none.
    pub latency_ms: Option<LatencyMs>,
    /// Amounts of its responses since start, in the order of the file.
    pub amounts: IndexMap<String, Amount>,
    /// Its current endpoints; empty while its name is not resolved.
    pub endpoints: Vec<Endpoint>,
}

/// An amount in the responses of a version.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Amount {
    /// Responses with this amount, or, for a derived amount, with any of its terms.
    pub count: u64,
    /// The sum of the amounts, to six decimals.
    pub sum: f64,
    /// `sum` over `count`, to six decimals; null before the first.
    pub mean: Option<f64>,
}

/// State of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Gets new players.
    Serving,
    /// Has weight 0.
    Idle,
    /// Has weight 0 and finishes what is in flight.
    Draining,
    /// Ejected by a verdict or by an operator.
    Ejected,
}

/// Quantiles of latency, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyMs {
    /// The median.
    pub p50: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
}

/// An endpoint of a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address and port.
    pub address: String,
    /// Its state.
    pub state: EndpointState,
    /// Why it is ejected or probed: `connect`, `peers` or `word`; null otherwise.
    pub reason: Option<String>,
    /// Whether it can be connected; false only for the sole endpoint of a version, which gets
    /// requests nevertheless.
    #[serde(default = "yes")]
    pub reachable: bool,
    /// Who ejected it, when and why, if an operator did; null otherwise.
    #[serde(default)]
    pub ejection: Option<Ejection>,
    /// Attempts in flight.
    pub in_flight: u64,
    /// Its share of requests relative to its peers, 0 to 1, to six digits: less during a slow start, and while it says
    /// that it has too much to do.
    #[serde(default = "whole")]
    pub share: f64,
}

/// State of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Gets requests.
    Serving,
    /// Ejected for a while, or by an operator.
    Ejected,
    /// Is probed before it serves again.
    Probing,
    /// Its checks fail.
    Down,
}

impl From<health::State> for EndpointState {
    fn from(state: health::State) -> Self {
        match state {
            health::State::Serving => Self::Serving,
            health::State::Ejected => Self::Ejected,
            health::State::Probing => Self::Probing,
            health::State::Down => Self::Down,
        }
    }
}

impl Service {
    /// Creates the document of `service`; `latencies` are those of its versions, in their order.
    pub fn new(
        service: &snapshot::Service,
        generation: u64,
        latencies: &[Latency],
        decisions: Decisions,
    ) -> Self {
        let sum: f64 = service.versions.iter().map(|v| v.share_weight().value()).sum();
        let each = service.versions.iter().zip(latencies);
        Self {
            name: service.name.to_string(),
            generation,
            baseline: service.versions[usize::from(service.baseline)].name.to_string(),
            available: Coverage::of(service) == Coverage::Available,
            versions: each
                .map(|(version, latency)| Version::new(service, version, sum, latency, &decisions))
                .collect(),
            verdicts: decisions.verdicts,
            weights_refused: decisions.weights_refused,
            weights_set: decisions.weights_set,
            rollout: decisions.rollout,
            concurrency: Vec::new(),
        }
    }
}

impl Version {
    fn new(
        service: &snapshot::Service,
        version: &snapshot::Version,
        sum_of_weights: f64,
        latency: &Latency,
        decisions: &Decisions,
    ) -> Self {
        let (requests, errors) = version.state.ended(&Origin::ALL);
        let weight = version.weight.value();
        let endpoints = version.known.iter().map(|known| Endpoint {
            address: known.state.label.to_string(),
            state: known.state.standing.state().into(),
            reason: known.state.standing.cause().map(|cause| cause.label().to_owned()),
            ejection: (known.state.standing.cause() == Some(health::Cause::Manual))
                .then(|| (version.name.to_string(), known.state.label.to_string()))
                .and_then(|place| decisions.endpoints.get(&place).cloned()),
            reachable: !known.state.standing.is_unreachable(),
            in_flight: known.state.in_flight(),
            share: six_digits(f64::from(known.state.standing.share()) / f64::from(health::WHOLE)),
        });
        let amounts = service.amounts.iter().zip(&version.amounts);
        Self {
            name: version.name.to_string(),
            weight,
            share: if sum_of_weights > 0.0 {
                version.share_weight().value() / sum_of_weights
            } else {
                0.0
            },
            state: scrape::state(version).into(),
            available: version.known.iter().any(|known| known.state.standing.serves()),
            health_panic: version.panics(service.health.panic_threshold),
            unresolved: decisions.unresolved.get(&*version.name).cloned().unwrap_or_default(),
            ejection: decisions.ejections.get(&*version.name).cloned(),
            in_flight: version.state.in_flight(),
            writes_in_flight: version.state.in_flight_of(Class::Write),
            labels: version.labels.clone(),
            requests,
            errors,
            error_rate: rate(errors, requests),
            rescued: version.state.rescued(),
            latency_ms: LatencyMs::new(&latency.minute),
            amounts: amounts.map(|(a, state)| (a.name.to_string(), Amount::of(state))).collect(),
            endpoints: endpoints.collect(),
        }
    }
}

impl Amount {
    fn of(state: &AmountState) -> Self {
        let (count, sum) = (state.cells.sum(|c| c.count.read()), scrape::amount_sum(state));
        Self {
            count,
            sum: six_digits(sum),
            mean: (count > 0).then(|| six_digits(sum / count as f64)),
        }
    }
}

impl LatencyMs {
    fn new(quantiles: &Quantiles) -> Option<Self> {
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        (quantiles.count > 0).then(|| Self {
            p50: ms(quantiles.p50),
            p95: ms(quantiles.p95),
            p99: ms(quantiles.p99),
            p999: ms(quantiles.p999),
        })
    }
}

impl From<metrics::State> for State {
    fn from(state: metrics::State) -> Self {
        match state {
            metrics::State::Serving => Self::Serving,
            metrics::State::Idle => Self::Idle,
            metrics::State::Draining => Self::Draining,
            metrics::State::Ejected => Self::Ejected,
        }
    }
}

fn whole() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn rate(errors: u64, requests: u64) -> Option<f64> {
    (requests > 0).then(|| six_digits(errors as f64 / requests as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_nothing_is_null_and_others_are_short() {
        assert_eq!(rate(0, 0), None);
        assert_eq!(rate(31, 91_022), Some(0.000341));
        assert_eq!(rate(1, 1), Some(1.0));
    }

    #[test]
    fn quantiles_of_nothing_are_null() {
        assert_eq!(LatencyMs::new(&Quantiles::default()), None);
        let quantiles =
            Quantiles { count: 1, p50: Duration::from_micros(3_100), ..Default::default() };
        assert_eq!(LatencyMs::new(&quantiles).unwrap().p50, 3.1);
    }
}
