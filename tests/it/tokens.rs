//! Tokens of clients: what routes ask of them, and what is made of what they say.

mod kept;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::json;

use crate::support::{
    Client, Origin, Proxy, eventually,
    http2::{self, Http2},
    issuer::{Issuer, TERMS, now_s},
    proxy::Builder,
};

/// A proxy whose route `/bets/*` asks for tokens of the issuer with these keys; other routes do not.
fn asking(origin: &Origin, jwks: &str, more: &str) -> Builder {
    Proxy::builder()
        .version("v1", origin)
        .top("admin: { address: 127.0.0.1:0 }")
        .top(&format!("jwt: {{ players: {{ jwks: '{jwks}', {TERMS}, {more} }} }}"))
        .route("match: { path: /bets/* }, auth: { jwt: players }")
        .route("name: rest")
}

fn url(keys: &Origin) -> String {
    format!("http://{}/jwks", keys.address)
}

fn ask(client: &mut Client, path: &str, authorization: &str) -> (u16, String) {
    let answer = client.get(path).header("Authorization", authorization).send();
    let kind = if answer.status >= 400 { answer.kind() } else { String::new() };
    (answer.status, kind)
}

/// Why the request was refused, as its client is told.
fn detail(answer: &crate::support::Answer) -> String {
    answer.json()["detail"].as_str().expect("a text").to_owned()
}

fn metric(proxy: &Proxy, line: &str) -> f64 {
    let page = proxy.admin().get("/metrics").host("localhost").send();
    let found = page.text().lines().find_map(|l| l.strip_prefix(line));
    let value = found.and_then(|value| value.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {line}: {}", page.text()))
}

#[test]
fn a_route_serves_only_those_with_a_token_and_says_nothing_of_it() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let proxy = asking(&origin, &url(&keys), "headers: { x-player-id: sub }").start();
    let mut client = proxy.connect();
    // The keys are awaited, even by the first request.
    assert_eq!(ask(&mut client, "/bets/1", &issuer.bearer("ada")), (200, String::new()));
    assert_eq!(origin.last().head.field("x-player-id"), Some("ada"));
    let missing = client.get("/bets/1").send();
    assert_eq!((missing.status, missing.kind()), (401, "token_missing".to_owned()));
    assert_eq!(missing.field("www-authenticate"), Some("Bearer"));
    let stranger = Issuer::new().bearer("ada");
    let refused = client.get("/bets/1").header("Authorization", &stranger).send();
    assert_eq!((refused.status, refused.kind()), (401, "token".to_owned()));
    assert_eq!(refused.field("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    assert!(!refused.text().contains(&stranger[7..27]), "{}", refused.text());
    let expired = issuer.token("ada", json!({ "exp": now_s() - 31 }));
    for wrong in [
        format!("Bearer {expired}"),
        format!("Bearer {}", issuer.token("ada", json!({ "aud": "bank" }))),
        "Bearer".into(),
        "Basic YWRhOnNlY3JldA==".into(),
        "Bearer ..".into(),
    ] {
        assert_eq!(ask(&mut client, "/bets/1", &wrong).0, 401, "{wrong}");
    }
    let token = issuer.bearer("ada");
    let twice = client.get("/bets/1").header("Authorization", &token);
    let twice = twice.header("Authorization", &issuer.bearer("bob")).send();
    assert!(twice.status == 401 && detail(&twice).contains("several tokens"), "{}", twice.text());
    let endless = format!("Bearer {}", issuer.token("ada", json!({ "exp": null })));
    let endless = client.get("/bets/1").header("Authorization", &endless).send();
    assert!(endless.status == 401 && detail(&endless).contains("no `exp`"), "{}", endless.text());
    assert_eq!(ask(&mut client, "/games", "Bearer x").0, 200, "another route");
    assert_eq!(origin.requests(), 2);
    let refused = |reason| {
        metric(
            &proxy,
            &format!("tidegate_tokens_refused_total{{jwt=\"players\",reason=\"{reason}\"}}"),
        )
    };
    assert_eq!((refused("missing"), refused("signature"), refused("expired")), (3.0, 1.0, 1.0));
    assert_eq!(metric(&proxy, "tidegate_jwks_keys{jwt=\"players\"}"), 1.0);
}

#[test]
fn a_token_is_verified_once_and_not_longer_than_it_lasts() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let proxy = asking(&origin, &url(&keys), "leeway: 1ms").start();
    let mut client = proxy.connect();
    let token = format!("Bearer {}", issuer.token("ada", json!({ "exp": now_s() + 3 })));
    for _ in 0..20 {
        assert_eq!(ask(&mut client, "/bets/1", &token).0, 200);
    }
    assert_eq!(metric(&proxy, "tidegate_tokens_verified_total{jwt=\"players\"}"), 1.0);
    eventually("it expires", || ask(&mut client, "/bets/1", &token).0 == 401);
}

#[test]
fn no_client_sends_a_field_that_is_written_from_a_claim() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let headers = "headers: { X-Player-Id: sub, x-roles: roles, x-tenant: tenant }";
    let builder = asking(&origin, &url(&keys), headers).top("trusted_proxies: [ 127.0.0.1 ]");
    let proxy = builder.start();
    let mut client = proxy.connect();
    let roles =
        issuer.token("ada", json!({ "roles": [ "player", "vip" ], "tenant": "a\r\nX-Admin: 1" }));
    for path in ["/bets/1", "/games"] {
        let mut request = client.get(path).header("Authorization", &format!("Bearer {roles}"));
        for name in
            ["x-player-id", "X-PLAYER-ID", "x_player_id", "X.Player-Id", "X-Tenant", "x_roles"]
        {
            request = request.header(name, "eve");
        }
        assert_eq!(request.header("X-Forwarded-For", "192.0.2.1").send().status, 200);
        let head = origin.last().head;
        let text = format!("{head:?}").to_ascii_lowercase();
        assert!(!text.contains("eve") && !text.contains("x-admin"), "{path}: {text}");
        let expected = (path == "/bets/1").then_some("ada");
        assert_eq!(head.field("x-player-id"), expected, "{path}");
        assert_eq!(head.field("x-roles"), expected.map(|_| "player,vip"), "{path}");
    }
}

