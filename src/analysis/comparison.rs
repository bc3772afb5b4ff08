//! The comparison of a canary with its baseline, by all metrics together.
//!
//! The evidence of several metrics is averaged: `L = ln(sum of w_i * exp(L_i))`. An average of
//! wealths is a wealth, whatever the dependence between the metrics, so alpha holds for all of them
//! together. Dividing alpha between them is never better. Half of the weight is on errors, which
//! costs them 0.7 nats, about 8 % more requests.

mod advice;
mod weighing;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    amount::{AmountTest, Amounts, Side},
    bet::Tolerance,
    counts::{Arms, Tally},
    engine::{Engine, Settings},
    grid::Grid,
    latency::{Latencies, LatencyTest, Quantile, Slower, Span},
    limits::Limits,
    recovery::{Asked, Players, Recovery},
    slots::Attempts,
    spared::Spared,
    verdict::{Answer, Verdict},
    warming::Warming,
    wealth::{Guarantee, log_sum},
};

pub use self::advice::Advised;
use self::{
    advice::{Advice, REFUSALS, Recent},
    weighing::weighted,
};

/// A running comparison. It begins with a canary's first weight and ends with the canary; a new
/// canary has an alpha of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Comparison {
    limits: Limits,
    began: Duration,
    /// When the canary last began to warm up, and its requests since.
    warming: (Duration, u64),
    /// By test of latency, requests of the canary that it compared since the weights changed last.
    timed: Vec<u64>,
    errors: Option<Engine>,
    unserved: Option<Engine>,
    /// Errors of named routes, in the order of the limits.
    routes: Vec<RouteTest>,
    /// Unserved requests without each group of the canary's endpoints, if there are several.
    spared: Option<Spared>,
    has_groups: bool,
    /// The test whether players who fail on the canary are served by the baseline.
    recovery: Option<Recovery>,
    latency: Vec<LatencyTest>,
    /// Two tests of each amount, in the order of the limits: too low, too high.
    amounts: Vec<AmountTest>,
    phi: f64,
    advice: Advice,
    /// Evidence of all metrics together, in nats; computed when it is needed.
    #[serde(skip)]
    evidence: Option<f64>,
    /// The verdict that failed the canary, with the numbers at that time.
    failed: Option<Box<Verdict>>,
}

/// Tests of a named route: errors, and unserved requests without each group of the canary's
/// endpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RouteTest {
    errors: Engine,
    spared: Spared,
}

impl Comparison {
    /// Creates a comparison that begins `now`, for failures in clusters of `phi`, at least 1.
    pub fn new(limits: Limits, phi: f64, now: Duration) -> Self {
        let guarantee = Guarantee::Alpha(limits.alpha);
        let settings = |tolerance| Settings {
            tolerance,
            guarantee,
            grid: Grid::Full,
            least_failures: limits.least_failures,
            burst_cap: limits.burst_cap,
        };
        let engine = |tolerance| Engine::new(settings(tolerance)).with_dispersion(phi);
        let spared = |tolerance| Spared::new(settings(tolerance), phi);
        let route = |tolerance| RouteTest { errors: engine(tolerance), spared: spared(tolerance) };
        let latency = [(Quantile::P95, limits.p95), (Quantile::P99, limits.p99)];
        let latency = [Span::Head, Span::Whole].into_iter().flat_map(|span| {
            let tests = latency.into_iter().filter_map(move |(quantile, tolerance)| {
                let slower = Slower::by(tolerance?, limits.latency_absolute);
                Some(LatencyTest::new(span, quantile, slower, settings(Tolerance::NONE)))
            });
            tests.collect::<Vec<_>>()
        });
        let latency: Vec<_> = latency.collect();
        let amounts = limits.amounts.iter().flat_map(|limit| {
            let new = if limit.derived { AmountTest::of_derived } else { AmountTest::new };
            [Side::Low, Side::High]
                .map(|side| new(side, limit.tolerance, guarantee, limits.burst_cap))
        });
        Self {
            began: now,
            warming: (now, 0),
            timed: vec![0; latency.len()],
            errors: limits.errors.map(engine),
            unserved: limits.unserved.map(engine),
            routes: limits.routes.iter().filter_map(|_| limits.errors.map(route)).collect(),
            spared: limits.errors.map(spared),
            has_groups: false,
            recovery: limits.errors.map(|_| Recovery::new(limits.alpha)),
            latency,
            amounts: amounts.collect(),
            phi,
            advice: Advice {
                requests: limits.errors.map(engine),
                refusals: limits.errors.map(|_| engine(REFUSALS)),
                recent: Recent::default(),
            },
            evidence: None,
            failed: None,
            limits,
        }
    }

