use std::time::Duration;

use super::{
    super::{super::simulation::Traffic, AMOUNT_BUCKETS, AmountTest, Clip, Guarantee, Tolerated},
    *,
};

/// A quarter of the bets win.
const WINS: f64 = 0.25;

/// Bets with log-normal stakes of sigma 1 and mean 1.
struct Game(Traffic, fastrand::Rng);

impl Game {
    fn new(seed: u64) -> Self {
        Self(Traffic::new(seed), fastrand::Rng::with_seed(seed))
    }

    /// The margin of a bet with the stake multiplied by `stakes`, if the share `paid` is paid back.
    fn bet(&mut self, stakes: f64, paid: f64) -> f64 {
        let stake = (self.0.normal() - 0.5).exp();
        let payout = if self.1.f64() < WINS { stake * paid / WINS } else { 0.0 };
        stake * stakes - payout
    }

    fn bets(&mut self, requests: u32, stakes: f64, paid: f64, scale: (Clip, f64)) -> Amounts {
        let mut amounts = Amounts::of_derived(scale.0, scale.1);
        for _ in 0..requests {
            let amount = self.bet(stakes, paid);
            amounts.record_rounded(amount, self.1.f64());
        }
        amounts
    }

    /// Clip and mean size of a baseline that pays back `paid`.
    fn scale(&mut self, paid: f64) -> (Clip, f64) {
        let mut counts = [0; AMOUNT_BUCKETS];
        for _ in 0..5_000 {
            counts[super::super::rounded_bucket(self.bet(1.0, paid), self.1.f64())] += 1;
        }
        let clip = Clip::of_baseline(&counts).expect("enough of them");
        (clip, clip.mean(&counts))
    }
}

/// Tests of both sides at `alpha`.
fn tests(share: f64, alpha: f64) -> [AmountTest; 2] {
    let guarantee = Guarantee::Alpha(alpha);
    [Side::Low, Side::High].map(|side| AmountTest::of_derived(side, share, guarantee, None))
}

/// The side that rejects a canary with stakes multiplied by `stakes` that pays back `paid`, and the
/// number of its requests until then; the baseline pays back 0.8.
fn found(stakes: f64, paid: f64, blocks: u32, seed: u64) -> Option<(Side, u32)> {
    let mut game = Game::new(seed);
    let scale = game.scale(0.8);
    let mut tests = tests(0.01, 1e-3);
    (1..=blocks).find_map(|block| {
        let canary = game.bets(200, stakes, paid, scale);
        let baseline = game.bets(800, 1.0, 0.8, scale);
        let at = Duration::from_secs(block.into());
        tests.iter_mut().for_each(|test| test.observe(Arms::new(&canary, &baseline), at));
        let test = tests.iter().find(|test| test.rejected_at().is_some())?;
        Some((test.side(), block * 200))
    })
}

#[test]
fn stakes_or_payouts_that_are_lost_are_found_at_once() {
    for (stakes, paid, side) in [(0.0, 0.8, Side::Low), (1.0, 0.0, Side::High)] {
        let found = found(stakes, paid, 20, 1);
        assert!(found.is_some_and(|(s, requests)| s == side && requests <= 1_600), "{found:?}");
    }
}

#[test]
fn half_of_the_margin_is_missed() {
    let mut runs = [1, 2, 3].map(|seed| found(1.0, 0.9, 300, seed));
    runs.sort_unstable_by_key(|run| run.map_or(u32::MAX, |(_, requests)| requests));
    let median = runs[1];
    assert!(median.is_some_and(|(side, n)| side == Side::Low && n <= 40_000), "{runs:?}");
}

/// Both arms pay back between 0.5 and 1.5, so that the margin changes its sign.
#[test]
fn equal_canaries_are_not_rejected_while_the_margin_swings() {
    let rejected = (0..150).filter(|seed| {
        let mut game = Game::new(*seed);
        let scale = game.scale(1.0);
        // At the boundary: nothing is tolerated.
        let mut tests = tests(0.0, 0.05);
        for block in 1..=60u32 {
            let paid = 1.0 + 0.5 * (f64::from(block) / 5.0).sin();
            let (canary, baseline) =
                (game.bets(20, 1.0, paid, scale), game.bets(80, 1.0, paid, scale));
            let at = Duration::from_secs(block.into());
            tests.iter_mut().for_each(|test| test.observe(Arms::new(&canary, &baseline), at));
        }
        tests.iter().any(|test| test.rejected_at().is_some())
    });
    // Two tests of 5 % each, and 3.5 standard deviations.
    assert!(rejected.count() <= 15 + 13);
}

#[test]
fn what_is_tolerated_is_money() {
    let mut game = Game::new(3);
    let (clip, size) = game.scale(0.97);
    assert!((1.3..1.6).contains(&size), "{size}: stakes that are lost and what is won on top");
    let [mut low, _] = tests(0.1, 1e-3);
    assert_eq!(low.tolerated(), Tolerated::Difference(None));
    let block = game.bets(10, 1.0, 0.97, (clip, size));
    low.observe(Arms::new(&block, &block), Duration::ZERO);
    assert_eq!(low.tolerated(), Tolerated::Difference(Some(0.1 * size)));
    assert_eq!((low.clip(), low.strongest().and_then(|(factor, _)| factor)), (Some(clip), None));
}

#[test]
fn both_sides_mirror_each_other() {
    let mut game = Game::new(4);
    let scale = game.scale(0.8);
    let mut sides = [tests(0.01, 1e-3), tests(0.01, 1e-3)];
    for block in 1..=20 {
        let arms = [(10, 0.5), (40, 0.8)].map(|(requests, paid)| {
            let amounts: Vec<f64> = (0..requests).map(|_| game.bet(1.0, paid)).collect();
            [1.0, -1.0].map(|sign| {
                let mut all = Amounts::of_derived(scale.0, scale.1);
                amounts.iter().for_each(|amount| all.record_rounded(sign * amount, 0.5));
                all
            })
        });
        for (number, tests) in sides.iter_mut().enumerate() {
            let block_of = Arms::new(&arms[0][number], &arms[1][number]);
            tests.iter_mut().for_each(|t| t.observe(block_of, Duration::from_secs(block)));
        }
    }
    let [[low, high], [low_of_negative, high_of_negative]] =
        sides.map(|tests| tests.map(|test| test.log_evidence()));
    assert!((low - high_of_negative).abs() < 1e-9 && (high - low_of_negative).abs() < 1e-9);
    assert!(high > low, "{high} {low}");
}

/// Section 7 of the specification, computed by hand.
#[test]
fn the_bet_is_that_of_the_specification() {
    let bet = Bet::difference(0.3, 0.5, Arms::new(100.0, 900.0), 0.01);
    // The least of 1 / 0.51 and 900 / (100 * 0.5).
    let most = 1.0 / 0.51;
    assert!((bet.stake.canary - 0.3 * most).abs() < 1e-12, "{bet:?}");
    assert!((bet.stake.baseline - 0.3 * most / 9.0).abs() < 1e-12, "{bet:?}");
    assert_eq!(bet.center, Arms::new(0.51, 0.5));
    // With few requests of the baseline the other one is less.
    let bet = Bet::difference(0.8, 0.5, Arms::new(90.0, 10.0), 0.01);
    assert!((bet.stake.canary - 0.8 * 10.0 / 45.0).abs() < 1e-12, "{bet:?}");
}
