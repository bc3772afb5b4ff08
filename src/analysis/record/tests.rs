use super::*;
use crate::{
    analysis::{AmountLimit, Clip, Reference, Tolerance},
    config::schema::Eject,
};

fn limits() -> Limits {
    let base = Limits::of(&Eject::default(), &Eject::default(), 1e-3);
    Limits {
        errors: Tolerance::new(1.1, 1e-4),
        routes: vec!["payout".to_owned()],
        p95: Some(0.2),
        p99: Some(0.2),
        amounts: [("payout", false), ("ggr", true)]
            .map(|(name, derived)| AmountLimit { name: name.to_owned(), tolerance: 0.05, derived })
            .into(),
        warm_up: Duration::from_secs(2),
        ..base
    }
}

/// `seconds` of good service with all metrics, then a canary that fails at `share`.
fn played(seconds: u64, share: f64) -> (Recorder<Comparison>, Duration) {
    let mut rng = fastrand::Rng::with_seed(9);
    let began = Duration::from_nanos(1_234_567_891);
    let mut recorder = Recorder::new(Comparison::new(limits(), 1.0, began));
    let mut reference = Reference::default();
    let clip = Clip::new(50.0).expect("a clip");
    let mut at = began;
    for second in 0..seconds {
        for _ in 0..20 {
            at += Duration::from_nanos(50_000_001);
            let mut arm = |requests, rate: f64| {
                let failures = (0..requests).filter(|_| rng.f64() < rate).count();
                Tally::new(requests, failures as u64)
            };
            let rate = if second > seconds / 2 { share } else { 0.01 };
            let block = Arms::new(arm(5, rate), arm(95, 0.01));
            let block = Box::new(Attempts::of_strangers(block));
            recorder.add(Entry::Errors { at, block, route: None });
        }
        let mut latencies = |requests: u32| {
            let mut all = Latencies::default();
            (0..requests).for_each(|_| all.record(1_000 + (rng.f64() * 1e4) as u64));
            all
        };
        let (canary, baseline) = (latencies(100), latencies(1_900));
        let block = Arms::new((&canary).into(), (&baseline).into());
        for (span, quantile) in [(Span::Head, Quantile::P95), (Span::Whole, Quantile::P99)] {
            let (block, slow) = (block.clone(), quantile.threshold(&reference));
            recorder.add(Entry::Latency { at, span, quantile, block, slow });
        }
        let refused = Arms::new(Tally::new(9, 1), Tally::new(90, 2));
        recorder.add(Entry::Refusals { at, block: refused });
        let payout = Arms::new(Tally::new(9, 0), Tally::new(90, 2));
        let payout = Box::new(Attempts::of_strangers(payout));
        recorder.add(Entry::Errors { at, block: payout, route: Some(0) });
        reference.absorb(&baseline, Duration::from_secs(1));
        let mut amounts = |requests: u32| {
            let mut all = Amounts::new(clip);
            (0..requests).for_each(|_| all.record(rng.f64() * 60.0));
            all
        };
        let block = Box::new(Arms::new(amounts(100), amounts(1_900)));
        recorder.add(Entry::Amounts { at, number: 0, block });
        let mut derived = |requests: u32| {
            let mut all = Amounts::of_derived(clip, 20.0);
            (0..requests).for_each(|_| all.record_rounded(rng.f64() * 120.0 - 60.0, rng.f64()));
            all
        };
        let block = Box::new(Arms::new(derived(100), derived(1_900)));
        recorder.add(Entry::Amounts { at, number: 1, block });
        match second % 7 {
            3 => recorder.add(Entry::WeightStep { at, warms: true }),
            5 => recorder.add(Entry::Dispersion(1.0 + rng.f64())),
            _ => {}
        }
    }
    (recorder, at)
}

fn title(verdict: Verdict, at: Duration) -> Title {
    let (service, version) = ("game-api".to_owned(), "v42".to_owned());
    Title { service, version, baseline: "v41".to_owned(), route: None, verdict, at }
}

