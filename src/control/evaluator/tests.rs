//! The polling intervals, and what is known before a canary begins.

use super::{
    stage::{BASELINE, CANARY, Outcome, Stage},
    *,
};
use crate::{
    analysis::{Advised, Counter, OutageChange},
    config::schema::Mode,
    registry::Player,
};

#[test]
fn looks_are_rare_without_a_canary_and_sooner_while_it_does_badly() {
    let ms = Duration::from_millis;
    let mut stage = Stage::new("{ errors: {} }");
    assert_eq!(stage.evaluator.next_look(), Some(IDLE_LOOK));
    stage.set_share(0.05);
    assert_eq!(stage.serve(5_000), []);
    assert_eq!(stage.evaluator.next_look(), Some(ms(10)));
    (0..20).for_each(|_| stage.count(BASELINE, Outcome::Served(1_000)));
    stage.count(CANARY, Outcome::Failed);
    assert_eq!(stage.look_after(ms(1)), []);
    assert_eq!(stage.evaluator.next_look(), Some(ms(2)));
    (0..2).for_each(|_| assert_eq!(stage.serve(5_000), []));
    assert_eq!(stage.evaluator.next_look(), Some(ms(10)), "it is judged for good");
    stage.set_share(0.0);
    assert_eq!(stage.look_after(IDLE_LOOK), []);
    assert_eq!(stage.evaluator.next_look(), Some(IDLE_LOOK));
    assert_eq!(Evaluator::default().next_look(), None);
}

/// A second of `requests` to the baseline and fifty slow ones to the canary. Returns the versions found.
fn compare_slow(stage: &mut Stage, requests: u32) -> Vec<Box<str>> {
    (0..50).for_each(|_| stage.count(CANARY, Outcome::Served(30_000)));
    let found = stage.serve(requests).into_iter();
    let worse = found.filter_map(|found| match found {
        Found::Worse(suspect) => Some(suspect.version),
        _ => None,
    });
    worse.collect()
}

#[test]
fn the_baselines_latency_is_known_before_a_rollout_and_after_it() {
    let mut stage = Stage::new("{ latency: { p99: 20% }, warm_up: 0s }");
    (0..3).for_each(|_| assert_eq!(stage.serve(1_000), []));
    for _rollout in 0..2 {
        stage.set_share(0.05);
        assert_eq!(stage.look_after(Duration::from_millis(10)), []);
        // The canary began during the first block, and no block decides alone.
        let looks = (1..20).find(|_| compare_slow(&mut stage, 100) == ["v42".into()]);
        assert!(looks.is_some_and(|looks| looks <= 6), "after {looks:?}");
        stage.set_share(0.0);
        assert_eq!(words(&stage.serve(100)), [""; 0], "the ejection said it");
    }
}

#[test]
fn a_player_who_fails_is_one_failure_of_his_endpoint_however_often_he_asks() {
    for (eject, keys_of_a_network) in [("{ errors: {} }", 9), ("{ errors: {}, networks: true }", 1)]
    {
        let mut stage = Stage::new(eject);
        stage.set_share(0.2);
        let judged = |stage: &Stage| {
            stage.snapshot.services[0].versions[CANARY].known[0].state.judged.read()
        };
        for _ in 0..50 {
            stage.ask(CANARY, Player(7), Player(1), 0, Outcome::Failed);
            stage.ask(CANARY, Player(8), Player(2), 0, Outcome::Served(1_000));
        }
        stage.look_after(Duration::from_millis(10));
        assert_eq!(judged(&stage), Counter { trials: 2, failures: 1 }, "{eject}");
        // Keys of one network.
        (20..29).for_each(|key| stage.ask(CANARY, Player(key), Player(3), 0, Outcome::Failed));
        stage.look_after(Duration::from_millis(10));
        assert_eq!(judged(&stage).failures, 1 + keys_of_a_network, "{eject}");
    }
}