#[test]
fn claims_choose_route_and_version_and_have_limits() {
    let [v1, v2] = [Origin::answering("v1"), Origin::answering("v2")];
    let issuer = Issuer::new();
    let keys = issuer.serve();
    let limit = "limit: { rates: [ { requests: 1, per: 1h, by: claim:sub } ] }";
    let proxy = Proxy::builder()
        .version("v1", &v1)
        .version("v2", &v2)
        .service("cohort: { key: [ claim:sub ] }")
        .service("weights: { v1: 50, v2: 50 }")
        .service("rules: [ { match: { claims: { /realm/roles: tester } }, version: v2 } ]")
        .top(&format!("jwt: {{ players: {{ jwks: '{}', {TERMS} }} }}", url(&keys)))
        .route(&format!("name: limited, match: {{ path: /limited }}, auth: {{ jwt: players }}, {limit}"))
        .route("name: acme, match: { path: /bets, claims: { tenant: acme } }, version: v2, auth: { jwt: players }")
        .route("name: bets, match: { path: /bets }, version: v1, auth: { jwt: players, required: false }")
        .route("name: vips, match: { path: /vips }, auth: { jwt: players, require: { level: [ \"7\", \"8\" ] } }")
        .route("name: rest, auth: { jwt: players }")
        .start();
    let mut client = proxy.connect();
    let mut get = |path: &str, player: &str, more: serde_json::Value| {
        let token = format!("Bearer {}", issuer.token(player, more));
        let answer = client.get(path).header("Authorization", &token).send();
        (answer.status, if answer.status == 200 { answer.text().to_owned() } else { answer.kind() })
    };
    let is = |status, text: &str| (status, text.to_owned());
    assert_eq!(get("/bets", "ada", json!({})), is(200, "v1"));
    assert_eq!(get("/bets", "ada", json!({ "tenant": "acme" })), is(200, "v2"));
    assert_eq!(get("/bets", "ada", json!({ "tenant": [ "other", "acme" ] })), is(200, "v2"));
    assert_eq!(get("/vips", "ada", json!({ "level": 7 })).0, 200);
    assert_eq!(get("/vips", "ada", json!({ "level": 70 })), is(403, "token_claim"));
    assert_eq!(get("/vips", "ada", json!({})), is(403, "token_claim"));
    for player in 0..20 {
        let player = format!("p{player}");
        assert_eq!(get("/", &player, json!({ "realm": { "roles": [ "tester" ] } })), is(200, "v2"));
    }
    let versions: Vec<_> = (0..40).map(|p| get("/", &format!("p{p}"), json!({}))).collect();
    for version in ["v1", "v2"] {
        let count = versions.iter().filter(|(_, text)| text == version).count();
        assert!((8..=32).contains(&count), "{version}: {count}");
    }
    // Another token of the same player, and another version of the player's other fields.
    let again: Vec<_> = (0..40).map(|p| get("/", &format!("p{p}"), json!({ "jti": p }))).collect();
    assert_eq!(versions, again);
    assert_eq!(get("/limited", "ada", json!({})).0, 200);
    assert_eq!(get("/limited", "ada", json!({ "jti": 1 })), is(429, "rate"));
    assert_eq!(get("/limited", "bob", json!({})).0, 200);
    assert_eq!(client.get("/bets").send().text(), "v1", "a token is not required");
    let answer = client.get("/bets").header("Authorization", "Bearer x.y.z").send();
    assert_eq!(answer.status, 401, "but one that is sent must be good");
}

