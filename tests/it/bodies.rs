//! Bodies both ways, in every framing, of any size, at the speed of the slower side.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tidegate::registry::ErrorKind;

use crate::support::{
    Client, Origin, PATIENCE, Proxy, eventually, pattern,
    wire::{Framing, Wire},
};

/// Two writes cost a system call more, and a client that reads once finds a head without its body.
#[test]
fn a_small_response_reaches_the_client_in_one_piece() {
    // More than what is left of a buffer that grew to hold the head.
    let origin = Origin::answering(concat!(
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890",
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890",
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890",
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890",
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890",
    ));
    let proxy = Proxy::to(&origin);
    let mut client = TcpStream::connect(proxy.address).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a time");
    for _ in 0..20 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
        let mut piece = [0; 4096];
        let length = client.read(&mut piece).expect("a response");
        let piece = piece[..length].escape_ascii().to_string();
        assert!(piece.ends_with("01234567890"), "{piece}");
    }
}

/// Larger than all buffers between an origin and a client together.
const LARGE: usize = 20_000_000;

/// What one side may send while the other does not read: the kernel's buffers on both legs, and two
/// blocks of the proxy.
const IN_BETWEEN: u64 = 16_000_000;

fn chunks_of(body: &[u8], size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in body.chunks(size) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

#[test]
fn requests_of_every_size_and_framing_arrive_whole() {
    let origin = Origin::start(|call| {
        let body = call.read_body()?;
        let framing = call.head.framing();
        call.answer(200, format!("{} {framing:?}", body.len()).as_bytes())
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for length in [0, 1, 100, 16_000, 16_384, 16_385, 100_000, 1_000_000] {
        let body = pattern(length);
        let answer = client.post("/", &body).send();
        assert_eq!(answer.text(), format!("{length} Some(Length({length}))"));
        assert_eq!(origin.last().body, body);
        for size in [length, 1000, 16_384] {
            let mut wire =
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            wire.extend_from_slice(&chunks_of(&body, size.max(1)));
            client.send(wire);
            assert_eq!(client.answer().text(), format!("{length} Some(Chunked)"));
            assert_eq!(origin.last().body, body);
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn answers_of_every_size_and_framing_arrive_whole() {
    let origin = Origin::start(|call| {
        let target = call.target().to_owned();
        let (framing, length) = target[1..].split_once('/').expect("framing and length");
        let body = pattern(length.parse().map_err(io::Error::other)?);
        match framing {
            "length" => call.answer(200, &body),
            "chunked" => call.answer_chunked(body.chunks(3000)),
            _ => {
                call.close();
                call.send("HTTP/1.1 200 OK\r\n\r\n")?;
                call.send(&body)
            }
        }
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for length in [0, 1, 100, 16_000, 16_384, 100_000, 1_000_000] {
        for (framing, passed) in [
            ("length", Framing::Length(length)),
            ("chunked", Framing::Chunked),
            ("close", Framing::Chunked),
        ] {
            let answer = client.get(&format!("/{framing}/{length}")).send();
            assert_eq!(answer.head.framing(), Some(passed));
            assert!(answer.body == pattern(length as usize), "{framing} {length}: bytes differ");
        }
    }
}

#[test]
fn pieces_leave_as_they_come() {
    let (next, pieces) = mpsc::channel::<&'static str>();
    let pieces = std::sync::Mutex::new(pieces);
    let origin = Origin::start(move |call| {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for piece in pieces.lock().expect("no panic").iter() {
            call.send(format!("{:x}\r\n{piece}\r\n", piece.len()))?;
        }
        call.send("0\r\n\r\n")
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        client.wire.head().expect("a head").expect("a head").framing(),
        Some(Framing::Chunked)
    );
    for piece in ["one", "two"] {
        next.send(piece).expect("the origin waits");
        assert_eq!(client.wire.chunk().expect("a chunk"), piece.as_bytes());
    }
    drop(next);
    assert_eq!(client.wire.chunk().expect("the last chunk"), b"");
}

#[test]
fn an_answer_streams_no_faster_than_the_client_reads() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::start(move |call| {
        call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"))?;
        for block in pattern(LARGE).chunks(64 * 1024) {
            call.send(block)?;
            count.fetch_add(block.len() as u64, Relaxed);
        }
        Ok(())
    });
    let proxy = Proxy::to(&origin);
    let mut client = Client::connect_narrow(proxy.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    stalls(&sent);
    let answer = client.answer();
    assert!(answer.body == pattern(LARGE), "bytes differ");
}

#[test]
fn a_request_streams_no_faster_than_the_endpoint_reads() {
    let (read, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |call| {
        // Fails if the test has failed first, and then nobody reads the answer.
        let _ = wait.lock().expect("no panic").recv();
        let whole = call.read_body()? == pattern(LARGE);
        call.answer(200, whole.to_string().as_bytes())
    });
    let proxy = Proxy::to(&origin);
    let sent = Arc::new(AtomicU64::new(0));
    let (count, mut client) = (Arc::clone(&sent), proxy.connect());
    let sending = thread::spawn(move || {
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
        for block in pattern(LARGE).chunks(64 * 1024) {
            client.send(block);
            count.fetch_add(block.len() as u64, Relaxed);
        }
        client.answer()
    });
    stalls(&sent);
    read.send(()).expect("the origin waits");
    assert_eq!(sending.join().expect("sent").text(), "true");
}

/// Waits until `sent` grows no more, and fails if all of [`LARGE`] went out.
#[track_caller]
fn stalls(sent: &AtomicU64) {
    eventually("begun", || sent.load(Relaxed) > 0);
    let (mut last, mut since) = (0, Instant::now());
    eventually("stalled", || {
        let now = sent.load(Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(200)
    });
    assert!(last < IN_BETWEEN, "{last} bytes were taken though nobody read them");
}

#[test]
fn both_directions_flow_at_once() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        call.echo_chunks()
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(client.wire.head().expect("a head").is_some());
    for word in ["ping", "pong", "again"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len()));
        assert_eq!(client.wire.chunk().expect("a chunk"), word.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.wire.chunk().expect("the last chunk"), b"");
}

#[test]
fn an_answer_before_the_body_was_read_arrives_and_ends_the_connection() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge")?;
        // Ends its side, and reads no more.
        call.finish()
    });
    let proxy = Proxy::to(&origin);
    for framing in ["Content-Length: 20000000", "Transfer-Encoding: chunked"] {
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (413, "large"));
        assert_eq!(
            answer.field("connection"),
            Some("close"),
            "the rest would be read as a request"
        );
        client.expect_end();
    }
}

#[test]
fn a_client_that_sends_on_after_an_early_answer_can_still_read_it() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge")?;
        call.finish()
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    // Less than the proxy reads and drops, so that no reset can overtake the answer.
    client.send(pattern(500_000));
    assert_eq!((client.answer()).status, 413);
}

#[test]
fn malformed_chunks_of_a_client_are_a_400_and_reach_nobody_whole() {
    let origin = Origin::start(|call| {
        assert!(call.read_body().is_err(), "malformed chunks were passed for whole");
        Err(io::ErrorKind::InvalidData.into())
    });
    let proxy = Proxy::to(&origin);
    for chunks in ["5\r\nhelloX", "zz\r\n", "-1\r\n", "5\nhello\n0\n\n"] {
        let mut client = proxy.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        let answer = client.answer();
        assert_eq!((answer.status, answer.kind().as_str()), (400, "bad_request"));
        assert_eq!(answer.field("connection"), Some("close"));
        client.expect_end();
        origin.await_open(0);
    }
}

#[test]
fn a_client_that_stalls_amid_its_body_is_a_408_and_no_fault_of_the_endpoint() {
    let origin = Origin::start(|call| {
        let _ = call.read_body();
        Err(io::ErrorKind::UnexpectedEof.into())
    });
    let builder = Proxy::builder().version("v1", &origin).route("timeout: 200ms");
    let proxy = builder.top("limits: { body_timeout: 100ms }").start();
    for part in ["", "begun"] {
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{part}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.kind().as_str()), (408, "request_timeout"));
        client.expect_end();
        origin.await_open(0);
    }
    assert_eq!(proxy.all_errors("v1"), 0);
}

#[test]
fn a_client_that_does_not_read_is_no_fault_of_the_endpoint() {
    let origin = Origin::start(|call| call.answer(200, &pattern(LARGE)));
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("limits: { body_timeout: 200ms }").start();
    let mut client = Client::connect_narrow(proxy.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.await_requests(1);
    origin.await_open(0);
    assert_eq!(proxy.all_errors("v1"), 0);
    assert!(client.try_answer_to("GET").is_err(), "an answer cut short looks whole");
}

#[test]
fn a_slow_body_is_whole_as_long_as_it_moves() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")?;
        for digit in 0..10 {
            // The pause is what is tested: each is shorter than the limit, all together are longer.
            thread::sleep(Duration::from_millis(100));
            call.send(digit.to_string())?;
        }
        Ok(())
    });
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("limits: { body_timeout: 600ms }").start();
    assert_eq!(proxy.get("/").text(), "0123456789");
}

