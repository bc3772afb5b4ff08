//! Whose request it is: the PROXY protocol, trusted proxies, and limits by client address.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

use tidegate::{app::Ended, config::units::Weight, routing::Split};

use crate::support::{Client, Origin, Proxy, eventually, proxy::Builder};

/// A balancer that the listener knows.
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 1));

/// A proxy that is trusted.
const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 8, 1));

const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 7, 1));

/// A listener that knows 127.0.9.0/24 for balancers.
fn behind_balancer(origin: &Origin) -> Builder {
    Proxy::builder().version("v1", origin).listener("proxy_protocol: { from: [ 127.0.9.0/24 ] }")
}

/// A proxy that trusts 127.0.8.0/24.
fn behind_proxies(origin: &Origin) -> Builder {
    Proxy::builder().version("v1", origin).top("trusted_proxies: [ 127.0.8.0/24, \"::1\" ]")
}

fn version_1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 10.0.0.1 51234 443\r\n").into_bytes()
}

/// A head of version 2 with `rest` behind the fixed part.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// An IPv4 client's head of version 2, with a TLV of `padding` bytes.
fn version_2_of(source: [u8; 4], padding: u16) -> Vec<u8> {
    let [high, low] = padding.to_be_bytes();
    let addresses = [&source[..], &[10, 0, 0, 1], &[0xc8, 0x22, 1, 0xbb], &[4, high, low]].concat();
    version_2(0x21, 0x11, &[addresses, vec![0; padding.into()]].concat())
}

/// What the origin was told of the client by the last request.
fn told(origin: &Origin) -> String {
    origin.last().head.all("x-forwarded-for").collect::<Vec<_>>().join(" | ")
}

fn head_errors(proxy: &Proxy) -> u64 {
    let controller = proxy.app().observatory().controller();
    controller.listeners()[0].proxy_protocol_errors.load(Relaxed)
}

/// The version of `key` by the published definition, at equal weights.
fn expected(key: &str) -> &'static str {
    let one = Weight::new(1.0).expect("a weight");
    let split = Split::new("", [("v1", one), ("v2", one)]);
    ["v1", "v2"][usize::from(split.assign(key.as_bytes()).expect("a version"))]
}

#[test]
fn a_balancer_says_who_the_client_is() {
    let origin = Origin::answering("ok");
    let proxy = behind_balancer(&origin).start();
    let mut six = [0; 36];
    six[..2].copy_from_slice(&[0x20, 0x01]);
    six[15] = 7;
    for (head, client) in [
        (version_1("192.0.2.7"), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.9.1"),
        (version_2_of([192, 0, 2, 8], 0), "192.0.2.8"),
        (version_2_of([192, 0, 2, 9], 3000), "192.0.2.9"),
        (version_2(0x21, 0x21, &six), "2001::7"),
        (version_2(0x20, 0x00, &[]), "127.0.9.1"),
    ] {
        // With the request, and byte by byte.
        for whole in [true, false] {
            let mut client_of_balancer = Client::connect_from(BALANCER, proxy.address);
            if whole {
                let request = b"GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
                client_of_balancer.send([&head[..], request].concat());
                assert_eq!(client_of_balancer.answer().text(), "ok");
                assert_eq!(told(&origin), client);
            } else {
                head.chunks(1).for_each(|byte| client_of_balancer.send(byte));
            }
            // Later requests of the connection are of the same client.
            assert_eq!(client_of_balancer.get("/b").send().text(), "ok");
            assert_eq!(told(&origin), client);
        }
    }
    assert_eq!(head_errors(&proxy), 0);
}

#[test]
fn a_balancer_without_a_good_head_is_closed_and_counted() {
    let origin = Origin::answering("ok");
    let proxy = behind_balancer(&origin).start();
    let mut errors = 0;
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat(),
        version_2(0x21, 0x11, &[192, 0, 2, 7]),
        version_2(0x21, 0x00, &[0; 5000]),
    ] {
        let mut client = Client::connect_from(BALANCER, proxy.address);
        client.send(&bytes);
        assert!(client.try_answer_to("GET").is_err(), "{:?}", String::from_utf8_lossy(&bytes));
        errors += 1;
        eventually("the error is counted", || head_errors(&proxy) == errors);
    }
    // A head that is cut short is an error too; a probe of the port is none.
    let mut client = Client::connect_from(BALANCER, proxy.address);
    client.send("PROXY TCP4 192.");
    client.wire.stream.shutdown(std::net::Shutdown::Write).expect("open");
    client.expect_end();
    eventually("the error is counted", || head_errors(&proxy) == errors + 1);
    let mut probe = Client::connect_from(BALANCER, proxy.address);
    probe.wire.stream.shutdown(std::net::Shutdown::Write).expect("open");
    probe.expect_end();
    assert_eq!((head_errors(&proxy), origin.requests()), (errors + 1, 0));
}

