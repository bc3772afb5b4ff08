//! TLS over real sockets: towards clients, towards endpoints, and certificates that change.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName},
};
use serde_json::{Value, json};

use crate::support::{
    Client,
    authority::Authority,
    eventually,
    http2::{HEADERS, WHOLE, frame},
    origin::Origin,
    proxy::Proxy,
    raw_origin::converse,
};

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, name: &str, config: ClientConfig) -> Secure {
    let socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), socket)
}

/// Sends `request` and reads the answer, which must have a length.
fn ask(stream: &mut Secure, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut got = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length: ").and_then(|n| n.trim().parse::<usize>().ok())
            });
            if body.len() >= length.expect("a length") {
                return Ok(text);
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => got.extend_from_slice(&piece[..n]),
        }
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: edge.test\r\nX-Client-Cert-Subject: CN=admin\r\n\r\n";

#[test]
fn a_client_speaks_tls_and_keeps_its_connection() {
    let authority = Authority::new();
    authority.sign("edge", "edge.test");
    let origin = Origin::answering("inside");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.listener(&authority.listener("edge", "")).start();
    let mut client = connect(proxy.app().listeners[0], "edge.test", authority.client(None));
    for _ in 0..3 {
        assert!(ask(&mut client, GET).expect("an answer").ends_with("inside"));
    }
    assert_eq!(client.conn.alpn_protocol(), None);
    let seen = origin.last();
    assert_eq!(seen.head.field("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.head.field("x-client-cert-subject"), None, "a stranger forged it");
    // Large bodies are split over records both ways.
    let body = "x".repeat(200_000);
    let post =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert!(ask(&mut client, &post).expect("an answer").ends_with("inside"));
    assert_eq!(origin.connections(), 1, "kept");
    // Plain HTTP on the port is not answered, and harms nobody.
    assert!(proxy.connect().get("/").try_send().is_err());
    eventually("counted", || {
        let controller = proxy.app().observatory().controller();
        controller.listeners()[0].handshakes_failed.load(Relaxed) == 1
    });
    assert!(ask(&mut client, GET).expect("an answer").ends_with("inside"));
}

/// What a client reads until its connection ends, and whether the end was said by `close_notify`.
fn ends(stream: &mut Secure) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => false,
        Err(error) => panic!("{error}"),
    }
}

/// An end without `close_notify` may be an attacker's, and clients tell it as an error.
#[test]
fn a_session_ends_in_order_however_its_connection_ends() {
    let authority = Authority::new();
    authority.sign("edge", "edge.test");
    let origin = Origin::answering("inside");
    let builder = Proxy::builder().version("v1", &origin);
    let builder = builder.listener(&authority.listener("edge", ""));
    let builder = builder.top("limits: { idle_timeout: 300ms, header_timeout: 300ms }");
    let proxy = builder.start();
    let open = || connect(proxy.app().listeners[0], "edge.test", authority.client(None));
    let mut idle = open();
    ask(&mut idle, GET).expect("an answer");
    assert!(ends(&mut idle), "idle");
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHo",
    ] {
        let mut client = open();
        client.write_all(request.as_bytes()).expect("sent");
        assert!(ends(&mut client), "{request:?}");
    }
    let mut silent = open();
    silent.flush().expect("a handshake");
    assert!(ends(&mut silent), "nothing was asked");
    let mut drained = open();
    ask(&mut drained, GET).expect("an answer");
    let mut left = open();
    ask(&mut left, GET).expect("an answer");
    left.conn.send_close_notify();
    left.flush().expect("sent");
    assert!(ends(&mut left), "the client ended it");
    proxy.shutdown();
    assert!(ends(&mut drained), "a drain");
}

#[test]
fn an_answer_cut_short_does_not_end_in_order() {
    let authority = Authority::new();
    authority.sign("edge", "edge.test");
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")?;
        call.close();
        Ok(())
    });
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.listener(&authority.listener("edge", "")).start();
    let mut client = connect(proxy.app().listeners[0], "edge.test", authority.client(None));
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    assert!(client.read_to_end(&mut Vec::new()).is_err(), "a part was passed for the whole");
}

