//! Connections that go on in another protocol: WebSocket and others, over HTTP/1.1 and on streams.

use std::{io::Write, thread, time::Duration};

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Response};
use tidegate::app::Ended;

use crate::support::{
    Client, Origin, PATIENCE, Proxy, eventually,
    http2::{Http2, Origin2, request, send_all},
    lacks, pattern,
};

const ASK: &str = "GET /live HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Switches to `protocol` and sends back what comes.
fn echo(protocol: &'static str) -> Origin {
    Origin::start(move |call| {
        let accept = match call.head.field("sec-websocket-key") {
            Some(key) => accept(key),
            None => String::new(),
        };
        call.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\nfirst"
        ))?;
        call.close();
        loop {
            let bytes = call.wire.some()?;
            if bytes.is_empty() {
                return Ok(());
            }
            call.send(bytes)?;
        }
    })
}

/// As RFC 6455 section 1.3 has it; by another implementation than the proxy's.
fn accept(key: &str) -> String {
    use std::process::{Command, Stdio};
    if key == "dGhlIHNhbXBsZSBub25jZQ==" {
        return "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
    }
    let script = "import base64,hashlib,sys; print(base64.b64encode(hashlib.sha1(\
        (sys.argv[1]+'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode())";
    let output = Command::new("python3").args(["-c", script, key]).stdin(Stdio::null()).output();
    String::from_utf8(output.expect("python3 runs").stdout).expect("text").trim().to_owned()
}

fn ask(proxy: &Proxy) -> (Client, crate::support::wire::Head) {
    let mut client = proxy.connect();
    client.send(ASK);
    let head = client.wire.head().expect("open").expect("a head");
    (client, head)
}

#[test]
fn a_websocket_passes_both_ways_and_counts_while_it_is_open() {
    let origin = echo("websocket");
    let proxy = Proxy::to(&origin);
    let (mut client, head) = ask(&proxy);
    assert_eq!(head.start_line(), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert_eq!(head.all("connection").collect::<Vec<_>>(), ["Upgrade"]);
    assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let seen = origin.last().head;
    assert_eq!(seen.field("upgrade"), Some("websocket"));
    assert_eq!(seen.all("connection").collect::<Vec<_>>(), ["Upgrade"]);
    assert_eq!(client.wire.exactly_bytes(5), b"first", "what came with the head");
    for length in [1, 1000, 100_000, 1_000_000] {
        let bytes = pattern(length);
        let mut sending = client.wire.stream.try_clone().expect("a descriptor");
        let sent = bytes.clone();
        let sending = thread::spawn(move || sending.write_all(&sent).expect("the proxy reads"));
        assert!(client.wire.exactly_bytes(length) == bytes, "{length} bytes");
        sending.join().expect("sent");
    }
    assert_eq!(proxy.in_flight(), 1);
    drop(client);
    origin.await_open(0);
    eventually("it is counted as ended", || proxy.in_flight() == 0);
}

/// `docker exec` opens its raw connection by a POST with a body.
#[test]
fn a_request_with_a_body_goes_on_in_another_protocol_once_it_has_ended() {
    // Switches as soon as it has a byte of the body, which may be ahead of its end.
    let origin = Origin::start(|call| {
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n";
        if call.target() == "/early" {
            call.send(head)?;
        }
        let body = call.read_body()?;
        if call.target() != "/early" {
            call.send(head)?;
        }
        call.send(&body)?;
        call.close();
        loop {
            let bytes = call.wire.some()?;
            if bytes.is_empty() {
                return call.send("bye");
            }
            call.send(bytes.to_ascii_uppercase())?;
        }
    });
    let proxy = Proxy::builder().version("v1", &origin).route("upgrades: [ tcp ]").start();
    for (framing, begun, rest) in [
        ("Content-Length: 4", "bo", "dy"),
        ("Content-Length: 4", "body", ""),
        ("Transfer-Encoding: chunked", "2\r\nbo\r\n", "2\r\ndy\r\n0\r\n\r\n"),
    ] {
        for path in ["/", "/early"] {
            let mut client = proxy.connect();
            let before = origin.requests();
            client.send(format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{framing}\r\n\r\n{begun}"
            ));
            origin.await_requests(before + 1);
            client.send(format!("{rest}raw"));
            let head = client.wire.head().expect("an answer").expect("an answer");
            assert_eq!(head.start_line(), "HTTP/1.1 101 Switching Protocols");
            assert_eq!(client.wire.exactly_bytes(7), b"bodyRAW", "{framing} {path}");
            client.wire.stream.shutdown(std::net::Shutdown::Write).expect("an open socket");
            assert_eq!(client.wire.exactly_bytes(3), b"bye");
        }
    }
}

