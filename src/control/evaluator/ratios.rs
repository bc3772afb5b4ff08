//! Players on a split that changes while their requests are in flight: the check of the split against the players
//! must be right whatever the requests are like.
//!
//! Players send one request after another, as browsers do. Each request is assigned by the split that its worker
//! knows at that moment, which is the new one some time after the change; then it is sent, which takes seconds if
//! the client is slow; then it lasts up to seconds, on one version longer than on the other. The outcomes go
//! through the rings and the evaluator. Simplifications: one worker's ring; looks every 50 ms instead of 10.
//!
//! `TIDEGATE_RATIO_SPLITS=4000 cargo test --release --lib ratios -- --nocapture` simulates so many splits.

use std::{cmp::Reverse, collections::BinaryHeap, thread};

use fastrand::Rng;

use super::{
    stage::{BASELINE, CANARY, Outcome, Stage},
    *,
};
use crate::{
    registry::Player,
    rollout::{Arm, Mismatch, players_moved, sample_ratio},
};

const LOOK: Duration = Duration::from_millis(50);
/// How long each split lasts, unless a test says otherwise.
const LASTS: Duration = Duration::from_secs(30);
/// Until when workers know the new split.
const KNOWN: Duration = Duration::from_millis(200);
/// Mean time that a player stays, in seconds.
const STAYS: [f64; 2] = [120.0; 2];
const DEADLINE: Duration = Duration::from_secs(6);
const EJECT: &str = "{ errors: { absolute: 5% }, deadline: 6s }";

/// What players and versions are like.
#[derive(Clone, Copy)]
struct Kind {
    /// Players at once.
    players: usize,
    /// Mean time between two requests of a player, in seconds.
    thinks: f64,
    /// Median duration of a request, in seconds, by version.
    lasts: [f64; 2],
    /// How many times the canary's share get to it, and what share of all players besides.
    unfair: (f64, f64),
    /// How long each split lasts.
    split: Duration,
    /// Mean time that a player stays, in seconds, by version.
    stays: [f64; 2],
    /// Mean length of a round, in which a pin holds the player on the version that it began with, in seconds, by version;
    /// 0 without pins.
    rounds: [f64; 2],
}

impl Kind {
    /// Players who think so long, on a split that is followed.
    const fn new(thinks: f64, lasts: [f64; 2]) -> Self {
        let (unfair, split) = ((1.0, 0.0), LASTS);
        Self { players: 2_000, thinks, lasts, unfair, split, stays: STAYS, rounds: [0.0; 2] }
    }
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Event {
    /// A player begins a request, is done with sending it, or has the response.
    Begin,
    Sent {
        split: u8,
        version: usize,
    },
    End {
        split: u8,
        version: usize,
        look: u32,
        outcome: Option<u32>,
    },
}

struct World {
    rng: Rng,
    stage: Stage,
    kind: Kind,
    /// Bucket and place among all players, 0 to 1.
    players: Vec<(Player, f64)>,
    queue: BinaryHeap<Reverse<(Duration, usize)>>,
    /// How much of its stay each of them has left, where 1 is a mean stay, and since when it was counted. At the end of it
    /// another player comes in the place.
    stays: Vec<(f64, Duration)>,
    /// The version that each is pinned to, and until when.
    pins: Vec<(usize, Duration)>,
    next: Vec<Event>,
    /// The split, the one before, and when it changed.
    shares: [f64; 2],
    splits: [u8; 2],
    changed: Duration,
    /// Players by version as the ends of requests would have it, since the split changed: a control.
    ended: [Vec<bool>; 2],
}

impl World {
    fn new(kind: Kind, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let all = 0..kind.players;
        let players: Vec<_> = all.clone().map(|_| (Player(rng.u16(..)), rng.f64())).collect();
        let stays = all
            .clone()
            .map(|_| (exponential(&mut rng, 1.0).as_secs_f64(), Duration::ZERO))
            .collect();
        let queue = all.map(|nth| Reverse((exponential(&mut rng, kind.thinks), nth)));
        let mut stage = Stage::new(EJECT);
        stage.evaluator.watch_players("game-api", true);
        Self {
            queue: queue.collect(),
            rng,
            stage,
            kind,
            players,
            stays,
            pins: vec![(BASELINE, Duration::ZERO); kind.players],
            next: vec![Event::Begin; kind.players],
            shares: [0.0; 2],
            splits: [0; 2],
            changed: Duration::ZERO,
            ended: [vec![false; 1 << 16], vec![false; 1 << 16]],
        }
    }