#[test]
fn another_certainty_keeps_the_evidence_and_another_question_does_not() {
    let mut stage = Stage::new("{ errors: {}, alpha: 1e-9, mode: advise }");
    stage.set_share(0.2);
    stage.pass(5, [1_000, 1_000]);
    stage.pass(1, [1_000, 20]);
    let before = stage.evidence().expect("some");
    assert!(before > 0.0, "{before}");
    stage.reload("{ errors: {}, alpha: 1e-9, minimum_failures: 4 }");
    assert_eq!(words(&stage.look_after(Duration::from_millis(1))), [""; 0]);
    assert_eq!(stage.evidence(), Some(before));
    // The evidence already meets the new threshold, and the next block shows it.
    stage.reload("{ errors: {}, alpha: 0.4 }");
    let found = stage.pass(1, [1_000, 20]);
    let suspect = worse(&found);
    assert_eq!((suspect.mode, suspect.verdict.log_threshold), (Mode::Act, 2.5_f64.ln()));
    let mut stage = Stage::new("{ errors: {} }");
    stage.set_share(0.2);
    stage.pass(5, [1_000, 1_000]);
    stage.reload("{ errors: { absolute: 0.3% } }");
    stage.look_after(Duration::from_millis(1));
    assert_eq!(stage.evidence(), None);
}

#[test]
fn a_burst_adds_what_is_demanded_now_and_not_what_was_demanded_before() {
    let mut stage = Stage::new("{ errors: {}, alpha: 1e-12 }");
    stage.set_share(0.2);
    stage.pass(5, [1_000, 0]);
    stage.reload("{ errors: {}, alpha: 1e-3 }");
    assert_eq!(words(&stage.look_after(Duration::from_millis(20))), [""; 0]);
    for _ in 0..50 {
        stage.count(CANARY, Outcome::Failed);
        (0..4).for_each(|_| stage.count(BASELINE, Outcome::Served(1_000)));
    }
    stage.look_after(Duration::from_secs(1));
    let evidence = stage.evidence().expect("it is compared");
    assert!((1.0..=1_000_f64.ln() + 0.01).contains(&evidence), "{evidence} nats");
}

#[test]
fn old_evidence_ejects_no_version_when_verdicts_begin_to_act() {
    let advise = "{ errors: {}, mode: advise }";
    let mut stage = Stage::new(advise);
    stage.set_share(0.2);
    assert_eq!(words(&stage.pass(10, [1_000, 10])).last(), Some(&"worse"));
    assert_eq!(words(&stage.pass(60, [1_000, 1_000])), [""; 0]);
    stage.reload("{ errors: {} }");
    assert_eq!(words(&stage.pass(10, [1_000, 1_000])), [""; 0]);
    assert_eq!(words(&stage.pass(10, [1_000, 10])), ["worse"]);
}

/// Regression: requests in progress at a change of weights were discarded, so a canary that hangs was not found
/// while weights changed each second, as they do when another version's endpoint comes and goes.
#[test]
fn a_canary_that_hangs_is_found_however_often_weights_change() {
    for pause in [1_000, 25, 45] {
        let mut stage = Stage::new("{ errors: {} }");
        stage.set_share(0.2);
        // Requests of the canary that hang: the evaluation at which each began, and its player.
        let mut hanging = std::collections::VecDeque::new();
        let found_at = (0..400_u64).find(|tick| {
            if tick.is_multiple_of(pause) {
                stage.set_share(if tick.is_multiple_of(2 * pause) { 0.2 } else { 0.21 });
            }
            (0..16).for_each(|_| stage.count(BASELINE, Outcome::Served(1_000)));
            for n in 0..2 {
                hanging.push_back((*tick, stage.begin(CANARY), Player((tick * 2 + n) as u16)));
            }
            while let Some((_, look, player)) = hanging.pop_front_if(|(at, ..)| *at + 50 <= *tick) {
                stage.end(look, CANARY, player, player, 0, Outcome::TimedOut);
            }
            let found = stage.look_after(Duration::from_millis(20));
            found.iter().any(|found| matches!(found, Found::Worse(_)))
        });
        let found_at = found_at.unwrap_or_else(|| panic!("never, with a change each {pause}"));
        assert!(found_at < 75, "after {found_at} looks, with a change each {pause}");
    }
}