#[test]
fn others_are_read_as_plain_clients() {
    let origin = Origin::answering("ok");
    let proxy = behind_balancer(&origin).start();
    let mut client = Client::connect_from(STRANGER, proxy.address);
    assert_eq!(client.get("/").send().text(), "ok");
    assert_eq!(told(&origin), "127.0.7.1");
    for head in [version_1("192.0.2.7"), version_2_of([192, 0, 2, 8], 0)] {
        let mut client = Client::connect_from(STRANGER, proxy.address);
        client.send([&head[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        let status = client.answer().status;
        assert!((400..=505).contains(&status), "{status}");
        client.expect_end();
    }
    assert_eq!((origin.requests(), head_errors(&proxy)), (1, 0));
}

#[test]
fn a_slow_proxy_head_is_cut_off() {
    let origin = Origin::answering("ok");
    let proxy = behind_balancer(&origin).top("limits: { header_timeout: 300ms }").start();
    let began = Instant::now();
    let mut silent = Client::connect_from(BALANCER, proxy.address);
    let mut slow = Client::connect_from(BALANCER, proxy.address);
    let head = version_2_of([192, 0, 2, 7], 2000);
    for byte in head.chunks(1) {
        if slow.wire.send(byte).is_err() {
            break;
        }
        // The pause is what is tested: bytes keep coming, the head does not end.
        thread::sleep(Duration::from_millis(10));
        assert!(began.elapsed() < Duration::from_secs(10), "never cut off");
    }
    assert!(slow.try_answer_to("GET").is_err());
    silent.expect_end();
    assert!(began.elapsed() >= Duration::from_millis(300));
    eventually("both are counted", || head_errors(&proxy) == 2);
    assert_eq!(origin.requests(), 0);
}

#[test]
fn strangers_cannot_forge_where_they_come_from() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = behind_proxies(&origins[0])
        .version("v2", &origins[1])
        .service("weights: { v1: 1, v2: 0 }")
        .service("rules: [ { match: { clients: [ 192.0.2.0/24 ] }, version: v2 } ]")
        .start();
    let forged = |from| {
        let mut client = Client::connect_from(from, proxy.address);
        let request = client.get("/").host("a.test:81").header("X-Forwarded-For", "192.0.2.7");
        let request =
            request.header("X-Forwarded-Proto", "https").header("Forwarded", "for=192.0.2.7");
        request.header("X-Forwarded-Host", "evil.test").send()
    };
    assert_eq!(forged(STRANGER).text(), "v1");
    let seen = origins[0].last().head;
    for (name, value) in [("for", "127.0.7.1"), ("proto", "http"), ("host", "a.test:81")] {
        let name = format!("x-forwarded-{name}");
        assert_eq!(seen.all(&name).collect::<Vec<_>>(), [value], "{name}");
    }
    assert_eq!(seen.field("forwarded"), None);

    assert_eq!(forged(TRUSTED).text(), "v2");
    let seen = origins[1].last().head;
    for (name, value) in
        [("for", "192.0.2.7, 127.0.8.1"), ("proto", "https"), ("host", "evil.test")]
    {
        let name = format!("x-forwarded-{name}");
        assert_eq!(seen.all(&name).collect::<Vec<_>>(), [value], "{name}");
    }
    assert_eq!(seen.field("forwarded"), Some("for=192.0.2.7"));
}

#[test]
fn the_forwarded_address_decides_the_cohort_of_each_request() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = behind_proxies(&origins[0])
        .version("v2", &origins[1])
        .service("weights: { v1: 1, v2: 1 }")
        .start();
    // One connection of the proxy carries many clients.
    let mut client = Client::connect_from(TRUSTED, proxy.address);
    for last in 1..40 {
        let address = format!("192.0.2.{last}");
        // A claim of the client's own, the client as the outer proxy saw it, and the outer proxy.
        let chain = format!("198.51.100.{last}, {address}, 127.0.8.77");
        let answer = client.get("/").header("X-Forwarded-For", &chain).send();
        assert_eq!(answer.text(), expected(&address), "{chain}");
        // The same client spelled otherwise, and in two fields.
        let spelled = format!("::ffff:{address}");
        let request = client.get("/").header("X-Forwarded-For", &spelled);
        let answer = request.header("x-forwarded-for", "::1, 127.0.8.77").send();
        assert_eq!(answer.text(), expected(&address), "{spelled}");
        // What is no address ends the walk.
        let chain = format!("{address}, unknown, 127.0.8.{last}");
        let answer = client.get("/").header("X-Forwarded-For", &chain).send();
        assert_eq!(answer.text(), expected(&format!("127.0.8.{last}")), "{chain}");
    }
    assert_eq!(client.get("/").send().text(), expected("127.0.8.1"), "the proxy's own request");
}

#[test]
fn a_balancer_may_stand_before_a_trusted_proxy() {
    let origin = Origin::answering("ok");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let proxy = behind_balancer(&origin)
        .top("trusted_proxies: [ 203.0.113.0/24 ]")
        .top(&format!("access_log: {{ path: {} }}", path.display()))
        .start();
    let send = |from, head: &[u8]| {
        let mut client = Client::connect_from(from, proxy.address);
        client.send(head);
        let request = client.get("/").header("X-Forwarded-For", "6.6.6.6, 192.0.2.7");
        assert_eq!(request.send().text(), "ok");
        told(&origin)
    };
    assert_eq!(send(BALANCER, &version_1("203.0.113.5")), "6.6.6.6, 192.0.2.7, 203.0.113.5");
    assert_eq!(send(BALANCER, &version_1("198.51.100.5")), "198.51.100.5");
    assert_eq!(send(STRANGER, b""), "127.0.7.1");
    assert_eq!(proxy.shutdown(), Ended::Drained);
    let log = fs::read_to_string(path).expect("the log");
    let client =
        |line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["client"].clone();
    let clients: Vec<_> = log.lines().map(client).collect();
    assert_eq!(clients, ["192.0.2.7", "198.51.100.5", "127.0.7.1"]);
}

#[test]
fn trust_is_taken_from_a_changed_file_at_once() {
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.clone().start_with_file();
    let mut client = Client::connect_from(TRUSTED, proxy.address);
    let mut ask = || {
        client.get("/").header("X-Forwarded-For", "192.0.2.7").send();
        told(&origin)
    };
    assert_eq!(ask(), "127.0.8.1");
    proxy.write(&builder.top("trusted_proxies: [ 127.0.8.1 ]").text());
    eventually("the proxy is trusted", || ask() == "192.0.2.7, 127.0.8.1");
}

/// Whether one more connection is served; else it is told that there are too many.
fn is_served(from: IpAddr, address: SocketAddr, head: &[u8]) -> Option<Client> {
    let mut client = Client::connect_from(from, address);
    client.send([head, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    let answer = client.answer();
    if answer.status == 200 {
        return Some(client);
    }
    assert_eq!((answer.status, answer.kind().as_str()), (503, "connections_per_client"));
    assert!(answer.field("retry-after").is_some());
    client.expect_end();
    None
}

#[test]
fn one_address_has_only_so_many_connections() {
    let origin = Origin::answering("ok");
    let proxy = behind_balancer(&origin)
        .top("limits: { connections_per_client: 3 }")
        .top("trusted_proxies: [ 127.0.8.0/24 ]")
        .start();
    let address = proxy.address;
    let heads = [version_1("192.0.2.7"), version_2_of([192, 0, 2, 8], 0)];
    for (from, head) in [(STRANGER, &b""[..]), (BALANCER, &heads[0]), (BALANCER, &heads[1])] {
        let mut open: Vec<_> = (0..5).filter_map(|_| is_served(from, address, head)).collect();
        assert_eq!(open.len(), 3, "from {from}");
        // Whoever has a seat keeps it, and one that is left is free for another.
        for client in &mut open {
            assert_eq!(client.get("/").send().text(), "ok");
        }
        open.pop();
        eventually("a seat is free again", || {
            let client = is_served(from, address, head);
            client.map(|client| open.push(client)).is_some()
        });
        assert!(is_served(from, address, head).is_none());
    }
    // A trusted proxy, and a balancer that speaks for itself, stand for many.
    let local = version_2(0x20, 0, &[]);
    for (from, head) in [(TRUSTED, &b""[..]), (BALANCER, &local)] {
        let open: Vec<_> = (0..8).filter_map(|_| is_served(from, address, head)).collect();
        assert_eq!(open.len(), 8, "from {from}");
    }
    let controller = proxy.app().observatory().controller();
    let listener = &controller.listeners()[0];
    assert!(listener.shed_per_client.load(Relaxed) >= 9);
    assert_eq!(listener.shed.load(Relaxed), 0);
}

#[test]
fn a_balancer_that_says_nothing_does_not_hold_up_the_end() {
    let origin = Origin::answering("ok");
    let proxy = behind_balancer(&origin).start();
    let mut silent = Client::connect_from(BALANCER, proxy.address);
    let open = || proxy.app().observatory().controller().listeners()[0].open.load(Relaxed);
    eventually("the connection is open", || open() == 1);
    assert_eq!(proxy.shutdown(), Ended::Drained);
    silent.expect_end();
}
