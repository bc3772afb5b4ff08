//! Whether a canary is worse than the baseline even without its worst endpoint.
//!
//! If one of several endpoints is broken, the endpoint is to be ejected, not the version. A version
//! is ejected only if the evidence also reaches the threshold without its worst endpoint: for each
//! endpoint there is a test without its requests, and the least evidence counts. This is an
//! additional condition, so it can only lower the probability of a false ejection.
//!
//! The test of a canary that is bad on all of three endpoints lacks a third of the evidence, and
//! needs 1.6 to 1.9 times as many failures; with two endpoints 1.9 to 2.4 times, with eight 1.2 to
//! 1.4. With endpoints of very different share it needs more, since little is left without the one
//! with most requests. Rejected: leaving out the endpoint with most failures so far. That choice
//! depends on outcomes and changes from block to block, so the sum would be no evidence.
//!
//! Endpoints are put into up to eight groups, so that the cost per block is bounded. With more
//! endpoints a whole group is left out, which requires more evidence, never less. A group without
//! requests needs no test of its own: without it, the test has all requests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    counts::{Arms, Tally},
    engine::{Engine, Settings},
    slots::ENDPOINT_GROUPS,
};

/// Tests of one canary, each without one group of its endpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spared {
    /// Sees all groups.
    all: Engine,
    /// By group: a test of all others; `None` for a group without requests.
    without: Vec<Option<Engine>>,
}

impl Spared {
    /// Creates tests with `settings` for failures in clusters of `phi`.
    pub fn new(settings: Settings, phi: f64) -> Self {
        Self { all: Engine::new(settings).with_dispersion(phi), without: Vec::new() }
    }

    /// Adds a block that ended at `at`, with the canary's part by group, of which there are at most
    /// [`ENDPOINT_GROUPS`]. Groups missing in `of_group` are empty.
    pub fn observe(&mut self, block: Arms<Tally>, of_group: &[Tally], at: Duration) {
        let of_group = &of_group[..of_group.len().min(ENDPOINT_GROUPS)];
        if self.without.len() < of_group.len() {
            self.without.resize(of_group.len(), None);
        }
        if block.comparable() {
            for (test, own) in self.without.iter_mut().zip(of_group) {
                if test.is_none() && own.trials() > 0 {
                    *test = Some(self.all.clone());
                }
            }
        }
        let of_group = of_group.iter().copied().chain(std::iter::repeat(Tally::default()));
        for (test, own) in self.without.iter_mut().zip(of_group) {
            if let Some(test) = test {
                test.observe(Arms::new(block.canary.after(own), block.baseline), at);
            }
        }
        self.all.observe(block, at);
    }

    /// The evidence without the worst group, in nats: the least of all. `None` while fewer than two
    /// groups had requests, since nothing is left without the only group.
    pub fn least_log_evidence(&self) -> Option<f64> {
        let used = self.without.iter().flatten();
        used.clone().nth(1)?;
        used.map(Engine::log_evidence).min_by(f64::total_cmp)
    }

    /// Reports a change of the weights, like [`Engine::weight_step`].
    pub fn weight_step(&mut self) {
        self.tests().for_each(Engine::weight_step);
    }

    /// Sets the size of clusters, like [`Engine::set_dispersion`].
    pub fn set_dispersion(&mut self, phi: f64) {
        self.tests().for_each(|test| test.set_dispersion(phi));
    }

    /// Sets the cap of a block, like [`Engine::cap_bursts`].
    pub fn cap_bursts(&mut self, cap: Option<f64>) {
        self.tests().for_each(|test| test.cap_bursts(cap));
    }

    /// Sets another alpha and least failures, like [`Engine::demand`].
    pub fn demand(&mut self, alpha: f64, least_failures: u64) {
        self.tests().for_each(|test| test.demand(alpha, least_failures));
    }

    /// Whether its parts are consistent; those read from a file may not be.
    pub fn is_sound(&self) -> bool {
        let mut tests = self.without.iter().flatten().chain([&self.all]);
        self.without.len() <= ENDPOINT_GROUPS && tests.all(Engine::is_sound)
    }

    fn tests(&mut self) -> impl Iterator<Item = &mut Engine> {
        self.without.iter_mut().flatten().chain([&mut self.all])
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{bet::Tolerance, simulation::Traffic, wealth::Guarantee},
        *,
    };

    fn settings() -> Settings {
        let tolerance = Tolerance::new(1.1, 0.003).expect("a tolerance");
        Settings::new(tolerance, Guarantee::Alpha(1e-3))
    }

    /// A block with two requests of a canary with `rates.len()` endpoints, and 38 of the baseline.
    fn block(traffic: &mut Traffic, rates: &[f64]) -> (Arms<Tally>, Vec<Tally>) {
        let mut of_group = vec![Tally::default(); rates.len()];
        let mut canary = Tally::default();
        for _ in 0..2 {
            let number = traffic.below(rates.len());
            let one = Tally::new(1, traffic.binomial(1, rates[number]));
            of_group[number] += one;
            canary += one;
        }
        let baseline = Tally::new(38, traffic.binomial(38, 5e-4));
        (Arms::new(canary, baseline), of_group)
    }

