//! Players who failed twice in a row are asked whether it is they who fail.
//!
//! A player of a canary who did is sent to the baseline for a while. Served there, the version was at
//! fault; failing there, the player is. Within one player no mix of players can deceive. How often players
//! of the baseline recover by themselves, who also failed twice in a row, is the control. `recovery.rs`
//! judges the counts.
//!
//! Where a version has several endpoints, the two failures must be on two of them: one bad endpoint fails
//! everybody whom it serves, and is an endpoint's affair.
//!
//! Both are looked at by a request that began after it was known that they had failed twice. What was under
//! way then, as the retries of a client or the other calls of a page, is no answer: of the canary's players
//! such requests still went to the canary.
//!
//! After an ejection, the players who failed on the version are followed to wherever they are sent: if they
//! go on failing, the ejection helped nobody.

use std::collections::HashMap;

use super::{
    ledger::{Buckets, is_before},
    recovery::Players,
};

/// How a request of a player ended.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// It was one of the baseline, or of a canary.
    pub is_baseline: bool,
    /// It was sent to the baseline instead of the canary that the split has for the player.
    pub asked: bool,
    /// It failed.
    pub failed: bool,
    /// That is for good: the answer is whole.
    pub is_whole: bool,
    /// Number of the version that it was one of.
    pub version: u16,
    /// Number of the look in which it began.
    pub began: u32,
    /// Number of the present look.
    pub look: u32,
    /// Which group of endpoints served it; nothing if the version has one endpoint.
    pub group: Option<u8>,
}

/// Who is asked, and what came of it.
#[derive(Debug, Clone, Default)]
pub struct Asking {
    /// Players whose last request failed, by bucket, and where.
    failed_last: HashMap<u16, Option<u8>>,
    /// Players of the baseline who failed twice in a row, and the look at which that was known.
    control: HashMap<u16, u32>,
    /// Players of whom it is known what came of it.
    told: Buckets,
    /// Players who failed on a version that was ejected, its number, and the look at which it was.
    followed: Buckets,
    ejected: (u16, u32),
    /// Players of canaries, by how their first request at the baseline ended.
    pub canary: Players,
    /// Players of the baseline, by how their next request ended.
    pub baseline: Players,
    /// Players who were followed, of whom it is known.
    pub known: Players,
}

impl Asking {
    /// Notes how a request of `player` ended. Whether he is to be sent to the baseline from now on.
    pub fn note(&mut self, player: u16, heard: Heard) -> bool {
        let Heard { is_baseline, asked, failed, group, began, .. } = heard;
        let (ejected, at) = self.ejected;
        if heard.version != ejected && is_before(at, began) && self.followed.remove(player) {
            self.known.add(!failed);
        }
        if asked {
            if self.told.add(player) {
                self.canary.add(!failed);
            }
        } else if let Some(known) = self.control.get(&player) {
            if is_baseline && is_before(*known, began) && self.told.add(player) {
                self.baseline.add(!failed);
            }
        } else if !failed {
            // An answer that may still break is none. Usually nobody is in it, and then nothing is hashed.
            if heard.is_whole && !self.failed_last.is_empty() {
                self.failed_last.remove(&player);
            }
        } else if self.fails_again(player, group) && !self.told.has(player) {
            if is_baseline {
                self.control.insert(player, heard.look.wrapping_sub(1));
            }
            return !is_baseline;
        }
        false
    }

    /// Whether the last request of `player` failed.
    pub fn failed_last(&self, player: u16) -> bool {
        self.failed_last.contains_key(&player)
    }

    /// Notes that `player` failed at `group`; whether his request before did, too, and elsewhere if there is
    /// another place.
    fn fails_again(&mut self, player: u16, group: Option<u8>) -> bool {
        let before = self.failed_last.insert(player, group);
        before.is_some_and(|before| group.is_none() || before != group)
    }

    /// Follows `players` of version number `ejected`, which was that at the look number `look`, instead of those
    /// before; how many they are.
    pub fn follow(&mut self, players: &Buckets, ejected: u16, look: u32) -> u64 {
        self.followed = players.clone();
        self.ejected = (ejected, look);
        self.known = Players::default();
        self.followed.len().into()
    }

    /// Ends all questions that are open. Who has answered is not asked again: one player who fails now and
    /// then would be many.
    pub fn let_go(&mut self) {
        self.failed_last.clear();
        self.control.clear();
    }

