use std::time::Duration;

use super::{super::trace::tests::verdict, *};
use crate::{analysis::Answer, telemetry::collector::Latency};

/// The text without colors.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|p| p.split_once('m').map_or("", |(_, text)| text)).collect::<String>()
}

const AT: Duration = Duration::from_secs(1);

fn ledger(players: usize, canaries: usize) -> Ledger {
    let mut ledger = Ledger::new(players);
    ledger.begin_step(0);
    (0..players).for_each(|player| ledger.answered(player, Version::V41, AT));
    ledger.begin_step(25);
    (0..canaries).for_each(|player| ledger.answered(player, Version::V42, AT));
    ledger
}

fn observed(v42: State) -> Observed {
    let millis = Duration::from_millis;
    let minute = Quantiles { p50: millis(4), p99: millis(12_345), count: 9, ..Default::default() };
    let latency = Latency { minute, total: minute };
    let seen = |state, weight: f64| VersionSeen {
        state,
        weight,
        share: weight / 100.0,
        requests_per_second: 99_999.0,
        errors: 123_456,
        latency,
    };
    Observed { versions: [seen(State::Serving, 75.0), seen(v42, 25.0)] }
}

fn trace() -> Trace {
    let mut trace = Trace::default();
    trace.note(Some(&verdict(Answer::Undecided, Some(3.5))));
    trace.note(Some(&verdict(Answer::Fail, Some(7.5))));
    trace
}

fn scene<'a>(
    step: usize,
    observed: &'a Observed,
    ledger: &'a Ledger,
    trace: &'a Trace,
) -> Scene<'a> {
    let moment = Moment { step, left: Duration::from_secs(3_599), permille: 480 };
    let reason = "fail after 21.1 s: the canary fails more often than is tolerated";
    Scene { moment, observed, ledger, trace, reason, admin: "127.0.0.1:65535" }
}

#[test]
fn every_frame_is_as_high_and_fits_eighty_columns() {
    let (none, some) = (Trace::default(), trace());
    for players in [1, 7, 60, 400, 456, 457, 10_000] {
        let ledger = ledger(players, players / 4);
        for observed in [Observed::default(), observed(State::Serving), observed(State::Ejected)] {
            for (step, trace) in (0..STEPS).flat_map(|step| [(step, &none), (step, &some)]) {
                let lines = frame(&scene(step, &observed, &ledger, trace));
                assert_eq!(lines.len(), LINES);
                for line in lines.iter().map(|line| plain(line)) {
                    assert!(line.chars().count() <= COLUMNS, "{players} players: {line}");
                }
            }
        }
    }
}

#[test]
fn a_frame_fits_the_usual_terminal_with_a_line_for_the_cursor() {
    assert_eq!(LINES + 1, 24);
}

#[test]
fn a_frame_says_what_the_ledger_says() {
    let (observed, mut ledger, trace) = (observed(State::Serving), ledger(400, 100), trace());
    let shown = |ledger: &Ledger| {
        let lines = frame(&scene(3, &observed, ledger, &trace));
        lines.iter().map(|line| plain(line) + "\n").collect::<String>()
    };
    let text = shown(&ledger);
    assert!(text.contains("moved: 100 to v42, 0 elsewhere; 500 requests, 0 failures"), "{text}");
    assert_eq!(text.matches('◆').count(), 102, "{text}");
    assert!(text.contains("25.0 %") && text.contains("/v1/services "), "{text}");

    ledger.answered(0, Version::V41, AT);
    ledger.failed(String::new());
    let text = shown(&ledger);
    assert!(text.contains("1 ELSEWHERE") && text.contains("1 FAILURE"), "{text}");
    assert_eq!(text.matches('!').count(), 1, "{text}");
    let short = line(&scene(3, &observed, &ledger, &trace));
    assert!(
        short.contains("99 of 400 players")
            && short.contains("1 elsewhere; 0 absorbed, 0 faults, 1 failure;"),
        "{short}"
    );
}

#[test]
fn a_frame_shows_the_gate_shut_and_the_way_back() {
    let (observed, mut ledger, trace) = (observed(State::Ejected), ledger(400, 100), trace());
    ledger.begin_fault();
    ledger.faulted(0, AT);
    ledger.rescued(0);
    ledger.rescued(0);
    (0..100).for_each(|player| ledger.answered(player, Version::V41, AT));
    let scene = scene(FAULT, &observed, &ledger, &trace);
    let text: String = frame(&scene).iter().map(|line| plain(line) + "\n").collect();
    assert!(text.contains("v42 is ejected; everybody plays on v41"), "{text}");
    assert!(
        text.contains(
            "moved: 100 to v41, 0 elsewhere; 603 requests, 2 absorbed, 1 fault, 0 failures"
        )
    );
    assert!(text.contains("·◆ 400 on v41   ■ 0 on v42 (0 ± 0 expected)"), "{text}");
    assert!(text.contains("v42      ejected     25"), "{text}");
    assert!(text.contains("fail after 21.1 s: the canary fails more often than is tolerated"));
    assert!(text.contains("its rollout: curl http://"), "{text}");
    let short = line(&scene);
    assert!(short.contains("v42 ejected, weight 25, 0 of 400 players"), "{short}");
    assert!(short.contains(
        "100 moved to v41, 0 elsewhere; 2 absorbed, 1 fault, 0 failures; evidence 7.5 of 7.0"
    ));
}

#[test]
fn bars_fill_to_an_eighth() {
    for (share, filled) in [(0.0, ""), (0.0001, "▏"), (0.45, "████▌"), (1.0, "██████████")]
    {
        let (bar, rest) = bar(share);
        assert_eq!(bar, filled);
        assert_eq!(bar.chars().count() + rest.chars().count(), BAR);
    }
}

#[test]
fn thousands_are_apart() {
    for (number, text) in [(0u64, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")]
    {
        assert_eq!(thousands(number), text);
    }
}
