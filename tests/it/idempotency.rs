//! Writes with an `Idempotency-Key` are processed once.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::support::{
    Answer, Client, Origin, Proxy, eventually,
    http2::{Http2, Origin2},
    proxy::Builder,
};

mod kept;
mod many;
mod removed;
mod repeated;
mod spelled;
mod told;

/// A proxy whose writes are processed once, with these further fields.
fn keyed(origin: &Origin, fields: &str) -> Builder {
    Proxy::builder()
        .version("v1", origin)
        .service("cohort: { key: [ \"header:x-player\" ] }")
        .route(&format!("name: bet, idempotency: {{ {fields} }}"))
}

/// What an origin has processed: how often each key.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<HashMap<String, usize>>>);

impl Ledger {
    fn process(&self, key: &str) -> usize {
        let mut processed = self.0.lock().expect("no panic");
        let times = processed.entry(key.to_owned()).or_default();
        *times += 1;
        *times
    }

    fn times(&self, key: &str) -> usize {
        self.0.lock().expect("no panic").get(key).copied().unwrap_or(0)
    }

    /// Keys that were processed more than once.
    fn twice(&self) -> Vec<String> {
        let processed = self.0.lock().expect("no panic");
        processed.iter().filter(|(_, times)| **times > 1).map(|(key, _)| key.clone()).collect()
    }

    fn len(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }
}

/// An origin that notes each key and answers how often it came.
fn bookkeeper(ledger: &Ledger) -> Origin {
    let ledger = ledger.clone();
    Origin::start(move |call| {
        call.read_body()?;
        let times = ledger.process(call.head.field("idempotency-key").unwrap_or("none"));
        call.answer(201, format!("processed {times}").as_bytes())
    })
}

fn post(client: &mut Client, key: &str, body: &[u8]) -> Answer {
    client.post("/bets?x=1", body).header("Idempotency-Key", key).header("X-Player", "p1").send()
}

/// Requests that wait for the response to another one.
fn waiting(proxy: &Proxy) -> usize {
    let snapshot = proxy.controller().snapshot();
    let policies = snapshot.routes[0].policies.as_ref().expect("a policy");
    policies.idempotency.as_ref().expect("keys").table.waiting()
}

fn replayed(answer: &Answer) -> bool {
    answer.field("idempotent-replayed") == Some("true")
}

#[test]
fn the_first_response_is_replayed_whole_and_marked_in_every_way_to_write_the_key() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.send(b"HTTP/1.1 402 Payment Required\r\nX-Bet: 7\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: x-inner\r\nX-Inner: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno \r\n5\r\nmoney\r\n0\r\n\r\n")
    });
    let proxy = keyed(&origin, "").start();
    let mut client = Client::connect(proxy.address);
    let first = post(&mut client, "\"k-1\"", b"{}");
    assert_eq!((first.status, first.text(), replayed(&first)), (402, "no money", false));
    for key in ["\"k-1\"", "k-1", " k-1 "] {
        let again = post(&mut client, key, b"{}");
        assert_eq!(
            (again.status, again.text(), replayed(&again)),
            (402, "no money", true),
            "{key}"
        );
        for (name, value) in [
            ("x-bet", Some("7")),
            ("date", Some("Thu, 01 Jan 1970 00:00:00 GMT")),
            ("content-length", Some("8")),
            ("x-inner", None),
            ("transfer-encoding", None),
        ] {
            assert_eq!(again.field(name), value, "{name}");
        }
    }
    assert_eq!(origin.requests(), 1);
    assert_eq!(post(&mut client, "k-2", b"{}").status, 402);
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_key_is_of_a_player_and_of_one_request() {
    let ledger = Ledger::default();
    let origin = bookkeeper(&ledger);
    let proxy = keyed(&origin, "").start();
    let mut client = Client::connect(proxy.address);
    let mut ask = |method: &'static str, path: &'static str, player: &str, body: &'static [u8]| {
        let request = client.request(method, path).header("Idempotency-Key", "k");
        let answer = request.header("X-Player", player).body(body).send();
        let kind = if answer.status == 422 { answer.kind() } else { String::new() };
        (answer.status, kind, replayed(&answer))
    };
    let mismatch = (422, "idempotency_mismatch".to_owned(), false);
    assert_eq!(ask("POST", "/bets", "p1", b"5"), (201, String::new(), false));
    assert_eq!(ask("POST", "/bets", "p1", b"6"), mismatch, "another body");
    assert_eq!(ask("POST", "/bets/", "p1", b"5"), mismatch, "another path");
    assert_eq!(ask("POST", "/bets?a=1", "p1", b"5"), mismatch, "another query");
    assert_eq!(ask("PUT", "/bets", "p1", b"5"), mismatch, "another method");
    assert_eq!(ask("POST", "/bets", "p1", b"5"), (201, String::new(), true));
    assert_eq!(ask("POST", "/bets", "p2", b"6"), (201, String::new(), false), "another player");
    assert_eq!(origin.requests(), 2);
    // Reads take no part.
    assert_eq!(ask("GET", "/bets", "p1", b""), (201, String::new(), false));
    assert_eq!(ask("GET", "/bets", "p1", b""), (201, String::new(), false));
    assert_eq!(origin.requests(), 4);
}

