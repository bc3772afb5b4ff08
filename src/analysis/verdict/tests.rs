use std::time::Duration;

use super::{
    super::{
        Arms, Attempts, Tolerance,
        amount::{AmountTest, Amounts, Clip},
        comparison::Comparison,
        counts::Tally,
        engine::Engine,
        limits::Limits,
        wealth::Guarantee,
    },
    *,
};
use crate::config::schema::{Eject, EjectErrors};

/// 150 good seconds, then 5 % of the canary's requests fail.
fn late_fault() -> Verdict {
    let eject = Eject { errors: Some(EjectErrors::default()), ..Eject::default() };
    let mut comparison =
        Comparison::new(Limits::of(&eject, &Eject::default(), 1e-3), 1.0, Duration::ZERO);
    for second in 1..=200 {
        let failures = if second > 150 { 5 } else { u64::from(second % 10 == 5) };
        let block = Arms::new(Tally::new(100, failures), Tally::new(900, 1));
        comparison.observe_errors(&Attempts::of_strangers(block), Duration::from_secs(second));
    }
    comparison.verdict(Duration::from_secs(200))
}

#[test]
fn the_sentence_quotes_what_decided() {
    let verdict = late_fault();
    assert_eq!(
        verdict.reason,
        "5 % of its requests failed (15 of 300, 15 players, 3.0 s); baseline 0.111 % (3 of 2700); \
         allowed 0.132 %. Wrong once in 1,000,000."
    );
    assert_eq!(verdict.to_string(), verdict.reason);
}

/// Once the sentence was `within its limits so far` for a canary whose every request had failed.
#[test]
fn a_canary_that_fails_is_never_called_within_its_limits() {
    let eject = Eject { errors: Some(EjectErrors::default()), ..Eject::default() };
    let limits = Limits::of(&eject, &Eject::default(), 1e-3);
    let mut comparison = Comparison::new(limits, 1.0, Duration::ZERO);
    let mut told = |canary: Tally, second| {
        let block = Arms::new(canary, Tally::new(20, 0));
        comparison.observe_errors(&Attempts::of_strangers(block), Duration::from_secs(second));
        comparison.verdict(Duration::from_secs(second)).to_string()
    };
    for second in 1..=20 {
        assert_eq!(told(Tally::new(10, 0), second), "within its limits so far");
    }
    assert_eq!(told(Tally::new(10, 1), 21), "within its limits so far", "one is chance");
    let text = told(Tally::new(2, 2), 22);
    let expected = "not enough evidence yet: 25 % of its requests failed (3 of 12, 3 players); ";
    assert!(text.starts_with(expected), "{text}");
}

/// Once a near miss of 110 % did not explain why the version stayed.
#[test]
fn evidence_that_suffices_and_is_held_back_says_why() {
    let eject = Eject { errors: Some(EjectErrors::default()), ..Eject::default() };
    let limits = Limits { least_failures: 40, ..Limits::of(&eject, &Eject::default(), 1e-3) };
    let mut comparison = Comparison::new(limits, 1.0, Duration::ZERO);
    for second in 1..=6 {
        let block = Arms::new(Tally::new(2, 2), Tally::new(20, 0));
        comparison.observe_errors(&Attempts::of_strangers(block), Duration::from_secs(second));
    }
    let verdict = comparison.verdict(Duration::from_secs(6));
    assert_eq!(verdict.answer, Answer::Undecided);
    assert_eq!(verdict.held, Some(HeldBack::MinimumFailures { failures: 12, least: 40 }));
    let ends = ". The evidence suffices, and waits for `minimum_failures`: 12 of 40";
    assert!(verdict.reason.ends_with(ends), "{}", verdict.reason);
    assert!(verdict.nearness().ends_with(&format!("{ends}.")), "{}", verdict.nearness());
}

