use super::{
    super::{
        Attempts, Health, Judge, Latencies, Quantile, Reference, Span, Tally, Tolerance,
        simulation::Traffic,
    },
    *,
};
use crate::config::{
    schema::{Eject, EjectErrors, EjectLatency},
    units::Share,
};

const S: fn(u64) -> Duration = Duration::from_secs;

/// A comparison with its gate.
struct Judged {
    comparison: Comparison,
    gate: Gate,
}

impl Judged {
    fn new(limits: &Limits) -> Self {
        Self {
            comparison: Comparison::new(limits.clone(), 1.0, S(0)),
            gate: Gate::new(limits, 1.0),
        }
    }

    fn add(&mut self, entry: &Entry) {
        self.gate.apply(entry);
        self.comparison.apply(entry);
    }

    fn requests(&mut self, block: Arms<Tally>, at: Duration) {
        let block = Box::new(Attempts::of_strangers(block));
        self.add(&Entry::Errors { at, block, route: None });
    }

    fn answer(&self, now: Duration) -> Answer {
        self.gate.answer(&self.comparison, now)
    }
}

fn block(n_c: u64, k_c: u64, n_b: u64, k_b: u64) -> Arms<Tally> {
    Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b))
}

/// Errors alone, with this absolute tolerance.
fn errors(absolute: f64) -> Limits {
    let errors = EjectErrors { absolute: Some(Share(absolute)), ..EjectErrors::default() };
    Limits::of(&Eject { errors: Some(errors), ..Eject::default() }, &Eject::default(), 1e-3)
}

fn latency() -> Limits {
    let latency = EjectLatency { p95: Some(Share(0.2)), ..EjectLatency::default() };
    let errors = Some(EjectErrors::default());
    let eject = Eject { errors, latency: Some(latency), ..Eject::default() };
    Limits::of(&eject, &Eject::default(), 1e-3)
}

#[test]
fn health_becomes_certain_and_is_tested_again_after_a_step() {
    let health = Health::new(2.0, 0.05);
    let mut judged = Judged::new(&Limits { health, ..errors(1e-4) });
    let mut second = 0;
    while judged.answer(S(second)) == Answer::Undecided && second < 1000 {
        second += 1;
        judged.requests(block(1000, 3, 9000, 27), S(second));
    }
    assert_eq!(judged.answer(S(second)), Answer::Healthy);
    assert_eq!(judged.gate.requests(), Arms::new(1000 * second, 9000 * second));
    let health = judged.gate.health().expect("errors are compared");
    assert!(health.log_evidence.is_some_and(|evidence| evidence >= health.log_threshold));
    assert!(health.to_string().contains("fewer than 2 times the baseline's"), "{health}");
    judged.add(&Entry::WeightStep { at: S(2001), warms: true });
    assert_eq!(judged.answer(S(2001)), Answer::Undecided);
}

#[test]
fn the_question_follows_what_is_tolerated() {
    let health = errors(0.003).health.expect("errors are compared");
    assert_eq!((health.ratio(), health.excess(), health.beta()), (2.2, 0.006, 0.05));
    let finding = Judged::new(&errors(0.003)).gate.health().expect("a question");
    assert_eq!(
        finding.to_string(),
        "its failures are fewer than 2.2 times the baseline's plus 0.6 % of its requests"
    );
    let better = Tolerance::new(0.4, 0.0).expect("a tolerance");
    assert_eq!(Health::within_twice(better), None);
}

/// Mean requests of a canary until it is healthy, by rates of failure, at a weight of 10 %; and how many of
/// `runs` never are within so many.
fn until_healthy(limits: &Limits, rates: Arms<f64>, runs: u64, most: u64) -> (f64, u64) {
    let mut traffic = Traffic::new(47);
    let (mut requests, mut without) = (0, 0);
    for _ in 0..runs {
        let mut judged = Judged::new(limits);
        while judged.answer(S(0)) == Answer::Undecided && judged.gate.requests().canary < most {
            judged.requests(traffic.block(Arms::new(20.0, 180.0), rates), S(0));
        }
        requests += judged.gate.requests().canary;
        without += u64::from(judged.answer(S(0)) != Answer::Healthy);
    }
    (requests as f64 / runs as f64, without)
}