/// Simulates seconds of a thousand requests of the baseline each, all of different players, `some` of which end
/// as `outcome`. Returns the deadline after that.
fn deadline_after(stage: &mut Stage, seconds: u32, some: u32, outcome: Outcome) -> Duration {
    for _ in 0..seconds {
        for n in 0..1_000 {
            stage.count(BASELINE, if n < some { outcome } else { Outcome::Served(1_000) });
        }
        stage.look_after(Duration::from_secs(1));
    }
    deadline(stage)
}

fn deadline(stage: &Stage) -> Duration {
    let service = stage.snapshot.service("game-api").expect("it is there");
    let compared = service.compared.as_ref().expect("it is compared");
    compared.strata[0].state.deadline().expect("it is learnt")
}

#[test]
fn requests_that_are_slow_by_nature_are_waited_for_as_long_as_there_are_any() {
    let stage = || {
        let mut stage = Stage::new("{ errors: {} }");
        stage.set_share(0.2);
        stage
    };
    for late in [0, 1] {
        let deadline = deadline_after(&mut stage(), 10, late, Outcome::TimedOut);
        assert_eq!(deadline, Duration::from_secs(1), "{late} of 1,000");
    }
    let mut stage = stage();
    let longest = deadline_after(&mut stage, 10, 7, Outcome::TimedOut);
    assert!(longest > Duration::from_secs(10));
    // Requests of five seconds are served within a deadline of eight.
    let deadline = deadline_after(&mut stage, 30, 7, Outcome::Served(5_000_000));
    assert_eq!(deadline, Duration::from_secs(8));
    let deadline = deadline_after(&mut stage, 30, 0, Outcome::TimedOut);
    assert_eq!(deadline, Duration::from_secs(1));
}

#[test]
fn one_player_does_not_decide_how_long_all_are_waited_for() {
    for eject in ["{ errors: {} }", "{ errors: {}, networks: true }"] {
        let mut stage = Stage::new(eject);
        stage.set_share(0.2);
        deadline_after(&mut stage, 2, 0, Outcome::TimedOut);
        for second in 0..40 {
            for n in 0..4_u16 {
                // Only a few keys where networks are distinguished.
                let key = if eject.contains("networks") { 4 * second + n } else { 7 };
                stage.ask(BASELINE, Player(key), Player(7), 0, Outcome::TimedOut);
            }
            assert_eq!(deadline_after(&mut stage, 1, 0, Outcome::TimedOut).as_secs(), 1, "{eject}");
        }
    }
}

/// Evaluates after `pause`. Requests began in the fifth of a second before that: those of the baseline are
/// served, those of the canary count as late, one half before that evaluation and the other after it. Returns
/// whether the canary is ejected.
fn is_out_after(stage: &mut Stage, pause: Duration) -> bool {
    let mut looks = Vec::new();
    for _ in 0..10 {
        looks.extend((0..6).map(|_| stage.begin(CANARY)));
        (0..24).for_each(|_| stage.count(BASELINE, Outcome::Served(1_000)));
        assert_eq!(words(&stage.look_after(Duration::from_millis(20))), [""; 0]);
    }
    let end = |stage: &Stage, odd: usize| {
        for (n, look) in looks.iter().enumerate().filter(|(n, _)| n % 2 == odd) {
            let player = Player(30_000 + 7 * n as u16);
            stage.end(*look, CANARY, player, player, 0, Outcome::TimedOut);
        }
    };
    stage.evaluator.expect_after(stage.evaluator.next_look(), stage.now);
    end(stage, 0);
    let mut found = stage.look_after(pause);
    end(stage, 1);
    found.extend(stage.pass(2, [1_000, 1_000]));
    words(&found).contains(&"worse")
}

#[test]
fn requests_from_before_the_process_was_stopped_do_not_count() {
    let stage = || {
        let mut stage = Stage::new("{ errors: {} }");
        stage.set_share(0.2);
        stage.pass(5, [1_000, 1_000]);
        stage
    };
    let ms = Duration::from_millis;
    assert!(is_out_after(&mut stage(), ms(100)), "a busy machine is late by that");
    let mut stage = stage();
    assert!(!is_out_after(&mut stage, ms(3_000)));
    let counter = stage.evaluator.collector.services[0].requests(0, CANARY);
    assert!(counter.failures < 5, "{counter:?}");
    // Not excused again at once: on a machine that is always late no version would be found.
    assert!(is_out_after(&mut stage, ms(500)));
}

