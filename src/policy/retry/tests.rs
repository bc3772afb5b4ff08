//! Every combination of what a decision depends on.

use std::cell::Cell;

use super::*;

const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "DELETE", "POST", "PURGE"];

const OUTCOMES: [Outcome; 5] =
    [Outcome::Unconnected, Outcome::Reset, Outcome::Timeout, Outcome::Status, Outcome::Ours];

const LEFT: Duration = Duration::from_secs(1);

fn all_rules() -> Vec<Rules> {
    let mut all = Vec::new();
    for rescue in [Rescue::Off, Rescue::Reads, Rescue::SharedStore] {
        for idempotency_key in [KeyTrust::Ignored, KeyTrust::Honoured] {
            for on in [
                vec![],
                vec![RetryOn::Connect],
                vec![RetryOn::Connect, RetryOn::Reset, RetryOn::Timeout, RetryOn::Status],
            ] {
                let retry = schema::Retry { rescue, idempotency_key, on, ..Default::default() };
                all.push(Rules::new(&retry));
            }
        }
    }
    all
}

/// Calls `check` with all rules and all failed attempts.
fn for_all(check: impl Fn(&Rules, &Failed<'_>)) {
    for rules in all_rules() {
        for method in METHODS {
            for outcome in OUTCOMES {
                for bits in 0..1u16 << 11 {
                    let is = |bit: u16| bits & 1 << bit != 0;
                    let request = Request {
                        class: if is(0) { Class::Write } else { Class::Read },
                        method,
                        keyed: is(1),
                        once: is(9),
                        whole: is(2),
                        fenced: is(3),
                        bound: is(4),
                    };
                    for retry_after in [
                        RetryAfter::Unsaid,
                        RetryAfter::In(LEFT / 2),
                        RetryAfter::In(LEFT),
                        RetryAfter::Unread,
                    ] {
                        let failed = Failed {
                            request,
                            outcome,
                            unprocessed: is(5),
                            begun: is(6),
                            attempts: if is(7) { 2 } else { 1 },
                            has_rescuer: is(8),
                            ousted: is(10),
                            retry_after,
                            left: LEFT,
                            random: 0.5,
                        };
                        check(&rules, &failed);
                    }
                }
            }
        }
    }
}

fn again(rules: &Rules, failed: &Failed<'_>) -> Option<(Place, Duration, RetryReason)> {
    match decide(rules, failed, || true) {
        Next::Again { place, after, reason } => Some((place, after, reason)),
        Next::GiveUp(_) => None,
    }
}

#[test]
fn a_bet_of_which_a_byte_was_sent_is_never_sent_again_unless_its_version_honours_its_key() {
    for_all(|rules, failed| {
        let request = failed.request;
        let writes = request.class == Class::Write && !matches!(request.method, "PUT" | "DELETE");
        let keyed = request.keyed && rules.keys_honoured;
        if (writes || request.once) && !keyed && !failed.unprocessed {
            assert_eq!(again(rules, failed), None, "{rules:?} {failed:?}");
        }
    });
}

#[test]
fn nothing_is_repeated_that_is_not_whole_or_has_begun_or_was_repeated_or_is_not_listed() {
    for_all(|rules, failed| {
        let request = failed.request;
        let is_listed = rules.reason(failed.outcome).is_some();
        if !request.whole || failed.begun || failed.attempts == 2 || !is_listed {
            assert_eq!(again(rules, failed), None, "{rules:?} {failed:?}");
        }
    });
}

#[test]
fn a_write_leaves_its_version_only_if_nothing_was_sent_or_the_store_is_shared_and_never_if_fenced()
{
    for_all(|rules, failed| {
        let Some((place, after, _)) = again(rules, failed) else { return };
        if place == Place::SameVersion {
            return;
        }
        let request = failed.request;
        assert!(rules.rescue != Rescue::Off && failed.has_rescuer && !request.bound);
        assert_eq!(after, Duration::ZERO);
        if request.class == Class::Write {
            assert!(!request.fenced, "{failed:?}");
            let shares = rules.rescue == Rescue::SharedStore && request.keyed;
            assert!(failed.unprocessed || shares, "{failed:?}");
        }
    });
}

#[test]
fn a_version_that_was_ejected_gets_nothing_again() {
    for_all(|rules, failed| {
        if let (true, Some((place, ..))) = (failed.ousted, again(rules, failed)) {
            assert_eq!(place, Place::Baseline, "{rules:?} {failed:?}");
        }
    });
}

#[test]
fn what_may_be_repeated_is_and_a_read_of_a_canary_is_rescued() {
    for_all(|rules, failed| {
        let Failed { request, has_rescuer, .. } = *failed;
        let (reason, open) = (rules.reason(failed.outcome), !failed.begun && failed.attempts == 1);
        let harmless = failed.unprocessed || rules.is_repeatable(request);
        if !(open && harmless && request.whole && reason.is_some()) {
            return;
        }
        let reads = request.class == Class::Read && !request.bound;
        let rescued = has_rescuer && reads && rules.rescue != Rescue::Off;
        match (again(rules, failed), failed.retry_after) {
            (Some((place, after, why)), asked) => {
                assert_eq!(Some(why), reason);
                assert!(!rescued || place == Place::Baseline, "{failed:?}");
                assert!(after < failed.left);
                if let (Place::SameVersion, RetryAfter::In(time)) = (place, asked) {
                    assert!(after >= time, "{failed:?}");
                }
            }
            (None, _) if failed.ousted => assert!(!rescued, "{failed:?}"),
            (None, RetryAfter::Unsaid) => panic!("{rules:?} {failed:?}"),
            (None, RetryAfter::In(time)) => assert!(time >= failed.left && !rescued, "{failed:?}"),
            (None, RetryAfter::Unread) => assert!(!rescued, "{failed:?}"),
        }
    });
}

#[test]
fn the_budget_is_asked_last_and_only_once() {
    for_all(|rules, failed| {
        let asked = Cell::new(0);
        let refused = decide(rules, failed, || {
            asked.set(asked.get() + 1);
            false
        });
        let expected = usize::from(again(rules, failed).is_some());
        assert_eq!(asked.get(), expected, "{failed:?}");
        assert_eq!(refused == Next::GiveUp(Withheld::Budget), expected == 1, "{failed:?}");
    });
}

fn read(outcome: Outcome) -> Failed<'static> {
    let (class, method) = (Class::Read, "GET");
    Failed {
        request: Request {
            class,
            method,
            keyed: false,
            once: false,
            whole: true,
            fenced: false,
            bound: false,
        },
        outcome,
        unprocessed: false,
        begun: false,
        attempts: 1,
        has_rescuer: false,
        ousted: false,
        retry_after: RetryAfter::Unsaid,
        left: LEFT,
        random: 0.5,
    }
}

