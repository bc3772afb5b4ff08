//! Endpoints by name, end to end: a name server whose answers change, the process, two origins.

#![expect(clippy::unwrap_used, reason = "a test fails where it breaks")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{Proxy, eventually, proxy::Builder};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A name server that knows A records with a time to live of one second.
struct NameServer {
    address: SocketAddr,
    /// Addresses by name; a name without an entry is not answered at all.
    zone: Arc<Mutex<HashMap<String, Vec<Ipv4Addr>>>>,
    questions: Arc<AtomicUsize>,
    /// The type of records that is not answered.
    mute: Arc<AtomicUsize>,
}

impl NameServer {
    fn start() -> Self {
        let socket = UdpSocket::bind((ONE, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let (zone, questions) = (Arc::default(), Arc::<AtomicUsize>::default());
        let mute = Arc::<AtomicUsize>::default();
        let server = Self {
            address,
            zone: Arc::clone(&zone),
            questions: Arc::clone(&questions),
            mute: Arc::clone(&mute),
        };
        thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                questions.fetch_add(1, SeqCst);
                if kind_of(&packet[..length]) == mute.load(SeqCst) {
                    continue;
                }
                if let Some(answer) = answer(&packet[..length], &zone.lock().unwrap()) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        server
    }

    fn set(&self, name: &str, addresses: &[Ipv4Addr]) {
        self.zone.lock().unwrap().insert(name.to_owned(), addresses.to_vec());
    }

    fn fall_silent(&self) {
        self.zone.lock().unwrap().clear();
    }
}

/// The type of records that is asked for: 1 is A, 28 is AAAA.
fn kind_of(query: &[u8]) -> usize {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
    usize::from(query[12 + name + 2])
}

/// A message of RFC 1035, section 4.1: the question repeated, and an answer per address.
fn answer(query: &[u8], zone: &HashMap<String, Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(std::str::from_utf8(&query[at + 1..end]).unwrap());
        at = end;
    }
    let question = &query[12..at + 5];
    let is_a = query[at + 1..at + 3] == [0, 1];
    let addresses = zone.get(&labels.join(".").to_lowercase())?;
    let addresses = if is_a { addresses.as_slice() } else { &[] };
    let mut answer =
        [&query[..2], &[0x81, 0x80, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]].concat();
    answer.extend(question);
    for address in addresses {
        answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// Two origins on one port, each of which answers with its address.
fn origins() -> u16 {
    for _ in 0..100 {
        let one = TcpListener::bind((ONE, 0)).unwrap();
        let port = one.local_addr().unwrap().port();
        if let Ok(two) = TcpListener::bind((TWO, port)) {
            serve(one, ONE);
            serve(two, TWO);
            return port;
        }
    }
    panic!("no port is free on both addresses");
}

fn serve(listener: TcpListener, name: Ipv4Addr) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let body = name.to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                // A request arrives whole here: it is small and written at once.
                while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
                    stream.write_all((head.clone() + &body).as_bytes()).unwrap();
                }
            });
        }
    });
}

/// A name server and two origins.
struct Stage {
    dns: NameServer,
    port: u16,
}

impl Stage {
    fn new() -> Self {
        Self { dns: NameServer::start(), port: origins() }
    }

    /// A proxy whose one endpoint is at `host`.
    fn builder(&self, host: &str) -> Builder {
        let builder = Proxy::builder().version_named("v1", &format!("\"{host}:{}\"", self.port));
        builder.top(&format!("resolver: {{ servers: [ \"{}\" ] }}", self.dns.address))
    }

    /// Starts it; also returns how long that took.
    fn start(&self, host: &str) -> (Proxy, Duration) {
        let began = Instant::now();
        let proxy = self.builder(host).start_with_file();
        (proxy, began.elapsed())
    }
}

/// Status and body of an answer.
fn get(proxy: &Proxy) -> (u16, String) {
    let answer = proxy.get("/");
    (answer.status, answer.text().to_owned())
}

fn served_by(name: Ipv4Addr) -> (u16, String) {
    (200, name.to_string())
}

fn wait_for(proxy: &Proxy, name: Ipv4Addr) {
    eventually("the address follows", || get(proxy) == served_by(name));
}

#[test]
fn addresses_follow_their_name_and_stay_while_the_name_server_is_silent() {
    let stage = Stage::new();
    let dns = &stage.dns;
    dns.set("game.test", &[ONE]);
    let (proxy, _) = stage.start("game.test");
    assert_eq!(get(&proxy), served_by(ONE), "the first request is served");

    dns.set("game.test", &[TWO]);
    wait_for(&proxy, TWO);

    dns.fall_silent();
    let asked = dns.questions.load(SeqCst);
    eventually("the name server is asked again and again", || {
        assert_eq!(get(&proxy), served_by(TWO), "no answer changes nothing");
        dns.questions.load(SeqCst) >= asked + 4
    });

    // Silence is not for ever: the first answer counts again.
    dns.set("game.test", &[ONE]);
    wait_for(&proxy, ONE);

    // A reload to a new name is not seen by anybody but the name's own server.
    dns.set("other.test", &[TWO]);
    proxy.write(&stage.builder("other.test").text());
    eventually("the new name is used", || {
        let (status, body) = get(&proxy);
        assert_eq!(status, 200, "no moment without endpoints");
        body == TWO.to_string()
    });
    proxy.shutdown();
}

/// A server that never answers for AAAA left a version without endpoints for seconds.
#[test]
fn an_address_is_used_at_once_though_the_other_family_is_not_answered() {
    let stage = Stage::new();
    let dns = &stage.dns;
    dns.set("game.test", &[ONE]);
    dns.mute.store(28, SeqCst);
    // The dot of the root, as people write it in a cluster, is no part of the name that is asked for.
    for host in ["game.test", "game.test."] {
        let (proxy, _) = stage.start(host);
        assert_eq!(get(&proxy), served_by(ONE), "the first request is served");
        dns.set("game.test", &[TWO]);
        wait_for(&proxy, TWO);
        dns.set("game.test", &[ONE]);
        proxy.shutdown();
    }
}

#[test]
fn a_silent_name_server_holds_up_a_start_for_a_second_and_addresses_not_at_all() {
    const WAITED: Duration = Duration::from_secs(1);
    let stage = Stage::new();
    let (proxy, took) = stage.start("game.test");
    assert!(took >= WAITED, "{took:?}");
    let (status, body) = get(&proxy);
    assert!(status == 503 && body.contains("no_endpoint"), "{status} {body}");
    stage.dns.set("game.test", &[ONE]);
    wait_for(&proxy, ONE);
    proxy.shutdown();

    let stage = Stage::new();
    for host in ["127.0.0.1", "localhost"] {
        let (proxy, took) = stage.start(host);
        assert!(took < WAITED, "{host}: {took:?}");
        assert_eq!(get(&proxy), served_by(ONE));
        proxy.shutdown();
    }
    assert_eq!(stage.dns.questions.load(SeqCst), 0, "no server is asked for localhost");
}
