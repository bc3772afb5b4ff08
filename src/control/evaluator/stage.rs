//! A service of two versions with counts made by the test, for all tests of the comparison.

use std::{collections::HashMap, time::Duration};

use super::{Evaluator, Found};
use crate::{
    analysis::{Ending, NO_TIME, What},
    config::{Config, parse, units::Weight},
    registry::{Player, Registry},
    snapshot::{Evidence, Overrides, Resolved, RuntimeState, Snapshot, SnapshotInputs},
};

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Served, with this latency in microseconds.
    Served(u32),
    /// Failed.
    Failed,
    /// Not within the deadline.
    TimedOut,
}

/// Numbers of the versions.
pub(super) const BASELINE: usize = 0;
pub(super) const CANARY: usize = 1;

/// A service of two versions, the first of which is the baseline, with counts made by the test.
pub(super) struct Stage {
    config: Config,
    overrides: Overrides,
    decided: RuntimeState,
    registry: Registry,
    pub(super) snapshot: Snapshot,
    pub(super) evaluator: Evaluator,
    pub(super) now: Duration,
    players: u16,
}

impl Stage {
    /// A service with this `eject`, whose canary has no share.
    pub(super) fn new(eject: &str) -> Self {
        let config = Self::config(eject);
        let registry = Registry::new(1);
        let (overrides, decided) = (Overrides::new(), RuntimeState::default());
        let snapshot = compile(1, &config, &overrides, &decided, &registry);
        let evaluator = Evaluator::default();
        let mut stage = Self {
            config,
            overrides,
            decided,
            registry,
            snapshot,
            evaluator,
            now: Duration::ZERO,
            players: 0,
        };
        assert_eq!(stage.look_after(Duration::ZERO), []);
        stage
    }

    fn config(eject: &str) -> Config {
        let config = parse(&format!(
            "listen: [ {{ address: '127.0.0.1:0' }} ]\n\
            services:\n  game-api:\n    baseline: v41\n    weights: {{ v41: 100, v42: 0 }}\n\
            \x20   cohort: {{ key: [ client-ip ] }}\n    eject: {eject}\n    versions:\n\
            \x20     v41: {{ endpoints: [ '127.0.0.1:9001' ] }}\n\
            \x20     v42: {{ endpoints: [ '127.0.0.1:9002' ] }}\n\
            routes: [ {{ service: game-api }} ]\n"
        ));
        config.unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    /// Takes over another `eject`, as a reload does.
    pub(super) fn reload(&mut self, eject: &str) {
        self.config = Self::config(eject);
        self.publish();
    }

    fn publish(&mut self) {
        let Self { config, overrides, decided, registry, .. } = self;
        let next = self.snapshot.generation + 1;
        self.snapshot = compile(next, config, overrides, decided, registry);
    }

    /// The evidence against the canary, in nats.
    pub(super) fn evidence(&self) -> Option<f64> {
        let mut verdicts = self.evaluator.verdicts(&self.snapshot, "game-api", self.now);
        verdicts.next().and_then(|(_, _, verdict)| verdict.log_evidence)
    }

    /// Gives the canary this share of players.
    pub(super) fn set_share(&mut self, share: f64) {
        let weight = |w| Weight::new(w).expect("a weight");
        let weights = [("v41".to_owned(), 1.0 - share), ("v42".to_owned(), share)];
        let weights = weights.map(|(version, share)| (version, weight(share)));
        self.overrides.insert("game-api".to_owned(), weights.into_iter().collect());
        self.decided.begin_epochs(&self.snapshot, &self.config, &self.overrides);
        self.publish();
    }

    /// Counts a request of a new player, as a worker does: it begins and ends now.
    pub(super) fn count(&mut self, version: usize, outcome: Outcome) {
        // Far apart, so that a key is not used again for long.
        self.players = self.players.wrapping_add(40_503);
        self.ask(version, Player(self.players), Player(self.players), 0, outcome);
    }

    /// As [`Self::count`], for a given player and network, at an endpoint of the version.
    pub(super) fn ask(
        &mut self,
        version: usize,
        player: Player,
        network: Player,
        group: u8,
        outcome: Outcome,
    ) {
        let look = self.begin(version);
        self.end(look, version, player, network, group, outcome);
    }

    /// Begins a request; returns the number of the evaluation in which it began.
    pub(super) fn begin(&self, version: usize) -> u32 {
        self.evidence_of().begin(version, 0)
    }

    fn evidence_of(&self) -> &Evidence {
        self.snapshot.routes[0].evidence.as_ref().expect("it is compared")
    }

    /// The split in force, as outcomes name it.
    pub(super) fn split(&self) -> u8 {
        self.snapshot.services[0].epoch as u8
    }

    /// Ends a request that began in the evaluation `look`, of a player whom the split in force sent to the version.
    pub(super) fn end(
        &self,
        look: u32,
        version: usize,
        player: Player,
        network: Player,
        group: u8,
        outcome: Outcome,
    ) {
        self.end_of(self.split(), look, version, player, network, group, outcome);
    }

    /// As [`Self::end`], of a player whom `split` sent to the version.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn end_of(
        &self,
        split: u8,
        look: u32,
        version: usize,
        player: Player,
        network: Player,
        group: u8,
        outcome: Outcome,
    ) {
        let evidence = self.evidence_of();
        let (what, us) = match outcome {
            Outcome::Served(us) => (What::Served, us),
            Outcome::Failed => (What::Failed, NO_TIME),
            Outcome::TimedOut => (What::TimedOut, NO_TIME),
        };
        let (player, network) = (player.0, network.0);
        let arm = evidence.number(version);
        let (head_us, whole_us) = (us, us);
        let fresh = false;
        let known = &self.snapshot.services[0].versions[version].known;
        let endpoint = known.iter().find(|known| known.state.group == group);
        let endpoint = endpoint.map_or(u32::MAX, |known| known.state.id);
        let ending = Ending {
            look,
            split,
            arm,
            player,
            network,
            endpoint,
            group,
            fresh,
            what,
            head_us,
            whole_us,
        };
        evidence.outcomes.push(0, ending);
    }

