//! Which players were seen on which versions, since the split changed last.
//!
//! A player is a bucket of 65,536. Each bucket counts once, for the version of its request that *began* first, so
//! the counts are independent draws, also when several players share a bucket. A bucket that is seen on two
//! versions is either shared by two players or one who moved: from the number of those that are shared by
//! chance follows how many moved for certain.
//!
//! A player is known when a request ends, so at any moment the players of a slow version are known in part only.
//! Therefore those count whose first request began so long ago that every request of that time has ended. And
//! while the first of them are known, players who send their requests one after another show up later on a slow
//! version than on a fast one: the split is not judged before [`SETTLED`].
//!
//! Rejected: to count from the first evaluation after the change of the split. A request's evaluation number is
//! taken when it was sent to its end, which is seconds after its version was chosen if the client sends slowly. So
//! each outcome says which split has chosen its version.

use std::{collections::VecDeque, time::Duration};

use crate::{analysis::is_before, registry::Player};

const BUCKETS: usize = 1 << 16;

/// Versions that are told apart; a split over more of them is not checked.
const MOST: usize = 16;

/// How long players are watched before they are compared with the split.
const SETTLED: Duration = Duration::from_secs(10);

/// How far apart the evaluations are whose times are remembered.
const APART: Duration = Duration::from_millis(100);

/// A player, since the split changed last.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// The evaluation in which the first request began.
    began: u32,
    /// The version that got that request.
    first: u16,
    /// The versions that the player was seen on, one bit each.
    versions: u16,
}

/// Players by version, since the split changed last.
#[derive(Debug, Clone)]
pub struct Exposure {
    players: Box<[Seen]>,
    /// By version, buckets that were seen there at all.
    touched: [u64; MOST],
    /// Buckets that were seen, and those seen on more than one version.
    all: u64,
    twice: u64,
    /// The first evaluation.
    first: Option<(Duration, u32)>,
    /// Evaluations whose requests may still be in flight, the oldest first.
    open: VecDeque<(Duration, u32)>,
    /// The evaluation before which every request has ended.
    ended: Option<(Duration, u32)>,
}

impl Default for Exposure {
    fn default() -> Self {
        Self {
            players: vec![Seen::default(); BUCKETS].into(),
            touched: Default::default(),
            all: 0,
            twice: 0,
            first: None,
            open: VecDeque::new(),
            ended: None,
        }
    }
}

