use super::{
    super::{AmountLimit, Reference, amount::Clip, verdict::Metric},
    weighing::{Term, largest},
    *,
};
use crate::config::{
    schema::{Eject, EjectErrors, EjectLatency},
    units::Share,
};

const S: fn(u64) -> Duration = Duration::from_secs;

fn block(n_c: u64, k_c: u64, n_b: u64, k_b: u64) -> Attempts {
    Attempts::of_strangers(Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b)))
}

fn limits() -> Limits {
    let errors = Some(EjectErrors::default());
    let latency = Some(EjectLatency {
        p95: Some(Share(0.2)),
        p99: Some(Share(0.2)),
        ..EjectLatency::default()
    });
    Limits::of(&Eject { errors, latency, ..Eject::default() }, &Eject::default(), 1e-3)
}

#[test]
fn evidence_is_averaged() {
    let of = |weight, log_evidence| Term { weight, log_evidence, spared: None, enough: true };
    let terms =
        [of(0.5, 3.0), of(0.15, -2.0), of(0.15, 9.0), of(0.1, 0.0), of(0.1, f64::NEG_INFINITY)];
    let logs = weighted(&terms);
    assert!((log_sum(logs.iter().copied()) - 7.11120673372998).abs() < 1e-9);
    assert_eq!(largest(&logs), Some(2));
    // A single metric has all of the weight.
    assert_eq!(weighted(&[of(0.15, 5.0)]), [5.0]);
    assert_eq!((largest(&[]), weighted(&[]).len()), (None, 0));
}

#[test]
fn a_broken_canary_fails_at_once_and_stays_failed() {
    let mut comparison = Comparison::new(limits(), 1.0, S(100));
    assert_eq!(comparison.verdict(S(100)).log_evidence, None);
    comparison.observe_errors(&block(5, 5, 45, 0), S(102));
    assert_eq!(comparison.answer(), Answer::Fail);
    let verdict = comparison.verdict(S(102));
    assert_eq!((verdict.since_s, verdict.compared_s), (2.0, 2.0));
    assert_eq!(verdict.findings[0].metric, Metric::Errors);
    (0..1000).for_each(|n| comparison.observe_errors(&block(100, 0, 90, 9), S(103 + n)));
    assert!(comparison.log_evidence() < verdict.log_threshold);
    assert_eq!(comparison.verdict(S(2000)), verdict, "the numbers that decided");
}

#[test]
fn too_few_failures_decide_nothing() {
    let mut comparison = Comparison::new(limits(), 1.0, S(0));
    for n in 1..=2 {
        comparison.observe_errors(&block(1, 1, 10_000, 0), S(n));
    }
    assert!(comparison.log_evidence() > 6.91, "{}", comparison.log_evidence());
    assert_eq!(comparison.answer(), Answer::Undecided);
    comparison.observe_errors(&block(1, 1, 10_000, 0), S(3));
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
    let observe = |comparison: &mut Comparison, second| {
        comparison.observe_errors(&block(100, 0, 900, 0), S(second));
        for quantile in [Quantile::P95, Quantile::P99] {
            let (of, slow) = ((Span::Head, quantile), quantile.threshold(&reference));
            comparison.observe_slow(of, Arms::new(&canary, &baseline), slow, S(second));
        }
    };
    let slow = |comparison: &Comparison| comparison.latency[0].engine().log_evidence();
    for second in 1..30 {
        observe(&mut comparison, second);
        assert_eq!(slow(&comparison), f64::NEG_INFINITY, "caches are filling");
    }
    (30..34).for_each(|second| observe(&mut comparison, second));
    let verdict = comparison.verdict(S(40));
    assert_eq!(verdict.answer, Answer::Fail);
    assert_eq!(verdict.findings.len(), 7);
    assert!(
        verdict.reason.contains("100 % of its requests were slow to begin"),
        "{}",
        verdict.reason
    );
}

#[test]
fn a_canary_warms_up_again_at_each_step_in_time_and_in_requests() {
    let mut comparison = Comparison::new(limits(), 1.0, S(0));
    comparison.observe_errors(&block(99, 0, 900, 0), S(1));
    assert!(!comparison.is_warm(S(29)) && !comparison.is_warm(S(299)), "too few requests");
    assert!(comparison.is_warm(S(300)), "few requests for very long");
    comparison.observe_errors(&block(1, 0, 900, 0), S(2));
    assert!(comparison.is_warm(S(30)));
    comparison.weight_step(true, S(100));
    comparison.observe_errors(&block(100, 0, 900, 0), S(101));
    assert!(!comparison.is_warm(S(129)) && comparison.is_warm(S(130)));
}

