//! Worse canaries: how many requests fail before they are ejected.

use super::{
    population::{Fault, Population, Stumbles},
    run::Run,
    table::{LATENCY, Report, USUAL, costs, eject, ejections, percent},
    validity::size,
};

const ALPHA: f64 = 0.001;
const SIZES: [(f64, f64, usize); 5] = [
    (2_000.0, 0.05, 4_000),
    (1_000.0, 0.05, 10_000),
    (1_000.0, 0.01, 1_000),
    (200.0, 0.05, 1_000),
    (5_000.0, 0.25, 100_000),
];

/// A fault that fails requests of all players.
fn fails(from_s: f64, failing: f64) -> Option<Fault> {
    Some(Fault { from_s, failing, players: 1.0, latency: 1.0 })
}

fn failed(run: &Run) -> u32 {
    run.failed
}

/// The mean learnt size of clusters when the fault began.
fn phi(runs: &[Run]) -> String {
    format!("{:.2}", runs.iter().map(|run| run.phi).sum::<f64>() / runs.len() as f64)
}

/// Failed answers by the fraction of the canary's requests that fail.
pub(super) fn detect(report: &mut Report) {
    report.begin(
        "a canary fails after 20 good seconds, base 0.05 %: failed answers until out, median / \
         90 % \
         (found within 200 s if not all)",
        &["requests/s", "canary", "players", "fails", "failed answers"],
    );
    for (per_s, share, players) in SIZES {
        for (failing, of) in
            [(1.0, 1.0), (0.3, 1.0), (0.05, 1.0), (0.02, 1.0), (1.0, 0.1), (1.0, 0.03)]
        {
            let fault = Some(Fault { from_s: 20.0, failing, players: of, latency: 1.0 });
            let length_s = 220.0;
            let population =
                Population { players, per_s, share, fault, length_s, ..Population::default() };
            let runs = report.runs(&population, &eject(USUAL, ALPHA));
            let mut row = size(&population);
            row.push(match of {
                1.0 => percent(failing),
                _ => format!("{} of {} of the players", percent(failing), percent(of)),
            });
            row.push(costs(&runs, failed));
            report.row(&row);
        }
    }
}

/// Failed answers by the number of a canary's endpoints, all of which fail: it is ejected only if the evidence
/// suffices without its worst endpoint.
pub(super) fn pods(report: &mut Report) {
    report.begin(
        "a canary fails on all its endpoints after 20 good seconds, base 0.05 %; 2,000/s of 4,000 \
         players, canary 5 %: failed answers until out, median / 90 % (found within 200 s if not all)",
        &["endpoints", "fails", "failed answers"],
    );
    for endpoints in [1, 2, 3, 5] {
        for failing in [1.0, 0.3, 0.05] {
            let population = Population {
                players: 4_000,
                per_s: 2_000.0,
                endpoints: [endpoints, endpoints],
                fault: fails(20.0, failing),
                length_s: 220.0,
                ..Population::default()
            };
            let runs = report.runs(&population, &eject(USUAL, ALPHA));
            report.row(&[endpoints.to_string(), percent(failing), costs(&runs, failed)]);
        }
    }
}

/// Requests by how much slower the canary is.
pub(super) fn slowdetect(report: &mut Report) {
    report.begin(
        "a canary is slower after 40 s, warm-up 30 s: its requests until out, median / 90 % (found \
         within 300 s if not all)",
        &["requests/s", "canary", "players", "slower", "requests"],
    );
    for (per_s, share, players) in SIZES {
        for latency in [1.5, 2.0, 3.0] {
            let population = Population {
                players,
                per_s,
                share,
                fault: Some(Fault { from_s: 40.0, failing: 0.0, players: 1.0, latency }),
                latencies: true,
                before_s: 60.0,
                length_s: 340.0,
                ..Population::default()
            };
            let runs = report.runs(&population, &eject(LATENCY, ALPHA));
            let mut row = size(&population);
            row.extend([format!("{latency} times"), costs(&runs, |run| run.asked)]);
            report.row(&row);
        }
    }
}

/// Failed answers after hours in which many players failed once.
pub(super) fn late(report: &mut Report) {
    report.begin(
        "a canary fails after two good hours, base 0.1 %: failed answers until out, median / 90 % \
         (found within 300 s if not all)",
        &["requests/s", "canary", "players", "fails", "failed answers"],
    );
    for players in [1_000, 10_000] {
        for failing in [1.0, 0.3, 0.05] {
            let population = Population {
                players,
                per_s: 200.0,
                failing: 0.001,
                fault: fails(7_200.0, failing),
                length_s: 7_500.0,
                ..Population::default()
            };
            let runs = report.runs(&population, &eject(USUAL, ALPHA));
            let mut row = size(&population);
            row.extend([percent(failing), costs(&runs, failed)]);
            report.row(&row);
        }
    }
}

