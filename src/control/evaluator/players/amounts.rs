//! Players with permanently different stakes.
//!
//! The mean of a canary's amounts depends on which players it got. These tables show how much of that a
//! tolerance must cover; they assert nothing.

use super::{
    population::{Bots, Population, Stakes},
    table::{Report, eject, ejections, percent},
};

const ALPHA: f64 = 0.001;

fn limits(tolerance: f64) -> String {
    let tolerated = format!("amounts: {{ stake: {} }}, warm_up: 30s", percent(tolerance));
    let amounts = "amounts: { stake: { header: x-stake } }";
    format!("{}\n    {amounts}", eject(&tolerated.replace(" %", "%"), ALPHA))
}

fn table(report: &Report, canary: f64) {
    for players in [1_000, 10_000, 100_000] {
        for (who, bots) in [
            ("stakes of sigma 1.3", vec![]),
            ("and 3 of 100 times, 20/s", vec![Bots { stake: 100.0, ..Bots::new(3, 20.0) }]),
        ] {
            let population = Population {
                players,
                bots,
                share: 0.1,
                failing: 0.0,
                before_s: 10.0,
                stakes: Some(Stakes { between: 1.3, within: 0.5, canary }),
                ..Population::default()
            };
            let mut row = vec![players.to_string(), who.to_owned()];
            for tolerance in [0.05, 0.3] {
                let runs = report.runs(&population, &limits(tolerance));
                row.push(ejections(&runs, runs.len() as u64));
            }
            report.row(&row);
        }
    }
}

const COLUMNS: [&str; 4] = ["players", "who", "ejected at 5 % tolerated", "at 30 %"];

/// Equal versions, and a canary that pays half as much again.
pub(super) fn amounts(report: &mut Report) {
    report.begin("equal versions; canary 10 % of 1,000/s; 10 min; alpha 0.1 %", &COLUMNS);
    table(report, 1.0);
    report.begin("a canary that pays 1.5 times; the same otherwise", &COLUMNS);
    table(report, 1.5);
}
