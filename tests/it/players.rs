//! Whether a verdict holds with real players: the real program, backends that misbehave in ways of their
//! own, and an open-loop load in which each request is some player's.
//!
//! `TIDEGATE_PLAYERS_RUNS=5 cargo test --release --test it players -- --nocapture --test-threads 1`
//! runs every case five times, prints a line for each and fails if an aim is missed; it takes an hour of
//! a machine that should have nothing else to do. `TIDEGATE_PLAYERS=cursed,hung-1s` names the cases to
//! run if not all. A plain `cargo test` runs the quick ones once, with room for a busy machine.

mod finds;
mod keeps;
mod stage;

use std::{fmt, fs, thread, time::Duration};

use crate::support::{
    backends::{Backends, Behavior, Fault},
    eventually,
    load::{Clients, Load},
};
use stage::{Pace, Stage, Watched};

/// What a fault may cost at most, times this, where other tests keep the machine busy.
const ROOM: u64 = 25;
/// How often a run is made again on a busy machine, at most, for each that is wanted.
const ATTEMPTS: usize = 3;

/// A kind of run, and what is to come of it.
struct CanaryComparison {
    name: &'static str,
    aim: Aim,
    /// What is counted.
    of: &'static str,
    run: fn(Pace) -> Run,
    when: When,
}

#[derive(Clone, Copy)]
enum Aim {
    /// The canary is not ejected.
    Stays,
    /// It is, at the latest after so many of what is counted.
    Goes(u64),
    /// It is, or an event says what is wrong.
    Told,
    /// None; what happened is printed.
    Shown,
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    /// By plain `cargo test`, too.
    Quick,
    Asked,
    /// If it is named: an option of later, or a known limit.
    Named,
}

/// What came of a run.
struct Run {
    /// Others kept the machine busy: the run does not count.
    busy: Option<String>,
    ejected: Option<Duration>,
    told: bool,
    cost: u64,
    /// What else should have happened and has not.
    missing: Option<&'static str>,
    /// For people.
    note: String,
}

impl Run {
    fn of(stage: &Stage, watched: &Watched, cost: u64) -> Self {
        let (ejected, note) = (watched.ejected, stage.told());
        Self { busy: None, ejected, told: false, cost, missing: None, note }
    }

    fn busy(reason: String) -> Self {
        let (ejected, note) = (None, String::new());
        Self { busy: Some(reason), ejected, told: false, cost: 0, missing: None, note }
    }
}

/// Every case in the order of the specification.
fn cases() -> Vec<CanaryComparison> {
    let case = |name, aim, of, run: fn(Pace) -> Run| CanaryComparison {
        name,
        aim,
        of,
        run,
        when: When::Asked,
    };
    let (failed, requests) = ("failed answers", "canary requests");
    let stays = |name, run: fn(Pace) -> Run| case(name, Aim::Stays, failed, run);
    let goes = |name, of, most, run: fn(Pace) -> Run| case(name, Aim::Goes(most), of, run);
    vec![
        CanaryComparison { when: When::Quick, ..goes("all", failed, 12, finds::all) },
        stays("equal", keeps::equal),
        stays("cursed", |pace| keeps::cursed(pace, 5.0, 1_000.0, 20.0)),
        stays("cursed-1%", |pace| keeps::cursed(pace, 1.0, 200.0, 10.0)),
        goes("hung-0.5s", requests, 60, |pace| finds::hung(pace, 1.0, Duration::from_millis(500))),
        goes("hung-1s", requests, 60, |pace| finds::hung(pace, 1.0, Duration::from_secs(1))),
        goes("hung-3s", requests, 60, |pace| finds::hung(pace, 1.0, Duration::from_secs(3))),
        goes("hung-some", requests, 600, |pace| finds::hung(pace, 0.1, Duration::from_secs(2))),
        goes("slow", requests, 60, finds::slow),
        CanaryComparison {
            when: When::Quick,
            ..goes("breaks", requests, 40, |pace| finds::breaks(pace, Duration::from_millis(150)))
        },
        goes("stalls", requests, 90, |pace| finds::breaks(pace, Duration::from_secs(60))),
        stays("serves-slowly", keeps::serves_slowly),
        stays("later-200-1000", |pace| keeps::told_later(pace, 200, 1_000)),
        stays("later-50-500", |pace| keeps::told_later(pace, 50, 500)),
        stays("later-1000-200", |pace| keeps::told_later(pace, 1_000, 200)),
        stays("later-500-50", |pace| keeps::told_later(pace, 500, 50)),
        stays("shared-hung", keeps::hung),
        stays("parity", |pace| keeps::two_changes(pace, Fault::Outage(Duration::from_secs(1)))),
        stays("parity-at-once", |pace| keeps::two_changes(pace, Fault::Stall)),
        stays("connections", keeps::new_connections),
        stays("cold", keeps::cold_start),
        stays("cold-endpoint", keeps::cold_endpoint),
        stays("one-of-three", keeps::one_of_three),
        stays("one-of-three-payouts", keeps::one_of_three_payouts),
        goes("restarted", failed, 20, finds::restarted),
        case("tenth-of-players", Aim::Told, failed, finds::tenth_of_players),
        goes("drip", requests, 60 * 50, finds::drip),
        goes("payout", "failed payouts", 60, finds::payout),
        CanaryComparison { when: When::Named, ..stays("network", keeps::network) },
        CanaryComparison {
            when: When::Named,
            ..case("many-keys", Aim::Shown, failed, keeps::many_keys)
        },
    ]
}

/// Runs of a case.
struct Row {
    case: CanaryComparison,
    runs: Vec<Run>,
    /// Why there are fewer than wanted.
    broken: Option<String>,
}

