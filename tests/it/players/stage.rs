//! The real program between backends whose behavior changes and clients that are players.

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tidegate::{config::units::Weight, routing::Split};

use crate::support::{
    Client, Proxy,
    backends::{Backend, Backends, Behavior},
    load::{Clients, Load, Seen},
    process::{Process, free_address},
    proxy::{Builder, SERVICE},
};

/// Errors alone.
pub(super) const ERRORS: &str = "errors: { relative: 10%, absolute: 0.3% }";
/// Errors, and latency after a second.
pub(super) const BOTH: &str = "errors: { relative: 10%, absolute: 0.3% }, \
                               latency: { p95: 20%, p99: 20% }, warm_up: 1s";
/// After an ejection, until whatever was in flight has ended.
const SETTLE: Duration = Duration::from_millis(500);
/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(10);

/// How long runs take, and what they demand of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Good service before a fault.
    good: Duration,
    /// Share of the requests due that must have been asked and answered; with fewer, others kept the
    /// machine busy, and the run is made again.
    least: f64,
    /// A healthy canary is watched for one part in so many of the time that it should stay.
    part: u32,
}

impl Pace {
    /// For measurements.
    pub(super) const FULL: Self = Self { good: Duration::from_secs(5), least: 0.9, part: 1 };
    /// For every change of the program, on a machine that is busy.
    pub(super) const QUICK: Self = Self { good: Duration::from_secs(2), least: 0.1, part: 4 };

    /// How long a canary is watched that is to stay for so many seconds.
    pub(super) fn limit(self, seconds: u64) -> Duration {
        Duration::from_secs(seconds) / self.part
    }
}

/// Versions, traffic and configuration of a run.
pub(super) struct Setup {
    /// Endpoints of the baseline, and of the canary.
    pub(super) endpoints: [usize; 2],
    /// Share of the canary, in percent.
    pub(super) share: f64,
    /// Fields of `eject`.
    pub(super) eject: &'static str,
    pub(super) behavior: Behavior,
    pub(super) per_s: f64,
    /// The first kind asks `per_s` times a second.
    pub(super) clients: Vec<Clients>,
    /// Routes beside the one that leads everything else.
    pub(super) routes: &'static [&'static str],
}

impl Setup {
    /// One endpoint of each version, and clients of 10,000 players.
    pub(super) fn new(share: f64, per_s: f64, eject: &'static str) -> Self {
        Self {
            endpoints: [1, 1],
            share,
            eject,
            behavior: Behavior::default(),
            per_s,
            clients: vec![Clients::new(per_s).players(10_000)],
            routes: &[],
        }
    }

    pub(super) fn start(self) -> Stage {
        Stage::start(self)
    }
}

/// A running proxy, its backends and its clients; dropped, they end.
pub(super) struct Stage {
    pub(super) baseline: Vec<usize>,
    pub(super) canary: Vec<usize>,
    pub(super) load: Load,
    pub(super) process: Process,
    backends: Backends,
    builder: Builder,
    admin: std::net::SocketAddr,
    per_s: f64,
    started: Instant,
}

/// What happened after a fault.
pub(super) struct Watched {
    /// Time from the fault to the ejection of the canary, if it was ejected.
    pub(super) ejected: Option<Duration>,
    /// Requests that reached the canary in that time.
    pub(super) requests: u64,
    /// What clients saw since the fault.
    pub(super) seen: Seen,
}

/// Keys of `count` players that the split sends to the canary while it has `share` percent.
pub(super) fn keys_of_canary(share: f64, count: usize) -> Vec<String> {
    let weight = |weight| Weight::new(weight).expect("a weight");
    let split = Split::new("", [("v1", weight(100.0 - share)), ("v2", weight(share))]);
    let keys = std::iter::repeat_with(|| format!("cursed-{}", fastrand::u32(..)));
    keys.filter(|key| split.assign(key.as_bytes()) == Some(1)).take(count).collect()
}

impl Stage {
    fn start(setup: Setup) -> Self {
        let [baseline, canary] = setup.endpoints;
        let names: Vec<&'static str> = [vec!["v1"; baseline], vec!["v2"; canary]].concat();
        let backends = Backends::start(&names, &setup.behavior);
        let admin = free_address();
        let mut builder = Proxy::builder()
            .workers(2)
            .service("cohort: { key: [ 'header:x-player-id' ] }")
            .service(&format!("eject: {{ {} }}", setup.eject))
            .service(&format!("weights: {{ v1: {}, v2: {} }}", 100.0 - setup.share, setup.share))
            .top(&format!("admin: {{ address: {admin} }}"));
        for route in setup.routes {
            builder = builder.route(route);
        }
        if !setup.routes.is_empty() {
            builder = builder.route("name: rest");
        }
        let addresses = backends.addresses();
        let process = builder
            .clone()
            .version_at("v1", &addresses[..baseline])
            .version_at("v2", &addresses[baseline..])
            .spawn();
        let load = Load::of(process.address, setup.clients);
        let (baseline, canary) = ((0..baseline).collect(), (baseline..names.len()).collect());
        let (per_s, started) = (setup.per_s, Instant::now());
        Self { baseline, canary, load, process, backends, builder, admin, per_s, started }
    }