/// Equal values of different sources are different players: whoever has no session may call themselves anything.
#[test]
fn a_value_of_another_source_is_another_player() {
    let ledger = Ledger::default();
    let origin = bookkeeper(&ledger);
    let key = "cohort: { key: [ 'header:x-player', 'cookie:guest', 'query:p' ] }";
    let proxy = Proxy::builder().version("v1", &origin).service(key).route("idempotency: { }");
    let proxy = proxy.start();
    let mut client = proxy.connect();
    let mut bet = |name: &str, value: &str| {
        let bet = client.post("/bets", b"5").header("Idempotency-Key", "k");
        let answer = if name.is_empty() { bet.send() } else { bet.header(name, value).send() };
        (answer.status, replayed(&answer))
    };
    assert_eq!(bet("X-Player", "ada"), (201, false));
    assert_eq!(bet("X-Player", "ada"), (201, true));
    assert_eq!(bet("Cookie", "guest=ada"), (201, false));
    assert_eq!(bet("X-Player", "127.0.0.1"), (201, false));
    assert_eq!(bet("", ""), (201, false), "by the address");
    assert_eq!(origin.requests(), 4);
}

/// What has no end is not awaited for a client that has left: it would hold its connections for good.
#[test]
fn a_response_without_an_end_does_not_outlast_its_client() {
    for kind in ["text/event-stream", "application/octet-stream"] {
        let origin = Origin::start(move |call| {
            call.skip_body()?;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n");
            call.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"))?;
            while call.send("5\r\ntick\n\r\n").is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        // One of them is too large soon, the other one is never kept.
        let proxy = keyed(&origin, "answer: 200B").start();
        let mut client = proxy.connect();
        client.send(
            "POST /bets HTTP/1.1\r\nHost: game.test\r\nX-Player: p\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nx",
        );
        origin.await_requests(1);
        drop(client);
        eventually("nothing is in flight", || proxy.in_flight() == 0);
        let mut client = proxy.connect();
        let again = client.post("/bets", b"x").header("Idempotency-Key", "k");
        assert_eq!(again.header("X-Player", "p").send().status, 409, "{kind}");
        assert_eq!(origin.requests(), 1);
    }
}

#[test]
fn a_response_that_goes_on_for_longer_than_the_route_allows_is_not_awaited() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while call.send("1\r\nx\r\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    });
    let service = "cohort: { key: [ \"header:x-player\" ] }";
    let proxy = Proxy::builder().version("v1", &origin).service(service);
    let proxy = proxy.route("timeout: 300ms, idempotency: { }").start();
    let mut client = proxy.connect();
    client.send(
        "POST /bets HTTP/1.1\r\nHost: game.test\r\nX-Player: p\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nx",
    );
    origin.await_requests(1);
    drop(client);
    eventually("nothing is in flight", || proxy.in_flight() == 0);
}

#[test]
fn a_missing_or_malformed_key_is_refused_where_one_is_required() {
    let origin = Origin::answering("ok");
    let proxy = keyed(&origin, "required: true").start();
    let mut client = Client::connect(proxy.address);
    let missing = client.post("/bets", b"x").send();
    assert_eq!((missing.status, missing.kind()), (400, "idempotency_missing".to_owned()));
    assert!(missing.field("link").is_some_and(|link| link.contains("idempotency-key-header")));
    let long = "x".repeat(256);
    for key in ["", "\"open", "a b", "a, b", long.as_str()] {
        let answer = post(&mut client, key, b"x");
        assert_eq!(
            (answer.status, answer.kind()),
            (400, "idempotency_malformed".to_owned()),
            "{key}"
        );
    }
    let twice =
        client.post("/bets", b"x").header("Idempotency-Key", "a").header("Idempotency-Key", "a");
    assert_eq!(twice.send().kind(), "idempotency_malformed");
    assert_eq!(client.get("/bets").send().status, 200);
    assert_eq!(origin.requests(), 1);
    let optional = keyed(&origin, "").start();
    let mut client = Client::connect(optional.address);
    for _ in 0..2 {
        assert_eq!(client.post("/bets", b"x").send().status, 200);
    }
    assert_eq!(origin.requests(), 3);
}

#[test]
fn requests_with_one_key_at_once_on_several_workers_wait_for_the_first() {
    let (called, calls) = mpsc::channel();
    let go = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let go = Arc::clone(&go);
        move |call| {
            call.skip_body()?;
            called.send(()).expect("somebody counts");
            while !go.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            call.answer(200, b"won")
        }
    });
    let proxy = keyed(&origin, "waiting: 7").workers(4).start();
    let address = proxy.address;
    let ask = move || {
        thread::spawn(move || {
            let answer = post(&mut Client::connect(address), "k", b"x");
            (answer.status, replayed(&answer))
        })
    };
    let first = ask();
    calls.recv().expect("the first is sent");
    let others: Vec<_> = (0..7).map(|_| ask()).collect();
    eventually("all others wait", || waiting(&proxy) == 7);
    let crowded = post(&mut Client::connect(address), "k", b"x");
    assert_eq!((crowded.status, crowded.kind()), (409, "idempotency_busy".to_owned()));
    assert_eq!(crowded.field("retry-after"), Some("1"));
    let mismatch = post(&mut Client::connect(address), "k", b"y");
    assert_eq!(mismatch.status, 422, "it does not wait");
    go.store(true, SeqCst);
    assert_eq!(first.join().expect("no panic"), (200, false));
    for other in others {
        assert_eq!(other.join().expect("no panic"), (200, true));
    }
    assert_eq!((origin.requests(), waiting(&proxy)), (1, 0));
}

