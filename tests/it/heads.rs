//! What heads look like on the other side: fields dropped, added and kept, and answers without a body.

use std::{fs::File, io::Write, process::Command};

use crate::support::{Client, Origin, Proxy, lacks, pattern, wire::Head};

fn seen_by(proxy: &Proxy, origin: &Origin, fields: &str) -> Head {
    let mut client = proxy.connect();
    client.send(format!("GET /path?query=1 HTTP/1.1\r\nHost: api.test:81\r\n{fields}\r\n"));
    assert_eq!(client.answer().status, 200);
    origin.last().head
}

#[test]
fn fields_of_one_connection_do_not_reach_the_endpoint() {
    let origin = Origin::answering("");
    let proxy = Proxy::to(&origin);
    let fields = "Connection: keep-alive, X-Named\r\nconnection: x-too\r\nX-Named: 1\r\nX-Too: 2\r\n\
        Keep-Alive: timeout=9\r\nTE: trailers\r\nTrailer: x\r\nUpgrade: h2c\r\nProxy-Connection: close\r\n\
        Proxy-Authorization: Basic eA==\r\nProxy-Authenticate: Basic\r\nX-Kept: 3\r\nAuthorization: Bearer x\r\n";
    let head = seen_by(&proxy, &origin, fields);
    let mut names: Vec<String> = head.fields().map(|(n, _)| n.to_ascii_lowercase()).collect();
    names.sort();
    let expected = [
        "authorization",
        "host",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-kept",
        "x-request-id",
    ];
    assert_eq!(names, expected);
    assert_eq!(head.start_line(), "GET /path?query=1 HTTP/1.1");
}