#[test]
fn an_equal_canary_becomes_healthy_also_where_nothing_fails() {
    for (absolute, rate, expected) in
        [(1e-4, 0.003, 3_700.0), (1e-4, 0.0, 27_000.0), (0.003, 0.003, 830.0), (0.003, 0.0, 920.0)]
    {
        let (mean, without) = until_healthy(&errors(absolute), Arms::new(rate, rate), 40, 200_000);
        assert!((0.75..1.33).contains(&(mean / expected)), "{absolute}, {rate}: {mean}");
        assert!(without <= 1, "{absolute}, {rate}: {without} are never healthy");
    }
}

/// At the very boundary, where it may be called healthy with a probability of 5 % at most.
#[test]
fn a_canary_that_fails_twice_as_often_as_is_allowed_is_rarely_healthy() {
    for baseline in [0.0, 0.003] {
        let canary = 2.0 * (1.1 * baseline + 0.003);
        let limits = Limits { alpha: 1e-12, ..errors(0.003) };
        let (_, without) = until_healthy(&limits, Arms::new(canary, baseline), 200, 5_000);
        // 10 expected at most, and three standard deviations.
        assert!(without >= 180, "{baseline}: {without} of 200 without");
    }
}

#[test]
fn a_canary_that_becomes_doubtful_is_no_longer_healthy_before_it_fails() {
    let mut judged = Judged::new(&errors(0.003));
    let mut answers = vec![judged.answer(S(0))];
    for second in 1..200 {
        let failed = u64::from(second > 60);
        judged.requests(block(20, failed, 180, 0), S(second));
        let answer = judged.answer(S(second));
        if answers.last() != Some(&answer) {
            answers.push(answer);
        }
    }
    use Answer::{Fail, Healthy, Undecided};
    assert_eq!(answers, [Undecided, Healthy, Undecided, Fail]);
}

/// A canary that was as good as the baseline for a long time was called healthy for long after it had become as
/// bad as nobody would call healthy: the evidence against it had first to make up for the time before.
#[test]
fn a_canary_that_becomes_bad_late_is_not_healthy_for_long() {
    let (limits, mut traffic) = (errors(1e-4), Traffic::new(53));
    let (requests, good, bad) =
        (Arms::new(20.0, 180.0), Arms::new(0.003, 0.003), Arms::new(2.0 * 0.0034, 0.003));
    let runs = 30;
    let ([mut with, mut without], mut lost) = ([0, 0], 0);
    for _ in 0..runs {
        let mut judged = Judged::new(&limits);
        let mut since_healthy = 0;
        while since_healthy < 2_000 {
            judged.requests(traffic.block(requests, good), S(0));
            let is_healthy = judged.answer(S(0)) == Answer::Healthy;
            lost += u64::from(since_healthy > 0 && !is_healthy);
            since_healthy = if is_healthy { since_healthy + 1 } else { 0 };
        }
        let begun = judged.gate.requests().canary;
        let mut is_healthy = true;
        while judged.comparison.log_evidence() < DOUBTED {
            judged.requests(traffic.block(requests, bad), S(0));
            is_healthy = is_healthy && judged.answer(S(0)) == Answer::Healthy;
            with += if is_healthy { 20 } else { 0 };
        }
        without += judged.gate.requests().canary - begun;
    }
    let [with, without] = [with, without].map(|sum| sum as f64 / runs as f64);
    println!(
        "measured: healthy for {with} requests, by evidence against it alone {without}; lost {lost} times"
    );
    assert!(with < 0.75 * without, "{with} and {without} requests");
    // At most 27 times in so many blocks with failures at the boundary of what is allowed, and they are better.
    assert!(lost <= 9, "{lost} times lost in {runs} runs while they were good");
}

