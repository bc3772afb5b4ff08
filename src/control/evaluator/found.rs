//! Findings of an evaluation, for the controller to act on.

use crate::{
    analysis::{Advised, Finding, OutageChange, Verdict},
    config::schema::Mode,
};

/// A finding about a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A version is worse than the baseline.
    Worse(Box<CanaryFinding>),
    /// Evidence against a version is above half of its threshold.
    NearMiss(Box<CanaryFinding>),
    /// Evidence against a version has fallen well below its threshold again.
    NearMissOver(Box<CanaryFinding>),
    /// The players who failed on an ejected version fail on other versions as well.
    Mistake {
        /// The service.
        service: Box<str>,
        /// The version.
        version: Box<str>,
        /// Players who failed again.
        failed: u64,
        /// Players whose results are known.
        of: u64,
    },
    /// Advice to operators about a version, without a decision.
    Advice(Box<Advice>),
    /// A version that was worse or a near-miss has no share any more, or is compared by other limits.
    NoLongerCompared {
        /// The service.
        service: Box<str>,
        /// Its version.
        version: Box<str>,
    },
    /// The baseline and the canaries both fail, or no longer do.
    SharedOutage {
        /// The service.
        service: Box<str>,
        /// The beginning or the end, with counts of all canaries together and of the baseline.
        change: OutageChange,
    },
}

/// A version with evidence against it.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryFinding {
    /// The service.
    pub service: Box<str>,
    /// The version.
    pub version: Box<str>,
    /// The route with limits of its own on which it was found; `None` for all other routes together.
    pub route: Option<Box<str>>,
    /// The action on a bad verdict.
    pub mode: Mode,
    /// The numbers.
    pub verdict: Verdict,
}

/// Advice to operators about a version, besides its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// The service.
    pub service: Box<str>,
    /// The version.
    pub version: Box<str>,
    /// The route with limits of its own on which it was found; `None` for all other routes together.
    pub route: Option<Box<str>>,
    /// The kind of advice.
    pub advised: Advised,
    /// Its numbers.
    pub finding: Finding,
    /// Players of the version who failed.
    pub players: u64,
}
