//! What strangers send in frames: malformed requests, floods, and what two servers could read in two ways.

use std::{thread, time::Duration};

use http::Response;

use crate::support::{
    Origin, Proxy, eventually,
    http2::{
        CONTINUATION, DATA, GET, GOAWAY, HEADERS, Http2, Origin2, PING, RST_STREAM, Raw, SETTINGS,
        WHOLE, WINDOW_UPDATE, block, frame, request, send_all,
    },
    raw_origin::RawOrigin,
};

const PROTOCOL_ERROR: u32 = 1;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

/// The stream that is reset next, and the code; none if one is answered.
#[track_caller]
fn raw_reset(raw: &mut Raw) -> Option<(u32, u32)> {
    loop {
        let frame = raw.next().expect("the connection lives");
        let code = frame.payload.last().copied().unwrap_or(0).into();
        match frame.kind {
            GOAWAY => panic!("the connection ends for {:?}", frame.payload),
            RST_STREAM => return Some((frame.stream, code)),
            HEADERS => return None,
            _ => {}
        }
    }
}

#[test]
fn malformed_requests_are_reset_and_never_passed_on() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::to(&origin);
    let with = |field: (&'static str, &'static str)| {
        let mut fields = GET.to_vec();
        fields.push(field);
        fields
    };
    let (mut raw, mut stream) = (Raw::connect(proxy.address), 1);
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
        raw.headers(stream, &fields);
        assert_eq!(raw_reset(&mut raw), Some((stream, PROTOCOL_ERROR)), "{fields:?}");
        // The connection serves on.
        raw.headers(stream + 2, &GET);
        assert_eq!(raw_reset(&mut raw), None, "{fields:?}");
        stream += 4;
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
    // Streams that are reset for what the client did to them, CVE-2025-8671.
    let provoked = |n: u32| {
        let (stream, most) = (1 + 2 * n, 0x7fff_ffff_u32.to_be_bytes());
        [frame(HEADERS, 5, stream, &get), frame(WINDOW_UPDATE, 0, stream, &most)].concat()
    };
    let empty = |n: u32| match n {
        0 => frame(HEADERS, 4, 1, &block(&POST)),
        _ => frame(DATA, 0, 1, &[]),
    };
    let floods: [(&str, Flood<'_>); 7] = [
        ("pings", &|_| ping.clone()),
        ("settings", &|_| settings.clone()),
        ("windows", &|_| window.clone()),
        ("unknown frames", &|_| unknown.clone()),
        ("rapid reset", &rapid),
        ("provoked resets", &provoked),
        ("empty frames", &empty),
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
    assert!(proxy.floods() >= 7);
}

/// Answers are with the HTTP/2 crate, and no request is in flight, while nobody reads them: a hundred connections
/// held more than a process of 256 MiB has.
#[test]
fn answers_that_nobody_reads_cost_their_own_connection() {
    static BODY: [u8; 30_000] = [b'x'; 30_000];
    let origin = Origin::answering(std::str::from_utf8(&BODY).expect("ASCII"));
    let builder = Proxy::builder().workers(1).version("v1", &origin);
    let proxy = builder.top("limits: { requests: 8, streams: 32 }").start();
    let reader = Http2::connect(proxy.address);
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    let window = frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    let mut idle: Vec<Raw> = (0..4).map(|_| Raw::connect(proxy.address)).collect();
    let mut asked = 0;
    for raw in &mut idle {
        raw.send(&[settings.clone(), window.clone()].concat());
        for n in 0..32 {
            if proxy.floods() > 0 {
                break;
            }
            raw.headers(1 + 2 * n, &GET);
            asked += 1;
            eventually("it is answered", || origin.requests() == asked || proxy.floods() > 0);
            eventually("nothing is in flight", || proxy.in_flight() == 0);
        }
    }
    assert!(proxy.floods() > 0, "{asked} answers wait");
    // Who reads is served, and its connection lives.
    for _ in 0..100 {
        let answer = reader.get("/");
        assert_eq!((answer.status, answer.body.len()), (200, 30_000));
    }
}

/// The kind of the next frame that is one of `kinds`.
#[track_caller]
fn await_kind(raw: &mut Raw, kinds: &[u8]) -> u8 {
    loop {
        let frame = raw.next().expect("the connection lives");
        assert_ne!(frame.kind, GOAWAY, "{:?}", frame.payload);
        if kinds.contains(&frame.kind) {
            return frame.kind;
        }
    }
}

const POST: [(&str, &str); 4] = [(":method", "POST"), GET[1], GET[2], GET[3]];

/// Two windows and a ping, as clients of gRPC and proxies send them for what they read.
fn thanks(stream: u32, length: usize) -> Vec<u8> {
    let length = (length as u32).to_be_bytes();
    [
        frame(WINDOW_UPDATE, 0, stream, &length),
        frame(WINDOW_UPDATE, 0, 0, &length),
        frame(PING, 0, 0, &[7; 8]),
    ]
    .concat()
}

#[test]
fn a_client_that_pings_and_opens_windows_for_each_answer_is_no_flood() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::to(&origin);
    let mut raw = Raw::connect(proxy.address);
    for n in 0..2000 {
        raw.headers(1 + 2 * n, &GET);
        await_kind(&mut raw, &[DATA]);
        raw.send(&thanks(1 + 2 * n, 2));
    }
    assert_eq!((origin.requests(), proxy.floods()), (2000, 0));
}

