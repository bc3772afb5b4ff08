//! Origins that fail, reset and hang at random under load, while weights change. `TIDEGATE_RETRIES_SECONDS`
//! says how long; 2 by default.

use std::{
    collections::HashMap,
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};

use tidegate::registry::RetryReason;

use super::*;
use crate::support::Client;

const CLIENTS: usize = 6;

/// The ids of the requests that the origins saw.
type Record = Arc<Mutex<Vec<String>>>;

/// How long the storms last.
fn length() -> Duration {
    let seconds = std::env::var("TIDEGATE_RETRIES_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// An origin that notes the id of each request that it got whole, and then answers, fails, resets or hangs.
fn stormy(name: &'static str, record: &Record) -> Origin {
    let record = Arc::clone(record);
    Origin::start(move |call| {
        call.read_body()?;
        // As a server that acts first: what happens to its answer is another matter.
        let id = call.head.field("x-id").unwrap_or_default().to_owned();
        record.lock().expect("no panic").push(id);
        match fastrand::u8(..100) {
            0..8 => call.answer(500, b"failed"),
            8..14 => resets(call),
            14..17 => {
                call.send("HTTP/1.1 200 OK\r\nContent-Le")?;
                resets(call)
            }
            17..19 => call.await_end(),
            19..21 => {
                call.answer(200, name.as_bytes())?;
                // A connection that is closed right after an answer may get a request on its way.
                call.close();
                Ok(())
            }
            _ => call.answer(200, name.as_bytes()),
        }
    })
}

/// One client: reads, writes with a key and writes without one, each with an id of its own.
fn play(proxy: &Proxy, number: usize, until: Instant) -> u64 {
    let mut client = proxy.connect();
    let mut asked = 0;
    while Instant::now() < until {
        let id = format!("{number}-{asked}");
        let player = fastrand::u32(..500).to_string();
        let (kind, request) = match asked % 4 {
            0 => ("r", client.get("/")),
            1 => ("w", client.post("/bets", b"stake=10")),
            _ => ("k", client.post("/bets", b"stake=10").header("Idempotency-Key", &id)),
        };
        let id = format!("{kind}{id}");
        let sent = request.header("x-id", &id).header("x-player-id", &player).try_send();
        asked += 1;
        if sent.is_err() {
            client = proxy.connect();
        }
    }
    asked
}

#[test]
fn in_a_storm_no_write_without_a_key_is_seen_twice() {
    let record = Record::default();
    let origins: Vec<Origin> =
        ["v1", "v1", "v2", "v2"].into_iter().map(|name| stormy(name, &record)).collect();
    let addresses = |of: &[Origin]| of.iter().map(|origin| origin.address).collect::<Vec<_>>();
    let retry = "{ attempts: 3, on: [ connect, reset, timeout, 5xx ], idempotency_key: honoured, \
                 rescue: shared_store, budget: 100%, attempt_timeout: 100ms, backoff: 2ms }";
    let proxy = Proxy::builder()
        .workers(2)
        .version_at("v1", &addresses(&origins[..2]))
        .version_at("v2", &addresses(&origins[2..]))
        .service("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .route(&format!("timeout: 1s, retry: {retry}"))
        .start();
    let until = Instant::now() + length();
    let asked: u64 = thread::scope(|scope| {
        let proxy = &proxy;
        let clients: Vec<_> =
            (0..CLIENTS).map(|n| scope.spawn(move || play(proxy, n, until))).collect();
        while Instant::now() < until {
            let share = fastrand::f64() * 98.0 + 1.0;
            proxy.set_weights(&[("v1", 100.0 - share), ("v2", share)]);
            thread::sleep(Duration::from_millis(20));
        }
        clients.into_iter().map(|client| client.join().expect("no panic")).sum()
    });
    eventually("nothing is in flight", || proxy.in_flight() == 0);
    let mut seen: HashMap<String, u32> = HashMap::new();
    for id in record.lock().expect("no panic").iter() {
        *seen.entry(id.clone()).or_default() += 1;
    }
    let most = |kind: char| {
        seen.iter().filter(|(id, _)| id.starts_with(kind)).map(|(_, times)| *times).max()
    };
    assert_eq!(most('w'), Some(1), "a bet was placed twice");
    assert!(most('k').is_some_and(|times| (2..=3).contains(&times)), "{:?}", most('k'));
    // Also where a connection was closed meanwhile.
    assert!(most('r').is_some_and(|times| times <= 3), "{:?}", most('r'));
    assert!(asked > 100, "{asked}");
    let repeated =
        RetryReason::ALL.map(|reason| proxy.retries("v1", reason) + proxy.retries("v2", reason));
    assert!(repeated[RetryReason::Reset as usize] > 0, "{repeated:?}");
    assert!(repeated[RetryReason::Status as usize] > 0, "{repeated:?}");
    assert!(repeated[RetryReason::Timeout as usize] > 0, "{repeated:?}");
}

/// Fails 30 % of its requests in three ways once it is to.
fn bad_canary(fails: &Arc<AtomicBool>) -> Origin {
    let fails = Arc::clone(fails);
    Origin::start(move |call| -> io::Result<()> {
        call.skip_body()?;
        if !fails.load(SeqCst) {
            return call.answer(200, b"v2");
        }
        match fastrand::u8(..100) {
            0..20 => call.answer(500, b"failed"),
            20..30 => resets(call),
            _ => call.answer(200, b"v2"),
        }
    })
}

#[test]
fn a_canary_that_fails_a_third_of_the_reads_is_ejected_and_no_client_sees_one_of_them() {
    let fails = Arc::new(AtomicBool::new(false));
    let (good, bad) = (Origin::answering("v1"), bad_canary(&fails));
    let proxy = Proxy::builder()
        .workers(2)
        .version("v1", &good)
        .version("v2", &bad)
        .service("weights: { v1: 80, v2: 20 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: {} }")
        .route("retry: { rescue: true }")
        .start();
    let (seen, asked, ended) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client: Client = proxy.connect();
                while !ended.load(SeqCst) {
                    let player = fastrand::u32(..100_000).to_string();
                    let answer = client.get("/").header("x-player-id", &player).try_send();
                    let failed = answer.as_ref().map_or(true, |answer| answer.status != 200);
                    seen.fetch_add(u64::from(failed), SeqCst);
                    if asked.fetch_add(1, SeqCst) == 3_000 {
                        fails.store(true, SeqCst);
                    }
                }
            });
        }
        let _end = crate::support::SetOnDrop(&ended);
        eventually("the canary is ejected", || proxy.controller().ejections().len() == 1);
        thread::sleep(Duration::from_millis(100));
    });
    assert_eq!(seen.load(SeqCst), 0, "failed answers of {}", asked.load(SeqCst));
    assert!(rescued(&proxy, "v2") > 3, "{}", rescued(&proxy, "v2"));
    assert_eq!(proxy.snapshot().services[0].version("v2").map(|v| v.ejected), Some(true));
}
