use super::*;
use crate::incident::{
    curve::RateCurve,
    example::{failing, latency_verdict, opened},
    failure::FailedSecond,
};

/// As many answers of 5xx in each second.
fn attempts(failures: u32) -> Vec<FailedSecond> {
    let kinds = FailureKinds { status: u64::from(failures), ..FailureKinds::default() };
    (-400..60).map(|s| FailedSecond { from_s: f64::from(s), kinds }).collect()
}

/// What is asked of a manual ejection.
fn asked(versions: &[VersionCurve]) -> Asked<'_> {
    let (verdict, lasted_s, ejected_ago_s, earlier, counters) = Default::default();
    let (kind, known_s) = (Kind::Ejected, 300.0);
    Asked { kind, verdict, versions, lasted_s, known_s, ejected_ago_s, earlier, counters }
}

fn curve(role: Role, requests: u32, failures: u32) -> VersionCurve {
    let rates =
        RateCurve { from_s: -400.0, requests: vec![requests; 460], failures: vec![failures; 460] };
    let (latency, failed_attempts) = (Vec::new(), attempts(failures));
    VersionCurve { name: "v".to_owned(), role, rates, latency, failed_attempts }
}

#[test]
fn failures_beyond_those_of_the_baseline_count() {
    let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
    let verdict = failing();
    let harm = harm(Asked { verdict: Some(&verdict), ..asked(&versions) });
    assert_eq!(harm.failed_attempts.status, 3, "of the second of the onset");
    assert_eq!(harm.source, HarmSource::Verdict);
    assert_eq!((harm.requests, harm.failures, harm.players), (40, 14, Some(12)));
    // 14 − 40 × 4/800.
    assert_eq!((harm.estimate, harm.expected_rate), (Some(13.8), Some(0.005)));
    assert_eq!(harm.counted_s, 0.9);
    assert_eq!((harm.failures_before, harm.failures_after), (3 * 400, 3 * 60));
    assert_eq!(
        harm.how,
        "14 of 40 requests of the version failed in the 0.9 s from the onset of the difference to the \
         verdict. By the baseline's rate in the same time, 0.5 % (4 of 800), 0.2 of them would have been so \
         anyway; what is beyond that counts as harmed: 14 − 40 × 0.5 % = 13.8."
    );
}

#[test]
fn slow_requests_are_harmed_too() {
    let verdict = latency_verdict();
    let harm = harm(Asked { verdict: Some(&verdict), ..asked(&[]) });
    assert_eq!((harm.requests, harm.failures, harm.estimate), (100, 30, Some(29.0)));
    assert_eq!((harm.slow_ms, harm.warm_up_s), (Some(24.0), Some(30.0)));
    let says = "30 of 100 requests of the version were slow (24 ms or longer) in the 41 s from the onset of the \
                difference to the verdict, counted after its warm-up of 30 s at least, and not before it. By ";
    assert!(harm.how.starts_with(says), "{}", harm.how);
}

#[test]
fn without_a_verdict_the_counters_of_five_minutes_are_taken() {
    let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
    let harm = super::harm(asked(&versions));
    assert_eq!(harm.failed_attempts.in_words(), "900 answered 5xx");
    assert_eq!((harm.source, harm.counted_s), (HarmSource::Counters, 300.0));
    // 900 − 3,000 × 1 %.
    assert_eq!((harm.requests, harm.failures, harm.estimate), (3_000, 900, Some(870.0)));
    let better = [curve(Role::Subject, 10, 0), curve(Role::Baseline, 100, 1)];
    assert_eq!(super::harm(asked(&better)).estimate, Some(0.0));
    let alone = super::harm(asked(&[curve(Role::Subject, 10, 3)]));
    assert_eq!((alone.estimate, alone.failures), (None, 900));
    assert!(alone.how.contains("There is no estimate"), "{}", alone.how);
    // What failed before the rollout is not its harm.
    let short = super::harm(Asked { lasted_s: Some(20.0), ..asked(&versions) });
    assert_eq!((short.counted_s, short.requests, short.failures), (20.0, 200, 60));
    let none = super::harm(Asked { lasted_s: Some(0.0), ..asked(&versions) });
    assert_eq!(none.failures, 0);
}

/// Regression: `0 of 0 requests … in the -0.0 s before the incident`, after a kill in a bake.
#[test]
fn what_another_process_counted_is_not_known() {
    let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
    let of = |known_s, versions| {
        let (kind, lasted_s) = (Kind::RolloutRolledBack, Some(200.0));
        harm(Asked { kind, lasted_s, known_s, ..asked(versions) })
    };
    let part = of(20.0, &versions);
    assert_eq!((part.counted_s, part.requests, part.failures), (20.0, 200, 60));
    let told = " What was before is not known: the process was started anew meanwhile.";
    assert!(part.how.ends_with(told), "{}", part.how);
    assert!(!of(200.0, &versions).how.contains("anew"));
    let none = of(20.0, &[curve(Role::Subject, 0, 0), curve(Role::Baseline, 100, 1)]);
    assert_eq!((none.estimate, none.requests), (None, 0));
    assert_eq!(none.how, "Not known: the process was started anew meanwhile.");
}

