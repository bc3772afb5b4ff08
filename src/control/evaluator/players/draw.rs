//! Players and bots, drawn from a seed before the first request.
//!
//! As in the program, a player's hash decides the version and is independent of the key by which the player is
//! counted.

use std::f64::consts::TAU;

use fastrand::Rng;

use super::{
    super::stage::{BASELINE, CANARY},
    population::{Bots, Population, Stumbles},
};

/// A player or a bot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Player {
    /// The player is on the canary if this is below the canary's share.
    pub(super) hash: f64,
    /// The key by which the player is counted.
    pub(super) key: u32,
    pub(super) network: u32,
    /// Belongs to the shard that fails for a while.
    pub(super) in_shard: bool,
    /// Has the canary's fault.
    pub(super) has_fault: bool,
    /// Mean amount of a request.
    pub(super) stake: f64,
}

/// A bot, and the time of its next request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bot {
    pub(super) player: Player,
    pub(super) is: Bots,
    pub(super) next_s: f64,
}

impl Population {
    /// The players without the bots.
    pub(super) fn draw_players(&self, rng: &mut Rng) -> Vec<Player> {
        let between = self.stakes.map_or(0.0, |stakes| stakes.between);
        let player = |_| Player {
            hash: rng.f64(),
            key: rng.u32(..),
            network: rng.u32(..),
            in_shard: self.shard.is_some_and(|shard| rng.f64() < shard.share),
            has_fault: self.fault.is_some_and(|fault| rng.f64() < fault.players),
            stake: if between > 0.0 { 10.0 * (between * normal(rng)).exp() } else { 10.0 },
        };
        (0..self.players).map(player).collect()
    }

    /// The activities of the players.
    pub(super) fn draw_activities(&self, rng: &mut Rng) -> Vec<f64> {
        (0..self.players).map(|_| (self.sigma * normal(rng)).exp()).collect()
    }

    pub(super) fn draw_bots(&self, rng: &mut Rng) -> Vec<Bot> {
        let all = self.bots.iter().flat_map(|is| (0..is.count).map(move |_| *is));
        let bot = |is: Bots| Bot {
            player: Player {
                hash: match is.on {
                    Some(CANARY) => 0.0,
                    Some(_) => 1.0,
                    None => rng.f64(),
                },
                key: rng.u32(..),
                network: if is.one_network { 1 } else { rng.u32(..) },
                in_shard: false,
                has_fault: false,
                stake: 10.0 * is.stake,
            },
            is,
            next_s: is.from_s + rng.f64() / is.per_s,
        };
        all.map(bot).collect()
    }

    /// When the endpoints of `version` fail, by endpoint, in reverse order.
    pub(super) fn draw_spells(&self, version: usize, rng: &mut Rng) -> Vec<Vec<(f64, f64)>> {
        let end_s = self.length_s;
        let spells = |number: usize| -> Vec<(f64, f64)> {
            match self.stumbles {
                Stumbles::Restart { from_s, gap_s, length_s } if version == BASELINE => {
                    let at = from_s + gap_s * number as f64;
                    vec![(at, at + length_s)]
                }
                Stumbles::Bursts { every_s, length_s } => {
                    let mut at = rng.f64() * every_s - self.before_s;
                    let mut all = Vec::new();
                    while at < end_s {
                        all.push((at, at + length_s));
                        at += length_s + every_s * (0.8 + 0.4 * rng.f64());
                    }
                    all.reverse();
                    all
                }
                _ => Vec::new(),
            }
        };
        (0..self.endpoints[version]).map(spells).collect()
    }
}

/// Draws players by their activity in constant time: each slot is shared by two of them (Walker
/// 1977).
#[derive(Debug)]
pub(super) struct Lottery(Vec<Slot>);

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The owner's part of the slot.
    own: f32,
    other: u32,
}

impl Lottery {
    /// A lottery of players with the activities `parts`.
    pub(super) fn new(mut parts: Vec<f64>) -> Self {
        let mean = parts.iter().sum::<f64>() / parts.len() as f64;
        parts.iter_mut().for_each(|part| *part /= mean);
        let slot = |player| Slot { own: 1.0, other: player };
        let mut slots: Vec<Slot> = (0..parts.len() as u32).map(slot).collect();
        let (mut less, mut more): (Vec<usize>, Vec<usize>) =
            (0..parts.len()).partition(|player| parts[*player] < 1.0);
        while let Some((poor, rich)) = less.pop().zip(more.last().copied()) {
            slots[poor] = Slot { own: parts[poor] as f32, other: rich as u32 };
            parts[rich] -= 1.0 - parts[poor];
            if parts[rich] < 1.0 {
                less.extend(more.pop());
            }
        }
        Self(slots)
    }

    /// Draws the number of a player.
    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        let number = rng.usize(..self.0.len());
        let slot = self.0[number];
        if rng.f32() < slot.own { number } else { slot.other as usize }
    }
}

/// Standard normal (Box and Muller).
pub(super) fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (TAU * rng.f64()).cos()
}

/// Poisson by products of uniform draws, from 60 on by its normal limit.
pub(super) fn poisson(mean: f64, rng: &mut Rng) -> u32 {
    if mean > 60.0 {
        return (mean + mean.sqrt() * normal(rng)).round().max(0.0) as u32;
    }
    let (least, mut count, mut product) = ((-mean).exp(), 0, rng.f64());
    while product > least {
        product *= rng.f64();
        count += 1;
    }
    count
}

#[test]
fn players_are_drawn_as_often_as_they_are_active() {
    let (mut rng, mut drawn) = (Rng::with_seed(1), [0_u32; 4]);
    let lottery = Lottery::new(vec![1.0, 0.0, 2.0, 7.0]);
    (0..100_000).for_each(|_| drawn[lottery.draw(&mut rng)] += 1);
    let close = |drawn: u32, expected: u32| drawn.abs_diff(expected) < 600;
    assert!(drawn[1] == 0 && close(drawn[0], 10_000), "{drawn:?}");
    assert!(close(drawn[2], 20_000) && close(drawn[3], 70_000), "{drawn:?}");
    for mean in [0.5, 10.0, 100.0] {
        let sum: f64 = (0..10_000).map(|_| f64::from(poisson(mean, &mut rng))).sum();
        assert!((sum / 10_000.0 - mean).abs() < 0.05 * mean, "{mean}: {sum}");
    }
}