    pub(super) fn backend(&self, number: usize) -> &Backend {
        &self.backends.all[number]
    }

    /// Changes how all endpoints of the baseline answer.
    pub(super) fn baseline(&self, change: impl Fn(&mut Behavior)) {
        self.baseline.iter().for_each(|endpoint| self.backend(*endpoint).behave(&change));
    }

    /// Changes how all endpoints of the canary answer.
    pub(super) fn canary(&self, change: impl Fn(&mut Behavior)) {
        self.canary.iter().for_each(|endpoint| self.backend(*endpoint).behave(&change));
    }

    /// Requests that reached the canary.
    pub(super) fn requests(&self) -> u64 {
        self.canary.iter().map(|endpoint| self.backend(*endpoint).requests()).sum()
    }

    /// Adds clients to those that ask already.
    pub(super) fn more(&self, clients: Clients) -> Load {
        Load::of(self.process.address, vec![clients])
    }

    /// Reads the file again with these endpoints of the canary.
    pub(super) fn reload(&self, canary: &[usize]) {
        let addresses = |numbers: &[usize]| {
            numbers.iter().map(|number| self.backend(*number).address).collect::<Vec<_>>()
        };
        let builder = self.builder.clone().listen(self.process.address);
        let builder = builder.version_at("v1", &addresses(&self.baseline));
        self.process.write(&builder.version_at("v2", &addresses(canary)).text());
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.process.log().contains("version ejected")
    }

    /// Warnings and errors about versions that the log has so far, one a line.
    pub(super) fn told(&self) -> String {
        let mut told = String::new();
        for line in self.process.log().lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            if matches!(&*text("level"), "WARN" | "ERROR") && line["version"].is_string() {
                let (message, at, reason) = (text("message"), text("endpoint"), text("reason"));
                writeln!(told, "{message} {at}: {reason}").expect("memory");
            }
        }
        told
    }

    /// Kinds of the events so far.
    pub(super) fn events(&self) -> Vec<String> {
        let mut admin = Client::connect(self.admin);
        let request = admin.get("/v1/events").host("localhost");
        let list = request.header("Accept", "application/json").send().json();
        let events = list["events"].as_array().cloned().unwrap_or_default();
        events.iter().filter_map(|event| event["kind"].as_str().map(str::to_owned)).collect()
    }

    /// Gives the canary another share; it is in force when this returns.
    pub(super) fn weights(&self, share: f64) {
        let weights = json!({ "weights": { "v1": 100.0 - share, "v2": share } }).to_string();
        let mut admin = Client::connect(self.admin);
        let target = format!("/v1/services/{SERVICE}/weights");
        let request = admin.request("PUT", &target).host("localhost");
        let request = request.header("Content-Type", "application/json");
        let answer = request.body(weights.as_bytes()).send();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Good service before a fault.
    pub(super) fn serve_well(&self, pace: Pace) -> Result<(), String> {
        self.serve(pace, pace.good)
    }

    /// Good service for some time; an error if clients could not ask as often as they should.
    pub(super) fn serve(&self, pace: Pace, time: Duration) -> Result<(), String> {
        thread::sleep(time);
        assert!(!self.is_ejected(), "ejected before the fault: {}", self.told());
        let seen = self.load.seen_by(0);
        let due = self.started.elapsed().as_secs_f64() * self.per_s;
        if (seen.answered as f64) < pace.least * due {
            return Err(format!("the machine is too busy: {} answers of {due:.0}", seen.answered));
        }
        Ok(())
    }

    /// Watches until the canary is ejected, at most for `limit`; `begin` switches the fault on.
    pub(super) fn watch(&self, limit: Duration, begin: impl FnOnce()) -> Watched {
        let (before, requests, began) = (self.load.seen(), self.requests(), Instant::now());
        begin();
        while !self.is_ejected() && began.elapsed() < limit {
            thread::sleep(LOOK);
        }
        let ejected = self.is_ejected().then(|| began.elapsed());
        let requests = self.requests() - requests;
        thread::sleep(SETTLE);
        Watched { ejected, requests, seen: self.load.seen().since(before) }
    }
}