/// Whether it was ever called healthy is what the bound is about.
#[test]
fn a_canary_that_was_healthy_and_is_bad_is_rarely_called_healthy_again() {
    let (limits, mut traffic) = (Limits { alpha: 1e-12, ..errors(0.003) }, Traffic::new(59));
    let runs = 100;
    let mut again = 0;
    for _ in 0..runs {
        let mut judged = Judged::new(&limits);
        let mut add = |judged: &mut Judged, canary| {
            judged.requests(traffic.block(Arms::new(20.0, 180.0), Arms::new(canary, 0.003)), S(0));
            judged.gate.certificate.as_ref().is_some_and(|test| test.reached_at().is_some())
        };
        while !add(&mut judged, 0.003) {}
        // At the boundary, until the certificate is given back.
        let bad = 2.0 * (1.1 * 0.003 + 0.003);
        while add(&mut judged, bad) {}
        again += u64::from((0..250).any(|_| add(&mut judged, bad)));
    }
    // 5 expected at most, and three standard deviations.
    assert!(again <= 11, "{again} of {runs}");
}

/// A canary that fails nothing and gets 100 requests each second, of which so many are twice as slow; none of the
/// baseline's is. Returns the
/// seconds until the 90th in which it is healthy.
fn healthy_seconds(slow_of_100: u64) -> Vec<u64> {
    let limits = Limits { health: errors(0.003).health, ..latency() };
    let mut judged = Judged::new(&limits);
    let of = |requests: u64, latency_us: u64| {
        let mut latencies = Latencies::default();
        (0..requests).for_each(|n| latencies.record(latency_us + n % 100));
        latencies
    };
    let mut reference = Reference::default();
    (0..5).for_each(|_| reference.absorb(&of(900, 10_000), S(1)));
    let slow = Quantile::P95.threshold(&reference);
    let mut second = |second| {
        judged.requests(block(100, 0, 900, 0), S(second));
        let mut canary = of(100 - slow_of_100, 9_000);
        (0..slow_of_100).for_each(|_| canary.record(20_000));
        let block = Arms::new((&canary).into(), (&of(900, 9_000)).into());
        let (span, quantile, at) = (Span::Head, Quantile::P95, S(second));
        judged.add(&Entry::Latency { at, span, quantile, block, slow });
        judged.answer(S(second)) == Answer::Healthy
    };
    (1..=90).filter(|now| second(*now)).collect()
}

/// Regression: certain by its errors, a canary was healthy when its warm-up ended, whatever its latency.
#[test]
fn a_canary_is_healthy_only_once_its_latency_was_compared_and_is_not_slower() {
    let healthy = healthy_seconds(0);
    assert_eq!(healthy.first(), Some(&34), "30 s, and five seconds of 100 requests");
    assert_eq!(healthy.len(), 57, "{healthy:?}");
    for slow in [100, 50, 20, 10, 5] {
        assert!(healthy_seconds(slow).is_empty(), "{slow} of 100 are slow");
    }
}

#[test]
fn what_has_to_warm_up_is_not_healthy_before() {
    let limits = Limits { health: errors(0.003).health, ..latency() };
    let mut judged = Judged::new(&limits);
    (1..=29).for_each(|second| judged.requests(block(100, 0, 900, 0), S(second)));
    assert_eq!(judged.answer(S(29)), Answer::Undecided, "nobody has looked at its latency");
    assert_eq!(judged.answer(S(299)), Answer::Undecided, "nor then");
    assert_eq!(judged.answer(S(300)), Answer::Healthy, "it cannot be looked at");
}

#[test]
fn no_canary_is_healthy_if_errors_are_not_compared() {
    let nothing = Eject::default();
    let mut judged = Judged::new(&Limits::of(&nothing, &nothing, 1e-3));
    (1..1000).for_each(|second| judged.requests(block(100, 0, 900, 0), S(second)));
    assert_eq!(judged.answer(S(1000)), Answer::Undecided);
    assert_eq!(judged.gate.health(), None);
}

#[test]
fn another_certainty_of_health_keeps_the_evidence_for_it() {
    let limits = |beta| Limits { health: Health::new(2.0, beta), ..errors(1e-4) };
    let mut judged = Judged::new(&limits(1e-9));
    judged.requests(block(500, 0, 500, 12), S(1));
    let evidence = judged.gate.health().expect("a question").log_evidence;
    assert_eq!(judged.answer(S(1)), Answer::Undecided);
    judged.add(&Entry::Demand(Box::new(limits(0.05))));
    assert_eq!(judged.gate.health().expect("a question").log_evidence, evidence);
    judged.requests(block(500, 0, 500, 12), S(2));
    assert_eq!(judged.answer(S(2)), Answer::Healthy);
}