/// Regression: a name that a stranger had made up began a fetch, and players with a new key got 401 until the next one.
#[test]
fn new_keys_are_fetched_when_a_token_names_one_whatever_strangers_send() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let proxy = asking(&origin, &url(&keys), "refresh: 10s").start();
    let mut client = proxy.connect();
    let before = issuer.bearer("ada");
    assert_eq!(ask(&mut client, "/bets/1", &before).0, 200);
    issuer.rotate("k2");
    let after = issuer.bearer("ada");
    // At most one fetch in 10 s for names of keys; whoever makes up more is told to come again.
    let begun = std::time::Instant::now();
    for number in 0..50 {
        let made_up = Issuer::new();
        made_up.rotate(&format!("made-up-{number}"));
        let answer = client.get("/bets/1").header("Authorization", &made_up.bearer("eve")).send();
        assert_eq!((answer.status, answer.kind()), (503, "token_keys".to_owned()));
        let seconds = answer.field("retry-after").and_then(|text| text.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| (1..=11).contains(&seconds)), "{seconds:?}");
    }
    assert_eq!(keys.requests(), 1);
    eventually("the new key is known", || {
        let answer = ask(&mut client, "/bets/1", &after);
        assert!([200, 503].contains(&answer.0), "{answer:?}");
        answer.0 == 200
    });
    assert!(keys.requests() as u64 <= 2 + begun.elapsed().as_secs() / 10, "{}", keys.requests());
    let old = ask(&mut client, "/bets/1", &before);
    assert_eq!(old, (503, "token_keys".to_owned()), "another server may still have it");
    assert_eq!(
        metric(&proxy, "tidegate_jwks_fetches_total{jwt=\"players\",result=\"error\"}"),
        0.0
    );
}

