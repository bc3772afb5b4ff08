//! The end of the process: answers in flight are finished, idle connections closed, nothing accepted.

use std::{
    fs,
    net::TcpStream,
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use tidegate::app::Ended;

use crate::support::{Client, Origin, Proxy, eventually, wire::Framing};

/// An origin that answers when it is told to, and what tells it.
fn patient(answer: &'static str) -> (Origin, mpsc::Sender<()>) {
    let (signal, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |call| {
        // Fails if the test has failed first, and then nobody reads the answer.
        let _ = wait.lock().expect("no panic").recv();
        call.answer(200, answer.as_bytes())
    });
    (origin, signal)
}

#[test]
fn answers_in_flight_are_finished_and_idle_connections_closed() {
    let (origin, signal) = patient("at last");
    let proxy = Proxy::builder().version("v1", &origin).top("shutdown: { deadline: 10s }").start();
    let address = proxy.address;
    let mut idle: Vec<Client> = (0..20).map(|_| proxy.connect()).collect();
    signal.send(()).expect("the origin waits");
    idle[0].get("/").send();
    let mut busy = proxy.connect();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.await_requests(2);
    let ending = thread::spawn(move || proxy.shutdown());
    idle.iter_mut().for_each(Client::expect_end);
    assert!(TcpStream::connect(address).is_err(), "nothing is accepted any more");
    signal.send(()).expect("the origin waits");
    let answer = busy.answer();
    assert_eq!((answer.text(), answer.field("connection")), ("at last", Some("close")));
    busy.expect_end();
    assert_eq!(ending.join().expect("ended"), Ended::Drained);
}

/// Half a head, or half a handshake, held a drain up for as long as either may take.
#[test]
fn a_client_amid_its_first_words_holds_nobody_up() {
    let origin = Origin::answering("ok");
    let folder = tempfile::tempdir().expect("a folder");
    let signed = rcgen::generate_simple_self_signed(["edge.test".to_owned()]).expect("a pair");
    let (cert, key) = (folder.path().join("edge.pem"), folder.path().join("edge.key"));
    fs::write(&cert, signed.cert.pem()).expect("written");
    fs::write(&key, signed.signing_key.serialize_pem()).expect("written");
    let files = format!("{{ cert: {}, key: {} }}", cert.display(), key.display());
    let clear = Proxy::builder().version("v1", &origin).top("shutdown: { deadline: 9s }");
    let encrypted = clear.clone().listener(&format!("tls: {{ certificates: [ {files} ] }}"));
    for (builder, words) in [
        (&clear, &b"GET / HT"[..]),
        (&clear, b"GET / HTTP/1.1\r\nHost: a\r\n"),
        (&clear, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (&clear, b"PRI * HTTP/2.0\r\n\r\nSM\r\n"),
        (&encrypted, b""),
        (&encrypted, b"\x16\x03\x01\x02\x00\x01"),
    ] {
        let proxy = builder.start();
        let mut client = proxy.connect();
        client.send(words);
        eventually("it is accepted", || proxy.open_connections() == 1);
        let began = Instant::now();
        assert_eq!(proxy.shutdown(), Ended::Drained);
        assert!(began.elapsed() < Duration::from_secs(6), "{words:?}: {:?}", began.elapsed());
    }
}

#[test]
fn an_idle_connection_may_ask_once_more_while_the_process_drains() {
    let origin = Origin::answering("ok");
    let proxy = Proxy::builder().version("v1", &origin).top("shutdown: { deadline: 10s }").start();
    let address = proxy.address;
    let (mut used, mut fresh) = (proxy.connect(), proxy.connect());
    used.get("/").send();
    let ending = thread::spawn(move || proxy.shutdown());
    eventually("nothing is accepted any more", || TcpStream::connect(address).is_err());
    for client in [&mut used, &mut fresh] {
        // Workers are told a moment after the listener is closed.
        eventually("an answer ends the connection", || {
            let answer = client.post("/", b"a bet").send();
            assert_eq!(answer.text(), "ok");
            answer.field("connection") == Some("close")
        });
        client.expect_end();
    }
    assert_eq!(ending.join().expect("ended"), Ended::Drained);
}

#[test]
fn a_request_that_comes_as_the_process_ends_is_served_or_never_begun() {
    for _ in 0..10 {
        let origin = Origin::answering("ok");
        let proxy = Proxy::builder().version("v1", &origin).workers(2).start();
        let mut clients: Vec<Client> = (0..4).map(|_| proxy.connect()).collect();
        for client in &mut clients {
            client.get("/").send();
        }
        thread::scope(|scope| {
            for client in &mut clients {
                let origin = &origin;
                scope.spawn(move || {
                    let mut served = 0;
                    while let Ok(answer) = client.get("/").try_send() {
                        assert_eq!(answer.text(), "ok");
                        served += 1;
                    }
                    assert!(origin.requests() >= served);
                });
            }
            assert_eq!(proxy.shutdown(), Ended::Drained);
        });
    }
}

#[test]
fn the_deadline_cuts_what_is_left_and_no_cut_answer_looks_whole() {
    for (framing, version) in [
        ("Content-Length: 100", "HTTP/1.1"),
        ("Transfer-Encoding: chunked", "HTTP/1.1"),
        ("Transfer-Encoding: chunked", "HTTP/1.0"),
        ("X-Framing: none", "HTTP/1.0"),
    ] {
        let origin = Origin::start(move |call| {
            call.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n"))?;
            call.await_end()
        });
        let builder = Proxy::builder().version("v1", &origin);
        let proxy = builder.top("shutdown: { deadline: 100ms }").start();
        let mut client = proxy.connect();
        client.send(format!("GET / {version}\r\nHost: a\r\n\r\n"));
        let head = client.wire.head().expect("a head").expect("a head");
        let began = Instant::now();
        assert_eq!(proxy.shutdown(), Ended::Cut);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let framing = head.framing().unwrap_or(Framing::UntilClose);
        let cut = client.wire.body(framing, &mut |_| {});
        assert!(cut.is_err(), "{framing:?} for {version}: a cut answer looks whole");
        origin.await_open(0);
    }
}

/// A bet in flight that is cut must be found afterwards, or nobody knows that its outcome is open.
#[test]
fn every_request_that_the_deadline_cuts_has_a_line_in_the_access_log() {
    let (origin, _signal) = patient("never");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let proxy = Proxy::builder()
        .version("v1", &origin)
        .top("shutdown: { deadline: 100ms }")
        .top(&format!("access_log: {{ path: {} }}", path.display()))
        .start();
    let bets = ["bet-1", "bet-2"];
    let clients = bets.map(|id| {
        let mut client = proxy.connect();
        client.send(format!(
            "POST /v1/bets HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\nContent-Length: 0\r\n\r\n"
        ));
        client
    });
    eventually("both are in flight", || {
        let snapshot = proxy.controller().snapshot();
        snapshot.services[0].versions[0].state.in_flight() == 2
    });
    assert_eq!(proxy.shutdown(), Ended::Cut);
    let text = fs::read_to_string(&path).expect("the log");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for id in bets {
        let line = lines.iter().find(|line| line["request_id"] == id);
        let line = line.unwrap_or_else(|| panic!("no line of {id} in {text}"));
        assert_eq!((&line["fault"], &line["status"]), (&"cut".into(), &0.into()), "{line}");
        assert_eq!((&line["version"], &line["method"]), (&"v1".into(), &"POST".into()), "{line}");
    }
    drop(clients);
}