impl Exposure {
    /// Begins the evaluation number `look` at `now`. A request ends within `wait` after it began, or has failed.
    pub(super) fn look(&mut self, look: u32, wait: Duration, now: Duration) {
        self.first.get_or_insert((now, look));
        if self.open.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= APART) {
            self.open.push_back((now, look));
        }
        while self.open.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= wait) {
            self.ended = self.open.pop_front();
        }
    }

    /// Notes that `player` was seen on `version`, with a request that began in the evaluation number `look`. One that
    /// began before the first evaluation is left out.
    pub(super) fn add(&mut self, player: Player, version: u16, look: u32) {
        let is_early = self.first.is_none_or(|(_, first)| is_before(look, first));
        if is_early || usize::from(version) >= MOST {
            return;
        }
        let (seen, bit) = (&mut self.players[usize::from(player.0)], 1 << version);
        let known = seen.versions.count_ones();
        if known == 0 || is_before(look, seen.began) {
            (seen.began, seen.first) = (look, version);
        }
        if seen.versions & bit != 0 {
            return;
        }
        seen.versions |= bit;
        self.touched[usize::from(version)] += 1;
        self.all += u64::from(known == 0);
        self.twice += u64::from(known == 1);
    }

    /// By version, players whose first request went there, of those who are to be compared with the split.
    pub fn players(&self) -> [u64; MOST] {
        let mut players = [0; MOST];
        let is_settled = |from: Duration, to: Duration| to.saturating_sub(from) >= SETTLED;
        let (Some((from, _)), Some((to, ended))) = (self.first, self.ended) else { return players };
        if is_settled(from, to) {
            let seen = self.players.iter().filter(|seen| seen.versions != 0);
            seen.filter(|seen| is_before(seen.began, ended))
                .for_each(|seen| players[usize::from(seen.first)] += 1);
        }
        players
    }

    /// All players.
    pub fn all(&self) -> u64 {
        self.all
    }

    /// Players who were certainly seen on two versions: those beyond what shared buckets explain, four
    /// standard deviations included.
    pub fn moved(&self) -> u64 {
        let share = |touched: &u64| *touched as f64 / BUCKETS as f64;
        let none: f64 = self.touched.iter().map(|touched| 1.0 - share(touched)).product();
        let one: f64 = self
            .touched
            .iter()
            .map(share)
            .filter(|share| *share < 1.0)
            .map(|share| share * none / (1.0 - share))
            .sum();
        let chance = BUCKETS as f64 * (1.0 - none - one).max(0.0);
        (self.twice as f64 - chance - 4.0 * (chance + 1.0).sqrt()).max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const WAIT: Duration = Duration::from_secs(1);

    /// `players` on a split of 19 to 1, of whom the share `moving` is seen on both versions.
    fn seen(players: u32, moving: f64, seed: u64) -> Exposure {
        let (mut rng, mut exposure) = (Rng::with_seed(seed), Exposure::default());
        exposure.look(1, WAIT, Duration::ZERO);
        for _ in 0..players {
            let (player, version) = (Player(rng.u16(..)), u16::from(rng.f64() < 0.05));
            exposure.add(player, version, 1);
            exposure.add(player, version, 1);
            if rng.f64() < moving {
                exposure.add(player, 1 - version, 1);
            }
        }
        exposure.look(2, WAIT, SETTLED);
        exposure.look(3, WAIT, SETTLED + WAIT);
        exposure
    }

    #[test]
    fn players_who_stay_are_not_said_to_move_however_full_the_buckets_are() {
        for players in [100, 5_000, 50_000, 500_000] {
            for seed in 0..20 {
                let exposure = seen(players, 0.0, seed);
                assert_eq!(exposure.moved(), 0, "{players} players");
                assert_eq!(exposure.players().iter().sum::<u64>(), exposure.all());
                let share = exposure.players()[1] as f64 / exposure.all() as f64;
                let deviation = (0.05 * 0.95 / exposure.all() as f64).sqrt();
                assert!((share - 0.05).abs() < 4.5 * deviation, "{players}: {share}");
            }
        }
    }

    #[test]
    fn players_who_move_are_found() {
        let exposure = seen(20_000, 0.1, 7);
        let moved = exposure.moved();
        assert!((1_000..=2_000).contains(&moved), "{moved}");
        assert!(exposure.all() < 20_000);
    }

    #[test]
    fn the_request_that_began_first_decides_once_all_of_its_time_have_ended() {
        let mut exposure = Exposure::default();
        exposure.add(Player(1), 0, 5);
        assert_eq!(exposure.all(), 0, "nothing is known of the split yet");
        exposure.look(10, WAIT, Duration::ZERO);
        exposure.add(Player(1), 0, 9);
        exposure.add(Player(2), 0, 30);
        exposure.add(Player(2), 1, 20);
        exposure.add(Player(3), MOST as u16, 30);
        assert_eq!((exposure.all(), exposure.players()), (1, [0; MOST]));
        exposure.look(40, WAIT, SETTLED);
        exposure.add(Player(4), 0, 50);
        exposure.look(41, WAIT, SETTLED + WAIT / 2);
        assert_eq!(exposure.players(), [0; MOST], "one of that time may be in flight");
        exposure.look(42, WAIT, SETTLED + WAIT);
        let players = exposure.players();
        assert_eq!((players[0], players[1]), (0, 1), "the later request of it ended first");
        exposure.look(60, WAIT, SETTLED + 2 * WAIT);
        exposure.look(70, WAIT, SETTLED + 3 * WAIT);
        assert_eq!(exposure.players()[0], 1);
    }
}
