//! Values of an independent implementation in Python, to 1e-9.

use super::{super::grid::Grid, *};

const DEFAULT: (f64, f64) = (1.1, 1e-4);

fn engine(guarantee: Guarantee, (ratio, excess): (f64, f64), grid: Grid) -> Engine {
    let tolerance = Tolerance::new(ratio, excess).expect("a tolerance");
    // The reference implementation has no least number of failures.
    let settings = Settings { least_failures: 0, ..Settings::new(tolerance, guarantee) };
    Engine::new(settings.with_grid(grid))
}

fn block(n_c: u64, k_c: u64, n_b: u64, k_b: u64) -> Arms<Tally> {
    Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b))
}

#[track_caller]
fn near(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
}

#[test]
#[rustfmt::skip]
fn single_blocks() {
    let cases: [([u64; 4], [f64; 11]); 6] = [
        ([5, 0, 45, 0], [-4.40746310833803e-05, -8.72100628806663e-05, -0.000170780905193352,
            -0.000327879602727417, -0.000639138592434412, -0.00124153343811537, -0.00223022704705309,
            -0.00344650006339053, -0.0040004863766419, -0.889336925381644, -9.93571391033306]),
        ([5, 1, 45, 0], [0.0844346109272051, 0.160688600942014, 0.293668032618126, 0.503944744241113,
            0.822816259229128, 1.24676017043453, 1.69548391661477, 2.0628308153191, 2.19368780402241,
            1.7934501477409, -4.9350326313252]),
        ([5, 5, 45, 1], [0.411517144830998, 0.782243508755391, 1.4263811674454, 2.4374952273823,
            3.94676975479271, 5.87715376034581, 7.69878362623104, 8.48159241733661, 7.18995350172356,
            10.7037116124539, 12.6345312019878]),
        ([100, 3, 900, 4], [0.209225730735756, 0.39438988693226, 0.707532345402082, 1.17210023054029,
            1.77811103872533, 2.27272154053838, 1.89831042992033, -1.25548869317017,
            -8.66489471191582, -17.021924599374, -193.444879500511]),
        ([1, 1, 99, 0], [0.094202891005852, 0.180109682578181, 0.33205800682188, 0.578989916782473,
            0.97468053395413, 1.56634140334107, 2.37070267957011, 3.48114316156142, 4.30782000380739,
            3.91142099644569, 4.73202996501838]),
        ([500, 250, 500, 240], [-1.19170221876159, -3.24237218300464, -9.10038005477738,
            -24.5584546713237, -63.7513454546773, -151.299198735571, -315.342881177055,
            -630.900821081776, -1122.25104862753, -638.921448379096, -1176.20837883158]),
    ];
    for ([n_c, k_c, n_b, k_b], expected) in cases {
        let block = block(n_c, k_c, n_b, k_b);
        // An engine without history assumes the lowest rate, 1 %.
        let factors = engine(Guarantee::Alpha(1e-3), DEFAULT, Grid::Full).factors(block.trials());
        for (factors, expected) in factors.iter().zip(expected) {
            near(factors.log_e(block), expected);
        }
    }
}

#[test]
#[rustfmt::skip]
fn a_rollout_with_a_probability_of_false_ejection() {
    let mut engine = engine(Guarantee::Alpha(1e-3), DEFAULT, Grid::Full);
    let steps = [
        ((5, 0, 45, 0), -0.759611663228413, 0.5, 0, false),
        ((5, 0, 45, 1), -0.996120140104213, 0.5, 1, false),
        ((6, 0, 44, 0), -0.948244226715373, 0.48, 1, false),
        ((5, 1, 45, 0), -0.251030672327597, 0.48, 2, false),
        ((0, 0, 50, 2), -0.251030672327597, 0.48, 2, false),
        ((4, 2, 46, 0), 2.45437687400473, 0.464, 3, false),
        // The weights change here.
        ((25, 3, 25, 0), 4.08430246849065, 0.3712, 4, false),
        ((25, 20, 25, 1), 14.0127308321805, 0.36192, 5, true),
        ((25, 25, 25, 0), 36.0252306750051, 0.353877333333333, 6, true),
    ];
    for ((n_c, k_c, n_b, k_b), log_evidence, cash, failing_blocks, rejected) in steps {
        if (n_c, k_c) == (25, 3) {
            engine.weight_step();
        }
        engine.observe(block(n_c, k_c, n_b, k_b), Duration::ZERO);
        near(engine.log_evidence(), log_evidence);
        near(engine.wealth.state().1, cash);
        assert_eq!(engine.wealth.state().2, failing_blocks);
        assert_eq!(engine.rejected(), rejected);
    }
    let logs = [-0.467019761285153, 1.70301080459938, 5.16451380755223, 10.1008686482111,
        16.2489899794779, 22.6469603426837, 26.8868759806829, 27.9236445423635, 25.6732318482115,
        35.614333671687, 34.9360758555052];
    engine.wealth.state().0.iter().zip(logs).for_each(|(got, expected)| near(*got, expected));
    near(engine.base.trials, 264.888738450023);
    near(engine.base.failures, 1.78933901157018);
    assert_eq!(engine.component(), Some(Component::Gross(0.5)));
}