/// Regression: `in the 5 min before`, by a process that had served for 40 s.
#[test]
fn a_young_process_says_how_long_it_has_counted() {
    let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
    let harm = harm(Asked { known_s: 40.0, ..asked(&versions) });
    assert_eq!((harm.counted_s, harm.requests), (40.0, 400));
    let says = "120 of 400 requests of the version were answered with a status of 500 or above in the 40 s since \
                the process was started. ";
    assert!(harm.how.starts_with(says), "{}", harm.how);
}

#[test]
fn no_request_is_harmed_in_two_incidents() {
    let versions = [curve(Role::Subject, 10, 3), curve(Role::Baseline, 100, 1)];
    let (verdict, ejected) = (failing(), opened().id);
    let rollback = |versions: &[VersionCurve], earlier, ejected_ago_s| {
        let (kind, verdict) = (Kind::RolloutRolledBack, Some(&verdict));
        let lasted_s = Some(200.0);
        harm(Asked { kind, verdict, lasted_s, earlier, ejected_ago_s, ..asked(versions) })
    };
    // The verdict counts where it is reported first.
    let first = rollback(&[], None, None);
    assert_eq!((first.source, first.requests, &first.counted_in), (HarmSource::Verdict, 40, &None));
    let second = rollback(&versions, Some((&ejected, 2.0)), Some(2.0));
    assert_eq!((second.source, second.counted_s), (HarmSource::Counters, 2.0));
    assert_eq!((second.requests, second.failures, second.estimate), (20, 6, Some(5.8)));
    assert_eq!(second.counted_in.as_ref(), Some(&ejected));
    let which = format!("in the 2.0 s since the incident {ejected}, which counts those before");
    assert!(second.how.contains(&which), "{}", second.how);
    let none = rollback(&versions, Some((&ejected, 0.0)), Some(0.0));
    assert_eq!((none.estimate, none.requests), (Some(0.0), 0));
    assert!(none.how.starts_with("No request of the version ended after"), "{}", none.how);
    // After a restart the incident before is not known, and still counts.
    let restarted = rollback(&versions, None, Some(3.0));
    assert_eq!((restarted.source, restarted.failures), (HarmSource::Counters, 9));
    // The verdict advised, and failures went on until somebody acted.
    let advised = rollback(&versions, None, None);
    assert_eq!((advised.source, advised.failures), (HarmSource::Counters, 600));
    // What happened long before has another harm.
    let later = rollback(&[], Some((&ejected, 250.0)), None);
    assert_eq!((later.source, later.counted_in), (HarmSource::Verdict, None));

    // An ejection has its verdict in any case, and says what else counts.
    let whole =
        harm(Asked { verdict: Some(&verdict), earlier: Some((&ejected, 0.5)), ..asked(&versions) });
    assert_eq!((whole.requests, whole.shared_with.as_ref()), (40, Some(&ejected)));
    assert!(whole.how.ends_with("counts a part of these requests, too."), "{}", whole.how);
}

#[test]
fn without_a_baseline_the_time_is_that_of_the_judging() {
    let mut verdict = Verdict { alone: true, ..failing() };
    verdict.findings[0].onset_s = None;
    let harm = harm(Asked { verdict: Some(&verdict), ..asked(&[]) });
    assert!(harm.how.contains(" s that it was judged. "), "{}", harm.how);
}

/// Regression: of a version that turned bad late no harm was told, since all of its good time was counted.
#[test]
fn without_a_baseline_the_harm_is_what_was_beyond_the_limit_since_the_onset() {
    let mut verdict = Verdict { alone: true, since_s: 56.1, compared_s: 56.1, ..failing() };
    let rate = |failures, requests| Rate { requests, failures, rate: None };
    verdict.findings[0].onset_s = Some(53.1);
    verdict.findings[0].numbers = Numbers::Bound {
        counts: rate(33, 11_224),
        since_onset: rate(31, 614),
        source: crate::analysis::Source::Slo,
        tolerated_share: 0.01,
        slow_ms: None,
    };
    let harm = harm(Asked { verdict: Some(&verdict), ..asked(&[]) });
    assert_eq!((harm.requests, harm.failures, harm.counted_s), (614, 31, 3.0));
    assert_eq!((harm.estimate, harm.expected_rate), (Some(24.86), Some(0.01)));
    let says = "31 of 614 requests of the version failed in the 3.0 s from the onset, most likely, to the verdict. By ";
    assert!(harm.how.starts_with(says), "{}", harm.how);
}
