//! How long connections live: keep-alive, pipelining, HTTP/1.0, and clients that leave.

use std::{
    io,
    net::Shutdown,
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use crate::support::{
    Client, Origin, Proxy,
    patient::{builder, metric},
};

#[test]
fn one_connection_serves_many_requests_over_one_upstream_connection() {
    let origin = Origin::answering("hello");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..50 {
        let answer = client.get("/").send();
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert_eq!(answer.field("connection"), None);
    }
    assert_eq!((origin.requests(), origin.connections()), (50, 1));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(|call| {
        let target = call.target().to_owned();
        let body = call.read_body()?;
        call.answer(200, &[target.as_bytes(), &body].concat())
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    let mut wire = String::new();
    for n in 0..40 {
        match n % 3 {
            0 => wire += &format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => wire += &format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
            _ => {
                wire +=
                    &format!("PUT /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
                wire += "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
            }
        }
    }
    client.send(wire);
    for n in 0..40 {
        let body = if n % 3 == 0 { "" } else { "abc" };
        assert_eq!(client.answer().text(), format!("/{n}{body}"));
    }
}

#[test]
fn a_client_that_asks_to_close_is_closed_after_its_answer() {
    let origin = Origin::answering("bye");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    let answer = client.get("/").header("Connection", "close").send();
    assert_eq!((answer.text(), answer.field("connection")), ("bye", Some("close")));
    client.expect_end();
    let mut other = proxy.connect();
    other.get("/").send();
    assert_eq!(origin.connections(), 1, "the endpoint's connection was not the client's");
}

#[test]
fn an_http10_client_is_closed_unless_it_asks_to_stay() {
    let origin = Origin::answering("old");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.field("connection")), ("old", Some("close")));
    client.expect_end();

    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.text(), answer.field("connection")), ("old", Some("keep-alive")));
    }
    // Without a Host field the endpoint is told the address that was asked.
    let seen = origin.last();
    assert_eq!(seen.head.field("host"), Some(proxy.address.to_string().as_str()));
}

#[test]
fn an_http10_client_reads_chunks_as_plain_bytes_to_the_end() {
    let origin = Origin::start(|call| call.answer_chunked([&b"one"[..], b"two"]));
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.field("connection")), ("onetwo", Some("close")));
    assert_eq!(answer.field("transfer-encoding"), None);
}

#[test]
fn a_client_that_leaves_takes_its_upstream_connection_along() {
    let origin = Origin::start(|call| call.await_end());
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.await_requests(1);
    origin.await_open(1);
    client.reset();
    origin.await_open(0);
}

/// Small clients (`nc`, the `wget` of busybox) end their sending side with the request; they were taken for
/// gone.
#[test]
fn a_client_that_ends_its_sending_side_reads_its_answers() {
    let (go_on, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |call| {
        let body = call.read_body()?;
        wait.lock().expect("no panic").recv().map_err(io::Error::other)?;
        match call.target() {
            "/chunks" => call.answer_chunked([&b"one"[..], b"two"]),
            _ => call.answer(200, &[b"answered ", &body[..]].concat()),
        }
    });
    let proxy = Proxy::to(&origin);
    for (text, answers) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &["answered "][..]),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &["answered "]),
        ("GET /chunks HTTP/1.1\r\nHost: a\r\n\r\n", &["onetwo"]),
        ("GET /chunks HTTP/1.0\r\n\r\n", &["onetwo"]),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nstake", &["answered stake"]),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nstake\r\n0\r\n\r\n",
            &["answered stake"],
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /chunks HTTP/1.1\r\nHost: a\r\n\r\n",
            &["answered ", "onetwo"],
        ),
    ] {
        let mut client = proxy.connect();
        let before = origin.requests();
        client.send(text);
        client.wire.stream.shutdown(Shutdown::Write).expect("an open socket");
        for (nth, expected) in answers.iter().enumerate() {
            origin.await_requests(before + nth + 1);
            go_on.send(()).expect("the origin waits");
            assert_eq!(client.answer().text(), *expected, "{text}");
        }
        client.expect_end();
    }
    assert_eq!(proxy.all_errors("v1"), 0);
}

#[test]
fn a_client_that_ends_its_sending_side_and_then_is_gone_is_noticed_at_what_it_should_read() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            call.send("5\r\ntick\n\r\n")?;
            // An event stream; the first events after the end tell that nobody reads.
            thread::sleep(Duration::from_millis(20));
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.wire.head().expect("an answer").is_some());
    drop(client);
    origin.await_open(0);
    assert_eq!(proxy.all_errors("v1"), 0);
}

#[test]
fn a_client_that_leaves_amid_its_answer_takes_its_upstream_connection_along() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun")?;
        call.await_end()
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.wire.head().expect("an answer").is_some());
    client.reset();
    origin.await_open(0);
}

#[test]
fn a_client_that_leaves_amid_its_body_takes_its_upstream_connection_along() {
    let origin = Origin::start(|call| {
        let read = call.read_body();
        assert!(read.is_err(), "a body cut short was passed for whole");
        Err(io::ErrorKind::UnexpectedEof.into())
    });
    let proxy = Proxy::to(&origin);
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = Client::connect(proxy.address);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nbegun\r\n"));
        origin.await_open(1);
        drop(client);
        origin.await_open(0);
    }
}

#[test]
fn an_endpoint_that_closes_after_each_answer_is_connected_anew() {
    let origin = Origin::start(|call| {
        call.close();
        call.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..10 {
        assert_eq!(client.get("/").send().text(), "ok");
    }
    assert_eq!((origin.requests(), origin.connections()), (10, 10));
}

#[test]
fn connections_to_endpoints_are_counted_and_timed() {
    let origin = Origin::answering("hello");
    let proxy = builder("").version_at("v1", &[origin.address]).start();
    let told = |of: &str| {
        let name = format!("tidegate_upstream_connect_seconds_{of}");
        metric(&proxy, &name, origin.address, "").expect("told before the first one")
    };
    assert_eq!((told("count"), told("sum")), (0.0, 0.0));
    let mut client = proxy.connect();
    (0..20).for_each(|_| assert_eq!(client.get("/").send().status, 200));
    assert_eq!(told("count"), 1.0, "one connection for all");
    assert!((1e-6..1.0).contains(&told("sum")), "{} s", told("sum"));
}
