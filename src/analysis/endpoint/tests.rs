use super::{super::simulation::Traffic, *};

const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
const TICK: Duration = Duration::from_millis(10);

/// Endpoints with about one request per tick each.
struct Pool {
    traffic: Traffic,
    counters: Vec<Counter>,
    endpoints: Endpoints,
    /// Counter of the other version, if there is one.
    beside: Option<Counter>,
    now: Duration,
}

impl Pool {
    fn new(endpoints: Endpoints, size: usize, seed: u64) -> Self {
        let counters = vec![Counter::default(); size];
        let (traffic, beside) = (Traffic::new(seed), None);
        Self { traffic, counters, endpoints, beside, now: Duration::ZERO }
    }

    /// A tick with 20 requests of the other version for each of its own.
    fn tick_beside(&mut self, base: f64, rate: impl Fn(usize) -> f64) -> Vec<Change> {
        let trials = self.traffic.poisson(20.0 * self.counters.len() as f64);
        let failures = (0..trials).map(|_| self.traffic.binomial(1, base)).sum();
        let before = self.beside.unwrap_or_default();
        self.beside = Some(before.with(Counter { trials, failures }));
        self.tick(rate)
    }

    fn tick(&mut self, rate: impl Fn(usize) -> f64) -> Vec<Change> {
        for (number, counter) in self.counters.iter_mut().enumerate() {
            let trials = self.traffic.poisson(1.0);
            counter.trials = counter.trials.wrapping_add(trials);
            counter.failures += self.traffic.binomial(trials, rate(number));
        }
        self.now += TICK;
        let named: Vec<_> = NAMES.into_iter().zip(self.counters.iter().copied()).collect();
        let beside: Vec<_> = self.beside.iter().map(|counter| ("z", *counter)).collect();
        self.endpoints.poll(&named, &beside, self.now)
    }
}

/// Endpoints with a small tolerance.
fn strict() -> Endpoints {
    let tolerance = Tolerance { ratio: 1.1, excess: 0.0 };
    Endpoints::new(Settings::new(tolerance, Guarantee::RunLength(1e7)))
}

