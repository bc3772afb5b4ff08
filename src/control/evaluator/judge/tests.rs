use proptest::prelude::*;

use super::{
    super::blocks::{BaselineBlock, BaselineStratum, Collected, EndpointWindow, VersionBlocks},
    *,
};
use crate::{
    analysis::{Answer, Arms, Attempts, Entry, Latencies, Players, Quantile, Span, Tally},
    config::{
        schema::{Eject, EjectErrors, EjectLatency},
        units::Share,
    },
};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn terms() -> Terms {
    let errors = EjectErrors { absolute: Some(Share(0.003)), ..EjectErrors::default() };
    let latency = EjectLatency { p95: Some(Share(0.2)), ..EjectLatency::default() };
    let eject = Eject {
        errors: Some(errors),
        latency: Some(latency),
        warm_up: Some(Duration::ZERO),
        ..Eject::default()
    };
    let limits = Limits::of(&eject, &Eject::default(), 1e-3);
    let limits = Limits { routes: vec!["payout".to_owned()], ..limits };
    let stratum = |route: Option<&str>| StratumTerms {
        route: route.map(Into::into),
        limits: limits.clone(),
        slo: Slo { errors: Some(Share(0.01)), ..Slo::default() },
    };
    let strata = [stratum(None), stratum(Some("bet"))].into();
    Terms { service: "game-api".into(), mode: Mode::Act, strata }
}

/// A judge that compares `v42`, and judges `v43` alone.
fn judge() -> ServiceJudge {
    let mut judge = ServiceJudge::new(terms());
    judge.begin_canary("v42".into(), MS(0));
    judge.begin_alone("v43".into(), MS(0));
    assert_eq!(judge.judged_alone("v43"), [true, true], "by `slo`");
    judge
}

fn errors(block: [u64; 4], route: Option<usize>, at: Duration) -> Entry {
    let [n_c, k_c, n_b, k_b] = block;
    let block = Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b));
    Entry::Errors { at, block: Box::new(Attempts::of_strangers(block)), route }
}

fn of_canary(strata: Vec<Vec<Collected>>) -> ServiceBlocks {
    let canaries = vec![VersionBlocks { version: "v42".into(), strata }];
    ServiceBlocks { canaries, ..ServiceBlocks::default() }
}

/// Blocks of one kind with arbitrary numbers.
fn blocks(kind: u8, numbers: [u64; 4], at: Duration) -> ServiceBlocks {
    let [n_c, k_c, n_b, k_b] = numbers;
    let both = Arms::new(Tally::new(n_c, k_c), Tally::new(n_b, k_b));
    let of = |entry| of_canary(vec![vec![Collected::Final(entry)]]);
    let latencies = |slow| {
        let mut all = Latencies::default();
        (0..n_b).for_each(|n| all.record(if n < slow { 40_000 } else { 10_000 }));
        all
    };
    match kind {
        0 | 1 => of(errors(numbers, None, at)),
        2 => of_canary(vec![Vec::new(), vec![Collected::Final(errors(numbers, None, at))]]),
        3 => of(errors(numbers, Some(0), at)),
        4 => of_canary(vec![vec![Collected::SoFar(vec![errors(numbers, None, at)])]]),
        5 => of(Entry::Refusals { at, block: both }),
        6 => {
            let block = Arms::new((&latencies(k_c)).into(), (&latencies(k_b)).into());
            let (span, quantile, slow) = (Span::Head, Quantile::P95, Some(100));
            of(Entry::Latency { at, span, quantile, block, slow })
        }
        7 => of(Entry::WeightStep { at, warms: k_c > k_b }),
        8 => of(Entry::CapBursts(k_c > k_b)),
        9 => {
            let players = |tally: Tally| Players {
                asked: tally.trials().min(3),
                recovered: tally.failures().min(3).min(tally.trials()),
            };
            let players = Arms::new(players(both.canary), players(both.baseline));
            of(Entry::Asked { at, players, share: 0.1 })
        }
        10 => {
            let endpoints = vec![both.canary, both.baseline, both.canary];
            let endpoints = Some(EndpointWindow { endpoints, length: MS(10_000) });
            ServiceBlocks { endpoints, ..ServiceBlocks::default() }
        }
        11 => ServiceBlocks { outage: Some(both), ..ServiceBlocks::default() },
        12 => {
            let stratum = BaselineStratum { requests: both.baseline, p95: Some(at), p99: None };
            let baseline = BaselineBlock { version: "v41".into(), strata: vec![stratum; 2] };
            ServiceBlocks { baseline: Some(baseline), ..ServiceBlocks::default() }
        }
        _ => {
            let latencies = (&latencies(k_c)).into();
            let entry = Entry::Alone { at, errors: both.canary, latencies };
            let strata = vec![vec![entry]];
            let alone = vec![VersionBlocks { version: "v43".into(), strata }];
            ServiceBlocks { alone, ..ServiceBlocks::default() }
        }
    }
}