#[test]
fn a_call_of_many_small_messages_is_no_flood_however_often_the_client_pings() {
    const MESSAGE: &[u8; 13] = b"\0\0\0\0\x08eight by";
    let origin = Origin2::start(100, |mut asked| async move {
        let mut stream = asked.respond.send_response(Response::new(()), false).expect("open");
        while let Some(Ok(message)) = asked.body.data().await {
            asked.body.flow_control().release_capacity(message.len()).expect("open");
            send_all(&mut stream, &message).await;
        }
    });
    let proxy = Proxy::builder().version_speaking("v1", &[origin.address], "h2").start();
    // One by one, and as many as the window takes at once.
    for (rounds, at_once) in [(10_000, 1), (4, 2500)] {
        let mut raw = Raw::connect(proxy.address);
        raw.frame(HEADERS, 4, 1, &block(&POST));
        for round in 0..rounds {
            let message = [frame(DATA, 0, 1, MESSAGE), frame(PING, 0, 0, &[8; 8])].concat();
            raw.send(&message.repeat(at_once));
            let mut due = MESSAGE.len() * at_once;
            while due > 0 {
                let frame = raw.next().expect("the connection lives");
                assert_ne!(frame.kind, GOAWAY, "round {round}: {:?}", frame.payload);
                if frame.kind == DATA {
                    due -= frame.payload.len();
                    raw.send(&thanks(1, frame.payload.len()));
                }
            }
            // Once more for each, as one does that was busy with something else.
            if at_once > 1 {
                raw.send(&frame(PING, 0, 0, &[9; 8]).repeat(at_once));
            }
        }
        assert_eq!(proxy.floods(), 0, "{at_once} at once");
    }
}

#[test]
fn small_and_empty_frames_within_the_windows_are_no_flood() {
    let origin = Origin::start(|call| {
        let length = call.skip_body()?;
        call.answer(200, length.to_string().as_bytes())
    });
    let proxy = Proxy::to(&origin);
    for (count, length) in [(600, 20), (3000, 20), (20_000, 1)] {
        let mut raw = Raw::connect(proxy.address);
        let head = frame(HEADERS, 4, 1, &block(&POST));
        let body = frame(DATA, 0, 1, &vec![7; length]).repeat(count);
        raw.send(&[head, body, frame(DATA, 1, 1, &[])].concat());
        assert_eq!(await_kind(&mut raw, &[HEADERS, RST_STREAM]), HEADERS, "{count} of {length}");
    }
    // One empty frame per request, and one per message, for longer than the crate has patience.
    let mut raw = Raw::connect(proxy.address);
    for n in 0..300 {
        let (stream, empty) = (1 + 2 * n, frame(DATA, 0, 1 + 2 * n, &[]));
        let head = frame(HEADERS, 4, stream, &block(&POST));
        raw.send(&[head, empty, frame(DATA, 1, stream, b"x")].concat());
        await_kind(&mut raw, &[DATA]);
    }
    raw.frame(HEADERS, 4, 1001, &block(&POST));
    // However they are cut.
    let message = [frame(DATA, 0, 1001, b"x"), frame(DATA, 0, 1001, &[])].concat();
    for piece in message.repeat(2000).chunks(37) {
        raw.send(piece);
    }
    raw.frame(DATA, 1, 1001, b"");
    await_kind(&mut raw, &[HEADERS]);
    assert_eq!(proxy.floods(), 0);
}

#[test]
fn a_pseudo_field_in_trailers_resets_the_stream() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::to(&origin);
    let mut raw = Raw::connect(proxy.address);
    for (n, pseudo) in
        [(":path", "/x"), (":status", "200"), (":method", "GET")].into_iter().enumerate()
    {
        let stream = 1 + 4 * n as u32;
        let head = frame(HEADERS, 4, stream, &block(&POST));
        let body = frame(DATA, 0, stream, b"hello");
        let end = frame(HEADERS, WHOLE, stream, &block(&[pseudo]));
        raw.send(&[head, body, end].concat());
        assert_eq!(raw_reset(&mut raw), Some((stream, PROTOCOL_ERROR)), "{pseudo:?}");
        raw.headers(stream + 2, &GET);
        assert_eq!(raw_reset(&mut raw), None, "{pseudo:?}");
    }
}

#[test]
fn a_malformed_field_of_an_answer_ends_that_answer_alone() {
    let origin = RawOrigin::start(|call| match call.nth {
        0 => Some([call.head(), frame(DATA, 0, call.stream, b"begun ")].concat()),
        // A name in upper case behind `:status: 200`.
        1 => Some(frame(HEADERS, WHOLE, call.stream, &[0x88, 0, 1, b'X', 1, b'1'])),
        _ => Some(call.whole()),
    });
    let proxy = Proxy::builder().version_speaking("v1", &[origin.address], "h2").start();
    let mut download = proxy.connect();
    download.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is asked", || origin.requests() == 1);
    assert_eq!(proxy.connect().post("/", b"stake").send().status, 502);
    assert_eq!(proxy.get("/").status, 200);
    origin.send(0, &frame(DATA, 1, 1, b"ended"));
    assert_eq!((download.answer().text(), origin.connections()), ("begun ended", 1));
}

#[test]
fn an_endpoint_that_sends_empty_frames_keeps_its_connection() {
    let origin = RawOrigin::start(|call| {
        let empty = frame(DATA, 0, call.stream, &[]);
        Some([call.head(), empty.clone(), empty, frame(DATA, 1, call.stream, b"ok")].concat())
    });
    let proxy = Proxy::builder().version_speaking("v1", &[origin.address], "h2").start();
    let mut client = proxy.connect();
    for n in 0..300 {
        let answer = client.get("/").send();
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{n}");
    }
    assert_eq!(origin.connections(), 1);
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
    let builder = Proxy::builder().version("v1", &origin).route("timeout: 200ms");
    let proxy = builder.top("limits: { body_timeout: 200ms }").start();
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
