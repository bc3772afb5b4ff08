//! Reports beside the verdict: they decide nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    super::{
        bet::Tolerance,
        engine::Engine,
        verdict::{Finding, Metric},
    },
    Comparison,
};

/// Failures per failed player from which on they count as those of a few players.
const FAILURES_OF_FEW: f64 = 4.0;

/// Tolerance of refusals: a fifth more, and one in a hundred.
pub(super) const REFUSALS: Tolerance = Tolerance { ratio: 1.2, excess: 0.01 };

/// Tests that decide nothing, but are reported to people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Advice {
    /// Errors by requests instead of players: reveals failures of a few players.
    pub(super) requests: Option<Engine>,
    /// Refusals, by players.
    pub(super) refusals: Option<Engine>,
    pub(super) recent: Recent,
}

/// Recent failures of the canary's requests, and players who failed on it, each counted once per
/// cycle. Both have a half-life of a minute.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Recent {
    failures: f64,
    players: f64,
    at: Duration,
}

impl Recent {
    const HALF_LIFE_S: f64 = 60.0;

    pub(super) fn add(&mut self, failures: u64, players: u64, now: Duration) {
        let age_s = now.saturating_sub(std::mem::replace(&mut self.at, now)).as_secs_f64();
        let kept = (-age_s / Self::HALF_LIFE_S).exp2();
        self.failures = self.failures * kept + failures as f64;
        self.players = self.players * kept + players as f64;
    }

    /// Whether a few players have nearly all failures.
    fn is_of_few(&self) -> bool {
        self.failures >= FAILURES_OF_FEW * self.players.max(1.0)
    }
}

/// Reports beside the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Advised {
    /// A few players have nearly all failures.
    FewPlayers,
    /// The canary refuses requests (4xx) that the baseline serves.
    Refusals,
}

impl Comparison {
    /// The current reports beside the verdict.
    pub fn advised(&self) -> impl Iterator<Item = Advised> {
        let rejected = |test: &Option<Engine>| test.as_ref().is_some_and(Engine::rejected);
        // If the trials of players show it, too, the verdict reports it.
        let few = rejected(&self.advice.requests)
            && !rejected(&self.errors)
            && self.advice.recent.is_of_few();
        let refusals = rejected(&self.advice.refusals);
        let few = few.then_some(Advised::FewPlayers);
        few.into_iter().chain(refusals.then_some(Advised::Refusals))
    }

    /// The numbers of a report.
    pub fn advice(&self, advised: Advised) -> Option<Finding> {
        let (metric, test) = match advised {
            Advised::FewPlayers => (Metric::Errors, &self.advice.requests),
            Advised::Refusals => (Metric::Refusals, &self.advice.refusals),
        };
        let finding = Finding::of_rate(metric, None, test.as_ref()?, self.began);
        Some(match advised {
            Advised::FewPlayers => finding.of_few(self.failed_players()),
            Advised::Refusals => finding,
        })
    }

    /// Players who failed on the canary recently, each counted once per cycle; at least one.
    pub fn failed_players(&self) -> u64 {
        self.advice.recent.players.round().max(1.0) as u64
    }
}
