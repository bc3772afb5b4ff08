//! What a look collects of a service: plain data, and all that goes from the collectors to the judge.
//!
//! It names no cell, no registry and no snapshot, so blocks that another process collected can be judged as
//! well. Versions are known by their names, and strata by their places in the configuration.

use std::{sync::Arc, time::Duration};

use crate::analysis::{Arms, Entry, Players, Tally};

/// How long a version is judged once it serves alone, and how long a baseline is remembered: the hours
/// of a day differ by themselves.
pub(super) const ALONE_FOR: Duration = Duration::from_secs(3600);

/// What a look collected of a service. Times are in the time of the judge.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ServiceBlocks {
    /// A window over the endpoints of the baseline, if one closed.
    pub(super) endpoints: Option<EndpointWindow>,
    /// A window over all canaries together and the baseline, if one closed.
    pub(super) outage: Option<Arms<Tally>>,
    /// Of canaries beside the baseline.
    pub(super) canaries: Vec<VersionBlocks<Collected>>,
    /// Players who are followed after an ejection, of whom it is known how they fared, since it.
    pub(super) followed: Players,
    /// Of versions with no baseline beside them.
    pub(super) alone: Vec<VersionBlocks<Entry>>,
    /// What the baseline did, if it is time to learn that.
    pub(super) baseline: Option<BaselineBlock>,
}

/// What players did at each endpoint of the baseline that served all the time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct EndpointWindow {
    /// Trials and failures, by endpoint.
    pub(super) endpoints: Vec<Tally>,
    /// Length of the window.
    pub(super) length: Duration,
}

/// Blocks of a version: of a canary and its baseline, or of a version alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct VersionBlocks<T> {
    /// The version.
    pub(super) version: Arc<str>,
    /// By stratum, in the order in which they are judged.
    pub(super) strata: Vec<Vec<T>>,
}

/// Something that the comparison of a canary over a stratum is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Collected {
    /// What does not change any more.
    Final(Entry),
    /// Blocks as they stand while requests wait for their outcomes. They count only if with them the canary
    /// fails; else they come again.
    SoFar(Vec<Entry>),
}

/// What a baseline did.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BaselineBlock {
    /// The version.
    pub(super) version: Arc<str>,
    /// By stratum.
    pub(super) strata: Vec<BaselineStratum>,
}

/// What a baseline did on the requests of a stratum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct BaselineStratum {
    /// First attempts since the block before.
    pub(super) requests: Tally,
    /// Its latency, as far as it is known.
    pub(super) p95: Option<Duration>,
    /// The same.
    pub(super) p99: Option<Duration>,
}

impl ServiceBlocks {
    /// The blocks of several collectors of one service.
    ///
    /// Blocks of a canary stand one after the other, and are not added up: each is a bet of its own, which is
    /// fair whatever the split was where it was collected. Sums over different splits would make two equal
    /// versions different (Simpson's paradox).
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
    /// Of another baseline nothing is taken over. Quantiles are the larger ones: a bound that is made of them
    /// must not be too strict.
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

/// Puts the blocks of `more` behind those of the same version and stratum.
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
