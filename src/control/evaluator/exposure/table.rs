//! What is known of each player, by bucket: as small as the number of players is, since most services with a rollout
//! have few.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::registry::Player;

pub(super) const BUCKETS: usize = 1 << 16;

/// With more players a table of all buckets is smaller than a map.
const MOST_MAPPED: usize = 28_000;

/// A player, since the split changed last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// The evaluation in which the first request began.
    pub(super) began: u32,
    /// The version that got that request.
    pub(super) first: u16,
    /// The versions that the player was seen on, one bit each; none of a player who was not seen.
    pub(super) versions: u16,
}

/// All players that were seen.
#[derive(Debug, Clone)]
pub(super) enum Table {
    Few(HashMap<u16, Seen, BuildHasherDefault<Spread>>),
    Many(Box<[Seen]>),
}

impl Default for Table {
    fn default() -> Self {
        Self::Few(HashMap::default())
    }
}

impl Table {
    /// What is known of `player`.
    pub(super) fn of(&self, player: Player) -> Seen {
        match self {
            Self::Few(few) => few.get(&player.0).copied().unwrap_or_default(),
            Self::Many(all) => all[usize::from(player.0)],
        }
    }

    /// The same, to be changed.
    pub(super) fn at(&mut self, player: Player) -> &mut Seen {
        if let Self::Few(few) = self
            && few.len() == MOST_MAPPED
        {
            let mut all = vec![Seen::default(); BUCKETS];
            few.iter().for_each(|(player, seen)| all[usize::from(*player)] = *seen);
            *self = Self::Many(all.into());
        }
        match self {
            Self::Few(few) => few.entry(player.0).or_default(),
            Self::Many(all) => &mut all[usize::from(player.0)],
        }
    }

    /// Calls `then` for each player that was seen.
    pub(super) fn each(&self, mut then: impl FnMut(Player)) {
        match self {
            Self::Few(few) => few.keys().for_each(|player| then(Player(*player))),
            Self::Many(all) => {
                let seen = (0..=u16::MAX).zip(all).filter(|(_, seen)| seen.versions != 0);
                seen.for_each(|(player, _)| then(Player(player)));
            }
        }
    }
}

/// Buckets are bits of a hash already; a product brings them where a map looks.
#[derive(Debug, Default)]
pub(super) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u16(u16::from(*byte)));
    }

    fn write_u16(&mut self, player: u16) {
        self.0 = (self.0 ^ u64::from(player)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_are_known_however_many_they_are() {
        let mut table = Table::default();
        let players = |upto: u16| (0..upto).map(|n| Player(n.wrapping_mul(40_503)));
        for (upto, is_few) in [(1_000, true), (30_000, false), (u16::MAX, false)] {
            for player in players(upto) {
                let seen = table.at(player);
                (seen.first, seen.versions) = (player.0 % 7, 1);
            }
            let mut count = 0;
            table.each(|_| count += 1);
            assert_eq!(count, upto);
            assert!(players(upto).all(|player| table.of(player).first == player.0 % 7));
            assert_eq!(matches!(table, Table::Few(_)), is_few);
        }
    }
}