#[test]
fn a_session_with_an_endpoint_ends_in_order() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("inner", "inner.test");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = listener.local_addr().expect("bound");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a client");
        let session = ServerConnection::new(Arc::new(config)).expect("a server");
        let mut stream = StreamOwned::new(session, socket);
        let mut head = [0; 4096];
        assert!(stream.read(&mut head).expect("a request") > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("sent");
        let _ = tell.send(stream.read(&mut head).map_err(|error| error.kind()));
    });
    let ca = authority.path().join("ca.pem");
    let proxy = Proxy::start(&format!(
        "workers: 1\nlisten: [ {{ address: 127.0.0.1:0 }} ]\nservices:\n  game-api:\n    baseline: v1\n    \
         pool: {{ idle_timeout: 100ms }}\n    versions:\n      v1: {{ endpoints: [ \"{endpoint}\" ], \
         tls: {{ ca: {}, server_name: inner.test. }} }}\nroutes: [ {{ service: game-api }} ]\n",
        ca.display()
    ));
    assert_eq!(proxy.get("/").text(), "ok");
    assert_eq!(told.recv().expect("told"), Ok(0), "close_notify");
}

#[test]
fn a_client_of_http_1_0_by_alpn_is_one() {
    let authority = Authority::new();
    authority.sign("edge", "edge.test");
    let origin = Origin::answering("inside");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.listener(&authority.listener("edge", "")).start();
    let mut config = authority.client(None);
    config.alpn_protocols = vec![b"http/1.0".to_vec()];
    let mut client = connect(proxy.app().listeners[0], "edge.test", config);
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    let mut text = String::new();
    client.read_to_string(&mut text).expect("an answer that ends in order");
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("inside"), "{text}");
    assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.0"[..]));
}

/// What was said in clear was a broken handshake to its reader.
#[test]
fn a_connection_too_many_is_not_told_so_in_clear() {
    let authority = Authority::new();
    authority.sign("edge", "edge.test");
    let origin = Origin::answering("inside");
    let builder = Proxy::builder().version("v1", &origin);
    let builder = builder.listener(&authority.listener("edge", ""));
    for limit in ["connections: 1", "connections_per_client: 1"] {
        let proxy = builder.clone().top(&format!("limits: {{ {limit} }}")).start();
        let mut first = connect(proxy.app().listeners[0], "edge.test", authority.client(None));
        ask(&mut first, GET).expect("an answer");
        let mut second = TcpStream::connect(proxy.address).expect("connected");
        let mut read = Vec::new();
        let _ = second.read_to_end(&mut read);
        assert!(read.is_empty(), "{limit}: {:?}", String::from_utf8_lossy(&read));
        ask(&mut first, GET).expect("the others are served");
    }
}

#[test]
fn a_clients_certificate_is_demanded_and_told() {
    let authority = Authority::new();
    authority.sign("edge", "edge.test");
    let origin = Origin::answering("inside");
    let ca = authority.path().join("ca.pem");
    let demand = format!(", client: {{ ca: {}, mode: required }}", ca.display());
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.listener(&authority.listener("edge", &demand)).start();
    let address = proxy.app().listeners[0];
    let mut stranger = connect(address, "edge.test", authority.client(None));
    assert!(ask(&mut stranger, GET).is_err(), "a client without a certificate was served");
    let identity = authority.sign("partner", "partner-7.test");
    let mut partner = connect(address, "edge.test", authority.client(Some(identity)));
    ask(&mut partner, GET).expect("an answer");
    assert_eq!(origin.last().head.field("x-client-cert-subject"), Some("CN=partner-7.test"));
}

#[test]
fn a_certificate_that_changes_is_taken_over_without_dropping_a_connection() {
    let authority = Authority::new();
    authority.sign("edge", "edge.test");
    let origin = Origin::answering("inside");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.listener(&authority.listener("edge", "")).start_with_file();
    let address = proxy.app().listeners[0];
    let mut before = connect(address, "edge.test", authority.client(None));
    ask(&mut before, GET).expect("an answer");
    fs::write(authority.path().join("edge.pem"), "no certificate").expect("written");
    let mut meanwhile = connect(address, "edge.test", authority.client(None));
    ask(&mut meanwhile, GET).expect("the old certificate stays");
    authority.sign("edge", "renewed.test");
    eventually("the new certificate is shown", || {
        let mut client = connect(address, "renewed.test", authority.client(None));
        ask(&mut client, GET).is_ok()
    });
    ask(&mut before, GET).expect("the connection stayed");
}

