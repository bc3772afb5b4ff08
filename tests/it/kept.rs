//! Connections kept to endpoints: reused, bounded, and never trusted with a request that they could lose.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use tidegate::registry::RetryReason;

use crate::support::{Client, Origin, Proxy, eventually, pattern};

/// An origin that reads the second request of every connection and ends it without an answer.
fn forgetful() -> Origin {
    Origin::start(|call| match call.nth {
        0 => {
            call.skip_body()?;
            call.answer(200, b"ok")
        }
        _ => {
            call.skip_body()?;
            call.close();
            Ok(())
        }
    })
}

#[test]
fn a_get_lost_on_a_kept_connection_is_sent_again_on_a_fresh_one() {
    let origin = forgetful();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..10 {
        assert_eq!(client.get("/").send().text(), "ok");
    }
    // The first needs one request, and each further one a lost and a repeated one.
    assert_eq!((origin.requests(), origin.connections()), (1 + 2 * 9, 10));
    assert_eq!(proxy.retries("v1", RetryReason::StaleConnection), 9);
}

#[test]
fn a_put_with_its_body_is_sent_again_whole() {
    let origin = forgetful();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..3 {
        let answer = client.request("PUT", "/").body(b"all of it").send();
        assert_eq!(answer.text(), "ok");
    }
    assert_eq!(origin.requests(), 5);
}

#[test]
fn a_post_that_was_sent_is_never_sent_again() {
    let origin = forgetful();
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    assert_eq!(client.post("/", b"first").send().text(), "ok");
    let answer = client.post("/", b"second").send();
    assert_eq!((answer.status, answer.kind().as_str()), (502, "reset"));
    assert_eq!(client.post("/", b"third").send().text(), "ok");
    assert_eq!(origin.requests(), 3);
    assert_eq!(proxy.retries("v1", RetryReason::StaleConnection), 0);
}

#[test]
fn a_request_whose_answer_had_begun_is_never_sent_again() {
    let origin = Origin::start(|call| match call.nth {
        0 => call.answer(200, b"ok"),
        _ => {
            call.close();
            call.send("HTTP/1.1 200 OK\r\n")
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    assert_eq!(client.get("/").send().text(), "ok");
    assert_eq!(client.get("/").send().kind(), "reset");
    assert_eq!(origin.requests(), 2);
}

#[test]
fn no_request_goes_to_a_connection_that_ended_while_idle() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.answer(200, b"ok")
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    let large = pattern(100_000);
    for round in 0..300 {
        let answer = match round % 3 {
            0 => client.post("/", b"once").send(),
            1 => client.request("PUT", "/").body(&large).send(),
            _ => client.get("/").send(),
        };
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        if round % 2 == 0 {
            origin.close_connections();
        }
    }
    assert_eq!(origin.requests(), 300);
    assert_eq!(proxy.retries("v1", RetryReason::StaleConnection), 0);
}

/// An origin that closes idle connections after a random moment, as servers with a short keep-alive do,
/// while several clients keep the pool busy.
fn restless() -> Origin {
    Origin::start(|call| {
        call.skip_body()?;
        call.close_after(Duration::from_micros(fastrand::u64(1..3000)));
        let target = call.target().to_owned();
        call.answer(200, target.as_bytes())
    })
}

#[test]
fn no_get_fails_while_an_endpoint_closes_idle_connections_at_random() {
    let origin = restless();
    let proxy = Proxy::builder().version("v1", &origin).workers(2).start();
    let (end, served) = (Instant::now() + Duration::from_secs(2), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.connect();
                while Instant::now() < end {
                    assert_eq!(client.get("/get").send().text(), "/get");
                    served.fetch_add(1, Relaxed);
                    if fastrand::u8(..) < 64 {
                        thread::sleep(Duration::from_micros(fastrand::u64(..3000)));
                    }
                }
            });
        }
    });
    assert!(served.load(Relaxed) > 100, "only {} requests", served.load(Relaxed));
    assert!(origin.connections() > 10, "only {} connections", origin.connections());
}

#[test]
fn no_post_is_served_twice_while_an_endpoint_closes_idle_connections_at_random() {
    let origin = restless();
    let proxy = Proxy::builder().version("v1", &origin).workers(2).start();
    let (end, number) = (Instant::now() + Duration::from_secs(2), AtomicUsize::new(0));
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = proxy.connect();
                while Instant::now() < end {
                    let target = format!("/bet/{}", number.fetch_add(1, Relaxed));
                    let answer = client.post(&target, b"stake").send();
                    if answer.status != 200 {
                        assert_eq!(answer.kind(), "reset");
                        failed.fetch_add(1, Relaxed);
                    }
                    if fastrand::u8(..) < 64 {
                        thread::sleep(Duration::from_micros(fastrand::u64(..3000)));
                    }
                }
            });
        }
    });
    let mut times = HashMap::new();
    for seen in origin.seen() {
        *times.entry(seen.target().to_owned()).or_insert(0) += 1;
    }
    let twice: Vec<_> = times.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "served twice: {twice:?}");
    let (all, failed) = (number.load(Relaxed), failed.load(Relaxed));
    // A close that crosses the request on the wire cannot be told from one that lost it.
    assert!(failed * 100 <= all, "{failed} of {all} failed");
}

#[test]
fn an_endpoint_that_offers_a_time_is_not_asked_later() {
    let origin = Origin::start(|call| {
        call.send(
            "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=100\r\nContent-Length: 2\r\n\r\nok",
        )
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/").send().text(), "ok");
    }
    // A second less than offered is none at all.
    assert_eq!(origin.connections(), 5);
    origin.await_open(0);
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.service("pool: { idle_timeout: 200ms }").start();
    assert_eq!(proxy.get("/").text(), "ok");
    origin.await_open(1);
    origin.await_open(0);
}

#[test]
fn surplus_connections_are_closed_after_use() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        // All clients are served at once, so that as many connections are made.
        BARRIER.wait();
        call.answer(200, b"ok")
    });
    static BARRIER: std::sync::Barrier = std::sync::Barrier::new(6);
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.service("pool: { idle_connections: 2 }").start();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(proxy.get("/").text(), "ok"));
        }
    });
    assert_eq!(origin.connections(), 6);
    origin.await_open(2);
}

#[test]
fn nothing_is_kept_where_nothing_shall_be() {
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.service("pool: { idle_connections: 0 }").start();
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.get("/").send();
    }
    assert_eq!(origin.connections(), 5);
    origin.await_open(0);
}

#[test]
fn bytes_that_nobody_asked_for_spoil_a_connection() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/").send().text(), "ok");
    }
    assert_eq!(origin.connections(), 5);
}

#[test]
fn a_connection_is_closed_soon_after_its_endpoint_left_the_file() {
    let (old, new) = (Origin::answering("old"), Origin::answering("new"));
    let text = |origin: &Origin| {
        let builder = Proxy::builder().version("v1", origin);
        move |address| builder.clone().listen(address).text()
    };
    let process = crate::support::process::Process::spawn(text(&old));
    let mut client = Client::connect(process.address);
    assert_eq!(client.get("/").send().text(), "old");
    old.await_open(1);
    process.write(&text(&new)(process.address));
    eventually("the new endpoint serves", || client.get("/").send().text() == "new");
    old.await_open(0);
}
