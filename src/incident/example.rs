//! An incident for tests: v42 of game-api fails 30 % of its requests for some seconds, and is ejected.

use std::time::SystemTime;

use super::{
    build::{Evidence, Happened, Opened},
    curve::{LatencyPoint, RateCurve, Role, VersionCurve},
    failure::{FailedSecond, FailureKinds},
    id::Id,
    kind::Kind,
    model::{JournalEntry, Moment},
    sums::{Moments, Sums},
    text::moved,
};
use crate::analysis::{Answer, Counts, Finding, Metric, Numbers, Rate, Verdict};

/// `s` seconds after the incident.
pub(super) fn at(s: f64) -> SystemTime {
    moved(humantime::parse_rfc3339("2026-11-27T23:15:00Z").expect("a time"), s)
}

fn rate(failures: u64, requests: u64) -> Rate {
    Rate { requests, failures, rate: Some(failures as f64 / requests as f64) }
}

fn verdict(finding: Finding, reason: &str) -> Verdict {
    Verdict {
        answer: Answer::Fail,
        alone: false,
        since_s: 240.9,
        compared_s: 240.9,
        log_evidence: Some(8.1),
        log_threshold: 6.9,
        health: None,
        held: None,
        warm_up_s: None,
        findings: vec![finding],
        reason: reason.to_owned(),
    }
}

fn counts() -> Counts {
    Counts {
        canary: rate(14, 900),
        baseline: rate(20, 17_000),
        ratio: Some(13.2),
        ratio_interval: Some([6.7, 26.0]),
        canary_since_onset: rate(12, 31),
        baseline_since_onset: rate(3, 610),
        canary_requests: rate(14, 40),
        baseline_requests: rate(4, 800),
    }
}

/// A verdict on failures.
pub(super) fn failing() -> Verdict {
    let finding = Finding {
        metric: Metric::Errors,
        amount: None,
        route: None,
        log_evidence: Some(9.4),
        component: None,
        onset_s: Some(240.0),
        numbers: Numbers::Errors {
            counts: counts(),
            tolerated_ratio: 1.1,
            tolerated_excess: 0.003,
        },
    };
    verdict(
        finding,
        "35 % of its requests failed (14 of 40, 12 players, 0.9 s); baseline 0.5 % (4 of 800); allowed 0.85 %. \
         Wrong once in 3,300.",
    )
}

/// A verdict on latency.
pub(super) fn latency_verdict() -> Verdict {
    let counts = Counts {
        canary_requests: Rate::default(),
        canary_since_onset: rate(30, 100),
        baseline_since_onset: rate(10, 1_000),
        ..counts()
    };
    let finding = Finding {
        metric: Metric::LatencyP99,
        amount: None,
        route: None,
        log_evidence: Some(9.4),
        component: None,
        onset_s: Some(200.0),
        numbers: Numbers::Latency {
            counts,
            canary_slow_ms: Some(24.0),
            baseline_slow_ms: Some(20.0),
            tolerated_factor: 1.2,
            tolerated_ms: 0.0,
        },
    };
    let slow = verdict(finding, "30 % of its requests were slow to begin.");
    Verdict { warm_up_s: Some(30.0), ..slow }
}

/// The ejection of v42.
pub(super) fn opened() -> Opened {
    let verdict = failing();
    Opened {
        id: Id::new(at(0.0), "game-api", "v42", Kind::Ejected),
        at: at(0.0),
        happened: Happened {
            kind: Kind::Ejected,
            service: "game-api".to_owned(),
            version: "v42".to_owned(),
            endpoint: None,
            route: None,
            by: "verdict".to_owned(),
            reason: verdict.reason.clone(),
            verdict: Some(verdict),
            ejected_at: None,
            rollout: None,
        },
        baseline: Some("v41".to_owned()),
        generation: 7,
        config_hash: "06addf45ff87c65c".to_owned(),
        earlier: None,
        counted: Sums::default(),
        begun: None,
    }
}

/// What happened around it.
pub(super) fn evidence() -> Evidence {
    let event = |s, what, by: &str, reason: &str| Moment {
        by: Some(by.to_owned()),
        ..Moment::event(at(s), at(0.0), what, reason.to_owned())
    };
    let mut ejected = event(0.0, "ejected", "verdict", "35 % of its requests failed");
    ejected.subject = Some("v42".to_owned());
    let journal = |seq, s: f64, kind: &str, by: &str, reason: &str| JournalEntry {
        seq,
        hash: format!("{seq:064x}"),
        at: super::text::rfc3339(at(s)),
        kind: kind.to_owned(),
        service: Some("game-api".to_owned()),
        by: by.to_owned(),
        reason: reason.to_owned(),
    };
    Evidence {
        from: at(-300.0),
        until: at(60.0),
        events: vec![
            ejected,
            event(12.0, "weights", "ops", "v42 stays out until it is fixed"),
            event(-180.0, "weights", "ci", "v42 grows to 5 %"),
        ],
        journal: vec![
            journal(11, -180.0, "weights", "ci", "v42 grows to 5 %"),
            journal(12, 0.1, "ejected", "verdict", "35 % of its requests failed"),
        ],
        versions: vec![curve("v41", Role::Baseline), curve("v42", Role::Subject)],
        moments: Moments::default(),
        instance: "edge-1:9090".to_owned(),
    }
}

/// What v42 fails in the seconds that the curve has failures of.
fn failed_attempts() -> Vec<FailedSecond> {
    let kinds = FailureKinds { status: 2, timeout: 1, ..FailureKinds::default() };
    (-5..0).map(|s| FailedSecond { from_s: f64::from(s), kinds }).collect()
}

/// Traffic that looks like some, and is the same each time.
fn curve(name: &str, role: Role) -> VersionCurve {
    let is_canary = role == Role::Subject;
    let seconds = |of: fn(i32, bool) -> u32| (-300..60).map(|s| of(s, is_canary)).collect();
    let requests = |s: i32, is_canary: bool| {
        let wave = (f64::from(s) / 17.0).sin() * 20.0 + f64::from(s * 7919 % 23);
        match is_canary {
            true if !(-180..0).contains(&s) => 0,
            true => 10,
            false => (190.0 + wave) as u32,
        }
    };
    let failures = |s: i32, is_canary: bool| match is_canary {
        true => 3 * u32::from((-5..0).contains(&s)),
        false => u32::from(s % 9 == 0),
    };
    let with_traffic = if is_canary { -180..0 } else { -300..60 };
    let latency = with_traffic.step_by(5).map(|s| {
        let noise = f64::from(s * 31 % 13) / 13.0;
        let base = if is_canary { 3.6 } else { 3.1 };
        LatencyPoint {
            from_s: f64::from(s),
            count: 50,
            p50_ms: base + 0.3 * noise,
            p95_ms: 2.9 * base + noise,
            p99_ms: 4.2 * base + 3.0 * noise,
        }
    });
    VersionCurve {
        name: name.to_owned(),
        role,
        rates: RateCurve {
            from_s: -300.0,
            requests: seconds(requests),
            failures: seconds(failures),
        },
        latency: latency.collect(),
        failed_attempts: if is_canary { failed_attempts() } else { Vec::new() },
    }
}