#[test]
fn a_wait_ends_with_its_time_and_with_its_client() {
    let go = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let go = Arc::clone(&go);
        move |call| {
            call.skip_body()?;
            while !go.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            call.answer(200, b"won")
        }
    });
    let proxy = keyed(&origin, "wait: 300ms").start();
    let address = proxy.address;
    let first = thread::spawn(move || post(&mut Client::connect(address), "k", b"x").status);
    origin.await_requests(1);
    let late = post(&mut Client::connect(address), "k", b"x");
    assert_eq!((late.status, late.kind()), (409, "idempotency_busy".to_owned()));
    let mut leaving = Client::connect(address);
    leaving.send("POST /bets?x=1 HTTP/1.1\r\nHost: game.test\r\nX-Player: p1\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nx");
    eventually("it waits", || waiting(&proxy) == 1);
    leaving.reset();
    eventually("it has left the queue", || waiting(&proxy) == 0);
    go.store(true, SeqCst);
    assert_eq!(first.join().expect("no panic"), 200);
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_request_that_was_not_sent_frees_its_key_and_one_that_was_holds_it() {
    let fail = Arc::new(AtomicBool::new(true));
    let origin = Origin::start({
        let fail = Arc::clone(&fail);
        move |call| {
            call.skip_body()?;
            if fail.load(SeqCst) {
                call.reset();
                return Ok(());
            }
            call.answer(200, b"ok")
        }
    });
    let nobody = crate::support::process::free_address();
    let proxy = keyed(&origin, "")
        .version_at("v2", &[nobody])
        .service("weights: { v1: 1, v2: 0 }")
        .service("rules: [ { match: { headers: { x-to: v2 } }, version: v2 } ]")
        .start();
    let mut client = Client::connect(proxy.address);
    let unsent = |client: &mut Client, to: &str| {
        let request = client.post("/bets", b"x").header("Idempotency-Key", "unsent");
        request.header("X-Player", "p").header("X-To", to).send()
    };
    assert_eq!(unsent(&mut client, "v2").kind(), "connect");
    fail.store(false, SeqCst);
    assert_eq!(unsent(&mut client, "v1").status, 200, "the key was free");
    fail.store(true, SeqCst);
    assert_eq!(post(&mut client, "sent", b"x").kind(), "reset");
    fail.store(false, SeqCst);
    let held = post(&mut client, "sent", b"x");
    assert_eq!((held.status, held.kind()), (409, "idempotency_unsure".to_owned()));
    assert_eq!(origin.requests(), 2);
}

