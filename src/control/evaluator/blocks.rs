//! The result of collecting: plain data, the only input of the judge.
//!
//! It names no cell, no registry and no snapshot, so blocks that another process collected can be judged as
//! well. Versions are known by their names, strata by their places in the configuration.

use std::{sync::Arc, time::Duration};

use crate::analysis::{Arms, Entry, Players, Tally};

/// How long a version that serves alone is judged, and how long a baseline is remembered: traffic differs by
/// the hour of the day.
pub(super) const ALONE_FOR: Duration = Duration::from_secs(3600);

/// What one evaluation collected for a service. Times are on the clock of the judge.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ServiceBlocks {
    /// A window over the endpoints of the baseline, if one closed.
    pub(super) endpoints: Option<EndpointWindow>,
    /// A window over all canaries together and the baseline, if one closed.
    pub(super) outage: Option<Arms<Tally>>,
    /// Blocks of canaries with a baseline.
    pub(super) canaries: Vec<VersionBlocks<Collected>>,
    /// Players followed after an ejection whose results are known, since the ejection.
    pub(super) followed: Players,
    /// Blocks of versions without a baseline.
    pub(super) alone: Vec<VersionBlocks<Entry>>,
    /// Data of the baseline, if it is due.
    pub(super) baseline: Option<BaselineBlock>,
}

/// Counts of players at each endpoint of the baseline that served all the time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct EndpointWindow {
    /// Trials and failures, by endpoint.
    pub(super) endpoints: Vec<Tally>,
    /// Length of the window.
    pub(super) length: Duration,
}

/// Blocks of a version: of a canary with its baseline, or of a version alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct VersionBlocks<T> {
    /// The version.
    pub(super) version: Arc<str>,
    /// By stratum, in the order of judgement.
    pub(super) strata: Vec<Vec<T>>,
}

/// An input of a canary's comparison over a stratum.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Collected {
    /// An entry that does not change any more.
    Final(Entry),
    /// Blocks as they are while requests wait for their outcomes. They count only if the canary fails with
    /// them; otherwise they are collected again later.
    SoFar(Vec<Entry>),
}

/// Data of a baseline.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BaselineBlock {
    /// The version.
    pub(super) version: Arc<str>,
    /// By stratum.
    pub(super) strata: Vec<BaselineStratum>,
}

/// Data of a baseline on the requests of a stratum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct BaselineStratum {
    /// First attempts since the block before.
    pub(super) requests: Tally,
    /// Its 95th percentile of latency, if known.
    pub(super) p95: Option<Duration>,
    /// Its 99th percentile of latency, if known.
    pub(super) p99: Option<Duration>,
}

impl ServiceBlocks {
    /// Merges the blocks of several collectors of one service.
    ///
    /// Blocks of a canary are concatenated, not added up: each is a bet of its own, which is fair whatever the
    /// split was at its collector. With sums over different splits two equal versions would seem different
    /// (Simpson's paradox).
    pub(super) fn merged(collected: impl IntoIterator<Item = Self>) -> Self {
        collected.into_iter().reduce(Self::with).unwrap_or_default()
    }

    fn with(mut self, more: Self) -> Self {
        let Self { endpoints, outage, canaries, followed, alone, baseline } = more;
        self.endpoints = both(self.endpoints, endpoints, EndpointWindow::with);
        self.outage = both(self.outage, outage, |mut sum, more| {
            sum += more;
            sum
        });
        extend(&mut self.canaries, canaries);
        self.followed.asked += followed.asked;
        self.followed.recovered += followed.recovered;
        extend(&mut self.alone, alone);
        self.baseline = both(self.baseline, baseline, BaselineBlock::with);
        self
    }
}

impl EndpointWindow {
    fn with(mut self, more: Self) -> Self {
        self.endpoints.extend(more.endpoints);
        self.length = self.length.max(more.length);
        self
    }
}

impl BaselineBlock {
    /// Merges two. Data of a different baseline is dropped. Of two quantiles the larger one is kept: a bound
    /// based on them must not be too strict.
    fn with(mut self, more: Self) -> Self {
        if self.version == more.version {
            for (own, more) in self.strata.iter_mut().zip(more.strata) {
                own.requests += more.requests;
                own.p95 = own.p95.max(more.p95);
                own.p99 = own.p99.max(more.p99);
            }
        }
        self
    }
}

fn both<T>(a: Option<T>, b: Option<T>, with: impl FnOnce(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(with(a, b)),
        (a, b) => a.or(b),
    }
}

/// Appends the blocks of `more` to those of the same version and stratum.
fn extend<T>(all: &mut Vec<VersionBlocks<T>>, more: Vec<VersionBlocks<T>>) {
    for VersionBlocks { version, strata } in more {
        match all.iter_mut().find(|own| own.version == version) {
            Some(own) => append(&mut own.strata, strata),
            None => all.push(VersionBlocks { version, strata }),
        }
    }
}

fn append<T>(strata: &mut Vec<Vec<T>>, more: Vec<Vec<T>>) {
    strata.resize_with(strata.len().max(more.len()), Vec::new);
    strata.iter_mut().zip(more).for_each(|(own, more)| own.extend(more));
}
