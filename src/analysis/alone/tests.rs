use fastrand::Rng;
use proptest::prelude::*;

use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

fn latencies(fast: u32, slow: u32, slow_us: u64) -> Latencies {
    let mut all = Latencies::default();
    (0..fast).for_each(|_| all.record(10_000));
    (0..slow).for_each(|_| all.record(slow_us));
    all
}

#[test]
fn a_version_beyond_its_limit_fails_and_says_by_what() {
    let bounds = [
        Bound::errors(Source::Slo, 0.003),
        Bound::latency(Source::Slo, Quantile::P95, Duration::from_millis(250)),
    ];
    let mut alone = Alone::new(&bounds, 1e-3, 3, Duration::ZERO, S(100));
    for second in 101..110 {
        alone.observe(Tally::new(1_000, 3), &latencies(960, 37, 400_000), S(second));
        assert_eq!(alone.answer(), Answer::Undecided);
    }
    for second in 110..113 {
        alone.observe(Tally::new(1_000, 60), &latencies(900, 40, 400_000), S(second));
    }
    assert_eq!(alone.answer(), Answer::Fail);
    let verdict = alone.verdict(S(200));
    assert_eq!((verdict.since_s, verdict.alone), (10.0, true));
    assert_eq!(verdict.findings[0].metric, Metric::Errors);
    assert_eq!(
        verdict.reason,
        "6 % of its requests failed (60 of 1000, 1.0 s); allowed 0.3 % by slo. Wrong once in \
         1,000,000. No baseline serves beside it, so an outage that every version would share \
         looks the same."
    );
}

/// Regression: a version that turned bad late was said to fail less than is allowed: all of its good time was counted.
#[test]
fn a_version_that_turns_bad_late_is_told_by_what_it_did_since() {
    for source in [Source::Slo, Source::Before] {
        let mut alone = Alone::new(&[Bound::errors(source, 0.01)], 1e-3, 3, Duration::ZERO, S(7));
        let (mut rng, mut second) = (Rng::with_seed(7), 7);
        let mut pass = |alone: &mut Alone, share: f64| {
            second += 1;
            let failed = (0..200).filter(|_| rng.f64() < share).count() as u64;
            alone.observe(Tally::new(200, failed), &Latencies::default(), S(second));
            failed
        };
        for _ in 0..53 {
            pass(&mut alone, 0.0005);
        }
        let mut since = Vec::new();
        while alone.answer() == Answer::Undecided {
            since.push(pass(&mut alone, 0.05));
        }
        let verdict = alone.verdict(S(99));
        let (seconds, failed) = (since.len() as u64, since.iter().sum::<u64>());
        assert!((2..=6).contains(&seconds), "{since:?}");
        assert_eq!(verdict.findings[0].onset_s, Some(53.0));
        let Numbers::Bound { counts, since_onset, .. } = &verdict.findings[0].numbers else {
            panic!("{verdict:?}")
        };
        assert_eq!((since_onset.failures, since_onset.requests), (failed, 200 * seconds));
        assert!(counts.rate < Some(0.01), "all of its time is within the limit: {counts:?}");
        let text = format!("({failed} of {}, {seconds}.0 s)", 200 * seconds);
        assert!(verdict.reason.contains(&text), "{}", verdict.reason);
        // One of an older release goes on without onsets.
        let mut json = serde_json::to_value(&alone).expect("JSON");
        json["failed"] = serde_json::Value::Null;
        json["tests"][0].as_object_mut().expect("a test").remove("onsets").expect("there are");
        let mut read: Alone = serde_json::from_value(json).expect("one without onsets");
        assert!(read.is_sound());
        let before = read.verdict(S(99));
        assert!(before.findings[0].onset_s.is_none(), "{before:?}");
        read.observe(Tally::new(200, 10), &Latencies::default(), S(99));
        assert_eq!(read.verdict(S(99)).findings[0].onset_s, Some(0.0));
    }
}

#[test]
fn other_demands_lose_no_evidence() {
    let mut alone =
        Alone::new(&[Bound::errors(Source::Slo, 0.003)], 1e-20, 3, Duration::ZERO, S(0));
    let observe = |alone: &mut Alone, failures, second| {
        alone.observe(Tally::new(10, failures), &Latencies::default(), S(second));
    };
    (1..4).for_each(|second| observe(&mut alone, 3, second));
    let evidence = alone.log_evidence();
    assert!(alone.answer() == Answer::Undecided && evidence > 1e3f64.ln());
    alone.demand(1e-3, 20);
    assert_eq!(alone.log_evidence(), evidence);
    observe(&mut alone, 0, 4);
    assert_eq!(alone.answer(), Answer::Undecided, "nine failures of twenty");
    alone.demand(1e-3, 3);
    observe(&mut alone, 0, 5);
    assert_eq!((alone.answer(), alone.verdict(S(9)).since_s), (Answer::Fail, 5.0));
}

