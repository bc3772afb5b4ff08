//! Endpoints that cannot serve get no requests, and those that can again get them back.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tidegate::registry::{ErrorKind, RetryReason};

use crate::support::{
    Origin, Proxy, SetOnDrop, eventually,
    http2::Origin2,
    nobody::refusing,
    proxy::{Builder, SERVICE},
};

/// Checks that decide soon, and whoever comes back has all of its share.
const QUICK: &str = "interval: 10ms, timeout: 10s, unhealthy: 2, healthy: 2, slow_start: 0s";

/// An origin that answers its name, or 500 while it is `broken`; checks of it get 503 while it is `ill`.
struct Patient {
    origin: Origin,
    broken: Arc<AtomicBool>,
    ill: Arc<AtomicBool>,
}

impl Patient {
    fn new(name: &'static str) -> Self {
        let (broken, ill) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (fails, is_ill) = (Arc::clone(&broken), Arc::clone(&ill));
        let origin = Origin::start(move |call| {
            call.skip_body()?;
            match call.target() {
                "/healthz" if is_ill.load(SeqCst) => call.answer(503, b"ill"),
                "/healthz" => call.answer(200, b"well"),
                _ if fails.load(SeqCst) => call.answer(500, b"broken"),
                _ => call.answer(200, name.as_bytes()),
            }
        });
        Self { origin, broken, ill }
    }

    /// Requests of players, as opposed to checks.
    fn players(&self) -> usize {
        self.origin.seen().iter().filter(|seen| seen.target() != "/healthz").count()
    }
}

fn builder(service: &str) -> Builder {
    Proxy::builder().service(service).top("admin: { address: 127.0.0.1:0 }")
}

fn at(patients: &[&Patient]) -> Vec<SocketAddr> {
    patients.iter().map(|patient| patient.origin.address).collect()
}

fn shown(proxy: &Proxy) -> Value {
    proxy.admin().get("/v1/services/game-api").host("localhost").send().json()
}

/// The state of endpoint number `endpoint` of version number `version`, as the API shows it.
fn state(proxy: &Proxy, version: usize, endpoint: usize) -> String {
    let shown = shown(proxy);
    let state = &shown["versions"][version]["endpoints"][endpoint]["state"];
    state.as_str().expect("a state").to_owned()
}

/// The value of the series `name{labels}`, of the first version's endpoint at `address`.
fn metric(proxy: &Proxy, name: &str, address: SocketAddr, more: &str) -> Option<f64> {
    let page = proxy.admin().get("/metrics").host("localhost").send();
    let series =
        format!("{name}{{service=\"{SERVICE}\",version=\"v1\",endpoint=\"{address}\"{more}}} ");
    page.text().lines().find_map(|line| line.strip_prefix(&*series)?.parse().ok())
}

fn post(proxy: &Proxy, what: &str, body: &Value) -> (u16, Value) {
    let (target, body) = (format!("/v1/services/{SERVICE}/{what}"), body.to_string());
    let mut admin = proxy.admin();
    let request = admin.post(&target, body.as_bytes()).host("localhost");
    let answer = request.header("Content-Type", "application/json").send();
    (answer.status, answer.json())
}

/// `count` requests on one connection, each of another player; all must be answered with 200.
#[track_caller]
fn served(proxy: &Proxy, count: u32) -> Vec<String> {
    let mut client = proxy.connect();
    let ask = |player: u32| {
        let answer = client.get("/").header("x-player-id", &player.to_string()).send();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text().to_owned()
    };
    (0..count).map(ask).collect()
}