    /// Changes the canary's share, and lets the split last; returns what is said against it, and against the control.
    fn split(&mut self, share: f64) -> (Option<Mismatch>, bool) {
        let (split, shares) = (self.stage.split(), self.shares);
        self.stage.set_share(share);
        (self.shares, self.splits) = ([share, shares[0]], [self.stage.split(), split]);
        self.changed = self.stage.now;
        self.ended.iter_mut().for_each(|players| players.fill(false));
        let (mut found, mut control) = (None, false);
        let end = self.changed + self.kind.split;
        while self.stage.now < end {
            self.pass();
            if self.stage.now.as_millis().is_multiple_of(1_000) {
                let ended = |version: usize| self.ended[version].iter().filter(|is| **is).count();
                let ended = [ended(BASELINE) as u64, ended(CANARY) as u64];
                control |= sample_ratio(&self.arms(ended)).is_some();
                found = found.or_else(|| self.mismatch());
            }
        }
        (found, control)
    }

    /// The same while nobody notes players.
    fn unwatched(&mut self, share: f64, lasts: Duration) {
        self.stage.set_share(share);
        (self.shares, self.splits) = ([share; 2], [self.stage.split(); 2]);
        let end = self.stage.now + lasts;
        while self.stage.now < end {
            self.pass();
        }
    }

    /// What is said against the split at this moment.
    fn mismatch(&self) -> Option<Mismatch> {
        let exposure = self.stage.evaluator.exposure("game-api").expect("players are watched");
        let [baseline, canary, ..] = exposure.players();
        sample_ratio(&self.arms([baseline, canary]))
            .or_else(|| players_moved(exposure.moved(), exposure.all()))
    }

    fn arms(&self, players: [u64; 2]) -> [Arm; 2] {
        let share = self.shares[0];
        let arm = |version: &str, weight, players| Arm { version: version.into(), weight, players };
        [arm("v41", 1.0 - share, players[0]), arm("v42", share, players[1])]
    }

    /// Everything until the next look, and the look.
    fn pass(&mut self) {
        let until = self.stage.now + LOOK;
        while let Some(Reverse((at, nth))) =
            self.queue.peek().copied().filter(|due| due.0.0 < until)
        {
            self.queue.pop();
            let (pause, next) = self.happens(nth, at);
            self.next[nth] = next;
            self.queue.push(Reverse((at + pause, nth)));
        }
        self.stage.look_after(LOOK);
    }