#[test]
fn what_a_route_does_not_allow_with_a_body_goes_on_without() {
    let origin = Origin::start(|call| {
        let body = call.read_body()?;
        call.answer(200, &body)
    });
    let proxy = Proxy::to(&origin);
    for protocol in ["tcp", "websocket"] {
        let mut client = proxy.connect();
        let asking = client.post("/", b"{}").header("Connection", "Upgrade");
        assert_eq!(asking.header("Upgrade", protocol).send().text(), "{}");
        let head = origin.last().head;
        assert_eq!((head.field("upgrade"), head.field("connection")), (None, None));
        assert_eq!(client.get("/").send().status, 200, "the connection stays");
    }
}

#[test]
fn only_what_a_route_allows_is_gone_on_in() {
    let origin = Origin::answering("plain");
    let proxy = Proxy::builder()
        .version("v1", &origin)
        .route("name: none, upgrades: [], match: { path: /none }")
        .route("name: own, upgrades: [ table/2 ], match: { path: /own }")
        .route("name: rest")
        .start();
    for (path, asked, passed) in [
        ("/", "websocket", Some("websocket")),
        ("/", "WebSocket", Some("WebSocket")),
        ("/", "h2c", None),
        ("/", "h2c, websocket", Some("websocket")),
        ("/", "TLS/1.0", None),
        ("/none", "websocket", None),
        ("/own", "table/2", Some("table/2")),
        ("/own", "websocket", None),
    ] {
        let mut client = proxy.connect();
        let asking = client.get(path).header("Connection", "Upgrade, HTTP2-Settings");
        let answer = asking.header("Upgrade", asked).header("HTTP2-Settings", "AAMAAABk").send();
        // The origin does not switch, which is its right (RFC 9110 section 7.8).
        assert_eq!(answer.text(), "plain");
        let seen = origin.last().head;
        assert_eq!(seen.field("upgrade"), passed, "{asked} at {path}");
        assert_eq!(seen.field("http2-settings"), None);
    }
    // Without `Connection: upgrade` the field means nothing; nor with a body.
    let mut client = proxy.connect();
    client.get("/").header("Upgrade", "websocket").send();
    assert_eq!(origin.last().head.field("upgrade"), None);
    let with_body = client.post("/", b"body").header("Connection", "Upgrade");
    with_body.header("Upgrade", "websocket").send();
    assert_eq!(origin.last().head.field("upgrade"), None);
}

#[test]
fn an_origin_that_switches_unasked_or_to_another_protocol_is_at_fault() {
    let origin = echo("table/2");
    let proxy = Proxy::to(&origin);
    assert_eq!(proxy.get("/").status, 502);
    let mut client = proxy.connect();
    client.send(ASK);
    assert_eq!(client.answer().status, 502);
}

#[test]
fn a_silent_websocket_is_closed_in_time() {
    let origin = echo("websocket");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("limits: { upgrade_timeout: 200ms }").start();
    let (mut client, _) = ask(&proxy);
    assert_eq!(client.wire.exactly_bytes(5), b"first");
    client.wire.end().expect("closed in order");
    origin.await_open(0);
}

/// A masked text frame of `text`.
fn frame(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    bytes.extend_from_slice(text);
    bytes
}

#[test]
fn a_drain_closes_websockets_in_order_between_two_frames() {
    let (told, was_told) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::start(move |call| {
        call.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")?;
        call.send("Connection: Upgrade\r\n\r\n\x01\x04half")?;
        call.close();
        // A frame is begun, and ended only while the proxy drains.
        let first = call.wire.some()?;
        call.send(b"\x80\x04full\x81")?;
        let mut rest = Vec::new();
        thread::sleep(Duration::from_millis(1200));
        call.send(b"\x02hi")?;
        loop {
            let bytes = call.wire.some().unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            rest.extend(bytes);
        }
        let _ = told.lock().expect("no panic").send((first, rest));
        Ok(())
    });
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("shutdown: { deadline: 2s }").start();
    let (mut client, _) = ask(&proxy);
    client.send(frame(b"go"));
    let ending = thread::spawn(move || proxy.shutdown());
    let mut all = Vec::new();
    client.wire.wait_for_bytes(PATIENCE);
    while let Ok(bytes) = client.wire.some() {
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
    }
    let expected = b"\x01\x04half\x80\x04full\x81\x02hi\x88\x02\x03\xe9";
    assert_eq!(all, expected, "the frame under way, then a close with 1001");
    drop(client);
    assert_eq!(ending.join().expect("ended"), Ended::Drained);
    let (first, rest) = was_told.recv_timeout(PATIENCE).expect("ended");
    assert_eq!(first, frame(b"go"));
    assert_eq!((rest[0], rest[1], rest.len()), (0x88, 0x82, 8), "a masked close: {rest:?}");
    assert_eq!([rest[6] ^ rest[2], rest[7] ^ rest[3]], 1001u16.to_be_bytes());
}

