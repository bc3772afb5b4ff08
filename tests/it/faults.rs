//! What the client reads when an endpoint fails: a problem document, or a broken connection once the
//! head was out; never a cut answer that looks whole.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use tidegate::registry::{ErrorKind, RetryReason};

use crate::support::{
    Answer, Origin, Proxy, eventually,
    http2::Http2,
    nobody::{refusing, swallowing},
};

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, kind: &str) {
    assert_eq!((answer.status, answer.kind().as_str()), (status, kind), "{}", answer.text());
    let document = answer.json();
    assert_eq!(document["status"], status);
    assert_eq!(document["request_id"].as_str().map(str::len), Some(32), "{document}");
    for inner in ["127.0.0.1", "localhost", "v1", "game-api"] {
        let raw = format!("{}{}", answer.head.raw, answer.text());
        assert!(!raw.contains(inner), "an answer names {inner}, which is behind the proxy: {raw}");
    }
}

#[test]
fn an_endpoint_that_refuses_is_a_502() {
    let (address, _held) = refusing();
    let proxy = Proxy::builder().version_at("v1", &[address]).start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_problem(&client.get("/").send(), 502, "connect");
    }
    eventually("counted", || proxy.errors("v1", ErrorKind::Connect) == 3);
}

#[test]
fn an_endpoint_that_takes_no_connection_is_a_504() {
    let (address, _held) = swallowing();
    let builder = Proxy::builder().version_at("v1", &[address]);
    let proxy = builder.service("connect_timeout: 100ms").start();
    assert_problem(&proxy.get("/"), 504, "connect_timeout");
    eventually("counted", || proxy.errors("v1", ErrorKind::Connect) == 1);
}

#[test]
fn a_route_shorter_than_the_connect_timeout_ends_the_connect() {
    let (address, _held) = swallowing();
    let builder = Proxy::builder().version_at("v1", &[address]);
    let proxy = builder.service("connect_timeout: 10s").route("timeout: 100ms").start();
    let began = Instant::now();
    assert_eq!(proxy.get("/").status, 504);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn another_endpoint_is_asked_when_one_refuses() {
    let (address, _held) = refusing();
    let origin = Origin::answering("second");
    let proxy = Proxy::builder().version_at("v1", &[address, origin.address]).start();
    let mut client = proxy.connect();
    for _ in 0..20 {
        assert_eq!(client.post("/", b"once").send().text(), "second");
    }
    assert_eq!(origin.requests(), 20);
    eventually("counted", || {
        let failed = proxy.errors("v1", ErrorKind::Connect);
        failed > 0 && failed == proxy.retries("v1", RetryReason::Connect)
    });
}

#[test]
fn a_version_without_an_endpoint_is_a_503() {
    let proxy = Proxy::builder().version_named("v1", "nowhere.invalid:80").start();
    let answer = proxy.get("/");
    assert_problem(&answer, 503, "no_endpoint");
    assert!(answer.field("retry-after").is_some());
}

#[test]
fn a_silent_endpoint_is_a_504_and_its_connection_ends() {
    let origin = Origin::start(|call| call.await_end());
    let proxy = Proxy::builder().version("v1", &origin).route("timeout: 100ms").start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        assert_problem(&client.get("/").send(), 504, "timeout");
        origin.await_open(0);
    }
    eventually("counted", || proxy.errors("v1", ErrorKind::Timeout) == 2);
}

#[test]
fn a_connection_that_breaks_before_the_head_is_a_502() {
    for part in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        for reset in [true, false] {
            let origin = Origin::start(move |call| {
                call.skip_body()?;
                call.send(part)?;
                if reset {
                    call.reset()
                } else {
                    call.close()
                }
                Ok(())
            });
            let proxy = Proxy::to(&origin);
            let mut client = proxy.connect();
            assert_problem(&client.get("/").send(), 502, "reset");
            assert_problem(&client.post("/", b"once").send(), 502, "reset");
            assert_eq!(origin.requests(), 2, "a request on a fresh connection is never repeated");
            eventually("counted", || proxy.errors("v1", ErrorKind::Reset) == 2);
        }
    }
}