/// The record after writing and reading.
fn again(recorder: &Recorder<Comparison>, at: Duration) -> (Title, Record) {
    let text = recorder.record().write(title(recorder.judge().verdict(at), at));
    Record::read(&text).expect("a record")
}

#[test]
fn a_record_leads_to_the_same_verdict_to_the_last_digit() {
    for share in [0.01, 0.3] {
        let (recorder, at) = played(40, share);
        let verdict = recorder.judge().verdict(at);
        assert_eq!(verdict.answer == Answer::Fail, share > 0.1);
        assert_eq!(verdict.findings.len(), 11);
        let (title, record) = again(&recorder, at);
        assert!(record.is_whole() && !record.is_empty());
        assert_eq!(title.verdict, verdict);
        assert_eq!(record.judge(title.at), verdict);
    }
}

#[test]
fn a_canary_that_fails_by_a_derived_amount_fails_by_its_record_too() {
    let limits = Limits { warm_up: Duration::ZERO, ..limits() };
    let mut recorder = Recorder::new(Comparison::new(limits, 1.0, Duration::ZERO));
    let clip = Clip::new(50.0).expect("a clip");
    let arm = |requests: u64, amount: f64| {
        let mut all = Amounts::of_derived(clip, 10.0);
        (0..requests).for_each(|_| all.record_rounded(amount, 0.3));
        all
    };
    let seconds = (1..=150).map(Duration::from_secs);
    for at in seconds {
        let block = Box::new(Arms::new(arm(100, -7.5), arm(900, 3.1)));
        recorder.add(Entry::Amounts { at, number: 1, block });
    }
    let at = Duration::from_secs(150);
    let verdict = recorder.judge().verdict(at);
    assert_eq!((verdict.answer, &*verdict.findings[0].gate()), (Answer::Fail, "amount_low.ggr"));
    assert!(verdict.reason.contains("its `ggr` is lower: -7"), "{}", verdict.reason);
    assert!(verdict.reason.contains(", allowed 0.500. "), "{}", verdict.reason);
    let (title, record) = again(&recorder, at);
    assert_eq!((&title.verdict, record.judge(at)), (&verdict, verdict.clone()));
    let mut wider = record.limits();
    wider.amounts[1].tolerance = 0.99;
    let wider = record.judge_by(wider, at);
    assert_eq!((wider.answer, &*wider.reason), (Answer::Undecided, "within its limits so far"));
    let findings: Vec<_> = wider.findings.iter().map(ToString::to_string).collect();
    assert!(findings.iter().any(|f| f.contains("allowed 9.90")), "{findings:?}");
}

#[test]
fn a_record_that_lost_its_beginning_leads_to_the_same_verdict() {
    let (recorder, at) = played(600, 0.01);
    let (title, record) = again(&recorder, at);
    assert!(!record.is_whole());
    let bytes: usize = record.entries.iter().map(Entry::bytes).sum();
    assert!((HALF_BYTES..3 * HALF_BYTES).contains(&bytes), "{bytes}");
    assert_eq!(record.judge(at), title.verdict);
}

#[test]
fn other_limits_lead_to_another_verdict() {
    let (recorder, at) = played(40, 0.08);
    let (title, record) = again(&recorder, at);
    assert_eq!(title.verdict.answer, Answer::Fail);
    let wider = Limits { errors: Tolerance::new(12.0, 0.0), ..record.limits() };
    let verdict = record.judge_by(wider, at);
    assert_eq!(verdict.answer, Answer::Undecided, "{}", verdict.reason);
    let same = record.judge_by(record.limits(), at);
    assert_eq!(same, title.verdict, "whole, so it is all there");
}