#[test]
fn an_unsure_key_is_asked_for_where_the_service_honours_keys() {
    let first = Arc::new(AtomicBool::new(true));
    let origin = Origin::start(move |call| {
        call.skip_body()?;
        if first.swap(false, SeqCst) {
            call.reset();
            return Ok(());
        }
        call.answer(200, b"known")
    });
    let proxy = keyed(&origin, "unsure: ask").start();
    let mut client = Client::connect(proxy.address);
    assert_eq!(post(&mut client, "k", b"x").status, 502);
    let asked = post(&mut client, "k", b"x");
    assert_eq!((asked.status, asked.text(), replayed(&asked)), (200, "known", false));
    assert!(replayed(&post(&mut client, "k", b"x")));
    assert_eq!(origin.requests(), 2);
}

#[test]
fn what_a_status_says_about_the_request_decides_whether_it_is_replayed() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        let status = call.target()[1..4].parse().expect("a status");
        call.answer(status, b"x")
    });
    let proxy = keyed(&origin, "").start();
    let replaying = keyed(&origin, "errors: replay").start();
    let twice = |proxy: &Proxy, path: &str| {
        let mut client = Client::connect(proxy.address);
        let mut ask = || {
            client.post(path, b"x").header("Idempotency-Key", "k").header("X-Player", path).send()
        };
        let first = ask();
        let second = ask();
        (first.status, second.status, replayed(&second))
    };
    for (path, expected) in [
        ("/200", (200, 200, true)),
        ("/204", (204, 204, true)),
        ("/404", (404, 404, true)),
        ("/422", (422, 422, true)),
        ("/409", (409, 409, false)),
        ("/425", (425, 425, false)),
        ("/429", (429, 429, false)),
        ("/500", (500, 409, false)),
        ("/503", (503, 409, false)),
    ] {
        assert_eq!(twice(&proxy, path), expected, "{path}");
    }
    assert_eq!(twice(&replaying, "/500"), (500, 500, true));
    assert_eq!(twice(&replaying, "/429"), (429, 429, false));
}

#[test]
fn a_client_that_leaves_gets_its_response_when_it_comes_back() {
    let go = Arc::new(AtomicBool::new(false));
    let origin = Origin::start({
        let go = Arc::clone(&go);
        move |call| {
            call.skip_body()?;
            if call.target().contains("slow") {
                call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n")?;
            }
            while !go.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            match call.target().contains("slow") {
                true => call.send([b'x'; 40_000]),
                false => call.answer(200, &[b'x'; 40_000]),
            }
        }
    });
    let proxy = keyed(&origin, "").start();
    for (nth, path) in ["/bets", "/slow"].into_iter().enumerate() {
        go.store(false, SeqCst);
        let mut client = Client::connect(proxy.address);
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: game.test\r\nX-Player: p{nth}\r\nIdempotency-Key: k\r\nContent-Length: 1\r\n\r\nx"
        ));
        origin.await_requests(nth + 1);
        client.reset();
        thread::sleep(Duration::from_millis(50));
        go.store(true, SeqCst);
        let mut client = Client::connect(proxy.address);
        let request = client.post(path, b"x").header("Idempotency-Key", "k");
        let back = request.header("X-Player", &format!("p{nth}")).send();
        assert_eq!((back.status, back.body.len(), replayed(&back)), (200, 40_000, true), "{path}");
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn a_body_is_read_whole_in_every_framing_and_bounded() {
    let origin = Origin::start(|call| {
        let body = call.read_body()?;
        let length = call.head.field("content-length").unwrap_or("none").to_owned();
        call.answer(200, format!("{length} {}", body.len()).as_bytes())
    });
    let proxy = keyed(&origin, "body: 60KB").start();
    let mut client = Client::connect(proxy.address);
    let head = |key: &str, framing: &str| {
        format!(
            "POST /b HTTP/1.1\r\nHost: game.test\r\nX-Player: p\r\nIdempotency-Key: {key}\r\n{framing}\r\n\r\n"
        )
    };
    // Chunks, in pieces, with another request right behind.
    client.send(head("chunks", "Transfer-Encoding: chunked"));
    client.send("3;x=y\r\nabc\r\n");
    thread::sleep(Duration::from_millis(20));
    client
        .send("2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\nGET /next HTTP/1.1\r\nHost: game.test\r\n\r\n");
    assert_eq!(client.answer().text(), "5 5");
    assert_eq!(client.answer().text(), "none 0");
    // The same as one piece with its length.
    client.send(head("chunks", "Content-Length: 5") + "abcde");
    let again = client.answer();
    assert_eq!((again.text(), replayed(&again)), ("5 5", true));
    // A client that waits to be called.
    client.send(head("called", "Content-Length: 50000\r\nExpect: 100-continue"));
    let mut wait = Client::connect(proxy.address);
    assert_eq!(wait.get("/").send().status, 200);
    client.send(vec![b'x'; 50_000]);
    let called = client.answer();
    assert_eq!((called.text(), &called.interim[..]), ("50000 50000", &[100][..]));
    let large = post(&mut client, "large", &vec![b'x'; 60_001]);
    assert_eq!((large.status, large.kind()), (413, "idempotency_body".to_owned()));
    let mut client = Client::connect(proxy.address);
    client.send(head("large", "Transfer-Encoding: chunked"));
    let _ = client.wire.send(format!("{:x}\r\n", 60_001).as_bytes());
    let _ = client.wire.send(&vec![b'x'; 60_001]);
    assert_eq!(client.answer().status, 413);
    let mut client = Client::connect(proxy.address);
    client.send(head("bad", "Transfer-Encoding: chunked") + "zz\r\n");
    assert_eq!(client.answer().status, 400);
    assert_eq!(origin.requests(), 4);
}

