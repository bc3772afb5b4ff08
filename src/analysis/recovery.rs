//! Tests whether players who fail on the canary are served by the baseline.
//!
//! A player who has failed twice in a row on the canary is sent to the baseline for a time, and the
//! next request counts. If it is served, the player has *recovered*: evidence against the version.
//! If it fails, the fault is the player's own. A comparison of counts cannot distinguish a fault
//! that affects few players from few players who fail everywhere. Here each player is compared on both
//! versions, so the mix of players does not matter.
//!
//! The hypothesis is that a player of a good canary recovers with probability at most `p0`. Some
//! players recover anyway: of those who fail 30 % of their requests on either version, 70 % are
//! served next time. The control shows how many: the baseline's players who failed twice in a row
//! are counted as well, and stay on the baseline. `p0` is the upper confidence bound of the
//! control's share, and at least one half. It is fixed before a player counts. Above 0.95 no bet is
//! made. Each player is a bet that `q > p0` recover:
//!
//! ```text
//! e = q / p0 if recovered, (1 - q) / (1 - p0) if not          p0 < q <= 1
//! ```
//!
//! Its mean is at most 1 under the hypothesis, so the probability that the wealth of bets on four
//! values of `q` reaches `1 / alpha` is at most `alpha`, however often it is evaluated (Ville's
//! inequality).
//!
//! Without data of the control, one half is assumed. That is safe if the baseline has at least as
//! many players: players who recover anyway are in the control as soon as on the canary. If the
//! canary has more than half of the players, no bet is made before the control has twenty. Without
//! that rule, players who fail 30 % on either version eject 1.4 % of canaries with a share of 90 %
//! at an alpha of 0.1 %; with it 0.03 %. That the control's upper bound is high enough is shown by
//! simulation, not proven: players who recover anyway in 50 to 90 % of the cases, at shares of 5 to
//! 90 %, rejected at most 1.2 % of canaries at an alpha of 5 %.
//!
//! Four fifths of the wealth are staked at the start and a part of the rest after each player, as
//! in `wealth`. Players needed at `p0` of one half and an alpha of 0.1 %, if all recover, at once
//! and after 100 players of whom half recovered (median):
//!
//! | staked at the start | at once | late |
//! | --- | --- | --- |
//! | all | 11 | 52 |
//! | four fifths | 11 | 22 |
//! | half | 12 | 20 |

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{counts::Arms, wealth::log_sum};

/// The rates that are bet on, as positions between `p0` and 1, and their shares of a stake. Half is
/// on certain recovery, which is the case if a version fails all requests of some players.
const BETS: [(f64, f64); 4] = [(0.3, 0.15), (0.6, 0.15), (0.9, 0.2), (1.0, 0.5)];
/// Share of the wealth that is staked before the first player: the least with which 11 of 11
/// decide.
const STAKED_AT_START: f64 = 0.8;
/// The share of the cash staked after player number `k` is `0.2 / (k + 4)`, as in `wealth`.
const STAKED_AFTER_PLAYER: f64 = 0.2;
const PLAYERS_BEFORE: f64 = 4.0;
/// Smallest `p0`, whatever the control shows.
const LEAST_P0: f64 = 0.5;
/// Largest `p0` at which a bet is made.
const MOST_P0: f64 = 0.95;
/// Smallest number of players of the control if the canary has more than half of all players.
const LEAST_CONTROL: f64 = 20.0;
/// Largest wealth of a bet. Less is always allowed, and JSON could not hold more.
const MOST_WEALTH: f64 = 1e200;
/// Standard deviations between the control's share and its upper bound.
const DEVIATIONS: f64 = 2.0;
/// Half-life of a player's weight in the control: players' behavior changes with the clients'
/// releases and with the hour.
const HALF_LIFE: Duration = Duration::from_secs(3600);

/// The outcome of the next request of a player who had failed twice in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Whether it was served.
    pub recovered: bool,
}

/// Counted players of one arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Players {
    /// All players.
    pub asked: u64,
    /// Players who recovered.
    pub recovered: u64,
}

impl Players {
    /// Counts a player.
    pub(super) fn add(&mut self, recovered: bool) {
        self.asked += 1;
        self.recovered += u64::from(recovered);
    }
}

/// The test of one canary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recovery {
    alpha: f64,
    /// Wealth of each bet.
    wealth: [f64; BETS.len()],
    cash: f64,
    control: Control,
    canary: Players,
    baseline: Players,
    rejected_at: Option<Duration>,
}

/// Players of the baseline, with exponential decay.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Control {
    asked: f64,
    recovered: f64,
    at: Duration,
}

impl Control {
    /// The decayed counts at `at`.
    fn aged(self, at: Duration) -> Self {
        let age = at.saturating_sub(self.at).as_secs_f64();
        let kept = (-age / HALF_LIFE.as_secs_f64()).exp2();
        Self { asked: self.asked * kept, recovered: self.recovered * kept, at: self.at.max(at) }
    }

