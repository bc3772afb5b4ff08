//! How many players notice a bad canary: two backends, the real program, an open-loop load, and a fault
//! after some seconds of good service.
//!
//! `TIDEGATE_TARGET_RUNS=20 cargo test --release --test it targets -- --nocapture --test-threads 1`
//! measures what is promised in `docs/ejection.md` and holds it to that, in 25 minutes; the machine
//! should have nothing else to do. Without it there is one short run of two faults, with room for a
//! busy machine. `TIDEGATE_TARGETS` names the cases to run if not all: `100%`, `50%`, `30%`, `5%`,
//! `latency`, `outage`, `cost`.

use std::{
    fmt, fs, iter,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::{
    Proxy,
    backends::{Backends, Behavior},
    eventually, lacks,
    load::{Load, Seen},
    nginx::Nginx,
    process::Process,
    proxy::Builder,
};

/// What the documentation recommends. Latency is not judged in the first 30 seconds of a canary.
const EJECT: &str = "eject: { errors: { relative: 10%, absolute: 0.3% }, latency: { p99: 20% } }";
/// The same with latency judged after a second, at both quantiles.
const EJECT_SLOW: &str = "eject: { errors: { relative: 10%, absolute: 0.3% }, \
                          latency: { p95: 20%, p99: 20% }, warm_up: 1s }";
/// And at the 99th percentile alone.
const EJECT_P99: &str = "eject: { errors: { relative: 10%, absolute: 0.3% }, \
                         latency: { p99: 20% }, warm_up: 1s }";
/// Everything is judged, and nothing is ever ejected.
const WATCH: &str = "eject: { errors: { relative: 10%, absolute: 0.3% }, \
                     latency: { p95: 20%, p99: 20% }, warm_up: 0s, minimum_failures: 1000000000 }";
/// Good service before a fault.
const GOOD: Duration = Duration::from_secs(5);
/// Longest wait for an ejection.
const LIMIT: Duration = Duration::from_secs(25);
/// After an ejection, until whatever was in flight has ended.
const SETTLE: Duration = Duration::from_millis(500);
/// Shared outages that are watched at the same time.
const AT_ONCE: usize = 5;

/// How often each case runs, and how it is loaded.
#[derive(Clone, Copy)]
struct Effort {
    runs: usize,
    per_s: u32,
    good: Duration,
    /// Share of the requests due before the fault that must have been asked and answered by then; with
    /// fewer, others kept the machine busy, and the run is made again.
    least: f64,
}

/// Runs that were asked for, or nothing.
fn asked_runs() -> Option<usize> {
    std::env::var("TIDEGATE_TARGET_RUNS").ok().and_then(|text| text.parse().ok())
}

/// Whether `case` is to run.
fn is_asked(case: &str) -> bool {
    let asked = std::env::var("TIDEGATE_TARGETS").ok();
    asked.is_none_or(|names| names.split(',').any(|name| name == case))
}

/// An NGINX that answers `name`, and fails a share of the requests while the file `fault` is there.
fn backend(name: &str, share: &str, fault: &Path) -> Nginx {
    let rest = if share == "100%" { "" } else { "* 0;" };
    let http = format!(
        "keepalive_requests 10000000; keepalive_timeout 60s;\n\
        split_clients $request_id $unlucky {{ {share} 1; {rest} }}"
    );
    let server = format!(
        "location / {{ set $fails 0; if (-f {}) {{ set $fails $unlucky; }}\n\
        if ($fails = 1) {{ return 500 \"{name}\"; }} return 200 \"{name}\"; }}",
        fault.display()
    );
    Nginx::start(&http, &server)
}

fn builder(addresses: [std::net::SocketAddr; 2]) -> Builder {
    Proxy::builder()
        .workers(2)
        .version_at("v1", &[addresses[0]])
        .version_at("v2", &[addresses[1]])
        .service("cohort: { key: [ 'header:x-player-id' ] }")
}

fn is_ejected(process: &Process) -> bool {
    process.log().contains("version ejected")
}

/// Loads a new process, switches the fault on after some good service, and waits until the canary is
/// out: what clients saw since the fault, or nothing if they could not ask as often as they should.
fn watch_a_fault(builder: &Builder, effort: Effort, fault: impl FnOnce()) -> Option<Seen> {
    let process = builder.clone().service("weights: { v1: 95, v2: 5 }").spawn();
    let load = Load::start(process.address, effort.per_s);
    thread::sleep(effort.good);
    let before = load.seen();
    let due = effort.good.as_secs_f64() * f64::from(effort.per_s);
    assert!(before.failed == 0 && !is_ejected(&process), "before the fault: {}", process.log());
    if (before.answered as f64) < effort.least * due {
        println!("made again: {} answers of {due}", before.answered);
        return None;
    }
    fault();
    let deadline = Instant::now() + LIMIT;
    while !is_ejected(&process) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(is_ejected(&process), "not ejected within {LIMIT:?}: {:?}", load.seen());
    thread::sleep(SETTLE);
    let after = load.seen();
    thread::sleep(SETTLE);
    assert_eq!(load.seen().failed, after.failed, "answers fail after the ejection");
    Some(after.since(before))
}

/// The results of as many runs as are wanted; a run without a result is made again.
fn results(effort: Effort, run: impl FnMut() -> Option<u64>) -> Vec<u64> {
    let attempts = iter::repeat_with(run).take(3 * effort.runs);
    let results: Vec<u64> = attempts.flatten().take(effort.runs).collect();
    assert_eq!(results.len(), effort.runs, "the machine is too busy");
    results
}

/// Results of the runs of a case, in order, and what they may be at most.
struct Row {
    case: String,
    of: &'static str,
    most: u64,
    /// The median is to be within it; else the worst is.
    mostly: bool,
    results: Vec<u64>,
}

impl Row {
    fn new(case: &str, of: &'static str, most: u64, mut results: Vec<u64>) -> Self {
        results.sort_unstable();
        Self { case: case.to_owned(), of, most, mostly: false, results }
    }

    fn median(&self) -> u64 {
        self.results[self.results.len() / 2]
    }

    fn worst(&self) -> u64 {
        self.results[self.results.len() - 1]
    }

    fn is_missed(&self) -> bool {
        let result = if self.mostly { self.median() } else { self.worst() };
        result > self.most
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, of, most, results, .. } = self;
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: Vec<&str> = load.split(' ').take(2).collect();
        let (runs, median, worst, load) =
            (results.len(), self.median(), self.worst(), load.join(" "));
        write!(f, "| {case} | {runs} | {of} | {median} | {worst} | {most} | {load} | {results:?}")
    }
}