#[test]
fn a_response_that_is_too_large_or_too_old_is_not_replayed_and_its_request_not_sent_again() {
    let origin = Origin::start(|call| {
        call.skip_body()?;
        call.answer(200, &[b'x'; 3000])
    });
    let proxy = keyed(&origin, "answer: 2KiB").start();
    let mut client = Client::connect(proxy.address);
    assert_eq!(post(&mut client, "k", b"x").body.len(), 3000);
    let again = post(&mut client, "k", b"x");
    assert_eq!((again.status, again.kind()), (409, "idempotency_not_kept".to_owned()));
    let few = keyed(&origin, "answer: 4KiB, memory: 64KiB, keys: 30").start();
    let mut client = Client::connect(few.address);
    for n in 0..30 {
        assert_eq!(post(&mut client, &format!("k{n}"), b"x").status, 200);
    }
    let full = post(&mut client, "k30", b"x");
    assert_eq!((full.status, full.kind()), (503, "idempotency_full".to_owned()));
    assert!(full.field("retry-after").is_some());
    let kept = (0..30).filter(|n| replayed(&post(&mut client, &format!("k{n}"), b"x"))).count();
    assert!((1..=21).contains(&kept), "{kept}");
    assert_eq!(origin.requests(), 31);
}

#[test]
fn keys_hold_over_http2_on_both_sides() {
    let count = Arc::new(AtomicUsize::new(0));
    let origin = Origin2::start(100, {
        let count = Arc::clone(&count);
        move |asked| {
            let count = Arc::clone(&count);
            async move {
                let n = count.fetch_add(1, SeqCst) + 1;
                asked.answer(200, format!("processed {n}").as_bytes());
            }
        }
    });
    let proxy = Proxy::builder()
        .version_speaking("v1", &[origin.address], "h2")
        .route("idempotency: {}")
        .start();
    let client = Http2::connect(proxy.address);
    let ask = |body: &[u8]| {
        let request =
            http::Request::post("http://game.test/bets").header("idempotency-key", "\"k\"");
        let reply = client.ask(request, Some(body));
        let marked = reply.field("idempotent-replayed").is_some();
        (reply.status, String::from_utf8(reply.body).expect("text"), marked)
    };
    assert_eq!(ask(b"x"), (200, "processed 1".to_owned(), false));
    assert_eq!(ask(b"x"), (200, "processed 1".to_owned(), true));
    assert_eq!(ask(b"y").0, 422);
    // The key is the player's, whatever is spoken.
    let mut one = Client::connect(proxy.address);
    let again = one.post("/bets", b"x").header("Idempotency-Key", "k").send();
    assert_eq!((again.text(), replayed(&again)), ("processed 1", true));
    assert_eq!(count.load(SeqCst), 1);
}
