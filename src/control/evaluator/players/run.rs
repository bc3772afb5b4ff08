//! One run: the players send, the workers' cells count, the evaluator evaluates.
//!
//! Simplifications: one worker, and a request ends in the instant it begins. The random draws do not depend on
//! the evaluator, so the same seed gives the same traffic at any alpha.

use std::{net::SocketAddr, sync::Arc};

use fastrand::Rng;

use super::{
    super::{
        stage::{BASELINE, CANARY, Outcome, Stage},
        *,
    },
    Request, ask,
    draw::{Bot, Lottery, Player, normal, poisson},
    population::{Population, RETRY_FAILS, Shard},
};
use crate::{
    config::schema::Mode,
    registry::{EndpointState, Registry},
};

/// Median latency of players.
const LATENCY_US: f64 = 20_000.0;
/// Standard deviation of the logarithm of latencies.
const LATENCY_SIGMA: f64 = 0.8;

/// The result of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    /// When the canary was ejected, in seconds since it got its share.
    pub(super) out_s: Option<f64>,
    /// Requests of the canary, since its fault if it has one.
    pub(super) asked: u32,
    /// Of these, failed.
    pub(super) failed: u32,
    /// Bots on the canary at its first share.
    pub(super) bots_on_canary: usize,
    /// The learnt size of clusters, when the fault began or at the end.
    pub(super) phi: f64,
}

/// One run of `population` under the limits `eject`, until the canary is ejected.
pub(super) fn run(population: &Population, eject: &str, seed: u64) -> Run {
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 77);
    let mut scene = Scene::new(population, eject, &mut rng);
    let mut bots = population.draw_bots(&mut rng);
    let players = population.draw_players(&mut rng);
    let lottery = Lottery::new(population.draw_activities(&mut rng));
    let first = [(0.0, population.share)];
    let mut steps = first.iter().chain(&population.steps).peekable();
    scene.run.bots_on_canary = bots.iter().filter(|bot| bot.player.hash < population.share).count();
    let looks = ((population.before_s + population.length_s) / population.look_s).round() as u32;
    for look in 0..looks {
        scene.now_s = f64::from(look) * population.look_s - population.before_s;
        while let Some((_, share)) = steps.next_if(|(at_s, _)| *at_s <= scene.now_s) {
            scene.set_share(*share);
        }
        scene.look_at_fault();
        for _ in 0..poisson(population.per_s * population.look_s, &mut rng) {
            scene.player_asks(&players[lottery.draw(&mut rng)], &mut rng);
        }
        bots.iter_mut().for_each(|bot| scene.bot_asks(bot, &mut rng));
        if scene.look() {
            break;
        }
    }
    if population.fault.is_none() {
        scene.run.phi = scene.phi();
    }
    scene.run
}

struct Scene<'p> {
    population: &'p Population,
    stage: Stage,
    /// By version.
    endpoints: [Vec<Endpoint>; 2],
    share: f64,
    now_s: f64,
    is_faulty: bool,
    run: Run,
}

/// An endpoint, and the times at which it fails all requests, in reverse order.
struct Endpoint {
    state: Arc<EndpointState>,
    spells: Vec<(f64, f64)>,
}

impl Endpoint {
    fn is_down(&mut self, now_s: f64) -> bool {
        while self.spells.pop_if(|(_, until_s)| *until_s <= now_s).is_some() {}
        self.spells.last().is_some_and(|(from_s, _)| *from_s <= now_s)
    }
}

impl<'p> Scene<'p> {
    fn new(population: &'p Population, eject: &str, rng: &mut Rng) -> Self {
        let registry = Registry::new(1);
        let mut endpoints = |version: usize| {
            let spells = population.draw_spells(version, rng).into_iter().enumerate();
            let of = spells.map(|(number, spells)| {
                let port = 9_000 + number as u16;
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                Endpoint { state: registry.endpoint(version as u32, address), spells }
            });
            of.collect()
        };
        let endpoints = [endpoints(BASELINE), endpoints(CANARY)];
        let stage = Stage::new(eject);
        let (share, now_s, run) = (0.0, -population.before_s, Run::default());
        let mut scene = Self { population, stage, endpoints, share, now_s, is_faulty: false, run };
        scene.place_endpoints();
        scene
    }

