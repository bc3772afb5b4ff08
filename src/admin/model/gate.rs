//! The answer of a gate, as pipelines and other controllers read it.

use serde::{Deserialize, Serialize};

use crate::{
    analysis::{Answer, Arms, HealthFinding},
    control::controller::GateReport,
    telemetry::rfc3339,
};

/// `GET /v1/services/{s}/gate`: whether a version may grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// The answer.
    pub answer: Answer,
    /// Whether the version is ejected.
    pub ejected: bool,
    /// Why, as a sentence.
    pub reason: String,
    /// Evidence of all metrics together against the version, in nats; null before the first block, and while
    /// the version is not compared.
    pub log_evidence: Option<f64>,
    /// The evidence at which the answer becomes `fail`; null while the version is not compared.
    pub log_threshold: Option<f64>,
    /// Evidence that the version is healthy; null where errors are not compared.
    pub certificate: Option<HealthFinding>,
    /// Requests that were compared since the comparison began.
    pub requests: Arms<u64>,
    /// Since when the answer has been the same, as RFC 3339 in UTC; null if the version is neither compared nor
    /// ejected.
    pub since: Option<String>,
}

impl Gate {
    /// The document of a `report` on `version` of `service`.
    pub fn new(service: String, version: String, report: GateReport) -> Self {
        let GateReport { answer, ejected, reason, since, comparison } = report;
        Self {
            service,
            version,
            answer,
            ejected,
            reason,
            log_evidence: comparison.and_then(|found| found.log_evidence),
            log_threshold: comparison.map(|found| found.log_threshold),
            certificate: comparison.and_then(|found| found.health),
            requests: comparison.map(|found| found.requests).unwrap_or_default(),
            since: since.map(|since| rfc3339::seconds(since).to_string()),
        }
    }
}
