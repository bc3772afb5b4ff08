use super::{super::simulation::Traffic, *};

const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
const TICK: Duration = Duration::from_millis(10);

/// Endpoints of about one request per tick each.
struct Pool {
    traffic: Traffic,
    counters: Vec<Counter>,
    endpoints: Endpoints,
    now: Duration,
}

impl Pool {
    fn new(endpoints: Endpoints, size: usize, seed: u64) -> Self {
        let counters = vec![Counter::default(); size];
        Self { traffic: Traffic::new(seed), counters, endpoints, now: Duration::ZERO }
    }

    fn tick(&mut self, rate: impl Fn(usize) -> f64) -> Vec<Change> {
        for (number, counter) in self.counters.iter_mut().enumerate() {
            let trials = self.traffic.poisson(1.0);
            counter.trials = counter.trials.wrapping_add(trials);
            counter.failures += self.traffic.binomial(trials, rate(number));
        }
        self.now += TICK;
        let named: Vec<_> = NAMES.into_iter().zip(self.counters.iter().copied()).collect();
        self.endpoints.poll(&named, self.now)
    }
}

/// Endpoints that should be alike.
fn strict() -> Endpoints {
    let tolerance = Tolerance { ratio: 1.1, excess: 0.0 };
    Endpoints::new(Settings::new(tolerance, Guarantee::RunLength(1e7)))
}

#[test]
fn the_bad_one_of_ten_is_found() {
    // Mean numbers of failed requests of the reference.
    for (bad, expected, slack) in [(1.0, 10.0, 2.0), (0.5, 10.0, 2.5), (0.05, 15.0, 4.0)] {
        let (mut failed, runs) = (0, 25);
        for seed in 0..runs {
            let mut pool = Pool::new(strict(), 10, seed);
            // Counters wrap without anybody noticing.
            pool.counters[3].trials = u64::MAX - 10;
            pool.tick(|_| 0.0);
            let changes = loop {
                let changes = pool.tick(|n| if n == 3 { bad } else { 0.003 });
                if !changes.is_empty() {
                    break changes;
                }
            };
            let [Change::Eject { endpoint, .. }] = &*changes else { panic!("{changes:?}") };
            assert_eq!(&**endpoint, "d");
            failed += pool.counters[3].failures;
        }
        let failed = failed as f64 / runs as f64;
        assert!((failed - expected).abs() < slack, "{bad}: {failed} failed");
    }
}

#[test]
fn a_common_outage_ejects_nobody() {
    let mut pool = Pool::new(Endpoints::default(), 10, 51);
    for tick in 0..8_000 {
        let outage = (2_000..6_000).contains(&tick);
        let changes = pool.tick(|_| if outage { 0.5 } else { 0.003 });
        assert!(changes.is_empty(), "{changes:?}");
    }
}

#[test]
fn no_more_than_a_fifth_are_out_and_they_come_back() {
    let mut pool = Pool::new(Endpoints::default(), 10, 52);
    let (mut ejected, mut readmitted) = (Vec::new(), Vec::new());
    for _ in 0..6_500 {
        for change in pool.tick(|n| if n < 4 { 1.0 } else { 0.003 }) {
            match change {
                Change::Eject { endpoint, until, test } => {
                    assert!(test.rejected() && until > pool.now);
                    ejected.push((endpoint, until - pool.now));
                }
                Change::Readmit { endpoint } => readmitted.push(endpoint),
            }
        }
        let out = pool.endpoints.peers.values().filter(|peer| peer.out_until.is_some()).count();
        assert!(out <= 2, "{out} are out");
    }
    assert!(readmitted.len() >= 2, "{readmitted:?}");
    let again: Vec<_> = ejected.iter().filter(|(_, pause)| *pause == 2 * PAUSE).collect();
    assert!(ejected[0].1 == PAUSE && !again.is_empty(), "{ejected:?}");
}

/// Whoever was found while others were out was ejected when they came back, well as it was by then.
#[test]
fn nobody_is_ejected_for_what_is_long_over() {
    let mut pool = Pool::new(Endpoints::default(), 4, 54);
    let mut ejected = 0;
    for tick in 0..10_000 {
        let blip = (100..300).contains(&tick);
        let changes = pool.tick(|n| if n < 2 && blip { 1.0 } else { 0.003 });
        ejected += changes.iter().filter(|change| matches!(change, Change::Eject { .. })).count();
    }
    assert_eq!(ejected, 1);
}

#[test]
fn two_are_no_crowd_and_three_are() {
    let mut two = Pool::new(Endpoints::default(), 2, 53);
    assert!((0..1_000).all(|_| two.tick(|n| if n == 0 { 1.0 } else { 0.0 }).is_empty()));
    let mut three = Pool::new(Endpoints::default(), 3, 53);
    assert!((0..1_000).any(|_| !three.tick(|n| if n == 0 { 1.0 } else { 0.0 }).is_empty()));
}

#[test]
fn names_that_come_and_go_start_anew() {
    let mut endpoints = Endpoints::default();
    let counter = |trials, failures| Counter { trials, failures };
    let polls = [
        // What was counted before the first look is nobody's.
        [("a", counter(900, 900)), ("b", counter(900, 0)), ("c", counter(900, 0))],
        [("a", counter(905, 900)), ("b", counter(905, 0)), ("c", counter(905, 0))],
        [("a", counter(910, 900)), ("b", counter(910, 0)), ("d", counter(50, 50))],
        [("a", counter(915, 900)), ("b", counter(915, 0)), ("d", counter(55, 50))],
    ];
    for (poll, now) in polls.iter().zip(1..) {
        assert!(endpoints.poll(poll, Duration::from_secs(now)).is_empty());
    }
    assert_eq!(endpoints.peers.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "d"]);
    let seen = endpoints.peers["d"].test.estimate().total();
    assert_eq!((seen.canary.trials(), seen.canary.failures()), (5, 0));
}
