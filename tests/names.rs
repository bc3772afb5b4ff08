//! Endpoints by name, end to end: a name server whose answers change, the process, two origins.

#![expect(clippy::unwrap_used, reason = "a test fails where it breaks")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate::{app::App, config};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Long enough for a machine that runs other tests beside; what is waited for takes a second or two.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// A configuration of one version with `endpoint`.
fn write_config(file: &Path, resolver: SocketAddr, endpoint: &str) {
    let text = format!(
        "workers: 1\nlisten: [ {{ address: 127.0.0.1:0 }} ]\nresolver: {{ servers: [ \"{resolver}\" ] }}\n\
         services: {{ game-api: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ \"{endpoint}\" ] }} }} }} }}\n\
         routes: [ {{ service: game-api }} ]\n"
    );
    std::fs::write(file, text).unwrap();
}

fn start(file: &Path) -> (App, Duration) {
    let loaded = config::read(file).unwrap();
    let began = Instant::now();
    let app = App::start(loaded, Some(file.to_owned()), None).unwrap();
    (app, began.elapsed())
}

/// A name server, two origins, and a configuration that names an endpoint.
struct Stage {
    dns: NameServer,
    port: u16,
    file: PathBuf,
    _folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (dns, port) = (NameServer::start(), origins());
        Self { dns, port, file: folder.path().join("tidegate.yaml"), _folder: folder }
    }

    /// Has the configuration name `host`.
    fn name(&self, host: &str) {
        write_config(&self.file, self.dns.address, &format!("{host}:{}", self.port));
    }

    /// Starts with the configuration, which names `host`; also returns how long that took.
    fn start(&self, host: &str) -> (App, Duration) {
        self.name(host);
        start(&self.file)
    }
}

/// Status and body of an answer.
fn get(app: &App) -> (String, String) {
    let mut stream = TcpStream::connect(app.listeners[0]).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: game\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].to_owned(), body.to_owned())
}

fn served_by(name: Ipv4Addr) -> (String, String) {
    ("200".to_owned(), name.to_string())
}

/// How long it took until `expected` was the answer.
fn wait_for(app: &App, expected: &(String, String)) -> Duration {
    let began = Instant::now();
    while get(app) != *expected {
        assert!(began.elapsed() < PATIENCE, "still {:?}, not {expected:?}", get(app));
        thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

#[test]
fn addresses_follow_their_name_and_stay_while_the_name_server_is_silent() {
    let stage = Stage::new();
    let dns = &stage.dns;
    dns.set("game.test", &[ONE]);
    let (app, _) = stage.start("game.test");
    assert_eq!(get(&app), served_by(ONE), "the first request is served");

    dns.set("game.test", &[TWO]);
    let took = wait_for(&app, &served_by(TWO));
    println!("followed after {took:?}");

    dns.fall_silent();
    let asked = dns.questions.load(SeqCst);
    let began = Instant::now();
    while dns.questions.load(SeqCst) < asked + 4 {
        assert_eq!(get(&app), served_by(TWO), "no answer changes nothing");
        assert!(began.elapsed() < PATIENCE, "the name server is asked again and again");
        thread::sleep(Duration::from_millis(20));
    }

    // Silence is not for ever: the first answer counts again.
    dns.set("game.test", &[ONE]);
    wait_for(&app, &served_by(ONE));

    // A reload to a new name is not seen by anybody but the name's own server.
    dns.set("other.test", &[TWO]);
    stage.name("other.test");
    let began = Instant::now();
    while get(&app) != served_by(TWO) {
        assert!(began.elapsed() < PATIENCE);
        assert_eq!(get(&app).0, "200", "no moment without endpoints");
    }
    app.shutdown();
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
        let (app, _) = stage.start(host);
        assert_eq!(get(&app), served_by(ONE), "the first request is served");
        dns.set("game.test", &[TWO]);
        wait_for(&app, &served_by(TWO));
        dns.set("game.test", &[ONE]);
        app.shutdown();
    }
}

#[test]
fn a_silent_name_server_holds_up_a_start_for_a_second_and_addresses_not_at_all() {
    let stage = Stage::new();
    let (app, took) = stage.start("game.test");
    println!("a silent name server: {took:?}");
    assert!(took >= Duration::from_secs(1), "{took:?}");
    let (status, body) = get(&app);
    assert!(status == "503" && body.contains("no_endpoint"), "{status} {body}");
    stage.dns.set("game.test", &[ONE]);
    wait_for(&app, &served_by(ONE));
    app.shutdown();

    let stage = Stage::new();
    for host in ["127.0.0.1", "localhost"] {
        let (app, took) = stage.start(host);
        println!("{host}: {took:?}");
        assert!(took < Duration::from_millis(900), "{host}: {took:?}");
        assert_eq!(get(&app), served_by(ONE));
        app.shutdown();
    }
    assert_eq!(stage.dns.questions.load(SeqCst), 0, "no server is asked for localhost");
}
