//! Tables of many runs, printed as Markdown row by row.

use std::thread;

use super::{population::Population, run::*};

/// The tolerated excess of errors in most tables.
pub(super) const USUAL: &str = "errors: { relative: 10%, absolute: 0.3% }";
/// The default tolerance: 10 % and 0.01 %.
pub(super) const DEFAULT: &str = "errors: {}";
/// With no tolerance, an equal canary is just at the limit.
pub(super) const NOTHING: &str = "errors: { relative: 0%, absolute: 0% }";
/// Errors and latency.
pub(super) const LATENCY: &str =
    "errors: { relative: 10%, absolute: 0.3% }, latency: { p95: 20%, p99: 20% }, warm_up: 30s";

/// The values of alpha at which validity is asserted, the larger one first.
const ALPHAS: [f64; 2] = [0.05, 0.001];

/// The limits of a service with this tolerance.
pub(super) fn eject(tolerated: &str, alpha: f64) -> String {
    format!("{{ {tolerated}, alpha: {alpha} }}")
}

/// The settings and results of the tables of a test run.
#[derive(Debug)]
pub(super) struct Report {
    seeds: u64,
    /// Rows of healthy canaries that remain to be skipped.
    left_out: usize,
    broken: Vec<String>,
}

impl Report {
    /// Tables with this number of seeds per row; the first `left_out` rows of healthy canaries are skipped.
    pub(super) fn new(seeds: u64, left_out: usize) -> Self {
        Self { seeds, left_out, broken: Vec::new() }
    }

    /// Rows of healthy canaries of which more were ejected than alpha allows.
    pub(super) fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Adds a row of which more were ejected than alpha allows.
    pub(super) fn note(&mut self, row: String) {
        self.broken.push(row);
    }

    /// Begins a table.
    pub(super) fn begin(&self, about: &str, columns: &[&str]) {
        println!("\n{about}; {} seeds a row\n\n| {} |", self.seeds, columns.join(" | "));
        println!("|{}", " --- |".repeat(columns.len()));
    }

    pub(super) fn row(&self, cells: &[String]) {
        println!("| {} |", cells.join(" | "));
    }

    /// Runs of all seeds.
    pub(super) fn runs(&self, population: &Population, eject: &str) -> Vec<Run> {
        let seeds: Vec<u64> = (1..=self.seeds).collect();
        runs(population, eject, &seeds)
    }

    /// Prints a row of equal versions: `what`, the fraction ejected at each alpha, and the result of `rest`.
    /// Notes the row if more were ejected than the binomial distribution explains.
    pub(super) fn healthy(
        &mut self,
        mut what: Vec<String>,
        population: &Population,
        tolerated: &str,
        rest: impl Fn(&[Run]) -> Vec<String>,
    ) {
        if self.left_out > 0 {
            self.left_out -= 1;
            return;
        }
        let mut seeds: Vec<u64> = (1..=self.seeds).collect();
        let mut cells = Vec::new();
        let mut all = None;
        for alpha in ALPHAS {
            let eject = eject(tolerated, alpha);
            let these = runs(population, &eject, &seeds);
            let ejected = these.iter().filter(|run| run.out_s.is_some()).count();
            if ejected as f64 > most(self.seeds, alpha) {
                self.note(format!("{} at alpha {}", what.join(", "), percent(alpha)));
            }
            cells.push(ejections(&these, self.seeds));
            // The evidence does not depend on alpha, only its threshold does: the other seeds are not ejected
            // either.
            let out = seeds.iter().zip(&these).filter(|(_, run)| run.out_s.is_some());
            let out = out.map(|(seed, _)| *seed).collect();
            (seeds, all) = (out, all.or(Some(these)));
        }
        what.extend(cells);
        what.extend(rest(&all.unwrap_or_default()));
        self.row(&what);
    }
}

/// Runs of these seeds, in order, on two threads.
pub(super) fn runs(population: &Population, eject: &str, seeds: &[u64]) -> Vec<Run> {
    let half = |odd: usize| -> Vec<Run> {
        let seeds = seeds.iter().skip(odd).step_by(2);
        seeds.map(|seed| run(population, eject, *seed)).collect()
    };
    thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        let even = half(0);
        let mut odd = odd.join().expect("no panic").into_iter();
        even.into_iter().flat_map(|run| [Some(run), odd.next()]).flatten().collect()
    })
}

/// Three and a half standard deviations above the mean that alpha allows.
pub(super) fn most(seeds: u64, alpha: f64) -> f64 {
    let mean = seeds as f64 * alpha;
    mean + 3.5 * (mean * (1.0 - alpha)).sqrt()
}

/// The fraction of runs of `seeds` that ejected, and the median time.
pub(super) fn ejections(runs: &[Run], seeds: u64) -> String {
    let times = sorted(runs.iter().filter_map(|run| run.out_s));
    let share = percent(times.len() as f64 / seeds as f64);
    times.get(times.len() / 2).map_or(share.clone(), |median| format!("{share} ({median:.1} s)"))
}

/// Median and ninth decile of `cost` over the runs that ejected, and the fraction of these if not all did.
pub(super) fn costs(runs: &[Run], cost: impl Fn(&Run) -> u32) -> String {
    let found = runs.iter().filter(|run| run.out_s.is_some());
    let costs = sorted(found.map(|run| f64::from(cost(run))));
    let found = percent(costs.len() as f64 / runs.len() as f64);
    match costs.len() {
        0 => "never".to_owned(),
        n if n == runs.len() => format!("{} / {}", costs[n / 2], costs[n * 9 / 10]),
        n => format!("{} / {} ({found})", costs[n / 2], costs[n * 9 / 10]),
    }
}

pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}