/// A stream that asks for a WebSocket (RFC 8441).
fn websocket() -> http::Request<()> {
    let mut asking = request("CONNECT", "/live").header("sec-websocket-version", "13").body(());
    let asking = asking.as_mut().expect("a request");
    asking.extensions_mut().insert(Protocol::from_static("websocket"));
    std::mem::take(asking)
}

/// Opens a WebSocket on a stream, sends `sent` and answers as many bytes as `length`.
fn over_stream(client: &Http2, sent: &[u8], length: usize) -> (Response<()>, Vec<u8>) {
    client.run(async {
        let mut send = client.send.clone().ready().await.expect("open");
        while !send.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (response, mut stream) = send.send_request(websocket(), false).expect("a stream");
        let (head, mut body) = response.await.expect("an answer").into_parts();
        let mut got = Vec::new();
        let sending = send_all(&mut stream, sent);
        let reading = async {
            while got.len() < length
                && let Some(Ok(bytes)) = body.data().await
            {
                body.flow_control().release_capacity(bytes.len()).expect("open");
                got.extend_from_slice(&bytes);
            }
        };
        tokio::join!(sending, reading);
        // A refusal has ended the stream already.
        let _ = stream.send_data(Bytes::new(), true);
        if head.status == 200 {
            assert!(body.data().await.is_none_or(|end| end.is_ok_and(|b| b.is_empty())));
        }
        (Response::from_parts(head, ()), got)
    })
}

#[test]
fn a_websocket_on_a_stream_reaches_an_origin_of_either_kind() {
    if lacks("python3", "python3") {
        return;
    }
    let one = echo("websocket");
    let two = Origin2::start(100, |mut asked| async move {
        assert_eq!(asked.head.method, Method::CONNECT);
        let protocol = asked.head.extensions.get::<Protocol>().expect("one");
        assert_eq!(protocol.as_str(), "websocket");
        assert!(!asked.head.headers.contains_key("sec-websocket-key"));
        let mut stream = asked.respond.send_response(Response::new(()), false).expect("open");
        send_all(&mut stream, b"first").await;
        while let Some(Ok(bytes)) = asked.body.data().await {
            asked.body.flow_control().release_capacity(bytes.len()).expect("open");
            send_all(&mut stream, &bytes).await;
        }
        stream.send_data(Bytes::new(), true).expect("open");
    });
    for proxy in
        [Proxy::to(&one), Proxy::builder().version_speaking("v1", &[two.address], "h2").start()]
    {
        let client = Http2::connect(proxy.address);
        let bytes = pattern(300_000);
        let (head, got) = over_stream(&client, &bytes, bytes.len() + 5);
        assert_eq!(head.status(), 200);
        for absent in ["upgrade", "connection", "sec-websocket-accept"] {
            assert!(!head.headers().contains_key(absent), "{absent}");
        }
        assert!(got[..5] == b"first"[..] && got[5..] == bytes, "{} bytes came", got.len());
        // And a client of HTTP/1.1 at the same endpoint.
        let (mut client, head) = ask(&proxy);
        assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(client.wire.exactly_bytes(5), b"first");
        client.send(frame(b"hi"));
        assert_eq!(client.wire.exactly_bytes(8), frame(b"hi"));
        drop(client);
        eventually("all have ended", || proxy.in_flight() == 0);
    }
}

#[test]
fn a_websocket_that_the_origin_refuses_is_refused_on_a_stream() {
    let origin = Origin::start(|call| call.answer(403, b"no"));
    let proxy = Proxy::to(&origin);
    let client = Http2::connect(proxy.address);
    let (head, got) = over_stream(&client, b"", 2);
    assert_eq!((head.status().as_u16(), &got[..]), (403, &b"no"[..]));
    // One whose handshake is wrong has not understood.
    let origin = Origin::start(|call| {
        call.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        )?;
        call.send("Sec-WebSocket-Accept: c29tZXRoaW5nIGVsc2U=\r\n\r\n")?;
        call.await_end()
    });
    let proxy = Proxy::to(&origin);
    let client = Http2::connect(proxy.address);
    let failed = client.run(async {
        let mut send = client.send.clone().ready().await.expect("open");
        while !send.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (response, _stream) = send.send_request(websocket(), false).expect("a stream");
        response.await
    });
    assert!(failed.is_err());
}
