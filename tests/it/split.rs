//! Which version a player gets, through the whole proxy.

use std::net::{IpAddr, Ipv4Addr};

use tidegate::{config::units::Weight, routing::Split};

use crate::support::{Client, Origin, Proxy, proxy::Builder};

fn two_versions(origins: &[Origin; 2]) -> Builder {
    Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1])
}

/// The version of `key` by the published definition.
fn expected(salt: &str, weights: [f64; 2], key: &str) -> &'static str {
    let weights = weights.map(|w| Weight::new(w).expect("a weight"));
    let split = Split::new(salt, ["v1", "v2"].into_iter().zip(weights));
    ["v1", "v2"][usize::from(split.assign(key.as_bytes()).expect("a version"))]
}

#[test]
fn each_source_of_a_key_decides_in_its_turn() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = two_versions(&origins)
        .service("weights: { v1: 1, v2: 1 }")
        .service("cohort: { salt: s1, key: [ \"header:x-player\", \"cookie:uid\", \"path:id\", \"query:p\" ] }")
        .route("name: player, match: { path: \"/players/{id}/bets\" }")
        .route("name: rest")
        .start();
    let mut client = proxy.connect();
    let is = |key: &str| expected("s1", [1.0, 1.0], key);
    for n in 0..40 {
        let (player, other) = (format!("player-{n}"), format!("other-{n}"));
        let cookie = format!("a=1; uid={player}");
        assert_eq!(client.get("/").header("X-Player", &player).send().text(), is(&player));
        assert_eq!(client.get("/").header("Cookie", &cookie).send().text(), is(&player));
        let both = client.get("/").header("Cookie", &cookie).header("X-Player", &other).send();
        assert_eq!(both.text(), is(&other), "the first source decides");
        let empty = client.get("/").header("Cookie", &cookie).header("X-Player", "").send();
        assert_eq!(empty.text(), is(&player), "an empty value is none");
        assert_eq!(client.get(&format!("/players/{player}/bets")).send().text(), is(&player));
        assert_eq!(client.get(&format!("/?x=y&p={player}")).send().text(), is(&player));
    }
}

#[test]
fn without_a_key_the_address_decides() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = two_versions(&origins)
        .service("weights: { v1: 1, v2: 1 }")
        .service("cohort: { key: [ \"cookie:uid\" ] }")
        .start();
    for last in 1..20 {
        let from = Ipv4Addr::new(127, 0, 3, last);
        let mut client = Client::connect_from(IpAddr::V4(from), proxy.address);
        // Strangers cannot choose their version by claiming another address.
        let answer = client.get("/").header("X-Forwarded-For", "127.0.3.200").send();
        assert_eq!(answer.text(), expected("", [1.0, 1.0], &from.to_string()));
    }
}

#[test]
fn shares_follow_weights_and_a_growing_canary_only_gains_players() {
    const PLAYERS: usize = 1000;
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = two_versions(&origins)
        .workers(2)
        .service("weights: { v1: 95, v2: 5 }")
        .service("cohort: { key: [ \"header:x-player\" ], salt: release-42 }")
        .start();
    let mut client = proxy.connect();
    let mut on_canary = || -> Vec<bool> {
        let player = |n| format!("player-{n}");
        let mut ask = |n| client.get("/").header("X-Player", &player(n)).send().text() == "v2";
        (0..PLAYERS).map(&mut ask).collect()
    };
    let mut before = vec![false; PLAYERS];
    for share in [5.0, 20.0, 50.0, 80.0] {
        proxy.set_weights(&[("v1", 100.0 - share), ("v2", share)]);
        let now = on_canary();
        let lost = before.iter().zip(&now).filter(|(was, is)| **was && !**is).count();
        assert_eq!(lost, 0, "a growing canary lost players at {share} %");
        let got = now.iter().filter(|on| **on).count() as f64 / PLAYERS as f64 * 100.0;
        // Five standard deviations of a binomial share over a thousand players.
        assert!((got - share).abs() < 8.0, "{got} % instead of {share} %");
        before = now;
    }
    assert_eq!(on_canary(), before, "players stay while weights stay");
}

/// `tests/reference/cohorts.json` is computed by a program that shares no code with the proxy.
#[test]
fn the_whole_proxy_agrees_with_the_independent_reference() {
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../reference/cohorts.json")).expect("JSON");
    let plain = |case: &&serde_json::Value| case.to_string().is_ascii();
    for case in cases.iter().filter(plain).take(25) {
        let versions = case["versions"].as_array().expect("versions");
        let names: Vec<&str> = versions.iter().map(|v| v[0].as_str().expect("a name")).collect();
        let mut builder = Proxy::builder();
        let origins: Vec<Origin> = names.iter().map(|_| answering_its_port()).collect();
        let mut weights = Vec::new();
        for (version, origin) in versions.iter().zip(&origins) {
            let name = version[0].as_str().expect("a name");
            builder = builder.version(&format!("{name:?}"), origin);
            weights.push(format!("{name:?}: {}", version[1]));
        }
        let proxy = builder
            .service(&format!("weights: {{ {} }}", weights.join(", ")))
            .service(&format!("cohort: {{ salt: {}, key: [ \"cookie:uid\" ] }}", case["salt"]))
            .start();
        let cookie = format!("uid={}", case["key"].as_str().expect("a key"));
        let answer = proxy.connect().get("/").header("Cookie", &cookie).send();
        let got = origins.iter().position(|o| o.address.port().to_string() == answer.text());
        assert_eq!(
            Some(case["assigned"].as_str().expect("a name")),
            got.map(|n| names[n]),
            "{case}"
        );
    }
}

fn answering_its_port() -> Origin {
    Origin::start(|call| {
        let port = call.wire.stream.local_addr()?.port();
        call.answer(200, port.to_string().as_bytes())
    })
}