/// All results of a judge.
fn asked(judge: &ServiceJudge, now: Duration) -> (Option<GateAnswer>, Vec<Verdict>, Vec<String>) {
    let verdicts: Vec<_> = judge.verdicts(now).map(|(_, _, verdict)| verdict).collect();
    let records = [("v42", None), ("v42", Some("bet")), ("v43", None)];
    let records = records.map(|(version, route)| {
        let record = judge.record(version, route).expect("it is judged");
        format!("{:?}", record.judge(now))
    });
    (judge.answer("v42", MS(0)), verdicts, records.into())
}

proptest! {
    #[test]
    fn the_same_blocks_lead_to_the_same_verdict(
        looks in prop::collection::vec(
            (0..14_u8, 0..40_u64, 0..40_u64, 1..400_u64, 0..40_u64), 1..60,
        ),
        turn in 0..60_usize,
    ) {
        let (mut one, mut other) = (judge(), judge());
        for (number, (kind, n_c, k_c, n_b, k_b)) in looks.into_iter().enumerate() {
            let now = MS(100 * number as u64);
            let blocks = blocks(kind, [n_c, k_c, n_b, k_b], now);
            // A successor continues as its predecessor would have.
            if number == turn {
                other = one.clone();
            }
            prop_assert_eq!(one.judge([blocks.clone()], now), other.judge([blocks], now));
            prop_assert_eq!(asked(&one, now), asked(&other, now));
        }
    }

    /// Handed over at any block, with its record or, if that is too long, without.
    #[test]
    fn a_judge_that_is_handed_over_leads_to_the_same_verdict_at_the_same_block(
        looks in prop::collection::vec(
            (0..14_u8, 0..40_u64, 0..40_u64, 1..400_u64, 0..40_u64), 1..60,
        ),
        turn in 0..60_usize,
        mut budget in prop_oneof![Just(0), Just(usize::MAX)],
    ) {
        let (mut one, mut other) = (judge(), judge());
        let (is_whole, mut had_failed) = (budget > 0, false);
        for (number, (kind, n_c, k_c, n_b, k_b)) in looks.into_iter().enumerate() {
            let now = MS(100 * number as u64);
            if number == turn {
                let text = serde_json::to_vec(&one.carried(&mut budget)).expect("JSON");
                other = ServiceJudge::resume(terms(), serde_json::from_slice(&text).expect("read"));
                had_failed = one.answer("v42", now).expect("compared").answer == Answer::Fail;
            }
            let blocks = blocks(kind, [n_c, k_c, n_b, k_b], now);
            let worse = |found: Vec<Found>| {
                let of = found.into_iter().find(|found| matches!(found, Found::Worse(of) if &*of.version == "v42"));
                of.map(|found| format!("{found:?}"))
            };
            let found = (worse(one.judge([blocks.clone()], now)), worse(other.judge([blocks], now)));
            // What was found before is found again, for the events of the other process.
            match number == turn && had_failed {
                true => prop_assert!(found.0.is_none() && found.1.is_some()),
                false => prop_assert_eq!(found.0, found.1),
            }
            let ((answer, verdicts, records), of) = (asked(&one, now), asked(&other, now));
            if !had_failed {
                prop_assert_eq!(answer, of.0);
            }
            prop_assert_eq!((verdicts, records, one.phi()), (of.1, of.2, other.phi()));
            let inputs = |judge: &ServiceJudge| judge.record("v42", None).map(|record| record.len());
            prop_assert!(inputs(&one) == inputs(&other) || (!is_whole && number >= turn));
        }
    }

    /// The result must not depend on how the blocks are divided.
    #[test]
    fn blocks_of_several_collectors_are_judged_as_one(
        parts in prop::collection::vec(
            (0..10_u8, 0..40_u64, 0..40_u64, 1..400_u64, 0..40_u64), 1..30,
        ),
    ) {
        let (mut one, mut other) = (judge(), judge());
        let now = MS(100);
        let parts = parts.into_iter().map(|(kind, n_c, k_c, n_b, k_b)| {
            blocks(kind, [n_c, k_c, n_b, k_b], now)
        });
        let parts: Vec<_> = parts.collect();
        let merged = ServiceBlocks::merged(parts.clone());
        prop_assert_eq!(one.judge(parts, now), other.judge([merged], now));
        prop_assert_eq!(asked(&one, now), asked(&other, now));
    }
}

