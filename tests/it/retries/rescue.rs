//! What a canary fails is answered by the baseline, and what never is.

use std::{io::Read, net::TcpListener};

use serde_json::Value;

use super::*;
use crate::support::nobody::{refusing, swallowing};

/// Two versions, of which all players get the canary; the rest of the route's `retry`.
fn canary(baseline: &Builder, canary: &Origin, retry: &str) -> Builder {
    baseline
        .clone()
        .version("v2", canary)
        .service("weights: { v1: 1, v2: 999999 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .top("admin: { address: 127.0.0.1:0 }")
        .route(&format!("timeout: 2s, retry: {retry}"))
}

#[test]
fn what_a_canary_fails_is_answered_by_the_baseline_and_counts_against_the_canary() {
    let (good, address) = (Origin::answering("v1"), refusing());
    let baseline = Proxy::builder().version("v1", &good);
    let faults: [fn(&mut Call<'_>) -> _; 3] = [resets, refuses, |call| {
        call.send("HTTP/1.1 503 No\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n")
    }];
    for fault in faults {
        let bad = failing("v2", usize::MAX, fault);
        let proxy = canary(&baseline, &bad, "{ rescue: true }").start();
        let mut client = proxy.connect();
        for player in 0..20 {
            let answer = client.get("/").header("x-player-id", &player.to_string()).send();
            assert_eq!((answer.status, answer.text()), (200, "v1"));
        }
        eventually("nothing is in flight", || proxy.in_flight() == 0);
        assert_eq!((bad.requests(), rescued(&proxy, "v2"), rescued(&proxy, "v1")), (20, 20, 0));
        let shown: Value =
            proxy.admin().get("/v1/services/game-api").host("localhost").send().json();
        assert_eq!(
            (&shown["versions"][1]["rescued"], &shown["versions"][1]["errors"]),
            (&20.into(), &0.into())
        );
        let page = proxy.admin().get("/metrics").host("localhost").send();
        let line = "tidegate_rescued_total{service=\"game-api\",version=\"v2\"} 20\n";
        assert!(page.text().contains(line));
    }
    let dead = Proxy::builder().version("v1", &good).version_at("v2", &[address.0]);
    let dead = dead.service("weights: { v1: 1, v2: 999999 }").route("retry: { rescue: true }");
    let proxy = dead.service("cohort: { key: [ 'header:x-player-id' ] }").start();
    let mut client = proxy.connect();
    let bet = client.post("/bets", b"once").header("x-player-id", "7").send();
    assert_eq!((bet.status, bet.text()), (200, "v1"), "nothing of it was sent");
    eventually("counted", || rescued(&proxy, "v2") == 1);
}

#[test]
fn writes_are_rescued_only_if_keys_are_shared_and_never_twice_without_a_key() {
    let good = Origin::start(|call| {
        call.read_body()?;
        call.answer(200, b"v1")
    });
    let baseline = Proxy::builder().version("v1", &good);
    for (rescue, keyed, by_baseline) in
        [("true", true, false), ("shared_store", true, true), ("shared_store", false, false)]
    {
        let bad = failing("v2", usize::MAX, refuses);
        let retry = format!("{{ idempotency_key: honoured, rescue: {rescue}, backoff: 0s }}");
        let proxy = canary(&baseline, &bad, &retry).start();
        let before = good.requests();
        let mut client = proxy.connect();
        let bet = client.post("/bets", b"stake").header("x-player-id", "7");
        let bet = if keyed { bet.header("Idempotency-Key", "k") } else { bet };
        let answer = bet.send();
        assert_eq!(
            (answer.status == 200, good.requests() - before),
            (by_baseline, usize::from(by_baseline))
        );
        // Without sharing the canary is asked once more, if there is a key.
        let asked = if keyed && !by_baseline { 2 } else { 1 };
        assert_eq!(bad.requests(), asked, "{rescue} {keyed}");
    }
}

/// The first attempt may have taken the stake, whatever became of the second one.
#[test]
fn a_write_that_was_sent_stays_with_its_version_even_if_that_is_gone_then() {
    let good = Origin::answering("v1");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let taken = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the proxy connects");
        drop(listener);
        let mut text = Vec::new();
        while !text.ends_with(b"stake") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the request");
            text.push(byte[0]);
        }
    });
    let proxy = Proxy::builder()
        .version("v1", &good)
        .version_at("v2", &[address])
        .service("weights: { v1: 1, v2: 999999 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .route("retry: { attempts: 3, idempotency_key: honoured, rescue: true, backoff: 0s }")
        .start();
    let mut client = proxy.connect();
    let bet = client.post("/bets", b"stake").header("x-player-id", "7");
    let answer = bet.header("Idempotency-Key", "k").send();
    taken.join().expect("it got the bet");
    assert_eq!((answer.status, good.requests()), (502, 0));
    eventually("counted", || proxy.retries("v2", RetryReason::Reset) == 1);
}

