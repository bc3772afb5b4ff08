//! Attackers who know a request that fails, and which keys are assigned to the canary.

use super::{
    super::stage::CANARY,
    population::{Bots, Population},
    run::Run,
    table::{Report, USUAL, eject, ejections, most, percent},
    validity::size,
};

const ALPHA: f64 = 0.001;
/// The limits under attack.
const DEFENSES: [(&str, &str); 2] = [("by key", USUAL), ("by key and network", NETWORKS)];
/// The usual limits, where a failure counts only if no player of its network has failed.
const NETWORKS: &str = "errors: { relative: 10%, absolute: 0.3% }, networks: true";
/// Numbers of keys to try, in increasing order.
const KEYS: [usize; 16] = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128];

fn attacked(size: (f64, f64, usize), keys: usize, one_network: bool) -> Population {
    let (per_s, share, players) = size;
    let attacker = Bots::new(keys, 5.0).failing(1.0);
    let bots = vec![Bots { on: Some(CANARY), one_network, from_s: 20.0, ..attacker }];
    Population { players, per_s, share, bots, length_s: 80.0, ..Population::default() }
}

fn ejected(runs: &[Run]) -> usize {
    runs.iter().filter(|run| run.out_s.is_some()).count()
}

/// The smallest number of keys that ejects half of the canaries, and the cost.
fn fewest(report: &Report, size: (f64, f64, usize), limits: &str, one_network: bool) -> String {
    for keys in KEYS {
        let runs = report.runs(&attacked(size, keys, one_network), &eject(limits, ALPHA));
        if 2 * ejected(&runs) >= runs.len() {
            let failed = runs.iter().filter(|run| run.out_s.is_some()).map(|run| run.failed);
            let mut failed: Vec<u32> = failed.collect();
            failed.sort_unstable();
            return format!("{keys} ({} failed)", failed[failed.len() / 2]);
        }
    }
    format!("more than {}", KEYS[KEYS.len() - 1])
}

/// One key, which must not be enough; and the number that is.
pub(super) fn attack(report: &mut Report) {
    report.begin(
        "an attacker fails 5/s with each of his keys, all of them the canary's, for a minute; base \
         0.05 %, 10 % + 0.3 % tolerated, alpha 0.1 %: ejected with one key; the fewest keys \
         with which \
         half of the canaries are ejected (failed answers of the canary)",
        &["requests/s", "canary", "players", "counted", "one key", "of one network", "of many"],
    );
    for size_of in [
        (200.0, 0.05, 1_000),
        (1_000.0, 0.01, 1_000),
        (1_000.0, 0.05, 10_000),
        (5_000.0, 0.05, 100_000),
        (5_000.0, 0.25, 100_000),
    ] {
        for (counted, limits) in DEFENSES {
            let one = attacked(size_of, 1, true);
            let runs = report.runs(&one, &eject(limits, ALPHA));
            let mut row = size(&one);
            row.extend([counted.to_owned(), ejections(&runs, runs.len() as u64)]);
            row.push(fewest(report, size_of, limits, true));
            row.push(fewest(report, size_of, limits, false));
            report.row(&row);
            if ejected(&runs) as f64 > most(runs.len() as u64, ALPHA) {
                let (per_s, share, _) = size_of;
                report.note(format!("one key at {per_s}/s, canary {}", percent(share)));
            }
        }
    }
}