#[test]
fn an_endpoint_is_spoken_to_under_tls_and_must_be_who_it_is() {
    let authority = Authority::new();
    authority.sign("inner", "inner.test");
    let origin = Origin::answering("inside");
    // A second proxy is the endpoint that speaks TLS.
    let inner = Proxy::builder().version("v1", &origin);
    let inner = inner.listener(&authority.listener("inner", "")).start();
    let ca = authority.path().join("ca.pem");
    let endpoint = inner.app().listeners[0];
    let start = |name: &str| {
        Proxy::start(&format!(
            "workers: 1\nlisten: [ {{ address: 127.0.0.1:0 }} ]\nservices:\n  game-api:\n    baseline: v1\n    \
             versions:\n      v1: {{ endpoints: [ \"{endpoint}\" ], tls: {{ ca: {}, server_name: {name} }} }}\n\
             routes: [ {{ service: game-api }} ]\n",
            ca.display()
        ))
    };
    let outer = start("inner.test");
    let mut client = outer.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").send().text(), "inside");
    }
    let stranger = start("other.test");
    let answer = stranger.get("/");
    assert_eq!((answer.status, answer.kind().as_str()), (502, "tls"));
}

#[test]
fn checks_speak_tls_where_the_version_does() {
    let authority = Authority::new();
    authority.sign("inner", "inner.test");
    let origin = Origin::answering("inside");
    let inner = Proxy::builder().version("v1", &origin);
    let inner = inner.listener(&authority.listener("inner", "")).start();
    let ca = authority.path().join("ca.pem");
    for check in ["http: { path: /ready }", "tcp: {}"] {
        // The second endpoint does not speak TLS.
        let proxy = Proxy::start(&format!(
            "workers: 1\nlisten: [ {{ address: 127.0.0.1:0 }} ]\nservices:\n  game-api:\n    baseline: v1\n    \
             health: {{ {check}, interval: 10ms }}\n    versions:\n      v1: {{ endpoints: [ \"{}\", \"{}\" ], \
             tls: {{ ca: {}, server_name: inner.test }} }}\nroutes: [ {{ service: game-api }} ]\n",
            inner.app().listeners[0],
            origin.address,
            ca.display()
        ));
        let snapshot = proxy.snapshot();
        let known = &snapshot.services[0].versions[0].known;
        let checks =
            |endpoint: usize, result: usize| known[endpoint].state.standing.checks[result].read();
        eventually("both were checked", || checks(0, 0) >= 3 && checks(1, 1) >= 3);
        assert_eq!((checks(0, 1), checks(1, 0)), (0, 0), "{check}");
        assert_eq!([0, 1].map(|endpoint| known[endpoint].state.standing.serves()), [true, false]);
        assert_eq!(proxy.get("/").text(), "inside");
    }
    let seen = origin.seen();
    let check = seen.iter().find(|seen| seen.target() == "/ready").expect("a check");
    let port = inner.app().listeners[0].port();
    assert_eq!(check.head.field("host"), Some(&*format!("inner.test:{port}")));
}

