//! Healthy canaries: players who fail, are slow or retry do so on either version.

use super::{
    super::stage::{BASELINE, CANARY},
    population::{Bots, Population, Shard},
    run::Run,
    table::{DEFAULT, LATENCY, NOTHING, Report, USUAL, percent},
};

const EJECTED: [&str; 2] = ["ejected at alpha 5 %", "at alpha 0.1 %"];
const SIZES: [(f64, usize); 5] =
    [(200.0, 1_000), (1_000.0, 1_000), (1_000.0, 10_000), (5_000.0, 10_000), (5_000.0, 100_000)];
const SHARES: [f64; 3] = [0.01, 0.05, 0.25];

/// The name of a row, with size and share.
pub(super) fn size(Population { per_s, share, players, .. }: &Population) -> Vec<String> {
    vec![per_s.to_string(), percent(*share), players.to_string()]
}

fn nothing(_: &[Run]) -> Vec<String> {
    Vec::new()
}

/// How often a bot was on the canary.
fn hit(runs: &[Run]) -> Vec<String> {
    let hit = runs.iter().filter(|run| run.bots_on_canary > 0).count();
    vec![percent(hit as f64 / runs.len() as f64)]
}

/// A few short rows like those of the tables below, for every test run.
pub(super) fn short(report: &mut Report) {
    report.begin("equal versions, two minutes", &["what", EJECTED[0], EJECTED[1]]);
    let healthy = Population {
        per_s: 200.0,
        players: 1_000,
        length_s: 120.0,
        look_s: 0.02,
        ..Population::default()
    };
    let fails = Bots { on: Some(CANARY), ..Bots::new(1, 10.0).failing(1.0) };
    let cursed = Population { bots: vec![fails], ..healthy.clone() };
    report.healthy(vec!["one player fails".into()], &cursed, USUAL, nothing);

    let busy = Bots { on: Some(BASELINE), ..Bots::new(3, 200.0) };
    let bots = vec![busy, Bots::new(100, 0.5).failing(0.3)];
    let busy = Population { share: 0.25, bots, ..healthy.clone() };
    report.healthy(vec!["busy bots".into()], &busy, DEFAULT, nothing);

    let shard = Some(Shard { from_s: 5.0, until_s: 115.0, share: 1.0 / 64.0 });
    let shard = Population { shard, share: 0.25, sigma: 1.5, ..healthy.clone() };
    report.healthy(vec!["a shard fails".into()], &shard, DEFAULT, nothing);

    let retry = Population { retries: 10, failing: 0.01, share: 0.25, ..healthy.clone() };
    report.healthy(vec!["clients retry".into()], &retry, DEFAULT, nothing);

    let slow = Bots { latency_us: Some(400_000.0), from_s: -30.0, ..Bots::new(1, 10.0) };
    let bots = vec![Bots { on: Some(CANARY), ..slow }];
    let slow = Population { bots, latencies: true, before_s: 30.0, ..healthy };
    report.healthy(vec!["a slow player".into()], &slow, LATENCY, nothing);
}

/// Players whose every request fails.
pub(super) fn cursed(report: &mut Report) {
    report.begin(
        "0.1 % of the players fail always, in either version, the others 0.05 %; 10 % + 0.3 % \
         tolerated; 10 min (5,000/s: 2 min)",
        &[
            "requests/s",
            "canary",
            "players",
            "cursed x Q/s",
            EJECTED[0],
            EJECTED[1],
            "one is on it",
        ],
    );
    for (per_s, players) in SIZES {
        for share in SHARES {
            for each_per_s in [10.0, 30.0] {
                let cursed = players / 1_000;
                if cursed > 10 && cursed as f64 * each_per_s > per_s / 2.0 {
                    continue;
                }
                let bots = vec![Bots::new(cursed, each_per_s).failing(1.0)];
                let length_s = if per_s >= 5_000.0 { 120.0 } else { 600.0 };
                let population =
                    Population { players, per_s, share, bots, length_s, ..Population::default() };
                let mut what = size(&population);
                what.push(format!("{cursed} x {each_per_s}"));
                report.healthy(what, &population, USUAL, hit);
            }
        }
    }
}

/// An outage that affects the same players in both versions.
pub(super) fn shard(report: &mut Report) {
    report.begin(
        "one player of 64 fails for three minutes of four, in either version; 10 % + 0.3 % \
         tolerated",
        &["requests/s", "canary", "players", EJECTED[0], EJECTED[1]],
    );
    for (per_s, players) in SIZES {
        for share in SHARES {
            let shard = Some(Shard { from_s: 30.0, until_s: 210.0, share: 1.0 / 64.0 });
            let length_s = 240.0;
            let population =
                Population { players, per_s, share, shard, length_s, ..Population::default() };
            report.healthy(size(&population), &population, USUAL, nothing);
        }
    }
}

