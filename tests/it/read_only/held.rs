//! Callbacks that must not be lost: they wait until the mode ends, within bounds.

use super::*;

/// A route that holds its writes within `bounds`, beside one that refuses them.
fn holding(builder: Builder, bounds: &str) -> Builder {
    let route = format!(
        "match: {{ path: /callbacks/* }}, name: cashier.webhook, read_only: {{ hold: {{ {bounds} }} }}"
    );
    builder.route(&route).route("name: rest")
}

/// Begins a callback on a connection of its own, and returns once it waits.
fn callback(stage: &Stage, n: usize, waiting: usize) -> Client {
    let mut client = stage.proxy().connect();
    client.send(format!("POST /callbacks/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"));
    await_held(stage, waiting);
    client
}

fn held(stage: &Stage) -> usize {
    let snapshot = stage.proxy().snapshot();
    let holds = snapshot.routes.iter().filter_map(|route| route.policies.as_ref()?.hold());
    holds.map(|hold| hold.state.waiting()).sum()
}

fn await_held(stage: &Stage, count: usize) {
    eventually("it waits", || held(stage) == count);
}

fn event(stage: &Stage, event: &str) -> u64 {
    let labels = format!("service=\"game-api\",route=\"cashier.webhook\",event=\"{event}\"");
    stage.metric(&format!("tidegate_read_only_held_total{{{labels}}}")) as u64
}

#[test]
fn callbacks_wait_for_the_end_of_the_mode_and_each_arrives_once() {
    let stage = Stage::new(|builder| holding(builder, "queue: 50, deadline: 30s"));
    assert_eq!(stage.write("/callbacks/0").status, 200);
    stage.read_only();
    let mut clients: Vec<Client> = (1..=20).map(|n| callback(&stage, n, n)).collect();
    assert_eq!(stage.write("/bets").status, 503, "another route does not hold");
    assert_eq!(stage.proxy().get("/callbacks/status").status, 200, "reads go on");
    assert_eq!(stage.origin.requests(), 2);
    let labels = "{service=\"game-api\",route=\"cashier.webhook\"}";
    assert_eq!(stage.metric(&format!("tidegate_read_only_held{labels}")) as u64, 20);
    assert!(stage.metric(&format!("tidegate_read_only_held_bytes{labels}")) > 0.0);
    assert_eq!(stage.get("/v1/mode")["services"][0]["held"], 20);
    stage.normal();
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    // They begin in their order, but those that need a new connection may cross on their way.
    let seen = stage.origin.seen();
    let mut targets: Vec<&str> = seen[2..].iter().map(|seen| seen.target()).collect();
    targets.sort_unstable();
    let mut expected: Vec<String> = (1..=20).map(|n| format!("/callbacks/{n}")).collect();
    expected.sort_unstable();
    assert_eq!(targets, expected);
    assert_eq!(event(&stage, "released"), 20);
    assert_eq!(held(&stage), 0);
}

#[test]
fn beyond_the_bounds_a_callback_is_refused_and_says_why() {
    let stage = Stage::new(|builder| holding(builder, "queue: 2, deadline: 3s"));
    stage.mode(&json!({ "mode": "read-only", "until": from_now(60.0) }));
    let (mut first, second) = (callback(&stage, 1, 1), callback(&stage, 2, 2));
    let full = stage.write("/callbacks/3");
    assert_eq!((full.status, full.kind()), (503, "read_only_full".to_owned()));
    let after: u32 = full.field("retry-after").expect("one").parse().expect("a number");
    assert!((50..=60).contains(&after), "{after}");
    drop(second);
    let late = first.answer();
    assert_eq!((late.status, late.kind()), (503, "read_only_late".to_owned()));
    await_held(&stage, 0);
    assert_eq!(["full", "late", "left"].map(|e| event(&stage, e)), [1, 1, 1]);
    assert_eq!(stage.origin.requests(), 0);
    stage.normal();
    assert_eq!(first.post("/callbacks/1", b"x").send().status, 200, "its connection goes on");
}

#[test]
fn the_memory_of_callbacks_that_wait_is_bounded() {
    let stage = Stage::new(|builder| holding(builder, "queue: 1000, bytes: 64KiB"));
    stage.read_only();
    let mut clients = Vec::new();
    let mut full = None;
    for n in 1..200 {
        let mut client = stage.proxy().connect();
        client
            .send(format!("POST /callbacks/{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"));
        eventually("it waits, or is refused", || held(&stage) == n || event(&stage, "full") > 0);
        if event(&stage, "full") > 0 {
            full = Some(client.answer());
            break;
        }
        clients.push(client);
    }
    let full = full.expect("one is refused");
    assert_eq!((full.status, full.kind()), (503, "read_only_full".to_owned()));
    stage.normal();
    assert!(clients.iter_mut().all(|client| client.answer().status == 200));
}