/// What the admin endpoint of `proxy` says of the process.
#[test]
fn a_receiver_of_alerts_is_spoken_to_under_tls_and_must_be_who_it_is() {
    let authority = Authority::new();
    authority.sign("receiver", "localhost");
    let receiver = || {
        Origin::start(|call| {
            call.read_body()?;
            call.answer(200, b"")
        })
    };
    let (good, other) = (receiver(), receiver());
    let behind = |origin: &Origin| {
        let front = Proxy::builder().listener(&authority.listener("receiver", ""));
        front.version("v1", origin).start()
    };
    let (front, other_front) = (behind(&good), behind(&other));
    let backend = Origin::answering("v1");
    let ca = authority.path().join("ca.pem");
    let proxy = Proxy::builder()
        .version("v1", &backend)
        .version("v2", &backend)
        .top("admin: { address: 127.0.0.1:0 }")
        .top(&format!(
            "alerts: {{ webhooks: [ {{ url: 'https://localhost:{}/', ca: '{}' }}, {{ url: \
             'https://localhost:{}/' }} ] }}",
            front.address.port(),
            ca.display(),
            other_front.address.port(),
        ))
        .start();
    let body = json!({ "version": "v2" }).to_string();
    let mut admin = proxy.admin();
    let word = admin.post("/v1/services/game-api/eject", body.as_bytes()).host("localhost");
    assert_eq!(word.header("Content-Type", "application/json").send().status, 200);
    eventually("it is told", || good.seen().iter().any(|seen| !seen.body.is_empty()));
    let alerts: Value = serde_json::from_slice(&good.last().body).expect("JSON");
    assert_eq!(alerts[0]["labels"]["alertname"], "TidegateVersionEjected");
    // The system does not know the authority of the other one.
    let page = || proxy.admin().get("/metrics").host("localhost").send().text().to_owned();
    let name = format!("receiver=\"localhost:{}\"", other_front.address.port());
    let refused = format!("tidegate_alert_posts_total{{{name},result=\"failed\"}} ");
    let count = || page().split(&refused).nth(1)?.lines().next()?.parse::<u64>().ok();
    eventually("it is not told", || count().is_some_and(|count| count > 0));
    assert_eq!(other.requests(), 0);
}

fn status(proxy: &Proxy) -> serde_json::Value {
    let mut client = Client::connect(proxy.app().admin.expect("an admin endpoint"));
    client.get("/v1/status").host("localhost").send().json()
}

#[test]
fn the_status_tells_the_certificates_and_what_is_wrong_with_their_files() {
    let authority = Authority::new();
    authority.sign("edge", "edge.test");
    let origin = Origin::answering("inside");
    let builder = Proxy::builder().version("v1", &origin).top("admin: { address: 127.0.0.1:0 }");
    let clear = builder.start();
    assert_eq!(status(&clear)["listeners"][0]["tls"], Value::Null);

    let proxy = builder.listener(&authority.listener("edge", "")).start_with_file();
    let tls = || status(&proxy)["listeners"][0]["tls"].take();
    let file = authority.path().join("edge.pem");
    let before = tls();
    let certificate = &before["certificates"][0];
    assert_eq!(certificate["file"], file.display().to_string());
    assert_eq!(certificate["names"], json!(["edge.test"]));
    assert_eq!(certificate["not_after"], "4096-01-01T00:00:00Z");
    assert!(certificate["days_left"].as_i64().is_some_and(|days| days > 365), "{certificate}");
    assert_eq!(
        (before["certificates"].as_array().map(Vec::len), &before["fault"]),
        (Some(1), &Value::Null)
    );

    fs::write(&file, "no certificate").expect("written");
    let begins = format!("{}: ", file.display());
    let is_told = |fault: &Value| fault.as_str().is_some_and(|text| text.starts_with(&begins));
    eventually("the fault is told", || is_told(&tls()["fault"]));
    assert_eq!(tls()["certificates"], before["certificates"], "the old one stays");
    let told = || {
        let controller = proxy.controller();
        let events = controller.events().since(0);
        events.filter(|event| event.kind.label() == "configuration_rejected").count()
    };
    eventually("an event tells it", || told() == 1);
    authority.sign("edge", "renewed.test");
    eventually("the new one is told", || {
        let tls = tls();
        tls["certificates"][0]["names"] == json!(["renewed.test"]) && tls["fault"].is_null()
    });
}

/// Such a file was taken over, and the next start, which was to be a matter of course, ended with 64.
#[test]
fn a_file_whose_certificates_wait_for_the_next_start_is_refused_if_these_are_bad() {
    let authority = Authority::new();
    let origin = Origin::answering("inside");
    let builder = Proxy::builder().version("v1", &origin).top("admin: { address: 127.0.0.1:0 }");
    let proxy = builder.start_with_file();
    let hash = status(&proxy)["config_hash"].clone();
    let secure = builder.listener(&authority.listener("edge", "")).text();
    proxy.write(&secure);
    eventually("it is refused", || proxy.reloads() == (0, 1));
    let after = status(&proxy);
    assert_eq!((&after["config_hash"], &after["reload"]["waiting"]), (&hash, &json!([])));
    let problems = after["reload"]["error"]["problems"].as_array().expect("problems").clone();
    let paths: Vec<_> = problems.iter().map(|problem| problem["path"].clone()).collect();
    let certificate = |field: &str| json!(format!("listen[0].tls.certificates[0].{field}"));
    assert_eq!(paths, [certificate("cert"), certificate("key")]);

    authority.sign("edge", "edge.test");
    proxy.write(&format!("{secure}\n# again\n"));
    eventually("it is taken over", || proxy.reloads() == (1, 1));
    assert_eq!(status(&proxy)["reload"]["waiting"], json!(["listen"]));
}

