//! A takeover with many services, under requests on new connections and changes of weights.

use std::{collections::BTreeMap, fmt::Write as _, sync::atomic::AtomicU32};

use super::*;
use crate::cutover::runs;

/// The longest time for which no new connection may be accepted.
const MOST: Duration = Duration::from_millis(200);

/// The most connections that a client may open beside the proxy, one after the other with pauses of 2 ms, in the time for
/// which no new connection to the proxy is answered: a measure of time that passes slowly where the machine is slow. It is
/// half of what [`MOST`] has room for.
const MOST_BESIDE: u64 = 50;

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

/// The longest time between two answers on new connections of all clients together, and the most connections that were
/// answered beside the proxy between two such answers.
#[derive(Default)]
struct Gap {
    last: Mutex<Option<(Instant, u64)>>,
    longest: Mutex<(Duration, u64)>,
    answers: AtomicU64,
    beside: AtomicU64,
}

impl Gap {
    fn answered(&self) {
        let now = (Instant::now(), self.beside.load(SeqCst));
        let before = self.last.lock().expect("no panic").replace(now).unwrap_or(now);
        let mut longest = self.longest.lock().expect("no panic");
        longest.0 = longest.0.max(now.0.saturating_duration_since(before.0));
        longest.1 = longest.1.max(now.1.saturating_sub(before.1));
        self.answers.fetch_add(1, SeqCst);
    }

    /// The longest one since the last call.
    fn taken(&self) -> (Duration, u64) {
        std::mem::take(&mut *self.longest.lock().expect("no panic"))
    }
}

/// The larger one of each.
fn larger(one: (Duration, u64), other: (Duration, u64)) -> (Duration, u64) {
    (one.0.max(other.0), one.1.max(other.1))
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
    let (mut quiet, mut during) = ((Duration::ZERO, 0), (Duration::ZERO, 0));
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
        let beside = origins[0].address;
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                let answer = Client::connect(beside).get("/").try_send();
                assert_eq!(answer.expect("an answer").status, 200);
                gap.beside.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_millis(2));
            }
        });
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
            during = larger(during, gap.taken());
        }
    });
    let changes = changes.into_inner().expect("no panic");
    eprintln!(
        "takeovers with {services} services, of at most {took:.0?}: no new connection was answered for at most \
         {:.1?}, {} beside it ({:.1?}, {} without one); changes were refused for at most {:.1?} ({} of {})",
        during.0,
        during.1,
        quiet.0,
        quiet.1,
        changes.longest,
        changes.refused,
        changes.made + changes.refused,
    );
    // Where the machine alone delays clients by more, a time says nothing: then it delays those beside the proxy, too.
    let is_long = during.0 > MOST.max(quiet.0 * 2);
    let are_many = during.1 > MOST_BESIDE.max(quiet.1 * 2);
    assert!(!(is_long && are_many), "{during:?}, without a takeover {quiet:?}");
    assert!(changes.longest < PATIENCE, "changes were refused for {:?}", changes.longest);
    let status = status(admin).expect("a process");
    for (service, allowed) in &changes.weights {
        let weight = status["overrides"][format!("s{service}")]["v2"].as_f64();
        let is_allowed = allowed.iter().any(|allowed| weight == Some(f64::from(*allowed)));
        assert!(is_allowed, "s{service}: {weight:?} is in force, and not one of {allowed:?}");
    }
}
