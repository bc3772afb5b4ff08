//! Bounds on what clients may send and hold.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Answer, Client, Origin, PATIENCE, Proxy, eventually,
    http2::{GET, HEADERS, WHOLE, block, frame},
};

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

/// Each held two blocks of 16 KiB for as long as it liked.
#[test]
fn a_client_whose_head_is_not_whole_holds_little_memory() {
    const CLIENTS: u64 = 1000;
    let origin = Origin::answering("ok");
    let process = Proxy::builder().version("v1", &origin).spawn();
    assert_eq!(process.connect().get("/").send().status, 200);
    let before = process.peak_kib();
    let mut waiting: Vec<_> = (0..CLIENTS).map(|_| process.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Pad: "));
    // Once the last ones are served, all were read.
    for client in waiting.iter_mut().rev().take(10) {
        client.send("x\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
    let each = (process.peak_kib() - before) / CLIENTS;
    assert!(each < 16, "{each} KiB of each");
    // And what comes in pieces is whole at last.
    let long = "x".repeat(20_000);
    let client = waiting.first_mut().expect("one of them");
    for piece in [&long[..1500], &long[1500..9000], &long[9000..], "\r\n\r\n"] {
        client.send(piece);
    }
    assert_eq!(client.answer().status, 200);
}

#[test]
fn two_thousand_slow_clients_leave_others_untouched_and_are_cut_off() {
    const EACH: usize = 500;
    let origin = Origin::start(|call| {
        call.skip_body()?;
        if call.target() != "/large" {
            return call.answer(200, b"ok");
        }
        // More than what all buffers on the way hold.
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n")?;
        (0..256).try_for_each(|_| call.send([b'x'; 65_536]))
    });
    let builder = Proxy::builder().version("v1", &origin);
    let proxy =
        builder.top("limits: { header_timeout: 3s, body_timeout: 3s, idle_timeout: 3s }").start();
    let get = frame(HEADERS, WHOLE, 1, &block(&GET));
    let mut slow = Vec::with_capacity(4 * EACH);
    for _ in 0..EACH {
        // Heads that never end, bodies that never come, answers that nobody reads, streams that stop.
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Pad: ");
        slow.push(client);
        let mut client = proxy.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx");
        slow.push(client);
        let mut client = Client::connect_narrow(proxy.address);
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
        slow.push(client);
        let mut client = proxy.connect();
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.send(&get[..get.len() - 1]);
        slow.push(client);
    }
    assert_eq!(slow.len(), 2000);
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(proxy.get("/").status, 200);
            began.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[100] < Duration::from_millis(500), "the median took {:?}", times[100]);
    eventually("all are cut off", || proxy.open_connections() == 0);
    assert_eq!(proxy.in_flight(), 0);
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

/// An origin that holds every request for `/hold` until it is told to let them go.
struct Holding {
    origin: Origin,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Holding {
    fn start() -> Self {
        let gate = Arc::<(Mutex<bool>, Condvar)>::default();
        let shut = Arc::clone(&gate);
        let origin = Origin::start(move |call| {
            call.skip_body()?;
            if call.target() == "/hold" {
                let (open, opened) = &*shut;
                let open = open.lock().expect("whole");
                drop(opened.wait_timeout_while(open, PATIENCE, |open| !*open).expect("whole"));
            }
            call.answer(200, b"ok")
        });
        Self { origin, gate }
    }

    /// Sends a request that is held from each of `clients`; when this returns, all are in flight.
    fn hold(&self, clients: &mut [Client], more: &str) {
        let before = self.origin.requests();
        for client in &mut *clients {
            client.send(format!("GET /hold HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        }
        self.origin.await_requests(before + clients.len());
    }

    fn let_go(&self) {
        *self.gate.0.lock().expect("whole") = true;
        self.gate.1.notify_all();
    }
}

#[track_caller]
fn assert_shed(answer: &Answer, kind: &str) {
    assert_eq!((answer.status, answer.kind().as_str()), (503, kind));
    assert_eq!((answer.field("retry-after"), answer.field("connection")), (Some("1"), None));
}

/// Requests shed at `limits.requests` and at `limits.requests_per_client`.
fn requests_shed(proxy: &Proxy) -> (u64, u64) {
    let controller = proxy.app().observatory().controller();
    let cells = &controller.shared().cells;
    (cells.sum(|c| c.requests_shed.read()), cells.sum(|c| c.requests_shed_per_client.read()))
}

#[test]
fn one_request_too_many_is_told_so_and_keeps_its_connection() {
    let holding = Holding::start();
    let proxy = limited(&holding.origin, "requests: 3");
    let mut busy: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
    let mut surplus = proxy.connect();
    assert_eq!(surplus.get("/").send().text(), "ok");
    holding.hold(&mut busy, "");
    assert_shed(&surplus.get("/").send(), "requests");
    assert_shed(&surplus.post("/", b"hello").send(), "requests");
    let answer = surplus.request("HEAD", "/").send();
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    assert_eq!((requests_shed(&proxy), holding.origin.requests()), ((3, 0), 4));
    // A body that is still to come cannot be skipped.
    let mut uploading = proxy.connect();
    uploading.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    let answer = uploading.answer();
    assert_eq!((answer.kind().as_str(), answer.field("connection")), ("requests", Some("close")));
    uploading.expect_end();
    // One that breaks off makes room, and so does one that is answered.
    busy.pop().expect("three").reset();
    eventually("a place is free again", || surplus.get("/").send().status == 200);
    holding.let_go();
    for client in &mut busy {
        assert_eq!(client.answer().text(), "ok");
    }
    holding.hold(&mut busy, "");
    for client in &mut busy {
        assert_eq!(client.answer().text(), "ok");
        assert_eq!(client.get("/").send().text(), "ok");
    }
    assert_eq!(surplus.get("/").send().text(), "ok");
}

#[test]
fn every_worker_takes_its_part_of_the_requests() {
    let holding = Holding::start();
    let builder = Proxy::builder().version("v1", &holding.origin).workers(2);
    let proxy = builder.top("limits: { requests: 4 }").start();
    // The least loaded worker gets the next connection, so each gets every other one.
    let mut busy: Vec<Client> = (0..4).map(|_| proxy.connect()).collect();
    eventually("all are open", || {
        proxy.app().observatory().controller().shared().connections() == 4
    });
    holding.hold(&mut busy, "");
    for _ in 0..2 {
        assert_shed(&proxy.get("/"), "requests");
    }
    holding.let_go();
    for client in &mut busy {
        assert_eq!(client.answer().text(), "ok");
    }
}

#[test]
fn one_address_has_only_so_many_requests_in_flight() {
    let holding = Holding::start();
    let proxy = Proxy::builder()
        .version("v1", &holding.origin)
        .listener("proxy_protocol: { from: [ 127.0.9.0/24 ] }")
        .top("trusted_proxies: [ 127.0.8.0/24 ]")
        .top("limits: { requests_per_client: 2 }")
        .workers(2)
        .start();
    let ip = |third, last| IpAddr::V4(Ipv4Addr::new(127, 0, third, last));
    let connect = |from, head: &str| {
        let mut client = Client::connect_from(from, proxy.address);
        client.send(head);
        client
    };
    let head = |client| format!("PROXY TCP4 {client} 10.0.0.1 51234 443\r\n");
    let forwarded = |client| format!("X-Forwarded-For: {client}\r\n");
    let ask = |client: &mut Client, more: &str| {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n"));
        client.answer()
    };
    // From where, what comes before the requests and in them; the same client otherwise; another.
    let mut held = Vec::new();
    let mut shed = 0;
    for (one, same, other) in [
        ((ip(0, 1), "", ""), (ip(0, 1), "", ""), (ip(0, 2), "", "")),
        (
            (ip(9, 1), &*head("192.0.2.7"), ""),
            (ip(9, 2), &*head("192.0.2.7"), ""),
            (ip(9, 1), &*head("192.0.2.8"), ""),
        ),
        (
            (ip(8, 1), "", &*forwarded("192.0.2.9")),
            (ip(8, 2), "", &*forwarded("198.51.100.1, 192.0.2.9")),
            (ip(8, 1), "", &*forwarded("192.0.2.10")),
        ),
        (
            (ip(8, 1), "", &*forwarded("2001:db8::1")),
            (ip(8, 1), "", &*forwarded("2001:db8::ffff:2")),
            (ip(8, 1), "", &*forwarded("2001:db8:0:1::1")),
        ),
    ] {
        let mut busy: Vec<_> = (0..2).map(|_| connect(one.0, one.1)).collect();
        holding.hold(&mut busy, one.2);
        let (mut same_client, mut other_client) =
            (connect(same.0, same.1), connect(other.0, other.1));
        for _ in 0..2 {
            assert_shed(&ask(&mut same_client, same.2), "requests_per_client");
            assert_eq!(ask(&mut other_client, other.2).text(), "ok", "{other:?}");
            shed += 1;
        }
        held.push((busy, same_client, same.2.to_owned()));
    }
    // On one connection of a trusted proxy it is the request that counts.
    let mut relay = connect(ip(8, 1), "");
    assert_shed(&ask(&mut relay, &forwarded("192.0.2.7")), "requests_per_client");
    assert_eq!(ask(&mut relay, &forwarded("192.0.2.11")).text(), "ok");
    // Who stands for many is not counted.
    let mut busy: Vec<_> = (0..4).map(|_| connect(ip(8, 1), "")).collect();
    busy.extend((0..4).map(|_| connect(ip(9, 1), "PROXY UNKNOWN\r\n")));
    holding.hold(&mut busy, "");
    assert_eq!(requests_shed(&proxy), (0, shed + 1));
    holding.let_go();
    for client in held.iter_mut().flat_map(|(busy, ..)| busy).chain(&mut busy) {
        assert_eq!(client.answer().text(), "ok");
    }
    for (_, client, more) in &mut held {
        // The worker of another connection may not have counted its end yet.
        eventually("a place is free again", || ask(client, more).status == 200);
    }
}

#[test]
fn limits_of_requests_change_with_the_file() {
    let holding = Holding::start();
    let builder = Proxy::builder().version("v1", &holding.origin);
    let proxy = builder.clone().start_with_file();
    let mut busy: Vec<Client> = (0..2).map(|_| proxy.connect()).collect();
    holding.hold(&mut busy, "");
    let mut client = proxy.connect();
    assert_eq!(client.get("/").send().text(), "ok");
    for (limits, status) in
        [("requests: 2", 503), ("requests: 3", 200), ("requests_per_client: 1", 503)]
    {
        proxy.write(&builder.clone().top(&format!("limits: {{ {limits} }}")).text());
        eventually(limits, || client.get("/").send().status == status);
    }
    holding.let_go();
    for client in &mut busy {
        assert_eq!(client.answer().text(), "ok");
    }
}

#[test]
fn requests_that_share_a_connection_of_http2_are_counted_one_by_one() {
    let holding = Holding::start();
    let proxy = limited(&holding.origin, "requests_per_client: 3");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let socket = tokio::net::TcpStream::connect(proxy.address).await.expect("connected");
        let (client, connection) = h2::client::handshake(socket).await.expect("greeted");
        let connection = tokio::spawn(connection);
        let mut client = client.ready().await.expect("ready");
        let mut ask = |path: &str| {
            let uri = format!("http://game.test{path}");
            let request = http::Request::get(uri).body(()).expect("a request");
            client.send_request(request, true).expect("a stream").0
        };
        let held = [ask("/hold"), ask("/hold"), ask("/hold")];
        while holding.origin.requests() < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for _ in 0..2 {
            let answer = ask("/").await.expect("an answer");
            assert_eq!(answer.status(), 503);
            assert_eq!(answer.headers()["retry-after"], "1");
        }
        let mut other = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2).into(), proxy.address);
        assert_eq!(other.get("/").send().text(), "ok");
        holding.let_go();
        for answer in held {
            assert_eq!(answer.await.expect("an answer").status(), 200);
        }
        assert_eq!(ask("/").await.expect("an answer").status(), 200);
        connection.abort();
    });
    assert_eq!(requests_shed(&proxy), (0, 2));
}