    /// Adds a block of requests that ended at `now`.
    pub fn observe_errors(&mut self, block: &Attempts, now: Duration) {
        self.warming.1 = self.warming.1.saturating_add(block.requests.canary.trials());
        if let Some(errors) = &mut self.errors {
            errors.observe_of(block.players, block.requests, now);
        }
        if let Some(unserved) = &mut self.unserved {
            unserved.observe(block.served, now);
        }
        let had_groups = std::mem::replace(&mut self.has_groups, !block.groups.is_empty());
        if had_groups && !self.has_groups {
            self.forget_endpoints();
        }
        if let Some(spared) = self.spared.as_mut().filter(|_| self.has_groups) {
            spared.observe(block.served, &block.groups, now);
        }
        if let Some(requests) = &mut self.advice.requests {
            requests.observe(block.requests, now);
        }
        self.advice.recent.add(block.requests.canary.failures(), block.failers, now);
        self.judge(now);
    }

    /// Adds a block of requests of the named route with this `number` in the limits.
    pub fn observe_route(&mut self, number: usize, block: &Attempts, now: Duration) {
        if let Some(route) = self.routes.get_mut(number) {
            route.errors.observe_of(block.players, block.requests, now);
            if !block.groups.is_empty() {
                route.spared.observe(block.served, &block.groups, now);
            }
            self.judge(now);
        }
    }

    /// Adds players who had failed twice in a row, by the outcome of their next request at the
    /// baseline. `share` is the canary's share of all players.
    pub fn observe_asked(&mut self, players: Arms<Players>, share: f64, now: Duration) {
        let Some(recovery) = &mut self.recovery else { return };
        let each = |players: Players| {
            (0..players.asked).map(move |number| Asked { recovered: number < players.recovered })
        };
        each(players.baseline).for_each(|player| recovery.observe_baseline(player, now));
        each(players.canary).for_each(|player| recovery.observe_canary(player, share, now));
        self.judge(now);
    }

    /// Called when one of several endpoints is left. The requests of the others are no evidence
    /// against it, and cannot be separated from its own, so the evidence restarts. Wealth above
    /// that of a new test is given up, which is always allowed; less wealth is kept.
    fn forget_endpoints(&mut self) {
        let routes = self.routes.iter_mut().map(|route| &mut route.errors);
        let tests = self.errors.iter_mut().chain(&mut self.unserved).chain(routes);
        tests.filter(|test| test.log_evidence() > 0.0).for_each(Engine::begin_anew);
    }

    /// Sets whether the gain of a block of errors is limited: a version with one or two endpoints
    /// has hiccups as a whole, and no spread between endpoints shows the size of such clusters.
    ///
    /// A block then multiplies a bet by at most `1 / alpha`. Half of the wealth is not staked
    /// before the first failure, so one block alone never ejects. A lower cap would delay the
    /// ejection of a canary that always fails: a block may have three failures of 3 nats each.
    pub fn cap_bursts(&mut self, capped: bool) {
        let threshold = Guarantee::Alpha(self.limits.alpha).log_threshold();
        let cap = if capped { Some(threshold) } else { self.limits.burst_cap };
        let routes = self.routes.iter_mut().map(|route| &mut route.errors);
        let tests = self.errors.iter_mut().chain(&mut self.unserved).chain(routes);
        tests.for_each(|test| test.cap_bursts(cap));
        self.spared().for_each(|test| test.cap_bursts(cap));
    }

    /// Sets the alpha and the least failures of `limits`, which must be the same otherwise, for the
    /// evidence so far.
    pub fn demand(&mut self, limits: Limits) {
        let (alpha, least) = (limits.alpha, limits.least_failures);
        self.engines().for_each(|test| test.demand(alpha, least));
        self.spared().for_each(|test| test.demand(alpha, least));
        self.recovery.iter_mut().for_each(|test| test.demand(alpha));
        self.latency.iter_mut().for_each(|test| test.demand(alpha, least));
        self.amounts.iter_mut().for_each(|test| test.demand(alpha));
        self.limits = limits;
    }

    /// Adds a block of requests by players, with refused ones as failures.
    pub fn observe_refusals(&mut self, block: Arms<Tally>, now: Duration) {
        if let Some(refusals) = &mut self.advice.refusals {
            refusals.observe(block, now);
        }
    }

    /// Adds a block of latencies at a quantile of a span, with the first bucket that is slow in the
    /// baseline. It ended at `now`, and that bucket must not depend on it.
    pub fn observe_slow(
        &mut self,
        (span, quantile): (Span, Quantile),
        block: Arms<&Latencies>,
        slow: Option<usize>,
        now: Duration,
    ) {
        if self.is_warm(now) {
            let mut tests = self.latency.iter_mut().zip(&mut self.timed);
            let is_it = |t: &LatencyTest| (t.span(), t.quantile()) == (span, quantile);
            if let Some((test, timed)) = tests.find(|(test, _)| is_it(test)) {
                test.observe_above(block, slow, now);
                *timed = timed.saturating_add(block.canary.requests());
            }
            self.judge(now);
        }
    }

