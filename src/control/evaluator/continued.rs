//! Comparisons that another process continues.

use std::time::Duration;

use super::{
    CarriedEvidence, Evaluator, Found,
    stage::{BASELINE, CANARY, Outcome, Stage},
};

const EJECT: &str = "{ errors: { absolute: 1% } }";

/// The evaluator of another process, which reads what `stage` hands over.
fn taken_over(stage: &Stage, budget: usize, amounts: &str) -> Evaluator {
    let evidence = stage.evaluator.carried(&stage.snapshot, budget, |_| String::new());
    let text = serde_json::to_vec(&evidence).expect("JSON");
    let evidence: Vec<CarriedEvidence> = serde_json::from_slice(&text).expect("the same");
    Evaluator::resume(evidence, |_| amounts.to_owned())
}

/// Another process with the limits `eject` and this share of the canary, which has taken over from `stage`.
fn successor(stage: &Stage, eject: &str, share: f64) -> Stage {
    let mut next = Stage::new(eject);
    next.set_share(share);
    next.evaluator = taken_over(stage, usize::MAX, "");
    next.now = stage.now;
    assert_eq!(next.look_after(Duration::from_millis(5)), []);
    next
}

/// A stage whose canary has had `rounds` of a request of which every third fails.
fn suspected(rounds: u64) -> Stage {
    let mut stage = Stage::new(EJECT);
    stage.set_share(0.1);
    assert_eq!(stage.look_after(Duration::from_millis(10)), []);
    assert_eq!(round(&mut stage, 0, rounds), None);
    stage
}

/// Rounds `from` to `to`; returns the one in which the canary was found to be worse.
fn round(stage: &mut Stage, from: u64, to: u64) -> Option<u64> {
    (from..to).find(|n| {
        (0..9).for_each(|_| stage.count(BASELINE, Outcome::Served(1_000)));
        let outcome = if n % 3 == 0 { Outcome::Failed } else { Outcome::Served(1_000) };
        stage.count(CANARY, outcome);
        let found = stage.look_after(Duration::from_millis(20));
        found.iter().any(|found| matches!(found, Found::Worse(_)))
    })
}

#[test]
fn a_takeover_costs_no_evidence() {
    let found = round(&mut suspected(0), 0, 200).expect("it fails too often");
    let before = found / 2 + found % 2;
    let mut stage = suspected(before);
    // Blocks that are open are lost, so all of them close first.
    (0..400).for_each(|_| assert_eq!(stage.look_after(Duration::from_millis(20)), []));
    let mut next = successor(&stage, EJECT, 0.1);
    let evidence = stage.evidence().expect("evidence");
    assert_eq!(next.evidence(), Some(evidence));
    assert!(evidence > 1.0, "{evidence}");
    let record = |stage: &Stage| {
        let record = stage.evaluator.record("game-api", "v42", None).expect("compared");
        (record.len(), record.is_whole(), record.judge(stage.now).log_evidence)
    };
    assert_eq!(record(&next), record(&stage));
    assert!(record(&next).1 && record(&next).0 > 5);
    let after = round(&mut next, before, 400).expect("it still fails");
    assert!(after <= found + 3, "found in round {after}, and without a takeover in {found}");
}

#[test]
fn a_record_beyond_the_budget_is_left_behind_and_its_evidence_is_not() {
    let mut stage = suspected(6);
    (0..400).for_each(|_| assert_eq!(stage.look_after(Duration::from_millis(20)), []));
    let evidence = stage.evidence();
    stage.evaluator = taken_over(&stage, 0, "");
    assert_eq!(stage.look_after(Duration::from_millis(5)), []);
    assert_eq!(stage.evidence(), evidence);
    let record = stage.evaluator.record("game-api", "v42", None).expect("compared");
    assert!(!record.is_whole());
    assert_eq!(record.judge(stage.now).log_evidence, evidence);
}

#[test]
fn another_question_begins_anew() {
    let mut stage = suspected(6);
    (0..400).for_each(|_| assert_eq!(stage.look_after(Duration::from_millis(20)), []));
    assert!(stage.evidence().is_some());
    assert!(successor(&stage, EJECT, 0.1).evidence().is_some());
    assert_eq!(successor(&stage, EJECT, 0.2).evidence(), None, "another share");
    assert_eq!(successor(&stage, "{ errors: { absolute: 2% } }", 0.1).evidence(), None);
    let advises = "{ errors: { absolute: 1% }, mode: advise }";
    assert_eq!(successor(&stage, advises, 0.1).evidence(), None);
    let mut other = taken_over(&stage, usize::MAX, "another amount");
    assert_eq!(other.poll(&stage.snapshot, stage.now), []);
    let mut verdicts = other.verdicts(&stage.snapshot, "game-api", stage.now);
    assert_eq!(verdicts.next().and_then(|(_, _, verdict)| verdict.log_evidence), None);
}