#[test]
fn an_endpoint_whose_checks_fail_gets_no_request_and_gets_them_back() {
    let (a, b) = (Patient::new("a"), Patient::new("b"));
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let proxy = builder(&health).version_at("v1", &at(&[&a, &b])).start();
    let up = || metric(&proxy, "tidegate_endpoint_up", b.origin.address, "");
    eventually("b was checked", || b.origin.requests() > 0);
    assert_eq!((state(&proxy, 0, 1), up()), ("serving".to_owned(), Some(1.0)));
    assert!(served(&proxy, 200).iter().any(|name| name == "b"));

    b.ill.store(true, SeqCst);
    eventually("b is down", || state(&proxy, 0, 1) == "down");
    assert_eq!((state(&proxy, 0, 0), up()), ("serving".to_owned(), Some(0.0)));
    assert_eq!(shown(&proxy)["versions"][0]["available"], true);
    b.broken.store(true, SeqCst);
    let before = b.players();
    assert!(served(&proxy, 300).iter().all(|name| name == "a"));
    assert_eq!(b.players(), before);
    let bad = metric(&proxy, "tidegate_health_checks_total", b.origin.address, ",result=\"bad\"");
    assert!(bad.is_some_and(|bad| bad >= 2.0), "{bad:?}");

    b.broken.store(false, SeqCst);
    b.ill.store(false, SeqCst);
    eventually("b serves again", || state(&proxy, 0, 1) == "serving");
    assert!(served(&proxy, 200).iter().any(|name| name == "b"));
    let check = b.origin.seen().into_iter().find(|seen| seen.target() == "/healthz");
    let check = check.expect("a check").head;
    assert_eq!(check.field("host"), Some(&*b.origin.address.to_string()));
    assert!(check.field("user-agent").is_some_and(|agent| agent.starts_with("tidegate/")));
}

#[test]
fn a_check_asks_what_the_file_says_and_waits_no_longer() {
    let slow = Origin::start(|call| match call.target() {
        "/ready?deep=1" if call.head.field("host") == Some("game.internal") => {
            call.answer(204, b"")
        }
        "/ready?deep=1" => call.answer(200, b""),
        _ => call.await_end(),
    });
    let check = "http: { path: '/ready?deep=1', host: game.internal, expect: [ 204 ] }";
    let proxy = builder(&format!("health: {{ {check}, {QUICK} }}")).version("v1", &slow).start();
    eventually("a good check", || {
        metric(&proxy, "tidegate_health_checks_total", slow.address, ",result=\"good\"")
            .is_some_and(|good| good >= 3.0)
    });
    assert_eq!(state(&proxy, 0, 0), "serving");
    let health = "health: { http: {}, interval: 10ms, timeout: 50ms }";
    let proxy = builder(health).version("v1", &slow).start();
    eventually("no answer is a bad one", || state(&proxy, 0, 0) == "down");
}

/// The endpoint could not write the rest of its answer, and told of it in its log at each check.
#[test]
fn a_check_reads_what_comes_behind_the_head() {
    let whole = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&whole);
    let origin = Origin::start(move |call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")?;
        for part in ["we", "l", "l"] {
            thread::sleep(Duration::from_millis(20));
            call.send(part)?;
        }
        call.await_end()?;
        told.fetch_add(1, SeqCst);
        Ok(())
    });
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let _proxy = builder(&health).version("v1", &origin).start();
    eventually("whole answers", || whole.load(SeqCst) >= 3);
    // An answer that has no end is as good.
    let endless = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")?;
        call.await_end()
    });
    let health = "health: { http: {}, interval: 10ms, timeout: 50ms, unhealthy: 1 }";
    let proxy = builder(health).version("v1", &endless).start();
    let checks = || {
        ["good", "bad"].map(|result| {
            let more = format!(",result=\"{result}\"");
            metric(&proxy, "tidegate_health_checks_total", endless.address, &more)
        })
    };
    eventually("checks end", || checks()[0].is_some_and(|good| good >= 3.0));
    assert_eq!(checks()[1], Some(0.0));
}

#[test]
fn a_connection_is_enough_where_the_file_says_so() {
    let (a, (address, socket)) = (Patient::new("a"), refusing());
    let health = format!("health: {{ tcp: {{}}, connect_faults: 0, {QUICK} }}");
    let proxy = builder(&health).version_at("v1", &[a.origin.address, address]).start();
    eventually("nobody listens", || state(&proxy, 0, 1) == "down");
    served(&proxy, 100);
    socket.listen(128).expect("bound");
    let b = Origin::start_at(TcpListener::from(socket), |call| call.answer(200, b"b"));
    eventually("it listens now", || state(&proxy, 0, 1) == "serving");
    assert!(served(&proxy, 200).iter().any(|name| name == "b"));
    assert_eq!(b.address, address);
}

