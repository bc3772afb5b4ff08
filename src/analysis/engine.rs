//! The test itself: a grid of bets on the failures of two arms, block by block.
//!
//! `ln e` of every component is added to its log wealth; the hypothesis is rejected when the wealth of
//! all of them reaches the threshold. Looking costs nothing and may be done after each block. A block
//! compares the arms over the same stretch of time, so an outage that both share adds nothing to the
//! probability of a false ejection, and counts are never pooled over changes of the weights, which
//! turns equal arms into different ones (Simpson's paradox).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    bet::{Bet, Factors, Tolerance},
    counts::{Arms, Counted, Tally},
    estimate::Estimate,
    grid::{BaseRate, Component, Grid, MOST_COMPONENTS},
    onset::Onset,
    wealth::{Guarantee, Wealth},
};

/// Failures the canary must have before it is ejected: one or two are no evidence to show to anybody,
/// whatever their odds.
pub const LEAST_FAILURES: u64 = 3;

/// The most nats that one block may add if bursts are capped: less than the threshold of any alpha
/// below 1.8 %, so that one burst alone never ejects. A total failure then takes two blocks at least.
pub const BURST_CAP: f64 = 4.0;

/// What a test asks and promises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How much worse the canary may be.
    pub tolerance: Tolerance,
    /// How rarely a canary within the tolerance fails.
    pub guarantee: Guarantee,
    /// Which bets are placed.
    pub grid: Grid,
    /// Failures of the canary below which nothing is rejected. Waiting never breaks the guarantee.
    pub least_failures: u64,
    /// The most that a block may add to the log wealth of a bet, in nats, such as [`BURST_CAP`].
    /// Nothing: no limit.
    pub burst_cap: Option<f64>,
}

impl Settings {
    /// A test with all bets, [`LEAST_FAILURES`] and no cap.
    pub fn new(tolerance: Tolerance, guarantee: Guarantee) -> Self {
        let grid = Grid::Full;
        Self { tolerance, guarantee, grid, least_failures: LEAST_FAILURES, burst_cap: None }
    }

    /// The same with the bets of `grid`.
    pub fn with_grid(self, grid: Grid) -> Self {
        Self { grid, ..self }
    }
}

/// A running test of two arms.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Engine {
    settings: Settings,
    wealth: Wealth,
    base: BaseRate,
    estimate: Estimate,
    /// By component.
    onsets: Box<[Onset]>,
    rejected_at: Option<Duration>,
}

impl Engine {
    /// A test that has seen nothing yet.
    pub fn new(settings: Settings) -> Self {
        let components = settings.grid.components();
        let shares = components.iter().map(|(_, share)| *share);
        let mut wealth = Wealth::new(shares, settings.guarantee);
        wealth.temper().cap(settings.burst_cap);
        Self {
            settings,
            wealth,
            base: BaseRate::default(),
            estimate: Estimate::default(),
            onsets: vec![Onset::default(); components.len()].into(),
            rejected_at: None,
        }
    }

    /// The same test of failures that come in clusters of `phi`, at least 1, from the first block on.
    pub fn with_dispersion(mut self, phi: f64) -> Self {
        self.wealth.temper().begin_with(phi);
        self
    }

    /// Begins the same test anew, with the same sizes of clusters and caps.
    pub(super) fn begin_anew(&mut self) {
        let phi = self.wealth.phi();
        *self = Self::new(self.settings).with_dispersion(phi);
    }

    /// Says that failures come in clusters of `phi`, at least 1. Holds from the block after the one
    /// that is open: a block must not be weighed by what happened in it.
    pub fn set_dispersion(&mut self, phi: f64) {
        self.wealth.temper().expect(phi);
    }

    /// Demands another `alpha`, as [`Wealth::demand`], and so many failures of the canary; evidence and
    /// counts stay. What was rejected stays so; what is rejected now is found at the end of the next
    /// block.
    pub fn demand(&mut self, alpha: f64, least_failures: u64) {
        if let Guarantee::Alpha(now) = &mut self.settings.guarantee {
            *now = alpha;
        }
        self.settings.least_failures = least_failures;
        self.wealth.demand(alpha);
    }

