//! Whether an ejection helped the players who failed.
//!
//! The players who failed on an ejected version are followed to the versions that serve them now. If most of
//! them still fail, the cause is either the players themselves or something that all versions share.

use std::time::Duration;

use crate::analysis::Players;

/// How long they are followed, at least and at most. A problem that persists for a second may be over after
/// ten, and each false report moves the players of a version twice.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);
/// With fewer players there is no result.
const LEAST: u64 = 3;

/// Players who failed on an ejected version.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) version: Box<str>,
    since: Duration,
    players: u64,
}

/// The result of following them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Too little is known.
    Open,
    /// Most are served now, or too few returned.
    Helped,
    /// Most still fail: the number that fail, and the number known.
    DidNotHelp([u64; 2]),
}

impl Followed {
    /// Follows `players`, a number of players of `version`, from `now` on.
    pub(super) fn new(version: &str, players: u64, now: Duration) -> Self {
        Self { version: version.into(), since: now, players }
    }

    /// The result at `now`, given the results of the players who are `known`.
    pub(super) fn poll(&self, known: Players, now: Duration) -> Outcome {
        decide(self.players, known.asked, known.recovered, now.saturating_sub(self.since))
    }
}

/// The result at `age` after the ejection: of `players` followed, the results of `known` are known, and
/// `served` of these were served.
fn decide(players: u64, known: u64, served: u64, age: Duration) -> Outcome {
    let enough = known >= LEAST && 2 * known >= players && age >= SHORTEST;
    match (enough || age >= LONGEST, known >= LEAST && 2 * served < known) {
        (false, _) => Outcome::Open,
        (true, false) => Outcome::Helped,
        (true, true) => Outcome::DidNotHelp([known - served, known]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ejection_did_not_help_if_most_players_still_fail() {
        let at = |known, served, s| decide(8, known, served, Duration::from_secs(s));
        assert_eq!(at(4, 0, 9), Outcome::Open, "too soon");
        assert_eq!(at(3, 0, 10), Outcome::Open, "of too few");
        assert_eq!(at(4, 0, 10), Outcome::DidNotHelp([4, 4]));
        assert_eq!(at(4, 1, 10), Outcome::DidNotHelp([3, 4]));
        assert_eq!(at(4, 2, 10), Outcome::Helped);
        assert_eq!(at(3, 0, 60), Outcome::DidNotHelp([3, 3]), "nobody else comes");
        assert_eq!(at(2, 0, 60), Outcome::Helped, "too few came back to tell");
        assert_eq!(decide(3, 2, 0, Duration::from_secs(11)), Outcome::Open);
    }
}