#[test]
fn a_version_that_fails_is_found_after_a_stop() {
    let mut stage = Stage::new("{ errors: {} }");
    stage.set_share(0.2);
    stage.pass(5, [1_000, 1_000]);
    for _ in 0..3 {
        assert!(!is_out_after(&mut stage, Duration::from_secs(3)));
        assert_eq!(words(&stage.pass(2, [1_000, 1_000])), [""; 0]);
    }
    assert!(words(&stage.pass(5, [1_000, 10])).contains(&"worse"));
}

#[test]
fn an_ejection_that_did_not_help_is_reported() {
    for still_fails in [true, false] {
        let mut stage = Stage::new("{ errors: {} }");
        stage.set_share(0.05);
        assert_eq!(words(&stage.pass(2, [0, 0])), [""; 0]);
        let player = |n: u16| Player(50_000 + n);
        let mut failed = 0;
        loop {
            (0..19).for_each(|_| stage.count(BASELINE, Outcome::Served(1_000)));
            stage.ask(CANARY, player(failed), player(failed), 0, Outcome::Failed);
            failed += 1;
            let found = stage.look_after(Duration::from_millis(10));
            if words(&found).contains(&"worse") {
                break;
            }
            assert!(failed < 20, "not ejected");
        }
        let service = stage.snapshot.service("game-api").expect("it is there");
        stage.evaluator.follow_players(service, "v42", None, stage.now);
        let outcome = if still_fails { Outcome::Failed } else { Outcome::Served(1_000) };
        let mut mistake = None;
        for n in 0..failed {
            // Other players are served, so the baseline is not in an outage.
            (0..20).for_each(|_| stage.count(BASELINE, Outcome::Served(1_000)));
            stage.ask(BASELINE, player(n), player(n), 0, outcome);
            let found = stage.look_after(Duration::from_millis(10));
            assert!(!words(&found).contains(&"mistake"), "it may be over soon");
        }
        for found in stage.look_after(Duration::from_secs(10)) {
            if let Found::Mistake { failed, of, .. } = found {
                mistake = Some((failed, of));
            }
        }
        let all = u64::from(failed);
        assert_eq!(mistake, still_fails.then_some((all, all)));
    }
}

#[test]
fn other_limits_restart_the_comparison() {
    let mut stage = Stage::new("{ latency: { p99: 20% }, warm_up: 0s }");
    (0..3).for_each(|_| assert_eq!(stage.serve(1_000), []));
    let mut other = Stage::new("{ latency: { p99: 30% }, warm_up: 0s }");
    std::mem::swap(&mut stage.evaluator, &mut other.evaluator);
    other.now = stage.now;
    other.set_share(0.05);
    for _ in 0..6 {
        assert_eq!(compare_slow(&mut other, 100), [] as [Box<str>; 0]);
    }
}

/// Each finding as a word.
fn words(found: &[Found]) -> Vec<&'static str> {
    let word = |found: &Found| match found {
        Found::Worse(_) => "worse",
        Found::NearMiss(_) => "near",
        Found::NearMissOver(_) => "no longer near",
        Found::Mistake { .. } => "mistake",
        Found::Advice(advice) => match advice.advised {
            Advised::FewPlayers => "few players",
            Advised::Refusals => "refusals",
        },
        Found::NoLongerCompared { .. } => "no longer compared",
        Found::SharedOutage { change: OutageChange::Begins(_), .. } => "outage",
        Found::SharedOutage { change: OutageChange::Ends(_), .. } => "outage over",
    };
    found.iter().map(word).collect()
}