#[test]
fn without_keys_tokens_are_not_judged_and_the_last_good_ones_stay() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let works = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&works);
    let keys = issuer.serve_if(move || flag.load(SeqCst));
    let proxy = asking(&origin, &url(&keys), "refresh: 10s").start();
    let mut client = proxy.connect();
    let token = issuer.bearer("ada");
    assert_eq!(ask(&mut client, "/bets/1", &token), (503, "token_keys".to_owned()));
    assert_eq!(client.get("/bets/1").send().status, 401, "no keys are needed to see no token");
    let get = |path: &str| proxy.admin().get(path).host("localhost").send();
    let ready = get("/readyz");
    assert_eq!((ready.status, ready.text()), (200, "ready\nno keys of issuers: players\n"));
    let status = get("/v1/status").json()["issuers"][0].clone();
    let error = "500 Internal Server Error";
    assert_eq!((&status["keys"], &status["last_error"]), (&json!(null), &json!(error)), "{status}");
    eventually("it is an event", || told(&proxy, "jwt_missing").len() == 1);
    works.store(true, SeqCst);
    eventually("they come", || ask(&mut client, "/bets/1", &token).0 == 200);
    assert_eq!(get("/readyz").text(), "ready\n");
    eventually("it is an event", || told(&proxy, "jwt_restored").len() == 1);
    works.store(false, SeqCst);
    let failed = "tidegate_jwks_fetches_total{jwt=\"players\",result=\"error\"}";
    let before = metric(&proxy, failed);
    eventually("a fetch fails", || metric(&proxy, failed) > before);
    assert_eq!(ask(&mut client, "/bets/1", &token).0, 200);
}

#[test]
fn keys_of_a_file_change_with_it_and_a_bad_file_changes_nothing() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jwks.json");
    let write = |text: &str| {
        std::fs::write(folder.path().join("new"), text).expect("a file");
        std::fs::rename(folder.path().join("new"), &file).expect("a file");
    };
    write(&issuer.jwks());
    let proxy = asking(&origin, &file.display().to_string(), "").start_with_file();
    let mut client = proxy.connect();
    let token = issuer.bearer("ada");
    assert_eq!(ask(&mut client, "/bets/1", &token).0, 200);
    issuer.rotate("k2");
    let rotated = issuer.bearer("ada");
    assert_eq!(ask(&mut client, "/bets/1", &rotated).0, 401);
    write(&issuer.jwks());
    eventually("the file is read", || ask(&mut client, "/bets/1", &rotated).0 == 200);
    assert_eq!(ask(&mut client, "/bets/1", &token).0, 401);
    write("{}");
    // Regression: of a file that could not be read only the log knew.
    eventually("it is an event", || told(&proxy, "configuration_rejected").len() == 1);
    let event = told(&proxy, "configuration_rejected").remove(0);
    assert!(event.starts_with("jwt `players`: ") && event.ends_with("the old keys stay in use"));
    let failed = "tidegate_jwks_fetches_total{jwt=\"players\",result=\"error\"}";
    assert!(metric(&proxy, failed) >= 1.0);
    let status = || {
        let status = proxy.admin().get("/v1/status").host("localhost").send().json();
        status["issuers"][0]["last_error"].clone()
    };
    assert!(status().is_string(), "{}", status());
    assert_eq!(ask(&mut client, "/bets/1", &rotated).0, 200);
    write(&issuer.jwks());
    eventually("it is good again", || status().is_null());
}

/// Reasons of the events of that kind.
fn told(proxy: &Proxy, kind: &str) -> Vec<String> {
    let controller = proxy.controller();
    let events = controller.events().since(0).filter(|event| event.kind.label() == kind);
    events.map(|event| event.matter.reason.clone()).collect()
}

/// An operator revokes all keys, also those of tokens that were verified; a restart changes nothing.
#[test]
fn an_empty_set_in_a_file_revokes_all_tokens_until_there_are_keys_again() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jwks.json");
    let write = |text: &str| {
        std::fs::write(folder.path().join("new"), text).expect("a file");
        std::fs::rename(folder.path().join("new"), &file).expect("a file");
    };
    write(&issuer.jwks());
    let text = asking(&origin, &file.display().to_string(), "");
    let proxy = text.start_with_file();
    let mut client = proxy.connect();
    let token = issuer.bearer("ada");
    assert_eq!(ask(&mut client, "/bets/1", &token).0, 200);
    write("{\"keys\":[]}");
    eventually("it is read", || ask(&mut client, "/bets/1", &token) == (401, "token".to_owned()));
    assert_eq!(metric(&proxy, "tidegate_jwks_emptied_total{jwt=\"players\"}"), 1.0);
    assert_eq!(metric(&proxy, "tidegate_jwks_keys{jwt=\"players\"}"), 0.0);
    eventually("it is an event", || told(&proxy, "jwt_revoked").len() == 1);
    drop(client);
    drop(proxy);
    let proxy = text.start_with_file();
    let mut client = proxy.connect();
    assert_eq!(ask(&mut client, "/bets/1", &token), (401, "token".to_owned()));
    eventually("it is an event", || told(&proxy, "jwt_revoked").len() == 1);
    // Neither of these says that there are no keys, nor which ones there are.
    for bad in ["", "{}", "{\"keys\":{}}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}"] {
        write(bad);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(ask(&mut client, "/bets/1", &token).0, 401, "{bad}");
    }
    write(&issuer.jwks());
    eventually("it is read", || ask(&mut client, "/bets/1", &token).0 == 200);
    eventually("it is an event", || told(&proxy, "jwt_restored").len() == 1);
}

