//! What a process has fetched and measured, on its way to the one that takes over: keys of issuers of tokens, evidence with
//! its records, latencies, and reports of incidents that are in no file.
//!
//! It goes in pieces, each of which stands for itself. A piece that cannot be read, such as one of another
//! release, is logged and dropped: what it is about begins anew, and the takeover goes on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{evaluator::CarriedEvidence, tasks::ControlPlane};
use crate::{
    incident::Incident,
    registry::KeyDocument,
    snapshot::Snapshot,
    telemetry::{collector::Collector, histogram::CarriedHistogram},
};

/// Time to write the pieces. Clients wait meanwhile.
const WRITTEN_WITHIN: Duration = Duration::from_millis(100);

/// One piece.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Piece {
    /// What the URL of an issuer's keys gave last.
    IssuerKeys {
        /// The URL.
        url: String,
        /// The set of keys (JWKS).
        document: Arc<str>,
        /// Time since the URL gave it.
        age: Duration,
        /// Whether this process or one that handed over to it got it from the URL.
        is_confirmed: bool,
    },
    /// The time on the clock of all evidence.
    JudgingTime(Duration),
    /// The evidence of one service.
    Evidence(Box<CarriedEvidence>),
    /// The latencies of one service.
    Latencies {
        /// The service.
        service: String,
        /// Those of its versions and endpoints that have some.
        latencies: Vec<CarriedLatency>,
    },
    /// The report of an incident.
    Incident(Arc<Incident>),
}

/// Latencies of a version, or of one of its endpoints.
#[derive(Debug, Serialize, Deserialize)]
struct CarriedLatency {
    version: String,
    endpoint: Option<String>,
    histogram: CarriedHistogram,
}

impl ControlPlane {
    /// What this process has fetched and measured, for the next one: pieces in the order of their importance.
    pub fn carried_past(&self) -> Vec<Vec<u8>> {
        let until = Instant::now() + WRITTEN_WITHIN;
        let (time, evidence) = {
            let controller = self.controller();
            (controller.judging_time(), controller.carried_evidence())
        };
        let evidence = evidence.into_iter().map(|of| Piece::Evidence(Box::new(of)));
        let snapshot = self.controller().snapshot();
        let incidents = self.carried_incidents().into_iter().map(Piece::Incident);
        let mut latencies = self.latencies();
        let latencies = carried_latencies(&snapshot, &mut latencies.collector);
        let pieces = self
            .carried_keys()
            .into_iter()
            .chain([Piece::JudgingTime(time)])
            .chain(evidence)
            .chain(latencies)
            .chain(incidents);
        let mut written = Vec::new();
        for piece in pieces {
            if Instant::now() >= until {
                tracing::warn!("no time to hand over all measurements; a part of them begins anew");
                break;
            }
            // Cannot fail: all keys are texts.
            written.extend(serde_json::to_vec(&piece));
        }
        written
    }

    /// Without these, all tokens of an issuer that cannot be reached would be refused.
    fn carried_keys(&self) -> Vec<Piece> {
        let registry = Arc::clone(self.controller().registry());
        let each = registry.key_documents().all().into_iter();
        let piece = |(url, document): (String, KeyDocument)| Piece::IssuerKeys {
            url,
            age: document.came.elapsed(),
            document: document.text,
            is_confirmed: document.is_confirmed,
        };
        each.map(piece).collect()
    }

    /// Continues with the pieces of the process before. Must come before this process judges.
    pub fn inherit_past(&self, pieces: &[Vec<u8>]) {
        let registry = Arc::clone(self.controller().registry());
        let (mut time, mut evidence) = (Duration::ZERO, Vec::new());
        for piece in pieces {
            match serde_json::from_slice(piece) {
                Ok(Piece::IssuerKeys { url, document: text, age, is_confirmed }) => {
                    let document = KeyDocument { text, came: ago(age), is_confirmed };
                    registry.adopt_keys(&url, document);
                }
                Ok(Piece::JudgingTime(at)) => time = at,
                Ok(Piece::Evidence(of)) => evidence.push(*of),
                Ok(Piece::Latencies { service, latencies }) => {
                    self.inherit_latencies(&service, &latencies);
                }
                Ok(Piece::Incident(incident)) => {
                    self.inherit_incident(Arc::unwrap_or_clone(incident));
                }
                Err(error) => {
                    tracing::warn!(%error, "unknown keys or measurements of the process before; they begin anew");
                }
            }
        }
        self.controller().inherit_evidence(evidence, time);
    }

    fn inherit_latencies(&self, service: &str, latencies: &[CarriedLatency]) {
        let snapshot = self.controller().snapshot();
        let Some(service) = snapshot.service(service) else { return };
        let (mut known, now) = (self.latencies(), Instant::now());
        for CarriedLatency { version, endpoint, histogram } in latencies {
            let Some(version) = service.version(version) else { continue };
            let Some(endpoint) = endpoint else {
                known.collector.resume_version(version.state.id, histogram, now);
                continue;
            };
            let mut endpoints = version.known.iter().map(|known| &known.state);
            if let Some(endpoint) = endpoints.find(|known| *known.label == **endpoint) {
                known.collector.resume_endpoint(endpoint.id, histogram, now);
            }
        }
    }
}

/// The moment that was `age` ago.
fn ago(age: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

/// The latencies of each service of `snapshot`.
fn carried_latencies(
    snapshot: &Snapshot,
    collector: &mut Collector,
) -> impl Iterator<Item = Piece> {
    let now = Instant::now();
    snapshot.services.iter().map(move |service| {
        let mut latencies = Vec::new();
        for version in &service.versions {
            let mut add = |endpoint, histogram: Option<CarriedHistogram>| {
                let version = version.name.to_string();
                latencies.extend(histogram.map(|h| CarriedLatency {
                    version,
                    endpoint,
                    histogram: h,
                }));
            };
            add(None, collector.carried_version(version.state.id, now));
            for endpoint in &version.known {
                let label = endpoint.state.label.to_string();
                add(Some(label), collector.carried_endpoint(endpoint.state.id, now));
            }
        }
        Piece::Latencies { service: service.name.to_string(), latencies }
    })
}