    /// Lets everybody be asked anew, of another version.
    pub fn begin(&mut self) {
        self.let_go();
        self.told.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(failed: bool) -> Heard {
        Heard {
            is_baseline: false,
            asked: false,
            failed,
            is_whole: true,
            version: 1,
            began: 9,
            look: 9,
            group: None,
        }
    }

    fn baseline(failed: bool) -> Heard {
        Heard { is_baseline: true, version: 0, ..canary(failed) }
    }

    #[test]
    fn who_fails_on_one_endpoint_of_several_is_not_asked() {
        let mut asking = Asking::default();
        let mut fails =
            |player, group| asking.note(player, Heard { group: Some(group), ..canary(true) });
        assert!((0..9).all(|_| !fails(1, 4)), "one bad endpoint");
        assert!(fails(1, 5), "on another one, too");
        for (player, second) in [(2, 0), (3, 1)] {
            for (group, failed) in [(0, true), (second, true), (0, false)] {
                asking.note(player, Heard { group: Some(group), ..baseline(failed) });
            }
        }
        assert_eq!(asking.baseline.asked, 1);
    }

    #[test]
    fn who_fails_twice_in_a_row_on_a_canary_is_asked_and_told_once() {
        let mut asking = Asking::default();
        let mut asks = |failed| asking.note(1, canary(failed));
        assert!(!asks(true) && !asks(false) && !asks(true), "not in a row");
        assert!(asks(true));
        for failed in [false, true, false] {
            assert!(!asking.note(1, Heard { asked: true, ..baseline(failed) }));
        }
        assert_eq!((asking.canary.asked, asking.canary.recovered), (1, 1));
        asking.begin();
        assert!(!asking.note(1, canary(true)) && asking.note(1, canary(true)));
    }

    #[test]
    fn a_player_who_fails_now_and_then_is_one_player_however_often_he_is_let_go() {
        let mut asking = Asking::default();
        for _ in 0..20 {
            asking.note(1, canary(true));
            let asked = asking.note(1, canary(true));
            asking.note(1, Heard { is_baseline: !asked, asked, ..canary(false) });
            for failed in [true, true, false] {
                asking.note(2, baseline(failed));
            }
            asking.let_go();
        }
        assert_eq!((asking.canary.asked, asking.baseline.asked), (1, 1));
    }

    #[test]
    fn what_was_under_way_when_a_player_of_the_control_was_known_is_no_answer() {
        let mut asking = Asking::default();
        // Three calls at once, and two retries at once.
        for (began, failed) in [(7, true), (7, true), (7, true), (8, true), (8, true)] {
            asking.note(1, Heard { began, ..baseline(failed) });
        }
        assert_eq!(asking.baseline, Players::default());
        asking.note(1, baseline(false));
        assert_eq!((asking.baseline.asked, asking.baseline.recovered), (1, 1));
    }

    #[test]
    fn an_answer_that_may_still_break_ends_no_row_of_failures() {
        let mut asking = Asking::default();
        let head = Heard { is_whole: false, ..canary(false) };
        assert!(!asking.note(1, head) && !asking.note(1, canary(true)));
        assert!(!asking.note(1, head) && asking.note(1, canary(true)), "both broke");
        assert!(!asking.note(2, canary(true)) && !asking.note(2, canary(false)));
        assert!(!asking.note(2, canary(true)), "one was whole");
    }

    #[test]
    fn players_of_the_baseline_are_the_control() {
        let mut asking = Asking::default();
        for (player, failed) in [(1, true), (1, true), (1, true), (1, false), (2, true), (2, true)]
        {
            assert!(!asking.note(player, baseline(failed)));
        }
        asking.note(2, baseline(false));
        assert_eq!((asking.baseline.asked, asking.baseline.recovered), (2, 1));
        assert_eq!(asking.canary, Players::default());
    }

    #[test]
    fn who_failed_on_an_ejected_version_is_followed_once() {
        let (mut asking, mut failed) = (Asking::default(), Buckets::default());
        for player in 1..=3 {
            failed.add(player);
        }
        assert_eq!(asking.follow(&failed, 1, 8), 3);
        // What they had asked before, of the version that is out or of another one.
        asking.note(1, canary(true));
        asking.note(2, Heard { began: 8, ..baseline(true) });
        for (player, failed) in [(1, true), (1, false), (2, false), (9, true)] {
            asking.note(player, baseline(failed));
        }
        assert_eq!((asking.known.asked, asking.known.recovered), (2, 1));
    }
}
