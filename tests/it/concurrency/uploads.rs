//! Bodies that arrive slowly, where requests in flight are limited: they keep no place from others.

use std::{thread, time::Duration};

use super::{ask, limited, state};
use crate::support::{
    Client, Origin, PATIENCE, Proxy, eventually,
    http2::{Http2, request, send_all},
    wire::Wire,
};

fn echo() -> Origin {
    Origin::start(|call| {
        let body = call.read_body()?;
        call.answer(200, &body)
    })
}

/// A client that has sent a head with `framing` and a part of the body.
fn uploads(proxy: &Proxy, framing: &str, part: &str) -> Client {
    let mut client = proxy.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{part}"));
    client
}

/// One client with 60 connections took all places of a route: the bodies arrived while the places were held.
#[test]
fn sixty_slow_uploads_take_no_place_from_others() {
    let origin = echo();
    let proxy = limited(&origin, "max: 2, queue: 0").start();
    let framings = [
        ("Content-Length: 6", "par", "ted"),
        ("Content-Length: 6\r\nExpect: 100-continue", "", "parted"),
        ("Transfer-Encoding: chunked", "3\r\npar\r\n", "3\r\nted\r\n0\r\n\r\n"),
        ("Content-Length: 1000000", "par", ""),
    ];
    let mut slow: Vec<_> = (0..60)
        .map(|n| {
            let (framing, part, rest) = framings[n % framings.len()];
            (uploads(&proxy, framing, part), rest)
        })
        .collect();
    for (client, _) in slow.iter_mut().filter(|(_, rest)| *rest == "parted") {
        let interim = client.wire.head().expect("a head").expect("a head");
        assert!(interim.start_line().starts_with("HTTP/1.1 100 "), "{}", interim.raw);
    }
    let mut other = proxy.connect();
    for body in [&b""[..], b"at once"] {
        let answer = other.post("/", body).send();
        assert_eq!((answer.status, answer.text().as_bytes()), (200, body));
    }
    // A place is free soon after the response has ended.
    let are_free = || eventually("the places are free", || state(&proxy).in_flight() == 0);
    are_free();
    assert_eq!(origin.requests(), 2);
    // They lose nothing by it.
    for (client, rest) in slow.iter_mut().filter(|(_, rest)| !rest.is_empty()) {
        client.send(*rest);
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, "parted"));
        are_free();
    }
    assert!(origin.seen().iter().all(|seen| seen.head.field("expect").is_none()));
}

#[test]
fn a_stream_without_a_length_takes_its_place_at_its_end() {
    let origin = echo();
    let proxy = limited(&origin, "max: 1, queue: 0").start();
    let http2 = Http2::connect(proxy.address);
    let (answer, mut stream) = http2.run(http2.open(request("POST", "/")));
    http2.run(send_all(&mut stream, b"par"));
    assert_eq!(proxy.connect().post("/", b"other").send().text(), "other");
    eventually("its place is free", || state(&proxy).in_flight() == 0);
    stream.send_data("ted".into(), true).expect("an open stream");
    let reply = http2.run(crate::support::http2::reply(answer)).expect("an answer");
    assert_eq!((reply.status, &reply.body[..]), (200, &b"parted"[..]));
}

/// Sends a byte every 20 ms until the other side ends the connection, and tells whether it did in time.
fn trickle(wire: &mut Wire) -> bool {
    (0..PATIENCE.as_millis() / 20).any(|_| {
        // The pause is what is tested: a body that never stands still.
        thread::sleep(Duration::from_millis(20));
        wire.send(b"x").is_err()
    })
}

#[test]
fn a_large_upload_that_trickles_loses_its_place_only_to_others() {
    let origin = Origin::start(|call| match call.method() {
        "GET" => call.await_end(),
        _ => call.read_body().map(drop),
    });
    let builder = limited(&origin, "max: 2, queue: 0").top("limits: { body_timeout: 300ms }");
    let proxy = builder.start();
    let mut upload = uploads(&proxy, "Content-Length: 1000000", &"x".repeat(70_000));
    let mut sending = Wire::new(upload.wire.stream.try_clone().expect("a descriptor"));
    let sending = thread::spawn(move || trickle(&mut sending));
    origin.await_requests(1);
    // The pause is what is tested: several spans in which nobody wants its place.
    thread::sleep(Duration::from_millis(1000));
    assert_eq!(state(&proxy).in_flight(), 1);
    let other = ask(&proxy, "/");
    let answer = upload.answer();
    assert_eq!((answer.status, answer.kind().as_str()), (408, "request_timeout"));
    assert!(sending.join().expect("no panic"), "the upload may trickle for ever");
    eventually("it has given up its place", || state(&proxy).in_flight() == 1);
    assert_eq!(proxy.all_errors("v1"), 0, "that is no fault of the endpoint");
    drop(other);
}