    /// Mean failures until the rejection of a canary that fails at `rate` on all endpoints: by the
    /// plain test, and by both.
    fn cost(rate: f64, endpoints: usize, runs: u64) -> (f64, f64) {
        let (mut plain_cost, mut both_cost) = (0, 0);
        for seed in 0..runs {
            let mut traffic = Traffic::new(seed);
            let mut plain = Engine::new(settings());
            let mut spared = Spared::new(settings(), 1.0);
            let enough = |spared: &Spared| {
                spared.least_log_evidence().is_some_and(|least| least >= plain_threshold())
            };
            let (mut good, mut failures) = (500, 0);
            while !plain.rejected() || !enough(&spared) {
                let rate = if good > 0 { 5e-4 } else { rate };
                let (block, of_group) = block(&mut traffic, &vec![rate; endpoints]);
                if good == 0 {
                    failures += block.canary.failures();
                    plain_cost += if plain.rejected() { 0 } else { block.canary.failures() };
                }
                good = u32::saturating_sub(good, 1);
                plain.observe(block, Duration::ZERO);
                spared.observe(block, &of_group, Duration::ZERO);
            }
            both_cost += failures;
        }
        (plain_cost as f64 / runs as f64, both_cost as f64 / runs as f64)
    }

    fn plain_threshold() -> f64 {
        Guarantee::Alpha(1e-3).log_threshold()
    }

    #[test]
    fn a_canary_that_is_bad_everywhere_costs_less_than_twice_as_much() {
        for (endpoints, most) in [(2, 2.8), (3, 2.0), (8, 1.6)] {
            for rate in [1.0, 0.3, 0.05] {
                let (plain, both) = cost(rate, endpoints, 60);
                println!("{endpoints} endpoints that fail {rate}: {plain:.1} failures, {both:.1}");
                assert!(both <= most * plain, "{rate}: {plain} and {both}");
            }
        }
    }

    #[test]
    fn one_bad_endpoint_of_three_ejects_nobody() {
        for (seed, bad) in [1.0, 0.3, 0.05].into_iter().enumerate() {
            let mut traffic = Traffic::new(seed as u64);
            let mut spared = Spared::new(settings(), 1.0);
            let mut plain = Engine::new(settings());
            let mut most = f64::NEG_INFINITY;
            for _ in 0..20_000 {
                let (block, of_group) = block(&mut traffic, &[5e-4, bad, 5e-4]);
                plain.observe(block, Duration::ZERO);
                spared.observe(block, &of_group, Duration::ZERO);
                most = most.max(spared.least_log_evidence().unwrap_or(f64::NEG_INFINITY));
            }
            assert!(plain.rejected(), "{bad}");
            assert!(most < plain_threshold() / 2.0, "{bad}: {most} nats");
        }
    }

    #[test]
    fn a_canary_of_one_endpoint_has_none_to_spare() {
        let mut spared = Spared::new(settings(), 1.0);
        let block = Arms::new(Tally::new(2, 2), Tally::new(38, 0));
        spared.observe(block, &[Tally::default(), Tally::new(2, 2)], Duration::ZERO);
        assert_eq!(spared.least_log_evidence(), None);
        spared.observe(block, &[Tally::new(2, 2); ENDPOINT_GROUPS + 1], Duration::ZERO);
        assert_eq!(spared.without.len(), ENDPOINT_GROUPS);
        assert!(spared.least_log_evidence().is_some() && spared.is_sound());
        let json = serde_json::to_string(&spared).expect("JSON");
        let read: Spared = serde_json::from_str(&json).expect("tests");
        assert_eq!(read.least_log_evidence(), spared.least_log_evidence());
    }

    #[test]
    fn what_is_told_to_one_test_is_told_to_all() {
        let mut spared = Spared::new(settings(), 1.0);
        let block = Arms::new(Tally::new(2, 0), Tally::new(38, 0));
        spared.observe(block, &[Tally::new(1, 0), Tally::new(1, 0)], Duration::ZERO);
        spared.demand(0.05, 7);
        spared.cap_bursts(Some(4.0));
        spared.set_dispersion(2.0);
        spared.weight_step();
        spared.observe(block, &[Tally::new(1, 0), Tally::new(1, 0)], Duration::ZERO);
        assert_eq!(spared.tests().count(), 3);
        for test in spared.tests() {
            let Settings { guarantee, least_failures, burst_cap, .. } = *test.settings();
            assert_eq!((guarantee, least_failures), (Guarantee::Alpha(0.05), 7));
            assert_eq!((burst_cap, test.dispersion()), (Some(4.0), 2.0));
        }
    }
}
