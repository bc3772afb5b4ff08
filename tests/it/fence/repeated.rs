//! Writes that are sent again, or whose keys are remembered, while the writes of their service move.

use super::*;

/// A version that answers the first attempt of each write to `/again` with 503, and a second one once `go` is set.
fn unready(name: &'static str, writes: &Writes, go: &Arc<AtomicBool>) -> Origin {
    let (writes, go, failed) = (Arc::clone(writes), Arc::clone(go), AtomicBool::new(false));
    Origin::start(move |call| {
        call.skip_body()?;
        let (target, began) = (call.target().to_owned(), Instant::now());
        let is_first = target == "/again" && !failed.swap(true, SeqCst);
        if target == "/again" && !is_first {
            eventually("the write may end", || go.load(SeqCst));
        }
        let epoch = call.head.field("tidegate-epoch").and_then(|epoch| epoch.parse().ok());
        let epoch = epoch.expect("an epoch");
        let write = Write { version: name, target, epoch, began, ended: Instant::now() };
        writes.lock().expect("no panic").push(write);
        match is_first {
            true => call.send(
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
            ),
            false => call.answer(200, name.as_bytes()),
        }
    })
}

/// The writes that both versions saw of a repeated one and of one that was held meanwhile, the answers, and that of
/// the cutover.
fn repeated_while_writes_move(deadline: &str) -> (Vec<Write>, [String; 2], Answer) {
    let (writes, go) = (Writes::default(), Arc::new(AtomicBool::new(false)));
    let origins = ["v1", "v2"].map(|name| unready(name, &writes, &go));
    let folder = TempDir::new().expect("a folder");
    let proxy = Proxy::builder()
        .version("v1", &origins[0])
        .version("v2", &origins[1])
        .workers(2)
        .service(&format!("fence: {{ deadline: {deadline} }}"))
        .route("timeout: 5s, retry: { idempotency_key: honoured, rescue: shared_store }")
        .top("admin: { address: \"127.0.0.1:0\" }")
        .top(&format!("state: '{}'", folder.path().join("state").display()))
        .start();
    let writes_of_v1 = || {
        let snapshot = proxy.snapshot();
        let version = snapshot.services[0].version("v1").expect("a version");
        version.state.in_flight_of(tidegate::policy::class::Class::Write)
    };
    let mut client = proxy.connect();
    client.send(
        "POST /again HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 7\r\nContent-Length: 1\r\n\r\nx",
    );
    origins[0].await_requests(1);
    let told = thread::scope(|scope| {
        let moving = scope.spawn(|| {
            let path = format!("/v1/services/{SERVICE}/cutover");
            let mut admin = proxy.admin();
            admin.request("POST", &path).host("127.0.0.1").body(br#"{"to":"v2"}"#).send()
        });
        let snapshot = proxy.snapshot();
        let fence = &snapshot.services[0].fence.as_ref().expect("a fence").state;
        eventually("the fence is raised", || fence.is_closed());
        assert_eq!(origins[0].requests(), 1, "it pauses");
        assert_eq!(writes_of_v1(), 1, "a write between two attempts is in flight");
        let held = scope.spawn(|| proxy.connect().post("/held", b"x").send().text().to_owned());
        eventually("a write is held", || fence.waiting() == 1 || !fence.is_closed());
        origins[0].await_requests(2);
        go.store(true, SeqCst);
        let again = client.answer();
        assert_eq!(again.status, 200, "{}", again.text());
        let held = held.join().expect("no panic");
        (moving.join().expect("no panic"), [again.text().to_owned(), held])
    });
    let writes = writes.lock().expect("no panic").clone();
    (writes, told.1, told.0)
}

#[test]
fn a_write_between_two_attempts_belongs_to_the_version_that_loses_the_writes() {
    let (writes, [again, held], moved) = repeated_while_writes_move("10s");
    assert_eq!(moved.status, 200, "{}", moved.text());
    assert_eq!((&*again, &*held), ("v1", "v2"));
    let of_again = writes.iter().filter(|write| write.target == "/again");
    assert_eq!(of_again.map(|write| write.version).collect::<Vec<_>>(), ["v1", "v1"]);
    assert_apart(writes);
}

#[test]
fn a_write_whose_attempts_outlast_the_deadline_undoes_the_move() {
    let (writes, [again, held], undone) = repeated_while_writes_move("300ms");
    assert_eq!(undone.status, 504, "{}", undone.text());
    assert_eq!((&*again, &*held), ("v1", "v1"));
    assert!(writes.iter().all(|write| write.version == "v1"), "{writes:?}");
}

#[test]
fn a_key_begins_before_the_fence_and_neither_what_is_replayed_nor_a_second_request_queues_there() {
    let stage = Stage::with("queue: 1", Duration::from_millis(5), |builder| {
        builder.service("cohort: { key: [ 'header:x-player' ] }").route("idempotency: { }")
    });
    let ask = |key: &str| {
        let mut client = stage.proxy().connect();
        let request = client.post("/bets", b"x").header("Idempotency-Key", key);
        let answer = request.header("X-Player", "p1").send();
        (answer.status, answer.text().to_owned(), answer.field("idempotent-replayed").is_some())
    };
    let (v1, v2) = ("v1".to_owned(), "v2".to_owned());
    assert_eq!(ask("before"), (200, v1.clone(), false));
    let mut stuck = stage.stick();
    thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        assert_eq!(ask("before"), (200, v1.clone(), true), "while writes are held");
        let first = scope.spawn(|| ask("held"));
        stage.await_waiting(1);
        let second = scope.spawn(|| ask("held"));
        let table = || {
            let snapshot = stage.proxy().snapshot();
            let policies = snapshot.routes[0].policies.as_ref().expect("policies");
            Arc::clone(&policies.idempotency.as_ref().expect("keys").table)
        };
        eventually("it waits for the first", || table().waiting() == 1);
        assert_eq!(stage.fence().waiting(), 1);
        // The queue is full: that key did not begin, so it may come again.
        assert_eq!(ask("full").0, 503);
        stage.unstick();
        assert_eq!(stuck.answer().text(), "v1");
        let mut both = [first, second].map(|thread| thread.join().expect("no panic"));
        both.sort_by_key(|answer| answer.2);
        assert_eq!(both, [(200, v2.clone(), false), (200, v2.clone(), true)]);
        assert_eq!(moving.join().expect("no panic").status, 200);
    });
    assert_eq!(ask("full"), (200, v2, false));
    assert_eq!(stage.writes().len(), 4);
    assert_apart(stage.writes());
}