    fn add(&mut self, player: Asked, at: Duration) {
        *self = self.aged(at);
        self.asked += 1.0;
        self.recovered += f64::from(u8::from(player.recovered));
    }

    /// The upper bound of the share that recovers, by the rule of succession, with a deviation that
    /// is 0 without players, so that one player has little effect and none has no effect.
    fn upper_end(self) -> f64 {
        let Self { asked, recovered, .. } = self;
        let share = (recovered + 1.0) / (asked + 2.0);
        share + DEVIATIONS * (share * (1.0 - share) * asked).sqrt() / (asked + 1.0)
    }
}

impl Recovery {
    /// Creates a test; the probability of a false rejection is at most `alpha`, more than 0 and
    /// below 1.
    pub fn new(alpha: f64) -> Self {
        Self {
            alpha,
            wealth: BETS.map(|(_, share)| share * STAKED_AT_START),
            cash: 1.0 - STAKED_AT_START,
            control: Control::default(),
            canary: Players::default(),
            baseline: Players::default(),
            rejected_at: None,
        }
    }

    /// Adds a player of the baseline, at `at`.
    pub fn observe_baseline(&mut self, player: Asked, at: Duration) {
        self.baseline.add(player.recovered);
        self.control.add(player, at);
    }

    /// Adds a player of the canary who was sent to the baseline, at `at`; `share`, 0 to 1, is the
    /// canary's share of all players.
    pub fn observe_canary(&mut self, player: Asked, share: f64, at: Duration) {
        self.canary.add(player.recovered);
        let Some(p0) = self.tolerated(share, at) else { return };
        for (wealth, (part, _)) in self.wealth.iter_mut().zip(BETS) {
            let q = p0 + part * (1.0 - p0);
            let e = if player.recovered { q / p0 } else { (1.0 - q) / (1.0 - p0) };
            *wealth = (*wealth * e).min(MOST_WEALTH);
        }
        let stake = self.cash * STAKED_AFTER_PLAYER / (self.canary.asked as f64 + PLAYERS_BEFORE);
        self.cash -= stake;
        for (wealth, (_, share)) in self.wealth.iter_mut().zip(BETS) {
            *wealth += share * stake;
        }
        if self.rejected_at.is_none() && self.log_evidence() >= self.log_threshold() {
            self.rejected_at = Some(at);
        }
    }

    /// `p0` at `at`: the share of players that may recover without evidence against the version.
    /// `None` if nearly all recover, or if the control has too few players for a canary with this
    /// share of all players.
    pub fn tolerated(&self, share: f64, at: Duration) -> Option<f64> {
        let control = self.control.aged(at);
        let known = share <= 0.5 || control.asked >= LEAST_CONTROL;
        let p0 = control.upper_end().max(LEAST_P0);
        (known && p0 <= MOST_P0).then_some(p0)
    }

    /// Logarithm of the evidence against the canary, in nats.
    pub fn log_evidence(&self) -> f64 {
        log_sum(self.wealth.iter().map(|wealth| wealth.ln()))
    }

    /// Likewise; minus infinity before the first player.
    pub(super) fn evidence_so_far(&self) -> f64 {
        match self.players().canary.asked {
            0 => f64::NEG_INFINITY,
            _ => self.log_evidence(),
        }
    }

    /// The threshold of the evidence, in nats.
    pub fn log_threshold(&self) -> f64 {
        (1.0 / self.alpha).ln()
    }

    /// When the canary was rejected, if it was; that is final.
    pub fn rejected_at(&self) -> Option<Duration> {
        self.rejected_at
    }

    /// The counted players, for people: "11 of 11 players who failed on the canary were served by
    /// the baseline, 2 of 20 of its own".
    pub fn players(&self) -> Arms<Players> {
        Arms::new(self.canary, self.baseline)
    }