    /// What happens to a player at `at`, and what comes next.
    fn happens(&mut self, nth: usize, at: Duration) -> (Duration, Event) {
        let (player, place) = self.players[nth];
        match self.next[nth] {
            // A request that a pin decides is none of the split's.
            Event::Begin if self.pins[nth].1 > at => {
                self.stay(nth, self.pins[nth].0, at);
                (exponential(&mut self.rng, self.kind.thinks), Event::Begin)
            }
            Event::Begin => {
                let lag = KNOWN.mul_f64(self.rng.f64());
                let of = usize::from(at < self.changed + lag);
                let (times, more) = self.kind.unfair;
                let canary = place < self.shares[of] * times + more;
                let split = self.splits[of];
                let sends = if self.rng.f64() < 0.1 { 4.0 * self.rng.f64() } else { 0.0 };
                let version = if canary { CANARY } else { BASELINE };
                (Duration::from_secs_f64(sends), Event::Sent { split, version })
            }
            Event::Sent { split, version } => {
                let normal = (0..12).map(|_| self.rng.f64()).sum::<f64>() - 6.0;
                let lasts = self.kind.lasts[version] * (0.8 * normal).exp();
                let lasts = Duration::from_secs_f64(lasts).min(DEADLINE);
                let outcome = (lasts < DEADLINE).then_some(lasts.as_micros() as u32);
                let look = self.stage.begin(version);
                (lasts, Event::End { split, version, look, outcome })
            }
            Event::End { split, version, look, outcome } => {
                let outcome = outcome.map_or(Outcome::TimedOut, Outcome::Served);
                self.stage.end_of(split, look, version, player, player, 0, outcome);
                let bucket = usize::from(player.0);
                if !self.ended[1 - version][bucket] {
                    self.ended[version][bucket] = true;
                }
                let round = exponential(&mut self.rng, self.kind.rounds[version]);
                self.pins[nth] = (version, at + round);
                self.stay(nth, version, at);
                (exponential(&mut self.rng, self.kind.thinks), Event::Begin)
            }
        }
    }
}

impl World {
    /// Counts the stay of a player who is on `version` at `at`; at its end another one comes.
    fn stay(&mut self, nth: usize, version: usize, at: Duration) {
        let (left, since) = self.stays[nth];
        let left = left - (at - since).as_secs_f64() / self.kind.stays[version];
        self.stays[nth] = (left, at);
        if left <= 0.0 {
            self.players[nth] = (Player(self.rng.u16(..)), self.rng.f64());
            self.stays[nth].0 = exponential(&mut self.rng, 1.0).as_secs_f64();
            self.pins[nth].1 = Duration::ZERO;
        }
    }
}

fn exponential(rng: &mut Rng, mean: f64) -> Duration {
    Duration::from_secs_f64(-mean * (1.0 - rng.f64()).ln())
}

/// Shares one after the other, in large steps.
const SHARES: [f64; 8] = [0.5, 0.05, 0.6, 0.01, 0.25, 0.75, 0.1, 0.4];

/// As a rollout grows.
const GROWTH: [f64; 4] = [0.05, 0.2, 0.5, 0.8];

/// Of `splits`, whose shares come one after the other: those found to be wrong, those that the control finds wrong, and
/// how many there are.
fn wrong(kind: Kind, shares: &[f64], splits: usize) -> [usize; 3] {
    let half = |odd: u64| {
        let runs = (0..splits.div_ceil(shares.len()) as u64).filter(move |run| run % 2 == odd);
        let mut wrong = [0; 3];
        for run in runs {
            let mut world = World::new(kind, run);
            for share in shares {
                let (found, control) = world.split(*share);
                let counts = [usize::from(found.is_some()), usize::from(control), 1];
                wrong.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
            }
        }
        wrong
    };
    thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        let (even, odd) = (half(0), odd.join().expect("no panic"));
        std::array::from_fn(|n| even[n] + odd[n])
    })
}

#[test]
fn a_split_that_is_followed_is_not_doubted_while_requests_are_in_flight_over_its_change() {
    let asked = std::env::var("TIDEGATE_RATIO_SPLITS").ok().and_then(|text| text.parse().ok());
    let splits = asked.unwrap_or(8);
    for (what, kind) in [
        ("fast", Kind::new(2.0, [0.02, 0.02])),
        ("slow", Kind::new(2.0, [1.0, 1.0])),
        ("slower on the canary", Kind::new(1.0, [0.1, 1.5])),
        ("slower on the baseline", Kind::new(1.0, [1.5, 0.1])),
    ] {
        let [found, control, of] = wrong(kind, &SHARES, splits);
        println!("{what}: {found} of {of} splits are doubted, {control} by the ends of requests");
        // Three and a half standard deviations above the mean that RATIO_ALPHA allows.
        let mean = of as f64 * crate::rollout::RATIO_ALPHA;
        assert!(found as f64 <= mean + 3.5 * mean.sqrt(), "{what}: {found} of {of}");
        assert!(what == "fast" || 4 * control >= of, "{what}: {control} of {of}, a weak test");
    }
}

