use super::{
    super::grid::{Component, Grid},
    *,
};

fn tolerance(ratio: f64, excess: f64) -> Tolerance {
    Tolerance::new(ratio, excess).expect("a tolerance")
}

fn block(n_c: u64, k_c: u64, n_b: u64, k_b: u64) -> Arms<Tally> {
    Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b))
}

/// Probabilities of 0..=n successes of a binomial.
fn binomial(n: u64, p: f64) -> Vec<f64> {
    let mut choose = 1.0;
    (0..=n)
        .map(|k| {
            let weight = choose;
            choose *= (n - k) as f64 / (k + 1) as f64;
            weight * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32)
        })
        .collect()
}

/// The exact expectation of a bet, over both arms' binomials.
fn expectation(bet: Bet, n_c: u64, n_b: u64, p_c: f64, p_b: f64) -> f64 {
    let factors = bet.factors();
    let arm = |n: u64, p: f64, of: &dyn Fn(u64) -> Arms<Tally>| -> f64 {
        binomial(n, p).iter().zip(0..).map(|(w, k)| w * factors.log_e(of(k)).exp()).sum()
    };
    // `ln e` is a sum over the arms, so the expectations multiply.
    arm(n_c, p_c, &|k| Arms::new(Tally::new(n_c, k), Tally::default()))
        * arm(n_b, p_b, &|k| Arms::new(Tally::default(), Tally::new(n_b, k)))
}