/// A version that works on each write for some milliseconds, and then answers, fails, or resets the connection.
fn shaky(name: &'static str, writes: &Writes) -> Origin {
    let writes = Arc::clone(writes);
    Origin::start(move |call| {
        call.skip_body()?;
        let (target, began) = (call.target().to_owned(), Instant::now());
        thread::sleep(Duration::from_millis(fastrand::u64(1..8)));
        let epoch = call.head.field("tidegate-epoch").and_then(|epoch| epoch.parse().ok());
        let epoch = epoch.expect("an epoch");
        let write = Write { version: name, target, epoch, began, ended: Instant::now() };
        writes.lock().expect("no panic").push(write);
        match fastrand::u8(..10) {
            0..3 => call.answer(503, b"not now"),
            3..5 => {
                call.reset();
                Ok(())
            }
            _ => call.answer(200, name.as_bytes()),
        }
    })
}

#[test]
fn repeated_writes_of_moving_versions_never_overlap() {
    let writes = Writes::default();
    let origins = ["v1", "v2"].map(|name| shaky(name, &writes));
    let folder = TempDir::new().expect("a folder");
    let retry = "{ attempts: 4, idempotency_key: honoured, rescue: shared_store, budget: 100%, \
                 min_per_second: 1000, backoff: 5ms }";
    let proxy = Proxy::builder()
        .version("v1", &origins[0])
        .version("v2", &origins[1])
        .workers(2)
        .service("fence: { deadline: 2s }")
        .service("cohort: { key: [ 'header:x-player' ] }")
        .route(&format!("match: {{ path: /keyed/* }}, retry: {retry}, idempotency: {{ }}"))
        .route(&format!("retry: {retry}"))
        .top("admin: { address: \"127.0.0.1:0\" }")
        .top(&format!("state: '{}'", folder.path().join("state").display()))
        .start();
    let ended = AtomicBool::new(false);
    let cut_over = |to: &str| {
        let (path, body) =
            (format!("/v1/services/{SERVICE}/cutover"), json!({ "to": to }).to_string());
        let mut admin = proxy.admin();
        admin.request("POST", &path).host("127.0.0.1").body(body.as_bytes()).send()
    };
    thread::scope(|scope| {
        let _end = crate::support::SetOnDrop(&ended);
        for player in 0..6 {
            let (proxy, ended) = (&proxy, &ended);
            scope.spawn(move || {
                let mut client = proxy.connect();
                for n in 0.. {
                    if ended.load(SeqCst) {
                        return;
                    }
                    let key = format!("{player}-{n}");
                    let path = if player % 2 == 0 { "/keyed/bet" } else { "/bet" };
                    let write = client.post(path, b"x").header("Idempotency-Key", &key);
                    if write.header("X-Player", &player.to_string()).try_send().is_err() {
                        client = proxy.connect();
                    }
                }
            });
        }
        for n in 0..20 {
            let answer = cut_over(if n % 2 == 0 { "v2" } else { "v1" });
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    });
    let repeated = |reason| proxy.retries("v1", reason) + proxy.retries("v2", reason);
    assert!(repeated(tidegate::registry::RetryReason::Status) > 0);
    assert!(repeated(tidegate::registry::RetryReason::Reset) > 0);
    let writes = writes.lock().expect("no panic").clone();
    assert!(writes.len() > 100, "{}", writes.len());
    assert_apart(writes);
}
