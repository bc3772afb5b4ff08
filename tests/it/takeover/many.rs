//! A takeover with many services, under requests on new connections and changes of weights.

use std::{collections::BTreeMap, fmt::Write as _, sync::atomic::AtomicU32};

use super::*;
use crate::cutover::runs;

/// The longest time for which no new connection may be accepted.
const MOST: Duration = Duration::from_millis(200);

/// Threads that open connections.
const CLIENTS: u64 = 4;

fn file(services: u64, address: SocketAddr, admin: SocketAddr, origins: &[Origin; 2]) -> String {
    let [v1, v2] = [&origins[0], &origins[1]].map(|origin| origin.address);
    let mut text = format!(
        "workers: 2\nlisten: [ {{ address: \"{address}\" }} ]\nadmin: {{ address: \"{admin}\" }}\nservices:\n"
    );
    for n in 0..services {
        let versions =
            format!("{{ v1: {{ endpoints: [ \"{v1}\" ] }}, v2: {{ endpoints: [ \"{v2}\" ] }} }}");
        let health = "health: { http: { path: / }, interval: 1s }";
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  s{n}:\n    baseline: v1\n    weights: {{ v1: 1 }}\n    {health}\n    versions: {versions}"
        );
    }
    text.push_str("routes:\n");
    for n in 0..services {
        let _ = writeln!(text, "  - {{ service: s{n}, match: {{ path: \"/s{n}/*\" }} }}");
    }
    text
}

/// The longest time between two answers on new connections of all clients together.
#[derive(Default)]
struct Gap {
    last: Mutex<Option<Instant>>,
    longest: Mutex<Duration>,
    answers: AtomicU64,
}

impl Gap {
    fn answered(&self) {
        let now = Instant::now();
        let before = self.last.lock().expect("no panic").replace(now);
        let gap = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        let mut longest = self.longest.lock().expect("no panic");
        *longest = gap.max(*longest);
        self.answers.fetch_add(1, SeqCst);
    }

    /// The longest one since the last call.
    fn taken(&self) -> Duration {
        std::mem::take(&mut *self.longest.lock().expect("no panic"))
    }
}

/// What became of the changes that one thread makes, one after the other.
#[derive(Default)]
struct Changes {
    made: u64,
    refused: u64,
    since: Option<Instant>,
    longest: Duration,
    /// By service: the weight of v2 that was acknowledged last, and those that were asked for since.
    weights: BTreeMap<u64, Vec<u32>>,
}

impl Changes {
    fn ask(&mut self, service: u64, weight: u32, admin: SocketAddr) {
        let body = json!({ "weights": { "v1": 1000 - weight, "v2": weight } }).to_string();
        let path = format!("/v1/services/s{service}/weights");
        let begun = Instant::now();
        let mut client = Client::connect(admin);
        let asking = client.request("PUT", &path).host("localhost").body(body.as_bytes());
        let answer = asking.try_send().ok();
        let asked = self.weights.entry(service).or_default();
        match answer.map(|answer| answer.status) {
            Some(200) => {
                *asked = vec![weight];
                self.made += 1;
                if let Some(since) = self.since.take() {
                    self.longest = self.longest.max(since.elapsed());
                }
            }
            Some(503) | None => {
                asked.push(weight);
                self.refused += 1;
                self.since.get_or_insert(begun);
            }
            Some(status) => panic!("a change was answered {status}"),
        }
    }
}

/// `TIDEGATE_TAKEOVER_SERVICES` sets how many services there are; three usually.
#[test]
fn a_takeover_of_many_services_accepts_new_connections_all_the_while() {
    let services = runs("TIDEGATE_TAKEOVER_SERVICES", 3);
    let (origins, admin) = (origins(), free_address());
    let process = Process::spawn(|address| file(services, address, admin, &origins));
    eventually("the admin endpoint is there", || TcpStream::connect(admin).is_ok());
    let (stop, gap, next) = (AtomicBool::new(false), Gap::default(), AtomicU32::new(1));
    let changes = Mutex::new(Changes::default());
    let (mut quiet, mut during) = (Duration::ZERO, Duration::ZERO);
    let mut took = Duration::ZERO;
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        let (stop, gap, address) = (&stop, &gap, process.address);
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for n in client.. {
                    if stop.load(SeqCst) {
                        return;
                    }
                    let path = format!("/s{}/bets", n % services);
                    let answer = Client::connect(address).get(&path).try_send();
                    assert_eq!(answer.expect("an answer").status, 200);
                    gap.answered();
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let (changes, next) = (&changes, &next);
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                let weight = next.fetch_add(1, SeqCst) % 999 + 1;
                let service = u64::from(weight) % services;
                changes.lock().expect("no panic").ask(service, weight, admin);
                thread::sleep(Duration::from_millis(2));
            }
        });
        let more = |count: u64| {
            let before = gap.answers.load(SeqCst);
            eventually("clients are answered", || gap.answers.load(SeqCst) > before + count);
        };
        more(200);
        let _ = gap.taken();
        more(1_000);
        quiet = gap.taken();
        for _ in 0..3 {
            let begun = Instant::now();
            upgrade(admin);
            took = took.max(begun.elapsed());
            more(200);
            during = during.max(gap.taken());
        }
    });
    let changes = changes.into_inner().expect("no panic");
    eprintln!(
        "takeovers with {services} services, of at most {took:.0?}: no new connection was answered for at most \
         {during:.1?} ({quiet:.1?} without one); changes were refused for at most {:.1?} ({} of {})",
        changes.longest,
        changes.refused,
        changes.made + changes.refused,
    );
    // Where the machine alone delays clients by more, the limit says nothing.
    assert!(during <= MOST.max(quiet * 2), "{during:?}, without a takeover {quiet:?}");
    assert!(changes.longest < PATIENCE, "changes were refused for {:?}", changes.longest);
    let status = status(admin).expect("a process");
    for (service, allowed) in &changes.weights {
        let weight = status["overrides"][format!("s{service}")]["v2"].as_f64();
        let is_allowed = allowed.iter().any(|allowed| weight == Some(f64::from(*allowed)));
        assert!(is_allowed, "s{service}: {weight:?} is in force, and not one of {allowed:?}");
    }
}