#[test]
fn a_named_route_that_is_broken_fails_the_canary_by_its_name() {
    let routes = vec!["payout".to_owned(), "bet".to_owned()];
    let mut comparison = Comparison::new(Limits { routes, ..limits() }, 1.0, S(0));
    for n in 1..200 {
        // A fault that all routes together hide.
        comparison.observe_errors(&block(1_000, 1, 9_000, 9), S(n));
        comparison.observe_route(0, &block(2, 2, 18, 0), S(n));
        comparison.observe_route(1, &block(20, 0, 180, 0), S(n));
        comparison.observe_route(7, &block(20, 20, 180, 0), S(n));
        if comparison.answer() == Answer::Fail {
            break;
        }
    }
    let verdict = comparison.verdict(S(200));
    assert_eq!((verdict.answer, &*verdict.findings[0].gate()), (Answer::Fail, "errors.payout"));
    assert!(verdict.since_s <= 12.0, "{}", verdict.since_s);
    assert!(verdict.reason.contains("of its requests on payout failed"), "{}", verdict.reason);
}

#[test]
fn a_named_route_that_one_endpoint_of_three_breaks_fails_nobody() {
    for is_everywhere in [false, true] {
        let routes = vec!["payout".to_owned()];
        let mut comparison = Comparison::new(Limits { routes, ..limits() }, 1.0, S(0));
        for n in 1..200 {
            let mut all = block(1_000, 1, 9_000, 9);
            all.groups = vec![Tally::new(300, 0); 3];
            comparison.observe_errors(&all, S(n));
            let mut payout = block(3, if is_everywhere { 3 } else { 1 }, 57, 0);
            let good = Tally::new(1, is_everywhere.into());
            payout.groups = vec![good, Tally::new(1, 1), good];
            comparison.observe_route(0, &payout, S(n));
        }
        assert!(comparison.routes[0].errors.rejected());
        let expected = if is_everywhere { Answer::Fail } else { Answer::Undecided };
        assert_eq!(comparison.answer(), expected, "{is_everywhere}");
    }
}

#[test]
fn clients_who_leave_fail_a_canary() {
    let mut comparison = Comparison::new(limits(), 1.0, S(0));
    for n in 1..20 {
        let mut hung = block(0, 0, 45, 0);
        hung.served.canary = Tally::new(5, 5);
        comparison.observe_errors(&hung, S(n));
    }
    let verdict = comparison.verdict(S(20));
    assert_eq!((verdict.answer, verdict.findings[0].metric), (Answer::Fail, Metric::Unserved));
}

#[test]
fn a_few_players_with_all_failures_are_advice_and_no_verdict() {
    let mut comparison = Comparison::new(limits(), 1.0, S(0));
    assert_eq!(comparison.advised().count(), 0);
    for n in 1..20 {
        let mut cursed = block(50, 5, 900, 0);
        cursed.players = Arms::new(Tally::new(45, u64::from(n == 1)), Tally::new(900, 0));
        cursed.served = cursed.players;
        cursed.failers = u64::from(n == 1);
        comparison.observe_errors(&cursed, S(n));
    }
    assert_eq!(comparison.answer(), Answer::Undecided);
    assert_eq!(comparison.advised().collect::<Vec<_>>(), [Advised::FewPlayers]);
    let finding = comparison.advice(Advised::FewPlayers).expect("it is judged");
    assert_eq!(finding.metric, Metric::Errors);
    assert_eq!(comparison.failed_players(), 1);
    let text = finding.to_string();
    assert!(text.contains(", 1 player); baseline 0 %"), "{text}");
}

/// After an outage most players do not count any more; once those who still did seemed to have all
/// failures.
#[test]
fn failures_of_many_players_are_no_few_players_however_few_of_them_count() {
    let mut comparison = Comparison::new(limits(), 1.0, S(0));
    for n in 1..20 {
        let mut spent = block(50, 5, 900, 0);
        spent.players = Arms::new(Tally::new(45, u64::from(n == 1)), Tally::new(900, 0));
        spent.served = spent.players;
        comparison.observe_errors(&spent, S(n));
    }
    assert_eq!(comparison.answer(), Answer::Undecided);
    assert_eq!(comparison.advised().count(), 0);
    assert!(comparison.failed_players() > 50, "{}", comparison.failed_players());
}