#[test]
fn a_split_that_is_not_followed_is_found() {
    let unfair = (1.35, 0.0);
    let kind = Kind { unfair, split: Duration::from_secs(120), ..Kind::new(2.0, [0.5, 0.5]) };
    let [found, _, of] = wrong(kind, &[0.5, 0.2, 0.6, 0.25], 8);
    println!("{found} of {of} splits that are off by a third are found");
    assert!(4 * found >= 3 * of, "{found} of {of}");
}

/// Each player counts once, by the first request that a split of several versions decides, so how long players stay makes
/// no difference: players who were there before are no draws of this split. Nor do pins: who is in a round at the
/// step counts when the round is over.
///
/// With `TIDEGATE_RATIO_SPLITS` all kinds are simulated, with `TIDEGATE_RATIO_PLAYERS` that many players.
#[test]
fn a_split_is_not_doubted_because_players_leave_a_version_sooner() {
    let asked = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let splits = asked("TIDEGATE_RATIO_SPLITS");
    let players = asked("TIDEGATE_RATIO_PLAYERS").unwrap_or(2_000);
    let fast = Kind { players, ..Kind::new(2.0, [0.02, 0.02]) };
    let stays = |canary: f64| Kind { stays: [STAYS[0], canary], ..fast };
    let rounds = |rounds| Kind { rounds, ..fast };
    for (what, is_usual, kind) in [
        ("stays as long", false, fast),
        ("stays half as long on the canary", false, stays(60.0)),
        ("stays a sixth as long on the canary", true, stays(20.0)),
        ("stays six times as long on the canary", false, stays(720.0)),
        (
            "stays a sixth as long on the canary, which is slow",
            true,
            Kind { lasts: [0.1, 1.5], ..stays(20.0) },
        ),
        ("rounds of 10 s", false, rounds([10.0, 10.0])),
        ("rounds of 10 s, on the canary of 20 s", true, rounds([10.0, 20.0])),
        ("rounds of 30 s, on the canary of 120 s", false, rounds([30.0, 120.0])),
    ] {
        if !is_usual && splits.is_none() {
            continue;
        }
        let [found, _, of] = wrong(kind, &GROWTH, splits.unwrap_or(8));
        println!("{what}, {players} players: {found} of {of} splits are doubted");
        // Three and a half standard deviations above the mean that RATIO_ALPHA allows.
        let mean = of as f64 * crate::rollout::RATIO_ALPHA;
        assert!(found as f64 <= mean + 3.5 * mean.sqrt(), "{what}: {found} of {of}");
    }
}

/// The counterpart: also by those who are new alone, in a later step.
#[test]
fn a_split_with_a_twentieth_of_all_players_too_many_is_found_however_long_players_stay() {
    for (what, stays) in [("as long", 120.0), ("a sixth as long", 20.0)] {
        let kind = Kind { stays: [STAYS[0], stays], ..Kind::new(4.0, [0.02, 0.02]) };
        let mut world = World::new(kind, 7);
        assert_eq!(world.split(0.2).0, None, "stays {what}");
        world.kind = Kind { unfair: (1.0, 0.05), split: Duration::from_secs(240), ..kind };
        assert!(world.split(0.25).0.is_some(), "stays {what}");
    }
}

/// Regression: a process that went on in the middle of a step doubted a version whose players leave it sooner.
#[test]
fn players_who_were_split_before_anybody_noted_them_are_no_draws() {
    let kind = Kind { stays: [STAYS[0], 20.0], ..Kind::new(2.0, [0.02, 0.02]) };
    let mut world = World::new(kind, 3);
    world.stage.evaluator.watch_players("game-api", false);
    world.unwatched(0.5, Duration::from_secs(60));
    world.stage.evaluator.watch_players("game-api", true);
    world.kind.split = Duration::from_secs(90);
    for share in [0.5, 0.6] {
        assert_eq!(world.split(share).0, None, "with {share}");
    }
}