#[test]
fn what_is_no_record_is_refused_with_its_place() {
    let refused = |text: &str| Record::read(text).expect_err(text).to_string();
    assert!(refused("\n\n").starts_with("it is empty"));
    let other =
        "it is no record of a comparison, as `tidegate record` writes it: line 1, column 1: ";
    assert_eq!(refused("x"), format!("{other}expected value"));
    assert!(refused("{\"tidegate_record\": 9}").contains("form 9; this release reads form 3"));
    assert!(refused("{\"tidegate_record\": 3}").contains("missing field"));
    let (recorder, at) = played(2, 0.01);
    let text = recorder.record().write(title(recorder.judge().verdict(at), at));
    let older = text.replace(&format!("\"rules\":{RULES}"), "\"rules\":1");
    let expected = format!("it was made by rules 1; this release judges by rules {RULES}");
    assert_eq!(refused(&older), expected);
    let (recorder, at) = played(2, 0.01);
    let text = recorder.record().write(title(recorder.judge().verdict(at), at));
    let (first, _) = text.split_once('\n').expect("lines");
    let bad = format!("{first}\n\n{{\"errors\": 1}}\n");
    assert!(refused(&bad).starts_with("line 3, column 12: "), "{}", refused(&bad));
    assert!(
        refused(&format!("{first}\n{{\"guesses\": 1}}\n")).contains("unknown variant `guesses`")
    );
}

#[test]
fn a_damaged_record_is_refused_or_judged_and_never_ends_the_program() {
    let (recorder, at) = played(3, 0.3);
    let text = recorder.record().write(title(recorder.judge().verdict(at), at));
    let mut rng = fastrand::Rng::with_seed(17);
    let mut read = 0;
    for _ in 0..3_000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..bytes.len());
            match rng.u8(..4) {
                0 => bytes[at] = rng.u8(b'0'..=b'9'),
                1 => drop(bytes.drain(at..(at + rng.usize(1..40)).min(bytes.len()))),
                2 => bytes.insert(at, *rng.choice(b"0123456789,[]{}\"-e.\n").expect("some")),
                _ => bytes[at] = rng.u8(..),
            }
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if let Ok((title, record)) = Record::read(&text) {
            read += 1;
            record.judge(title.at);
            record.judge_by(limits(), title.at);
        }
    }
    assert!(read > 100, "{read} were read");
}

#[test]
fn a_version_alone_is_judged_again_too() {
    use crate::analysis::{Bound, Source};
    let bounds = [
        Bound::errors(Source::Slo, 0.003),
        Bound::latency(Source::Before, Quantile::P99, Duration::from_millis(20)).measured_at(190.0),
    ];
    let mut recorder =
        Recorder::new(Alone::new(&bounds, 1e-3, 3, Duration::from_secs(5), Duration::from_secs(7)));
    let mut at = Duration::ZERO;
    for second in 8..40 {
        at = Duration::from_secs(second);
        let mut latencies = Latencies::default();
        (0..200).for_each(|nth| latencies.record(if nth < 3 { 40_000 } else { 9_000 }));
        let errors = Tally::new(200, u64::from(second % 3 == 0));
        recorder.add(Entry::Alone { at, errors, latencies: (&latencies).into() });
    }
    let verdict = recorder.judge().verdict(at);
    let text = recorder.record().write(title(verdict.clone(), at));
    let (title, record) = Record::read(&text).expect("a record");
    assert!(record.is_alone() && record.is_whole());
    assert_eq!((record.judge(at), title.verdict), (verdict.clone(), verdict));
    let stricter = Limits { alpha: 0.4, least_failures: 1, ..record.limits() };
    assert_eq!(record.judge_by(stricter, at).log_threshold, 2.5_f64.ln());
    assert_eq!(record.judge_by(record.limits(), at), record.judge(at));
}

#[test]
fn the_manual_names_the_rules_of_this_release() {
    let page = include_str!("../../../docs/ejection.md");
    let rules = format!("`\"rules\": {RULES}`");
    assert!(page.contains(&rules), "docs/ejection.md does not say {rules}");
}