#[test]
fn the_status_tells_what_is_wrong_with_files_of_versions() {
    let authority = Authority::new();
    let ca = authority.path().join("ca.pem");
    let good = fs::read(&ca).expect("read");
    let text = |ca: &Path| {
        format!(
            "workers: 1\nlisten: [ {{ address: 127.0.0.1:0 }} ]\nadmin: {{ address: 127.0.0.1:0 }}\n\
             services:\n  game-api:\n    baseline: v1\n    versions:\n      \
             v1: {{ endpoints: [ 127.0.0.1:1 ] }}\n      \
             v2: {{ endpoints: [ 127.0.0.1:2 ], tls: {{ ca: {} }} }}\n\
             routes: [ {{ service: game-api }} ]\n",
            ca.display()
        )
    };
    let proxy = Proxy::start_with_file(&text(&ca));
    let faults = || status(&proxy)["tls_faults"].take();
    assert_eq!(faults(), json!([]));
    // A file that is refused lets go of nothing that is in force.
    proxy.write(&text(Path::new("none.pem")));
    eventually("the file is refused", || proxy.reloads().1 > 0);
    fs::write(&ca, "no authority").expect("written");
    eventually("the fault is told", || faults() != json!([]));
    let fault = &faults()[0];
    assert_eq!((&fault["service"], &fault["version"]), (&json!("game-api"), &json!("v2")));
    let message = fault["message"].as_str().expect("a text");
    assert!(message.starts_with(&format!("{}: ", ca.display())), "{message}");
    let begins = format!("game-api v2: {}: ", ca.display());
    eventually("an event tells it, once", || {
        let controller = proxy.controller();
        let events = controller.events().since(0);
        events.filter(|event| event.matter.reason.starts_with(&begins)).count() == 1
    });
    fs::write(&ca, good).expect("written");
    eventually("it is well again", || faults() == json!([]));
}

/// Speaks HTTP/2 without WebSocket, or HTTP/1.1 and then in another protocol, as the client chooses.
fn serve_either(mut stream: StreamOwned<rustls::ServerConnection, TcpStream>) {
    while stream.conn.is_handshaking() {
        if stream.conn.complete_io(&mut stream.sock).is_err() {
            return;
        }
    }
    if stream.conn.alpn_protocol() == Some(b"h2") {
        // HPACK: the entry `:status: 204` of the static table.
        converse(stream, &mut |number| Some(frame(HEADERS, WHOLE, number, &[0x89])));
        return;
    }
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    let switched = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst";
    let _ = stream.write_all(switched);
    let mut bytes = [0; 64];
    while let Ok(n @ 1..) = stream.read(&mut bytes) {
        let _ = stream.write_all(&bytes[..n]);
    }
}

#[test]
fn a_websocket_takes_http1_where_the_endpoints_http2_has_none() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign("inner", "127.0.0.1");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let builder =
        rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions");
    let mut config =
        builder.with_no_client_auth().with_single_cert(vec![certificate], key).expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            std::thread::spawn(move || serve_either(StreamOwned::new(session, socket)));
        }
    });
    let speaking = format!("auto, tls: {{ ca: {}/ca.pem }}", authority.path().display());
    let proxy = Proxy::builder().version_speaking("v1", &[address], &speaking).start();
    // Before anything is known of the endpoint, and with a connection of HTTP/2 to it.
    for _ in 0..3 {
        let mut client = proxy.connect();
        client.send(
            "GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        );
        let head = client.wire.head().expect("open").expect("a head");
        assert_eq!(head.start_line(), "HTTP/1.1 101 Switching Protocols");
        assert_eq!(client.wire.exactly_bytes(5), b"first");
        client.send("frames");
        assert_eq!(client.wire.exactly_bytes(6), b"frames");
        assert_eq!(proxy.get("/").status, 204, "requests go over HTTP/2");
    }
}