#[test]
fn nobody_gets_rich_under_the_hypothesis() {
    let sizes = [(1, 1), (1, 9), (5, 5), (5, 45), (12, 3), (2, 60)];
    let (mut cases, mut most) = (0, 0.0f64);
    for r in [1.0, 1.1, 1.5, 0.5] {
        for tau in [0.0, 1e-4, 0.02] {
            let tolerance = tolerance(r, tau);
            for (n_c, n_b) in sizes {
                let trials = Arms::new(n_c as f64, n_b as f64);
                for (number, base_rate) in [0.01, 0.2, 0.6, 0.95].into_iter().enumerate() {
                    let bets = Grid::Full.components().iter().filter_map(|(component, _)| {
                        // A ratio does not depend on the base rate: once is enough.
                        let again = number > 0 && matches!(component, Component::Ratio(_));
                        (!again).then(|| component.bet(trials, tolerance, base_rate)).flatten()
                    });
                    for bet in bets {
                        for p_b in [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.8, 0.99, 1.0] {
                            for inside in [1.0, 0.7] {
                                let p_c = (r * p_b + tau).min(1.0) * inside;
                                let e = expectation(bet, n_c, n_b, p_c, p_b);
                                assert!(e.is_finite());
                                most = most.max(e);
                                cases += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases, 20_268);
    // The bound is reached where p_b is 0.
    assert!(most <= 1.0 + 1e-12 && most > 1.0 - 1e-12, "the largest expectation is {most}");
}

proptest::proptest! {
    #[test]
    fn nobody_gets_rich_whatever_the_numbers(
        r in 0.2f64..4.0, tau in 0.0f64..0.5, n_c in 1u64..30, n_b in 1u64..30,
        base_rate in 0.01f64..0.95, p_b in 0.0f64..1.0, inside in 0.0f64..1.0,
    ) {
        let tolerance = tolerance(r, tau);
        let trials = Arms::new(n_c as f64, n_b as f64);
        let p_c = (r * p_b + tau).min(1.0) * inside;
        for (component, _) in Grid::Full.components() {
            if let Some(bet) = component.bet(trials, tolerance, base_rate) {
                let e = expectation(bet, n_c, n_b, p_c, p_b);
                proptest::prop_assert!(e <= 1.0 + 1e-9, "{component:?}: {e}");
            }
        }
    }
}

proptest::proptest! {
    /// As a certificate bets, whose hypothesis is that one arm fails less than the other by an excess.
    #[test]
    fn nobody_gets_rich_where_an_excess_is_demanded(
        r in 0.2f64..1.0, part in 0.0f64..1.0, n_c in 1u64..30, n_b in 1u64..30,
        p_b in 0.0f64..1.0, inside in 0.0f64..=1.0,
    ) {
        let tolerance = Tolerance { ratio: r, excess: -part * r * p_b };
        let trials = Arms::new(n_c as f64, n_b as f64);
        let p_c = (r * p_b + tolerance.excess) * inside;
        for (component, _) in Grid::Ratios.components() {
            let bet = component.bet(trials, tolerance, 0.5).expect("a ratio bets always");
            let e = expectation(bet, n_c, n_b, p_c, p_b);
            proptest::prop_assert!(e <= 1.0 + 1e-9, "{component:?}: {e}");
        }
    }
}

/// The exact expectation of a bet over `trials` independent values in each arm, given with their
/// probabilities: that of one trial to the power of the number of trials.
fn expectation_of_values(bet: Bet, trials: Arms<f64>, arms: Arms<&[(f64, f64)]>) -> f64 {
    let one = |arm: &[(f64, f64)], log_e: &dyn Fn(f64) -> f64| -> f64 {
        arm.iter().map(|(value, p)| p * log_e(*value).exp()).sum()
    };
    let canary = one(arms.canary, &|x| bet.log_e_of_values([(x, 1)], []));
    let baseline = one(arms.baseline, &|y| bet.log_e_of_values([], [(y, 1)]));
    (canary.ln() * trials.canary + baseline.ln() * trials.baseline).exp()
}

#[test]
fn nobody_gets_rich_by_means_that_differ_as_tolerated() {
    let (mut most, mut cases) = (0.0f64, 0);
    for part in [0.01, 0.03, 0.1, 0.3, 0.8] {
        for (n_c, n_b) in [(1.0, 1.0), (5.0, 45.0), (12.0, 3.0), (2.0, 60.0), (500.0, 4500.0)] {
            let trials = Arms::new(n_c, n_b);
            for excess in [0.0, 1e-3, 0.2] {
                for center in [0.0, 0.3, 0.5, 0.9, 1.0] {
                    let bet = Bet::difference(part, center, trials, excess);
                    for mean in [0.0, 0.1, 0.45, 0.5, 0.8, 1.0] {
                        let at = |mean: f64| [(0.0, 1.0 - mean), (1.0, mean)];
                        let (canary, baseline) = (at((mean + excess).min(1.0)), at(mean));
                        let e = expectation_of_values(bet, trials, Arms::new(&canary, &baseline));
                        assert!(e.is_finite());
                        most = most.max(e);
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 5 * 5 * 3 * 5 * 6);
    // The bound is reached where the means are the centers.
    assert!((most - 1.0).abs() < 1e-9, "the largest expectation is {most}");
}

proptest::proptest! {
    #[test]
    fn nobody_gets_rich_by_any_values(
        part in 0.0f64..0.99, center in 0.0f64..=1.0, excess in 0.0f64..0.5,
        n_c in 1u32..100, n_b in 1u32..100, p in 0.0f64..1.0,
        values in proptest::array::uniform4(0.0f64..=1.0),
    ) {
        let trials = Arms::new(n_c.into(), n_b.into());
        let bet = Bet::difference(part, center, trials, excess);
        let [a, b, c, d] = values;
        let mean = |a: f64, b: f64| p * a + (1.0 - p) * b;
        // The canary's values are scaled until its mean is at the boundary.
        let fits = ((mean(a, b) + excess) / mean(c, d).max(1e-9)).min(1.0);
        let baseline = [(a, p), (b, 1.0 - p)];
        let canary = [(c * fits, p), (d * fits, 1.0 - p)];
        let e = expectation_of_values(bet, trials, Arms::new(&canary, &baseline));
        proptest::prop_assert!(e <= 1.0 + 1e-9, "{e}");
    }
}

#[test]
fn extreme_counts_stay_finite() {
    const MANY: u64 = 1_000_000_000;
    for (n_c, n_b) in [(1, MANY), (MANY, 1), (1_000_000, 1_000_000), (MANY, MANY)] {
        for r in [0.3, 1.0, 1.1, 3.0] {
            for base_rate in [0.01, 0.5, 0.95] {
                for (component, _) in Grid::Full.components() {
                    let trials = Arms::new(n_c as f64, n_b as f64);
                    let bet = component.bet(trials, tolerance(r, 1e-4), base_rate);
                    let factors = bet.map_or(Factors::ABSTAIN, Bet::factors);
                    for (k_c, k_b) in [(0, 0), (n_c, 0), (0, n_b), (n_c, n_b)] {
                        let log_e = factors.log_e(block(n_c, k_c, n_b, k_b));
                        assert!(log_e.is_finite(), "{component:?} of {n_c} and {n_b}: {log_e}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_tolerance_of_everything_bets_nothing_impossible() {
    let all = tolerance(2.0, 1.0);
    for (component, _) in Grid::Full.components() {
        let bet = component.bet(Arms::new(5.0, 45.0), all, 0.01);
        let factors = bet.map_or(Factors::ABSTAIN, Bet::factors);
        assert!(factors.log_e(block(5, 5, 45, 0)) <= 1e-12);
    }
    assert_eq!(Tolerance::new(0.0, 0.0), None);
    assert_eq!(Tolerance::new(f64::INFINITY, 0.0), None);
    assert_eq!(Tolerance::new(1.0, -0.1), None);
    assert_eq!(Tolerance::new(1.0, f64::NAN), None);
}
