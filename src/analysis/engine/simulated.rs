//! What the proofs promise and how fast faults are found, by simulation.
//!
//! Expected numbers come from larger runs of an independent implementation; tolerances are at least
//! three standard errors of the means here.

use super::{
    super::{grid::Grid, simulation::Traffic},
    *,
};

const NO_EXCESS: f64 = 0.0;

fn engine(guarantee: Guarantee, ratio: f64) -> Engine {
    let tolerance = Tolerance::new(ratio, NO_EXCESS).expect("a tolerance");
    Engine::new(Settings { least_failures: 0, ..Settings::new(tolerance, guarantee) })
}

/// Mean number of failed canary requests until each of `engines` rejects the canary.
fn failed_until_rejected(
    engines: impl ExactSizeIterator<Item = Engine>,
    traffic: &mut Traffic,
    rates: Arms<f64>,
) -> f64 {
    let (rollouts, mut failed) = (engines.len(), 0);
    for mut engine in engines {
        while !engine.rejected() {
            let block = traffic.block(Arms::new(5.0, 45.0), rates);
            engine.observe(block, Duration::ZERO);
            failed += block.canary.failures();
        }
    }
    failed as f64 / rollouts as f64
}

#[test]
fn equal_arms_are_rarely_rejected() {
    const ROLLOUTS: u64 = 500;
    let trials = Arms::new(10.0, 90.0);
    // Half of the rollouts run in a second thread.
    let run = |seed: u64| {
        let mut traffic = Traffic::new(seed);
        let mut rejected = 0;
        for _ in 0..ROLLOUTS / 2 {
            let mut engine = engine(Guarantee::Alpha(0.05), 1.0);
            let mut rate = engine.base.predicted();
            // Most of the time is spent on logarithms, which are the same for blocks of one size.
            let mut factors = engine.factors(trials);
            for _ in 0..10_000 {
                let (k_c, k_b) = (traffic.binomial(10, 0.003), traffic.binomial(90, 0.003));
                let block = Arms::new(Tally::new(10, k_c), Tally::new(90, k_b));
                if rate != engine.base.predicted() {
                    rate = engine.base.predicted();
                    factors = engine.factors(trials);
                }
                engine.settle(&factors, block, Duration::ZERO);
                if engine.rejected() {
                    rejected += 1;
                    break;
                }
            }
        }
        rejected
    };
    let rejected = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(2));
        run(1) + other.join().expect("no panic")
    });
    // 5 % and 3.5 standard deviations.
    assert!(rejected <= 42, "{rejected} of {ROLLOUTS} rejected");
}

#[test]
fn a_common_outage_while_the_weight_grows_is_nobodys_fault() {
    let mut traffic = Traffic::new(3);
    let mut rejected = 0;
    for run in 0..200u32 {
        let outage = [0.05, 0.3, 0.9][run as usize % 3];
        let mut engine = engine(Guarantee::Alpha(1e-3), 1.1);
        for second in 0..1800u32 {
            let weight = [0.01, 0.05, 0.1, 0.25, 0.5][(second as usize / 300).min(4)];
            if second % 300 == 0 && (1..=1200).contains(&second) {
                engine.weight_step();
            }
            let rate = match second {
                // It begins and ends in the middle of a block.
                1260 | 1620 => 0.0015 + outage / 2.0,
                1261..1620 => outage,
                _ => 0.003,
            };
            let trials = Arms::new(500.0 * weight, 500.0 * (1.0 - weight));
            engine.observe(traffic.block(trials, Arms::new(rate, rate)), Duration::ZERO);
        }
        rejected += u32::from(engine.rejected());
    }
    assert_eq!(rejected, 0);
}

#[test]
fn faults_from_the_start_are_found_near_the_bound() {
    let mut traffic = Traffic::new(4);
    // Weight 10 %, alpha 0.1 %, tolerance 10 %. Base rate, canary's rate, mean failed, tolerance.
    let cases = [
        (0.003, 1.0, 6.4, 0.8, 200),
        (0.003, 0.5, 6.5, 1.0, 200),
        (0.003, 0.015, 16.1, 2.2, 100),
        (0.01, 0.05, 16.0, 2.2, 100),
        (0.01, 0.02, 70.1, 16.0, 40),
    ];
    for (base, canary, expected, slack, rollouts) in cases {
        let engines = (0..rollouts).map(|_| engine(Guarantee::Alpha(1e-3), 1.1));
        let failed = failed_until_rejected(engines, &mut traffic, Arms::new(canary, base));
        assert!((failed - expected).abs() < slack, "{canary} against {base}: {failed} failed");
    }
}

