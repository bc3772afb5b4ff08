//! Canaries that keep their players waiting in places where no answer can come: they are out as well.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use tidegate::{config::units::Weight, routing::Split};

use crate::support::{Origin, Proxy, nobody::swallowing};

/// Players of the canary who ask at the same time.
const PLAYERS: u32 = 16;
/// How long each of them waits at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keys that the split sends to the canary, or to the baseline.
fn keys(canary: bool) -> impl Iterator<Item = String> {
    let weight = |weight| Weight::new(weight).expect("a weight");
    let split = Split::new("", [("v1", weight(95.0)), ("v2", weight(5.0))]);
    let is_wanted = move |key: &String| split.assign(key.as_bytes()) == Some(u16::from(canary));
    (0..).map(|n: u32| n.to_string()).filter(is_wanted)
}

/// Whether the canary at `address` is out after its players have sent `body` bytes each, as far as they are taken,
/// and waited, while players of the baseline are served.
fn is_out(address: SocketAddr, body: usize) -> bool {
    let v1 = Origin::start(|call| call.answer(200, b"v1"));
    let builder = Proxy::builder().version("v1", &v1).version_at("v2", &[address]);
    let builder = builder.service("weights: { v1: 95, v2: 5 }").service("connect_timeout: 2s");
    let builder = builder.service("cohort: { key: [ 'header:x-player-id' ] }");
    let builder = builder.service("eject: { errors: {}, deadline: 500ms }");
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let is_over = AtomicBool::new(false);
    let send = &|number: u32, key: String| {
        // What fails in one moment might be one stumble.
        thread::sleep(number * Duration::from_millis(30));
        let mut stream = TcpStream::connect(proxy.address).expect("the proxy accepts");
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n");
        stream.set_write_timeout(Some(Duration::from_secs(1))).expect("an open socket");
        let asked = Instant::now();
        let head = format!("{head}x-player-id: {key}\r\n\r\n");
        // What nobody takes ends in a time-out.
        let _ =
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b'.'; body]));
        while !is_over.load(SeqCst) && asked.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
    };
    let is_out = || !proxy.controller().ejections().is_empty();
    thread::scope(|scope| {
        let waiting = (0..PLAYERS)
            .zip(keys(true))
            .map(|(number, key)| scope.spawn(move || send(number, key)));
        let waiting: Vec<_> = waiting.collect();
        let (mut client, mut others) = (proxy.connect(), keys(false));
        while !is_out() && !waiting.iter().all(|thread| thread.is_finished()) {
            let key = others.next().expect("there is no end of them");
            assert_eq!(client.get("/").header("x-player-id", &key).send().status, 200);
        }
        is_over.store(true, SeqCst);
    });
    is_out()
}

#[test]
fn a_canary_that_takes_no_bodies_is_out() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    // More than the sockets between them hold.
    assert!(is_out(address, 16 << 20));
}

#[test]
fn a_canary_that_cannot_be_connected_in_time_is_out() {
    let (address, _full) = swallowing();
    assert!(is_out(address, 0));
}