    /// Sets the most nats that one block may add to a bet, as [`Settings::burst_cap`], while the test
    /// runs. A lower cap holds at once, a higher one or none from the block after the open one on.
    ///
    /// Failures of a version with one or two endpoints are capped: a process that pauses takes all
    /// requests of that moment with it, and no spread between endpoints shows how many they are.
    pub fn cap_bursts(&mut self, cap: Option<f64>) {
        self.settings.burst_cap = cap;
        self.wealth.temper().cap(cap);
    }

    /// Whether its parts fit each other, as those read from a file may not.
    pub(super) fn is_sound(&self) -> bool {
        let components = self.settings.grid.components().len();
        self.wealth.has_components(components) && self.onsets.len() == components
    }

    /// The size of the clusters that failures are taken to come in.
    pub fn dispersion(&self) -> f64 {
        self.wealth.phi()
    }

    /// Says that the weights changed: the likeliest time for a fault to begin.
    pub fn weight_step(&mut self) {
        self.wealth.weight_step();
    }

    /// Takes a closed block in. `at` is its end, in the caller's time, and only dates what is said
    /// later. A block without trials in both arms changes nothing.
    pub fn observe(&mut self, block: Arms<Tally>, at: Duration) {
        self.observe_of(block, block, at);
    }

    /// The same of trials that were taken from so many `requests`, which only people read.
    pub fn observe_of(&mut self, block: Arms<Tally>, requests: Arms<Tally>, at: Duration) {
        if block.comparable() {
            let factors = self.factors(block.trials());
            self.estimate.add(block, requests);
            self.settle(&factors, block, at);
        }
    }

    /// The bets on a block of so many trials, fixed before its outcomes are looked at.
    fn factors(&self, trials: Arms<f64>) -> [Factors; MOST_COMPONENTS] {
        let base_rate = self.base.predicted();
        let mut factors = [Factors::ABSTAIN; MOST_COMPONENTS];
        for (factors, (component, _)) in factors.iter_mut().zip(self.settings.grid.components()) {
            if let Some(bet) = component.bet(trials, self.settings.tolerance, base_rate) {
                *factors = Bet::factors(bet);
            }
        }
        factors
    }

    fn settle(&mut self, factors: &[Factors], block: Arms<Tally>, at: Duration) {
        let total = self.estimate.counted();
        self.wealth.stake();
        for (number, (onset, factors)) in self.onsets.iter_mut().zip(factors).enumerate() {
            let growth = self.wealth.grow(number, factors.log_e(block));
            onset.note(growth, at, total);
        }
        self.base.learn(block.baseline);
        self.wealth.end_block(block.any_failure());
        let enough = total.trials.canary.failures() >= self.settings.least_failures;
        if self.rejected_at.is_none() && enough && self.log_evidence() >= self.log_threshold() {
            self.rejected_at = Some(at);
        }
    }

    /// Whether the canary was ever found to be worse than is tolerated. Does not go back.
    pub fn rejected(&self) -> bool {
        self.rejected_at.is_some()
    }

    /// The end of the block that decided.
    pub fn rejected_at(&self) -> Option<Duration> {
        self.rejected_at
    }

    /// Logarithm of the evidence against the canary, in nats; minus infinity before the first block.
    pub fn log_evidence(&self) -> f64 {
        self.wealth.log_evidence()
    }

    /// The evidence that decides, in nats.
    pub fn log_threshold(&self) -> f64 {
        self.wealth.log_threshold()
    }

    /// What the test asks and promises.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the canary failed often enough to be judged at all.
    pub fn has_enough_failures(&self) -> bool {
        self.estimate.total().canary.failures() >= self.settings.least_failures
    }

    /// Counts and ratio of all blocks so far.
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
    }

    /// The bet that earned most: how bad the canary is, roughly.
    pub fn component(&self) -> Option<Component> {
        let richest = self.wealth.richest()?;
        self.settings.grid.components().get(richest).map(|(component, _)| *component)
    }

    /// When the fault that [`Engine::component`] names began, most likely, and the counts since then.
    pub fn onset(&self) -> Option<(Duration, Counted)> {
        let onset = &self.onsets[self.wealth.richest()?];
        Some((onset.since(), onset.counts(self.estimate.counted())))
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod simulated;