/// Players whose requests take longer.
pub(super) fn slow(report: &mut Report) {
    report.begin(
        "slow players: 400 ms beside 20 ms in either version; p95 and p99 at 20 %; 10 min",
        &["requests/s", "canary", "players", "slow x Q/s", EJECTED[0], EJECTED[1], "one is on it"],
    );
    for (per_s, players, count, each_per_s) in [
        (1_000.0, 10_000, 10, 5.0),
        (1_000.0, 10_000, 10, 20.0),
        (1_000.0, 10_000, 3, 20.0),
        (200.0, 1_000, 1, 10.0),
        (5_000.0, 100_000, 100, 5.0),
        (5_000.0, 100_000, 100, 20.0),
        (5_000.0, 10_000, 10, 20.0),
    ] {
        for share in SHARES {
            let slow =
                Bots { latency_us: Some(400_000.0), from_s: -60.0, ..Bots::new(count, each_per_s) };
            let (bots, latencies, before_s) = (vec![slow], true, 60.0);
            let population = Population {
                players,
                per_s,
                share,
                bots,
                latencies,
                before_s,
                ..Population::default()
            };
            let mut what = size(&population);
            what.push(format!("{count} x {each_per_s}"));
            report.healthy(what, &population, LATENCY, hit);
        }
    }
}

/// Clients that retry failed requests at once.
pub(super) fn retry(report: &mut Report) {
    report.begin(
        "a failed request (0.1 %) is sent again up to K times at once, each fails at 80 %; \
         1,000/s, \
         canary 5 %, ten endpoints; an hour",
        &["K", "tolerated", EJECTED[0], EJECTED[1], "phi of endpoints"],
    );
    let phi = |runs: &[Run]| {
        let sum: f64 = runs.iter().map(|run| run.phi).sum();
        vec![format!("{:.2}", sum / runs.len() as f64)]
    };
    for retries in [3, 10] {
        for (tolerated, text) in TOLERATED {
            let population = Population {
                retries,
                failing: 0.001,
                endpoints: [10, 1],
                before_s: 600.0,
                length_s: 3_600.0,
                ..Population::default()
            };
            report.healthy(vec![retries.to_string(), text.into()], &population, tolerated, phi);
        }
    }
}

const TOLERATED: [(&str, &str); 3] =
    [(DEFAULT, "10 % + 0.01 %"), (USUAL, "10 % + 0.3 %"), (NOTHING, "nothing")];

/// Players that differ permanently.
pub(super) fn differ(report: &mut Report) {
    report.begin(
        "some players fail more often than others, in either version; 200/s; three hours",
        &["tolerated", "players", "canary", "who", EJECTED[0], EJECTED[1]],
    );
    for (tolerated, text) in [TOLERATED[1], TOLERATED[0]] {
        for (players, share) in [(1_000, 0.05), (10_000, 0.05), (10_000, 0.25)] {
            let some = (players * 3 / 1_000).max(1);
            for (who, failing, bots) in [
                ("all alike: 0.1 %", 0.001, vec![]),
                ("0.1 %: always, 5/s", 0.000_5, vec![Bots::new(players / 1_000, 5.0).failing(1.0)]),
                ("1 %: 30 % of 0.1/s", 0.000_5, vec![Bots::new(players / 100, 0.1).failing(0.3)]),
                ("0.3 %: 5 % of 2/s", 0.000_5, vec![Bots::new(some, 2.0).failing(0.05)]),
            ] {
                let population = Population {
                    players,
                    share,
                    per_s: 200.0,
                    failing,
                    bots,
                    length_s: 3.0 * 3_600.0,
                    look_s: 0.05,
                    ..Population::default()
                };
                let what = vec![text.into(), players.to_string(), percent(share), who.into()];
                report.healthy(what, &population, tolerated, nothing);
            }
        }
    }
}

/// Healthy bots that send far more than others: they change the shares of requests, not those of players.
pub(super) fn bots(report: &mut Report) {
    report.begin(
        "700/s of 10,000 players, of whom 100 fail 30 % of 0.1/s more, the others 0.05 %; three \
         healthy bots of 100/s; an hour",
        &["tolerated", "canary", EJECTED[0], EJECTED[1]],
    );
    for (tolerated, text) in [TOLERATED[2], TOLERATED[0]] {
        for share in [0.05, 0.25] {
            let bots = vec![Bots::new(3, 100.0), Bots::new(100, 0.1).failing(0.3)];
            let (per_s, length_s) = (700.0, 3_600.0);
            let population = Population { share, per_s, bots, length_s, ..Population::default() };
            report.healthy(vec![text.into(), percent(share)], &population, tolerated, nothing);
        }
    }
}

/// Nothing is tolerated.
pub(super) fn boundary(report: &mut Report) {
    report.begin(
        "nothing tolerated; 1,000/s of 10,000 players; an hour",
        &["canary", "traffic", EJECTED[0], EJECTED[1]],
    );
    for share in [0.05, 0.25] {
        for (traffic, bots) in [
            ("all alike: 0.1 %", vec![]),
            ("10 fail always, 5/s", vec![Bots::new(10, 5.0).failing(1.0)]),
            ("100 fail 30 % of 0.1/s", vec![Bots::new(100, 0.1).failing(0.3)]),
        ] {
            let (failing, length_s) = (0.001, 3_600.0);
            let population = Population { share, failing, bots, length_s, ..Population::default() };
            report.healthy(vec![percent(share), traffic.into()], &population, NOTHING, nothing);
        }
    }
}
