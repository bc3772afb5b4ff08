//! `/v1/key`: what is known of an idempotency key.

use serde::{Deserialize, Serialize};

/// `GET /v1/key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAnswer {
    /// The service of the route.
    pub service: String,
    /// The route.
    pub route: String,
    /// The source by which the player is known: of those that are asked the first one with the key.
    pub source: String,
    /// The name of the key in the access log.
    pub key: String,
    /// What is known of it.
    pub state: KeyKnown,
    /// Status of the response, if it is kept; null otherwise.
    pub status: Option<u16>,
    /// Seconds since it began, by the window in force; null if it is unknown.
    pub age_seconds: Option<u32>,
    /// Seconds until it is forgotten; null if it is unknown.
    pub left_seconds: Option<u32>,
    /// Hash of what its first request asked for; null if it is unknown.
    pub fingerprint: Option<String>,
    /// Whether the host is part of that hash: not if an earlier release wrote it; null if it is unknown.
    pub fingerprint_has_host: Option<bool>,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKnown {
    /// Nothing: no request with it is remembered.
    Unknown,
    /// A request with it is under way.
    InFlight,
    /// It has a final response.
    Answered,
    /// Its request was sent, and nobody knows whether it was processed.
    Unsure,
}