#[test]
fn a_check_speaks_http2_where_the_version_does() {
    let ill = Arc::new(AtomicBool::new(false));
    let is_ill = Arc::clone(&ill);
    let origin = Origin2::start(100, move |asked| {
        let ill = asked.head.uri.path() == "/healthz" && is_ill.load(SeqCst);
        async move { asked.answer(if ill { 503 } else { 200 }, b"h2") }
    });
    let plain = Patient::new("h1");
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let endpoints = [origin.address, plain.origin.address];
    let proxy = builder(&health).version_speaking("v1", &endpoints, "h2").start();
    eventually("who speaks HTTP/1.1 only is down", || state(&proxy, 0, 1) == "down");
    eventually("a good check", || origin.requests() > 0 && state(&proxy, 0, 0) == "serving");
    let uri = origin.last().uri().clone();
    assert_eq!(uri.to_string(), format!("http://{}/healthz", origin.address));
    assert!(served(&proxy, 50).iter().all(|name| name == "h2"));
    ill.store(true, SeqCst);
    eventually("it is ill", || state(&proxy, 0, 0) == "down");
    ill.store(false, SeqCst);
    eventually("it is well", || state(&proxy, 0, 0) == "serving");
}

#[test]
fn an_endpoint_that_cannot_be_connected_is_ejected_and_no_request_fails() {
    let ((address, _held), b) = (refusing(), Patient::new("b"));
    let proxy =
        builder("connect_timeout: 1s").version_at("v1", &[address, b.origin.address]).start();
    let mut client = proxy.connect();
    eventually("it is ejected", || {
        assert_eq!(client.post("/", b"once").send().text(), "b");
        state(&proxy, 0, 0) == "ejected"
    });
    assert_eq!(shown(&proxy)["versions"][0]["endpoints"][0]["reason"], "connect");
    let ejections = metric(&proxy, "tidegate_ejections_total", address, ",reason=\"connect\"");
    assert_eq!(ejections, Some(1.0));
    let faults = proxy.errors("v1", ErrorKind::Connect);
    assert_eq!(faults, proxy.retries("v1", RetryReason::Connect));
    served(&proxy, 300);
    assert_eq!(proxy.errors("v1", ErrorKind::Connect), faults, "nobody tries it any more");
}

#[test]
fn the_only_endpoint_of_a_version_is_asked_however_often_it_refuses() {
    let (address, socket) = refusing();
    let proxy = builder("connect_timeout: 1s").version_at("v1", &[address]).start();
    let mut client = proxy.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").send().status, 502);
    }
    socket.listen(128).expect("bound");
    let _a = Origin::start_at(TcpListener::from(socket), |call| call.answer(200, b"a"));
    assert_eq!(served(&proxy, 1), ["a"], "at once");
}

/// Four endpoints of one version, compared with each other.
fn four(patients: &[Patient; 4]) -> Proxy {
    let endpoints: Vec<_> = patients.iter().map(|patient| patient.origin.address).collect();
    builder("eject: { errors: {} }").version_at("v1", &endpoints).start()
}

