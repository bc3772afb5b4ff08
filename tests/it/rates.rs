//! Limits of the rates of a route's requests.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    Client, Origin, Proxy,
    issuer::{Issuer, TERMS},
    proxy::Builder,
};

fn limited(origin: &Origin, rates: &str) -> Builder {
    let route = format!("name: bets, limit: {{ rates: [ {rates} ] }}");
    Proxy::builder().workers(2).version("v1", origin).route(&route)
}

fn metric(proxy: &Proxy, line: &str) -> String {
    let page = proxy.admin().get("/metrics").host("localhost").send();
    let found = page.text().lines().find_map(|l| l.strip_prefix(line));
    found.map_or_else(|| panic!("no {line}: {}", page.text()), |value| value.trim().to_owned())
}

#[test]
fn who_is_over_the_limit_is_told_when_to_come_again_and_others_are_not_held_up() {
    let origin = Origin::answering("ok");
    let rates = "{ requests: 3, per: 1h, by: [ 'header:x-player-id', client-ip ], name: player }";
    let proxy = limited(&origin, rates).top("admin: { address: 127.0.0.1:0 }").start();
    let mut client = proxy.connect();
    for left in ["2", "1", "0"] {
        let answer = client.post("/bets", b"stake").header("X-Player-Id", "ada").send();
        assert_eq!((answer.status, answer.text()), (200, "ok"));
        assert_eq!(answer.field("ratelimit-policy"), Some("\"player\";q=3;w=3600"));
        let state = answer.field("ratelimit").expect("a state").to_owned();
        assert!(state.starts_with(&format!("\"player\";r={left};t=")), "{state}");
    }
    let refused = client.post("/bets", b"stake").header("X-Player-Id", "ada").send();
    assert_eq!((refused.status, refused.kind()), (429, "rate".to_owned()));
    assert_eq!(refused.json()["violated-policies"][0], "player");
    let wait: u64 = refused.field("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((1190..=1200).contains(&wait), "{wait}");
    let state = refused.field("ratelimit").expect("a state").to_owned();
    assert!(state.starts_with("\"player\";r=0;t="), "{state}");
    // The connection stays, and others have limits of their own.
    assert_eq!(client.post("/bets", b"stake").header("X-Player-Id", "bob").send().status, 200);
    assert_eq!(client.get("/bets").send().status, 200, "by its address");
    assert_eq!(origin.requests(), 5);
    let line = "tidegate_rate_limited_total{route=\"bets\",limit=\"player\"}";
    assert_eq!(metric(&proxy, line), "1");
}

#[test]
fn a_request_over_one_limit_takes_nothing_of_the_others() {
    let origin = Origin::answering("ok");
    let rates = "{ requests: 3, per: 1h }, { requests: 1, per: 1h, by: 'header:x-player-id' }";
    let proxy = limited(&origin, rates).start();
    let mut client = proxy.connect();
    let mut ask = |player: &str| client.get("/").header("X-Player-Id", player).send().status;
    assert_eq!(ask("ada"), 200);
    for _ in 0..5 {
        assert_eq!(ask("ada"), 429);
    }
    assert_eq!((ask("bob"), ask("cid"), ask("dan")), (200, 200, 429));
}

#[test]
fn clients_of_one_network_of_ipv6_share_a_limit_and_addresses_of_ipv4_do_not() {
    let origin = Origin::answering("ok");
    let builder = limited(&origin, "{ requests: 1, per: 1h, by: client-ip }");
    let proxy = builder.top("trusted_proxies: [ 127.0.0.1 ]").start();
    let mut balancer = proxy.connect();
    for (client, status) in [
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("2001:db8::1", 200),
        ("2001:db8::2", 429),
        ("2001:db8:0:1::2", 200),
    ] {
        let answer = balancer.get("/").header("X-Forwarded-For", client).send();
        assert_eq!(answer.status, status, "{client}");
    }
}

#[test]
fn a_limit_holds_over_all_workers_under_load() {
    const CLIENTS: u8 = 8;
    let origin = Origin::answering("ok");
    let proxy = limited(&origin, "{ requests: 400, per: 1s, burst: 40 }").workers(4).start();
    let began = Instant::now();
    let client = |number: u8| {
        let address = proxy.address;
        move || {
            let from = IpAddr::V4(Ipv4Addr::new(127, 0, 4, number + 1));
            let mut client = Client::connect_from(from, address);
            let mut admitted = 0u32;
            while began.elapsed() < Duration::from_secs(3) {
                admitted += u32::from(client.get("/").send().status == 200);
            }
            admitted
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|number| thread::spawn(client(number))).collect();
    let admitted: u32 = clients.into_iter().map(|c| c.join().expect("no panic")).sum();
    let seconds = began.elapsed().as_secs_f64();
    let most = 40.0 + 400.0 * seconds;
    println!("measured: {admitted} admitted of at most {most:.0} in {seconds:.2} s");
    assert!(f64::from(admitted) <= most + 1.0, "{admitted} of {most}");
    assert!(f64::from(admitted) >= 0.98 * (40.0 + 400.0 * 3.0), "{admitted} of {most}");
    assert_eq!(origin.requests() as u32, admitted);
}

#[test]
fn a_reload_that_leaves_the_limit_as_it_is_forgets_nothing() {
    let origin = Origin::answering("ok");
    let builder = limited(&origin, "{ requests: 1, per: 1h, by: client-ip }");
    let proxy = builder.start_with_file();
    assert_eq!(proxy.get("/").status, 200);
    assert_eq!(proxy.get("/").status, 429);
    proxy.write(&builder.clone().top("limits: { requests: 77 }").text());
    crate::support::eventually("the reload is in force", || {
        proxy.snapshot().limits.requests == Some(77)
    });
    assert_eq!(proxy.get("/").status, 429, "the key is remembered");
    let other = limited(&origin, "{ requests: 2, per: 1h, by: client-ip }");
    proxy.write(&other.text());
    crate::support::eventually("another limit begins anew", || proxy.get("/").status == 200);
}

/// Requests, each with a key of its own: `count` on each of 8 connections, from the number `from` on.
fn flood(address: SocketAddr, from: u32, count: u32) {
    let connections = (0..8_u32).map(|connection| {
        thread::spawn(move || {
            let mut client = Client::connect(address);
            for number in 0..count {
                let key = (from + connection * count + number).to_string();
                assert_eq!(client.get("/").header("X-Player-Id", &key).send().status, 200);
            }
        })
    });
    let connections: Vec<_> = connections.collect();
    connections.into_iter().for_each(|connection| connection.join().expect("no panic"));
}

#[test]
fn a_flood_of_keys_takes_no_memory() {
    let origin = Origin::answering("ok");
    let process =
        limited(&origin, "{ requests: 1, per: 1h, by: 'header:x-player-id', keys: 1000 }").spawn();
    flood(process.address, 0, 1_000);
    let before = process.peak_kib();
    flood(process.address, 1_000_000, 5_000);
    // The peak is a sum of counts that lag behind, so it may also seem to fall.
    let grown = process.peak_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB");
    let mut client = process.connect();
    let mut again = || client.get("/").header("X-Player-Id", "ada").send().status;
    assert_eq!([again(), again()], [200, 429]);
}

#[test]
fn who_is_exempt_takes_nothing_of_a_limit() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let exempt = "exempt: { addresses: [ 192.0.2.0/24 ], claims: { role: [ bot, staff ] } }";
    let rates =
        format!("{{ requests: 1, per: 1h, {exempt} }}, {{ requests: 4, per: 1h, name: all }}");
    let proxy = Proxy::builder()
        .version("v1", &origin)
        .top("trusted_proxies: [ 127.0.0.1 ]")
        .top(&format!("jwt: {{ players: {{ jwks: 'http://{}/', {TERMS} }} }}", keys.address))
        .route(&format!(
            "name: bets, auth: {{ jwt: players, required: false }}, limit: {{ rates: [ {rates} ] }}"
        ))
        .start();
    let mut client = proxy.connect();
    let bearer = |role: &str| format!("Bearer {}", issuer.token("ada", json!({ "role": role })));
    for (address, role, status) in [
        ("192.0.2.7", None, 200),
        ("198.51.100.1", Some("bot"), 200),
        ("198.51.100.1", None, 200),
        ("198.51.100.1", Some("player"), 429),
        ("192.0.2.8", None, 200),
        // The other limit has no exceptions.
        ("192.0.2.9", None, 429),
    ] {
        let request = client.get("/").header("X-Forwarded-For", address);
        let answer = match role {
            Some(role) => request.header("Authorization", &bearer(role)).send(),
            None => request.send(),
        };
        assert_eq!(answer.status, status, "{address} {role:?}");
        let told = answer.field("ratelimit").expect("a state");
        let is_exempt = address.starts_with("192.") || role == Some("bot");
        assert_eq!(told.contains("\"route\""), !is_exempt, "{address} {role:?}: {told}");
    }
}
