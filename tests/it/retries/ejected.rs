//! A version that is ejected while a request waits to be sent again, or is in flight, gets it no more.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::*;
use crate::support::Client;

/// Two versions, of which all players get the canary; the rest of the route.
fn canary(good: &Origin, bad: &Origin, route: &str) -> Proxy {
    Proxy::builder()
        .version("v1", good)
        .version("v2", bad)
        .service("weights: { v1: 1, v2: 999999 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .top("admin: { address: 127.0.0.1:0 }")
        .route(&format!("timeout: 20s, {route}"))
        .start()
}

fn eject(proxy: &Proxy) {
    let body = json!({ "version": "v2", "reason": "pays twice" }).to_string();
    let mut admin = proxy.admin();
    let asked = admin.post("/v1/services/game-api/eject", body.as_bytes()).host("localhost");
    assert_eq!(asked.send().status, 200);
}

/// Sends a bet with a key; what it got comes when it is there.
fn bet(proxy: &Proxy) -> thread::JoinHandle<(u16, String)> {
    let address = proxy.address;
    thread::spawn(move || {
        let mut client = Client::connect(address);
        let asked = client.post("/bets", b"stake").header("Idempotency-Key", "k");
        let answer = asked.header("x-player-id", "7").send();
        (answer.status, answer.text().to_owned())
    })
}

#[test]
fn an_ejection_during_the_pause_ends_the_request_and_nothing_is_sent() {
    let good = Origin::answering("v1");
    let later = "HTTP/1.1 503 Later\r\nRetry-After: 15\r\nContent-Length: 0\r\n\r\n";
    let bad = failing("v2", 1, move |call| call.send(later));
    let proxy = canary(&good, &bad, "retry: { idempotency_key: honoured }");
    let bet = bet(&proxy);
    eventually("it waits to be sent again", || proxy.retries("v2", RetryReason::Status) == 1);
    // Another change, which concerns nobody who waits.
    proxy.set_weights(&[("v1", 2.0), ("v2", 98.0)]);
    let began = Instant::now();
    eject(&proxy);
    let (status, text) = bet.join().expect("no panic");
    // Regression: it learnt of the ejection when the pause was over.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(status == 503 && text.contains("no_version"), "{status} {text}");
    assert_eq!((bad.requests(), good.requests()), (1, 0));
    assert_eq!(withheld(&proxy, "v2", Withheld::Ejected), 1);
}

#[test]
fn a_failure_after_the_ejection_is_told_or_rescued_and_nothing_is_sent_there() {
    for (rescue, expected) in [("false", (503, "failed")), ("shared_store", (200, "v1"))] {
        let good = Origin::answering("v1");
        let go = Arc::new(AtomicUsize::new(0));
        let held = Arc::clone(&go);
        let bad = failing("v2", 1, move |call| {
            eventually("it is ejected", || held.load(SeqCst) == 1);
            call.answer(503, b"failed")
        });
        let retry = format!("retry: {{ idempotency_key: honoured, rescue: {rescue} }}");
        let proxy = canary(&good, &bad, &retry);
        let bet = bet(&proxy);
        bad.await_requests(1);
        eject(&proxy);
        go.store(1, SeqCst);
        let (status, text) = bet.join().expect("no panic");
        assert_eq!((status, &*text), expected);
        assert_eq!(bad.requests(), 1);
    }
}

/// A read may be sent once more after a reset of a connection that was used before, without any policy.
#[test]
fn a_reset_after_the_ejection_repeats_nothing_there() {
    let good = Origin::answering("v1");
    let go = Arc::new(AtomicUsize::new(0));
    let held = Arc::clone(&go);
    let bad = Origin::start(move |call| {
        if call.head.raw.starts_with("GET /slow") {
            eventually("it is ejected", || held.load(SeqCst) == 1);
            call.reset();
            return Ok(());
        }
        call.answer(200, b"v2")
    });
    let proxy = canary(&good, &bad, "name: plain");
    assert_eq!(proxy.get("/").text(), "v2");
    let address = proxy.address;
    let read = thread::spawn(move || Client::connect(address).get("/slow").send().status);
    bad.await_requests(2);
    eject(&proxy);
    go.store(1, SeqCst);
    assert_eq!(read.join().expect("no panic"), 502);
    assert_eq!((bad.requests(), good.requests()), (2, 0));
}

#[test]
fn a_route_that_keeps_its_version_sends_again_there() {
    let good = Origin::answering("v1");
    let go = Arc::new(AtomicUsize::new(0));
    let held = Arc::clone(&go);
    let bad = failing("v2", 1, move |call| {
        eventually("it is ejected", || held.load(SeqCst) == 1);
        call.answer(503, b"failed")
    });
    let kept = "version: v2, on_eject: keep, retry: { idempotency_key: honoured }";
    let proxy = canary(&good, &bad, kept);
    let bet = bet(&proxy);
    bad.await_requests(1);
    eject(&proxy);
    go.store(1, SeqCst);
    assert_eq!(bet.join().expect("no panic"), (200, "v2".to_owned()));
}
