//! Money under everything at once: origins that fail, reset and hang at random, weights that change, cutovers, and a
//! process that is replaced and killed. By the origins' own record no key is processed twice, and no write without a key
//! is sent twice. `TIDEGATE_MONEY_SECONDS` says how long, 8 by default; `TIDEGATE_MONEY_PLAYERS` how many play at once, 16
//! by default.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Answer, Client, Origin, Proxy, SetOnDrop, eventually,
    origin::Call,
    process::{Process, free_address},
    proxy::SERVICE,
    wire::Wire,
};

/// Times that a client sends a key.
const TRIES: usize = 4;

/// How often each id was processed, by the origins' record: of keys, of writes without one, and of reads.
type Record = Arc<Mutex<HashMap<String, u32>>>;

fn length() -> Duration {
    Duration::from_secs(number("TIDEGATE_MONEY_SECONDS", 8))
}

/// Clients, each one request after the other.
fn players() -> usize {
    number("TIDEGATE_MONEY_PLAYERS", 16) as usize
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// An origin that processes a request once it has it whole, and then answers, fails, resets or hangs.
fn stormy(record: &Record) -> Origin {
    let record = Arc::clone(record);
    Origin::start(move |call| {
        call.read_body()?;
        let (id, fate) =
            (call.head.field("x-id").unwrap_or_default().to_owned(), fastrand::u8(..100));
        // By a 429 a service says that it did not process the request.
        let processes = fate >= 2 || !id.starts_with('k');
        *record.lock().expect("no panic").entry(id).or_default() += u32::from(processes);
        act(call, fate)
    })
}

fn act(call: &mut Call<'_>, fate: u8) -> io::Result<()> {
    match fate {
        0..2 => call.answer(429, b"later"),
        2..8 => call.answer(503, b"failed"),
        8..12 => {
            call.reset();
            Ok(())
        }
        12..14 => {
            call.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")?;
            call.reset();
            Ok(())
        }
        14..15 => call.await_end(),
        15..18 => {
            // A connection that is closed right after an answer may get a request on its way.
            call.answer(200, b"ok")?;
            call.close();
            Ok(())
        }
        18..22 => {
            thread::sleep(Duration::from_millis(20));
            call.answer(200, b"ok")
        }
        _ => call.answer(200, b"ok"),
    }
}

/// What a player got.
#[derive(Default)]
struct Tally {
    asked: AtomicU64,
    answered: AtomicU64,
    replayed: AtomicU64,
}

/// One player at whatever process listens at `address`: half of the requests are writes with a key, each of which is
/// sent until it has a final response, a quarter are writes without, and the others read.
fn play(address: SocketAddr, player: usize, tally: &Tally, stop: &AtomicBool) {
    let mut connection: Option<Client> = None;
    for n in 0_u64.. {
        let (kind, tries) = match n % 4 {
            0 | 2 => ('k', TRIES),
            1 => ('w', 1),
            _ => ('r', 1),
        };
        let id = format!("{kind}{player}-{n}");
        for _ in 0..tries {
            if stop.load(SeqCst) {
                return;
            }
            let Some(client) = connect(address, &mut connection) else { continue };
            tally.asked.fetch_add(1, SeqCst);
            match ask(client, kind, &id, player) {
                Ok(answer) => {
                    let is_replayed = answer.field("idempotent-replayed").is_some();
                    tally.replayed.fetch_add(u64::from(is_replayed), SeqCst);
                    tally.answered.fetch_add(u64::from(answer.status == 200), SeqCst);
                }
                Err(_) => connection = None,
            }
        }
    }
}

fn connect(address: SocketAddr, connection: &mut Option<Client>) -> Option<&mut Client> {
    if connection.is_none() {
        let stream = TcpStream::connect(address).ok();
        if stream.is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        *connection = stream.map(|stream| Client { wire: Wire::new(stream) });
    }
    connection.as_mut()
}

fn ask(client: &mut Client, kind: char, id: &str, player: usize) -> io::Result<Answer> {
    let request = match kind {
        'r' => client.get("/balance"),
        _ => client.post("/bets", b"stake=10"),
    };
    let request = request.header("X-Id", id).header("X-Player", &player.to_string());
    match kind {
        'k' => request.header("Idempotency-Key", id).try_send(),
        _ => request.try_send(),
    }
}

/// An operator, who changes weights and cuts over at whatever process serves the admin endpoint; returns how many
/// cutovers were made.
fn operate(admin: SocketAddr, stop: &AtomicBool) -> u64 {
    let (mut made, service) = (0, format!("/v1/services/{SERVICE}"));
    while !stop.load(SeqCst) {
        let share = fastrand::u32(1..100);
        let (method, path, body) = match fastrand::u8(..3) {
            0 => {
                let to = if fastrand::bool() { "v1" } else { "v2" };
                ("POST", format!("{service}/cutover"), json!({ "to": to, "reason": "a test" }))
            }
            _ => {
                let weights = json!({ "v1": 100 - share, "v2": share });
                let body = json!({ "weights": weights, "reason": "a test" });
                ("PUT", format!("{service}/weights"), body)
            }
        };
        let mut connection = None;
        if let Some(client) = connect(admin, &mut connection) {
            let body = body.to_string();
            let request = client.request(method, &path).host("localhost").body(body.as_bytes());
            let done = request.try_send().is_ok_and(|answer| answer.status == 200);
            made += u64::from(done && method == "POST");
        }
        thread::sleep(Duration::from_millis(fastrand::u64(20..120)));
    }
    made
}

/// Replaces the process, and kills all that serve, the replaced one in the midst of its drain.
fn replace_and_kill(process: &mut Process, address: SocketAddr, text: &str) {
    eventually("the process serves", || process.pids().len() == 1);
    thread::sleep(Duration::from_millis(700));
    process.signal(Signal::USR2);
    eventually("the new process serves", || process.pids().len() == 2);
    thread::sleep(Duration::from_millis(fastrand::u64(100..700)));
    process.kill_all();
    *process = Process::spawn_at(address, text);
}

#[test]
fn no_key_is_processed_twice_and_no_write_without_one_is_sent_twice_whatever_happens() {
    let record = Record::default();
    let origins: Vec<Origin> = (0..4).map(|_| stormy(&record)).collect();
    let addresses = |of: &[Origin]| of.iter().map(|origin| origin.address).collect::<Vec<_>>();
    let (folder, address, admin) =
        (TempDir::new().expect("a folder"), free_address(), free_address());
    let retry = "{ attempts: 3, on: [ connect, reset, timeout, 5xx ], rescue: true, budget: 100%, \
                 attempt_timeout: 150ms, backoff: 2ms }";
    let text = Proxy::builder()
        .listen(address)
        .workers(2)
        .version_at("v1", &addresses(&origins[..2]))
        .version_at("v2", &addresses(&origins[2..]))
        .service("weights: { v1: 50, v2: 50 }")
        .service("fence: { deadline: 300ms }")
        .service("cohort: { key: [ 'header:x-player' ] }")
        .route(&format!("timeout: 500ms, retry: {retry}, idempotency: {{ wait: 1s }}"))
        .top(&format!("admin: {{ address: \"{admin}\" }}"))
        .top(&format!("state: '{}'", folder.path().join("state").display()))
        .text();
    let mut process = Process::spawn_at(address, &text);
    let (stop, tally, began) = (AtomicBool::new(false), Tally::default(), Instant::now());
    let cutovers = thread::scope(|scope| {
        let _end = SetOnDrop(&stop);
        for player in 0..players() {
            let (stop, tally) = (&stop, &tally);
            scope.spawn(move || play(address, player, tally, stop));
        }
        let operator = scope.spawn(|| operate(admin, &stop));
        while began.elapsed() < length() {
            replace_and_kill(&mut process, address, &text);
        }
        stop.store(true, SeqCst);
        operator.join().expect("no panic")
    });
    let took = began.elapsed();
    let seen = record.lock().expect("no panic").clone();
    let of = |kind: char| seen.iter().filter(move |(id, _)| id.starts_with(kind));
    let twice = |kind: char| of(kind).filter(|(_, times)| **times > 1).collect::<Vec<_>>();
    assert_eq!(twice('k'), [], "of {} keys", of('k').count());
    assert_eq!(twice('w'), [], "of {} writes without a key", of('w').count());
    let [asked, answered, replayed] =
        [&tally.asked, &tally.answered, &tally.replayed].map(|count| count.load(SeqCst));
    eprintln!(
        "{asked} requests in {took:.1?}, {answered} answered 200, {replayed} replayed, {cutovers} cutovers; processed \
         once: {} keys, {} writes without; {} of {} reads more than once",
        of('k').count(),
        of('w').count(),
        twice('r').len(),
        of('r').count(),
    );
    assert!(of('k').count() > 100 && of('w').count() > 100 && replayed > 50, "{asked} requests");
    assert!(!twice('r').is_empty() && cutovers > 0, "reads were repeated, writes were moved");
}