    /// Lets the snapshot use the scene's endpoints; a stage has only one for each version.
    fn place_endpoints(&mut self) {
        for (version, endpoints) in self.endpoints.iter().enumerate() {
            let states = endpoints.iter().map(|endpoint| Arc::clone(&endpoint.state));
            self.stage.snapshot.services[0].versions[version].endpoints = states.collect();
        }
    }

    fn set_share(&mut self, share: f64) {
        self.share = share;
        self.stage.set_share(share);
        self.place_endpoints();
    }

    fn look_at_fault(&mut self) {
        let fault = self.population.fault.filter(|fault| fault.from_s <= self.now_s);
        if fault.is_some() && !self.is_faulty {
            self.is_faulty = true;
            (self.run.asked, self.run.failed) = (0, 0);
            self.run.phi = self.phi();
        }
    }

    fn player_asks(&mut self, player: &Player, rng: &mut Rng) {
        let Population { failing, shard, .. } = self.population;
        let is_on = |shard: &Shard| shard.from_s <= self.now_s && self.now_s < shard.until_s;
        let fails = player.in_shard && shard.as_ref().is_some_and(is_on);
        self.ask(player, if fails { 1.0 } else { *failing }, LATENCY_US, rng);
    }

    fn bot_asks(&mut self, bot: &mut Bot, rng: &mut Rng) {
        while bot.next_s <= self.now_s {
            bot.next_s += (0.8 + 0.4 * rng.f64()) / bot.is.per_s;
            self.ask(&bot.player, bot.is.failing, bot.is.latency_us.unwrap_or(LATENCY_US), rng);
        }
    }

    /// A request and its retries.
    fn ask(&mut self, player: &Player, failing: f64, latency_us: f64, rng: &mut Rng) {
        let version = if player.hash < self.share { CANARY } else { BASELINE };
        let fault = self.population.fault.filter(|_| self.is_faulty && version == CANARY);
        let broken = fault.filter(|_| player.has_fault).map_or(0.0, |fault| fault.failing);
        let latency_us = latency_us * fault.map_or(1.0, |fault| fault.latency);
        let mut failing = 1.0 - (1.0 - failing) * (1.0 - broken);
        for _ in 0..=self.population.retries {
            if self.is_served(version, player, failing, latency_us, rng) {
                break;
            }
            failing = RETRY_FAILS;
        }
    }

    /// Sends one attempt.
    fn is_served(
        &mut self,
        version: usize,
        player: &Player,
        failing: f64,
        latency_us: f64,
        rng: &mut Rng,
    ) -> bool {
        let endpoint = rng.usize(..self.endpoints[version].len());
        let is_down = self.endpoints[version][endpoint].is_down(self.now_s);
        let failed = rng.f64() < failing || is_down;
        let latency_us = match self.population.latencies {
            true => (latency_us * (LATENCY_SIGMA * normal(rng)).exp()) as u32,
            false => latency_us as u32,
        };
        let outcome = if failed { Outcome::Failed } else { Outcome::Served(latency_us) };
        let carried = self.population.stakes.map(|stakes| {
            let times = if version == CANARY { stakes.canary } else { 1.0 };
            times * player.stake * (stakes.within * normal(rng)).exp()
        });
        let Player { key, network, .. } = *player;
        ask(&mut self.stage, Request { version, key, network, endpoint, outcome, carried });
        if version == CANARY {
            self.run.asked += 1;
            self.run.failed += u32::from(failed);
        }
        !failed
    }

    /// Polls; returns whether the canary is ejected.
    fn look(&mut self) -> bool {
        let pause_s = self.population.look_s;
        let found = self.stage.look_after(Duration::from_secs_f64(pause_s));
        let ejects = |found: &Found| match found {
            Found::Worse(suspect) => suspect.mode == Mode::Act && *suspect.version == *"v42",
            _ => false,
        };
        let is_out = found.iter().any(ejects);
        if is_out {
            self.run.out_s = Some(self.now_s + pause_s);
        }
        is_out
    }

    fn phi(&self) -> f64 {
        self.stage.evaluator.judges.values().map(|judge| judge.phi()).fold(1.0, f64::max)
    }
}