#[test]
fn an_endpoint_worse_than_its_peers_is_out_within_a_few_failures() {
    let patients = ["a", "b", "c", "d"].map(Patient::new);
    // As the first requests after a pause, too: counts are looked at only while there is traffic.
    let proxy = four(&patients);
    patients[3].broken.store(true, SeqCst);
    let (mut client, mut failed) = (proxy.connect(), 0);
    let serves = || proxy.snapshot().services[0].versions[0].known[3].state.standing.serves();
    while failed < 100 && serves() {
        if client.get("/").send().status == 500 {
            failed += 1;
            // A busy machine looks at the counts later than this; a client must not be faster.
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert!((3..=40).contains(&failed), "{failed} requests failed before the endpoint was out");
    assert_eq!(state(&proxy, 0, 3), "ejected");
    assert_eq!(shown(&proxy)["versions"][0]["endpoints"][3]["reason"], "peers");
    served(&proxy, 500);
    let address = patients[3].origin.address;
    assert_eq!(metric(&proxy, "tidegate_ejections_total", address, ",reason=\"peers\""), Some(1.0));
}

#[test]
fn what_all_endpoints_fail_at_ejects_none_and_of_two_bad_ones_of_four_one_goes() {
    let patients = ["a", "b", "c", "d"].map(Patient::new);
    let proxy = four(&patients);
    let mut client = proxy.connect();
    let states = || [0, 1, 2, 3].map(|endpoint| state(&proxy, 0, endpoint));
    for outage in [true, false].repeat(5) {
        patients.iter().for_each(|patient| patient.broken.store(outage, SeqCst));
        (0..500).for_each(|_| drop(client.get("/").send()));
    }
    assert_eq!(states(), ["serving"; 4]);
    patients[2..].iter().for_each(|patient| patient.broken.store(true, SeqCst));
    let out = || states().iter().filter(|state| *state == "ejected").count();
    eventually("one is out", || {
        (0..100).for_each(|_| drop(client.get("/").send()));
        out() > 0
    });
    (0..3_000).for_each(|_| drop(client.get("/").send()));
    assert_eq!(out(), 1, "{:?}", states());
}

#[test]
fn a_canary_without_an_endpoint_leaves_its_players_until_one_serves() {
    let (v1, v2) = (Patient::new("v1"), Patient::new("v2"));
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let proxy = builder(&health)
        .service("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: {} }")
        .version("v1", &v1.origin)
        .version("v2", &v2.origin)
        .start();
    let before = served(&proxy, 200);
    assert!(before.iter().any(|name| name == "v2"));
    let canary = || shown(&proxy)["versions"][1].clone();
    // Requests go on all the while: none of them fails.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                served(&proxy, 10);
            }
        });
        for _ in 0..3 {
            v2.ill.store(true, SeqCst);
            eventually("the canary is out", || canary()["share"] == 0.0);
            let canary = canary();
            assert_eq!((&canary["available"], &canary["weight"]), (&json!(false), &json!(50.0)));
            assert_eq!(canary["endpoints"][0]["state"], "down");
            assert!(served(&proxy, 200).iter().all(|name| name == "v1"));
            v2.ill.store(false, SeqCst);
            eventually("the canary is back", || shown(&proxy)["versions"][1]["share"] == 0.5);
            assert_eq!(served(&proxy, 200), before, "the same players");
        }
    });
    assert_eq!(shown(&proxy)["versions"][1]["state"], "serving");
}