    /// Polls after `pause`.
    pub(super) fn look_after(&mut self, pause: Duration) -> Vec<Found> {
        self.now += pause;
        self.evaluator.poll(&self.snapshot, self.now)
    }

    /// Simulates seconds of 800 requests of the baseline and 200 of the canary each, every `one_of`-th of which
    /// fails (0: none). Returns the findings.
    pub(super) fn pass(&mut self, seconds: u64, one_of: [u64; 2]) -> Vec<Found> {
        let (mut found, mut asked) = (Vec::new(), [0_u64; 2]);
        for _ in 0..seconds * 50 {
            for (version, requests) in [(BASELINE, 16), (CANARY, 4)] {
                for _ in 0..requests {
                    asked[version] += 1;
                    let (nth, one_of) = (asked[version], one_of[version]);
                    let failed = one_of > 0 && nth.is_multiple_of(one_of);
                    let outcome = if failed { Outcome::Failed } else { Outcome::Served(1_000) };
                    self.count(version, outcome);
                }
            }
            found.extend(self.look_after(Duration::from_millis(20)));
        }
        found
    }

    /// A second in which the baseline answers `requests` within 10 ms, and all but 2 % within 1 ms.
    pub(super) fn serve(&mut self, requests: u32) -> Vec<Found> {
        for n in 0..requests {
            let latency_us = if n % 50 == 0 { 10_000 } else { 1_000 };
            self.count(BASELINE, Outcome::Served(latency_us));
        }
        self.look_after(Duration::from_secs(1))
    }
}

fn compile(
    generation: u64,
    config: &Config,
    overrides: &Overrides,
    decided: &RuntimeState,
    registry: &Registry,
) -> Snapshot {
    let (resolved, tls) = (Resolved::new(), HashMap::new());
    let sources = SnapshotInputs {
        config,
        overrides,
        decided,
        resolved: &resolved,
        tls: &tls,
        access_log: None,
    };
    Snapshot::compile(generation, sources, None, registry)
}
