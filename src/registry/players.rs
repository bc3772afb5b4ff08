//! Players, and sets of them that all workers read.
//!
//! A player is identified by a bucket of the hash of the cohort key. That hash must be independent
//! of those that decide the version (`routing/split.rs`).

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use xxhash_rust::xxh3::xxh3_64;

const WORDS: usize = (1 << 16) / 64;

/// A player's bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Player(pub u16);

impl Player {
    /// The bucket of the player with this cohort key.
    pub fn of(key: &[u8]) -> Self {
        Self((Self::hash(key) >> 16) as u16)
    }

    /// What names the player with this cohort key in the access log: the first 32 bits of the hash of which the first 16 are
    /// the bucket.
    pub fn hash(key: &[u8]) -> u32 {
        (xxh3_64(key) >> 32) as u32
    }

    fn at(self) -> (usize, u64) {
        (usize::from(self.0) / 64, 1 << (self.0 % 64))
    }
}

/// A set of players that any thread may add to. An empty set takes no memory.
#[derive(Debug, Default)]
pub struct PlayerSet(OnceLock<Box<[AtomicU64; WORDS]>>);

impl PlayerSet {
    /// Whether the set contains `player`.
    pub fn has(&self, player: Player) -> bool {
        let (word, bit) = player.at();
        self.0.get().is_some_and(|words| words[word].load(Relaxed) & bit != 0)
    }

    /// Adds `player`.
    pub fn add(&self, player: Player) {
        let (word, bit) = player.at();
        let words = self.0.get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
        // Most players are in the set already; then the cache line is not written.
        if words[word].load(Relaxed) & bit == 0 {
            words[word].fetch_or(bit, Relaxed);
        }
    }

    /// Removes all players.
    pub fn clear(&self) {
        let words = self.0.get().into_iter().flat_map(|words| words.iter());
        words.for_each(|word| word.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_who_was_added_until_it_is_cleared() {
        let set = PlayerSet::default();
        assert!(!set.has(Player(7)));
        for bucket in [0, 7, 63, 64, u16::MAX] {
            set.add(Player(bucket));
            set.add(Player(bucket));
            assert!(set.has(Player(bucket)));
        }
        assert!(!set.has(Player(1)) && !set.has(Player(65)));
        set.clear();
        assert!(!set.has(Player(7)));
    }

    #[test]
    fn keys_spread_over_the_buckets() {
        let keys = (0..10_000).map(|n| Player::of(format!("player-{n}").as_bytes()));
        let buckets: std::collections::HashSet<Player> = keys.collect();
        // 65,536 (1 - exp(-10,000 / 65,536)) are expected, give or take 27.
        assert!((9_170..=9_420).contains(&buckets.len()), "{}", buckets.len());
    }
}