/// Its players were answered 503.
#[test]
fn a_canary_whose_name_stands_for_no_address_gets_no_players() {
    let v1 = Patient::new("v1");
    let proxy = builder("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .version("v1", &v1.origin)
        .version_named("v2", "nowhere.invalid:80")
        .start();
    eventually("it is out", || shown(&proxy)["versions"][1]["share"] == 0.0);
    assert!(served(&proxy, 200).iter().all(|name| name == "v1"));
    let shown = shown(&proxy);
    let canary = &shown["versions"][1];
    assert_eq!((&canary["available"], &canary["endpoints"]), (&json!(false), &json!([])));
}

#[test]
fn a_baseline_without_an_endpoint_that_serves_is_asked_nevertheless() {
    let (v1, v2) = (Patient::new("v1"), Patient::new("v2"));
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let proxy = builder(&health)
        .service("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .version("v1", &v1.origin)
        .version("v2", &v2.origin)
        .start();
    let before = served(&proxy, 200);
    v1.ill.store(true, SeqCst);
    eventually("it is down", || state(&proxy, 0, 0) == "down");
    let baseline = shown(&proxy)["versions"][0].clone();
    assert_eq!((&baseline["available"], &baseline["share"]), (&json!(false), &json!(0.5)));
    assert_eq!(served(&proxy, 200), before);
    v2.ill.store(true, SeqCst);
    eventually("the canary is out", || shown(&proxy)["versions"][1]["share"] == 0.0);
    assert!(served(&proxy, 200).iter().all(|name| name == "v1"));
}

#[test]
fn an_endpoint_goes_and_comes_back_by_word() {
    let (a, b) = (Patient::new("a"), Patient::new("b"));
    let proxy = builder("health: { slow_start: 0s }").version_at("v1", &at(&[&a, &b])).start();
    let [of_a, of_b] = [&a, &b].map(|patient| patient.origin.address.to_string());
    let subject =
        |endpoint: &str| json!({ "version": "v1", "endpoint": endpoint, "reason": "test" });
    let refused = |what: &str, body: Value| {
        let (status, problem) = post(&proxy, what, &body);
        (status, problem["field"].as_str().unwrap_or("none").to_owned())
    };
    let at = |status, field: &str| (status, field.to_owned());
    assert_eq!(refused("reinstate", subject(&of_b)), at(409, "endpoint"));
    assert_eq!(refused("eject", subject("127.0.0.1:1")), at(422, "endpoint"));
    assert_eq!(refused("eject?dry_run=true", subject(&of_b)), at(200, "none"));
    assert_eq!(state(&proxy, 0, 1), "serving", "only told");

    let (status, answer) = post(&proxy, "eject", &subject(&of_b));
    assert_eq!((status, &answer["endpoint"]), (200, &json!(of_b)), "{answer}");
    assert_eq!(answer["generation"], proxy.snapshot().generation);
    let endpoint = shown(&proxy)["versions"][0]["endpoints"][1].clone();
    assert_eq!((&endpoint["state"], &endpoint["reason"]), (&json!("ejected"), &json!("word")));
    assert!(served(&proxy, 100).iter().all(|name| name == "a"), "from now on");
    assert_eq!(post(&proxy, "eject", &subject(&of_b)).0, 200, "it is out already");
    assert_eq!(refused("eject", subject(&of_a)), at(409, "endpoint"), "the last one");
    let address = b.origin.address;
    assert_eq!(metric(&proxy, "tidegate_ejections_total", address, ",reason=\"word\""), Some(1.0));

    assert_eq!(post(&proxy, "reinstate", &subject(&of_b)).0, 200);
    assert_eq!(state(&proxy, 0, 1), "serving");
    assert!(served(&proxy, 100).iter().any(|name| name == "b"));
}

/// The answer named `weights.v3`, which no such request has.
#[test]
fn an_unknown_version_is_a_problem_of_the_version() {
    let a = Patient::new("a");
    let proxy = builder("connect_timeout: 1s").version_at("v1", &at(&[&a])).start();
    for what in ["eject", "reinstate"] {
        for endpoint in [Value::Null, json!("127.0.0.1:1")] {
            let (status, problem) =
                post(&proxy, what, &json!({"version": "v3", "endpoint": endpoint}));
            assert_eq!((status, &problem["field"]), (422, &json!("version")), "{problem}");
        }
    }
}

#[test]
fn a_reload_keeps_who_is_out() {
    let [a, b, c] = ["a", "b", "c"].map(Patient::new);
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let file = builder(&health).version_at("v1", &at(&[&a, &b, &c]));
    let proxy = file.start_with_file();
    let word = json!({ "version": "v1", "endpoint": b.origin.address.to_string() });
    assert_eq!(post(&proxy, "eject", &word).0, 200);
    c.ill.store(true, SeqCst);
    eventually("c is down", || state(&proxy, 0, 2) == "down");
    let before = [b.players(), c.players()];
    proxy.write(&file.service("connect_timeout: 900ms").text());
    eventually("the file is read", || proxy.reloads().0 == 1);
    assert_eq!([1, 2].map(|endpoint| state(&proxy, 0, endpoint)), ["ejected", "down"]);
    assert!(served(&proxy, 100).iter().all(|name| name == "a"));
    assert_eq!([b.players(), c.players()], before);
}

#[test]
fn who_is_out_by_word_stays_so_when_another_process_takes_over() {
    let [a, b, c] = ["a", "b", "c"].map(Patient::new);
    let health = format!("health: {{ http: {{}}, {QUICK} }}");
    let file = builder(&health).version_at("v1", &at(&[&a, &b, &c]));
    let (old, new) = (file.start(), file.start());
    let word = json!({ "version": "v1", "endpoint": b.origin.address.to_string() });
    assert_eq!(post(&old, "eject", &word).0, 200);
    let carried = old.controller().carried();
    new.controller().inherit(carried);
    assert!(served(&new, 100).iter().all(|name| name != "b"), "from the first request");
    let endpoint = shown(&new)["versions"][0]["endpoints"][1].clone();
    assert_eq!((&endpoint["state"], &endpoint["reason"]), (&json!("ejected"), &json!("word")));
    assert_eq!(
        metric(&new, "tidegate_ejections_total", b.origin.address, ",reason=\"word\""),
        None
    );
    assert_eq!(post(&old, "reinstate", &word).0, 200);
    let carried = old.controller().carried();
    new.controller().inherit(carried);
    assert_eq!(state(&new, 0, 1), "serving");
}
