//! Which players were seen on which versions, since the split changed last.
//!
//! A player is a bucket of 65,536. Each bucket counts once, for the version of its request that *began* first, so
//! the counts are independent draws, also when several players share a bucket. A bucket that is seen on two
//! versions is either shared by two players or one who moved: from the number of those that are shared by
//! chance follows how many moved for certain.
//!
//! A player is a draw of the split only if nothing that the versions did decides whether the player is there. Of a
//! version that its players leave sooner, fewer of those whom it had are still there after the next change. So a player
//! who was seen under an earlier split of several versions is none of the draws of this one: those are new to it. As long
//! as one version had all players, all of them stayed as long, and count. If players were split before anybody noted
//! them, such as before a restart, those who are seen within [`STRANGERS_AFTER`] may have been there before, and do not
//! count either.
//!
//! A player is known when a request ends, so at any moment the players of a slow version are known in part only.
//! Therefore those count whose first request began so long ago that every request of that time has ended. And
//! while the first of them are known, players who send their requests one after another show up later on a slow
//! version than on a fast one: the split is not judged before [`SETTLED`].
//!
//! Rejected: to count from the first evaluation after the change of the split. A request's evaluation number is
//! taken when it was sent to its end, which is seconds after its version was chosen if the client sends slowly. So
//! each outcome says which split has chosen its version. Also rejected: to compare players who were there before with
//! the shares that those of their earlier version should have now. A bucket of several players has several versions.

mod table;

use std::{collections::VecDeque, time::Duration};

use self::table::{BUCKETS, Table};
use crate::{
    analysis::{Buckets, is_before},
    registry::Player,
};

/// Versions that are told apart; a split over more of them is not checked.
const MOST: usize = 16;

/// How long players are watched before they are compared with the split.
const SETTLED: Duration = Duration::from_secs(10);

/// How long after players began to be noted one who is seen first is taken for one who was there before, if they were
/// split already.
const STRANGERS_AFTER: Duration = Duration::from_secs(60);

/// How far apart the evaluations are whose times are remembered.
const APART: Duration = Duration::from_millis(100);

/// Players by version, since the split changed last.
#[derive(Debug, Clone, Default)]
pub struct Exposure {
    players: Table,
    /// Players who were seen under an earlier split of several versions.
    known: Buckets,
    /// Whether the split before was one of several versions.
    was_split: bool,
    /// Whether players were split before anybody noted them.
    is_amid: bool,
    /// Until then a player who is seen first may have been there before.
    strangers_from: Duration,
    /// Players whose first request may not have been the first to begin.
    waiting: Vec<Player>,
    /// By version, players who were drawn: those who are new.
    drawn: [u64; MOST],
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

impl Exposure {
    /// Begins to note players; `is_split`: several versions have had players already.
    pub(super) fn begun(is_split: bool) -> Self {
        Self { is_amid: is_split, ..Self::default() }
    }

    /// Begins anew, with a split that comes into force before the next evaluation; `was_split`: several versions had
    /// players until now.
    pub(super) fn follow_split(&mut self, was_split: bool) {
        let Self { players, mut known, is_amid, strangers_from, .. } = std::mem::take(self);
        if was_split {
            players.each(|player| {
                known.add(player.0);
            });
        }
        *self = Self { known, was_split, is_amid, strangers_from, ..Self::default() };
    }

