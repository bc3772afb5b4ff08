//! Endpoints that cannot serve get no requests, and those that can again get them back.

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::Duration,
};

use serde_json::json;
use tidegate::registry::{ErrorKind, RetryReason};

use crate::support::{
    Origin, SetOnDrop, eventually,
    http2::{Origin2, read_all, send_all},
    nobody::refusing,
    patient::{Patient, QUICK, at, builder, metric, served, shown, state},
};

#[test]
fn an_endpoint_whose_checks_fail_gets_no_request_and_gets_them_back() {
    let (a, b) = (Patient::new("a"), Patient::new("b"));
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let proxy = builder(&health).version_at("v1", &at(&[&a, &b])).start();
    let up = || metric(&proxy, "tidegate_endpoint_up", b.origin.address, "");
    eventually("b was checked", || b.origin.requests() > 0);
    assert_eq!((state(&proxy, 0, 1), up()), ("serving".to_owned(), Some(1.0)));
    assert!(served(&proxy, 200).iter().any(|name| name == "b"));

    b.ill.store(true, SeqCst);
    eventually("b is down", || state(&proxy, 0, 1) == "down");
    assert_eq!((state(&proxy, 0, 0), up()), ("serving".to_owned(), Some(0.0)));
    assert_eq!(shown(&proxy)["versions"][0]["available"], true);
    b.broken.store(true, SeqCst);
    let before = b.players();
    assert!(served(&proxy, 300).iter().all(|name| name == "a"));
    assert_eq!(b.players(), before);
    let bad = metric(&proxy, "tidegate_health_checks_total", b.origin.address, ",result=\"bad\"");
    assert!(bad.is_some_and(|bad| bad >= 2.0), "{bad:?}");

    b.broken.store(false, SeqCst);
    b.ill.store(false, SeqCst);
    eventually("b serves again", || state(&proxy, 0, 1) == "serving");
    assert!(served(&proxy, 200).iter().any(|name| name == "b"));
    let check = b.origin.seen().into_iter().find(|seen| seen.target() == "/healthz");
    let check = check.expect("a check").head;
    assert_eq!(check.field("host"), Some(&*b.origin.address.to_string()));
    assert!(check.field("user-agent").is_some_and(|agent| agent.starts_with("tidegate/")));
}

#[test]
fn a_check_asks_what_the_file_says_and_waits_no_longer() {
    let slow = Origin::start(|call| match call.target() {
        "/ready?deep=1" if call.head.field("host") == Some("game.internal") => {
            call.answer(204, b"")
        }
        "/ready?deep=1" => call.answer(200, b""),
        _ => call.await_end(),
    });
    let check = "http: { path: '/ready?deep=1', host: game.internal, expect: [ 204 ] }";
    let proxy = builder(&format!("health: {{ {check}, {QUICK} }}")).version("v1", &slow).start();
    eventually("a good check", || {
        metric(&proxy, "tidegate_health_checks_total", slow.address, ",result=\"good\"")
            .is_some_and(|good| good >= 3.0)
    });
    assert_eq!(state(&proxy, 0, 0), "serving");
    let health = "health: { http: {}, interval: 10ms, timeout: 50ms }";
    let proxy = builder(health).version("v1", &slow).start();
    eventually("no answer is a bad one", || state(&proxy, 0, 0) == "down");
}

/// The endpoint could not write the rest of its answer, and told of it in its log at each check.
#[test]
fn a_check_reads_what_comes_behind_the_head() {
    let whole = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&whole);
    let origin = Origin::start(move |call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")?;
        for part in ["we", "l", "l"] {
            thread::sleep(Duration::from_millis(20));
            call.send(part)?;
        }
        call.await_end()?;
        told.fetch_add(1, SeqCst);
        Ok(())
    });
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let _proxy = builder(&health).version("v1", &origin).start();
    eventually("whole answers", || whole.load(SeqCst) >= 3);
    // An answer that has no end is as good.
    let endless = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")?;
        call.await_end()
    });
    let proxy = builder("health: { http: {}, interval: 10ms, timeout: 300ms }");
    let proxy = proxy.version("v1", &endless).start();
    eventually("a good check", || {
        metric(&proxy, "tidegate_health_checks_total", endless.address, ",result=\"good\"")
            .is_some_and(|good| good >= 1.0)
    });
}