    /// Sets another `alpha` for the evidence so far, like [`super::Engine::demand`].
    pub fn demand(&mut self, alpha: f64) {
        self.alpha = alpha;
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn player(recovered: bool) -> Asked {
        Asked { recovered }
    }

    /// Whether a canary with this `share` of the players is rejected within 200 of its players, if
    /// players of both versions recover at `rate`.
    fn rejected(alpha: f64, share: f64, rate: f64, rng: &mut Rng) -> bool {
        let mut test = Recovery::new(alpha);
        while test.players().canary.asked < 200 {
            let player = player(rng.f64() < rate);
            match rng.f64() < share {
                true => test.observe_canary(player, share, NOW),
                false => test.observe_baseline(player, NOW),
            }
        }
        test.rejected_at().is_some()
    }

    /// Median and ninth decile of the canary's players that are needed at an alpha of 0.1 %, if
    /// they recover at `rate`, after `cursed` players who fail on either version.
    fn needed(rate: f64, cursed: u64) -> (u64, u64) {
        let mut rng = Rng::with_seed(3);
        let one = |_| {
            let mut test = Recovery::new(1e-3);
            for _ in 0..cursed {
                test.observe_baseline(player(false), NOW);
                test.observe_canary(player(false), 0.05, NOW);
            }
            while test.rejected_at().is_none() {
                test.observe_canary(player(rng.f64() < rate), 0.05, NOW);
            }
            test.players().canary.asked - cursed
        };
        let mut needed: Vec<u64> = (0..400).map(one).collect();
        needed.sort_unstable();
        (needed[200], needed[360])
    }

    #[test]
    fn eleven_of_eleven_are_enough() {
        let mut test = Recovery::new(1e-3);
        (0..10).for_each(|_| test.observe_canary(player(true), 0.05, NOW));
        assert_eq!(test.rejected_at(), None);
        test.observe_canary(player(true), 0.05, NOW);
        assert!(test.rejected_at() == Some(NOW) && test.log_evidence() >= 1e3f64.ln());
        assert_eq!(test.players().canary, Players { asked: 11, recovered: 11 });
        // The wealth stays finite.
        (0..5_000).for_each(|_| test.observe_canary(player(true), 0.05, NOW));
        assert!(test.log_evidence().is_finite());
    }

    #[test]
    fn faults_of_few_players_are_found() {
        for (rate, cursed, median, tenth) in [
            (0.95, 0, 12, 27),
            (0.9, 0, 24, 38),
            (0.8, 0, 46, 80),
            (1.0, 10, 20, 20),
            (1.0, 200, 25, 25),
        ] {
            let (half, most) = needed(rate, cursed);
            assert!(half <= median && most <= tenth, "{rate}, {cursed} cursed: {half}, {most}");
        }
    }

    /// Without a control and exactly at the boundary.
    #[test]
    fn players_who_recover_half_of_the_time_reject_no_more_often_than_alpha_allows() {
        let mut rng = Rng::with_seed(1);
        let rejected = (0..2_000).filter(|_| {
            let mut test = Recovery::new(0.05);
            (0..300).for_each(|_| test.observe_canary(player(rng.bool()), 0.05, NOW));
            test.rejected_at().is_some()
        });
        // At most 100 are expected, plus three and a half deviations.
        let rejected = rejected.count();
        assert!((10..=134).contains(&rejected), "{rejected} of 2,000");
    }

    /// Players who fail 30 % of their requests on either version, and others.
    #[test]
    fn players_who_recover_by_themselves_are_no_evidence() {
        let mut rng = Rng::with_seed(2);
        for share in [0.05, 0.25, 0.5, 0.9] {
            for rate in [0.5, 0.7, 0.9] {
                let at = |alpha: f64, rng: &mut Rng| {
                    (0..1_000).filter(|_| rejected(alpha, share, rate, rng)).count()
                };
                let (five, tenth) = (at(0.05, &mut rng), at(1e-3, &mut rng));
                // Three and a half deviations above 50 and 1 of 1,000.
                assert!(five <= 74 && tenth <= 4, "{share}, {rate}: {five} and {tenth} of 1,000");
            }
        }
    }

    #[test]
    fn the_control_raises_what_is_tolerated_and_is_forgotten() {
        let mut test = Recovery::new(1e-3);
        assert_eq!((test.tolerated(0.5, NOW), test.tolerated(0.6, NOW)), (Some(0.5), None));
        for number in 0..30 {
            test.observe_baseline(player(number % 10 < 7), NOW);
        }
        let p0 = test.tolerated(0.6, NOW).expect("enough of them");
        assert!((0.8..0.9).contains(&p0), "{p0}");
        let later = NOW + 20 * HALF_LIFE;
        assert!(test.tolerated(0.5, later).expect("a share") < 0.51);
        assert_eq!(test.tolerated(0.6, later), None);
        (0..100).for_each(|_| test.observe_baseline(player(true), NOW));
        let before = test.log_evidence();
        test.observe_canary(player(true), 0.05, NOW);
        assert_eq!((test.tolerated(0.05, NOW), test.log_evidence()), (None, before));
    }

    #[test]
    fn it_survives_being_written() {
        let mut test = Recovery::new(1e-3);
        test.observe_baseline(player(true), NOW);
        // The bet on certain recovery has lost all its wealth.
        for recovered in [true, false, true] {
            test.observe_canary(player(recovered), 0.05, NOW);
        }
        let json = serde_json::to_string(&test).expect("JSON");
        let read: Recovery = serde_json::from_str(&json).expect("a test");
        assert_eq!(read.log_evidence(), test.log_evidence());
        test.demand(0.05);
        assert!((test.log_threshold() - 20f64.ln()).abs() < 1e-12);
    }
}
