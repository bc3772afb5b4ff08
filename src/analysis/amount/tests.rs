use super::{super::simulation::Traffic, *};

const ALPHA: Guarantee = Guarantee::Alpha(1e-3);

/// Log-normal of sigma 1.5 and mean 1, clipped at its 99th percentile.
const SIGMA: f64 = 1.5;

fn clip() -> Clip {
    Clip::new((-SIGMA * SIGMA / 2.0 + 2.3263 * SIGMA).exp()).expect("a clip")
}

fn amounts(traffic: &mut Traffic, requests: u32, factor: f64) -> Amounts {
    let mut amounts = Amounts::new(clip());
    for _ in 0..requests {
        amounts.record(factor * (SIGMA * traffic.normal() - SIGMA * SIGMA / 2.0).exp());
    }
    amounts
}

/// Canary requests until the test rejects, within `seconds`; the canary has 100 per second.
fn requests(side: Side, factor: f64, seconds: u32, traffic: &mut Traffic) -> Option<u32> {
    let mut test = AmountTest::new(side, 0.05, ALPHA, None);
    (1..=seconds).find_map(|second| {
        let (canary, baseline) = (amounts(traffic, 100, factor), amounts(traffic, 900, 1.0));
        test.observe(Arms::new(&canary, &baseline), Duration::from_secs(second.into()));
        test.rejected_at().map(|_| second * 100)
    })
}

#[test]
fn agrees_with_the_reference() {
    let tolerance = Tolerance { ratio: 1.0 / 0.95, excess: 0.0 };
    let bet = Bet::ratio(1.2, Arms::new(100.0, 900.0), tolerance);
    let log_e = bet.log_e_of_values([(0.5, 10), (0.1, 90)], [(0.4, 100), (0.05, 800)]);
    for (got, expected) in [
        (bet.stake.canary, 0.175384615384615),
        (bet.stake.baseline, 0.0205128205128205),
        (log_e, 0.760530980584819),
    ] {
        assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
    }
}

#[test]
fn differences_are_found_as_fast_as_by_the_reference() {
    let mut traffic = Traffic::new(41);
    // Medians of the reference: 500 at half the mean, 200 if nothing is earned, 5,600 at 0.8.
    for (side, factor, seconds, expected) in [
        (Side::Low, 0.5, 30, 300..=700),
        (Side::Low, 0.0, 10, 100..=300),
        (Side::Low, 0.8, 150, 3_000..=8_500),
        (Side::High, 2.0, 30, 200..=900),
    ] {
        let mut runs =
            [(); 7].map(|()| requests(side, factor, seconds, &mut traffic).unwrap_or(u32::MAX));
        runs.sort_unstable();
        assert!(expected.contains(&runs[3]), "{side:?} at {factor}: {runs:?}");
    }
}

#[test]
fn what_is_tolerated_or_better_is_not_rejected() {
    let mut traffic = Traffic::new(42);
    for (side, factor) in [
        (Side::Low, 1.0),
        (Side::Low, 0.95),
        (Side::Low, 1.5),
        (Side::High, 1.05),
        (Side::High, 0.5),
    ] {
        assert_eq!(requests(side, factor, 60, &mut traffic), None, "{side:?} at {factor}");
    }
}

/// If amounts were clipped at the percentile itself, payouts of one size would look the same
/// however large they are.
#[test]
fn amounts_of_one_size_may_be_too_high() {
    let mut counts = [0; AMOUNT_BUCKETS];
    counts[amount_bucket(10.0)] = 1_000;
    let clip = Clip::of_baseline(&counts).expect("enough of them");
    assert!((19.0..22.0).contains(&clip.amount()), "{}", clip.amount());
    let arm = |paid: u32, of: u32, amount| {
        let mut amounts = Amounts::new(clip);
        (0..of).for_each(|n| amounts.record(if n < paid { amount } else { 0.0 }));
        amounts
    };
    let (canary, baseline) = (arm(50, 100, 15.0), arm(450, 900, 10.0));
    let mut test = AmountTest::new(Side::High, 0.05, ALPHA, None);
    let seconds = (1..=20).map(Duration::from_secs);
    seconds.for_each(|at| test.observe(Arms::new(&canary, &baseline), at));
    assert!(test.rejected_at().is_some_and(|at| at <= Duration::from_secs(10)));
}

/// Number of 5 runs of 200 s in which an equal canary is rejected, with 100 of 1,000 players, whose
/// stakes differ.
fn rejected_for_its_players(rho: f64) -> usize {
    let run = |seed: u64| {
        let (mut traffic, mut rng) = (Traffic::new(seed), fastrand::Rng::with_seed(seed));
        let usual: Vec<f64> = (0..1_000).map(|_| (traffic.normal() - 0.5).exp()).collect();
        let mut tests = [Side::Low, Side::High].map(|side| AmountTest::new(side, rho, ALPHA, None));
        for second in 1..=200 {
            let mut arms = [(); 2].map(|()| Amounts::new(Clip::new(20.0).expect("a clip")));
            for _ in 0..1_000 {
                let player = rng.usize(..usual.len());
                arms[usize::from(player >= 100)].record(usual[player] * (0.5 + rng.f64()));
            }
            let block = Arms::new(&arms[0], &arms[1]);
            tests.iter_mut().for_each(|test| test.observe(block, Duration::from_secs(second)));
        }
        tests.iter().any(|test| test.rejected_at().is_some())
    };
    (1..=5).filter(|seed| run(*seed)).count()
}

/// Players stay on their version, so differences between players last like a fault.
#[test]
fn what_few_players_differ_by_must_be_tolerated() {
    assert!(rejected_for_its_players(0.05) > 0);
    assert_eq!(rejected_for_its_players(0.4), 0);
}

#[test]
fn means_are_of_clipped_amounts() {
    let clip = Clip::new(100.0).expect("a clip");
    let (mut canary, mut baseline) = (Amounts::new(clip), Amounts::new(clip));
    [50.0, 1000.0, f64::NAN].into_iter().for_each(|amount| canary.record(amount));
    baseline.record(10.0);
    let mut test = AmountTest::new(Side::Low, 0.05, ALPHA, None);
    test.observe(Arms::new(&canary, &baseline), Duration::ZERO);
    canary.clear();
    test.observe(Arms::new(&canary, &baseline), Duration::ZERO);
    let total = test.total();
    assert_eq!(total.canary, Total { requests: 3, sum: 50.0 + clip.amount() });
    assert_eq!(total.baseline.mean(), Some(10.0));
    assert_eq!(Total::default().mean(), None);
}

/// Once a fault after an hour without one was reported with the means of the whole hour.
#[test]
fn means_are_those_since_the_difference_began() {
    let clip = Clip::new(100.0).expect("a clip");
    let of = |amount: f64, requests: u64| {
        let mut amounts = Amounts::new(clip);
        (0..requests).for_each(|_| amounts.record(amount));
        amounts
    };
    let mut test = AmountTest::new(Side::High, 0.05, ALPHA, None);
    let mut observe = |paid: f64, second: u64| {
        let block = (of(paid, 10), of(10.0, 100));
        test.observe(Arms::new(&block.0, &block.1), Duration::from_secs(second));
        test.total_since_onset().canary.mean().expect("requests")
    };
    for second in 0..100 {
        assert!((observe(10.0, second) - 10.0).abs() < 0.5);
    }
    let mean = (100..110).map(|second| observe(20.0, second)).last().expect("blocks");
    assert!((mean - 20.0).abs() < 1.0, "{mean}");
}