#[test]
fn a_connection_is_enough_where_the_file_says_so() {
    let (a, (address, socket)) = (Patient::new("a"), refusing());
    let health = format!("health: {{ tcp: {{}}, connect_faults: 0, {QUICK} }}");
    let proxy = builder(&health).version_at("v1", &[a.origin.address, address]).start();
    eventually("nobody listens", || state(&proxy, 0, 1) == "down");
    served(&proxy, 100);
    socket.listen(128).expect("bound");
    let b = Origin::start_at(TcpListener::from(socket), |call| call.answer(200, b"b"));
    eventually("it listens now", || state(&proxy, 0, 1) == "serving");
    assert!(served(&proxy, 200).iter().any(|name| name == "b"));
    assert_eq!(b.address, address);
}

#[test]
fn a_check_speaks_http2_where_the_version_does() {
    let ill = Arc::new(AtomicBool::new(false));
    let is_ill = Arc::clone(&ill);
    let origin = Origin2::start(100, move |asked| {
        let ill = asked.head.uri.path() == "/healthz" && is_ill.load(SeqCst);
        async move { asked.answer(if ill { 503 } else { 200 }, b"h2") }
    });
    let plain = Patient::new("h1");
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let endpoints = [origin.address, plain.origin.address];
    let proxy = builder(&health).version_speaking("v1", &endpoints, "h2").start();
    eventually("who speaks HTTP/1.1 only is down", || state(&proxy, 0, 1) == "down");
    eventually("a good check", || origin.requests() > 0 && state(&proxy, 0, 0) == "serving");
    let uri = origin.last().uri().clone();
    assert_eq!(uri.to_string(), format!("http://{}/healthz", origin.address));
    assert!(served(&proxy, 50).iter().all(|name| name == "h2"));
    ill.store(true, SeqCst);
    eventually("it is ill", || state(&proxy, 0, 0) == "down");
    ill.store(false, SeqCst);
    eventually("it is well", || state(&proxy, 0, 0) == "serving");
}

#[test]
fn an_endpoint_that_cannot_be_connected_is_ejected_and_no_request_fails() {
    let ((address, _held), b) = (refusing(), Patient::new("b"));
    let proxy =
        builder("connect_timeout: 1s").version_at("v1", &[address, b.origin.address]).start();
    let mut client = proxy.connect();
    eventually("it is ejected", || {
        assert_eq!(client.post("/", b"once").send().text(), "b");
        state(&proxy, 0, 0) == "ejected"
    });
    assert_eq!(shown(&proxy)["versions"][0]["endpoints"][0]["reason"], "connect");
    let ejections = metric(&proxy, "tidegate_ejections_total", address, ",reason=\"connect\"");
    assert_eq!(ejections, Some(1.0));
    let faults = proxy.errors("v1", ErrorKind::Connect);
    assert_eq!(faults, proxy.retries("v1", RetryReason::Connect));
    served(&proxy, 300);
    assert_eq!(proxy.errors("v1", ErrorKind::Connect), faults, "nobody tries it any more");
}

#[test]
fn the_only_endpoint_of_a_version_is_asked_however_often_it_refuses() {
    let (address, socket) = refusing();
    let proxy = builder("connect_timeout: 1s").version_at("v1", &[address]).start();
    let mut client = proxy.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").send().status, 502);
    }
    socket.listen(128).expect("bound");
    let _a = Origin::start_at(TcpListener::from(socket), |call| call.answer(200, b"a"));
    assert_eq!(served(&proxy, 1), ["a"], "at once");
}

#[test]
fn a_canary_without_an_endpoint_leaves_its_players_until_one_serves() {
    let (v1, v2) = (Patient::new("v1"), Patient::new("v2"));
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let proxy = builder(&health)
        .service("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: {} }")
        .version("v1", &v1.origin)
        .version("v2", &v2.origin)
        .start();
    let before = served(&proxy, 200);
    assert!(before.iter().any(|name| name == "v2"));
    let canary = || shown(&proxy)["versions"][1].clone();
    // Requests go on all the while: none of them fails.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                served(&proxy, 10);
            }
        });
        for _ in 0..3 {
            v2.ill.store(true, SeqCst);
            eventually("the canary is out", || canary()["share"] == 0.0);
            let canary = canary();
            assert_eq!((&canary["available"], &canary["weight"]), (&json!(false), &json!(50.0)));
            assert_eq!(canary["endpoints"][0]["state"], "down");
            assert!(served(&proxy, 200).iter().all(|name| name == "v1"));
            v2.ill.store(false, SeqCst);
            eventually("the canary is back", || shown(&proxy)["versions"][1]["share"] == 0.5);
            assert_eq!(served(&proxy, 200), before, "the same players");
        }
    });
    assert_eq!(shown(&proxy)["versions"][1]["state"], "serving");
}