/// Sends `piece` every 20 ms until the other side ends the connection, and tells whether it did in time.
fn trickle(wire: &mut Wire, piece: &str) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if wire.send(piece.as_bytes()).is_err() {
            return true;
        }
        // The pause is what is tested: a body that never stands still.
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A body that never stood still was waited for without an end, whatever its length.
#[test]
fn a_body_that_only_trickles_ends() {
    let origin = Origin::start(|call| {
        let piece = match call.target() {
            "/upload" => {
                let _ = call.read_body();
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            "/length" => {
                call.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
                "x"
            }
            "/chunks" => {
                call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                "1\r\nx\r\n"
            }
            _ => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ";
                call.send(head)?;
                "x"
            }
        };
        assert!(trickle(call.wire, piece), "the answer may trickle for ever");
        Err(io::ErrorKind::UnexpectedEof.into())
    });
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("limits: { body_timeout: 200ms }").start();
    for path in ["/length", "/chunks", "/trailers"] {
        let answer = proxy.connect().get(path).try_send();
        assert!(answer.is_err(), "{path}: {answer:?}");
        origin.await_open(0);
    }
    eventually("they are the endpoint's", || proxy.errors("v1", ErrorKind::Timeout) == 3);
    for (framing, piece) in
        [("Content-Length: 1000000", "x"), ("Transfer-Encoding: chunked", "1\r\nx\r\n")]
    {
        let mut client = proxy.connect();
        client.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let mut sending = Wire::new(client.wire.stream.try_clone().expect("a descriptor"));
        let sending = thread::spawn(move || trickle(&mut sending, piece));
        let answer = client.answer();
        assert_eq!((answer.status, answer.kind().as_str()), (408, "request_timeout"));
        assert!(sending.join().expect("no panic"), "the upload may trickle for ever");
    }
    assert_eq!(proxy.all_errors("v1"), 3);
}