#[test]
fn each_reason_against_a_retry_is_told() {
    let rules = Rules::new(&schema::Retry::default());
    let usual = read(Outcome::Reset);
    let told = |failed: Failed<'_>| match decide(&rules, &failed, || true) {
        Next::GiveUp(reason) => Some(reason),
        Next::Again { .. } => None,
    };
    let request = usual.request;
    let post = Request { class: Class::Write, method: "POST", ..request };
    assert_eq!(told(usual), None);
    for (failed, reason) in [
        (Failed { outcome: Outcome::Timeout, ..usual }, Withheld::NotListed),
        (Failed { outcome: Outcome::Ours, ..usual }, Withheld::NotListed),
        (Failed { request: post, ..usual }, Withheld::NotIdempotent),
        (Failed { request: Request { whole: false, ..request }, ..usual }, Withheld::Body),
        (Failed { begun: true, ..usual }, Withheld::Begun),
        (Failed { attempts: 2, ..usual }, Withheld::Attempts),
        (Failed { ousted: true, ..usual }, Withheld::Ejected),
        (Failed { retry_after: RetryAfter::In(LEFT), ..usual }, Withheld::RetryAfter),
        (Failed { left: Duration::from_millis(12), ..usual }, Withheld::Deadline),
    ] {
        assert_eq!(told(failed), Some(reason), "{failed:?}");
    }
    let labels: std::collections::BTreeSet<_> = Withheld::ALL.iter().map(|w| w.label()).collect();
    assert_eq!(labels.len(), Withheld::ALL.len());
    assert!(Withheld::ALL.iter().enumerate().all(|(n, reason)| *reason as usize == n));
    assert!(RetryReason::ALL.iter().enumerate().all(|(n, reason)| *reason as usize == n));
}

#[test]
fn pauses_double_up_to_their_bound_and_are_random_from_zero() {
    let retry = schema::Retry { attempts: 5, ..Default::default() };
    let rules = Rules::new(&retry);
    let pause = |attempts, random| rules.pause(attempts, random).as_millis();
    assert_eq!([1, 2, 3, 4, 5].map(|n| pause(n, 1.0)), [25, 50, 100, 200, 250]);
    assert_eq!((pause(3, 0.0), pause(3, 0.5)), (0, 50));
    assert_eq!(pause(u32::MAX, 1.0), 250);
}
