//! Sets of players, and who of them counts no more in a cycle.

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

    /// Whether `player` is in it.
    pub fn has(&self, player: u16) -> bool {
        let (word, bit) = Self::at(player);
        self.0.as_ref().is_some_and(|words| words[word] & bit != 0)
    }

    /// Adds `player`; whether he is new.
    pub fn add(&mut self, player: u16) -> bool {
        let (word, bit) = Self::at(player);
        let word = &mut self.0.get_or_insert_with(|| Box::new([0; PLAYERS / 64]))[word];
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Takes `player` out; whether he was in it.
    pub fn remove(&mut self, player: u16) -> bool {
        let (word, bit) = Self::at(player);
        let Some(words) = &mut self.0 else { return false };
        let was = words[word] & bit != 0;
        words[word] &= !bit;
        was
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        if let Some(words) = &mut self.0 {
            words.fill(0);
        }
    }

    /// How many are in it.
    pub fn len(&self) -> u32 {
        self.0.iter().flat_map(|words| words.iter()).map(|word| word.count_ones()).sum()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Players whose further requests count no more in this cycle, since they were bad in one way.
#[derive(Debug, Clone, Default)]
pub(super) struct Spent {
    players: Buckets,
    networks: Buckets,
    /// Who asked in this cycle.
    active: Buckets,
    began: Duration,
}

/// Least length of a cycle.
const CYCLE: Duration = Duration::from_secs(10);
/// Part of the players who asked that ends it, once they were bad, and how many that is at least: one
/// player of three would else be bad again in each cycle.
const FULL: f64 = 0.25;
const LEAST_FULL: u32 = 3;

impl Spent {
    /// Whether a request is a trial; notes one that is bad.
    pub(super) fn admits(
        &mut self,
        ending: &Ending,
        networks: bool,
        first: bool,
        is_bad: bool,
    ) -> bool {
        self.active.add(ending.player);
        if self.players.has(ending.player) || (networks && self.networks.has(ending.network)) {
            return false;
        }
        if is_bad {
            self.players.add(ending.player);
            if networks {
                self.networks.add(ending.network);
            }
        }
        first || is_bad
    }

    /// Begins the next cycle if this one is over; whether it does.
    pub(super) fn turn(&mut self, now: Duration) -> bool {
        let full = || {
            let bad = self.players.len();
            bad >= LEAST_FULL && f64::from(bad) > FULL * f64::from(self.active.len())
        };
        let over = now.saturating_sub(self.began) >= CYCLE && full();
        if over {
            self.begin(now);
        }
        over
    }

    pub(super) fn begin(&mut self, now: Duration) {
        self.players.clear();
        self.networks.clear();
        self.active.clear();
        self.began = now;
    }
}
