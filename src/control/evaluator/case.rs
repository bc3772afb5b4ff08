//! One canary: its comparisons, and what was said of it.

use std::{collections::HashSet, time::Duration};

use super::{Advice, CanaryFinding, Found, arms::StratumComparison};
use crate::{
    analysis::{Advised, Answer},
    config::schema::Mode,
    snapshot::{ComparisonPlan, Service},
};

/// Part of the threshold from which on evidence is a near-miss, and under which it no longer is.
const NEAR: f64 = 0.5;
const NO_LONGER_NEAR: f64 = 0.25;

/// How long evidence stays that near before it is told. A canary that is plainly bad is ejected sooner,
/// and one page is enough for it.
const NEAR_FOR: Duration = Duration::from_secs(5);

/// One canary.
#[derive(Debug)]
pub(super) struct CanaryComparison {
    pub(super) version: Box<str>,
    pub(super) mode: Mode,
    /// By stratum.
    pub(super) lines: Vec<StratumComparison>,
    /// Its part of the weights.
    pub(super) share: f64,
    /// Since when it is near its threshold.
    near_since: Option<Duration>,
    /// It was said that it is.
    near: bool,
    /// It was said that it is worse.
    pub(super) told: bool,
    /// What was advised of it, by number of the stratum.
    advised: HashSet<(usize, Advised)>,
}

impl CanaryComparison {
    /// A canary called `version` with this `share` that is compared by `lines`, of which nothing was said.
    pub(super) fn new(
        version: &str,
        share: f64,
        mode: Mode,
        lines: Vec<StratumComparison>,
    ) -> Self {
        let (near_since, near, told, advised) = (None, false, false, HashSet::new());
        Self { version: version.into(), mode, lines, share, near_since, near, told, advised }
    }

    /// What is new about it.
    pub(super) fn judge(
        &mut self,
        service: &Service,
        compared: &ComparisonPlan,
        now: Duration,
    ) -> Option<Found> {
        if self.told {
            return None;
        }
        let part = |line: &StratumComparison| line.comparison().part_of_threshold();
        let lines = self.lines.iter().zip(&compared.strata);
        // One that failed stays so though its evidence sinks.
        let failed = |line: &StratumComparison| line.comparison().answer() == Answer::Fail;
        let key = |line: &StratumComparison| (failed(line), part(line));
        let (line, stratum) = lines.max_by(|(a, _), (b, _)| {
            let ((a_failed, a), (b_failed, b)) = (key(a), key(b));
            a_failed.cmp(&b_failed).then(a.total_cmp(&b))
        })?;
        let suspect = || {
            Box::new(CanaryFinding {
                service: service.name.clone(),
                version: self.version.clone(),
                route: stratum.route.clone(),
                mode: compared.mode,
                verdict: line.comparison().verdict(now),
            })
        };
        if failed(line) {
            let found = Found::Worse(suspect());
            self.told = true;
            return Some(found);
        }
        let (near, part) = (self.near, part(line));
        self.near_since = near_since(self.near_since, part, now);
        let lasts = self.near_since.is_some_and(|since| now.saturating_sub(since) >= NEAR_FOR);
        if !near && lasts && part >= NEAR {
            let found = Found::NearMiss(suspect());
            self.near = true;
            return Some(found);
        }
        if near && part < NO_LONGER_NEAR {
            let found = Found::NearMissOver(suspect());
            self.near = false;
            return Some(found);
        }
        None
    }

    /// What is new beside the verdict.
    pub(super) fn advise(&mut self, service: &Service, compared: &ComparisonPlan) -> Vec<Found> {
        let mut found = Vec::new();
        for (number, (line, stratum)) in self.lines.iter().zip(&compared.strata).enumerate() {
            let comparison = line.comparison();
            for advised in comparison.advised() {
                if self.told || !self.advised.insert((number, advised)) {
                    continue;
                }
                let Some(finding) = comparison.advice(advised) else { continue };
                found.push(Found::Advice(Box::new(Advice {
                    service: service.name.clone(),
                    version: self.version.clone(),
                    route: stratum.route.clone(),
                    advised,
                    finding,
                    players: comparison.failed_players(),
                })));
            }
        }
        found
    }

    /// What is to be said when it ends; of a version that was to be ejected, that says it all.
    pub(super) fn end(self, service: &Service) -> Option<Found> {
        let says = if self.told { self.mode != Mode::Act } else { self.near };
        says.then(|| Found::NoLongerCompared {
            service: service.name.clone(),
            version: self.version,
        })
    }
}

/// Since when evidence that is `part` of its threshold at `now` is near it, if it was `before` already.
/// What falls between the two marks goes on, so that noise does not begin the time anew.
fn near_since(before: Option<Duration>, part: f64, now: Duration) -> Option<Duration> {
    match before {
        _ if part < NO_LONGER_NEAR => None,
        Some(since) => Some(since),
        None => (part >= NEAR).then_some(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_near_since_it_first_was_until_it_is_far() {
        let s = Duration::from_secs;
        assert_eq!(near_since(None, 0.49, s(1)), None);
        assert_eq!(near_since(None, 0.5, s(2)), Some(s(2)));
        assert_eq!(near_since(Some(s(2)), 0.3, s(4)), Some(s(2)));
        assert_eq!(near_since(Some(s(2)), 0.24, s(5)), None);
    }
}