/// A server of keys that answers with this text, and what it answers with: status and text.
fn key_server(text: String) -> (Origin, Arc<std::sync::Mutex<(u16, String)>>) {
    let answer = Arc::new(std::sync::Mutex::new((200, text)));
    let keys = Origin::start({
        let answer = Arc::clone(&answer);
        move |call| {
            call.skip_body()?;
            let (status, text) = answer.lock().expect("no panic").clone();
            call.answer(status, text.as_bytes())
        }
    });
    (keys, answer)
}

/// Regression: of servers of an issuer one had the new key and another one did not yet, and players got 401.
#[test]
fn a_key_that_servers_publish_in_turn_costs_nobody_their_session() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let before = issuer.jwks();
    issuer.rotate("k2");
    let (keys, answer) = key_server(issuer.jwks());
    let proxy = asking(&origin, &url(&keys), "refresh: 10s").start();
    let mut client = proxy.connect();
    let token = issuer.bearer("ada");
    assert_eq!(ask(&mut client, "/bets/1", &token).0, 200);
    let after = issuer.jwks();
    *answer.lock().expect("no panic") = (200, before);
    eventually("the other server is asked", || {
        let answer = ask(&mut client, "/bets/1", &token);
        assert!(answer.0 == 200 || answer == (503, "token_keys".to_owned()), "{answer:?}");
        answer.0 == 503
    });
    *answer.lock().expect("no panic") = (200, after);
    eventually("the first one is asked again", || {
        let answer = ask(&mut client, "/bets/1", &token);
        assert!([200, 503].contains(&answer.0), "{answer:?}");
        answer.0 == 200
    });
}

#[test]
fn an_empty_set_from_a_url_revokes_all_tokens_and_a_fault_none() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let (keys, answer) = key_server(issuer.jwks());
    let proxy = asking(&origin, &url(&keys), "refresh: 10s").start();
    let mut client = proxy.connect();
    let token = issuer.bearer("ada");
    assert_eq!(ask(&mut client, "/bets/1", &token).0, 200);
    let set = |status: u16, text: &str| {
        *answer.lock().expect("no panic") = (status, text.to_owned());
        let before = keys.requests();
        eventually("it is fetched", || keys.requests() > before);
        std::thread::sleep(Duration::from_millis(100));
    };
    set(500, "{\"keys\":[]}");
    assert_eq!(ask(&mut client, "/bets/1", &token).0, 200, "a fault");
    set(200, "<html>maintenance</html>");
    assert_eq!(ask(&mut client, "/bets/1", &token).0, 200, "no set of keys");
    set(200, "{\"keys\":[]}");
    assert_eq!(ask(&mut client, "/bets/1", &token), (401, "token".to_owned()));
    eventually("it is an event", || told(&proxy, "jwt_revoked").len() == 1);
}

#[test]
fn a_cookie_holds_a_token_and_http2_clients_send_theirs() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let from = "from: [ header:authorization, cookie:session ], headers: { x-player-id: sub }";
    let proxy = asking(&origin, &url(&keys), from).start();
    let cookie = format!("a=b; session={}; c=d", issuer.token("ada", json!({})));
    assert_eq!(proxy.connect().get("/bets/1").header("Cookie", &cookie).send().status, 200);
    assert_eq!(origin.last().head.field("x-player-id"), Some("ada"));
    let client = Http2::connect(proxy.address);
    let request = http2::request("GET", "/bets/1").header("authorization", issuer.bearer("bob"));
    assert_eq!(client.ask(request.header("x-player-id", "eve"), None).status, 200);
    assert_eq!(origin.last().head.field("x-player-id"), Some("bob"));
    assert_eq!(client.get("/bets/1").status, 401);
}