#[test]
fn an_answer_that_is_not_http_is_a_502() {
    for garbage in [
        &b"\x15\x03\x01\x00\x02\x02\x28"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    ] {
        let origin = Origin::sending(garbage);
        let proxy = Proxy::to(&origin);
        let answer = proxy.get("/");
        assert_problem(&answer, 502, "protocol");
        eventually("counted", || proxy.errors("v1", ErrorKind::Protocol) == 1);
    }
}

#[test]
fn an_endless_head_is_a_502() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\n")?;
        loop {
            call.send(format!("X-Long: {}\r\n", "x".repeat(1000)))?;
        }
    });
    let proxy = Proxy::to(&origin);
    assert_problem(&proxy.get("/"), 502, "protocol");
}

/// More fields than most answers have are no fault; what is too much is named.
#[test]
fn an_answer_of_many_fields_arrives_and_one_of_too_many_is_told_as_that() {
    let origin = Origin::start(|call| {
        let count: usize = call.target()[1..].parse().map_err(io::Error::other)?;
        let fields: String = (0..count).map(|n| format!("L: {n}\r\n")).collect();
        call.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"))
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for count in [1, 255, 256, 257, 400, 4095] {
        let answer = client.get(&format!("/{count}")).send();
        assert_eq!((answer.text(), answer.head.all("l").count()), ("ok", count));
    }
    let answer = Http2::connect(proxy.address).get("/400");
    assert_eq!((answer.headers.get_all("l").iter().count(), &answer.body[..]), (400, &b"ok"[..]));
    let answer = client.get("/4096").send();
    assert_problem(&answer, 502, "protocol");
    assert!(answer.text().contains("more than 4096 header fields"), "{}", answer.text());
    let answer = client.get("/400").send();
    assert_eq!(answer.text(), "ok", "the client's connection stays");
    eventually("counted", || proxy.errors("v1", ErrorKind::Protocol) == 1);
}

/// Whoever leaves the runtime's timers no turn is still not waited for without an end.
#[test]
fn a_flood_of_interim_answers_ends_with_the_time_of_the_route() {
    let origin = Origin::start(|call| {
        let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000);
        loop {
            call.send(&flood)?;
        }
    });
    let builder = Proxy::builder().version("v1", &origin).route("timeout: 300ms");
    let proxy = builder.start();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut client = proxy.connect();
        let began = Instant::now();
        client.send(format!("GET / {version}\r\nHost: a\r\n\r\n"));
        let answer = client.answer();
        // A client that does not read them as fast as they come is not kept waiting either.
        assert!(matches!(answer.status, 502 | 504), "{answer:?}");
        assert!(version == "HTTP/1.1" || answer.status == 504, "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        origin.await_open(0);
    }
}

/// The client has the first bytes of one when the time is over, and read nothing before.
#[test]
fn an_interim_answer_that_is_sent_in_part_is_sent_whole_before_the_final_one() {
    let origin = Origin::start(|call| {
        let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(7_777));
        loop {
            call.send(&hints)?;
        }
    });
    let proxy = Proxy::builder().version("v1", &origin).route("timeout: 2s").start();
    for _ in 0..4 {
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.await_open(1);
        origin.await_open(0);
        let answer = client.answer();
        assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    }
}

