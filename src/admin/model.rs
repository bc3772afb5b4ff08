//! What the admin API reads and writes, as JSON. Names of fields are part of the public contract.
//!
//! A rate or a quantile of nothing is `null`, not 0: nobody should take a version that was not asked
//! for one that answers at once and without errors.

use std::{collections::BTreeMap, fmt, time::Duration};

use indexmap::{IndexMap, map::Entry};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{
    config::{Problem, schema::Labels, units::Weight},
    rollout::view,
    snapshot,
    telemetry::{collector::Latency, histogram::Quantiles, metrics},
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
    /// Its versions, in the order of the file.
    pub versions: Vec<Version>,
    /// Answers of gates; there are no gates in this release.
    pub verdicts: [(); 0],
}

/// A version of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its name.
    pub name: String,
    /// Its relative weight.
    pub weight: f64,
    /// Its share of players: the weight over the sum of weights.
    pub share: f64,
    /// Its state.
    pub state: State,
    /// Requests begun and not ended.
    pub in_flight: u64,
    /// What release it is.
    pub labels: Labels,
    /// Requests ended since start.
    pub requests: u64,
    /// Of those, answered with 500 or above, by the version or on its behalf.
    pub errors: u64,
    /// `errors` over `requests`, to six digits; null before the first request ended.
    pub error_rate: Option<f64>,
    /// Time to the head of an answer over the last minute; null if there was none.
    pub latency_ms: Option<LatencyMs>,
    /// Where it is reached now; empty while its name is not resolved.
    pub endpoints: Vec<Endpoint>,
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
    /// Taken out by a verdict or by word.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its address and port.
    pub address: String,
    /// Its state.
    pub state: EndpointState,
    /// Attempts begun and not ended.
    pub in_flight: u64,
}

/// State of an endpoint. Without health checks, as in this release, each one is serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Gets requests.
    Serving,
}

/// `GET /v1/status`: the process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Version of Tidegate.
    pub version: &'static str,
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// XXH3-64 of the file's bytes, 16 hex digits.
    pub config_hash: String,
    /// The file; null if the configuration did not come from one.
    pub config_file: Option<String>,
    /// Time since start, in seconds.
    pub uptime_seconds: f64,
    /// Worker threads.
    pub workers: usize,
    /// Whether the process is to end.
    pub draining: bool,
    /// Open client connections.
    pub connections: usize,
    /// Listening sockets, in the order of the file.
    pub listeners: Vec<Listener>,
    /// Weights set while running that are in force, by service and version.
    pub overrides: BTreeMap<String, IndexMap<String, Weight>>,
    /// How reloads went.
    pub reload: Reload,
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Where it is bound.
    pub address: String,
    /// Open client connections.
    pub open: u64,
    /// Connections accepted since start.
    pub accepted: u64,
    /// Of those, closed at once since there were too many.
    pub shed: u64,
}

/// How reloads went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reload {
    /// Files taken over, or found unchanged.
    pub applied: u64,
    /// Bad files, which changed nothing.
    pub rejected: u64,
    /// What was wrong with the last file; null if nothing was.
    pub error: Option<ReloadError>,
}

/// Why a file was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadError {
    /// One line.
    pub message: String,
    /// Each place in the file that is wrong; empty if the file could not be read.
    pub problems: Vec<Problem>,
}

/// Body of `PUT /v1/services/{s}/weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsRequest {
    /// Weights by version; a version not named gets 0.
    #[serde(deserialize_with = "each_once")]
    pub weights: IndexMap<String, Weight>,
    /// Why, for the log; at most [`WeightsRequest::REASON_CHARS`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl WeightsRequest {
    /// Longest reason: it becomes part of one line of the log.
    pub const REASON_CHARS: usize = 1000;
}

/// Answer to `PUT /v1/services/{s}/weights`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightsAnswer {
    /// Generation that the weights are in force from; of a dry run the one in force now.
    pub generation: u64,
    /// The service.
    pub service: String,
    /// Weights before, by version.
    pub before: IndexMap<String, Weight>,
    /// Weights after, by version.
    pub after: IndexMap<String, Weight>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

impl Service {
    /// What is shown of `service`; `latencies` are those of its versions, in their order.
    pub fn new(service: &snapshot::Service, generation: u64, latencies: &[Latency]) -> Self {
        let sum: f64 = service.versions.iter().map(|v| v.weight.value()).sum();
        let each = service.versions.iter().zip(latencies);
        Self {
            name: service.name.to_string(),
            generation,
            baseline: service.versions[usize::from(service.baseline)].name.to_string(),
            versions: each.map(|(version, latency)| Version::new(version, sum, latency)).collect(),
            verdicts: [],
        }
    }
}

impl Version {
    fn new(version: &snapshot::Version, sum_of_weights: f64, latency: &Latency) -> Self {
        let cells = &version.state.cells;
        // Errors first: read the other way around, a request that ends in between could be an error
        // more than there were requests.
        let errors = cells.sum(|c| c.errors.read());
        let requests = cells.sum(|c| c.finished.read());
        let weight = version.weight.value();
        let endpoints = version.endpoints.iter().map(|endpoint| Endpoint {
            address: endpoint.label.to_string(),
            state: EndpointState::Serving,
            in_flight: view::endpoint_in_flight(endpoint),
        });
        Self {
            name: version.name.to_string(),
            weight,
            share: if sum_of_weights > 0.0 { weight / sum_of_weights } else { 0.0 },
            state: view::state(version).into(),
            in_flight: view::in_flight(version),
            labels: version.labels.clone(),
            requests,
            errors,
            error_rate: rate(errors, requests),
            latency_ms: LatencyMs::new(&latency.minute),
            endpoints: endpoints.collect(),
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

fn rate(errors: u64, requests: u64) -> Option<f64> {
    (requests > 0).then(|| (errors as f64 / requests as f64 * 1e6).round() / 1e6)
}

/// A map in which a name that stands twice is an error: which of the two was meant?
fn each_once<'de, D: Deserializer<'de>>(d: D) -> Result<IndexMap<String, Weight>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = IndexMap<String, Weight>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of weights by version")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut weights = IndexMap::new();
            while let Some((version, weight)) = map.next_entry::<String, Weight>()? {
                match weights.entry(version) {
                    Entry::Vacant(entry) => entry.insert(weight),
                    Entry::Occupied(entry) => {
                        let twice = format_args!("`{}` stands twice; name it once", entry.key());
                        return Err(de::Error::custom(twice));
                    }
                };
            }
            Ok(weights)
        }
    }
    d.deserialize_map(Visitor)
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

    #[test]
    fn weights_keep_their_order_and_stand_once() {
        let parse = serde_json::from_str::<WeightsRequest>;
        let request = parse(r#"{"weights": {"v42": 10, "v41": 90.5}}"#).unwrap();
        assert!(request.weights.keys().eq(["v42", "v41"]));
        assert_eq!(request.reason, None);
        let twice = parse(r#"{"weights": {"v42": 10, "v42": 90}}"#).unwrap_err();
        assert!(twice.to_string().starts_with("`v42` stands twice"), "{twice}");
    }
}
