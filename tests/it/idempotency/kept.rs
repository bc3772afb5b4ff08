//! Keys that outlive their process.

use rustix::process::Signal;

use super::*;
use crate::support::process::{Process, free_address};

/// As [`keyed`], with `state` in `folder`.
fn kept(origin: &Origin, folder: &TempDir) -> Builder {
    let state = folder.path().join("state");
    keyed(origin, "window: 1h").workers(2).top(&format!("state: {}", state.display()))
}

#[test]
fn a_restart_remembers_what_was_answered_and_what_was_not() {
    let hang = Arc::new(AtomicBool::new(false));
    let ledger = Ledger::default();
    let origin = Origin::start({
        let (hang, ledger) = (Arc::clone(&hang), ledger.clone());
        move |call| {
            call.read_body()?;
            let times = ledger.process(call.head.field("idempotency-key").unwrap_or("none"));
            if hang.load(SeqCst) {
                return call.await_end();
            }
            call.answer(201, format!("processed {times}").as_bytes())
        }
    });
    let folder = TempDir::new().expect("a folder");
    let text = kept(&origin, &folder);
    let mut first = text.spawn();
    let mut client = first.connect();
    assert_eq!(post(&mut client, "answered", b"x").text(), "processed 1");
    hang.store(true, SeqCst);
    client.send("POST /bets?x=1 HTTP/1.1\r\nHost: game.test\r\nX-Player: p1\r\nIdempotency-Key: begun\r\nContent-Length: 1\r\n\r\nx");
    eventually("it was sent", || ledger.times("begun") == 1);
    // What was answered is written within some milliseconds.
    thread::sleep(Duration::from_millis(200));
    first.signal(Signal::KILL);
    first.wait();
    hang.store(false, SeqCst);
    let second = text.spawn();
    let mut client = second.connect();
    let again = post(&mut client, "answered", b"x");
    assert_eq!((again.status, again.text(), replayed(&again)), (201, "processed 1", true));
    assert_eq!(post(&mut client, "answered", b"y").status, 422);
    let unsure = post(&mut client, "begun", b"x");
    assert_eq!((unsure.status, unsure.kind()), (409, "idempotency_unsure".to_owned()));
    assert_eq!(post(&mut client, "new", b"x").text(), "processed 1");
    assert_eq!((ledger.twice(), ledger.len()), (vec![], 3));
}

#[test]
fn a_key_that_the_old_process_of_a_takeover_has_begun_does_not_begin_in_the_new_one() {
    let go = Arc::new(AtomicBool::new(false));
    let ledger = Ledger::default();
    let origin = Origin::start({
        let (go, ledger) = (Arc::clone(&go), ledger.clone());
        move |call| {
            call.read_body()?;
            let times = ledger.process(call.head.field("idempotency-key").unwrap_or("none"));
            while call.target().contains("slow") && !go.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            call.answer(201, format!("processed {times}").as_bytes())
        }
    });
    let folder = TempDir::new().expect("a folder");
    let process = kept(&origin, &folder).top("shutdown: { deadline: 20s }").spawn();
    let mut before = process.connect();
    assert_eq!(post(&mut before, "before", b"x").status, 201);
    let address = process.address;
    let ask = move |key: &'static str| {
        let mut client = Client::connect(address);
        let request = client.post("/slow", b"x").header("Idempotency-Key", key);
        let answer = request.header("X-Player", "p1").send();
        (answer.status, replayed(&answer))
    };
    let slow = thread::spawn(move || ask("slow"));
    eventually("it was sent", || ledger.times("slow") == 1);
    process.signal(Signal::USR2);
    eventually("the new process serves", || process.pids().len() == 2);
    let again = thread::spawn(move || ask("slow"));
    let known = post(&mut process.connect(), "before", b"x");
    assert!(replayed(&known), "{known:?}");
    thread::sleep(Duration::from_millis(200));
    go.store(true, SeqCst);
    assert_eq!(slow.join().expect("no panic"), (201, false));
    assert_eq!(again.join().expect("no panic"), (201, true), "it waited for the old process");
    assert_eq!(ledger.twice(), Vec::<String>::new());
}

