//! Judges the blocks of one service, whichever process collected them.
//!
//! The judge holds the state of the comparisons and is a function of its arguments: blocks, limits and the
//! time. It reads no clock, no cell and no registry. The same blocks lead to the same verdict, to the last
//! digit, and blocks of several collectors are judged together.
//!
//! [`ServiceJudge::judge`] returns what is *new*, for the controller to act on. [`ServiceJudge::answer`]
//! returns the current result of a comparison at any time.

mod alone;
mod canary;
mod carried;
mod followed;
mod history;
mod line;

use std::{sync::Arc, time::Duration};

pub(super) use self::carried::CarriedJudge;
use self::{
    alone::StandaloneVersion,
    canary::CanaryComparison,
    followed::{Followed, Outcome},
    history::BaselineHistory,
    line::StratumComparison,
};
use super::{
    blocks::{ServiceBlocks, VersionBlocks},
    found::Found,
};
use crate::{
    analysis::{Dispersion, GateAnswer, Limits, Outage, Record, Standing, Verdict},
    config::schema::{Mode, Slo},
};

/// The limits by which the versions of a service are judged.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Terms {
    /// The service.
    pub(super) service: Box<str>,
    /// The action on a bad verdict.
    pub(super) mode: Mode,
    /// By stratum.
    pub(super) strata: Box<[StratumTerms]>,
}

/// The limits for the requests of a stratum.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StratumTerms {
    /// The route with limits of its own; `None` for all other routes together.
    pub(super) route: Option<Box<str>>,
    /// Limits of a comparison.
    pub(super) limits: Limits,
    /// Limits of a version without a baseline.
    pub(super) slo: Slo,
}

/// The comparisons of one service.
#[derive(Debug, Clone)]
pub(super) struct ServiceJudge {
    terms: Terms,
    /// The size of the clusters in which failures come.
    clusters: Dispersion,
    outage: Outage,
    canaries: Vec<CanaryComparison>,
    /// Versions that serve without a baseline.
    alone: Vec<StandaloneVersion>,
    /// Players of the version that was ejected last.
    followed: Option<Followed>,
    history: BaselineHistory,
}

