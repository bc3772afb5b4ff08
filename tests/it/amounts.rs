//! Business amounts in the heads of answers: kept from clients, shown, and compared.

use http::Response;
use serde_json::{Value, json};

use crate::support::{
    Client, Origin, Proxy,
    http2::{Asked, Http2, Origin2},
};

/// Requests that a test sends at most.
const REQUESTS: u32 = 40_000;

const AMOUNTS: &str = "amounts: { stake: { header: x-bet-stake, remove: true }, \
    payout: { header: x-bet-payout, remove: true }, void: { header: X-Void }, ggr: { is: stake - payout } }";

/// An origin that takes 10 and pays `payout` at every other request, and answers 500 at `/fail`.
fn origin(name: &'static str, payout: &'static str) -> Origin {
    Origin::start(move |call| {
        call.skip_body()?;
        let status = if call.target() == "/fail" { 500 } else { 200 };
        let paid = if call.nth.is_multiple_of(2) { payout } else { "0" };
        call.send(format!(
            "HTTP/1.1 {status} Told\r\nX-Bet-Stake: 10.00\r\nX-Bet-Payout: {paid}\r\nX-Void: 0.5\r\n\
             Content-Length: {}\r\n\r\n{name}",
            name.len()
        ))
    })
}

fn proxy(baseline: &Origin, canary: &Origin, eject: &str) -> Proxy {
    Proxy::builder()
        .version("v1", baseline)
        .version("v2", canary)
        .service("weights: { v1: 50, v2: 50 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service(AMOUNTS)
        .service(&format!("eject: {eject}"))
        .top("admin: { address: 127.0.0.1:0 }")
        .start()
}

fn get(proxy: &Proxy) -> Value {
    proxy.admin().get("/v1/services/game-api").host("localhost").send().json()
}

fn page(proxy: &Proxy) -> String {
    proxy.admin().get("/metrics").host("localhost").send().text().to_owned()
}

/// One request of each of `players`, until a version is ejected; how many were asked.
fn play(proxy: &Proxy, client: &mut Client, players: std::ops::Range<u32>) -> u32 {
    for player in players.clone() {
        let answer = client.get("/").header("x-player-id", &player.to_string()).send();
        assert_eq!((answer.field("x-bet-stake"), answer.field("x-bet-payout")), (None, None));
        if !proxy.controller().ejections().is_empty() {
            return player - players.start;
        }
    }
    players.end - players.start
}

#[test]
fn amounts_are_shown_and_removed_where_configured() {
    let origin = origin("v1", "12.25");
    let proxy = Proxy::builder()
        .version("v1", &origin)
        .service(AMOUNTS)
        .top("admin: { address: 127.0.0.1:0 }")
        .start();
    let mut client = proxy.connect();
    for _ in 0..4 {
        let answer = client.get("/").send();
        assert_eq!((answer.field("x-bet-stake"), answer.field("x-bet-payout")), (None, None));
        assert_eq!(answer.field("x-void"), Some("0.5"));
    }
    let failed = client.get("/fail").send();
    assert_eq!((failed.status, failed.field("x-bet-stake")), (500, None), "removed all the same");
    let http2 = Http2::connect(proxy.address);
    let answer = http2.get("/");
    assert_eq!((answer.field("x-bet-stake"), answer.field("x-void")), (None, Some("0.5")));
    // Five answers that did not fail, of which the first, third and sixth paid.
    let shown = get(&proxy);
    let amounts = &shown["versions"][0]["amounts"];
    assert_eq!(amounts["stake"], json!({ "count": 5, "sum": 50.0, "mean": 10.0 }));
    assert_eq!(amounts["void"], json!({ "count": 5, "sum": 2.5, "mean": 0.5 }));
    let paid = amounts["payout"]["sum"].as_f64().expect("a sum");
    assert_eq!(amounts["ggr"]["sum"].as_f64().expect("a sum"), 50.0 - paid);
    assert!(paid > 0.0);
    let page = page(&proxy);
    let labels = "{service=\"game-api\",version=\"v1\",amount=\"stake\"}";
    for (name, value) in [
        ("tidegate_amount_sum", 50),
        ("tidegate_amount_count", 5),
        ("tidegate_amounts_malformed_total", 0),
    ] {
        assert!(page.contains(&format!("{name}{labels} {value}\n")), "{page}");
    }
    assert!(!page.contains("amount=\"ggr\""), "a counter cannot go down");
}

#[test]
fn amounts_of_an_endpoint_that_speaks_http2_are_read_too() {
    let origin = Origin2::start(100, |mut asked: Asked| async move {
        let stake = if asked.nth == 0 { "7.5" } else { "7,5" };
        let response = Response::builder().header("x-bet-stake", stake).header("x-void", "1");
        let response = response.body(()).expect("a response");
        asked.respond.send_response(response, true).expect("open");
    });
    let proxy = Proxy::builder()
        .version_speaking("v1", &[origin.address], "h2")
        .service(AMOUNTS)
        .top("admin: { address: 127.0.0.1:0 }")
        .start();
    let client = Http2::connect(proxy.address);
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.field("x-bet-stake")), (200, None));
        assert_eq!(answer.field("x-void"), Some("1"));
    }
    let amounts = &get(&proxy)["versions"][0]["amounts"];
    assert_eq!(amounts["stake"], json!({ "count": 1, "sum": 7.5, "mean": 7.5 }));
    assert_eq!(amounts["payout"], json!({ "count": 0, "sum": 0.0, "mean": null }));
    assert_eq!(amounts["ggr"], json!({ "count": 1, "sum": 7.5, "mean": 7.5 }));
    let malformed = "tidegate_amounts_malformed_total{service=\"game-api\",version=\"v1\",amount=\"stake\"} 1\n";
    assert!(page(&proxy).contains(malformed));
}