#[test]
fn a_body_may_pause_before_its_first_byte_as_it_may_later() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.answer(200, b"ok")
    });
    let proxy = Proxy::builder().version("v1", &origin).route("timeout: 200ms").start();
    for (framing, body) in
        [("Content-Length: 1", "x"), ("Transfer-Encoding: chunked", "1\r\nx\r\n0\r\n\r\n")]
    {
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        // The pause is what is tested: it is longer than the route's timeout.
        thread::sleep(Duration::from_millis(600));
        client.send(body);
        assert_eq!(client.answer().status, 200, "{framing}");
    }
}

/// A proxy whose bodies may pause for 200 ms, but for those of `routes`.
fn hurried(origin: &Origin, routes: &[&str]) -> Proxy {
    let builder = Proxy::builder().version("v1", origin).top("limits: { body_timeout: 200ms }");
    let builder = routes.iter().fold(builder, |builder, route| builder.route(route));
    builder.route("name: rest").start()
}

#[test]
fn streams_and_routes_that_say_so_may_trickle() {
    let origin = Origin::start(|call| {
        let kind = if call.target() == "/events" { "text/event-stream" } else { "text/plain" };
        call.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n"))?;
        for _ in 0..25 {
            call.send("x")?;
            // Longer in all than what others have, and each pause shorter than the limit.
            thread::sleep(Duration::from_millis(50));
        }
        call.close();
        Ok(())
    });
    let free = "name: free, match: { path: /free }, body_rate: 0B";
    let proxy = hurried(&origin, &[free, "name: slow, match: { path: /slow }, body_timeout: 10s"]);
    for path in ["/events", "/free", "/slow"] {
        assert_eq!(proxy.get(path).text().len(), 25, "{path}");
    }
    assert!(proxy.connect().get("/").try_send().is_err());
}

/// One event stream made every slow client hold its connection for as long.
#[test]
fn a_route_may_be_silent_for_longer_than_others() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nbegun ")?;
        // The pause is what is tested: longer than what others have.
        thread::sleep(Duration::from_millis(800));
        call.send("ended")?;
        call.close();
        Ok(())
    });
    let proxy = hurried(&origin, &["name: events, match: { path: /events }, body_timeout: 1h"]);
    assert_eq!(proxy.get("/events").text(), "begun ended");
    assert!(proxy.connect().get("/").try_send().is_err());
}

/// Memory of a real process, since this one holds origin and client too.
#[test]
fn a_large_body_costs_the_proxy_no_memory() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.answer(200, &pattern(LARGE))
    });
    let process = Proxy::builder().version("v1", &origin).spawn();
    let mut client = process.connect();
    client.post("/", b"warm").send();
    let before = process.peak_kib();
    let began = Instant::now();
    let answer = client.post("/", &pattern(LARGE)).send();
    assert!(answer.body == pattern(LARGE), "bytes differ");
    assert!(began.elapsed() < PATIENCE);
    let grown = process.peak_kib() - before;
    assert!(grown < 4096, "{LARGE} bytes each way cost {grown} KiB");
}