    /// Begins the evaluation number `look` at `now`. A request ends within `wait` after it began, or has failed.
    pub(super) fn look(&mut self, look: u32, wait: Duration, now: Duration) {
        self.first.get_or_insert((now, look));
        if std::mem::take(&mut self.is_amid) {
            self.strangers_from = now + STRANGERS_AFTER;
        }
        if self.open.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= APART) {
            self.open.push_back((now, look));
        }
        let mut ended = None;
        while self.open.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= wait) {
            ended = self.open.pop_front();
        }
        if let Some(ended) = ended {
            self.ended = Some(ended);
            self.settle(ended);
        }
    }

    /// Counts the players all of whose requests of the time have ended at which their first one began.
    fn settle(&mut self, (at, ended): (Duration, u32)) {
        let Self { players, known, drawn, .. } = self;
        let is_early = at < self.strangers_from;
        self.waiting.retain(|player| {
            let seen = players.of(*player);
            if !is_before(seen.began, ended) {
                return true;
            }
            if is_early {
                known.add(player.0);
            } else if !known.has(player.0) {
                drawn[usize::from(seen.first)] += 1;
            }
            false
        });
    }

    /// Notes that `player` was seen with a request whose version an earlier split has chosen.
    pub(super) fn knows(&mut self, player: Player) {
        if self.was_split {
            self.known.add(player.0);
        }
    }

    /// Notes that `player` was seen on `version`, with a request that began in the evaluation number `look`. One that
    /// began before the first evaluation is left out.
    pub(super) fn add(&mut self, player: Player, version: u16, look: u32) {
        if self.first.is_none_or(|(_, first)| is_before(look, first)) {
            return self.knows(player);
        }
        if usize::from(version) >= MOST {
            return;
        }
        let (seen, bit) = (self.players.at(player), 1 << version);
        let known = seen.versions.count_ones();
        if known == 0 || is_before(look, seen.began) {
            (seen.began, seen.first) = (look, version);
        }
        if seen.versions & bit != 0 {
            return;
        }
        seen.versions |= bit;
        self.touched[usize::from(version)] += 1;
        match known {
            0 => {
                self.all += 1;
                self.waiting.push(player);
            }
            1 => self.twice += 1,
            _ => {}
        }
    }

    /// By version, players whom the split in force was the first to send somewhere, of those who are to be compared with
    /// it.
    pub fn players(&self) -> [u64; MOST] {
        let watched =
            self.first.zip(self.ended).map(|((from, _), (to, _))| to.saturating_sub(from));
        match watched {
            Some(watched) if watched >= SETTLED => self.drawn,
            _ => [0; MOST],
        }
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
    fn players_of_an_earlier_split_are_no_draws_of_a_later_one() {
        let mut exposure = seen(1_000, 0.0, 3);
        let all = exposure.all();
        // One version had all of them: they are drawn now.
        exposure.follow_split(false);
        let step = |exposure: &mut Exposure, look: u32, players: u16, from: Duration| {
            exposure.look(look, WAIT, from);
            (0..players).for_each(|player| exposure.add(Player(player), 0, look + 1));
            exposure.look(look + 2, WAIT, from + SETTLED);
            exposure.look(look + 3, WAIT, from + SETTLED + WAIT);
            exposure.players().iter().sum::<u64>()
        };
        assert!(all > 900);
        assert_eq!(step(&mut exposure, 10, 500, Duration::ZERO), 500);
        exposure.follow_split(true);
        // Their requests of the split before end now; some are seen for the first time by that.
        (490..510).for_each(|player| exposure.knows(Player(player)));
        let more = step(&mut exposure, 20, 600, Duration::from_secs(30));
        assert_eq!((more, exposure.all()), (90, 600));
    }

    #[test]
    fn who_may_have_been_there_before_anybody_looked_is_no_draw() {
        let mut exposure = Exposure::begun(true);
        exposure.look(1, WAIT, Duration::ZERO);
        exposure.add(Player(1), 0, 2);
        exposure.look(3, WAIT, SETTLED);
        exposure.look(4, WAIT, SETTLED + WAIT);
        exposure.follow_split(true);
        exposure.look(5, WAIT, STRANGERS_AFTER);
        exposure.look(6, WAIT, STRANGERS_AFTER + WAIT);
        (1..=3).for_each(|player| exposure.add(Player(player), 1, 7));
        exposure.look(8, WAIT, STRANGERS_AFTER + SETTLED);
        exposure.look(9, WAIT, STRANGERS_AFTER + SETTLED + WAIT);
        assert_eq!(exposure.players()[..2], [0, 2]);
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