#[test]
fn a_flood_of_window_updates_ends_with_the_time_of_the_route() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || -> io::Result<()> {
                // Settings, their acknowledgement, and the connection's window opened byte by byte.
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0])?;
                let flood = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(1000);
                loop {
                    stream.write_all(&flood)?;
                }
            });
        }
    });
    let builder = Proxy::builder().version_speaking("v1", &[address], "h2");
    let proxy = builder.route("timeout: 300ms").start();
    for body in [&b""[..], &[b'x'; 200_000]] {
        let began = Instant::now();
        let answer = proxy.connect().post("/", body).send();
        assert!(matches!(answer.status, 502 | 504), "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[test]
fn a_large_head_arrives() {
    let origin = Origin::start(|call| {
        let long = format!("X-Long: {}\r\n", "x".repeat(1000)).repeat(100);
        call.send(format!("HTTP/1.1 200 OK\r\n{long}Content-Length: 2\r\n\r\nok"))
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..3 {
        let answer = client.get("/").send();
        assert_eq!((answer.text(), answer.head.all("x-long").count()), ("ok", 100));
    }
}

#[test]
fn an_answer_cut_short_is_never_passed_for_whole() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        for reset in [true, false] {
            let origin = Origin::start(move |call| {
                call.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n"))?;
                if reset {
                    call.reset()
                } else {
                    call.close()
                }
                Ok(())
            });
            let proxy = Proxy::to(&origin);
            let cut = proxy.connect().get("/").try_send();
            assert!(cut.is_err(), "{head}, reset {reset}: {cut:?}");
            eventually("counted", || proxy.errors("v1", ErrorKind::Reset) == 1);
        }
    }
}

#[test]
fn an_answer_to_the_end_of_the_connection_that_is_reset_is_not_whole_either() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\n\r\nhello")?;
        // The client has read what was sent, so the reset cannot overtake it.
        let target = call.target().to_owned();
        let client: SocketAddr = target[1..].parse().map_err(io::Error::other)?;
        TcpStream::connect(client)?;
        call.reset();
        Ok(())
    });
    let proxy = Proxy::to(&origin);
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let signal = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = signal.local_addr().expect("bound");
        let mut client = proxy.connect();
        client.send(format!("GET /{address} {version}\r\nHost: a\r\n\r\n"));
        let head = client.wire.head().expect("a head").expect("a head");
        let framing = head.framing().unwrap_or(crate::support::wire::Framing::UntilClose);
        signal.accept().expect("the origin tells");
        let cut = client.wire.body(framing, &mut |_| {});
        assert!(cut.is_err(), "{version}: a cut answer looks whole");
    }
}

#[test]
fn malformed_chunks_of_an_endpoint_break_the_answer() {
    let origin = Origin::sending(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
    );
    let proxy = Proxy::to(&origin);
    assert!(proxy.connect().get("/").try_send().is_err());
    eventually("counted", || proxy.errors("v1", ErrorKind::Protocol) == 1);
}

#[test]
fn an_answer_that_stalls_is_broken_off() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        call.await_end()
    });
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("limits: { body_timeout: 100ms }").start();
    assert!(proxy.connect().get("/").try_send().is_err());
    origin.await_open(0);
    eventually("counted", || proxy.errors("v1", ErrorKind::Timeout) == 1);
}

/// The rest of a body that no endpoint took was read as the client's next request.
#[test]
fn a_body_left_unread_is_not_the_next_request() {
    let (address, _held) = refusing();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: other.test\r\n\r\n";
    let unresolved = Proxy::builder().version_named("v1", "nowhere.invalid:80").start();
    let refused = Proxy::builder().version_at("v1", &[address]).start();
    let silent = Origin::start(|call| call.await_end());
    let impatient = "timeout: 100ms, body_timeout: 100ms";
    let late = Proxy::builder().version("v1", &silent).route(impatient).start();
    for proxy in [&unresolved, &refused, &late] {
        for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
            let mut client = proxy.connect();
            client.send(format!("POST /first HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            let answer = client.answer();
            assert!(answer.status >= 400, "{answer:?}");
            assert_eq!(answer.field("connection"), Some("close"), "{framing}: {answer:?}");
            // The proxy may have ended the connection already.
            let _ = client.wire.send(smuggled.as_bytes());
            let next = client.try_answer_to("GET");
            assert!(next.is_err(), "{framing}: a body was read as a request: {next:?}");
        }
    }
}
