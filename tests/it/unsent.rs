//! What the system holds for whom nobody reads: little, in the sockets of both sides.

use std::{
    fs, io,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Client, Origin, Proxy, eventually, pattern};

/// Twice what may wait, and a segment of loopback or two.
const MOST: u64 = 320 << 10;

/// More than any socket takes.
const LARGE: usize = 32 << 20;

/// Bytes in the queue of the socket at `local` towards `remote` that were not acknowledged, the most if
/// `local` is any.
fn unsent(local: Option<SocketAddr>, remote: SocketAddr) -> u64 {
    let shown = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let table = fs::read_to_string("/proc/self/net/tcp").expect("the system tells");
    // Tests beside this one leave tens of thousands of lines.
    let (lines, remote) = (table.lines(), shown(remote));
    let of = lines.filter(|line| line.contains(&remote)).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields[2] == remote && local.is_none_or(|l| fields[1] == shown(l));
        let (queued, _) = fields[4].split_once(':').filter(|_| is_it)?;
        u64::from_str_radix(queued, 16).ok()
    });
    of.max().unwrap_or(0)
}

/// Waits until `read` gives the same for half a second, and is not 0.
fn settled(mut read: impl FnMut() -> u64) -> u64 {
    let (mut before, mut since) = (0, Instant::now());
    eventually("it settles", || {
        let now = read();
        if now != before || now == 0 {
            (before, since) = (now, Instant::now());
        }
        // The pace at which it is looked at.
        thread::sleep(Duration::from_millis(20));
        since.elapsed() > Duration::from_millis(500)
    });
    before
}

#[test]
fn an_answer_that_nobody_reads_waits_in_little_memory_of_the_system() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.answer(200, &pattern(LARGE))
    });
    let proxy = Proxy::to(&origin);
    let mut client = Client::connect_narrow(proxy.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let own = client.wire.stream.local_addr().expect("an open socket");
    let waits = settled(|| unsent(Some(proxy.address), own));
    assert!(waits < MOST, "{waits} bytes wait for a client that does not read");
}

#[test]
fn a_body_that_no_endpoint_reads_waits_in_little_memory_of_the_system() {
    // Takes connections into its queue, and reads nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = silent.local_addr().expect("bound");
    let proxy = Proxy::builder().version_at("v1", &[endpoint]).start();
    let mut client = proxy.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n"));
    client.wire.stream.set_nonblocking(true).expect("an open socket");
    let piece = pattern(1 << 16);
    let waits = settled(|| {
        loop {
            match client.wire.stream.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        unsent(None, endpoint)
    });
    assert!(waits < MOST, "{waits} bytes wait for an endpoint that does not read");
}