#[test]
fn a_version_that_a_route_a_rule_or_a_pin_chose_is_not_left() {
    let good = Origin::answering("v1");
    let baseline = Proxy::builder().version("v1", &good);
    let bad = failing("v2", usize::MAX, refuses);
    let rule = "rules: [ { match: { headers: { x-beta: '1' } }, version: v2 } ]";
    let retry = "{ rescue: true, backoff: 0s }";
    let proxy = canary(&baseline, &bad, retry).service(rule).start();
    let mut client = proxy.connect();
    assert_eq!(client.get("/").header("x-beta", "1").send().status, 503);
    assert_eq!(client.get("/").header("x-player-id", "1").send().status, 200);
    eventually("counted", || rescued(&proxy, "v2") == 1);
    assert_eq!(good.requests(), 1);

    let opens = Origin::start(|call| match call.target() {
        "/rounds" => call.send("HTTP/1.1 200 OK\r\nX-Round: r7\r\nContent-Length: 2\r\n\r\nv2"),
        _ => call.answer(503, b"no"),
    });
    let pin = "pin: { key: 'path:round', begin: { path: /rounds, methods: [ POST ], answer: { header: x-round } }, idle: 10m, limit: 2h }";
    let builder = canary(&baseline, &opens, retry).service(pin);
    let builder = builder.route(&format!("match: {{ path: '/rounds/{{round}}' }}, retry: {retry}"));
    let proxy = builder.start();
    let mut client = proxy.connect();
    assert_eq!(client.post("/rounds", b"").header("x-player-id", "1").send().status, 200);
    let held = client.get("/rounds/r7").header("x-player-id", "1").send();
    assert_eq!((held.status, good.requests()), (503, 1), "its round is unknown elsewhere");
}

#[test]
fn a_baseline_without_players_or_endpoints_rescues_nobody() {
    let bad = failing("v2", usize::MAX, refuses);
    let good = Origin::answering("v1");
    let (silent, _held) = swallowing();
    for (baseline, weights) in [
        (Proxy::builder().version("v1", &good), "weights: { v1: 0, v2: 1 }"),
        (Proxy::builder().version_at("v1", &[silent]), "weights: { v1: 1, v2: 999999 }"),
    ] {
        let builder =
            baseline.version("v2", &bad).service(weights).service("connect_timeout: 100ms");
        let proxy = builder.route("retry: { rescue: true, backoff: 0s }").start();
        let answer = proxy.get("/");
        assert!(answer.status >= 500, "{answer:?}");
        assert_eq!((good.requests(), rescued(&proxy, "v2")), (0, 0));
        eventually("nothing is in flight", || proxy.in_flight() == 0);
    }
}