/// Failed answers after changes of weights.
pub(super) fn ramp(report: &mut Report) {
    report.begin(
        "weights change so often within ten good minutes, canary at 10 % of 1,000/s, base 0.05 %; \
         then it fails: failed answers until out, median / 90 % (found within 120 s if not all)",
        &["steps", "fails", "failed answers"],
    );
    for steps in [0_u32, 5, 20, 50, 100, 200, 600] {
        for failing in [1.0, 0.05, 0.02] {
            // Setting the same weights again would be no change.
            let step = |n: u32| {
                let at_s = 600.0 * f64::from(n) / f64::from(steps) + 0.5;
                (at_s, if n.is_multiple_of(2) { 0.1001 } else { 0.1 })
            };
            let population = Population {
                share: 0.1,
                steps: (0..steps).map(step).collect(),
                fault: fails(600.0, failing),
                length_s: 720.0,
                ..Population::default()
            };
            let runs = report.runs(&population, &eject(USUAL, ALPHA));
            report.row(&[steps.to_string(), percent(failing), costs(&runs, failed)]);
        }
    }
}

/// Failed answers after a rolling restart of the baseline.
pub(super) fn phi_after_restart(report: &mut Report) {
    report.begin(
        "each of ten endpoints of the baseline fails all for 1 s, one after the other; X \
         minutes later \
         the canary (5 % of 1,000/s) fails: failed answers until out, median / 90 % (found \
         within 300 s \
         if not all)",
        &["base", "restart", "fails", "phi", "failed answers"],
    );
    let restart = Stumbles::Restart { from_s: 100.0, gap_s: 10.0, length_s: 1.0 };
    for base in [0.0, 0.000_5] {
        for (stumbles, wait_min, text) in [
            (Stumbles::Never, 5.0, "none".to_owned()),
            (restart, 1.0, "1 min before".to_owned()),
            (restart, 30.0, "30 min before".to_owned()),
            (restart, 60.0, "60 min before".to_owned()),
        ] {
            for failing in [1.0, 0.3, 0.05] {
                let from_s = 200.0 + 60.0 * wait_min;
                let population = Population {
                    failing: base,
                    endpoints: [10, 1],
                    stumbles,
                    fault: fails(from_s, failing),
                    length_s: from_s + 300.0,
                    ..Population::default()
                };
                let runs = report.runs(&population, &eject(USUAL, ALPHA));
                let (phi, costs) = (phi(&runs), costs(&runs, failed));
                report.row(&[percent(base), text.clone(), percent(failing), phi, costs]);
            }
        }
    }
}

/// How often healthy canaries are ejected if the processes of both versions fail all requests from time to
/// time.
pub(super) fn bursts(report: &mut Report) {
    report.begin(
        "equal versions; each endpoint fails all that it gets for a moment, now and then; 10 % \
         + 0.3 % \
         tolerated, alpha 0.1 %; two hours",
        &["requests/s", "canary", "endpoints", "about every", "length", "ejected", "phi"],
    );
    for (per_s, share, endpoints) in [
        (200.0, 0.05, [19, 1]),
        (1_000.0, 0.05, [1, 1]),
        (1_000.0, 0.05, [19, 1]),
        (1_000.0, 0.05, [38, 2]),
        (1_000.0, 0.25, [9, 3]),
    ] {
        for (every_s, length_s) in [(3_600.0, 0.2), (3_600.0, 1.0), (600.0, 0.2), (600.0, 1.0)] {
            let population = Population {
                per_s,
                share,
                failing: 0.0,
                endpoints,
                stumbles: Stumbles::Bursts { every_s, length_s },
                before_s: 120.0,
                length_s: 7_200.0,
                ..Population::default()
            };
            let runs = report.runs(&population, &eject(USUAL, ALPHA));
            report.row(&[
                per_s.to_string(),
                percent(share),
                format!("{} and {}", endpoints[0], endpoints[1]),
                format!("{every_s} s"),
                format!("{length_s} s"),
                ejections(&runs, runs.len() as u64),
                phi(&runs),
            ]);
        }
    }
}

/// A worse canary must be found within a minute; runs with every test run.
#[test]
fn a_worse_canary_is_ejected_whatever_its_players() {
    let report = Report::new(4, 0);
    let population = |failing, latency| Population {
        players: 1_000,
        per_s: 400.0,
        fault: Some(Fault { from_s: 10.0, failing, players: 1.0, latency }),
        length_s: 70.0,
        ..Population::default()
    };
    for (failing, most) in [(1.0, 12), (0.3, 20)] {
        let runs = report.runs(&population(failing, 1.0), &eject(USUAL, ALPHA));
        assert!(runs.iter().all(|run| run.out_s.is_some() && run.failed <= most), "{runs:?}");
    }
    let slow = Population { latencies: true, before_s: 10.0, ..population(0.0, 3.0) };
    let quick = LATENCY.replace("30s", "0s");
    let runs = report.runs(&slow, &eject(&quick, ALPHA));
    assert!(runs.iter().all(|run| run.out_s.is_some() && run.asked <= 800), "{runs:?}");
}