/// Needed to judge the blocks of other processes, and to judge blocks again.
#[test]
fn a_judge_names_no_cell_no_snapshot_and_no_clock() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/control/evaluator");
    let mut files = vec![format!("{folder}/judge.rs"), format!("{folder}/blocks.rs")];
    for part in ["alone", "canary", "carried", "followed", "history", "line"] {
        files.push(format!("{folder}/judge/{part}.rs"));
    }
    let parts = std::fs::read_dir(format!("{folder}/judge")).expect("a folder").count();
    assert_eq!(parts, files.len() - 2 + 1, "and the tests: is there another part?");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file");
        for forbidden in ["registry::", "snapshot::", "collect::", "Instant", "SystemTime"] {
            assert!(!text.contains(forbidden), "{file} names {forbidden}");
        }
    }
}

/// Members may have other splits and rates for a moment. Sums of their blocks would mix different arms.
#[test]
fn blocks_of_different_splits_are_never_added_up() {
    let mut apart = judge();
    let mut added = judge();
    for look in 0..100 {
        let now = MS(100 * look);
        let of = |block| of_canary(vec![vec![Collected::Final(errors(block, None, now))]]);
        apart.judge([of([50, 5, 50, 5]), of([5, 0, 95, 0])], now);
        added.judge([of([55, 5, 145, 5])], now);
    }
    let of = |judge: &ServiceJudge| judge.answer("v42", MS(0)).expect("it is compared").answer;
    assert_eq!((of(&apart), of(&added)), (Answer::Undecided, Answer::Fail));
}

#[test]
fn windows_of_several_collectors_are_one_window() {
    let tally = |failed| Tally::new(100, failed);
    let member = |failed| ServiceBlocks {
        outage: Some(Arms::new(tally(failed), tally(0))),
        endpoints: Some(EndpointWindow { endpoints: vec![tally(failed)], length: MS(failed) }),
        followed: Players { asked: failed, recovered: 1 },
        baseline: Some(BaselineBlock {
            version: "v41".into(),
            strata: vec![BaselineStratum {
                requests: tally(failed),
                p95: Some(MS(failed)),
                p99: None,
            }],
        }),
        ..ServiceBlocks::default()
    };
    let both = ServiceBlocks::merged([member(2), member(3)]);
    assert_eq!(both.outage, Some(Arms::new(Tally::new(200, 5), Tally::new(200, 0))));
    let window = both.endpoints.expect("both closed one");
    assert_eq!((window.endpoints, window.length), (vec![tally(2), tally(3)], MS(3)));
    assert_eq!(both.followed, Players { asked: 5, recovered: 2 });
    let stratum = both.baseline.expect("both have one").strata[0];
    assert_eq!((stratum.requests, stratum.p95), (Tally::new(200, 5), Some(MS(3))));
}

#[test]
fn a_canary_is_healthy_if_it_is_so_on_all_strata() {
    let mut judge = judge();
    let all = |second, strata: usize| {
        let now = MS(1_000 * second);
        let block = || vec![Collected::Final(errors([200, 0, 800, 0], None, now))];
        (of_canary((0..strata).map(|_| block()).collect()), now)
    };
    let answer = |judge: &ServiceJudge| {
        let GateAnswer { answer, since, requests, .. } =
            judge.answer("v42", MS(0)).expect("compared");
        (answer, since.as_secs(), requests.canary)
    };
    for second in 1..=20 {
        let (blocks, now) = all(second, 1);
        assert_eq!(judge.judge([blocks], now), []);
    }
    assert_eq!(answer(&judge), (Answer::Undecided, 0, 4_000), "nothing is known of the other");
    assert_eq!(judge.answer("v43", MS(0)), None, "nothing is beside it");
    let mut second = 20;
    while answer(&judge).0 == Answer::Undecided && second < 60 {
        second += 1;
        let (blocks, now) = all(second, 2);
        assert_eq!(judge.judge([blocks], now), []);
    }
    assert_eq!(answer(&judge).0, Answer::Healthy);
    assert_eq!(answer(&judge).1, second, "since then");
    let health =
        judge.answer("v42", MS(0)).and_then(|answer| answer.health).expect("errors are compared");
    assert!(health.log_evidence.is_some_and(|evidence| evidence >= health.log_threshold));
    let (blocks, now) = all(70, 2);
    judge.judge([blocks], now);
    assert_eq!(answer(&judge).1, second, "it stands");
    // A change of weights.
    let step = Collected::Final(Entry::WeightStep { at: MS(71_000), warms: true });
    judge.judge([of_canary(vec![vec![step.clone()], vec![step]])], MS(71_000));
    assert_eq!((answer(&judge).0, answer(&judge).1), (Answer::Undecided, 71));
}