#[test]
fn a_slow_version_fails_by_the_limit_of_its_quantile() {
    let before = Bound::latency(Source::Before, Quantile::P99, Duration::from_millis(100));
    let mut alone = Alone::new(&[before], 1e-3, 3, Duration::ZERO, S(0));
    for second in 1..60 {
        alone.observe(Tally::new(1_000, 0), &latencies(991, 9, 200_000), S(second));
    }
    assert_eq!(alone.answer(), Answer::Undecided);
    for second in 60..110 {
        alone.observe(Tally::new(1_000, 0), &latencies(950, 50, 200_000), S(second));
    }
    assert_eq!(alone.answer(), Answer::Fail);
    assert!(alone.verdict(S(110)).reason.contains("of the baseline before"));
}

#[test]
fn latency_is_not_judged_while_a_version_warms_up() {
    let slo = Bound::latency(Source::Slo, Quantile::P95, Duration::from_millis(250));
    let mut alone = Alone::new(&[slo], 1e-3, 3, S(30), S(0));
    let reason = |alone: &Alone, at| alone.verdict(S(at)).reason;
    for second in 1..=30 {
        alone.observe(Tally::new(1_000, 0), &latencies(500, 500, 400_000), S(second));
    }
    assert_eq!(alone.answer(), Answer::Undecided);
    assert_eq!(
        reason(&alone, 18),
        "nothing to compare yet; latency is not judged yet: warming up, 12 s left"
    );
    for second in 31..=50 {
        alone.observe(Tally::new(1_000, 0), &latencies(970, 30, 400_000), S(second));
    }
    assert_eq!(reason(&alone, 50), "within its limits so far");
    (51..100).for_each(|second| {
        alone.observe(Tally::new(1_000, 0), &latencies(500, 500, 400_000), S(second));
    });
    assert_eq!(alone.answer(), Answer::Fail);
}

#[test]
fn latency_of_the_past_is_no_bound_for_a_larger_load() {
    let before = Bound::latency(Source::Before, Quantile::P99, Duration::from_millis(100));
    let before = before.measured_at(500.0);
    let run = |alone: &mut Alone, seconds: std::ops::Range<u64>, per_s: u64| {
        for second in seconds {
            let (fast, slow) = (per_s as u32 * 9 / 10, per_s as u32 / 10);
            alone.observe(Tally::new(per_s, 0), &latencies(fast, slow, 200_000), S(second));
        }
        alone.answer()
    };
    let mut alone = Alone::new(&[before], 1e-3, 3, S(0), S(0));
    assert_eq!(run(&mut alone, 1..300, 1_000), Answer::Undecided);
    let reason = alone.verdict(S(300)).reason;
    assert!(
        reason.ends_with(
            "; latency is not compared with that of the baseline before: 1000.0 requests a second now, 500.0 then"
        ),
        "{reason}"
    );
    assert_eq!(run(&mut alone, 300..400, 540), Answer::Fail, "a comparable load");
    let reason = alone.verdict(S(400)).reason;
    assert!(reason.contains("by the rate of the baseline before"), "{reason}");
    // Limits of the configuration hold at any load.
    let slo = Bound::latency(Source::Slo, Quantile::P99, Duration::from_millis(100));
    assert_eq!(run(&mut Alone::new(&[slo], 1e-3, 3, S(0), S(0)), 1..60, 1_000), Answer::Fail);
}

#[test]
fn a_stumble_of_a_moment_fails_no_version_by_its_latency() {
    let slo = Bound::latency(Source::Slo, Quantile::P99, Duration::from_millis(100));
    let mut alone = Alone::new(&[slo], 1e-3, 3, S(0), S(0));
    for second in 1..600 {
        let slow = if second == 100 { 1_000 } else { 0 };
        alone.observe(Tally::new(1_000, 0), &latencies(1_000 - slow, slow, 400_000), S(second));
    }
    assert_eq!(alone.answer(), Answer::Undecided);
}

#[test]
fn a_version_stands_well_once_enough_requests_did_not_fail() {
    let slo = [
        Bound::errors(Source::Slo, 0.01),
        Bound::errors(Source::Before, 0.02),
        Bound::latency(Source::Before, Quantile::P99, Duration::from_millis(20)).measured_at(1.0),
    ];
    let mut alone = Alone::new(&slo, 1e-3, 3, S(0), S(0));
    let observe = |alone: &mut Alone, requests, failures, second| {
        alone.observe(Tally::new(requests, failures), &Latencies::default(), S(second));
    };
    observe(&mut alone, 12, 0, 5);
    let standing = alone.standing(S(5));
    assert_eq!((standing.answer, standing.requests), (Answer::Undecided, 12));
    let least = standing.errors.expect("a bound").least;
    assert!((350..400).contains(&least), "{least}");
    assert_eq!(
        standing.to_string(),
        format!(
            "too few requests: 12 of the {least} that it takes at least; 0 failed, allowed 1 % by slo; latency is not \
             compared with that of the baseline before: 2.4 requests a second now, 1.0 then"
        )
    );
    observe(&mut alone, 1_000, 10, 10);
    let text = alone.standing(S(10)).to_string();
    assert!(
        text.starts_with("nothing is certain after 1012 requests: 10 failed, allowed 1 % by slo"),
        "{text}"
    );
    observe(&mut alone, 4_000, 4, 20);
    let standing = alone.standing(S(20));
    // Nobody waits for a comparison that the load forbids.
    assert_eq!((standing.answer, standing.waits), (Answer::Undecided, false));
    let text = standing.to_string();
    assert!(
        text.starts_with(
            "its errors are certainly within their limits after 5012 requests: 14 failed, allowed 1 % by slo; latency"
        ),
        "{text}"
    );
    observe(&mut alone, 100, 100, 21);
    let standing = alone.standing(S(21));
    assert_eq!(standing.answer, Answer::Fail);
    assert!(
        standing.to_string().starts_with("100 % of its requests failed (100 of 100, 1.0 s)"),
        "{standing}"
    );
    let nothing = Alone::new(&[], 1e-3, 3, S(0), S(0)).standing(S(9));
    assert!(
        nothing.answer == Answer::Undecided
            && nothing.to_string().starts_with("errors are not judged")
    );
}

