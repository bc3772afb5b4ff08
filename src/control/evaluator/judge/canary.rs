//! One canary: its comparisons, their results, and what has been reported of them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    super::found::{Advice, CanaryFinding, Found},
    StratumTerms, Terms,
    line::{CarriedLine, StratumComparison},
};
use crate::{
    analysis::{Advised, Answer, Arms, GateAnswer, HealthFinding},
    config::schema::Mode,
};

/// The fraction of the threshold at which evidence becomes a near-miss, and the lower one at which it ends.
const NEAR: f64 = 0.5;
const NO_LONGER_NEAR: f64 = 0.25;

/// How long evidence stays near the threshold before it is reported. A clearly bad canary is ejected sooner,
/// and one page is enough for it.
const NEAR_FOR: Duration = Duration::from_secs(5);

/// One canary.
#[derive(Debug, Clone)]
pub(super) struct CanaryComparison {
    pub(super) version: Arc<str>,
    /// By stratum.
    pub(super) lines: Vec<StratumComparison>,
    /// The result of the comparisons, and since when.
    answer: Answer,
    since: Duration,
    /// Since when the evidence is near its threshold.
    near_since: Option<Duration>,
    /// Whether the near-miss was reported.
    near: bool,
    /// Advice given, by number of the stratum.
    advised: HashSet<(usize, Advised)>,
}

/// A canary on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CarriedCanary {
    pub(super) version: Arc<str>,
    /// By stratum.
    lines: Vec<CarriedLine>,
    /// Since when it is healthy, or else undecided.
    is_healthy: bool,
    since: Duration,
    near_since: Option<Duration>,
}

impl CanaryComparison {
    /// The canary `version`, compared by `lines` from `now` on.
    pub(super) fn new(version: Arc<str>, lines: Vec<StratumComparison>, now: Duration) -> Self {
        Self {
            version,
            lines,
            answer: Answer::Undecided,
            since: now,
            near_since: None,
            near: false,
            advised: HashSet::new(),
        }
    }

    /// Everything that another process needs to continue, apart from what was reported.
    pub(super) fn carried(&self, budget: &mut usize) -> CarriedCanary {
        CarriedCanary {
            version: Arc::clone(&self.version),
            lines: self.lines.iter().map(|line| line.carried(budget)).collect(),
            is_healthy: self.answer == Answer::Healthy,
            since: self.since,
            near_since: self.near_since,
        }
    }

    /// Continues by the same `terms`; `None` if it was compared by others.
    pub(super) fn resume(carried: CarriedCanary, terms: &Terms) -> Option<Self> {
        let CarriedCanary { version, lines, is_healthy, since, near_since } = carried;
        let is_whole = lines.len() == terms.strata.len();
        let lines = lines.into_iter().zip(&terms.strata);
        let lines = lines.map(|(line, of)| StratumComparison::resume(line, &of.limits));
        let lines: Option<_> = lines.collect();
        let lines = lines.filter(|_| is_whole)?;
        let answer = if is_healthy { Answer::Healthy } else { Answer::Undecided };
        Some(Self { answer, near_since, ..Self::new(version, lines, since) })
    }

    /// Whether it was found to be worse.
    pub(super) fn has_failed(&self) -> bool {
        self.answer == Answer::Fail
    }

    /// The result over all strata: the canary fails if it fails on one of them, and is healthy if it is healthy
    /// on all of them. The evidence is that of the stratum with most evidence against it; `health` that of the
    /// stratum with least evidence for it.
    pub(super) fn answer(&self, now: Duration) -> GateAnswer {
        let comparison = self.decisive().0.comparison();
        let evidence = comparison.log_evidence();
        let requests = self.lines.iter().map(|line| line.gate().requests());
        let healths = self.lines.iter().map(|line| line.gate().health());
        GateAnswer {
            answer: self.answer,
            log_evidence: evidence.is_finite().then_some(evidence),
            log_threshold: comparison.log_threshold(),
            health: healths.reduce(least_certain).flatten(),
            warming: self.lines.iter().find_map(|line| line.comparison().warming(now)),
            requests: requests.fold(Arms::default(), |sum, more| {
                Arms::new(sum.canary + more.canary, sum.baseline + more.baseline)
            }),
            since: self.since,
        }
    }