impl Row {
    /// Runs the case so often. A run that panics is the last one, and breaks no other case.
    fn new(case: CanaryComparison, wanted: usize, pace: Pace) -> Self {
        let mut row = Self { case, runs: Vec::new(), broken: None };
        let run = row.case.run;
        for _ in 0..ATTEMPTS * wanted {
            match thread::spawn(move || run(pace)).join() {
                Ok(Run { busy: Some(reason), .. }) => eprintln!("  made again: {reason}"),
                Ok(run) => {
                    let (nth, cost, note) = (row.runs.len() + 1, run.cost, run.note.trim());
                    eprintln!("  {} {nth}: {:?}, {cost}; {note}", row.case.name, run.ejected);
                    row.runs.push(run);
                }
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                    row.broken = Some(text.unwrap_or("panicked").to_owned());
                    return row;
                }
            }
            if row.runs.len() == wanted {
                return row;
            }
        }
        row.broken = Some("the machine is too busy".to_owned());
        row
    }

    fn ejected(&self) -> usize {
        self.runs.iter().filter(|run| run.ejected.is_some()).count()
    }

    fn is_missed(&self) -> bool {
        let misses = |run: &Run| match self.case.aim {
            Aim::Stays => run.ejected.is_some(),
            Aim::Goes(most) => run.ejected.is_none() || run.cost > most,
            Aim::Told => run.ejected.is_none() && !run.told,
            Aim::Shown => false,
        };
        self.broken.is_some() || self.runs.iter().any(|run| run.missing.is_some() || misses(run))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CanaryComparison { name, of, aim, .. } = &self.case;
        let mut costs: Vec<u64> = self.runs.iter().map(|run| run.cost).collect();
        costs.sort_unstable();
        let median = costs.get(costs.len() / 2).copied().unwrap_or_default();
        let worst = costs.last().copied().unwrap_or_default();
        let (runs, ejected) = (self.runs.len(), self.ejected());
        let aim = match aim {
            Aim::Stays => "stays".to_owned(),
            Aim::Goes(most) => format!("goes within {most}"),
            Aim::Told => "goes or is told".to_owned(),
            Aim::Shown => "none".to_owned(),
        };
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<&str> = load.split(' ').take(2).collect();
        let load = load.join(" ");
        let result = if self.is_missed() { "MISSED" } else { "ok" };
        write!(f, "| {name} | {runs} | {ejected} of {runs} | {of} | {median} | {worst} ")?;
        write!(f, "| {aim} | {load} | {result} |")?;
        let missing = self.runs.iter().find_map(|run| run.missing);
        if let Some(why) = self.broken.as_deref().or(missing) {
            write!(f, " {why}")?;
        }
        Ok(())
    }
}

#[test]
fn verdicts_hold_with_real_players() {
    let runs = std::env::var("TIDEGATE_PLAYERS_RUNS").ok().and_then(|text| text.parse().ok());
    let named = std::env::var("TIDEGATE_PLAYERS").ok();
    let is_asked = |case: &CanaryComparison| match &named {
        Some(names) => names.split(',').any(|name| name == case.name),
        None if runs.is_some() => case.when != When::Named,
        None => case.when == When::Quick,
    };
    let pace = if runs.is_some() { Pace::FULL } else { Pace::QUICK };
    let rows = cases().into_iter().filter(is_asked).map(|mut case| {
        if let (Aim::Goes(most), None) = (&mut case.aim, runs) {
            *most *= ROOM;
        }
        let row = Row::new(case, runs.unwrap_or(1), pace);
        println!("{row}");
        row
    });
    let rows: Vec<Row> = rows.collect();
    assert!(!rows.is_empty(), "no case is called {named:?}");
    let missed: Vec<String> =
        rows.iter().filter(|row| row.is_missed()).map(Row::to_string).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

/// The backends and clients of the cases above do what they say.
#[test]
fn backends_and_clients_of_the_cases_do_what_they_say() {
    let backends = Backends::start(&["v2"], &Behavior::default());
    let backend = &backends.all[0];
    let ask = |clients: Clients| Load::of(backend.address, vec![clients]);
    let good = ask(Clients::new(200));
    eventually("good answers", || good.seen().canary > 20);
    assert_eq!((good.seen().failed, good.seen().left), (0, 0));
    let cursed = ask(Clients::new(200).named(vec!["cursed-1".to_owned()]));
    eventually("a player fails", || cursed.seen().canary_failed > 20);
    assert_eq!((cursed.seen().canary, good.seen().failed), (cursed.seen().canary_failed, 0));
    drop(cursed);
    backend.fault(Fault::OneOf(2));
    eventually("half of the players fail", || good.seen().canary_failed > 20);
    assert!(good.seen().canary_failed < good.seen().canary);
    backend.fault(Fault::Stall);
    let hasty = ask(Clients::new(200).leaving_after(Duration::from_millis(50)));
    eventually("clients leave", || hasty.seen().left > 20);
    assert_eq!(hasty.seen().answered, 0);
    drop(hasty);
    let before = good.seen();
    backend.fault(Fault::Path("/payout"));
    eventually("the stall ends in failures", || good.seen().since(before).canary_failed > 5);
    let payouts = ask(Clients::new(200).path("/payout"));
    eventually("a path fails", || payouts.seen().canary_failed > 20);
    drop(payouts);
    let before = good.seen();
    assert!(backend.requests() > 100 && backend.connections() > 3);
    backend.behave(|behavior| {
        behavior.fault = Fault::Drip(1.0, Duration::from_secs(1));
        behavior.connecting = Duration::from_millis(10);
    });
    eventually("bodies drip", || good.seen().since(before).canary > 250);
}
