//! Services that are asked whether a request may go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Client, Origin, Proxy, eventually,
    http2::{self, Http2},
    nobody,
    origin::Call,
    proxy::Builder,
};

/// A gate that lets `Bearer good` go on as `ada`, does not answer `Bearer slow`, breaks at `Bearer broken`, and refuses all others.
fn gate() -> (Origin, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let origin = Origin::start(move |call: &mut Call<'_>| {
        counter.fetch_add(1, SeqCst);
        let token = call.head.field("authorization").unwrap_or_default().to_owned();
        match &*token {
            "Bearer good" => call.send(
                "HTTP/1.1 200 OK\r\nX-Rights: play\r\nX-Other: no\r\nContent-Length: 2\r\n\r\nok",
            ),
            "Bearer poor" => call.answer(402, b""),
            "Bearer slow" => {
                thread::sleep(Duration::from_secs(2));
                call.answer(200, b"")
            }
            "Bearer many" => {
                // Others come meanwhile.
                thread::sleep(Duration::from_millis(100));
                call.answer(200, b"")
            }
            "Bearer broken" => call.answer(500, b""),
            _ => call.send(
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"games\"\r\nContent-Length: 0\r\n\r\n",
            ),
        }
    });
    (origin, asked)
}

/// A proxy whose route `/bets/*` asks at this URL.
fn asking(origin: &Origin, url: &str, more: &str) -> Builder {
    let authorizer = format!("url: '{url}', timeout: 300ms, copy: [ x-rights ]{more}");
    Proxy::builder()
        .version("v1", origin)
        .top("admin: { address: 127.0.0.1:0 }")
        .top(&format!("authorizers: {{ gate: {{ {authorizer} }} }}"))
        .route("match: { path: /bets/* }, auth: { external: gate }")
        .route("name: rest")
}

fn url(gate: &Origin) -> String {
    format!("http://{}/check", gate.address)
}

fn ask(client: &mut Client, path: &str, token: &str) -> (u16, String) {
    let answer = client.get(path).header("Authorization", &format!("Bearer {token}")).send();
    let kind = if answer.status >= 400 { answer.kind() } else { String::new() };
    (answer.status, kind)
}

fn metric(proxy: &Proxy, result: &str) -> f64 {
    let page = proxy.admin().get("/metrics").host("localhost").send();
    let line =
        format!("tidegate_authorizer_requests_total{{authorizer=\"gate\",result=\"{result}\"}}");
    let found = page.text().lines().find_map(|l| l.strip_prefix(&line));
    let value = found.and_then(|value| value.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {line}: {}", page.text()))
}

/// A question on a connection that the authorizer had just closed was answered 503.
#[test]
fn a_question_on_a_connection_that_turns_out_closed_is_asked_once_more() {
    let origin = Origin::answering("ok");
    let gate = Origin::start(|call| match (call.nth, call.head.field("authorization")) {
        (0, Some("Bearer good")) => call.answer(200, b""),
        _ => {
            call.close();
            Ok(())
        }
    });
    let proxy = asking(&origin, &url(&gate), "").start();
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client, "/bets/1", "good").0, 200);
    assert_eq!(ask(&mut client, "/bets/1", "good").0, 200);
    assert_eq!(gate.requests(), 3, "the second question was asked twice");
    assert_eq!((metric(&proxy, "allowed"), metric(&proxy, "failed")), (2.0, 0.0));
    // Not more often.
    assert_eq!(ask(&mut client, "/bets/1", "gone"), (503, "authorizer".to_owned()));
    assert_eq!(gate.requests(), 5);
}

