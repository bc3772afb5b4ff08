//! Sets of players, and the players who do not count any more in a cycle.

use std::time::Duration;

use super::Ending;

/// Buckets of players.
const PLAYERS: usize = 1 << 16;

/// A set of players.
#[derive(Debug, Clone, Default)]
pub struct Buckets(Option<Box<[u64; PLAYERS / 64]>>);

impl Buckets {
    fn at(player: u16) -> (usize, u64) {
        (usize::from(player) / 64, 1 << (player % 64))
    }

    /// Whether the set contains `player`.
    pub fn has(&self, player: u16) -> bool {
        let (word, bit) = Self::at(player);
        self.0.as_ref().is_some_and(|words| words[word] & bit != 0)
    }

    /// Adds `player`; returns whether it is new.
    pub fn add(&mut self, player: u16) -> bool {
        let (word, bit) = Self::at(player);
        let word = &mut self.0.get_or_insert_with(|| Box::new([0; PLAYERS / 64]))[word];
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Removes `player`; returns whether it was in the set.
    pub fn remove(&mut self, player: u16) -> bool {
        let (word, bit) = Self::at(player);
        let Some(words) = &mut self.0 else { return false };
        let was = words[word] & bit != 0;
        words[word] &= !bit;
        was
    }

    /// Removes all players.
    pub fn clear(&mut self) {
        if let Some(words) = &mut self.0 {
            words.fill(0);
        }
    }

    /// The number of players.
    pub fn len(&self) -> u32 {
        self.0.iter().flat_map(|words| words.iter()).map(|word| word.count_ones()).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Ways of being bad, each with cycles of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Failed,
    Unserved,
    Refused,
    /// At the gauge of that number.
    Slow(usize),
}

impl Way {
    const COUNT: usize = 7;
    const ALL: [Self; Self::COUNT] = [
        Self::Failed,
        Self::Unserved,
        Self::Refused,
        Self::Slow(0),
        Self::Slow(1),
        Self::Slow(2),
        Self::Slow(3),
    ];

    fn index(self) -> usize {
        match self {
            Self::Failed => 0,
            Self::Unserved => 1,
            Self::Refused => 2,
            Self::Slow(gauge) => 3 + gauge % 4,
        }
    }

    /// The mark of players with a request in the cycle.
    fn active(self) -> u16 {
        1 << self.index()
    }

    /// The mark of players who were bad in the cycle.
    fn bad(self) -> u16 {
        1 << (Self::COUNT + self.index())
    }
}

/// The mark of players with a request in this second.
const SEEN: u16 = 1 << (2 * Way::COUNT);

/// Players with requests in a cycle, and those who do not count any more since they were bad. All
/// marks of a player are in one word, so that a request touches one cache line.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    players: Option<Box<[u16]>>,
    networks: Option<Box<[u16]>>,
    cycles: [Cycle; Way::COUNT],
}

/// The progress of a cycle.
#[derive(Debug, Clone, Copy, Default)]
struct Cycle {
    began: Duration,
    /// Players with a request in it.
    active: u32,
    /// Bad players among them.
    bad: u32,
}

/// Shortest length of a cycle.
const CYCLE: Duration = Duration::from_secs(10);
/// Fraction of bad players that ends a cycle, and their smallest number: otherwise one player of three would be
/// bad again in each cycle.
const FULL: f64 = 0.25;
const LEAST_FULL: u32 = 3;

impl Marks {
    /// All marks of `player`.
    pub(super) fn of(&self, player: u16) -> u16 {
        self.players.as_ref().map_or(0, |words| words[usize::from(player)])
    }

    /// Records a request; returns whether it is the player's first of the second, and, if networks
    /// count, the first of the client's network: otherwise many keys of one network could dominate
    /// the trials.
    pub(super) fn see(&mut self, player: u16, network: Option<u16>) -> bool {
        let own = is_first(&mut of(&mut self.players)[usize::from(player)]);
        let network = network.map(|network| &mut of(&mut self.networks)[usize::from(network)]);
        network.is_none_or(is_first) && own
    }

    /// Begins another second.
    pub(super) fn begin_second(&mut self) {
        clear(&mut self.players, SEEN);
        clear(&mut self.networks, SEEN);
    }

    /// Returns whether a request is a trial; records a bad one.
    pub(super) fn admits(
        &mut self,
        way: Way,
        ending: &Ending,
        networks: bool,
        first: bool,
        is_bad: bool,
    ) -> bool {
        let cycle = &mut self.cycles[way.index()];
        let word = &mut of(&mut self.players)[usize::from(ending.player)];
        cycle.active += u32::from(*word & way.active() == 0);
        *word |= way.active();
        if *word & way.bad() != 0 {
            return false;
        }
        if networks {
            let network = &mut of(&mut self.networks)[usize::from(ending.network)];
            if *network & way.bad() != 0 {
                return false;
            }
            *network |= if is_bad { way.bad() } else { 0 };
        }
        if is_bad {
            *word |= way.bad();
            cycle.bad += 1;
        }
        first || is_bad
    }

    /// Begins the next cycle of all ways whose cycle is over; returns whether that of failures was.
    pub(super) fn turn(&mut self, now: Duration) -> bool {
        let over = Way::ALL.map(|way| {
            let Cycle { began, active, bad } = self.cycles[way.index()];
            let full = bad >= LEAST_FULL && f64::from(bad) > FULL * f64::from(active);
            let over = full && now.saturating_sub(began) >= CYCLE;
            if over {
                self.begin(way, now);
            }
            over
        });
        over[Way::Failed.index()]
    }

    /// Begins all cycles.
    pub(super) fn begin_all(&mut self, now: Duration) {
        Way::ALL.into_iter().for_each(|way| self.begin(way, now));
    }

    fn begin(&mut self, way: Way, now: Duration) {
        self.cycles[way.index()] = Cycle { began: now, active: 0, bad: 0 };
        clear(&mut self.players, way.active() | way.bad());
        clear(&mut self.networks, way.bad());
    }
}

/// Sets the mark of this second in `word`; returns whether it was not set before.
fn is_first(word: &mut u16) -> bool {
    let is_first = *word & SEEN == 0;
    *word |= SEEN;
    is_first
}

fn of(marks: &mut Option<Box<[u16]>>) -> &mut [u16] {
    marks.get_or_insert_with(|| vec![0; PLAYERS].into())
}

fn clear(marks: &mut Option<Box<[u16]>>, mark: u16) {
    let Some(words) = marks else { return };
    // A plain loop, which the compiler vectorises.
    for word in words.iter_mut() {
        *word &= !mark;
    }
}