/// Its players were answered 503.
#[test]
fn a_canary_whose_name_stands_for_no_address_gets_no_players() {
    let v1 = Patient::new("v1");
    let proxy = builder("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .version("v1", &v1.origin)
        .version_named("v2", "nowhere.invalid:80")
        .start();
    eventually("it is out", || shown(&proxy)["versions"][1]["share"] == 0.0);
    assert!(served(&proxy, 200).iter().all(|name| name == "v1"));
    let shown = shown(&proxy);
    let canary = &shown["versions"][1];
    assert_eq!((&canary["available"], &canary["endpoints"]), (&json!(false), &json!([])));
}

#[test]
fn a_baseline_without_an_endpoint_that_serves_is_asked_nevertheless() {
    let (v1, v2) = (Patient::new("v1"), Patient::new("v2"));
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let proxy = builder(&health)
        .service("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .version("v1", &v1.origin)
        .version("v2", &v2.origin)
        .start();
    let before = served(&proxy, 200);
    v1.ill.store(true, SeqCst);
    eventually("it is down", || state(&proxy, 0, 0) == "down");
    let baseline = shown(&proxy)["versions"][0].clone();
    assert_eq!((&baseline["available"], &baseline["share"]), (&json!(false), &json!(0.5)));
    assert_eq!(served(&proxy, 200), before);
    v2.ill.store(true, SeqCst);
    eventually("the canary is out", || shown(&proxy)["versions"][1]["share"] == 0.0);
    assert!(served(&proxy, 200).iter().all(|name| name == "v1"));
}

/// Whoever speaks gRPC only could be connected, and no more: a GET was answered 415.
#[test]
fn a_check_calls_the_health_service_of_grpc() {
    // By service, as protobuf has it: SERVING, NOT_SERVING.
    let ill = Arc::new(AtomicBool::new(false));
    let is_ill = Arc::clone(&ill);
    let origin = Origin2::start(100, move |mut asked| {
        let status = if is_ill.load(SeqCst) { 2 } else { 1 };
        async move {
            let head = &asked.head;
            let is_call = head.uri.path() == "/grpc.health.v1.Health/Check"
                && head.method == "POST"
                && head.headers["content-type"] == "application/grpc"
                && head.headers["te"] == "trailers";
            if !is_call {
                return asked.answer(415, b"");
            }
            let message = read_all(&mut asked.body).await.expect("whole");
            let is_known = message == b"\0\0\0\0\x05\x0A\x03bet";
            let response = http::Response::builder().header("content-type", "application/grpc");
            let response = response.body(()).expect("a response");
            let mut stream = asked.respond.send_response(response, false).expect("open");
            let mut trailers = http::HeaderMap::new();
            let code = if is_known { "0" } else { "5" };
            trailers.insert("grpc-status", code.parse().expect("a value"));
            if is_known {
                send_all(&mut stream, &[0, 0, 0, 0, 2, 8, status]).await;
            }
            // The check may have its answer and be gone.
            let _ = stream.send_trailers(trailers);
        }
    });
    let check = |service: &str| format!("health: {{ grpc: {{ service: {service} }}, {QUICK} }}");
    let start = |service: &str| {
        builder(&check(service)).version_speaking("v1", &[origin.address], "h2").start()
    };
    let proxy = start("bet");
    eventually("a good check", || {
        metric(&proxy, "tidegate_health_checks_total", origin.address, ",result=\"good\"")
            .is_some_and(|good| good >= 3.0)
    });
    assert_eq!(state(&proxy, 0, 0), "serving");
    assert_eq!(
        origin.last().uri().authority().map(|a| a.to_string()),
        Some(origin.address.to_string())
    );
    ill.store(true, SeqCst);
    eventually("it does not serve", || state(&proxy, 0, 0) == "down");
    ill.store(false, SeqCst);
    eventually("it serves again", || state(&proxy, 0, 0) == "serving");
    let unknown = start("other");
    eventually("a service that it does not know", || state(&unknown, 0, 0) == "down");
}
