//! Sets of players, and which requests of a player count.
//!
//! Players are sticky, so the player is the unit that was drawn at random and the request is not: one
//! player who fails on either version fails all day, on the version that he happens to be on. So a player
//! fails once per cycle, and is one trial a second (`analysis/mod.rs` says why that is enough).
//!
//! A player is known by a bucket of the hash of his cohort key, not by the hash that decides the version:
//! the two must be independent. Players who share a bucket are a coarser unit, which is still drawn at
//! random.
//!
//! Sets are shared by all workers. A line of one is written when a player is new to it, which is once per
//! cycle, and read otherwise. A set that nobody was added to takes no memory.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use xxhash_rust::xxh3::xxh3_64;

use super::Counter;

/// Buckets of players.
pub const PLAYERS: usize = 1 << 16;
const WORDS: usize = PLAYERS / 64;

/// A player's bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Player(pub u16);

impl Player {
    /// The bucket of the player with this cohort key.
    pub fn of(key: &[u8]) -> Self {
        // The upper half: the split uses the upper bits of other hashes, this one is of the key alone.
        Self((xxh3_64(key) >> 48) as u16)
    }

    fn at(self) -> (usize, u64) {
        (usize::from(self.0) / 64, 1 << (self.0 % 64))
    }
}

/// A set of players that any worker may add to.
#[derive(Debug, Default)]
pub struct PlayerSet(OnceLock<Box<[AtomicU64; WORDS]>>);

fn empty() -> Box<[AtomicU64; WORDS]> {
    Box::new([const { AtomicU64::new(0) }; WORDS])
}

impl PlayerSet {
    /// Whether `player` is in it.
    pub fn has(&self, player: Player) -> bool {
        let (word, bit) = player.at();
        self.0.get().is_some_and(|words| words[word].load(Relaxed) & bit != 0)
    }

    /// Adds `player`.
    pub fn add(&self, player: Player) {
        let (word, bit) = player.at();
        let word = &self.0.get_or_init(empty)[word];
        // Most are in it already, and then the line stays shared.
        if word.load(Relaxed) & bit == 0 {
            word.fetch_or(bit, Relaxed);
        }
    }

    /// Takes `player` out; whether he was in it.
    pub fn remove(&self, player: Player) -> bool {
        let (word, bit) = player.at();
        let Some(words) = self.0.get() else { return false };
        words[word].load(Relaxed) & bit != 0 && words[word].fetch_and(!bit, Relaxed) & bit != 0
    }

    /// Takes all out.
    pub fn clear(&self) {
        self.words().for_each(|word| word.store(0, Relaxed));
    }

    /// How many are in it.
    pub fn len(&self) -> u32 {
        self.words().map(|word| word.load(Relaxed).count_ones()).sum()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.words().all(|word| word.load(Relaxed) == 0)
    }

    /// Adds everybody who is in `others`.
    pub fn add_all(&self, others: &Self) {
        let Some(others) = others.0.get() else { return };
        for (word, other) in self.0.get_or_init(empty).iter().zip(others.iter()) {
            word.fetch_or(other.load(Relaxed), Relaxed);
        }
    }

    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        self.0.get().into_iter().flat_map(|words| words.iter())
    }
}

/// Players that a worker has seen in the present second. Written by that worker only.
#[derive(Debug, Default)]
pub struct Seen {
    second: Counter,
    players: PlayerSet,
}

impl Seen {
    /// Whether this is the first request of `player` that ends in the second number `second`; notes him.
    pub fn is_first(&self, player: Player, second: u64) -> bool {
        if self.second.read() != second {
            self.second.set(second);
            self.players.clear();
        }
        let (word, bit) = player.at();
        let word = &self.players.0.get_or_init(empty)[word];
        let seen = word.load(Relaxed);
        if seen & bit == 0 {
            word.store(seen | bit, Relaxed);
        }
        seen & bit == 0
    }
}