#[test]
fn the_bad_one_of_ten_is_found() {
    // Mean numbers of failed requests of the reference implementation.
    for (bad, expected, slack) in [(1.0, 10.0, 2.0), (0.5, 10.0, 2.5), (0.05, 15.0, 4.0)] {
        let (mut failed, runs) = (0, 25);
        for seed in 0..runs {
            let mut pool = Pool::new(strict(), 10, seed);
            // Counters may wrap.
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

/// Once an endpoint that was found while others were out was ejected when they came back, although
/// it was healthy by then.
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

/// Mean and largest number of failures until the bad one of `size` endpoints of a canary is out.
fn cost_in_canary(size: usize, bad: f64) -> (f64, u64) {
    let runs = 40;
    let failed = |seed| {
        let mut pool = Pool::new(Endpoints::default(), size, seed);
        (0..500).for_each(|_| {
            pool.tick_beside(5e-4, |_| 5e-4);
        });
        let before = pool.counters[1].failures;
        for tick in 1..100_000 {
            let changes = pool.tick_beside(5e-4, |n| if n == 1 { bad } else { 5e-4 });
            if changes.iter().any(
                |change| matches!(change, Change::Eject { endpoint, .. } if **endpoint == *"b"),
            ) {
                break;
            }
            assert!(tick < 99_999, "it stays in");
        }
        pool.counters[1].failures - before
    };
    let failed: Vec<u64> = (0..runs).map(failed).collect();
    (failed.iter().sum::<u64>() as f64 / runs as f64, failed.iter().copied().max().unwrap_or(0))
}

#[test]
fn the_bad_one_of_a_canary_is_found_quickly() {
    for size in [2, 3] {
        for (bad, mean, most) in [(1.0, 9.0, 12), (0.3, 11.0, 17), (0.05, 17.0, 30)] {
            let (got, largest) = cost_in_canary(size, bad);
            println!("one of {size} that fails {bad}: {got:.1} failures, at most {largest}");
            assert!(got <= mean && largest <= most, "{size}, {bad}: {got} and {largest}");
        }
    }
}

#[test]
fn of_a_canary_that_is_bad_everywhere_one_is_out() {
    for size in [2, 3] {
        let mut pool = Pool::new(Endpoints::default(), size, 61);
        for _ in 0..2_000 {
            pool.tick_beside(5e-4, |_| 1.0);
            let peers = pool.endpoints.peers.values();
            assert!(peers.filter(|peer| peer.out_until.is_some()).count() <= 1);
        }
    }
}

#[test]
fn good_endpoints_of_a_canary_stay() {
    // An hour and a half of twice 1 % of failures, on both versions.
    let mut pool = Pool::new(Endpoints::default(), 2, 62);
    let ejected = (0..500_000).filter(|_| !pool.tick_beside(0.01, |_| 0.01).is_empty()).count();
    assert_eq!(ejected, 0);
    assert!(Endpoints::is_enough(2, true) && !Endpoints::is_enough(2, false));
}

#[test]
fn a_version_beside_may_come_and_change_its_endpoints() {
    let mut endpoints = Endpoints::default();
    let counter = |trials, failures| Counter { trials, failures };
    let own = |n| [("a", counter(n, n)), ("b", counter(n, 0))];
    let polls: [(&[_], u64); 5] = [
        (&[], 0),
        (&[], 10),
        (&[("x", counter(900, 0)), ("y", counter(900, 0))], 20),
        (&[("x", counter(950, 0))], 30),
        (&[("x", counter(990, 0))], 32),
    ];
    for ((beside, n), now) in polls.iter().zip(1..) {
        assert!(endpoints.poll(&own(*n), beside, Duration::from_secs(now)).is_empty());
    }
    let seen = endpoints.peers["a"].test.estimate().total();
    assert_eq!((seen.canary.trials(), seen.baseline.trials()), (2, 42));
}

#[test]
fn who_was_taken_out_elsewhere_is_no_peer_and_leaves_no_room() {
    let mut pool = Pool::new(Endpoints::default(), 3, 63);
    (0..100).for_each(|_| assert!(pool.tick(|_| 0.003).is_empty()));
    pool.endpoints.take_out("a", pool.now + PAUSE);
    let ejected =
        (0..2_900).filter(|_| !pool.tick(|n| if n == 1 { 0.5 } else { 0.003 }).is_empty());
    assert_eq!(ejected.count(), 0, "one is out already");
    let mut changes = (0..3_000).flat_map(|_| pool.tick(|n| if n == 1 { 0.5 } else { 0.003 }));
    let first = changes.next();
    assert!(matches!(first, Some(Change::Readmit { endpoint }) if *endpoint == *"a"));
    let then = changes.next();
    assert!(matches!(then, Some(Change::Eject { endpoint, .. }) if *endpoint == *"b"));
}

#[test]
fn names_that_come_and_go_start_anew() {
    let mut endpoints = Endpoints::default();
    let counter = |trials, failures| Counter { trials, failures };
    let polls = [
        // Counts before the first poll are ignored.
        [("a", counter(900, 900)), ("b", counter(900, 0)), ("c", counter(900, 0))],
        [("a", counter(905, 900)), ("b", counter(905, 0)), ("c", counter(905, 0))],
        [("a", counter(910, 900)), ("b", counter(910, 0)), ("d", counter(50, 50))],
        [("a", counter(915, 900)), ("b", counter(915, 0)), ("d", counter(55, 50))],
    ];
    for (poll, now) in polls.iter().zip(1..) {
        assert!(endpoints.poll(poll, &[], Duration::from_secs(now)).is_empty());
    }
    assert_eq!(endpoints.peers.keys().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "d"]);
    let seen = endpoints.peers["d"].test.estimate().total();
    assert_eq!((seen.canary.trials(), seen.canary.failures()), (5, 0));
}