    /// Adds a block of the amount with this `number` in the limits. It ended at `now`.
    pub fn observe_amounts(&mut self, number: usize, block: Arms<&Amounts>, now: Duration) {
        if self.is_warm(now) {
            let sides = self.amounts.chunks_exact_mut(2).nth(number).into_iter().flatten();
            sides.for_each(|test| test.observe(block, now));
            self.judge(now);
        }
    }

    /// Reports that the shares changed `now`. A canary that got more players `warms` up again.
    pub fn weight_step(&mut self, warms: bool, now: Duration) {
        if warms {
            self.warming = (now, 0);
        }
        self.timed.iter_mut().for_each(|timed| *timed = 0);
        self.engines().for_each(Engine::weight_step);
        self.spared().for_each(Spared::weight_step);
        self.latency.iter_mut().for_each(LatencyTest::weight_step);
        self.amounts.iter_mut().for_each(AmountTest::weight_step);
    }

    fn engines(&mut self) -> impl Iterator<Item = &mut Engine> {
        let advice = self.advice.requests.iter_mut().chain(&mut self.advice.refusals);
        let routes = self.routes.iter_mut().map(|route| &mut route.errors);
        self.errors.iter_mut().chain(&mut self.unserved).chain(routes).chain(advice)
    }

    fn spared(&mut self) -> impl Iterator<Item = &mut Spared> {
        self.spared.iter_mut().chain(self.routes.iter_mut().map(|route| &mut route.spared))
    }

    /// Sets the size `phi` of clusters of failures, at least 1, from the next block on. Latencies
    /// and amounts have other clusters, for which this is not used.
    pub fn set_dispersion(&mut self, phi: f64) {
        self.phi = phi;
        self.engines().for_each(|test| test.set_dispersion(phi));
        self.spared().for_each(|test| test.set_dispersion(phi));
    }

    /// Whether the canary has failed. A failure is final. [`super::Gate`] decides that it is healthy.
    pub fn answer(&self) -> Answer {
        if self.failed.is_some() { Answer::Fail } else { Answer::Undecided }
    }

    /// The answer with its numbers; for a failure, those that decided.
    pub fn verdict(&self, now: Duration) -> Verdict {
        self.failed.as_deref().cloned().unwrap_or_else(|| self.describe(self.answer(), now))
    }

    /// Whether its parts are consistent; those read from a file may not be.
    pub(super) fn is_sound(&self) -> bool {
        let of_routes = self.routes.iter().map(|route| &route.errors);
        let tests = self.errors.iter().chain(&self.unserved).chain(of_routes);
        let routes = if self.limits.errors.is_some() { self.limits.routes.len() } else { 0 };
        tests.chain(&self.advice.requests).chain(&self.advice.refusals).all(Engine::is_sound)
            && self.routes.len() == routes
            && self.spared.iter().all(Spared::is_sound)
            && self.routes.iter().all(|route| route.spared.is_sound())
            && self.latency.iter().all(|test| test.engine().is_sound())
            && self.timed.len() == self.latency.len()
            && self.amounts.iter().all(AmountTest::is_sound)
            && self.amounts.len() == 2 * self.limits.amounts.len()
    }

    /// The tolerances.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// When it began.
    pub fn began(&self) -> Duration {
        self.began
    }

    /// The assumed size of clusters of failures.
    pub fn dispersion(&self) -> f64 {
        self.phi
    }

    /// Evidence of all metrics together, in nats; minus infinity before the first block.
    pub fn log_evidence(&self) -> f64 {
        self.evidence.unwrap_or_else(|| log_sum(weighted(&self.terms()).into_iter()))
    }

    /// Evidence as a part of the threshold, both in nats; 0 without evidence.
    pub fn part_of_threshold(&self) -> f64 {
        (self.log_evidence() / self.log_threshold()).max(0.0)
    }

    /// What is left `now` of the warm-up, and of the comparison of latencies after it, until all that is compared was
    /// judged; `None` if nothing of it has to warm up.
    pub fn warming(&self, now: Duration) -> Option<Warming> {
        let is_timed = !self.latency.is_empty() || !self.amounts.is_empty();
        let compared = || {
            let age = now.saturating_sub(self.warming.0);
            Warming::compared(age, *self.timed.iter().max()?, self.limits.warm_up)
        };
        self.warm_up_left(now).filter(|_| is_timed).or_else(compared)
    }

    fn warm_up_left(&self, now: Duration) -> Option<Warming> {
        let (since, requests) = self.warming;
        Warming::left(now.saturating_sub(since), requests, self.limits.warm_up)
    }

    fn is_warm(&self, now: Duration) -> bool {
        self.warm_up_left(now).is_none()
    }

    /// Evidence that fails the canary, in nats.
    pub fn log_threshold(&self) -> f64 {
        Guarantee::Alpha(self.limits.alpha).log_threshold()
    }
}

#[cfg(test)]
mod tests;
