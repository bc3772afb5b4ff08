use super::{
    super::{AmountLimit, amount::Clip, certificate::Health},
    *,
};
use crate::config::{
    schema::{Eject, EjectErrors, EjectLatency},
    units::Share,
};

const S: fn(u64) -> Duration = Duration::from_secs;

fn block(n_c: u64, k_c: u64, n_b: u64, k_b: u64) -> Arms<Tally> {
    Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b))
}

fn limits() -> Limits {
    let errors = Some(EjectErrors::default());
    let latency = Some(EjectLatency { p95: Some(Share(0.2)), p99: Some(Share(0.2)) });
    Limits::of(&Eject { errors, latency, ..Eject::default() }, &Eject::default(), 1e-3)
}

#[test]
fn evidence_is_averaged() {
    let of = |metric: Metric, log_evidence| Term {
        metric,
        weight: metric.weight(),
        log_evidence,
        enough: true,
    };
    let terms = [
        of(Metric::Errors, 3.0),
        of(Metric::LatencyP95, -2.0),
        of(Metric::LatencyP99, 9.0),
        of(Metric::AmountLow, 0.0),
        of(Metric::AmountHigh, f64::NEG_INFINITY),
    ];
    let logs = weighted(&terms);
    assert!((log_sum(logs.iter().copied()) - 7.11120673372998).abs() < 1e-9);
    assert_eq!(largest(&logs), Some(2));
    // One metric alone has all of the weight.
    assert_eq!(weighted(&[of(Metric::LatencyP95, 5.0)]), [5.0]);
    assert_eq!((largest(&[]), weighted(&[]).len()), (None, 0));
}

#[test]
fn a_broken_canary_fails_at_once_and_stays_failed() {
    let mut comparison = Comparison::new(limits(), 1.0, S(100));
    assert_eq!(comparison.verdict(S(100)).log_evidence, None);
    comparison.observe_errors(block(5, 5, 45, 0), S(102));
    assert_eq!(comparison.answer(), Answer::Fail);
    let verdict = comparison.verdict(S(102));
    assert_eq!((verdict.since_s, verdict.compared_s), (2.0, 2.0));
    assert_eq!(verdict.findings[0].metric, Metric::Errors);
    (0..1000).for_each(|n| comparison.observe_errors(block(100, 0, 90, 9), S(103 + n)));
    assert!(comparison.log_evidence() < verdict.log_threshold);
    assert_eq!(comparison.verdict(S(2000)), verdict, "the numbers that decided");
}

#[test]
fn too_few_failures_decide_nothing() {
    let mut comparison = Comparison::new(limits(), 1.0, S(0));
    for n in 1..=2 {
        comparison.observe_errors(block(1, 1, 10_000, 0), S(n));
    }
    assert!(comparison.log_evidence() > 6.91, "{}", comparison.log_evidence());
    assert_eq!(comparison.answer(), Answer::Undecided);
    comparison.observe_errors(block(1, 1, 10_000, 0), S(3));
    assert_eq!(comparison.answer(), Answer::Fail);
}

#[test]
fn a_slow_canary_fails_after_its_warm_up() {
    let of = |requests: u64, latency_us: u64| {
        let mut latencies = Latencies::default();
        (0..requests).for_each(|n| latencies.record(latency_us + n % 100));
        latencies
    };
    let (canary, baseline) = (of(100, 20_000), of(900, 10_000));
    let mut reference = Reference::default();
    (0..5).for_each(|_| reference.absorb(&baseline, S(1)));
    let mut comparison = Comparison::new(limits(), 1.0, S(0));
    for second in 1..30 {
        comparison.observe_latency(Arms::new(&canary, &baseline), &reference, S(second));
        assert_eq!(comparison.log_evidence(), f64::NEG_INFINITY, "caches are filling");
    }
    for second in 30..33 {
        comparison.observe_latency(Arms::new(&canary, &baseline), &reference, S(second));
        comparison.observe_errors(block(100, 0, 900, 0), S(second));
    }
    let verdict = comparison.verdict(S(40));
    assert_eq!(verdict.answer, Answer::Fail);
    assert_eq!(verdict.findings.len(), 3);
    assert!(verdict.reason.contains("is slower than is tolerated"), "{}", verdict.reason);
    assert!(verdict.reason.contains("300 of 300 requests (100 %)"), "{}", verdict.reason);
}

