//! What strangers send in frames: malformed requests, floods, and what two servers could read in two ways.

use std::{thread, time::Duration};

use crate::support::{
    Origin, Proxy, eventually,
    http2::{
        CONTINUATION, DATA, GET, GOAWAY, HEADERS, Http2, PING, RST_STREAM, Raw, SETTINGS,
        WINDOW_UPDATE, block, frame, request,
    },
};

const PROTOCOL_ERROR: u32 = 1;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

#[test]
fn malformed_requests_are_reset_and_never_passed_on() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::to(&origin);
    let with = |field: (&'static str, &'static str)| {
        let mut fields = GET.to_vec();
        fields.push(field);
        fields
    };
    let without = |name: &str| -> Vec<_> { GET.into_iter().filter(|f| f.0 != name).collect() };
    for fields in [
        // RFC 9113 section 8.2.1.
        with(("X-Upper", "1")),
        with(("x:colon", "1")),
        with(("x space", "1")),
        with(("x-cr", "a\rb")),
        with(("x-lf", "a\nX-Smuggled: 1")),
        with(("x-nul", "a\0b")),
        with(("", "1")),
        with(("x-crlf\r\nevil", "1")),
        // Section 8.2.2.
        with(("connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("upgrade", "h2c")),
        with(("keep-alive", "5")),
        with(("proxy-connection", "close")),
        with(("te", "gzip")),
        // Section 8.3.
        with((":path", "/again")),
        with((":status", "200")),
        with((":unknown", "1")),
        without(":method"),
        without(":path"),
        without(":scheme"),
        vec![GET[0], GET[1], ("x-first", "1"), GET[2], GET[3]],
        vec![(":method", "G T"), GET[1], GET[2], GET[3]],
        vec![GET[0], GET[1], (":path", ""), GET[3]],
        vec![GET[0], GET[1], (":path", "/a b"), GET[3]],
        vec![GET[0], GET[1], (":path", "/a\r\nEvil: 1"), GET[3]],
        vec![GET[0], GET[1], GET[2], (":authority", "a b")],
        // Section 8.1.1: a length that is not that of the body.
        with(("content-length", "5")),
        with(("content-length", "+0")),
    ] {
        let mut raw = Raw::connect(proxy.address);
        raw.headers(1, &fields);
        assert_eq!(raw.error(), Some(PROTOCOL_ERROR), "{fields:?}");
        // The connection serves on.
        raw.headers(3, &GET);
        assert_eq!(raw.error(), None, "{fields:?}");
    }
    assert!(
        origin.seen().iter().all(|seen| seen.target() == "/" && !seen.head.raw.contains("vil"))
    );
}

#[test]
fn what_http1_would_refuse_is_refused_on_streams_in_the_same_words() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::to(&origin);
    let client = Http2::connect(proxy.address);
    for (asking, status) in [
        (request("GET", "/").header("host", "other.test"), 400),
        (request("GET", "/%zz"), 400),
        (request("GET", "/a/%2e%2e/%2e%2e/b"), 400),
        (request("GET", "/a%00b"), 400),
        (request("GET", "/a\\b"), 400),
        (request("GET", "/").header("expect", "200-ok"), 417),
    ] {
        let said = format!("{asking:?}");
        let answer = client.ask(asking, None);
        assert_eq!(answer.status, status, "{said}");
        let document: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(document["status"], status, "{said}");
    }
    assert_eq!(origin.requests(), 0);
    // What says the same twice is said once.
    let twice = request("GET", "/").header("host", "API.test");
    assert_eq!(client.ask(twice, None).status, 200);
    assert_eq!(origin.last().head.all("host").collect::<Vec<_>>(), ["api.test"]);
    // CONNECT is not offered, nor another protocol than WebSocket.
    let mut raw = Raw::connect(proxy.address);
    raw.headers(1, &[(":method", "CONNECT"), (":authority", "inner:22")]);
    let answer = loop {
        let frame = raw.next().expect("an answer");
        if frame.kind == HEADERS {
            break frame;
        }
    };
    assert_eq!(answer.stream, 1);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn broken_frames_end_the_connection_with_the_reason() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::to(&origin);
    let huge = frame(DATA, 0, 1, &[0; 16_385]);
    for (bytes, code) in [
        // A frame larger than SETTINGS allow.
        (huge, FRAME_SIZE_ERROR),
        // DATA of no stream, and of an idle one.
        (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (frame(DATA, 0, 5, b"x"), PROTOCOL_ERROR),
        // A stream of the server's numbers.
        (frame(HEADERS, 5, 2, &block(&GET)), PROTOCOL_ERROR),
        // Settings and pings of another size.
        (frame(SETTINGS, 0, 0, &[0; 5]), FRAME_SIZE_ERROR),
        (frame(PING, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
        // A continuation of nothing, and something else within a header block.
        (frame(CONTINUATION, 4, 1, &[]), PROTOCOL_ERROR),
        ([frame(HEADERS, 1, 1, &block(&GET)), frame(PING, 0, 0, &[0; 8])].concat(), PROTOCOL_ERROR),
        // A header block that is no HPACK: it refers to no entry. COMPRESSION_ERROR would say it better.
        (frame(HEADERS, 5, 1, &[0xff, 0x20]), PROTOCOL_ERROR),
        // A window of nothing, and one beyond all bounds.
        (frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), 3),
    ] {
        let mut raw = Raw::connect(proxy.address);
        raw.send(&bytes);
        let said = bytes[..bytes.len().min(12)].to_vec();
        let code_seen = raw.error();
        assert_eq!(code_seen, Some(code), "{said:?}");
    }
    assert_eq!(Http2::connect(proxy.address).get("/").status, 200, "the worker lives");
}

#[test]
fn floods_are_told_to_calm_down_and_leave_others_untouched() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::to(&origin);
    let other = Http2::connect(proxy.address);
    let ping = frame(PING, 0, 0, &[7; 8]);
    let settings = frame(SETTINGS, 0, 0, &[]);
    let window = frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes());
    let unknown = frame(0xbe, 0, 0, &[1]);
    let get = block(&GET);
    let rapid = |n: u32| {
        let stream = 1 + 2 * n;
        [frame(HEADERS, 5, stream, &get), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())]
            .concat()
    };
    type Flood<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let floods: [(&str, Flood<'_>); 5] = [
        ("pings", &|_| ping.clone()),
        ("settings", &|_| settings.clone()),
        ("windows", &|_| window.clone()),
        ("unknown frames", &|_| unknown.clone()),
        ("rapid reset", &rapid),
    ];
    for (name, flood) in floods {
        let mut raw = Raw::connect(proxy.address);
        // In few writes, as an attacker would.
        for batch in 0..20 {
            let bytes: Vec<u8> = (0..1000).flat_map(|n| flood(batch * 1000 + n)).collect();
            if !raw.send(&bytes) {
                break;
            }
        }
        let calm = loop {
            match raw.next() {
                Some(frame) if frame.kind == GOAWAY => break frame.payload[7],
                Some(_) => {}
                None => panic!("{name}: the connection ended without a word"),
            }
        };
        assert_eq!(u32::from(calm), ENHANCE_YOUR_CALM, "{name}");
        assert_eq!(other.get("/").status, 200, "{name}");
    }
    assert!(proxy.floods() >= 5);
}

