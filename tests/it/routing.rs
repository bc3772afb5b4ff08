//! Which route serves a request, and which rule a player falls under, as seen from outside.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, mpsc},
};

use tidegate::config::schema::Class;

use crate::support::{Answer, Client, Origin, Proxy, eventually};

/// Two services, told apart by what they answer.
fn two_services(routes: &str) -> (Proxy, [Origin; 2]) {
    let origins = [Origin::answering("api"), Origin::answering("web")];
    let [api, web] = [origins[0].address, origins[1].address];
    let text = format!(
        "workers: 1\nlisten: [ {{ address: 127.0.0.1:0 }} ]\nservices:\n\
        \x20 api: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ \"{api}\" ] }} }} }}\n\
        \x20 web: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ \"{web}\" ] }} }} }}\n\
        routes:\n{routes}"
    );
    (Proxy::start(&text), origins)
}

#[track_caller]
fn assert_leads(proxy: &Proxy, method: &str, host: &str, target: &str, to: &str) {
    let answer = proxy.connect().request(method, target).host(host).send();
    let got = if answer.status == 404 { answer.kind() } else { answer.text().to_owned() };
    assert_eq!(got, to, "{method} {host}{target}");
}

#[test]
fn hosts_are_matched_exactly_then_by_suffix_then_at_all() {
    let (proxy, _origins) = two_services(
        "  - { service: api, match: { host: api.example.com } }\n\
        \x20 - { name: sub, service: web, match: { host: \"*.example.com\" } }\n\
        \x20 - { name: deep, service: api, match: { host: \"*.deep.example.com\" } }\n",
    );
    for (host, to) in [
        ("api.example.com", "api"),
        ("API.Example.COM:8080", "api"),
        ("api.example.com.", "api"),
        ("API.example.com.:8080", "api"),
        ("www.example.com.", "web"),
        ("example.com.", "no_route"),
        ("api.example.com..", "no_route"),
        ("www.example.com", "web"),
        ("a.b.example.com", "web"),
        ("x.deep.example.com", "api"),
        ("example.com", "no_route"),
        ("example.org", "no_route"),
        ("127.0.0.1", "no_route"),
        ("[::1]:80", "no_route"),
    ] {
        assert_leads(&proxy, "GET", host, "/", to);
    }
}

#[test]
fn paths_are_matched_exactly_then_by_parameter_then_by_longest_prefix() {
    let (proxy, _origins) = two_services(
        "  - { service: web, match: { path: /* } }\n\
        \x20 - { service: api, match: { path: /v1/* } }\n\
        \x20 - { service: web, match: { path: /v1/static/* } }\n\
        \x20 - { service: web, match: { path: /v1/bets } }\n\
        \x20 - { service: web, match: { path: \"/v1/rounds/{id}/settle\" } }\n\
        \x20 - { service: api, match: { path: /v1/rounds/special/settle } }\n",
    );
    for (path, to) in [
        ("/", "web"),
        ("/other", "web"),
        ("/v1", "api"),
        ("/v1/", "api"),
        ("/v10", "web"),
        ("/v1/x", "api"),
        ("/v1/static/app.js", "web"),
        ("/v1/bets", "web"),
        ("/v1/bets?x=1", "web"),
        ("/v1/bets/", "api"),
        ("/v1/rounds/7/settle", "web"),
        ("/v1/rounds/special/settle", "api"),
        ("/v1/rounds//settle", "api"),
        ("/v1/rounds/7/8/settle", "api"),
    ] {
        assert_leads(&proxy, "GET", "a", path, to);
    }
}

#[test]
fn methods_fields_and_queries_decide_among_equal_paths() {
    let (proxy, _origins) = two_services(
        "  - { name: any, service: web, match: { path: /bets } }\n\
        \x20 - { name: post, service: api, match: { path: /bets, methods: [ POST, PURGE ] } }\n\
        \x20 - { name: eu, service: api, match: { path: /bets, headers: { x-region: [ eu, uk ] } } }\n\
        \x20 - { name: beta, service: api, match: { path: /bets, query: { beta: \"1\" } } }\n",
    );
    let ask = |method: &str, target: &str, region: &str| -> Answer {
        proxy.connect().request(method, target).header("X-Region", region).send()
    };
    for (method, target, region, to) in [
        ("GET", "/bets", "us", "web"),
        ("POST", "/bets", "us", "api"),
        ("PURGE", "/bets", "us", "api"),
        ("GET", "/bets", "uk", "api"),
        ("GET", "/bets", "EU", "web"),
        ("GET", "/bets?a=b&beta=1", "us", "api"),
        ("GET", "/bets?beta=2", "us", "web"),
    ] {
        assert_eq!(ask(method, target, region).text(), to, "{method} {target} {region}");
    }
}

#[test]
fn a_request_without_a_route_is_a_404_and_the_connection_stays() {
    let (proxy, origins) = two_services("  - { service: api, match: { path: /api } }\n");
    let mut client = proxy.connect();
    for _ in 0..3 {
        let answer = client.get("/nowhere").header("X-Request-Id", "mine-1").send();
        assert_eq!((answer.status, answer.kind().as_str()), (404, "no_route"));
        assert_eq!(answer.json()["request_id"], "mine-1");
        assert_eq!(client.get("/api").send().text(), "api");
    }
    // A body that came with its head is skipped, whatever it looks like.
    let smuggled = b"GET /api HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = client.post("/nowhere", smuggled).send();
    assert_eq!((answer.status, answer.field("connection")), (404, None));
    assert_eq!(client.get("/nowhere").send().status, 404);
    assert_eq!(origins[0].requests(), 3);
    // With a body that nobody will read, it must end.
    client.send("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\nGET /api");
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("connection")), (404, Some("close")));
    client.expect_end();
    assert_eq!(origins[0].requests(), 3);
}