#[test]
fn a_baseline_that_has_lost_its_players_meanwhile_rescues_nobody() {
    let (fail, failing) = std::sync::mpsc::channel::<()>();
    let (good, failing) = (Origin::answering("v1"), Mutex::new(failing));
    let bad = Origin::start(move |call| {
        failing.lock().expect("no panic").recv().map_err(std::io::Error::other)?;
        call.answer(503, b"no")
    });
    let baseline = Proxy::builder().version("v1", &good);
    let proxy = canary(&baseline, &bad, "{ rescue: true, on: [ 5xx ], attempts: 2 }").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Player-Id: 7\r\n\r\n");
    bad.await_requests(1);
    proxy.set_weights(&[("v1", 0.0), ("v2", 1.0)]);
    fail.send(()).expect("the origin waits");
    // What it does instead is an attempt of its own.
    bad.await_requests(2);
    fail.send(()).expect("the origin waits");
    assert_eq!((client.answer().status, good.requests()), (503, 0));
}

#[test]
fn the_log_says_why_a_request_was_repeated_or_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("access.log");
    let (good, bad) = (Origin::answering("v1"), failing("v2", usize::MAX, refuses));
    let baseline = Proxy::builder().version("v1", &good);
    let log = format!("access_log: {{ path: {} }}", file.display());
    let proxy = canary(&baseline, &bad, "{ rescue: true }").top(&log).start();
    let mut client = proxy.connect();
    client.get("/").header("x-player-id", "1").send();
    client.post("/", b"x").header("x-player-id", "1").send();
    let lines = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.collect::<Vec<Value>>()
    };
    eventually("both are logged", || lines().len() == 2);
    let lines = lines();
    let first = &lines[0];
    assert_eq!((&first["retries"], &first["retry"]), (&1.into(), &"5xx".into()));
    assert_eq!((&first["version"], &first["rescued_by"]), (&"v2".into(), &"v1".into()));
    // Regression: the fault of the canary stood beside 200, and its name beside the endpoint of the baseline.
    assert_eq!((&first["status"], &first["fault"]), (&200.into(), &Value::Null), "{first}");
    let endpoint = (&first["endpoint"], &first["endpoint_version"]);
    assert_eq!(endpoint, (&good.address.to_string().into(), &"v1".into()), "{first}");
    assert_eq!(lines[1]["endpoint_version"], Value::Null, "it stayed with its version");
    assert_eq!((&first["status"], &first["withheld"]), (&200.into(), &Value::Null));
    let second = &lines[1];
    assert_eq!((&second["retries"], &second["withheld"]), (&0.into(), &"not_idempotent".into()));
}

#[test]
fn nobody_sees_a_failure_of_a_canary_that_fails_a_third_of_its_reads_and_it_is_ejected() {
    const PLAYERS: usize = 8;
    let good = Origin::answering("v1");
    let bad = Origin::start(|call| match fastrand::u8(..100) {
        ..30 => call.answer(500, b"failed"),
        _ => call.answer(200, b"v2"),
    });
    let proxy = Proxy::builder()
        .version("v1", &good)
        .version("v2", &bad)
        .service("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: { absolute: 1% } }")
        .top("admin: { address: 127.0.0.1:0 }")
        .route("retry: { rescue: true }")
        .start();
    let ejected = AtomicUsize::new(0);
    let (asked, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for player in 0..PLAYERS {
            let (proxy, ejected, asked, failed) = (&proxy, &ejected, &asked, &failed);
            scope.spawn(move || {
                let mut client = proxy.connect();
                for n in 0_usize.. {
                    let id = (player + n % 50 * PLAYERS).to_string();
                    let status = client.get("/").header("x-player-id", &id).send().status;
                    asked.fetch_add(1, SeqCst);
                    failed.fetch_add(usize::from(status != 200), SeqCst);
                    if ejected.load(SeqCst) == 1 {
                        return;
                    }
                }
            });
        }
        eventually("it is ejected", || {
            let shown: Value =
                proxy.admin().get("/v1/services/game-api").host("localhost").send().json();
            let is_ejected = shown["versions"][1]["state"] == "ejected";
            ejected.store(is_ejected.into(), SeqCst);
            is_ejected
        });
    });
    let rescued = rescued(&proxy, "v2");
    println!("measured: {rescued} rescued of {} requests until the ejection", asked.load(SeqCst));
    assert_eq!(failed.load(SeqCst), 0);
    assert!(rescued > 0);
}