#[test]
fn a_clearly_bad_canary_is_reported_once_and_never_as_a_near_miss() {
    let mut stage = Stage::new("{ errors: {}, mode: advise }");
    stage.set_share(0.2);
    assert_eq!(words(&stage.pass(10, [1_000, 1_000])), [""; 0]);
    let found = stage.pass(10, [1_000, 10]);
    assert_eq!(words(&found), ["worse"]);
    let Found::Worse(suspect) = &found[0] else { panic!("{found:?}") };
    assert_eq!(
        (&*suspect.service, &*suspect.version, suspect.mode),
        ("game-api", "v42", Mode::Advise)
    );
    let verdict = &suspect.verdict;
    let evidence = verdict.log_evidence.expect("some");
    assert!(evidence >= verdict.log_threshold);
    // No further finding until the weights change.
    assert_eq!(words(&stage.pass(5, [1_000, 10])), [""; 0]);
    stage.set_share(0.0);
    assert_eq!(words(&stage.pass(1, [0, 0])), ["no longer compared"]);
}

#[test]
fn the_end_of_a_near_miss_is_reported() {
    let mut stage = Stage::new("{ errors: {} }");
    stage.set_share(0.2);
    stage.pass(5, [1_000, 1_000]);
    // Failing whenever there is less than six tenths of the evidence, so that it stays near the threshold.
    let threshold = (1.0 / 0.001_f64).ln();
    let (mut found, mut near_s) = (Vec::new(), 0);
    while found.is_empty() {
        let part = stage.evidence().unwrap_or_default() / threshold;
        near_s += u64::from(part >= 0.5);
        found = stage.pass(1, [1_000, if part < 0.6 { 200 } else { 1_000 }]);
    }
    assert!((5..20).contains(&near_s), "{near_s}");
    assert_eq!(words(&found), ["near"]);
    // Then as good as the baseline for long.
    assert_eq!(words(&stage.pass(300, [100, 0])), ["no longer near"]);
}

#[test]
fn what_both_arms_share_is_an_outage_and_no_verdict() {
    let mut stage = Stage::new("{ errors: {} }");
    stage.set_share(0.2);
    assert_eq!(words(&stage.pass(30, [1_000, 1_000])), [""; 0]);
    let found = stage.pass(30, [3, 3]);
    assert_eq!(words(&found), ["outage"]);
    assert_eq!(stage.evaluator.has_shared_outage("game-api"), Some(true));
    let Found::SharedOutage { change: OutageChange::Begins(counts), .. } = &found[0] else {
        panic!("{found:?}")
    };
    assert!(counts.canary.failures() > 50 && counts.baseline.failures() > 200, "{counts:?}");
    assert_eq!(words(&stage.pass(30, [1_000, 1_000])), ["outage over"]);
    assert_eq!(stage.evaluator.has_shared_outage("game-api"), Some(false));
    assert_eq!(stage.evaluator.has_shared_outage("other"), None);
}

#[test]
fn the_current_result_of_a_comparison_is_always_known() {
    let mut stage = Stage::new("{ errors: { absolute: 0.3% } }");
    let answer = |stage: &Stage| stage.evaluator.judges["game-api"].answer("v42", stage.now);
    assert_eq!(answer(&stage), None, "it has no share");
    stage.set_share(0.2);
    assert_eq!(words(&stage.pass(1, [1_000, 1_000])), [""; 0]);
    let first = answer(&stage).expect("it is compared");
    assert_eq!((first.answer, first.since), (Answer::Undecided, Duration::from_millis(20)));
    assert_eq!(first.log_threshold, 1_000_f64.ln());
    assert!((100..=200).contains(&first.requests.canary), "{first:?}");
    assert_eq!(words(&stage.pass(20, [1_000, 1_000])), [""; 0], "healthy is no news");
    let healthy = answer(&stage).expect("it is compared");
    assert_eq!(healthy.answer, Answer::Healthy);
    assert!((first.since..stage.now).contains(&healthy.since), "{healthy:?}");
    assert!(healthy.log_evidence.is_some_and(|nats| nats < 0.0), "{healthy:?}");
    assert_eq!(words(&stage.pass(10, [1_000, 10])).last(), Some(&"worse"));
    let fail = answer(&stage).expect("it is compared");
    assert_eq!(fail.answer, Answer::Fail);
    assert!((healthy.since..stage.now).contains(&fail.since), "{fail:?}");
    assert!(fail.log_evidence.is_some_and(|nats| nats >= fail.log_threshold), "{fail:?}");
}