/// A canary that fails a share of its requests: the failed answers that clients got.
fn failing(share: &str, most: u64, effort: Effort) -> Row {
    let folder = TempDir::new().expect("a folder");
    let fault = folder.path().join("fault");
    let never = folder.path().join("never");
    let backends = [backend("v1", share, &never), backend("v2", share, &fault)];
    let builder = builder([&backends[0], &backends[1]].map(|nginx| nginx.address)).service(EJECT);
    let run = || {
        let switch_on = || fs::write(&fault, "").expect("a file");
        let seen = watch_a_fault(&builder, effort, switch_on);
        // It was not made if the run came to nothing.
        let _ = fs::remove_file(&fault);
        Some(seen?.failed)
    };
    Row::new(share, "failed answers", most, results(effort, run))
}

/// A canary all of whose answers take twice as long, judged as `eject` says: the requests that it got.
fn twice_as_slow(case: &str, eject: &str, most: u64, effort: Effort) -> Row {
    // The 99th percentile is 32 ms.
    let behavior = Behavior { sigma: 0.8, ..Behavior::default() };
    let backends = Backends::start(&["v1", "v2"], &behavior);
    let (baseline, canary) = (&backends.all[0], &backends.all[1]);
    let builder = builder([baseline.address, canary.address]).service(eject);
    let run = || {
        let slower = || canary.behave(|canary| canary.latency = 2 * behavior.latency);
        let seen = watch_a_fault(&builder, effort, slower);
        canary.behave(|canary| canary.latency = behavior.latency);
        Some(seen?.canary)
    };
    Row::new(case, "canary requests", most, results(effort, run))
}

/// An outage of 30 % on both versions while the canary's share grows: how often it was ejected.
fn shared_outage(runs: usize, per_s: u32, step: Duration) -> Row {
    let folder = TempDir::new().expect("a folder");
    let fault = folder.path().join("fault");
    let backends = ["v1", "v2"].map(|name| backend(name, "30%", &fault));
    let builder =
        builder([&backends[0], &backends[1]].map(|nginx| nginx.address)).service(EJECT).workers(1);
    let share = |canary: u32| {
        builder.clone().service(&format!("weights: {{ v1: {}, v2: {canary} }}", 100 - canary))
    };
    let round = |at_once: usize| -> u64 {
        let started = (0..at_once).map(|_| {
            let process = share(1).spawn();
            let load = Load::start(process.address, per_s);
            (process, load)
        });
        let started: Vec<(Process, Load)> = started.collect();
        for canary in [1, 5, 25, 50] {
            for (process, _) in &started {
                process.write(&share(canary).listen(process.address).text());
            }
            thread::sleep(step / 2);
            match canary {
                1 => fs::write(&fault, "").expect("a file"),
                50 => fs::remove_file(&fault).expect("the file"),
                _ => {}
            }
            thread::sleep(step / 2);
        }
        let ejected = started.iter().filter(|(process, load)| {
            let seen = load.seen();
            assert!(seen.failed * 10 > seen.answered, "there was no outage: {seen:?}");
            assert!(seen.canary * 20 > seen.answered, "the share did not grow: {seen:?}");
            is_ejected(process)
        });
        ejected.count() as u64
    };
    let rounds = (0..runs).step_by(AT_ONCE).map(|done| round(AT_ONCE.min(runs - done)));
    let ejected = rounds.sum();
    Row {
        case: format!("shared outage, {runs} runs"),
        of: "ejections",
        most: 0,
        mostly: false,
        results: vec![ejected],
    }
}

