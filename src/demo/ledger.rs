//! The ledger: which version answered each player, and who moved. Pure.
//!
//! A player makes one request per sweep: the players of a version are those whose latest response
//! came from it. A player whose response names another version than the one before has *moved*;
//! while v42 grows, every move must be to v42, and once it fails, to v41.
//!
//! A *fault* is a planned failure of v42 that its player saw; one that v41 answered instead is *absorbed*, and
//! its player has not moved. A *failure* is any other. Times are since the players
//! began.

use std::time::Duration;

use super::game::Version;

/// All players and steps.
#[derive(Debug)]
pub(super) struct Ledger {
    seats: Vec<Seat>,
    steps: Vec<Step>,
    /// When the ejection of v42 was observed.
    ejected: Option<Duration>,
    answers: u64,
    faults: Faults,
    failures: u64,
    first_failure: Option<String>,
}

/// A player.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seat {
    /// The version of the latest response.
    pub(super) version: Option<Version>,
    /// The move to it, if it was in this step.
    pub(super) moved: Option<Move>,
    /// Whether the player ever got a fault.
    hit: bool,
    /// Whether the player would have got one.
    spared: bool,
    /// Time of the latest request.
    asked: Duration,
}

/// A change of version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// To the version that grows.
    ToGrowing,
    /// To another version, which must not happen.
    Elsewhere,
}

/// Planned failures of v42, as seen by the players.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Number of faults.
    pub(super) count: u64,
    /// Number of absorbed ones.
    pub(super) absorbed: u64,
    /// Requests to v42 from the first fault or absorbed one on, including it.
    pub(super) of_answers: u64,
}

/// What happened in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// Weight of v42, of 100.
    pub(super) weight: u8,
    /// The version that players may move to: the one whose weight grew, v41 once v42 fails.
    pub(super) growing: Option<Version>,
    /// Whether v42 fails in this step.
    fails: bool,
    /// When the first player moved to the growing version.
    pub(super) first_move: Option<Duration>,
    /// Responses of v42, including faults.
    pub(super) of_v42: u64,
    /// Players on v42 when the step ended, or now.
    pub(super) on_v42: usize,
    /// Moves to the growing version.
    pub(super) to_growing: usize,
    /// Other moves.
    pub(super) elsewhere: usize,
}

impl Ledger {
    /// Creates an empty ledger of `players`.
    pub(super) fn new(players: usize) -> Self {
        Self {
            seats: vec![Seat::default(); players],
            steps: Vec::new(),
            ejected: None,
            answers: 0,
            faults: Faults::default(),
            failures: 0,
            first_failure: None,
        }
    }

    /// Begins a step in which v42 has `weight` of 100. Called before the weights change, so that
    /// the first move counts for the step.
    pub(super) fn begin_step(&mut self, weight: u8) {
        let growing = self.steps.last().and_then(|before| match weight.cmp(&before.weight) {
            std::cmp::Ordering::Greater => Some(Version::V42),
            std::cmp::Ordering::Less => Some(Version::V41),
            std::cmp::Ordering::Equal => None,
        });
        self.begin(weight, growing, false);
    }

    /// Begins the step in which v42 fails: its weight stays, and its players may move to v41.
    pub(super) fn begin_fault(&mut self) {
        let weight = self.steps.last().map_or(0, |step| step.weight);
        self.begin(weight, Some(Version::V41), true);
    }

    fn begin(&mut self, weight: u8, growing: Option<Version>, fails: bool) {
        self.seats.iter_mut().for_each(|seat| seat.moved = None);
        let on_v42 = self.on(Version::V42);
        self.steps.push(Step {
            weight,
            growing,
            fails,
            first_move: None,
            of_v42: 0,
            on_v42,
            to_growing: 0,
            elsewhere: 0,
        });
    }

    /// Records the ejection of v42: later requests must not get it.
    pub(super) fn ejected(&mut self, at: Duration) {
        self.ejected.get_or_insert(at);
    }

    /// Records a request of player number `player`.
    pub(super) fn asks(&mut self, player: usize, at: Duration) {
        self.seats[player].asked = at;
    }