#[test]
fn a_route_may_let_its_writes_pass() {
    let stage = Stage::new(|builder| {
        let route = "match: { path: /callbacks/* }, name: cashier.webhook, read_only: pass";
        builder.route(route).route("name: rest")
    });
    stage.read_only();
    assert_eq!(stage.write("/callbacks/1").status, 200);
    assert_eq!(stage.write("/bets").status, 503);
}

#[test]
fn a_held_callback_with_a_key_is_processed_once() {
    let stage = Stage::new(|builder| {
        let route = "match: { path: /callbacks/* }, name: cashier.webhook, read_only: { hold: {} }, \
                     idempotency: { required: true }";
        builder.route(route).route("name: rest")
    });
    stage.read_only();
    let send = |address| {
        let mut client = Client::connect(address);
        let request = client.post("/callbacks/1", b"x").header("Idempotency-Key", "k1");
        request.send().status
    };
    let address = stage.proxy().address;
    let both = [0, 1].map(|_| thread::spawn(move || send(address)));
    await_held(&stage, 2);
    stage.normal();
    assert_eq!(both.map(|one| one.join().expect("no panic")), [200, 200]);
    assert_eq!(stage.origin.requests(), 1, "the second one got the response of the first");
}

#[test]
fn who_waits_when_the_process_ends_gets_an_answer() {
    let mut stage = Stage::new(|builder| holding(builder, ""));
    stage.read_only();
    let mut client = callback(&stage, 1, 1);
    let proxy = stage.proxy.take().expect("it runs");
    let ending = thread::spawn(move || proxy.shutdown());
    let answer = client.answer();
    assert_eq!((answer.status, answer.kind()), (503, "read_only_moved".to_owned()));
    assert_eq!(answer.field("retry-after"), Some("1"));
    client.expect_end();
    ending.join().expect("no panic");
    assert_eq!(stage.origin.requests(), 0);
}

/// Callers send a callback until it is taken, as providers of payments do, while the mode begins and ends. By the
/// origin's own record none is lost, and none that was held arrives twice.
#[test]
fn no_callback_is_lost_while_modes_come_and_go() {
    let stage = Stage::new(|builder| holding(builder.workers(3), "queue: 8, deadline: 2s"));
    let (address, sent) = (stage.proxy().address, AtomicU64::new(0));
    let done = AtomicBool::new(false);
    stage.read_only();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..12)
            .map(|caller| {
                let sent = &sent;
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    for n in 0..40 {
                        let path = format!("/callbacks/{caller}-{n}");
                        loop {
                            let answer = client.post(&path, b"x").send();
                            match answer.status {
                                200 => break,
                                503 => assert!(answer.kind().starts_with("read_only")),
                                other => panic!("{other}"),
                            }
                            thread::sleep(Duration::from_millis(5));
                        }
                        sent.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        let toggling = scope.spawn(|| {
            while !done.load(SeqCst) {
                thread::sleep(Duration::from_millis(30));
                stage.normal();
                thread::sleep(Duration::from_millis(5));
                stage.read_only();
            }
        });
        callers.into_iter().for_each(|caller| caller.join().expect("no panic"));
        done.store(true, SeqCst);
        toggling.join().expect("no panic");
    });
    let mut counts = BTreeMap::<String, usize>::new();
    for seen in stage.origin.seen() {
        *counts.entry(seen.target().to_owned()).or_default() += 1;
    }
    assert_eq!((counts.len(), sent.load(SeqCst)), (480, 480), "each callback has arrived");
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "what was refused was not sent: {twice:?}");
    assert!(event(&stage, "released") > 0, "some waited");
}

/// All but the first few were lost, since they were called faster than they could begin.
#[test]
fn callbacks_arrive_although_there_is_room_for_few() {
    for (service, limit) in [
        ("breaker: { requests: 2 }", ""),
        ("connect_timeout: 1s", ", limit: { concurrency: { max: 1, queue: 0 } }"),
        (
            "connect_timeout: 1s",
            ", limit: { concurrency: { max: 1, queue: 2, queue_timeout: 100ms } }",
        ),
    ] {
        let origin = Origin::start(|call| {
            call.skip_body()?;
            thread::sleep(Duration::from_millis(20));
            call.answer(200, b"ok")
        });
        let route = format!(
            "match: {{ path: /callbacks/* }}, name: cashier.webhook, read_only: {{ hold: {{ queue: 50 }} }}{limit}"
        );
        let stage = Stage::to(origin, |builder| builder.service(service).route(&route));
        stage.read_only();
        let mut clients: Vec<Client> = (1..=30).map(|n| callback(&stage, n, n)).collect();
        stage.normal();
        let answers: Vec<u16> = clients.iter_mut().map(|client| client.answer().status).collect();
        assert_eq!(answers, [200; 30], "{service}{limit}");
        assert_eq!((stage.origin.requests(), event(&stage, "released"), held(&stage)), (30, 30, 0));
    }
}