/// Players whose further requests of a kind count no more in this cycle.
///
/// A cycle ends when so many of those who asked in it were bad that too few are left to be counted. Until
/// then a lasting minority is counted once, whatever it does.
#[derive(Debug, Default)]
pub struct Spent {
    /// Who asked in this cycle.
    active: PlayerSet,
    /// Who was bad in this way.
    players: PlayerSet,
    /// Their networks, where those are asked too.
    networks: PlayerSet,
}

impl Spent {
    /// Whether a request of `player`, from `network` if that is asked, is a trial: not of one who was bad
    /// already, and of others the `first` of a second or one that `is_bad`. Notes one that is.
    pub fn admits(
        &self,
        player: Player,
        network: Option<Player>,
        first: bool,
        is_bad: bool,
    ) -> bool {
        if self.players.has(player) || network.is_some_and(|network| self.networks.has(network)) {
            return false;
        }
        if is_bad {
            self.spend(player, network);
        }
        first || is_bad
    }

    /// Notes that `player` was bad.
    pub fn spend(&self, player: Player, network: Option<Player>) {
        self.players.add(player);
        if let Some(network) = network {
            self.networks.add(network);
        }
    }

    /// Notes that `player` asked.
    pub fn note(&self, player: Player) {
        self.active.add(player);
    }

    /// How many players were bad, and how many asked.
    pub fn players(&self) -> (u32, u32) {
        (self.players.len(), self.active.len())
    }

    /// Begins a cycle.
    pub fn clear(&self) {
        self.active.clear();
        self.players.clear();
        self.networks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_who_was_added_until_he_is_taken_out() {
        let set = PlayerSet::default();
        assert!(set.is_empty() && !set.has(Player(7)) && !set.remove(Player(7)));
        for bucket in [0, 7, 63, 64, u16::MAX] {
            set.add(Player(bucket));
            set.add(Player(bucket));
            assert!(set.has(Player(bucket)) && !set.has(Player(bucket ^ 1)));
            set.remove(Player(bucket ^ 1));
        }
        assert_eq!(set.len(), 5);
        assert!(set.remove(Player(63)) && !set.has(Player(63)) && set.has(Player(64)));
        let others = PlayerSet::default();
        others.add_all(&set);
        assert_eq!(others.len(), 4);
        set.clear();
        assert!(set.is_empty() && others.has(Player(0)));
    }

    #[test]
    fn a_player_is_first_once_a_second() {
        let seen = Seen::default();
        let first = |player, second| seen.is_first(Player(player), second);
        assert!(first(1, 0) && first(2, 0) && !first(1, 0));
        assert!(first(1, 5) && !first(1, 5) && first(2, 5));
    }

    #[test]
    fn a_player_is_bad_once_a_cycle_whatever_he_asks() {
        let spent = Spent::default();
        assert!(spent.admits(Player(1), None, true, false));
        assert!(!spent.admits(Player(1), None, false, false), "again in the same second");
        assert!(spent.admits(Player(1), None, false, true), "a bad one always counts");
        assert!(
            !spent.admits(Player(1), None, true, true)
                && !spent.admits(Player(1), None, true, false)
        );
        spent.clear();
        assert!(spent.admits(Player(1), None, false, true));
    }

    #[test]
    fn a_network_is_bad_once_a_cycle_where_it_is_asked() {
        let (spent, network) = (Spent::default(), Some(Player(9)));
        assert!(spent.admits(Player(1), network, false, true));
        assert!(!spent.admits(Player(2), network, true, true));
        assert!(spent.admits(Player(2), Some(Player(10)), true, true));
    }

    #[test]
    fn keys_spread_over_the_buckets() {
        let set = PlayerSet::default();
        (0..10_000).for_each(|n| set.add(Player::of(format!("player-{n}").as_bytes())));
        // 65,536 (1 - exp(-10,000 / 65,536)) are expected, give or take 27.
        assert!((9_170..=9_420).contains(&set.len()), "{}", set.len());
    }
}