#[test]
fn targets_of_ejection_are_reached() {
    if lacks("nginx", "nginx-light") {
        return;
    }
    let rows: Vec<Row> = match asked_runs() {
        Some(runs) => {
            let effort = Effort { runs, per_s: 2_000, good: GOOD, least: 0.95 };
            let faults = [("100%", 12), ("50%", 15), ("30%", 20), ("5%", 30)];
            let faults = faults.into_iter().filter(|(share, _)| is_asked(share));
            let rows = faults.map(|(share, most)| failing(share, most, effort));
            let slow = || {
                let both = twice_as_slow("twice as slow", EJECT_SLOW, 800, effort);
                // What one quantile of a long tail tells in 800 requests is enough in most runs.
                let alone = twice_as_slow("twice as slow, p99 alone", EJECT_P99, 800, effort);
                [both, Row { mostly: true, ..alone }]
            };
            let slow = iter::once_with(|| is_asked("latency").then(slow)).flatten().flatten();
            let outage = || shared_outage(runs * 5 / 2, 400, Duration::from_millis(2_500));
            let outage = iter::once_with(|| is_asked("outage").then(outage)).flatten();
            rows.chain(slow).chain(outage).inspect(|row| println!("{row}")).collect()
        }
        None => {
            let good = Duration::from_secs(2);
            let effort = Effort { runs: 1, per_s: 1_000, good, least: 0.1 };
            vec![failing("100%", 100, effort), failing("30%", 100, effort)]
        }
    };
    let missed: Vec<String> =
        rows.iter().filter(|row| row.is_missed()).map(Row::to_string).collect();
    assert!(missed.is_empty(), "{missed:#?}");
    assert!(rows.iter().all(|row| row.case.contains("outage") || row.results[0] >= 3));
}

/// Processor time of the safety thread with and without a comparison.
#[test]
fn comparing_costs_little() {
    if lacks("nginx", "nginx-light") {
        return;
    }
    let (seconds, per_s) = match asked_runs() {
        Some(_) if is_asked("cost") => (20, 10_000),
        Some(_) => return,
        None => (1, 1_000),
    };
    let folder = TempDir::new().expect("a folder");
    let never = folder.path().join("never");
    let backends = ["v1", "v2"].map(|name| backend(name, "30%", &never));
    let addresses = [&backends[0], &backends[1]].map(|nginx| nginx.address);
    let spent = |eject: &str| {
        let builder = Proxy::builder().workers(2);
        let builder = builder.version_at("v1", &[addresses[0]]).version_at("v2", &[addresses[1]]);
        let builder = builder.service("cohort: { key: [ 'header:x-player-id' ] }").service(eject);
        let process = builder.service("weights: { v1: 95, v2: 5 }").spawn();
        let load = Load::start(process.address, per_s);
        eventually("there is load", || load.seen().answered > u64::from(per_s));
        let (before, began) = ((process.cpu("safety"), load.seen()), Instant::now());
        thread::sleep(Duration::from_secs(seconds));
        let elapsed = began.elapsed().as_secs_f64();
        let cpu = (process.cpu("safety") - before.0).as_secs_f64() / elapsed;
        let reached = (load.seen().answered - before.1.answered) as f64 / elapsed;
        println!("| {eject} | {reached:.0} a second | {:.2} % of a core |", cpu * 100.0);
        assert!(!is_ejected(&process));
        cpu
    };
    let off = spent("eject: { mode: off }");
    let cost = spent(WATCH) - off;
    println!("a comparison costs {:.2} % of a core", cost * 100.0);
    // A busy machine and a program that is not optimised cost more.
    assert!(cost < if asked_runs().is_some() { 0.01 } else { 0.2 });
}