/// Writes keys over and over until `stop`, each some times, at whatever process listens there; returns how many
/// of them had a final response.
fn insist(address: SocketAddr, player: usize, stop: &AtomicBool) -> usize {
    let mut answered = 0;
    for n in 0.. {
        for _ in 0..6 {
            if stop.load(SeqCst) {
                return answered;
            }
            let Ok(stream) = std::net::TcpStream::connect(address) else {
                thread::sleep(Duration::from_millis(5));
                continue;
            };
            let mut client = Client { wire: crate::support::wire::Wire::new(stream) };
            let (key, player) = (format!("{player}-{n}"), player.to_string());
            let request = client.post("/bets", b"x").header("Idempotency-Key", &key);
            match request.header("X-Player", &player).try_send() {
                Ok(answer) if answer.status == 201 => answered += 1,
                _ => {}
            }
        }
    }
    answered
}

#[test]
fn processes_that_are_replaced_and_killed_under_load_process_no_key_twice() {
    let ledger = Ledger::default();
    let origin = Origin::start({
        let ledger = ledger.clone();
        move |call| {
            call.read_body()?;
            ledger.process(call.head.field("idempotency-key").unwrap_or("none"));
            match fastrand::u8(..20) {
                0 => call.reset(),
                1 => call.close(),
                2 => thread::sleep(Duration::from_millis(30)),
                _ => {}
            }
            call.answer(201, b"ok")
        }
    });
    let folder = TempDir::new().expect("a folder");
    let text = kept(&origin, &folder);
    let address = free_address();
    let text = text.listen(address).text();
    let mut process = Process::spawn_at(address, &text);
    let stop = Arc::new(AtomicBool::new(false));
    let players: Vec<_> = (0..12)
        .map(|player| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || insist(address, player, &stop))
        })
        .collect();
    for round in 0..4 {
        thread::sleep(Duration::from_millis(400));
        if round % 2 == 0 {
            process.signal(Signal::USR2);
            eventually("the new process serves", || process.pids().len() == 2);
            thread::sleep(Duration::from_millis(300));
        }
        // All of them: the one that was replaced may still drain.
        process.kill_all();
        process = Process::spawn_at(address, &text);
    }
    thread::sleep(Duration::from_millis(300));
    stop.store(true, SeqCst);
    let answered: usize = players.into_iter().map(|player| player.join().expect("no panic")).sum();
    assert!(answered > 200 && ledger.len() > 50, "{answered} {}", ledger.len());
    assert_eq!(ledger.twice(), Vec::<String>::new(), "of {} keys", ledger.len());
}

/// Regression: what the disk knew had no room in the table, so the request asked the disk for ever.
#[test]
fn a_key_is_answered_from_the_disk_where_the_table_has_no_room_for_it() {
    let ledger = Ledger::default();
    let origin = Origin::start({
        let ledger = ledger.clone();
        move |call| {
            call.read_body()?;
            let key = call.head.field("idempotency-key").unwrap_or("none").to_owned();
            ledger.process(&key);
            match &*key {
                "fails" => call.answer(500, b""),
                _ => call.answer(201, &[b'x'; 850]),
            }
        }
    });
    let folder = TempDir::new().expect("a folder");
    let state = folder.path().join("state");
    let proxy = keyed(&origin, "answer: 1KiB, memory: 16KiB, unsure: ask")
        .top(&format!("state: {}", state.display()))
        .start();
    let mut client = proxy.connect();
    for key in ["a", "b"] {
        assert_eq!(post(&mut client, key, b"x").status, 201);
        for _ in 0..3 {
            let again = post(&mut client, key, b"x");
            assert_eq!((again.status, again.body.len(), replayed(&again)), (201, 850, true));
        }
    }
    // More ends of one key than the memory of its shard has entries.
    for times in 1..=20 {
        assert_eq!(post(&mut client, "fails", b"x").status, 500);
        assert_eq!(ledger.times("fails"), times);
    }
    assert_eq!(post(&mut client, "fails", b"y").status, 422);
    let again = post(&mut client, "a", b"x");
    assert!(replayed(&again), "{}", again.status);
}
