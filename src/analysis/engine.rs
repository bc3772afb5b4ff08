//! The test itself: a grid of bets on the failures of two arms, block by block.
//!
//! `ln e` of every component is added to its log wealth; the hypothesis is rejected when the total
//! wealth reaches the threshold. The test may be evaluated after each block without losing its
//! guarantee. A block compares the arms over the same stretch of time, so a shared outage does not
//! raise the probability of a false ejection, and counts are never pooled over changes of the
//! weights, which would make equal arms look different (Simpson's paradox).

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

/// Least failures of a canary before it is ejected: one or two convince nobody, whatever their
/// odds.
pub const LEAST_FAILURES: u64 = 3;

/// Largest gain of a block in nats if bursts are capped: less than the threshold of any alpha below
/// 1.8 %, so that one burst alone never ejects. A total failure then takes at least two blocks.
pub const BURST_CAP: f64 = 4.0;

/// Hypothesis and guarantee of a test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The tolerance.
    pub tolerance: Tolerance,
    /// The guarantee for a canary within the tolerance.
    pub guarantee: Guarantee,
    /// The bets.
    pub grid: Grid,
    /// Least failures of the canary for a rejection. Waiting never breaks the guarantee.
    pub least_failures: u64,
    /// Largest gain of a bet in a block, in nats, such as [`BURST_CAP`]; `None` for no limit.
    pub burst_cap: Option<f64>,
}

impl Settings {
    /// A test with all bets, [`LEAST_FAILURES`] and no cap.
    pub fn new(tolerance: Tolerance, guarantee: Guarantee) -> Self {
        let grid = Grid::Full;
        Self { tolerance, guarantee, grid, least_failures: LEAST_FAILURES, burst_cap: None }
    }

    /// The same settings with the bets of `grid`.
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
    /// Onset of each component.
    onsets: Box<[Onset]>,
    rejected_at: Option<Duration>,
}

impl Engine {
    /// Creates a test without observations.
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

    /// The same test for failures in clusters of `phi`, at least 1, from the first block on.
    pub fn with_dispersion(mut self, phi: f64) -> Self {
        self.wealth.temper().begin_with(phi);
        self
    }

    /// Restarts the test, with the same sizes of clusters and caps.
    pub(super) fn begin_anew(&mut self) {
        let phi = self.wealth.phi();
        *self = Self::new(self.settings).with_dispersion(phi);
    }

    /// Sets the size `phi` of clusters of failures, at least 1. Holds from the block after the open
    /// one: the weight of a block must not depend on its own outcomes.
    pub fn set_dispersion(&mut self, phi: f64) {
        self.wealth.temper().expect(phi);
    }

    /// Sets another `alpha`, like [`Wealth::demand`], and the least failures of the canary;
    /// evidence and counts stay. A rejection is final; one by the new values is found at the end of
    /// the next block.
    pub fn demand(&mut self, alpha: f64, least_failures: u64) {
        if let Guarantee::Alpha(now) = &mut self.settings.guarantee {
            *now = alpha;
        }
        self.settings.least_failures = least_failures;
        self.wealth.demand(alpha);
    }

    /// Sets the largest gain of a bet in a block, like [`Settings::burst_cap`], while the test
    /// runs. A lower cap holds at once, a higher one or none from the block after the open one on.
    ///
    /// Failures of a version with one or two endpoints are capped: a process that pauses fails all
    /// requests of that moment, and no spread between endpoints shows the size of such clusters.
    pub fn cap_bursts(&mut self, cap: Option<f64>) {
        self.settings.burst_cap = cap;
        self.wealth.temper().cap(cap);
    }

    /// Whether its parts are consistent; those read from a file may not be.
    pub(super) fn is_sound(&self) -> bool {
        let components = self.settings.grid.components().len();
        self.wealth.has_components(components) && self.onsets.len() == components
    }

    /// The assumed size of clusters of failures.
    pub fn dispersion(&self) -> f64 {
        self.wealth.phi()
    }

    /// Reports a change of the weights: the likeliest onset of a fault.
    pub fn weight_step(&mut self) {
        self.wealth.weight_step();
    }

    /// Adds a closed block. `at` is its end, in the caller's time, and is only used to date
    /// results. A block without trials in both arms has no effect.
    pub fn observe(&mut self, block: Arms<Tally>, at: Duration) {
        self.observe_of(block, block, at);
    }

    /// Likewise, with the `requests` from which the trials were taken; those are only shown to
    /// people.
    pub fn observe_of(&mut self, block: Arms<Tally>, requests: Arms<Tally>, at: Duration) {
        if block.comparable() {
            let factors = self.factors(block.trials());
            self.estimate.add(block, requests);
            self.settle(&factors, block, at);
        }
    }

    /// The bets on a block of `trials`, fixed before its outcomes are used.
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

    /// Whether the canary was rejected. A rejection is final.
    pub fn rejected(&self) -> bool {
        self.rejected_at.is_some()
    }

    /// The end of the block that rejected the canary.
    pub fn rejected_at(&self) -> Option<Duration> {
        self.rejected_at
    }

    /// Logarithm of the evidence against the canary, in nats; minus infinity before the first
    /// block.
    pub fn log_evidence(&self) -> f64 {
        self.wealth.log_evidence()
    }

    /// The evidence that is needed, in nats.
    pub fn log_threshold(&self) -> f64 {
        self.wealth.log_threshold()
    }

    /// What the test asks and promises.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the canary has the least failures.
    pub fn has_enough_failures(&self) -> bool {
        self.estimate.total().canary.failures() >= self.settings.least_failures
    }

    /// Counts and ratio of all blocks so far.
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
    }

    /// The most successful bet: roughly the size of the fault.
    pub fn component(&self) -> Option<Component> {
        let richest = self.wealth.richest()?;
        self.settings.grid.components().get(richest).map(|(component, _)| *component)
    }

    /// The likeliest onset of the fault of [`Engine::component`], and the counts since then.
    pub fn onset(&self) -> Option<(Duration, Counted)> {
        let onset = &self.onsets[self.wealth.richest()?];
        Some((onset.since(), onset.counts(self.estimate.counted())))
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod simulated;