impl ServiceJudge {
    /// A judge that has seen no block yet.
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            clusters: Dispersion::default(),
            outage: Outage::default(),
            canaries: Vec::new(),
            alone: Vec::new(),
            followed: None,
            history: BaselineHistory::default(),
        }
    }

    /// Restarts with other `terms` or other arms, to which the evidence so far does not apply. Returns the
    /// findings caused by the end of the comparisons.
    pub(super) fn ask_anew(&mut self, terms: Terms) -> Vec<Found> {
        let Self { clusters, followed, history, .. } = self;
        let new = Self {
            clusters: std::mem::take(clusters),
            followed: followed.take(),
            history: std::mem::take(history),
            ..Self::new(terms)
        };
        std::mem::replace(self, new).end()
    }

    /// Keeps the evidence so far; `terms` differ only in the required certainty or in the action on a verdict.
    /// Returns the canaries whose comparisons restart.
    pub(super) fn demand(&mut self, terms: Terms, now: Duration) -> Vec<Arc<str>> {
        self.terms = terms;
        let (terms, phi) = (&self.terms, self.clusters.phi());
        let mut anew = Vec::new();
        for canary in &mut self.canaries {
            for (line, stratum) in canary.lines.iter_mut().zip(&terms.strata) {
                line.demand(&stratum.limits);
            }
            if canary.has_failed() && terms.mode == Mode::Act {
                // The finding may be hours old. An action needs current evidence.
                *canary =
                    CanaryComparison::new(Arc::clone(&canary.version), lines(terms, phi, now), now);
                anew.push(Arc::clone(&canary.version));
            }
        }
        anew
    }

    /// Ends the comparisons of all versions except these. Returns the findings that this causes.
    pub(super) fn retain(&mut self, canaries: &[&str], alone: &[&str]) -> Vec<Found> {
        let terms = &self.terms;
        let gone = self.canaries.extract_if(.., |canary| !canaries.contains(&&*canary.version));
        let mut found: Vec<_> = gone.filter_map(|canary| canary.end(terms)).collect();
        let gone = self.alone.extract_if(.., |version| !alone.contains(&&*version.version));
        found.extend(gone.filter_map(|version| version.end(terms)));
        found
    }

    /// Whether `version` is compared.
    pub(super) fn compares(&self, version: &str) -> bool {
        self.canary(version).is_some()
    }

    /// Versions that are judged, with a baseline or alone.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Arc<str>> {
        let canaries = self.canaries.iter().map(|canary| &canary.version);
        canaries.chain(self.alone.iter().map(|alone| &alone.version))
    }

    /// Whether `version` is judged without a baseline.
    pub(super) fn judges_alone(&self, version: &str) -> bool {
        self.alone.iter().any(|alone| *alone.version == *version)
    }

    /// Begins at `now` to compare the canary `version`.
    pub(super) fn begin_canary(&mut self, version: Arc<str>, now: Duration) {
        let lines = lines(&self.terms, self.clusters.phi(), now);
        self.canaries.push(CanaryComparison::new(version, lines, now));
    }

    /// Begins at `now` to judge `version` without a baseline.
    pub(super) fn begin_alone(&mut self, version: Arc<str>, now: Duration) {
        self.alone.push(StandaloneVersion::new(version, &self.terms, &self.history, now));
    }

    /// By stratum, whether there are limits for `version`, which is judged without a baseline.
    pub(super) fn judged_alone(&self, version: &str) -> Vec<bool> {
        let alone = self.alone.iter().find(|alone| *alone.version == *version);
        alone.map(|alone| alone.judged().collect()).unwrap_or_default()
    }

    /// Judges blocks of any number of collectors and returns new findings. A finding is returned once for as
    /// long as its version keeps its share.
    pub(super) fn judge(
        &mut self,
        collected: impl IntoIterator<Item = ServiceBlocks>,
        now: Duration,
    ) -> Vec<Found> {
        let mut blocks = ServiceBlocks::merged(collected);
        let mut found = Vec::new();
        if let Some(change) = blocks.outage.and_then(|window| self.outage.observe(window)) {
            found.push(Found::SharedOutage { service: self.terms.service.clone(), change });
        }
        let followed = blocks.followed;
        let alone = std::mem::take(&mut blocks.alone);
        let baseline = blocks.baseline.take();
        self.take_in(blocks);
        let terms = &self.terms;
        for canary in &mut self.canaries {
            found.extend(canary.judge(terms, now));
            found.extend(canary.advise(terms));
        }
        if let Some(of) = &self.followed {
            let version = of.version.clone();
            match of.poll(followed, now) {
                Outcome::Open => {}
                Outcome::Helped => self.followed = None,
                Outcome::DidNotHelp([failed, of]) => {
                    self.followed = None;
                    let service = terms.service.clone();
                    found.push(Found::Mistake { service, version, failed, of });
                }
            }
        }
        for blocks in alone {
            let mut known = self.alone.iter_mut();
            if let Some(version) = known.find(|known| known.version == blocks.version) {
                found.extend(version.judge(terms, blocks, now));
            }
        }
        if let Some(block) = baseline {
            self.history.learn(block, terms, self.clusters.phi(), now);
        }
        found
    }

    /// Adds blocks to the comparisons of canaries. The next [`ServiceJudge::judge`] returns the findings.
    pub(super) fn take_in(&mut self, blocks: ServiceBlocks) {
        if let Some(window) = &blocks.endpoints {
            self.clusters.observe(&window.endpoints, window.length);
            let phi = self.clusters.phi();
            let lines = self.canaries.iter_mut().flat_map(|canary| &mut canary.lines);
            lines.for_each(|line| line.set_dispersion(phi));
        }
        for VersionBlocks { version, strata } in blocks.canaries {
            let mut known = self.canaries.iter_mut();
            let Some(canary) = known.find(|known| known.version == version) else { continue };
            for (line, collected) in canary.lines.iter_mut().zip(strata) {
                collected.into_iter().for_each(|collected| line.take_in(collected));
            }
        }
    }

    /// The current result of the comparison of the canary `version`, over all strata, as of the last judged
    /// blocks, and what is left of its warm-up at `now`; `None` if it is not compared.
    pub(super) fn answer(&self, version: &str, now: Duration) -> Option<GateAnswer> {
        self.canary(version).map(|canary| canary.answer(now))
    }

    /// Whether `version` is judged, and was found to be worse.
    pub(super) fn has_failed(&self, version: &str) -> bool {
        let mut alone = self.alone.iter().filter(|alone| *alone.version == *version);
        self.canary(version).is_some_and(CanaryComparison::has_failed)
            || alone.any(StandaloneVersion::has_failed)
    }

    /// How `version` stands at `now`, which is judged without a baseline; `None` if it is not.
    pub(super) fn standing(&self, version: &str, now: Duration) -> Option<Standing> {
        self.alone.iter().find(|alone| *alone.version == *version)?.standing(now)
    }

    fn canary(&self, version: &str) -> Option<&CanaryComparison> {
        self.canaries.iter().find(|canary| *canary.version == *version)
    }

    /// Follows `players`, a number of players who failed on `version`, which was ejected at `now`.
    pub(super) fn follow_players(&mut self, version: &str, players: u64, now: Duration) {
        self.followed = Some(Followed::new(version, players, now));
    }

    /// Whether players are followed after an ejection.
    pub(super) fn follows_players(&self) -> bool {
        self.followed.is_some()
    }

    /// Whether the baseline and the canaries fail alike.
    pub(super) fn has_shared_outage(&self) -> bool {
        self.outage.is_on()
    }

    /// The recorded inputs of the comparison of `version` on the requests of `route`; `None` if there is no
    /// such comparison.
    pub(super) fn record(&self, version: &str, route: Option<&str>) -> Option<Record> {
        let mut strata = self.terms.strata.iter();
        let stratum = strata.position(|stratum| stratum.route.as_deref() == route)?;
        match self.alone.iter().find(|alone| *alone.version == *version) {
            Some(alone) => alone.record(stratum),
            None => Some(self.canary(version)?.lines.get(stratum)?.record()),
        }
    }

    /// When the comparison of `version` on the requests of `route` began; `None` if there is no such comparison.
    pub(super) fn began(&self, version: &str, route: Option<&str>) -> Option<Duration> {
        let mut strata = self.terms.strata.iter();
        let stratum = strata.position(|stratum| stratum.route.as_deref() == route)?;
        match self.alone.iter().find(|alone| *alone.version == *version) {
            Some(alone) => alone.began(stratum),
            None => Some(self.canary(version)?.lines.get(stratum)?.comparison().began()),
        }
    }

    /// Current verdicts: version, route with limits of its own, verdict.
    pub(super) fn verdicts(
        &self,
        now: Duration,
    ) -> impl Iterator<Item = (&str, Option<&str>, Verdict)> {
        let compared = self.canaries.iter().flat_map(move |canary| {
            let strata = canary.lines.iter().zip(&self.terms.strata);
            strata.map(move |(line, stratum)| {
                (&*canary.version, stratum.route.as_deref(), line.comparison().verdict(now))
            })
        });
        let alone = self.alone.iter().flat_map(move |alone| {
            let strata = alone.verdicts(now).zip(&self.terms.strata);
            strata.filter_map(move |(verdict, stratum)| {
                Some((&*alone.version, stratum.route.as_deref(), verdict?))
            })
        });
        compared.chain(alone)
    }

    /// Ends all comparisons. Returns the findings that this causes.
    pub(super) fn end(self) -> Vec<Found> {
        let terms = &self.terms;
        let canaries = self.canaries.into_iter().filter_map(|canary| canary.end(terms));
        canaries.chain(self.alone.into_iter().filter_map(|alone| alone.end(terms))).collect()
    }

    /// The size of the clusters in which failures come.
    #[cfg(test)]
    pub(super) fn phi(&self) -> f64 {
        self.clusters.phi()
    }
}

/// Comparisons of a canary, by stratum; failures come in clusters of size `phi`.
fn lines(terms: &Terms, phi: f64, now: Duration) -> Vec<StratumComparison> {
    terms.strata.iter().map(|stratum| StratumComparison::new(&stratum.limits, phi, now)).collect()
}

#[cfg(test)]
mod tests;