#[test]
fn what_an_endpoint_did_that_is_out_is_no_evidence_against_the_one_that_is_left() {
    let failing = |of: [u64; 2]| {
        let mut block = block(10, of[0] + of[1], 190, 0);
        block.groups = of.map(|failed| Tally::new(5, failed)).to_vec();
        block
    };
    let mut comparison = Comparison::new(limits(), 1.0, S(0));
    for n in 1..10 {
        comparison.observe_errors(&failing([5, 0]), S(n));
        assert_eq!(comparison.answer(), Answer::Undecided, "one of two is bad");
    }
    for n in 10..100 {
        comparison.observe_errors(&block(10, 0, 190, 0), S(n));
        assert_eq!(comparison.answer(), Answer::Undecided, "the other is alone, and good");
    }
    comparison.observe_errors(&block(10, 10, 190, 0), S(100));
    comparison.observe_errors(&block(10, 10, 190, 0), S(101));
    assert_eq!(comparison.answer(), Answer::Fail, "it fails as well");
}

#[test]
fn refusals_that_rise_are_advice() {
    let mut comparison = Comparison::new(limits(), 1.0, S(0));
    for n in 1..20 {
        comparison.observe_refusals(Arms::new(Tally::new(10, 5), Tally::new(90, 1)), S(n));
    }
    assert_eq!(comparison.advised().collect::<Vec<_>>(), [Advised::Refusals]);
    assert_eq!(comparison.answer(), Answer::Undecided);
}

/// Limits of only `names`, each with a tolerance of 5 %.
fn amounts(names: &[&str]) -> Limits {
    let limit =
        |name: &&str| AmountLimit { name: (*name).to_owned(), tolerance: 0.05, derived: false };
    let amounts = names.iter().map(limit).collect();
    Limits { errors: None, unserved: None, p95: None, p99: None, amounts, ..limits() }
}

/// Enough requests to be warm, without errors.
fn warm(comparison: &mut Comparison) {
    comparison.observe_errors(&block(100, 0, 900, 0), S(0));
}

/// A second of 100 and 900 requests with amounts of 0 to 9, multiplied by `factor` in the canary.
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
    warm(&mut comparison);
    (1..30).for_each(|n| comparison.observe_amounts(0, Arms::new(&canary, &baseline), S(n)));
    assert_eq!(comparison.log_evidence(), f64::NEG_INFINITY, "caches are filling");
    (30..60).for_each(|n| comparison.observe_amounts(0, Arms::new(&canary, &baseline), S(n)));
    let verdict = comparison.verdict(S(60));
    assert_eq!((verdict.answer, verdict.findings[0].metric), (Answer::Fail, Metric::AmountLow));
    assert!(
        verdict.reason.contains("its `stake` is lower: 0.00 in the mean"),
        "{}",
        verdict.reason
    );
}

#[test]
fn the_amount_that_differs_is_named() {
    let mut comparison = Comparison::new(amounts(&["stake", "payout", "void"]), 1.0, S(0));
    warm(&mut comparison);
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
    assert!(verdict.reason.contains("its `payout` is higher"), "{}", verdict.reason);
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
    assert_eq!(of(&["stake"]), [0.5, 0.1, 0.1, 0.1], "errors, recovery, amounts");
    assert_eq!(of(&["stake", "payout"]), [0.5, 0.1, 0.05, 0.05, 0.05, 0.05]);
}

#[test]
fn clusters_slow_the_evidence_down() {
    let evidence = |phi| {
        let mut comparison = Comparison::new(limits(), phi, S(0));
        comparison.observe_errors(&block(10, 5, 90, 0), S(1));
        comparison.log_evidence()
    };
    assert!(evidence(1.0) > evidence(3.0) + 2.0);
}

#[test]
fn the_cap_of_a_canary_of_one_process_costs_one_block() {
    let errors = EjectErrors { absolute: Some(Share(0.003)), ..EjectErrors::default() };
    let eject = Eject { errors: Some(errors), ..Eject::default() };
    let cost = |capped| {
        let limits = Limits::of(&eject, &Eject::default(), 1e-3);
        let mut comparison = Comparison::new(limits, 1.0, S(0));
        comparison.cap_bursts(capped);
        (0..250).for_each(|n| comparison.observe_errors(&block(2, 0, 38, 0), S(n / 50)));
        let failing = (1..).find(|_| {
            comparison.observe_errors(&block(2, 2, 38, 0), S(6));
            comparison.answer() == Answer::Fail
        });
        2 * failing.expect("it fails in the end")
    };
    assert_eq!((cost(true), cost(false)), (8, 6));
}