#[test]
fn a_canary_that_pays_out_half_as_much_again_is_ejected_for_it() {
    let (v1, v2) = (origin("v1", "18.00"), origin("v2", "27.00"));
    let eject = "{ errors: {}, amounts: { stake: 5%, payout: 5% }, warm_up: 0s }";
    let proxy = proxy(&v1, &v2, eject);
    let mut client = proxy.connect();
    let asked = play(&proxy, &mut client, 0..REQUESTS);
    assert_eq!(proxy.controller().ejections().len(), 1, "not within {asked} requests");
    let shown = get(&proxy);
    assert_eq!(shown["versions"][1]["state"], "ejected");
    let verdict = &shown["verdicts"][0];
    assert_eq!((&verdict["version"], &verdict["answer"]), (&json!("v2"), &json!("fail")));
    let finding = &verdict["findings"][0];
    assert_eq!((&finding["metric"], &finding["amount"]), (&json!("amount_high"), &json!("payout")));
    let reason = verdict["reason"].as_str().expect("a reason");
    assert!(reason.contains("its `payout` is higher: "), "{reason}");
}

#[test]
fn a_canary_that_no_longer_says_what_it_takes_is_ejected_for_it() {
    let (v1, v2) = (origin("v1", "18.00"), Origin::answering("v2"));
    let proxy = proxy(&v1, &v2, "{ amounts: { stake: 5% }, warm_up: 0s }");
    let mut client = proxy.connect();
    let asked = play(&proxy, &mut client, 0..REQUESTS);
    assert_eq!(proxy.controller().ejections().len(), 1, "not within {asked} requests");
    let finding = &get(&proxy)["verdicts"][0]["findings"][0];
    assert_eq!((&finding["metric"], &finding["amount"]), (&json!("amount_low"), &json!("stake")));
}

#[test]
fn a_canary_that_keeps_less_is_ejected_for_what_is_derived() {
    // Of 20 it keeps 1 in the mean, the canary loses 3.5.
    let (v1, v2) = (origin("v1", "18.00"), origin("v2", "27.00"));
    let proxy = proxy(&v1, &v2, "{ amounts: { ggr: 2% }, warm_up: 0s }");
    let mut client = proxy.connect();
    let asked = play(&proxy, &mut client, 0..REQUESTS);
    assert_eq!(proxy.controller().ejections().len(), 1, "not within {asked} requests");
    let verdict = &get(&proxy)["verdicts"][0];
    let finding = &verdict["findings"][0];
    assert_eq!((&finding["metric"], &finding["amount"]), (&json!("amount_low"), &json!("ggr")));
    let reason = verdict["reason"].as_str().expect("a reason");
    assert!(reason.contains("its `ggr` is lower: -3."), "{reason}");
    // 10 where nothing is paid, else 8 below 0.
    let numbers = &finding["numbers"]["derived_amount"];
    let near = |number: &Value, expected: f64| {
        let number = number.as_f64().expect("a number");
        assert!((number - expected).abs() < 0.15 * expected.abs(), "{number}, not {expected}");
    };
    near(&numbers["tolerated_difference"], 0.02 * 9.0);
    near(&numbers["clipped_at"], 2.1 * 10.0);
    near(&numbers["difference"], -4.5);
    assert!(page(&proxy).contains("gate=\"amount_low.ggr\""));
}

#[test]
fn an_equal_canary_stays() {
    let (v1, v2) = (origin("v1", "18.00"), origin("v2", "18.00"));
    let eject = "{ amounts: { stake: 5%, payout: 5%, ggr: 5% }, warm_up: 0s }";
    let proxy = proxy(&v1, &v2, eject);
    let mut client = proxy.connect();
    assert_eq!(play(&proxy, &mut client, 0..8_000), 8_000);
    let verdict = &get(&proxy)["verdicts"][0];
    assert_eq!(verdict["answer"], "undecided");
    let findings = verdict["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 6);
    for finding in findings {
        let kind = if finding["amount"] == "ggr" { "derived_amount" } else { "amount" };
        let compared = finding["numbers"][kind]["canary"]["requests"].as_u64();
        assert!(compared.is_some_and(|requests| requests > 500), "it was compared: {finding}");
    }
    assert!(page(&proxy).contains("gate=\"amount_high.payout\""));
}
