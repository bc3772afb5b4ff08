//! What a look finds out, for those who act on it.

use crate::{
    analysis::{Advised, Finding, OutageChange, Verdict},
    config::schema::Mode,
};

/// What a look found out about a service.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A version is worse than the baseline.
    Worse(Box<CanaryFinding>),
    /// Evidence against a version is above half of its threshold.
    NearMiss(Box<CanaryFinding>),
    /// It is far from it again.
    NearMissOver(Box<CanaryFinding>),
    /// The players who failed on an ejected version go on failing elsewhere.
    Mistake {
        /// The service.
        service: Box<str>,
        /// The version.
        version: Box<str>,
        /// Players who failed again.
        failed: u64,
        /// Of so many of whom it is known.
        of: u64,
    },
    /// Something that decides nothing, and that people should know of a version.
    Advice(Box<Advice>),
    /// A version that was near or worse has no share any more, or is asked other questions.
    NoLongerCompared {
        /// The service.
        service: Box<str>,
        /// Its version.
        version: Box<str>,
    },
    /// Baseline and canaries both fail, or do no longer.
    SharedOutage {
        /// The service.
        service: Box<str>,
        /// Which of the two, with counts of all canaries together and the baseline.
        change: OutageChange,
    },
}

/// A version that does not look good.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryFinding {
    /// The service.
    pub service: Box<str>,
    /// The version.
    pub version: Box<str>,
    /// The route with limits of its own that it shows on; nothing for all others together.
    pub route: Option<Box<str>>,
    /// What is to be done about a bad verdict.
    pub mode: Mode,
    /// The numbers.
    pub verdict: Verdict,
}

/// What people are told of a version beside its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// The service.
    pub service: Box<str>,
    /// The version.
    pub version: Box<str>,
    /// The route with limits of its own that it shows on; nothing for all others together.
    pub route: Option<Box<str>>,
    /// What it is.
    pub advised: Advised,
    /// Its numbers.
    pub finding: Finding,
    /// Players of the version that failed.
    pub players: u64,
}