/// Regression: a version that was slow in each request stood well since none of them failed, as soon as that was certain.
#[test]
fn a_version_stands_well_only_once_its_latency_is_certain() {
    let slo = [
        Bound::errors(Source::Slo, 0.03),
        Bound::latency(Source::Slo, Quantile::P95, Duration::from_millis(250)),
    ];
    // Of 100 requests a second so many are slow.
    let run = |slow: u32, warm_up: u64, until: u64| {
        let mut alone = Alone::new(&slo, 1e-3, 3, S(warm_up), S(0));
        for second in 1..=until {
            alone.observe(Tally::new(100, 0), &latencies(100 - slow, slow, 400_000), S(second));
        }
        alone.standing(S(until))
    };
    let early = run(100, 3, 20);
    assert_eq!((early.answer, early.waits), (Answer::Undecided, true));
    assert!(early.to_string().contains("; nothing is certain about latency: "), "{early}");
    let cold = run(100, 30, 10);
    assert_eq!((cold.answer, cold.waits), (Answer::Undecided, true));
    assert!(
        cold.to_string().ends_with("; latency is not judged yet: warming up, 20 s left"),
        "{cold}"
    );
    for warm_up in [3, 30] {
        let late = run(100, warm_up, warm_up + 40);
        assert_eq!((late.answer, late.waits), (Answer::Fail, false), "{late}");
        let good = run(1, warm_up, warm_up + 20);
        assert_eq!((good.answer, good.waits), (Answer::Healthy, false), "{good}");
    }
    // At its limit it may never be certain, and is waited for no longer than that.
    let near = |until| run(5, 3, until);
    assert_eq!((near(299).answer, near(299).waits), (Answer::Undecided, true));
    assert_eq!((near(300).answer, near(300).waits), (Answer::Undecided, false));
    let text = near(300).to_string();
    assert!(text.ends_with("requests took 250 ms or longer, allowed 5 % by slo"), "{text}");
}

/// Exactly at the bound, where it may fail with a probability of at most alpha.
#[test]
fn a_version_within_its_limit_fails_no_more_often_than_alpha_allows() {
    let mut failed = 0;
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let mut alone =
            Alone::new(&[Bound::errors(Source::Slo, 0.02)], 0.05, 1, Duration::ZERO, S(0));
        for second in 0..1_000 {
            let bad = (0..50).filter(|_| rng.f64() < 0.02).count() as u64;
            alone.observe(Tally::new(50, bad), &Latencies::default(), S(second));
        }
        failed += u32::from(alone.answer() == Answer::Fail);
    }
    // At most 20 are expected, plus three and a half deviations.
    assert!(failed <= 35, "{failed} of 400");
}

proptest! {
    /// The expectation of every e-value, summed over all outcomes of a block.
    #[test]
    fn a_bet_is_fair_at_the_bound(n in 1_u64..40, share in 1e-4_f64..0.5, part in 0.0_f64..=1.0) {
        let p = share * part;
        for factor in FACTORS {
            let q = (factor * share).min(MOST);
            prop_assume!(q > share);
            let (mut expectation, mut chance) = (0.0, (1.0 - p).powi(n as i32));
            for k in 0..=n {
                let e = (q / share).powi(k as i32) * ((1.0 - q) / (1.0 - share)).powi((n - k) as i32);
                expectation += chance * e;
                chance *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
            }
            prop_assert!(expectation <= 1.0 + 1e-9, "{} at {}", expectation, factor);
        }
    }

    #[test]
    fn numbers_stay_numbers(blocks in prop::collection::vec((0_u64..1_000_000_000, 0.0_f64..=1.0), 1..50)) {
        let bounds = [Bound::errors(Source::Slo, 0.0), Bound::errors(Source::Before, 1.0)];
        let mut alone = Alone::new(&bounds, 1e-3, 3, Duration::ZERO, S(0));
        for (n, share) in blocks {
            let block = Tally::new(n, (n as f64 * share) as u64);
            alone.observe(block, &Latencies::default(), S(1));
            prop_assert!(!alone.log_evidence().is_nan());
        }
    }
}