#[test]
fn a_verdict_survives_being_written() {
    let eject = Eject { errors: Some(EjectErrors::default()), ..Eject::default() };
    let empty = Comparison::new(Limits::of(&eject, &Eject::default(), 1e-3), 1.0, Duration::ZERO)
        .verdict(Duration::ZERO);
    assert_eq!(empty.reason, "nothing to compare yet");
    for verdict in [late_fault(), empty] {
        let text = serde_json::to_string(&verdict).expect("JSON");
        let read: Verdict = serde_json::from_str(&text).expect("a verdict");
        assert_eq!(read, verdict, "{text}");
    }
    let json = serde_json::to_value(late_fault()).expect("JSON");
    let counts = &json["findings"][0]["numbers"]["errors"]["counts"];
    assert_eq!(json["answer"], "fail");
    assert_eq!(counts["canary_since_onset"]["failures"], 15);
    assert_eq!(json["findings"][0]["component"]["ratio"], 50.0);
}

#[test]
fn a_derived_amount_is_told_in_money() {
    let mut test = AmountTest::of_derived(Side::Low, 0.05, Guarantee::Alpha(1e-3), None);
    let before = Finding::of_amount("ggr", &test, Duration::ZERO);
    assert_eq!(before.to_string(), "its `ggr` is lower: no requests; baseline no requests");
    let arm = |requests: u32, amount: f64| {
        let mut all = Amounts::of_derived(Clip::new(20.0).expect("a clip"), 6.0);
        (0..requests).for_each(|n| all.record_rounded(amount, f64::from(n) / f64::from(requests)));
        all
    };
    let (canary, baseline) = (arm(10, -2.0), arm(90, 0.5));
    test.observe(Arms::new(&canary, &baseline), Duration::from_secs(7));
    let finding = Finding::of_amount("ggr", &test, Duration::from_secs(2));
    assert_eq!((&*finding.gate(), finding.component), ("amount_low.ggr", None));
    assert_eq!(
        finding.to_string(),
        "its `ggr` is lower: -2.01 in the mean of 10 requests; baseline 0.500 in the mean of 90 \
         requests; 2.51 lower, allowed 0.300. An amount beyond 19.19 or -19.19 counts as that"
    );
    let text = serde_json::to_string(&[before, finding]).expect("JSON");
    let read: Vec<Finding> = serde_json::from_str(&text).expect("findings");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
}

/// Once `allowed a ratio of 1.053`, of the baseline to the canary, was next to `0.500 times`, of
/// the canary to the baseline.
#[test]
fn what_is_allowed_of_an_amount_is_told_the_same_way_around_as_what_was_seen() {
    let arm = |requests: u32, amount: f64| {
        let mut all = Amounts::new(Clip::new(2_000.0).expect("a clip"));
        (0..requests).for_each(|_| all.record(amount));
        all
    };
    let told = |side, paid: f64| {
        let mut test = AmountTest::new(side, 0.05, Guarantee::Alpha(1e-3), None);
        let (canary, baseline) = (arm(10, paid), arm(90, 1_300.0));
        test.observe(Arms::new(&canary, &baseline), Duration::from_secs(7));
        Finding::of_amount("payout", &test, Duration::from_secs(2)).to_string()
    };
    let low = told(Side::Low, 650.0);
    assert_eq!(
        low,
        "its `payout` is lower: 650.00 in the mean of 10 requests; baseline 1,300.00 in the mean \
         of 90 requests; 0.500 times the baseline, allowed 0.950 times. A larger amount than \
         1,862.18 counts as 1,862.18"
    );
    let high = told(Side::High, 1_900.0);
    assert!(high.contains("; 1.432 times the baseline, allowed 1.050 times. "), "{high}");
}

#[test]
fn an_endpoint_is_described_like_a_canary() {
    let settings = super::super::Settings::new(Tolerance::NONE, Guarantee::RunLength(1e7));
    let mut test = Engine::new(settings);
    let block = Arms::new(Tally::new(10, 10), Tally::new(90, 0));
    test.observe(block, Duration::from_secs(61));
    let finding = Finding::of_rate(Metric::Errors, None, &test, Duration::from_secs(60));
    assert_eq!(finding.log_evidence, known(test.log_evidence()));
    assert!(finding.to_string().starts_with("100 % of its requests failed (10 of 10"), "{finding}");
}