/// The version might read the other one.
#[test]
fn a_request_with_two_tokens_in_one_place_is_refused() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let proxy = asking(&origin, &url(&keys), "from: [ header:x-token, cookie:session ]").start();
    let token = issuer.token("ada", json!({}));
    let ask = |fields: &[(&str, &str)]| {
        let mut client = proxy.connect();
        let request = client.get("/bets/1");
        let request =
            fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        request.send().status
    };
    let (good, forged) = (format!("session={token}"), "session=forged.token.x");
    assert_eq!([ask(&[("Cookie", &good)]), ask(&[("X-Token", &token)])], [200, 200]);
    for fields in [
        &[("Cookie", &*format!("{good}; {forged}"))][..],
        &[("Cookie", &good), ("Cookie", forged)],
        &[("X-Token", &token), ("X-Token", "forged.token.x")],
        &[("X-Token", &token), ("x_token", "forged.token.x")],
    ] {
        assert_eq!(ask(fields), 401, "{fields:?}");
    }
    assert_eq!(origin.requests(), 2);
}

#[test]
fn players_who_are_known_by_a_claim_have_idempotency_keys_of_their_own() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let proxy = Proxy::builder()
        .version("v1", &origin)
        .service("cohort: { key: [ claim:sub ] }")
        .top(&format!("jwt: {{ players: {{ jwks: '{}', {TERMS} }} }}", url(&keys)))
        .route("auth: { jwt: players }, idempotency: {}")
        .start();
    let mut client = proxy.connect();
    let mut bet = |player: &str| {
        let bet = client.post("/bets", b"stake").header("Idempotency-Key", "\"k1\"");
        bet.header("Authorization", &issuer.bearer(player)).send().status
    };
    assert_eq!((bet("ada"), origin.requests()), (200, 1));
    assert_eq!((bet("bob"), origin.requests()), (200, 2), "another player at the same address");
    assert_eq!((bet("ada"), origin.requests()), (200, 2), "replayed");
}

/// Regression: large numbers of two players were one rounded number, so that one got the response of the other; and a version took
/// " ada" for "ada".
#[test]
fn no_player_is_taken_for_another_whatever_the_issuer_writes() {
    let (origin, issuer) = (Origin::answering("ok"), Issuer::new());
    let keys = issuer.serve();
    let headers = "headers: { x-player-id: sub }";
    let proxy = Proxy::builder()
        .version("v1", &origin)
        .service("cohort: { key: [ claim:sub ] }")
        .top(&format!("jwt: {{ players: {{ jwks: '{}', {TERMS}, {headers} }} }}", url(&keys)))
        .route("match: { path: /named }, auth: { jwt: players, require: { sub: [ ada, ' ada' ] } }")
        .route("name: rest, auth: { jwt: players }, idempotency: {}")
        .start();
    let mut client = proxy.connect();
    let bearer = |sub: &str| format!("Bearer {}", issuer.token_of(sub));
    for (sent, number) in [(1, "18446744073709551616"), (2, "18446744073709551617")] {
        let bet = client.post("/bets", b"stake").header("Idempotency-Key", "\"k1\"");
        assert_eq!(bet.header("Authorization", &bearer(number)).send().status, 200);
        assert_eq!(origin.requests(), sent, "{number}");
        assert_eq!(origin.last().head.field("x-player-id"), Some(number));
    }
    for text in ["\" ada\"", "\"ada \"", "\"\""] {
        assert_eq!(ask(&mut client, "/named", &bearer(text)), (403, "token_claim".to_owned()));
        assert_eq!(ask(&mut client, "/games", &bearer(text)).0, 200);
        assert_eq!(origin.last().head.field("x-player-id"), None, "{text}");
    }
    assert_eq!(ask(&mut client, "/named", &bearer("\"ada\"")).0, 200);
}
