//! Limits of requests in flight, priorities, and limits that follow the latency.

mod uploads;

use std::{
    io::Write,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use tidegate::registry::PlaceState;

use crate::support::{
    Client, Origin, PATIENCE, Proxy, eventually,
    http2::{Http2, request},
    proxy::Builder,
};

/// Requests that an origin works on at once; others wait in it.
#[derive(Default)]
struct Desk {
    state: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Desk {
    /// Lets `count` more requests end.
    fn release(&self, count: usize) {
        self.state.lock().expect("no panic").0 += count;
        self.changed.notify_all();
    }

    /// Waits until the request may end.
    fn pass(&self) {
        let state = self.state.lock().expect("no panic");
        let passed = self.changed.wait_timeout_while(state, PATIENCE, |(left, _)| *left == 0);
        let mut state = passed.expect("no panic").0;
        state.0 = state.0.saturating_sub(1);
    }
}

/// An origin that answers when it is told to.
fn told() -> (Origin, Arc<Desk>) {
    let desk = Arc::<Desk>::default();
    let shared = Arc::clone(&desk);
    let origin = Origin::start(move |call| {
        call.skip_body()?;
        shared.pass();
        call.answer(200, b"done")
    });
    (origin, desk)
}

fn limited(origin: &Origin, limit: &str) -> Builder {
    let route = format!("name: bets, limit: {{ concurrency: {{ {limit} }} }}");
    let builder = Proxy::builder().workers(2).version("v1", origin).route(&route);
    builder.top("admin: { address: 127.0.0.1:0 }")
}

fn state(proxy: &Proxy) -> Arc<PlaceState> {
    Arc::clone(&proxy.snapshot().concurrency[0].state)
}

fn ask(proxy: &Proxy, path: &str) -> Client {
    let mut client = proxy.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

/// As [`ask`], and waits until that many requests wait.
#[track_caller]
fn ask_in_vain(proxy: &Proxy, path: &str, waiting: usize) -> Client {
    let client = ask(proxy, path);
    eventually("it waits", || state(proxy).waiting() == waiting);
    client
}

#[track_caller]
fn is_refused(client: &mut Client, kind: &str) {
    let answer = client.answer();
    assert_eq!((answer.status, answer.kind().as_str()), (503, kind), "{}", answer.text());
    assert_eq!(answer.field("retry-after"), Some("1"));
}

#[track_caller]
fn is_done(client: &mut Client) {
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (200, "done"));
}

#[test]
fn requests_wait_in_the_order_of_their_arrival_and_more_are_refused() {
    let (origin, desk) = told();
    let proxy = limited(&origin, "max: 1, queue: 2, queue_timeout: 1m").start();
    let mut first = ask(&proxy, "/1");
    origin.await_requests(1);
    let mut second = ask_in_vain(&proxy, "/2", 1);
    let mut third = ask_in_vain(&proxy, "/3", 2);
    let mut fourth = ask(&proxy, "/4");
    is_refused(&mut fourth, "concurrency");
    desk.release(1);
    is_done(&mut first);
    origin.await_requests(2);
    assert_eq!(state(&proxy).waiting(), 1);
    desk.release(2);
    is_done(&mut second);
    is_done(&mut third);
    eventually("all places are free", || state(&proxy).in_flight() == 0);
    // The connection that was refused stays.
    desk.release(1);
    assert_eq!(fourth.get("/5").send().text(), "done");
    let targets: Vec<_> = origin.seen().iter().map(|seen| seen.target().to_owned()).collect();
    assert_eq!(targets, ["/1", "/2", "/3", "/5"]);
    eventually("all places are free", || state(&proxy).in_flight() == 0);
    let page = proxy.admin().get("/metrics").host("localhost").send();
    let labels = "service=\"game-api\",route=\"bets\"";
    for line in [
        format!("tidegate_concurrency_limit{{{labels}}} 1"),
        format!("tidegate_concurrency_in_flight{{{labels}}} 0"),
        format!("tidegate_concurrency_waiting{{{labels}}} 0"),
        format!(
            "tidegate_concurrency_shed_total{{{labels},priority=\"normal\",reason=\"full\"}} 1"
        ),
        format!("tidegate_concurrency_wait_seconds_count{{{labels}}} 2"),
    ] {
        assert!(page.text().contains(&line), "{line} in\n{}", page.text());
    }
    let service = proxy.admin().get("/v1/services/game-api").host("localhost").send().json();
    let limit = &service["concurrency"][0];
    assert_eq!((limit["route"].as_str(), limit["limit"].as_u64()), (Some("bets"), Some(1)));
    assert_eq!((limit["max"].as_u64(), limit["in_flight"].as_u64()), (Some(1), Some(0)));
}

#[test]
fn the_important_come_first_and_take_the_place_of_the_unimportant() {
    let (origin, desk) = told();
    let builder = Proxy::builder().version("v1", &origin);
    let builder = builder.service("concurrency: { max: 1, queue: 2, queue_timeout: 1m }");
    let builder = builder
        .route("match: { path: /bets/* }, priority: high")
        .route("match: { path: /lobby/* }, priority: low")
        .route("name: rest");
    let proxy = builder.start();
    let mut first = ask(&proxy, "/lobby/1");
    origin.await_requests(1);
    let mut picture = ask_in_vain(&proxy, "/lobby/2", 1);
    let mut other = ask_in_vain(&proxy, "/other", 2);
    let mut bet = ask(&proxy, "/bets/1");
    is_refused(&mut picture, "concurrency_displaced");
    is_refused(&mut ask(&proxy, "/lobby/3"), "concurrency");
    desk.release(1);
    is_done(&mut first);
    origin.await_requests(2);
    desk.release(2);
    is_done(&mut bet);
    is_done(&mut other);
    let targets: Vec<_> = origin.seen().iter().map(|seen| seen.target().to_owned()).collect();
    assert_eq!(targets, ["/lobby/1", "/bets/1", "/other"]);
}

#[test]
fn a_part_of_the_limit_is_kept_for_the_important() {
    let (origin, desk) = told();
    let builder = Proxy::builder().version("v1", &origin);
    let builder = builder.service("concurrency: { max: 4, queue: 0, reserve: 25% }");
    let builder = builder.route("match: { path: /bets }, priority: high").route("name: rest");
    let proxy = builder.start();
    let mut clients: Vec<_> = (0..3).map(|_| ask(&proxy, "/other")).collect();
    origin.await_requests(3);
    is_refused(&mut ask(&proxy, "/other"), "concurrency");
    clients.push(ask(&proxy, "/bets"));
    origin.await_requests(4);
    is_refused(&mut ask(&proxy, "/bets"), "concurrency");
    desk.release(4);
    clients.iter_mut().for_each(is_done);
}

#[test]
fn who_waits_for_too_long_is_refused_and_who_leaves_is_forgotten() {
    let (origin, desk) = told();
    let proxy = limited(&origin, "max: 1, queue: 5, queue_timeout: 300ms").start();
    let mut first = ask(&proxy, "/1");
    origin.await_requests(1);
    let began = Instant::now();
    let mut late = ask(&proxy, "/2");
    is_refused(&mut late, "concurrency_late");
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    let gone = ask_in_vain(&proxy, "/3", 1);
    drop(gone);
    eventually("it has left", || state(&proxy).waiting() == 0);
    desk.release(1);
    is_done(&mut first);
    eventually("the place is free", || state(&proxy).in_flight() == 0);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_call_gets_a_status_and_a_stream_that_is_reset_leaves_the_queue() {
    let (origin, desk) = told();
    let proxy = limited(&origin, "max: 1, queue: 1, queue_timeout: 1m").start();
    let mut first = ask(&proxy, "/1");
    origin.await_requests(1);
    let gone = Http2::connect(proxy.address);
    let (answer, mut stream) = gone.run(gone.open(request("GET", "/2")));
    stream.send_data("".into(), true).expect("an open stream");
    gone.run(async {
        while state(&proxy).waiting() != 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let http2 = Http2::connect(proxy.address);
    let call = request("POST", "/calls").header("content-type", "application/grpc");
    let reply = http2.ask(call.header("te", "trailers"), Some(b""));
    assert_eq!((reply.status, reply.field("grpc-status")), (200, Some("14")));
    drop((answer, stream));
    gone.run(async {
        while state(&proxy).waiting() != 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    eventually("it has left", || state(&proxy).waiting() == 0);
    desk.release(1);
    is_done(&mut first);
}

#[test]
fn a_reload_keeps_the_places_that_are_taken() {
    let (origin, desk) = told();
    let proxy = limited(&origin, "max: 2, queue: 9, queue_timeout: 1m").start_with_file();
    let mut clients: Vec<_> = (0..2).map(|_| ask(&proxy, "/")).collect();
    origin.await_requests(2);
    clients.push(ask_in_vain(&proxy, "/", 1));
    clients.push(ask_in_vain(&proxy, "/", 2));
    proxy.write(&limited(&origin, "max: 3, queue: 9, queue_timeout: 1m").text());
    origin.await_requests(3);
    assert_eq!((state(&proxy).in_flight(), state(&proxy).waiting()), (3, 1));
    desk.release(4);
    clients.iter_mut().for_each(is_done);
    eventually("all places are free", || state(&proxy).in_flight() == 0);
}

const SWITCH: &str = "GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn a_connection_that_switched_keeps_its_place_unless_the_limit_follows_the_latency() {
    for (limit, taken) in [("max: 2, queue: 0", 1), ("max: 2, queue: 0, adaptive: {}", 0)] {
        let origin = Origin::start(|call| {
            call.send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )?;
            call.await_end()
        });
        let proxy = limited(&origin, limit).start();
        let mut client = proxy.connect();
        client.send(SWITCH);
        let head = client.wire.head().expect("open").expect("a head");
        assert!(head.start_line().contains("101"), "{}", head.start_line());
        eventually("it has as many places as it should", || state(&proxy).in_flight() == taken);
        client.wire.stream.write_all(b"x").expect("open");
        assert_eq!(state(&proxy).in_flight(), taken);
        drop(client);
        eventually("all places are free", || state(&proxy).in_flight() == 0);
    }
}

/// The most requests that an origin had at the same time.
#[derive(Default)]
struct Peak {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Peak {
    fn enter(&self) {
        self.most.fetch_max(self.now.fetch_add(1, SeqCst) + 1, SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, SeqCst);
    }
}

/// Clients that go in every way there is, endpoints that reset, retries: the origin never has more than the limit, and
/// in the end no place is taken.
#[test]
fn a_storm_leaves_no_place_taken() {
    const LIMIT: usize = 6;
    let peak = Arc::<Peak>::default();
    let shared = Arc::clone(&peak);
    let origin = Origin::start(move |call| {
        shared.enter();
        let end = match fastrand::u8(..8) {
            0 => {
                call.reset();
                Ok(())
            }
            1 => call.skip_body().and_then(|_| call.answer(503, b"no")),
            2 => call
                .send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\ncut")
                .map(|()| call.close()),
            _ => {
                thread::sleep(Duration::from_millis(fastrand::u64(..4)));
                call.skip_body().and_then(|_| call.answer(200, b"done"))
            }
        };
        shared.leave();
        end
    });
    let route = format!(
        "name: bets, timeout: 5s, retry: {{ attempts: 3 }}, \
         limit: {{ concurrency: {{ max: {LIMIT}, queue: 4, queue_timeout: 20ms }} }}"
    );
    let service = "concurrency: { max: 50, queue: 3, queue_timeout: 10ms }";
    let builder = Proxy::builder().workers(3).version("v1", &origin).service(service);
    let proxy = builder.route(&route).start();
    let is_over = Arc::new(AtomicBool::new(false));
    let client = |number: u64| {
        let (address, is_over) = (proxy.address, Arc::clone(&is_over));
        move || {
            let (mut random, mut done) = (fastrand::Rng::with_seed(number), 0u32);
            while !is_over.load(SeqCst) {
                let mut client = Client::connect(address);
                for _ in 0..random.usize(1..10) {
                    match random.u8(..6) {
                        // Leaves at once, or in the middle of its body, or by a reset.
                        0 => client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
                        1 => {
                            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
                        }
                        2 => {
                            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                            thread::sleep(Duration::from_millis(random.u64(..6)));
                            client.reset();
                            break;
                        }
                        _ => match client.post("/", b"stake").try_send() {
                            Ok(answer) if answer.status == 200 => {
                                done += 1;
                                continue;
                            }
                            Ok(answer) if answer.status >= 500 => continue,
                            _ => break,
                        },
                    }
                    break;
                }
            }
            done
        }
    };
    let clients: Vec<_> = (0..16).map(|number| thread::spawn(client(number))).collect();
    thread::sleep(Duration::from_secs(3));
    is_over.store(true, SeqCst);
    let done: u32 = clients.into_iter().map(|client| client.join().expect("no panic")).sum();
    let most = peak.most.load(SeqCst);
    println!("{done} done, at most {most} at once");
    assert!(done > 50, "{done}");
    let snapshot = proxy.snapshot();
    assert_eq!(snapshot.concurrency.len(), 2);
    for limit in snapshot.concurrency.iter() {
        eventually("all places are free", || limit.state.in_flight() == 0);
        assert_eq!(limit.state.waiting(), 0);
    }
}

#[test]
fn a_limit_holds_over_all_workers() {
    const LIMIT: usize = 5;
    let peak = Arc::<Peak>::default();
    let shared = Arc::clone(&peak);
    let origin = Origin::start(move |call| {
        shared.enter();
        thread::sleep(Duration::from_millis(2));
        shared.leave();
        call.answer(200, b"done")
    });
    let proxy =
        limited(&origin, &format!("max: {LIMIT}, queue: 100, queue_timeout: 30s")).workers(4);
    let proxy = proxy.start();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = proxy.connect();
            thread::spawn(move || (0..50).all(|_| client.get("/").send().status == 200))
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().expect("no panic")), "all are served");
    let most = peak.most.load(SeqCst);
    println!("at most {most} at once");
    assert_eq!((most, origin.requests()), (LIMIT, 1000));
    eventually("all places are free", || state(&proxy).in_flight() == 0);
}

/// An origin that works on four requests at once, for 10 ms each, gets as many as there are.
#[test]
fn an_adaptive_limit_finds_how_much_an_origin_does_at_once() {
    const AT_ONCE: usize = 4;
    let desk = Arc::<Desk>::default();
    desk.release(AT_ONCE);
    let origin = Origin::start(move |call| {
        desk.pass();
        thread::sleep(Duration::from_millis(10));
        desk.release(1);
        call.answer(200, b"done")
    });
    let limit = "max: 200, queue: 0, adaptive: { min: 1, initial: 20, measure_every: 2s }";
    let proxy = limited(&origin, limit).start();
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let (mut client, is_over) = (proxy.connect(), Arc::clone(&is_over));
            thread::spawn(move || {
                while !is_over.load(SeqCst) {
                    if client.get("/").send().status == 503 {
                        thread::sleep(Duration::from_millis(2));
                    }
                }
            })
        })
        .collect();
    let limit = state(&proxy);
    let mut limits = Vec::new();
    eventually("the limit has come near to what the origin does", || {
        limits.push(limit.limit());
        thread::sleep(Duration::from_millis(50));
        let lately = limits.iter().rev().take(20);
        limits.len() > 40 && lately.filter(|limit| **limit <= 3 * AT_ONCE as u32).count() >= 15
    });
    is_over.store(true, SeqCst);
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
    println!("limits {limits:?}");
}