    /// The stratum with most evidence against the canary, and its number.
    fn decisive(&self) -> (&StratumComparison, usize) {
        // A stratum that failed remains failed even if its evidence decreases.
        let key = |line: &StratumComparison| {
            let comparison = line.comparison();
            (comparison.answer() == Answer::Fail, comparison.part_of_threshold())
        };
        let decisive = self.lines.iter().zip(0..).max_by(|(a, _), (b, _)| {
            let ((a_failed, a), (b_failed, b)) = (key(a), key(b));
            a_failed.cmp(&b_failed).then(a.total_cmp(&b))
        });
        decisive.expect("requests of routes without limits of their own are a stratum")
    }

    /// A new finding.
    pub(super) fn judge(&mut self, terms: &Terms, now: Duration) -> Option<Found> {
        if self.has_failed() {
            return None;
        }
        let together = together(self.lines.iter().map(|line| line.answer(now)));
        if together != self.answer {
            (self.answer, self.since) = (together, now);
        }
        let (line, stratum) = self.decisive();
        let finding = || {
            Box::new(CanaryFinding {
                service: terms.service.clone(),
                version: (&*self.version).into(),
                route: terms.strata.get(stratum).and_then(|stratum| stratum.route.clone()),
                mode: terms.mode,
                verdict: line.comparison().verdict(now),
            })
        };
        if self.has_failed() {
            return Some(Found::Worse(finding()));
        }
        let part = line.comparison().part_of_threshold();
        let near_since = near_since(self.near_since, part, now);
        let lasts = near_since.is_some_and(|since| now.saturating_sub(since) >= NEAR_FOR);
        let found = match self.near {
            false if lasts && part >= NEAR => Some(Found::NearMiss(finding())),
            true if part < NO_LONGER_NEAR => Some(Found::NearMissOver(finding())),
            _ => None,
        };
        self.near_since = near_since;
        if found.is_some() {
            self.near = !self.near;
        }
        found
    }

    /// New advice besides the verdict.
    pub(super) fn advise(&mut self, terms: &Terms) -> Vec<Found> {
        let has_failed = self.has_failed();
        let mut found = Vec::new();
        for (number, (line, StratumTerms { route, .. })) in
            self.lines.iter().zip(&terms.strata).enumerate()
        {
            let comparison = line.comparison();
            for advised in comparison.advised() {
                if has_failed || !self.advised.insert((number, advised)) {
                    continue;
                }
                let Some(finding) = comparison.advice(advised) else { continue };
                found.push(Found::Advice(Box::new(Advice {
                    service: terms.service.clone(),
                    version: (&*self.version).into(),
                    route: route.clone(),
                    advised,
                    finding,
                    players: comparison.failed_players(),
                })));
            }
        }
        found
    }

    /// The finding when it ends; none for a version that was to be ejected, which was reported already.
    pub(super) fn end(self, terms: &Terms) -> Option<Found> {
        let says = if self.has_failed() { terms.mode != Mode::Act } else { self.near };
        says.then(|| Found::NoLongerCompared {
            service: terms.service.clone(),
            version: (&*self.version).into(),
        })
    }
}

/// The result over all strata.
fn together(answers: impl Iterator<Item = Answer>) -> Answer {
    let both = |a, b| match (a, b) {
        (Answer::Fail, _) | (_, Answer::Fail) => Answer::Fail,
        (Answer::Undecided, _) | (_, Answer::Undecided) => Answer::Undecided,
        (Answer::Healthy, Answer::Healthy) => Answer::Healthy,
    };
    answers.reduce(both).unwrap_or(Answer::Undecided)
}

/// The finding that is farther from its threshold; `None` is never certain.
fn least_certain(a: Option<HealthFinding>, b: Option<HealthFinding>) -> Option<HealthFinding> {
    let part = |health: &HealthFinding| {
        health.log_evidence.map_or(f64::NEG_INFINITY, |evidence| evidence / health.log_threshold)
    };
    let (a, b) = a.zip(b)?;
    Some(if part(&b) < part(&a) { b } else { a })
}

/// Since when evidence at the fraction `part` of its threshold has been near it, given that it was since
/// `before`. Between the two marks nothing changes, so that noise does not restart the time.
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
