//! What a version cannot take is answered at once, and says nothing of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tidegate::registry::{self, ErrorKind};

use crate::support::{
    Answer, Origin, Proxy, eventually,
    nobody::swallowing,
    proxy::{Builder, SERVICE},
};

fn builder(breaker: &str) -> Builder {
    let builder = Proxy::builder().service(&format!("breaker: {breaker}"));
    builder.service("eject: { errors: {} }").top("admin: { address: 127.0.0.1:0 }")
}

/// First attempts with an outcome that says something, of all endpoints of all versions.
fn trials(proxy: &Proxy) -> u64 {
    let snapshot = proxy.snapshot();
    let known = snapshot.services[0].versions.iter().flat_map(|version| &version.known);
    known.map(|known| known.state.cells.sum(|cells| cells.trials.read())).sum()
}

/// An origin waits while this is held.
struct Holding(Arc<AtomicBool>);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

#[track_caller]
fn assert_shed(answer: &Answer, seconds: &str) {
    assert_eq!((answer.status, answer.kind().as_str()), (503, "breaker"));
    assert_eq!(answer.field("retry-after"), Some(seconds));
}

/// Requests that the breaker of the first version answered: too many in flight, too many that wait.
fn shed(proxy: &Proxy) -> [f64; 2] {
    let page = proxy.admin().get("/metrics").host("localhost").send();
    ["requests", "pending"].map(|limit| {
        let labels = format!("service=\"{SERVICE}\",version=\"v1\",limit=\"{limit}\"");
        let series = format!("tidegate_breaker_shed_total{{{labels}}} ");
        let value = page.text().lines().find_map(|line| line.strip_prefix(&*series));
        value.and_then(|value| value.parse().ok()).expect("a series")
    })
}

#[test]
fn more_requests_than_a_version_takes_are_answered_at_once_and_in_nobodys_evidence() {
    let held = Arc::new(AtomicBool::new(true));
    let (holding, is_held) = (Holding(Arc::clone(&held)), held);
    let origin = Origin::start(move |call| {
        eventually("the test lets it go", || !is_held.load(SeqCst));
        call.answer(200, b"late")
    });
    let builder = builder("{ requests: 2, retry_after: 2500ms }");
    let proxy = builder.version("v1", &origin).start();
    let mut waiting = [proxy.connect(), proxy.connect()];
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    origin.await_requests(2);
    let mut client = proxy.connect();
    for _ in 0..5 {
        assert_shed(&client.get("/").send(), "3");
    }
    drop(holding);
    for client in &mut waiting {
        assert_eq!(client.answer().text(), "late");
    }
    assert_eq!(client.get("/").send().text(), "late", "on the connection that was told to wait");
    eventually("they have ended", || trials(&proxy) == 3);
    assert_eq!(origin.requests(), 3);
    let snapshot = proxy.snapshot();
    let state = &snapshot.services[0].versions[0].state;
    let counts = [state.ended(&registry::Origin::ALL).1, state.started()];
    assert_eq!(counts, [0, 3]);
    assert_eq!(shed(&proxy), [5.0, 0.0]);
}

#[test]
fn more_requests_than_may_wait_for_a_connection_are_answered_at_once() {
    let (address, _held) = swallowing();
    let builder = builder("{ pending: 1 }").service("connect_timeout: 2s");
    let proxy = builder.version_at("v1", &[address]).start();
    let mut waiting = proxy.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it waits", || {
        let snapshot = proxy.snapshot();
        snapshot.services[0].versions[0].state.cells.sum(|c| c.pending.read()) == 1
    });
    let (mut client, began) = (proxy.connect(), Instant::now());
    for _ in 0..5 {
        assert_shed(&client.get("/").send(), "1");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(waiting.answer().status, 504);
    eventually("it has ended", || trials(&proxy) == 1);
    assert_eq!((shed(&proxy), proxy.errors("v1", ErrorKind::Connect)), ([0.0, 5.0], 1));
}
