//! Bounds on what clients may send and hold.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::support::{Client, Origin, Proxy, eventually};

fn limited(origin: &Origin, limits: &str) -> Proxy {
    Proxy::builder().version("v1", origin).top(&format!("limits: {{ {limits} }}")).start()
}

#[test]
fn a_head_above_its_size_is_a_431_and_a_target_a_414() {
    let origin = Origin::answering("ok");
    let proxy = limited(&origin, "header_bytes: 2KiB");
    let padded =
        |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Pad: {}\r\n\r\n", "x".repeat(n));
    let fits = 2048 - padded(0).len();
    let targeted = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(n));
    for (text, status, kind) in [
        (padded(fits), 200, ""),
        (padded(fits + 1), 431, "header_too_large"),
        (padded(100_000), 431, "header_too_large"),
        (targeted(1900), 200, ""),
        (targeted(3000), 414, "target_too_long"),
        (targeted(100_000), 414, "target_too_long"),
    ] {
        let mut client = proxy.connect();
        client.send(&text);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{} bytes", text.len());
        if status != 200 {
            assert_eq!((answer.kind().as_str(), answer.field("connection")), (kind, Some("close")));
        }
    }
    // Byte by byte the same.
    let mut client = proxy.connect();
    for byte in padded(fits + 1).as_bytes().chunks(1) {
        if client.wire.send(byte).is_err() {
            break;
        }
    }
    assert_eq!(client.answer().status, 431);
}

#[test]
fn more_fields_than_the_limit_are_a_431() {
    let origin = Origin::answering("ok");
    let proxy = limited(&origin, "header_count: 10");
    for (count, status) in [(9, 200), (10, 431)] {
        let mut client = proxy.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(count)));
        assert_eq!(client.answer().status, status, "{count} beside Host");
    }
}

#[test]
fn a_head_that_comes_too_slowly_is_a_408() {
    let origin = Origin::answering("ok");
    let proxy = limited(&origin, "header_timeout: 300ms");
    let mut client = proxy.connect();
    assert_eq!(client.get("/").send().text(), "ok");
    // The second request of the connection has as little time as the first.
    let began = Instant::now();
    let mut reader = Client {
        wire: crate::support::wire::Wire::new(
            client.wire.stream.try_clone().expect("a descriptor"),
        ),
    };
    let answered = thread::spawn(move || {
        let answer = reader.answer();
        reader.expect_end();
        answer
    });
    for byte in "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x')) {
        if answered.is_finished() || client.wire.send(&[byte]).is_err() {
            break;
        }
        // The pause is what is tested: bytes keep coming, the head does not end.
        thread::sleep(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(10), "never cut off");
    }
    let answer = answered.join().expect("answered");
    assert_eq!((answer.status, answer.kind().as_str()), (408, "request_timeout"));
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_head_byte_by_byte_is_served() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for byte in b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".chunks(1) {
        client.send(byte);
    }
    assert_eq!(client.answer().text(), "ok");
    assert_eq!(origin.last().target(), "/slow");
}

#[test]
fn an_idle_client_is_closed_without_a_word() {
    let origin = Origin::answering("ok");
    let proxy = limited(&origin, "idle_timeout: 200ms, header_timeout: 300ms");
    let mut silent = proxy.connect();
    let mut served = proxy.connect();
    assert_eq!(served.get("/").send().text(), "ok");
    served.expect_end();
    silent.expect_end();
}

#[test]
fn one_connection_too_many_is_told_so_and_the_others_are_served() {
    let origin = Origin::answering("ok");
    let proxy = limited(&origin, "connections: 3");
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").send().text(), "ok");
    }
    for _ in 0..3 {
        let mut surplus = proxy.connect();
        let answer = surplus.answer();
        assert_eq!((answer.status, answer.kind().as_str()), (503, "connections"));
        assert!(answer.field("retry-after").is_some());
        surplus.expect_end();
        for client in &mut clients {
            assert_eq!(client.get("/").send().text(), "ok");
        }
    }
    drop(clients.pop());
    eventually("a place is free again", || {
        let mut client = proxy.connect();
        client.get("/").try_send().is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_flood_of_surplus_connections_harms_nobody() {
    let origin = Origin::answering("ok");
    let proxy = limited(&origin, "connections: 1");
    let mut client = proxy.connect();
    assert_eq!(client.get("/").send().text(), "ok");
    let surplus: Vec<Client> = (0..400).map(|_| proxy.connect()).collect();
    for _ in 0..20 {
        assert_eq!(client.get("/").send().text(), "ok");
    }
    drop(surplus);
}