#[test]
fn a_request_goes_on_if_the_authorizer_lets_it_and_gets_what_it_says() {
    let (origin, (gate, asked)) = (Origin::answering("ok"), gate());
    let proxy = asking(&origin, &url(&gate), "").start();
    let mut client = proxy.connect();
    let sent = client.post("/bets/1?x=2", b"stake").header("Authorization", "Bearer good");
    let answer = sent.header("X-Rights", "all").header("x_rights", "all").send();
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    let (seen, question) = (origin.last(), gate.last());
    assert_eq!((seen.head.field("x-rights"), seen.head.field("x-other")), (Some("play"), None));
    assert_eq!(seen.head.all("x-rights").count(), 1);
    assert!(seen.head.fields().all(|(name, _)| name != "x_rights"));
    assert_eq!(seen.target(), "/bets/1?x=2");
    assert_eq!((question.target(), question.head.start_line()), ("/check", "GET /check HTTP/1.1"));
    assert_eq!(question.head.field("x-forwarded-method"), Some("POST"));
    assert_eq!(question.head.field("x-forwarded-uri"), Some("/bets/1?x=2"));
    assert_eq!(question.head.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(question.head.field("x-rights"), None);
    let refused = client.get("/bets/1").header("Authorization", "Bearer bad").send();
    assert_eq!((refused.status, refused.kind()), (401, "denied".to_owned()));
    assert_eq!(refused.field("www-authenticate"), Some("Bearer realm=\"games\""));
    assert_eq!(ask(&mut client, "/bets/1", "poor"), (403, "denied".to_owned()));
    assert_eq!(client.get("/games").header("X-Rights", "all").send().status, 200);
    assert_eq!(origin.last().head.field("x-rights"), None, "no client sends it, on any route");
    assert_eq!((asked.load(SeqCst), origin.requests()), (3, 2));
    assert_eq!((metric(&proxy, "allowed"), metric(&proxy, "denied")), (1.0, 2.0));
    let client = Http2::connect(proxy.address);
    let request = http2::request("GET", "/bets/1").header("authorization", "Bearer good");
    assert_eq!(client.ask(request, None).status, 200);
    assert_eq!(client.get("/bets/1").status, 401);
}

#[test]
fn an_authorizer_is_not_told_what_a_stranger_says_of_himself() {
    let (origin, (gate, _)) = (Origin::answering("ok"), gate());
    let send = ", send: [ authorization, x-real-ip ]";
    for (top, told) in [("limits: {}", None), ("trusted_proxies: [ 127.0.0.1 ]", Some("6.6.6.6"))] {
        let proxy = asking(&origin, &url(&gate), send).top(top).start();
        let mut client = proxy.connect();
        let asked = client.get("/bets/1").header("Authorization", "Bearer good");
        assert_eq!(asked.header("X-Real-IP", "6.6.6.6").send().status, 200);
        for seen in [gate.last(), origin.last()] {
            assert_eq!(seen.head.field("x-real-ip"), told, "{top}");
        }
    }
}

#[test]
fn while_the_authorizer_fails_requests_fare_as_configured_and_others_are_not_held_up() {
    let origin = Origin::answering("ok");
    for (on_failure, broken) in [("closed", (503, "authorizer")), ("open", (200, ""))] {
        let (gate, _) = gate();
        let proxy = asking(&origin, &url(&gate), &format!(", on_failure: {on_failure}")).start();
        let mut client = proxy.connect();
        let broken = (broken.0, broken.1.to_owned());
        assert_eq!(ask(&mut client, "/bets/1", "broken"), broken, "{on_failure}");
        let address = proxy.address;
        let slow = thread::spawn(move || {
            let began = Instant::now();
            let answer = ask(&mut Client::connect(address), "/bets/1", "slow");
            (answer, began.elapsed())
        });
        let began = Instant::now();
        // The only worker goes on meanwhile.
        for _ in 0..20 {
            assert_eq!(ask(&mut client, "/bets/1", "good").0, 200);
            assert_eq!(client.get("/games").send().status, 200);
        }
        println!("measured: 40 requests in {:?}", began.elapsed());
        let (answer, took) = slow.join().expect("no panic");
        assert_eq!(answer, broken, "{on_failure}");
        assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&took), "{took:?}");
        assert_eq!(metric(&proxy, "failed"), 2.0);
        let (nobody, _held) = nobody::refusing();
        let down =
            asking(&origin, &format!("http://{nobody}/"), &format!(", on_failure: {on_failure}"));
        assert_eq!(ask(&mut down.start().connect(), "/bets/1", "good"), broken, "{on_failure}");
    }
}

