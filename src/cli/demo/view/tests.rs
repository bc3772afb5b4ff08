use std::time::Duration;

use super::*;
use crate::telemetry::collector::Latency;

/// What a terminal would show: the text without colors.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|p| p.split_once('m').map_or("", |(_, text)| text)).collect::<String>()
}

fn ledger(players: usize, canaries: usize) -> Ledger {
    let mut ledger = Ledger::new(players);
    ledger.begin_step(0);
    (0..players).for_each(|player| ledger.answered(player, Version::V41));
    ledger.begin_step(25);
    (0..canaries).for_each(|player| ledger.answered(player, Version::V42));
    ledger
}

fn observed() -> Observed {
    let millis = Duration::from_millis;
    let minute = Quantiles { p50: millis(4), p99: millis(12_345), count: 9, ..Default::default() };
    let latency = Latency { minute, total: minute };
    let seen = |weight: f64| VersionSeen {
        weight,
        share: weight / 100.0,
        requests_per_second: 99_999.0,
        errors: 123_456,
        latency,
    };
    Observed { generation: 4, versions: [seen(75.0), seen(25.0)] }
}

fn scene<'a>(step: usize, observed: &'a Observed, ledger: &'a Ledger) -> Scene<'a> {
    let moment = Moment { step, left: Duration::from_secs(3_599), permille: 480 };
    Scene { moment, observed, ledger, hint: "curl http://127.0.0.1:65535/metrics" }
}

#[test]
fn every_frame_is_as_high_and_fits_eighty_columns() {
    for players in [1, 7, 60, 400, 456, 457, 10_000] {
        let ledger = ledger(players, players / 4);
        for observed in [Observed::default(), observed()] {
            for step in 0..WEIGHTS.len() {
                let lines = frame(&scene(step, &observed, &ledger));
                assert_eq!(lines.len(), LINES);
                for line in lines.iter().map(|line| plain(line)) {
                    assert!(line.chars().count() <= COLUMNS, "{players} players: {line}");
                }
            }
        }
    }
}

#[test]
fn a_frame_says_what_the_ledger_says() {
    let (observed, mut ledger) = (observed(), ledger(400, 100));
    let shown = |ledger: &Ledger| {
        let lines = frame(&scene(3, &observed, ledger));
        lines.iter().map(|line| plain(line) + "\n").collect::<String>()
    };
    let text = shown(&ledger);
    assert!(text.contains("100 to the growing version, 0 elsewhere; 300 stayed"), "{text}");
    assert_eq!(text.matches('◆').count(), 102, "{text}");
    assert!(text.contains("25.0 %") && text.contains("500 requests so far, 0 failures"), "{text}");

    ledger.answered(0, Version::V41);
    ledger.failed(String::new());
    let text = shown(&ledger);
    assert!(text.contains("1 ELSEWHERE") && text.contains("1 failures"), "{text}");
    assert_eq!(text.matches('!').count(), 1, "{text}");
    let short = line(&scene(3, &observed, &ledger));
    assert!(
        short.contains("99 of 400 players") && short.contains("1 elsewhere; 1 failures"),
        "{short}"
    );
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