#[test]
fn a_request_whose_end_comes_after_its_answer_is_not_reset() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.answer(200, b"ok")
    });
    let proxy = Proxy::to(&origin);
    let mut raw = Raw::connect(proxy.address);
    let post = [(":method", "POST"), GET[1], GET[2], GET[3], ("content-length", "5")];
    raw.frame(HEADERS, 4, 1, &block(&post));
    raw.frame(DATA, 0, 1, b"hello");
    // By its length the request is whole, so it is answered.
    while raw.next().expect("an answer").kind != DATA {}
    raw.frame(PING, 0, 0, &[1; 8]);
    raw.frame(DATA, 1, 1, b"");
    raw.frame(PING, 0, 0, &[2; 8]);
    loop {
        let frame = raw.next().expect("a pong");
        assert_ne!(frame.kind, RST_STREAM);
        if frame.kind == PING && frame.payload == [2; 8] {
            break;
        }
    }
}

#[test]
fn a_header_block_without_end_is_cut_off() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::to(&origin);
    let mut raw = Raw::connect(proxy.address);
    raw.frame(HEADERS, 1, 1, &block(&GET));
    let piece = block(&[("x-pad", &"y".repeat(100))]);
    let sent = (0..100_000).take_while(|_| raw.frame(CONTINUATION, 0, 1, &piece)).count();
    assert!(sent < 100_000, "all of it was taken");
    assert_eq!(Http2::connect(proxy.address).get("/").status, 200);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn heads_above_the_limit_are_a_431_on_streams() {
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("limits: { header_bytes: 2KiB, header_count: 20 }").start();
    let client = Http2::connect(proxy.address);
    let many = (0..30).fold(request("GET", "/"), |r, n| r.header(format!("x-{n}"), "1"));
    assert_eq!(client.ask(many, None).status, 431);
    let large = request("GET", "/").header("x-pad", "y".repeat(3000));
    assert_eq!(client.ask(large, None).status, 431);
    assert_eq!(client.get("/").status, 200, "the connection lives");
}

#[test]
fn more_streams_than_the_limit_are_refused() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.await_end()
    });
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("limits: { streams: 3 }").start();
    let mut raw = Raw::connect(proxy.address);
    // Settings first, so that the limit is in force.
    while raw.next().expect("settings").kind != SETTINGS {}
    raw.frame(SETTINGS, 1, 0, &[]);
    for n in 0..4 {
        raw.headers(1 + 2 * n, &GET);
    }
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(raw.error(), Some(REFUSED_STREAM));
    origin.await_requests(3);
}

#[test]
fn a_client_that_stays_silent_or_stops_within_the_preface_is_let_go() {
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("limits: { header_timeout: 200ms, idle_timeout: 300ms }").start();
    for start in [&b""[..], b"PRI * HTTP", b"PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut client = proxy.connect();
        client.send(start);
        while !client.wire.some().expect("closed in order").is_empty() {}
    }
    // A preface in pieces is a preface.
    let mut client = proxy.connect();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.send([*byte]);
        thread::sleep(Duration::from_millis(1));
    }
    client.send(frame(SETTINGS, 0, 0, &[]));
    client.send(frame(HEADERS, 5, 1, &block(&GET)));
    origin.await_requests(1);
    // Within a connection of HTTP/1.1 it is none.
    let mut client = proxy.connect();
    client.get("/").send();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.answer().status, 505);
    // Nor is a client that opens a stream and stops within its body served for ever.
    let proxy =
        Proxy::builder().version("v1", &origin).top("limits: { body_timeout: 200ms }").start();
    let mut raw = Raw::connect(proxy.address);
    raw.frame(HEADERS, 4, 1, &block(&[(":method", "POST"), GET[1], GET[2], GET[3]]));
    let status = loop {
        match raw.next() {
            Some(frame) if frame.kind == HEADERS => break frame,
            Some(_) => {}
            None => panic!("no answer"),
        }
    };
    assert_eq!(status.stream, 1);
    eventually("the request is let go", || proxy.in_flight() == 0);
}