#[test]
fn an_answer_counts_for_its_time_for_all_workers_and_failures_are_not_remembered() {
    let (origin, (gate, asked)) = (Origin::answering("ok"), gate());
    let cache = ", cache: { by: 'header:authorization', for: 2s }";
    let proxy = asking(&origin, &url(&gate), cache).workers(2).start();
    let began = Instant::now();
    for (token, status) in [("good", 200), ("bad", 401), ("good", 200), ("bad", 401), ("good", 200)]
    {
        assert_eq!(ask(&mut proxy.connect(), "/bets/1", token).0, status);
    }
    if began.elapsed() < Duration::from_secs(2) {
        assert_eq!(asked.load(SeqCst), 2);
        assert_eq!(metric(&proxy, "cached"), 3.0);
    }
    assert_eq!(origin.last().head.field("x-rights"), Some("play"), "of the remembered answer, too");
    let before = asked.load(SeqCst);
    for _ in 0..2 {
        assert_eq!(ask(&mut proxy.connect(), "/bets/1", "broken").0, 503);
        assert_eq!(proxy.connect().get("/bets/1").send().status, 401, "without the field");
    }
    assert_eq!(asked.load(SeqCst), before + 4);
    eventually("it is asked again", || {
        ask(&mut proxy.connect(), "/bets/1", "good");
        asked.load(SeqCst) > before + 4
    });
}

/// The version may read another one of two values than the one that an answer was about.
#[test]
fn a_request_with_two_values_is_asked_about_whatever_is_remembered() {
    let (origin, (gate, asked)) = (Origin::answering("ok"), gate());
    for by in ["header:authorization", "cookie:sid"] {
        let before = asked.load(SeqCst);
        let cache = format!(", cache: {{ by: '{by}', for: 1m }}");
        let proxy = asking(&origin, &url(&gate), &cache).start();
        let mut client = proxy.connect();
        let one = |client: &mut Client| {
            let request = client.get("/bets/1").header("Authorization", "Bearer good");
            request.header("Cookie", "sid=1").send().status
        };
        assert_eq!([one(&mut client), one(&mut client)], [200, 200]);
        assert_eq!(asked.load(SeqCst), before + 1, "{by}");
        for _ in 0..2 {
            let request = client.get("/bets/1").header("Authorization", "Bearer good");
            let request = request.header("Cookie", "sid=1; a=b;sid=2");
            assert_eq!(request.header("Authorization", "Bearer other").send().status, 200);
        }
        assert_eq!(asked.load(SeqCst), before + 3, "{by}");
    }
}

#[test]
fn of_many_requests_with_the_same_question_one_asks() {
    let (origin, (gate, asked)) = (Origin::answering("ok"), gate());
    let cache = ", cache: { by: 'header:authorization', for: 1m }";
    let proxy = asking(&origin, &url(&gate), cache).workers(2).start();
    let statuses = |token: &str| -> Vec<u16> {
        thread::scope(|scope| {
            let each =
                (0..20).map(|_| scope.spawn(|| ask(&mut proxy.connect(), "/bets/1", token).0));
            each.collect::<Vec<_>>().into_iter().map(|one| one.join().expect("no panic")).collect()
        })
    };
    assert_eq!(statuses("many"), [200; 20]);
    assert_eq!(asked.load(SeqCst), 1);
    let before = asked.load(SeqCst);
    assert_eq!(statuses("broken"), [503; 20]);
    let questions = asked.load(SeqCst) - before;
    assert!((1..=20).contains(&questions), "{questions}");
    assert_eq!(ask(&mut proxy.connect(), "/bets/1", "broken").0, 503);
    assert_eq!(asked.load(SeqCst), before + questions + 1, "a failure is asked about anew");
}