#[test]
fn endless_watching() {
    let mut engine = engine(Guarantee::RunLength(1e6), (1.0, 0.0), Grid::Ratios);
    let steps = [
        ((10, 0, 90, 0), 0.0, false),
        ((10, 0, 90, 2), -0.331348731848409, false),
        ((10, 1, 90, 0), 1.38896990999251, false),
        ((10, 4, 90, 1), 6.78096549807293, false),
        ((10, 6, 90, 0), 19.1939875362228, true),
        ((10, 10, 90, 0), 41.2396886952405, true),
    ];
    for ((n_c, k_c, n_b, k_b), log_evidence, rejected) in steps {
        engine.observe(block(n_c, k_c, n_b, k_b), Duration::ZERO);
        near(engine.log_evidence(), log_evidence);
        assert_eq!(engine.rejected(), rejected);
    }
}

#[test]
fn a_gross_bet() {
    let tolerance = Tolerance::new(1.1, 1e-4).expect("a tolerance");
    let bet = Bet::gross(0.5, 0.4, Arms::new(40.0, 60.0), tolerance).expect("a bet");
    near(bet.stake.canary, 0.579467113110054);
    near(bet.stake.baseline, 0.42494254961404);
    near(bet.center.canary, 0.557017035921359);
    near(bet.center.baseline, 0.506288214473962);
    near(bet.factors().log_e(block(40, 30, 60, 24)), 4.32084761337276);
    assert_eq!(Bet::gross(0.5, 0.95, Arms::new(100.0, 1.0), tolerance), None);
}

#[test]
fn a_hundred_thousand_blocks_stay_finite() {
    let mut engine = engine(Guarantee::Alpha(1e-3), DEFAULT, Grid::Full);
    for n in 1..=100_000 {
        let block = if n % 100 == 0 { block(5, 1, 45, 9) } else { block(5, 0, 45, 0) };
        engine.observe(block, Duration::ZERO);
    }
    near(engine.log_evidence(), -7.90850830735937);
    near(engine.wealth.state().1, 0.168866547381578);
    assert_eq!(engine.wealth.state().2, 1000);
    assert!(!engine.rejected());
}

#[test]
fn too_few_failures_wait() {
    let tolerance = Tolerance::new(1.1, 1e-4).expect("a tolerance");
    let mut engine = Engine::new(Settings::new(tolerance, Guarantee::Alpha(0.05)));
    (0..2).for_each(|n| engine.observe(block(1, 1, 99, 0), Duration::from_secs(n)));
    assert!(engine.log_evidence() > engine.log_threshold() && !engine.rejected());
    engine.observe(block(1, 1, 99, 0), Duration::from_secs(2));
    assert_eq!(engine.rejected_at(), Some(Duration::from_secs(2)));
    // The rejection is final, even after good service.
    (0..1000).for_each(|n| engine.observe(block(100, 0, 99, 9), Duration::from_secs(3 + n)));
    assert!(engine.log_evidence() < engine.log_threshold() && engine.rejected());
}

#[test]
fn the_beginning_of_a_late_fault_is_named() {
    let tolerance = Tolerance::new(1.1, 1e-4).expect("a tolerance");
    let mut engine = Engine::new(Settings::new(tolerance, Guarantee::Alpha(1e-3)));
    for second in 1..=200 {
        let k_c = if second > 150 { 5 } else { u64::from(second % 10 == 5) };
        engine.observe(block(100, k_c, 900, 1), Duration::from_secs(second));
    }
    let (since, counts) = engine.onset().expect("evidence");
    assert_eq!(since, Duration::from_secs(150));
    assert_eq!(counts.trials, block(5_000, 250, 45_000, 50));
    assert_eq!(engine.estimate().total(), block(20_000, 265, 180_000, 200));
}