    /// Records a planned failure for player number `player`.
    pub(super) fn faulted(&mut self, player: usize, at: Duration) {
        self.faults.count += 1;
        self.seats[player].hit = true;
        self.answered(player, Version::V42, at);
    }

    /// Records a response of v41 to a request of player number `player` that v42 had failed: the player stays
    /// on v42.
    pub(super) fn rescued(&mut self, player: usize) {
        self.answers += 1;
        self.faults.absorbed += 1;
        self.faults.of_answers += 1;
        self.seats[player].spared = true;
        if let Some(step) = self.steps.last_mut() {
            step.of_v42 += 1;
        }
    }

    /// Records a response of `version` to player number `player`.
    pub(super) fn answered(&mut self, player: usize, version: Version, at: Duration) {
        self.answers += 1;
        if version == Version::V42 && self.faults.count + self.faults.absorbed > 0 {
            self.faults.of_answers += 1;
        }
        let before = self.seats[player].version.replace(version);
        let Some(step) = self.steps.last_mut() else { return };
        step.of_v42 += u64::from(version == Version::V42);
        if before.is_some_and(|before| before != version) {
            // The response to an earlier request may come late, and belong to the growth before the
            // fault.
            let asked = self.seats[player].asked;
            let late = step.fails && self.ejected.is_none_or(|ejected| asked < ejected);
            let moved = if step.growing == Some(version) {
                step.first_move.get_or_insert(at);
                step.to_growing += 1;
                Move::ToGrowing
            } else if late {
                Move::ToGrowing
            } else {
                step.elsewhere += 1;
                Move::Elsewhere
            };
            self.seats[player].moved = Some(moved);
        }
        if before != Some(version) {
            step.on_v42 = self.seats.iter().filter(|s| s.version == Some(Version::V42)).count();
        }
    }

    /// Records a request without a valid response.
    pub(super) fn failed(&mut self, why: String) {
        self.failures += 1;
        self.first_failure.get_or_insert(why);
    }

    /// The players, by number.
    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Steps so far, the present one last.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Players of `version`.
    pub(super) fn on(&self, version: Version) -> usize {
        self.seats.iter().filter(|seat| seat.version == Some(version)).count()
    }

    /// The planned failures of v42.
    pub(super) fn faults(&self) -> Faults {
        self.faults
    }

    /// Players who got a fault.
    pub(super) fn players_hit(&self) -> usize {
        self.seats.iter().filter(|seat| seat.hit).count()
    }

    /// Players who would have got a fault if v41 had not answered.
    pub(super) fn players_spared(&self) -> usize {
        self.seats.iter().filter(|seat| seat.spared).count()
    }

    /// Requests that ended in any way.
    pub(super) fn requests(&self) -> u64 {
        self.answers + self.failures
    }

    /// Requests without a valid response, except faults.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// The reason of the first failure.
    pub(super) fn first_failure(&self) -> Option<&str> {
        self.first_failure.as_deref()
    }

    /// Moves in all steps to a version that did not grow.
    pub(super) fn elsewhere(&self) -> usize {
        self.steps.iter().map(|step| step.elsewhere).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Version::{V41, V42},
        *,
    };

    const AT: Duration = Duration::from_secs(1);

    fn step(ledger: &Ledger) -> (usize, usize, usize) {
        let step = ledger.steps().last().unwrap();
        (step.on_v42, step.to_growing, step.elsewhere)
    }

    #[test]
    fn a_first_answer_is_no_move() {
        let mut ledger = Ledger::new(2);
        ledger.begin_step(0);
        ledger.answered(0, V41, AT);
        ledger.answered(1, V42, AT);
        assert_eq!(step(&ledger), (1, 0, 0));
        assert_eq!((ledger.on(V41), ledger.requests()), (1, 2));
    }

