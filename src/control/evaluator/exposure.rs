//! Which players were seen on which versions, since the split changed last.
//!
//! A player is a bucket of 65,536. Each bucket counts once for the version on which it was seen first, so the
//! counts are independent draws, also when several players share a bucket. A bucket that is seen on two
//! versions is either shared by two players or one who moved: from the number of those that are shared by
//! chance follows how many moved for certain.

use crate::registry::Player;

const BUCKETS: usize = 1 << 16;

/// Versions that are told apart; a split over more of them is not checked.
const MOST: u16 = 16;

/// Players by version, since the split changed last.
#[derive(Debug, Clone)]
pub struct Exposure {
    /// By bucket, the versions on which it was seen, one bit each.
    versions: Box<[u16]>,
    /// By version, buckets that were seen there first.
    first: [u64; MOST as usize],
    /// By version, buckets that were seen there at all.
    touched: [u64; MOST as usize],
    /// Buckets that were seen on more than one version.
    twice: u64,
}

impl Default for Exposure {
    fn default() -> Self {
        Self {
            versions: vec![0; BUCKETS].into(),
            first: Default::default(),
            touched: Default::default(),
            twice: 0,
        }
    }
}

impl Exposure {
    /// Notes that `player` was seen on `version`.
    pub(super) fn add(&mut self, player: Player, version: u16) {
        if version >= MOST {
            return;
        }
        let (seen, bit) = (&mut self.versions[usize::from(player.0)], 1 << version);
        if *seen & bit != 0 {
            return;
        }
        match seen.count_ones() {
            0 => self.first[usize::from(version)] += 1,
            1 => self.twice += 1,
            _ => {}
        }
        self.touched[usize::from(version)] += 1;
        *seen |= bit;
    }

    /// Players who were seen on `version` first.
    pub fn players(&self, version: u16) -> u64 {
        self.first.get(usize::from(version)).copied().unwrap_or_default()
    }

    /// All players.
    pub fn all(&self) -> u64 {
        self.first.iter().sum()
    }

    /// Players who were certainly seen on two versions: those beyond what shared buckets explain, four
    /// standard deviations included.
    pub fn moved(&self) -> u64 {
        let share = |touched: &u64| *touched as f64 / BUCKETS as f64;
        let none: f64 = self.touched.iter().map(|touched| 1.0 - share(touched)).product();
        let one: f64 = self
            .touched
            .iter()
            .map(share)
            .filter(|share| *share < 1.0)
            .map(|share| share * none / (1.0 - share))
            .sum();
        let chance = BUCKETS as f64 * (1.0 - none - one).max(0.0);
        (self.twice as f64 - chance - 4.0 * (chance + 1.0).sqrt()).max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// `players` on a split of 19 to 1, of whom the share `moving` is seen on both versions.
    fn seen(players: u32, moving: f64, seed: u64) -> Exposure {
        let (mut rng, mut exposure) = (Rng::with_seed(seed), Exposure::default());
        for _ in 0..players {
            let (player, version) = (Player(rng.u16(..)), u16::from(rng.f64() < 0.05));
            exposure.add(player, version);
            exposure.add(player, version);
            if rng.f64() < moving {
                exposure.add(player, 1 - version);
            }
        }
        exposure
    }

    #[test]
    fn players_who_stay_are_not_said_to_move_however_full_the_buckets_are() {
        for players in [100, 5_000, 50_000, 500_000] {
            for seed in 0..20 {
                let exposure = seen(players, 0.0, seed);
                assert_eq!(exposure.moved(), 0, "{players} players");
                let share = exposure.players(1) as f64 / exposure.all() as f64;
                let deviation = (0.05 * 0.95 / exposure.all() as f64).sqrt();
                assert!((share - 0.05).abs() < 4.5 * deviation, "{players}: {share}");
            }
        }
    }

    #[test]
    fn players_who_move_are_found() {
        let exposure = seen(20_000, 0.1, 7);
        let moved = exposure.moved();
        assert!((1_000..=2_000).contains(&moved), "{moved}");
        assert!(exposure.all() < 20_000 && exposure.players(MOST) == 0);
    }
}
