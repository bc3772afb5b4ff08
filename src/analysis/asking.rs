//! Finds out whether players who failed twice in a row fail because of the version or of
//! themselves.
//!
//! A player of a canary who failed twice in a row is sent to the baseline for a time. If the
//! baseline serves the player, the version was at fault; otherwise the player is. Comparing a
//! player with himself cannot be confounded by the mix of players. The control is how often players
//! of the baseline recover who also failed twice in a row. `recovery.rs` judges the counts.
//!
//! If a version has several endpoints, the two failures must be on different ones: one bad endpoint
//! fails for everybody, and is handled by ejecting the endpoint.
//!
//! For both groups the first request counts that began after the second failure was known. Requests
//! that were in flight then, such as retries of a client or other calls of a page, do not count:
//! for players of the canary they still went to the canary.
//!
//! After an ejection, the players who failed on the version are followed: if they still fail
//! elsewhere, the ejection did not help.

use std::collections::HashMap;

use super::{
    ledger::{Buckets, is_before},
    recovery::Players,
};

/// How a request of a player ended.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// Whether it was a request of the baseline rather than of a canary.
    pub is_baseline: bool,
    /// Whether it was sent to the baseline instead of the canary that the split assigns.
    pub asked: bool,
    /// Whether it failed.
    pub failed: bool,
    /// Whether the outcome is final: the response is complete.
    pub is_whole: bool,
    /// Number of the version.
    pub version: u16,
    /// Number of the evaluation in which it began.
    pub began: u32,
    /// Number of the current evaluation.
    pub look: u32,
    /// The group of endpoints that served it; `None` if the version has one endpoint.
    pub group: Option<u8>,
}

/// Players who are tested at the baseline, and the results.
#[derive(Debug, Clone, Default)]
pub struct AskRight {
    /// Players whose last request failed, by bucket, with the group of endpoints.
    failed_last: HashMap<u16, Option<u8>>,
    /// Players of the baseline who failed twice in a row, with the evaluation in which that was
    /// known.
    control: HashMap<u16, u32>,
    /// Players whose result is known.
    told: Buckets,
    /// Players who failed on an ejected version, its number, and the evaluation of the ejection.
    followed: Buckets,
    ejected: (u16, u32),
    /// Players of canaries, by the outcome of their first request at the baseline.
    pub canary: Players,
    /// Players of the baseline, by the outcome of their next request.
    pub baseline: Players,
    /// Followed players whose result is known.
    pub known: Players,
}

impl AskRight {
    /// Records the outcome of a request of `player`. Returns whether the player is sent to the
    /// baseline from now on.
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
            // A response that may still break does not count. The map is usually empty, and then
            // nothing is hashed.
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

    /// Records that `player` failed at `group`. Returns whether the previous request failed, too,
    /// in another group if there is more than one.
    fn fails_again(&mut self, player: u16, group: Option<u8>) -> bool {
        let before = self.failed_last.insert(player, group);
        before.is_some_and(|before| group.is_none() || before != group)
    }

    /// Follows `players` of version number `ejected`, which was ejected in evaluation number
    /// `look`, instead of earlier ones; returns their number.
    pub fn follow(&mut self, players: &Buckets, ejected: u16, look: u32) -> u64 {
        self.followed = players.clone();
        self.ejected = (ejected, look);
        self.known = Players::default();
        self.followed.len().into()
    }

    /// Ends all open tests. Players with a result are not tested again: one player who fails now
    /// and then would count many times.
    pub fn let_go(&mut self) {
        self.failed_last.clear();
        self.control.clear();
    }

    /// Allows all players to be tested again, for another version.
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
        let mut asking = AskRight::default();
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
        let mut asking = AskRight::default();
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
        let mut asking = AskRight::default();
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
        let mut asking = AskRight::default();
        // Three calls at the same time, and two retries at the same time.
        for (began, failed) in [(7, true), (7, true), (7, true), (8, true), (8, true)] {
            asking.note(1, Heard { began, ..baseline(failed) });
        }
        assert_eq!(asking.baseline, Players::default());
        asking.note(1, baseline(false));
        assert_eq!((asking.baseline.asked, asking.baseline.recovered), (1, 1));
    }

    #[test]
    fn an_answer_that_may_still_break_ends_no_row_of_failures() {
        let mut asking = AskRight::default();
        let head = Heard { is_whole: false, ..canary(false) };
        assert!(!asking.note(1, head) && !asking.note(1, canary(true)));
        assert!(!asking.note(1, head) && asking.note(1, canary(true)), "both broke");
        assert!(!asking.note(2, canary(true)) && !asking.note(2, canary(false)));
        assert!(!asking.note(2, canary(true)), "one was whole");
    }

    #[test]
    fn players_of_the_baseline_are_the_control() {
        let mut asking = AskRight::default();
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
        let (mut asking, mut failed) = (AskRight::default(), Buckets::default());
        for player in 1..=3 {
            failed.add(player);
        }
        assert_eq!(asking.follow(&failed, 1, 8), 3);
        // Requests from before, to the ejected version or to another one.
        asking.note(1, canary(true));
        asking.note(2, Heard { began: 8, ..baseline(true) });
        for (player, failed) in [(1, true), (1, false), (2, false), (9, true)] {
            asking.note(player, baseline(failed));
        }
        assert_eq!((asking.known.asked, asking.known.recovered), (2, 1));
    }
}