/// v1 for all; v2 for whom `when` holds.
fn ruled(when: &str, origins: &[Origin; 2]) -> Proxy {
    Proxy::builder()
        .version("v1", &origins[0])
        .version("v2", &origins[1])
        .service("weights: { v1: 1 }")
        .service("cohort: { key: [ \"header:x-player\", \"cookie:uid\" ] }")
        .service(&format!("rules: [ {{ match: {{ {when} }}, version: v2 }} ]"))
        .route("name: settle, match: { path: \"/rounds/{id}/settle\" }")
        .route("name: rest")
        .start()
}

#[test]
fn rules_send_chosen_requests_to_a_chosen_version() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    for (when, target, name, value, to) in [
        ("headers: { x-beta: [ yes, \"1\" ] }", "/", "X-Beta", "1", "v2"),
        ("headers: { x-beta: [ yes, \"1\" ] }", "/", "X-Beta", "2", "v1"),
        ("cookies: { beta: \"1\" }", "/", "Cookie", "a=b; beta=1; c=d", "v2"),
        ("cookies: { beta: \"1\" }", "/", "Cookie", "xbeta=1", "v1"),
        ("query: { game: slots }", "/?a=1&game=slots", "X", "", "v2"),
        ("query: { game: slots }", "/?game=dice", "X", "", "v1"),
        ("params: { id: \"77\" }", "/rounds/77/settle", "X", "", "v2"),
        ("params: { id: \"77\" }", "/rounds/78/settle", "X", "", "v1"),
        ("params: { id: \"77\" }", "/rounds/77", "X", "", "v1"),
        ("players: [ alice, bob ]", "/", "X-Player", "bob", "v2"),
        ("players: [ alice, bob ]", "/", "Cookie", "uid=alice", "v2"),
        ("players: [ alice, bob ]", "/", "X-Player", "carol", "v1"),
        ("clients: [ 127.0.0.0/8 ]", "/", "X", "", "v2"),
        ("clients: [ 10.0.0.0/8 ]", "/", "X-Forwarded-For", "10.1.1.1", "v1"),
        ("players: [ bob ], query: { game: slots }", "/?game=slots", "X-Player", "bob", "v2"),
        ("players: [ bob ], query: { game: slots }", "/", "X-Player", "bob", "v1"),
    ] {
        let proxy = ruled(when, &origins);
        let answer = proxy.connect().get(target).header(name, value).send();
        assert_eq!(answer.text(), to, "{when}: {target} {name}: {value}");
    }
}

#[test]
fn a_rule_knows_clients_by_their_address() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = ruled("clients: [ 127.0.0.7, 127.9.0.0/16 ]", &origins);
    for (last, to) in [([0, 0, 1], "v1"), ([0, 0, 7], "v2"), ([9, 0, 1], "v2"), ([8, 0, 1], "v1")] {
        let from = IpAddr::V4(Ipv4Addr::new(127, last[0], last[1], last[2]));
        let mut client = Client::connect_from(from, proxy.address);
        assert_eq!(client.get("/").send().text(), to, "{from}");
    }
}

#[test]
fn a_route_with_a_version_goes_ahead_of_rules_and_split() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = Proxy::builder()
        .version("v1", &origins[0])
        .version("v2", &origins[1])
        .service("weights: { v2: 1 }")
        .service("rules: [ { match: { clients: [ 127.0.0.0/8 ] }, version: v2 } ]")
        .route("match: { path: /v1/* }, version: v1")
        .route("name: rest")
        .start();
    assert_eq!(proxy.get("/v1/x").text(), "v1");
    assert_eq!(proxy.get("/x").text(), "v2");
}

#[test]
fn a_route_says_whether_its_requests_write_and_else_their_method_does() {
    let (signal, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |call| {
        // Fails if the test has failed first, and then nobody reads the answer.
        let _ = wait.lock().expect("no panic").recv();
        call.answer(200, b"")
    });
    let proxy = Proxy::builder()
        .version("v1", &origin)
        .route("name: search, match: { path: /search }, class: read")
        .route("name: spin, match: { path: /spin }, class: write")
        .route("name: all")
        .start();
    let in_flight = || {
        let snapshot = proxy.controller().snapshot();
        Class::ALL.map(|class| snapshot.services[0].versions[0].state.in_flight_of(class))
    };
    for (method, path, class) in [
        ("POST", "/search", Class::Read),
        ("GET", "/spin", Class::Write),
        ("GET", "/", Class::Read),
        ("POST", "/", Class::Write),
    ] {
        let mut client = proxy.connect();
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        eventually("one is in flight", || in_flight().iter().sum::<u64>() == 1);
        assert_eq!(in_flight()[class as usize], 1, "{method} {path}");
        signal.send(()).expect("the origin waits");
        assert_eq!(client.answer().status, 200);
        eventually("it is over", || in_flight() == [0, 0]);
    }
}
