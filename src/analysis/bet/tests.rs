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
    // Outcomes of the two arms add up in `ln e`, so the expectations multiply.
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
                        // A ratio does not look at the base rate: once is enough.
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
    // The bound is reached, where p_b is 0 and nothing can fail.
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
