//! Players who failed twice in a row are asked whether it is they who fail.
//!
//! A player of a canary who did is sent to the baseline for a while. Served there, the version was at
//! fault; failing there, the player is. Within one player no mix of players can deceive, and each meets at
//! most two failures. How often players of the baseline recover by themselves, who also failed twice in
//! a row, is the control. `analysis/recovery.rs` judges the counts.
//!
//! After an ejection, the players who failed on the version are followed to wherever they are sent: if
//! they go on failing, the ejection helped nobody.

use super::{
    Counter, PerWorker,
    players::{Player, PlayerSet},
};

/// Who is asked, and what came of it. Shared by all versions and routes of a service.
#[derive(Debug)]
pub struct Asked {
    /// Players whose last request failed.
    failed_last: PlayerSet,
    /// Players of a canary who are sent to the baseline.
    diverted: PlayerSet,
    /// Players of the baseline who failed twice in a row.
    control: PlayerSet,
    /// Players of whom it is known what came of it.
    told: PlayerSet,
    /// Players who failed on a version that was ejected.
    followed: PlayerSet,
    /// What came of it.
    pub cells: PerWorker<AskedCells>,
}

/// How many players were asked, by worker, and how many of those were served.
#[derive(Debug, Default)]
pub struct AskedCells {
    /// Players of canaries.
    pub diverted: Counter,
    /// Of those, served by the baseline.
    pub recovered: Counter,
    /// Players of the baseline.
    pub control: Counter,
    /// Of those, served by their next request.
    pub control_recovered: Counter,
    /// Players who were followed, of whom it is known.
    pub followed: Counter,
    /// Of those, served.
    pub followed_served: Counter,
}

impl Asked {
    /// Nobody is asked yet.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            failed_last: PlayerSet::default(),
            diverted: PlayerSet::default(),
            control: PlayerSet::default(),
            told: PlayerSet::default(),
            followed: PlayerSet::default(),
            cells: PerWorker::new(workers),
        }
    }

    /// Whether `player`, whom the split sends to a canary, is to be sent to the baseline.
    pub fn is_diverted(&self, player: Player) -> bool {
        self.diverted.has(player)
    }

    /// Notes how a request of `player` ended. `diverted`: it was sent to the baseline instead of the
    /// `is_baseline` or canary version that the split has for him.
    pub fn note(
        &self,
        worker: usize,
        player: Player,
        is_baseline: bool,
        diverted: bool,
        failed: bool,
    ) {
        let cells = self.cells.of(worker);
        if self.followed.remove(player) {
            cells.followed.add(1);
            cells.followed_served.add(u64::from(!failed));
        }
        if diverted {
            if !self.told.has(player) {
                self.told.add(player);
                cells.diverted.add(1);
                cells.recovered.add(u64::from(!failed));
            }
        } else if self.control.has(player) {
            if is_baseline && !self.told.has(player) {
                self.told.add(player);
                cells.control.add(1);
                cells.control_recovered.add(u64::from(!failed));
            }
        } else if failed {
            match (self.failed_last.has(player), is_baseline) {
                (false, _) => self.failed_last.add(player),
                (true, true) => self.control.add(player),
                (true, false) => self.diverted.add(player),
            }
        } else {
            self.failed_last.remove(player);
        }
    }

    /// Follows `players` of a version that was ejected, instead of those before.
    pub fn follow(&self, players: &PlayerSet) {
        self.followed.clear();
        self.followed.add_all(players);
    }

    /// How many are followed of whom nothing is known yet.
    pub fn followed(&self) -> u32 {
        self.followed.len()
    }

    /// Lets everybody go back to the version that the split has for him, to be asked anew.
    pub fn let_go(&self) {
        for players in [&self.failed_last, &self.diverted, &self.control, &self.told] {
            players.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(asked: &Asked) -> [u64; 4] {
        let cells = asked.cells.of(0);
        [&cells.diverted, &cells.recovered, &cells.control, &cells.control_recovered]
            .map(Counter::read)
    }

    #[test]
    fn who_fails_twice_in_a_row_on_a_canary_is_sent_to_the_baseline_and_told_once() {
        let asked = Asked::new(1);
        let canary = |player, failed| asked.note(0, Player(player), false, false, failed);
        canary(1, true);
        canary(1, false);
        canary(1, true);
        assert!(!asked.is_diverted(Player(1)), "not in a row");
        canary(1, true);
        assert!(asked.is_diverted(Player(1)));
        for failed in [false, true, false] {
            asked.note(0, Player(1), false, true, failed);
        }
        assert_eq!(counts(&asked), [1, 1, 0, 0]);
        asked.let_go();
        assert!(!asked.is_diverted(Player(1)));
    }

    #[test]
    fn players_of_the_baseline_are_the_control() {
        let asked = Asked::new(1);
        let baseline = |player, failed| asked.note(0, Player(player), true, false, failed);
        [true, true, true, false].iter().for_each(|failed| baseline(1, *failed));
        [true, true, false].iter().for_each(|failed| baseline(2, *failed));
        assert!(!asked.is_diverted(Player(1)));
        assert_eq!(counts(&asked), [0, 0, 2, 1]);
    }

    #[test]
    fn who_failed_on_an_ejected_version_is_followed_once() {
        let (asked, failed) = (Asked::new(1), PlayerSet::default());
        (1..=3).for_each(|player| failed.add(Player(player)));
        asked.follow(&failed);
        asked.note(0, Player(1), true, false, true);
        asked.note(0, Player(1), true, false, false);
        asked.note(0, Player(2), true, false, false);
        asked.note(0, Player(9), true, false, true);
        let cells = asked.cells.of(0);
        assert_eq!((cells.followed.read(), cells.followed_served.read()), (2, 1));
        assert_eq!(asked.followed(), 1);
    }
}