#[test]
fn fields_of_one_connection_do_not_reach_the_client() {
    let origin = Origin::sending(
        b"HTTP/1.1 200 OK\r\nConnection: X-Inner, close\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\n\
        Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\n\
        Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Request-Id: theirs\r\nDate: then\r\n\r\n0\r\nx: 1\r\n\r\n",
    );
    let proxy = Proxy::to(&origin);
    let answer = proxy.get("/");
    let mut fields: Vec<_> = answer.head.fields().collect();
    fields.sort_unstable();
    let expected = [
        ("Date", "then"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Transfer-Encoding", "chunked"),
        ("X-Request-Id", "theirs"),
    ];
    assert_eq!(fields, expected);
}

#[test]
fn the_endpoint_learns_whom_the_request_came_from_and_strangers_cannot_forge_it() {
    let origin = Origin::answering("");
    let proxy = Proxy::to(&origin);
    let forged = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX-FORWARDED-PROTO: https\r\n\
        X-Forwarded-Host: evil.test\r\nConnection: X-Forwarded-For\r\n";
    for fields in ["", forged] {
        let head = seen_by(&proxy, &origin, fields);
        assert_eq!(head.all("x-forwarded-for").collect::<Vec<_>>(), ["127.0.0.1"]);
        assert_eq!(head.all("x-forwarded-proto").collect::<Vec<_>>(), ["http"]);
        assert_eq!(head.all("x-forwarded-host").collect::<Vec<_>>(), ["api.test:81"]);
        assert_eq!(head.all("host").collect::<Vec<_>>(), ["api.test:81"]);
    }
}

/// Names by which a proxy says who its client is: what a stranger writes there, an application behind a proxy
/// believes.
const CLAIMS: [&str; 12] = [
    "Forwarded",
    "X-Real-IP",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Client-Cert",
    "X-SSL-Client-Verify",
    "Client-Cert",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Tidegate-Epoch",
    "Tidegate-Shadow",
    "X-Client-IP",
];

#[test]
fn strangers_do_not_say_who_they_are_in_any_field_and_trusted_proxies_do() {
    let origin = Origin::answering("");
    let fields: String = CLAIMS.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let stranger = seen_by(&Proxy::to(&origin), &origin, &fields);
    assert!(!stranger.raw.contains("forged"), "{}", stranger.raw);
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("trusted_proxies: [ 127.0.0.1 ]").start();
    let trusted = seen_by(&proxy, &origin, &fields);
    for name in CLAIMS {
        assert_eq!(trusted.field(name), Some("forged"), "{name}");
    }
}

/// What the version does not get chooses neither the route nor the version.
#[test]
fn what_a_stranger_says_of_himself_chooses_nothing() {
    let origins = ["v1", "v2", "office"].map(Origin::answering);
    let claims = ["X-Real-IP", "X-Client-Cert-Subject", "X_Client_Cert_Subject", "Tidegate-Shadow"];
    for name in claims {
        for (top, own, to) in [
            ("limits: {}", name, ["v1", "v1"]),
            ("trusted_proxies: [ 127.0.0.1 ]", name, ["v2", "office"]),
            ("limits: {}", "X-Mine", ["v2", "office"]),
        ] {
            // A spelling that applications take for another name reaches nobody.
            let to = if own.contains('_') { ["v1", "v1"] } else { to };
            let proxy = Proxy::builder()
                .version("v1", &origins[0])
                .version("v2", &origins[1])
                .version("v3", &origins[2])
                .service("weights: { v1: 1 }")
                .service(&format!(
                    "rules: [ {{ match: {{ headers: {{ '{own}': player }} }}, version: v2 }} ]"
                ))
                .route(&format!("match: {{ headers: {{ '{own}': admin }} }}, version: v3"))
                .route("name: rest")
                .top(top)
                .start();
            let sent = ["player", "admin"].map(|value| {
                let answer = proxy.connect().get("/").header(own, value).send();
                answer.text().to_owned()
            });
            assert_eq!(sent, to, "{own}, {top}");
        }
    }
}

#[test]
fn a_name_that_an_application_takes_for_a_reserved_one_does_not_reach_it() {
    let origin = Origin::answering("");
    let strangers = Proxy::to(&origin);
    let builder = Proxy::builder().version("v1", &origin);
    let trusted = builder.top("trusted_proxies: [ 127.0.0.1 ]").start();
    let written = [
        "X-Client-Cert-Subject",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "X-Request-Id",
        "Content-Length",
        "Transfer-Encoding",
        "Proxy-Authorization",
        "Keep-Alive",
    ];
    for other in ["_", ".", "~"] {
        let names = written.iter().chain(&CLAIMS[1..]).map(|name| name.replace('-', other));
        let once = written.iter().map(|name| name.replacen('-', other, 1));
        let fields: String = names.chain(once).map(|name| format!("{name}: forged\r\n")).collect();
        for proxy in [&strangers, &trusted] {
            let head = seen_by(proxy, &origin, &format!("{fields}X_Player{other}Id: 7\r\n"));
            assert!(!head.raw.contains("forged"), "{}", head.raw);
            assert_eq!(head.field(&format!("X_Player{other}Id")), Some("7"));
        }
    }
}

/// Whoever names a field in `Connection` has the proxy look for it; it looks for so many.
#[test]
fn a_head_that_would_take_long_is_refused_soon() {
    let origin = Origin::answering("");
    let proxy = Proxy::to(&origin);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let options = "keep-alive,".repeat(2900);
        let mut client = proxy.connect();
        client.send(format!("GET / {version}\r\nHost: a\r\nConnection: {options}\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.kind().as_str()), (431, "header_too_large"));
        let fields = format!("Connection: {}\r\nX-One: 1\r\n", vec!["x-one"; 64].join(", "));
        let head = seen_by(&proxy, &origin, &fields);
        assert_eq!(head.field("x-one"), None);
    }
}

#[test]
fn heads_that_come_byte_by_byte_arrive() {
    let origin = Origin::start(|call| {
        for byte in b"\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\n"
        {
            call.send([*byte])?;
        }
        call.send("Content-Length: 2\r\n\r\nok")
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..2 {
        for byte in b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX-C: d\r\n\r\n" {
            client.send([*byte]);
        }
        let answer = client.answer();
        assert_eq!(
            (answer.text(), answer.field("x-a"), &answer.interim[..]),
            ("ok", Some("b"), &[103][..])
        );
        assert_eq!(origin.last().head.field("x-c"), Some("d"));
    }
}

#[test]
fn a_request_id_is_made_kept_or_replaced() {
    let origin = Origin::answering("");
    let proxy = Proxy::to(&origin);
    let id = |fields: &str| {
        let head = seen_by(&proxy, &origin, fields);
        let ids: Vec<_> = head.all("x-request-id").map(str::to_owned).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        ids.concat()
    };
    let made = id("");
    assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
    assert_ne!(id(""), made);
    assert_eq!(id("X-Request-Id: bet-17.a:b\r\n"), "bet-17.a:b");
    for bad in ["", "a b", "a\"b", "{}", &"x".repeat(65), "\u{e9}"] {
        assert_eq!(id(&format!("X-Request-Id: {bad}\r\n")).len(), 32, "{bad:?}");
    }
}

#[test]
fn trace_context_and_unknown_fields_pass_as_they_are() {
    let origin = Origin::answering("");
    let proxy = Proxy::to(&origin);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let fields =
        format!("traceparent: {trace}\r\ntracestate: a=1\r\ntracestate: b=2\r\nCookie: uid=7\r\n");
    let head = seen_by(&proxy, &origin, &fields);
    assert_eq!(head.field("traceparent"), Some(trace));
    assert_eq!(head.all("tracestate").collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(head.field("cookie"), Some("uid=7"));
}

#[test]
fn an_absolute_target_goes_on_as_a_path() {
    let origin = Origin::answering("");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("GET http://api.test/a?b HTTP/1.1\r\nHost: api.test\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    let seen = origin.last();
    assert_eq!((seen.target(), seen.head.field("host")), ("/a?b", Some("api.test")));
    for (asked, target) in [
        ("OPTIONS *", "*"),
        ("OPTIONS http://api.test", "*"),
        ("OPTIONS http://api.test/", "/"),
        ("GET http://api.test", "/"),
    ] {
        client.send(format!("{asked} HTTP/1.1\r\nHost: api.test\r\n\r\n"));
        assert_eq!(client.answer().status, 200);
        assert_eq!(origin.last().target(), target, "{asked}");
    }
}

#[test]
fn a_message_says_that_it_came_through_here() {
    let origin = Origin::answering("");
    let usual = Proxy::to(&origin);
    let via = |head: &Head| head.all("via").map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(via(&seen_by(&usual, &origin, "")), ["1.1 tidegate"]);
    let before = "Via: 1.0 fred, 1.1 edge\r\n";
    let seen = seen_by(&usual, &origin, before);
    assert_eq!(via(&seen), ["1.0 fred, 1.1 edge", "1.1 tidegate"]);
    let mut old = usual.connect();
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert!(via(&old.answer().head).is_empty(), "answers say nothing");
    assert_eq!(via(&origin.last().head), ["1.0 tidegate"]);
    let builder = Proxy::builder().version("v1", &origin);
    let named = builder.clone().top("forwarding: { via: edge-7, via_answers: true }").start();
    assert_eq!(via(&named.get("/").head), ["1.1 edge-7"]);
    assert_eq!(via(&origin.last().head), ["1.1 edge-7"]);
    let silent = builder.top("forwarding: { via: '' }").start();
    assert_eq!(via(&seen_by(&silent, &origin, "")), [""; 0]);
    assert_eq!(via(&seen_by(&silent, &origin, before)), ["1.0 fred, 1.1 edge"]);
}

#[test]
fn a_request_goes_no_further_than_it_may() {
    let origin = Origin::answering("behind");
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    let answer = client.request("OPTIONS", "/").header("Max-Forwards", "0").send();
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert!(answer.field("allow").is_some_and(|methods| methods.contains("OPTIONS")));
    let answer = client.request("TRACE", "/").header("Max-Forwards", "0").send();
    assert_eq!((answer.status, answer.kind().as_str()), (501, "not_implemented"));
    assert_eq!(origin.requests(), 0);
    for (method, sent, passed) in [
        ("OPTIONS", "1", "0"),
        ("TRACE", "10", "9"),
        ("GET", "0", "0"),
        ("OPTIONS", "many", "many"),
    ] {
        let answer = client.request(method, "/").header("Max-Forwards", sent).send();
        assert_eq!(answer.text(), "behind");
        let head = origin.last().head;
        assert_eq!(head.all("max-forwards").collect::<Vec<_>>(), [passed], "{method} {sent}");
    }
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("forwarding: { max_forwards: false }").start();
    let mut client = proxy.connect();
    assert_eq!(client.request("OPTIONS", "/").header("Max-Forwards", "0").send().status, 200);
    assert_eq!(origin.last().head.field("max-forwards"), Some("0"));
}

#[test]
fn answers_without_a_body_leave_the_connection_in_step() {
    let origin = Origin::start(|call| match call.target() {
        "/head" => call.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        "/chunked" => call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "/bare" => call.send("HTTP/1.1 200 OK\r\n\r\n"),
        "/204" => call.send("HTTP/1.1 204 No Content\r\n\r\n"),
        "/204-length" => call.send("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        "/304" => call.send("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n"),
        _ => call.answer(200, b"hello"),
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for (method, path, status, length) in [
        ("HEAD", "/head", 200, Some("5")),
        ("HEAD", "/chunked", 200, None),
        ("HEAD", "/bare", 200, None),
        ("GET", "/204", 204, None),
        ("GET", "/204-length", 204, None),
        ("GET", "/304", 304, Some("5")),
        ("HEAD", "/304", 304, Some("5")),
    ] {
        let answer = client.request(method, path).send();
        assert_eq!((answer.status, answer.field("content-length")), (status, length), "{path}");
        assert_eq!(answer.field("transfer-encoding"), None, "{path}");
        assert_eq!(client.get("/after").send().text(), "hello", "after {method} {path}");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_problem_for_head_has_no_body() {
    let proxy = Proxy::builder().version_named("v1", "nowhere.invalid:80").start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        let answer = client.request("HEAD", "/").send();
        assert_eq!((answer.status, answer.body.len()), (503, 0));
        assert_ne!(answer.field("content-length"), Some("0"));
    }
}

#[test]
fn interim_answers_pass_to_those_who_understand_them() {
    let origin = Origin::start(|call| {
        call.send(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n",
        )?;
        call.answer(200, b"done")
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..2 {
        let answer = client.get("/").send();
        // A 100 that nobody asked for is the proxy's to drop.
        assert_eq!((answer.text(), &answer.interim[..]), ("done", &[103][..]));
    }
    let mut old = proxy.connect();
    old.send("GET / HTTP/1.0\r\n\r\n");
    let answer = old.answer();
    assert_eq!((answer.text(), answer.interim.len()), ("done", 0));
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_waits_for_continue_gets_the_endpoints() {
    let origin = Origin::start(|call| {
        assert_eq!(call.head.field("expect"), Some("100-continue"));
        call.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = call.read_body()?;
        call.answer(200, &body)
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        let interim = client.wire.head().expect("an answer").expect("an answer");
        assert_eq!(interim.raw, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("hello");
        let answer = client.answer();
        assert_eq!((answer.text(), answer.field("connection")), ("hello", None));
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_waits_for_continue_may_be_refused() {
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")?;
        call.await_end()
    });
    let proxy = Proxy::to(&origin);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("connection")), (401, Some("close")));
    client.expect_end();
    origin.await_open(0);
}

#[test]
fn an_expectation_that_nobody_knows_is_a_417() {
    let origin = Origin::answering("");
    let proxy = Proxy::to(&origin);
    let answer = proxy.connect().get("/").header("Expect", "the-unexpected").send();
    assert_eq!((answer.status, answer.kind().as_str()), (417, "expectation"));
    assert_eq!(origin.requests(), 0);
}

/// An independent client: curl waits for `100 Continue` before it uploads a large file.
#[test]
fn curl_uploads_a_large_file() {
    if lacks("curl", "curl") {
        return;
    }
    let origin = Origin::start(|call| {
        if call.head.field("expect").is_some() {
            call.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let framing = call.head.framing();
        let whole = call.read_body()? == pattern(5_000_000);
        call.answer(200, format!("{whole} {}", framing.is_some()).as_bytes())
    });
    let proxy = Proxy::to(&origin);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large");
    File::create(&path).and_then(|mut f| f.write_all(&pattern(5_000_000))).expect("a file");
    let url = format!("http://{}/upload", proxy.address);
    for more in [&[][..], &["-H", "Transfer-Encoding: chunked"], &["--http1.0"]] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "-T"]).arg(&path).arg(&url).args(more);
        let output = curl.output().expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        let faults = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text, "true true", "{more:?}: {faults}");
    }
}

#[test]
fn what_two_readers_could_understand_in_two_ways_is_refused() {
    let origin = Origin::answering("");
    let proxy = Proxy::to(&origin);
    for (status, text) in [
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na"),
        (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"),
        (400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n"),
        (501, "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (400, "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03"),
    ] {
        let mut client = Client::connect(proxy.address);
        client.send(text);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{text:?}: {}", answer.text());
        assert_eq!(answer.field("connection"), Some("close"), "{text:?}");
        client.expect_end();
    }
    assert_eq!(origin.requests(), 0);
}