/// Regression: a first step that left the split as it was passed by evidence from before it, with no request of its
/// own.
#[test]
fn health_is_certified_anew_in_each_step_also_if_shares_stay() {
    let mut stage = Stage::new("{ errors: { absolute: 0.3% } }");
    let answer = |stage: &Stage| {
        stage.evaluator.answer("game-api", "v42", stage.now).map(|said| said.answer)
    };
    stage.set_share(0.2);
    stage.pass(20, [1_000, 1_000]);
    stage.set_share(0.2);
    stage.look_after(Duration::from_secs(1));
    assert_eq!(answer(&stage), Some(Answer::Healthy), "the same shares are no step");
    stage.evaluator.begin_step("game-api");
    stage.evaluator.begin_step("another one");
    stage.set_share(0.2);
    for _ in 0..10 {
        stage.look_after(Duration::from_secs(1));
        assert_eq!(answer(&stage), Some(Answer::Undecided), "nobody asked since");
    }
    stage.pass(20, [1_000, 1_000]);
    assert_eq!(answer(&stage), Some(Answer::Healthy));
    stage.set_share(0.2);
    stage.look_after(Duration::from_secs(1));
    assert_eq!(answer(&stage), Some(Answer::Healthy), "a step begins once");
}

/// The only finding, which must be a worse version.
fn worse(found: &[Found]) -> &CanaryFinding {
    match found {
        [Found::Worse(suspect)] => suspect,
        other => panic!("{:?}", words(other)),
    }
}

#[test]
fn after_a_cutover_a_version_is_judged_by_what_was_before() {
    let mut stage = Stage::new("{ errors: {}, latency: { p99: 20% } }");
    assert_eq!(words(&stage.pass(60, [200, 0])), [""; 0]);
    stage.set_share(1.0);
    // 1 % of the canary's 200 requests per second now fail, where 0.5 % of the baseline's failed.
    let mut only = |seconds, one_of| {
        let mut found = Vec::new();
        for second in 0..seconds {
            for nth in 0..200 {
                let failed = (second * 200 + nth) % one_of == 0;
                let outcome = if failed { Outcome::Failed } else { Outcome::Served(1_000) };
                stage.count(CANARY, outcome);
            }
            found.extend(stage.look_after(Duration::from_secs(1)));
        }
        found
    };
    assert_eq!(words(&only(120, 200)), [""; 0], "as good as the one before");
    let found = only(120, 20);
    let suspect = worse(&found);
    assert_eq!((&*suspect.version, suspect.mode), ("v42", Mode::Advise));
    assert!(suspect.verdict.alone);
    assert!(suspect.verdict.reason.contains("the baseline before"), "{}", suspect.verdict.reason);
    // It is judged for an hour, and no longer.
    let alone =
        |stage: &Stage| stage.evaluator.verdicts(&stage.snapshot, "game-api", stage.now).count();
    assert_eq!(alone(&stage), 1);
    stage.look_after(Duration::from_secs(3_600));
    assert_eq!(alone(&stage), 0);
    stage.set_share(0.5);
    assert_eq!(words(&stage.look_after(IDLE_LOOK)), ["no longer compared"]);
}

#[test]
fn a_version_alone_is_judged_by_the_limits_of_the_file() {
    let mut stage = Stage::new("{ errors: {} }\n    slo: { errors: 1%, p95: 50ms }");
    let pass = |stage: &mut Stage, slow: u32| {
        let mut found = Vec::new();
        for _ in 0..60 {
            for nth in 0..200 {
                let latency_us = if nth < slow { 80_000 } else { 5_000 };
                stage.count(BASELINE, Outcome::Served(latency_us));
            }
            found.extend(stage.look_after(Duration::from_secs(1)));
        }
        found
    };
    assert_eq!(words(&pass(&mut stage, 8)), [""; 0]);
    let found = pass(&mut stage, 24);
    let suspect = worse(&found);
    assert_eq!((&*suspect.version, suspect.mode), ("v41", Mode::Advise));
    assert!(
        suspect.verdict.reason.contains("took 50.0 ms or longer"),
        "{}",
        suspect.verdict.reason
    );
}