#[test]
fn a_fault_after_two_good_hours_is_found_as_fast() {
    for (guarantee, expected, slack) in
        [(Guarantee::Alpha(1e-3), 32.4, 9.0), (Guarantee::RunLength(1e6), 22.5, 7.0)]
    {
        let mut traffic = Traffic::new(5);
        let engines: Vec<Engine> = (0..25)
            .map(|_| {
                let mut engine = engine(guarantee, 1.1);
                for _ in 0..7200 {
                    let block = traffic.block(Arms::new(100.0, 900.0), Arms::new(0.003, 0.003));
                    engine.observe(block, Duration::ZERO);
                }
                assert!(!engine.rejected());
                engine
            })
            .collect();
        let rates = Arms::new(0.015, 0.003);
        let failed = failed_until_rejected(engines.into_iter(), &mut traffic, rates);
        assert!((failed - expected).abs() < slack, "{guarantee:?}: {failed} failed");
        assert!(failed <= 60.0);
    }
}

#[test]
fn clusters_need_their_dispersion() {
    // Every failure comes twice: a client retries at once, and counts again.
    let run = |phi: f64| {
        let mut traffic = Traffic::new(7);
        let rejected = |_: &u32| {
            let mut engine = engine(Guarantee::Alpha(0.05), 1.1).with_dispersion(phi);
            for _ in 0..1500 {
                let k_c = 2 * traffic.binomial(50, 0.003);
                let k_b = 2 * traffic.binomial(450, 0.003);
                let block = Arms::new(Tally::new(100, k_c), Tally::new(900, k_b));
                engine.observe(block, Duration::ZERO);
            }
            engine.rejected()
        };
        (0..60).filter(rejected).count()
    };
    let (untreated, treated) = (run(1.0), run(2.0));
    assert!(untreated >= 9 && treated <= 3, "{untreated} and {treated} of 60 rejected");
}

#[test]
fn a_capped_burst_never_decides_alone() {
    let tolerance = Tolerance::new(1.1, 1e-4).expect("a tolerance");
    let settings = Settings::new(tolerance, Guarantee::Alpha(1e-3)).with_grid(Grid::Full);
    let mut engine = Engine::new(Settings { burst_cap: Some(BURST_CAP), ..settings });
    let burst = Arms::new(Tally::new(1000, 1000), Tally::new(1000, 0));
    engine.observe(burst, Duration::ZERO);
    assert!(!engine.rejected() && engine.log_evidence() <= BURST_CAP);
    engine.observe(burst, Duration::ZERO);
    assert!(engine.rejected(), "two bursts do");
}

#[test]
fn other_demands_lose_no_evidence() {
    let tolerance = Tolerance::new(1.1, 1e-4).expect("a tolerance");
    let mut engine = Engine::new(Settings::new(tolerance, Guarantee::Alpha(1e-20)));
    let good = Arms::new(Tally::new(1, 0), Tally::new(99, 0));
    let bad = Arms::new(Tally::new(2, 2), Tally::new(98, 0));
    (0..4).for_each(|_| engine.observe(bad, Duration::ZERO));
    let evidence = engine.log_evidence();
    assert!(!engine.rejected() && evidence > 1e3f64.ln());
    engine.demand(1e-3, 9);
    assert_eq!((engine.log_evidence(), engine.settings().least_failures), (evidence, 9));
    assert_eq!(engine.settings().guarantee, Guarantee::Alpha(1e-3));
    engine.observe(good, Duration::from_secs(1));
    assert!(!engine.rejected() && !engine.has_enough_failures(), "eight failures of nine");
    engine.demand(1e-3, 3);
    engine.observe(good, Duration::from_secs(2));
    assert_eq!(engine.rejected_at(), Some(Duration::from_secs(2)));
    engine.demand(1e-30, 3);
    assert!(engine.rejected(), "what was decided stays so");
}

#[test]
fn a_cap_may_come_and_go_while_a_test_runs() {
    let tolerance = Tolerance::new(1.1, 1e-4).expect("a tolerance");
    let mut engine = Engine::new(Settings::new(tolerance, Guarantee::Alpha(1e-3)));
    let good = Arms::new(Tally::new(10, 0), Tally::new(10, 1));
    let burst = Arms::new(Tally::new(10, 10), Tally::new(10, 0));
    engine.observe(good, Duration::ZERO);
    engine.cap_bursts(Some(BURST_CAP));
    engine.observe(burst, Duration::ZERO);
    assert!(!engine.rejected() && engine.log_evidence() <= BURST_CAP);
    assert_eq!(engine.settings().burst_cap, Some(BURST_CAP));
    // An endpoint joins: the block that is open still has the cap.
    engine.cap_bursts(None);
    let before = engine.log_evidence();
    engine.observe(burst, Duration::ZERO);
    assert!(engine.log_evidence() <= before + BURST_CAP + 1e-9);
    let before = engine.log_evidence();
    engine.observe(burst, Duration::ZERO);
    assert!(engine.log_evidence() > before + BURST_CAP);
}