    #[test]
    fn moves_are_judged_by_what_grows() {
        let mut ledger = Ledger::new(3);
        ledger.begin_step(0);
        (0..3).for_each(|player| ledger.answered(player, V41, AT));
        ledger.begin_step(5);
        ledger.answered(0, V42, AT);
        ledger.answered(0, V42, AT);
        assert_eq!(step(&ledger), (1, 1, 0));
        assert_eq!(ledger.seats()[0].moved, Some(Move::ToGrowing));
        // Back and forth: one wrong and one right move, although the player's version is the same
        // as before.
        ledger.answered(0, V41, AT);
        assert_eq!(ledger.seats()[0].moved, Some(Move::Elsewhere));
        ledger.answered(0, V42, AT);
        assert_eq!(step(&ledger), (1, 2, 1));
        ledger.begin_step(1);
        assert_eq!(ledger.seats()[0].moved, None);
        ledger.answered(0, V41, AT);
        ledger.answered(1, V42, AT);
        assert_eq!(step(&ledger), (1, 1, 1));
        assert_eq!(ledger.elsewhere(), 2);
    }

    #[test]
    fn nobody_may_move_while_nothing_grows() {
        let mut ledger = Ledger::new(1);
        ledger.begin_step(0);
        ledger.answered(0, V41, AT);
        ledger.answered(0, V42, AT);
        assert_eq!(step(&ledger), (1, 0, 1));
    }

    #[test]
    fn a_failure_leaves_the_player_where_he_was() {
        let mut ledger = Ledger::new(1);
        ledger.begin_step(0);
        ledger.answered(0, V41, AT);
        ledger.failed("first".to_owned());
        ledger.failed("second".to_owned());
        assert_eq!((ledger.requests(), ledger.failures()), (3, 2));
        assert_eq!(ledger.first_failure(), Some("first"));
        assert_eq!(ledger.seats()[0].version, Some(V41));
    }

    #[test]
    fn a_fault_counts_its_player_once_and_what_v42_answers_from_it_on() {
        let at = Duration::from_millis;
        let mut ledger = Ledger::new(3);
        ledger.begin_step(0);
        (0..3).for_each(|player| ledger.answered(player, V41, AT));
        ledger.begin_step(25);
        ledger.answered(0, V42, at(2_000));
        ledger.begin_fault();
        assert_eq!(ledger.faults(), Faults::default());
        ledger.faulted(0, at(3_000));
        ledger.answered(0, V42, at(3_001));
        ledger.faulted(0, at(3_002));
        ledger.answered(1, V41, at(3_003));
        let faults = Faults { count: 2, absorbed: 0, of_answers: 3 };
        assert_eq!((ledger.faults(), ledger.players_hit()), (faults, 1));
        assert_eq!((ledger.requests(), ledger.failures(), step(&ledger)), (8, 0, (1, 0, 0)));
    }

    #[test]
    fn who_is_rescued_is_spared_and_has_not_moved() {
        let mut ledger = Ledger::new(2);
        ledger.begin_step(25);
        ledger.answered(0, V42, AT);
        ledger.begin_fault();
        ledger.rescued(0);
        ledger.rescued(0);
        ledger.answered(0, V42, AT);
        let faults = Faults { count: 0, absorbed: 2, of_answers: 3 };
        assert_eq!(
            (ledger.faults(), ledger.players_spared(), ledger.players_hit()),
            (faults, 1, 0)
        );
        assert_eq!((ledger.requests(), step(&ledger)), (4, (1, 0, 0)));
    }

    #[test]
    fn once_v42_fails_its_players_may_only_move_to_v41() {
        let mut ledger = Ledger::new(2);
        ledger.begin_step(25);
        ledger.answered(0, V42, AT);
        ledger.answered(1, V41, AT);
        ledger.begin_fault();
        ledger.answered(0, V41, Duration::from_secs(3));
        assert_eq!(step(&ledger), (0, 1, 0));
        let last = *ledger.steps().last().unwrap();
        assert_eq!((last.weight, last.first_move), (25, Some(Duration::from_secs(3))));
        assert_eq!(ledger.steps()[0].of_v42, 1);
        // The request was made before the ejection, so the response belongs to the growth.
        ledger.ejected(Duration::from_secs(4));
        ledger.asks(1, Duration::from_secs(2));
        ledger.answered(1, V42, Duration::from_secs(5));
        assert_eq!(step(&ledger), (1, 1, 0));
        ledger.asks(0, Duration::from_secs(4));
        ledger.answered(0, V42, Duration::from_secs(5));
        assert_eq!(step(&ledger), (2, 1, 1));
    }
}