/// Limits of `names` alone, each with 5 % tolerated.
fn amounts(names: &[&str]) -> Limits {
    let limit =
        |name: &&str| AmountLimit { name: (*name).to_owned(), tolerance: 0.05, derived: false };
    let amounts = names.iter().map(limit).collect();
    Limits { errors: None, p95: None, p99: None, amounts, ..limits() }
}

/// A second of 100 and 900 requests that carry 0 to 9, `factor` times that in the canary.
fn second(factor: f64) -> Arms<Amounts> {
    let mut block = [(); 2].map(|()| Amounts::new(Clip::new(100.0).expect("a clip")));
    (0..100).for_each(|n| block[0].record(f64::from(n % 10) * factor));
    (0..900).for_each(|n| block[1].record(f64::from(n % 10)));
    let [canary, baseline] = block;
    Arms::new(canary, baseline)
}

#[test]
fn a_canary_that_earns_nothing_fails_after_its_warm_up() {
    let mut comparison = Comparison::new(amounts(&["stake"]), 1.0, S(0));
    let Arms { canary, baseline } = second(0.0);
    (1..30).for_each(|n| comparison.observe_amounts(0, Arms::new(&canary, &baseline), S(n)));
    assert_eq!(comparison.log_evidence(), f64::NEG_INFINITY, "caches are filling");
    (30..60).for_each(|n| comparison.observe_amounts(0, Arms::new(&canary, &baseline), S(n)));
    let verdict = comparison.verdict(S(60));
    assert_eq!((verdict.answer, verdict.findings[0].metric), (Answer::Fail, Metric::AmountLow));
    assert!(verdict.reason.contains("has a lower `stake` than is tolerated"), "{}", verdict.reason);
    assert!(verdict.reason.contains("a mean of 0.0000 over"), "{}", verdict.reason);
}

#[test]
fn the_amount_that_differs_is_named() {
    let mut comparison = Comparison::new(amounts(&["stake", "payout", "void"]), 1.0, S(0));
    let (equal, high) = (second(1.0), second(1.5));
    for n in 30..90 {
        for (number, block) in [&equal, &high, &equal].into_iter().enumerate() {
            comparison.observe_amounts(number, Arms::new(&block.canary, &block.baseline), S(n));
        }
        comparison.observe_amounts(3, Arms::new(&high.canary, &high.baseline), S(n));
    }
    let verdict = comparison.verdict(S(90));
    assert_eq!((verdict.answer, verdict.findings.len()), (Answer::Fail, 6));
    assert_eq!(verdict.findings[0].gate(), "amount_high.payout");
    assert!(
        verdict.reason.contains("has a higher `payout` than is tolerated"),
        "{}",
        verdict.reason
    );
    let json = serde_json::to_value(&verdict).expect("JSON");
    assert_eq!(json["findings"][0]["amount"], "payout");
}

#[test]
fn amounts_share_the_weight_of_one() {
    let of = |names: &[&str]| {
        let terms =
            Comparison::new(Limits { errors: limits().errors, ..amounts(names) }, 1.0, S(0))
                .terms()
                .into_iter();
        terms.map(|term| term.weight).collect::<Vec<_>>()
    };
    assert_eq!(of(&["stake"]), [0.5, 0.1, 0.1]);
    assert_eq!(of(&["stake", "payout"]), [0.5, 0.05, 0.05, 0.05, 0.05]);
}

#[test]
fn health_passes_and_is_asked_anew_after_a_step() {
    let health = Health::new(2.0, 0.05);
    let mut comparison = Comparison::new(Limits { health, ..limits() }, 1.0, S(0));
    let mut second = 0;
    while comparison.answer() == Answer::Undecided && second < 1000 {
        second += 1;
        comparison.observe_errors(block(1000, 3, 9000, 27), S(second));
    }
    assert_eq!(comparison.answer(), Answer::Pass);
    let verdict = comparison.verdict(S(2000));
    assert_eq!(verdict.since_s, second as f64);
    assert!(verdict.reason.contains("less than 2 times as often"), "{}", verdict.reason);
    comparison.weight_step();
    assert_eq!(comparison.answer(), Answer::Undecided);
}

#[test]
fn clusters_slow_the_evidence_down() {
    let evidence = |phi| {
        let mut comparison = Comparison::new(limits(), phi, S(0));
        comparison.observe_errors(block(10, 5, 90, 0), S(1));
        comparison.log_evidence()
    };
    assert!(evidence(1.0) > evidence(3.0) + 2.0);
    let metrics: Vec<_> = Comparison::new(limits(), 1.0, S(0)).log_evidence_by_metric().collect();
    assert_eq!(metrics.len(), 3);
}
