//! A version whose endpoints cannot be reached is not taken for one that serves.

use std::net::SocketAddr;

use super::*;
use crate::support::process::free_address;

/// `v1` serves all players, `v2` is at `endpoints`.
fn to(origin: &Origin, endpoints: &[SocketAddr]) -> Builder {
    let builder = Proxy::builder().version("v1", origin).version_at("v2", endpoints);
    builder.service("weights: { v1: 1 }").top("admin: { address: \"127.0.0.1:0\" }")
}

fn put(proxy: &Proxy, body: &Value) -> Answer {
    let path = format!("/v1/services/{SERVICE}/weights");
    let body = body.to_string();
    let mut admin = proxy.admin();
    admin.request("PUT", &path).host("127.0.0.1").body(body.as_bytes()).send()
}

#[track_caller]
fn assert_refused(answer: &Answer, field: &str, why: &str) {
    let problem = answer.json();
    assert_eq!((answer.status, &problem["field"]), (409, &json!(field)), "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains(why) && detail.contains("`force`"), "{detail}");
}

#[test]
fn a_cutover_to_what_refuses_connections_is_refused_unless_the_caller_insists() {
    let origin = Origin::answering("v1");
    let dead = [free_address(), free_address()];
    let proxy = to(&origin, &dead).start();
    let refused = post(&mut proxy.admin(), "cutover", &json!({ "to": "v2" }));
    assert_refused(&refused, "to", "no endpoint of `v2` of `game-api` can be reached: ");
    for address in dead {
        assert_refused(&refused, "to", &format!("{address}: Connection refused"));
    }
    let dry = post(&mut proxy.admin(), "cutover?dry_run=true", &json!({ "to": "v2" }));
    assert_refused(&dry, "to", "can be reached");
    assert_eq!((proxy.snapshot().services[0].share(0), proxy.get("/").text()), (1.0, "v1"));
    let (code, _, error) = command(&proxy, &["cutover", "game-api", "v2"]);
    assert_eq!((code, error.contains("Connection refused")), (Some(65), true), "{error}");
    let (code, text, error) = command(&proxy, &["cutover", "game-api", "v2", "--force"]);
    let moved = "game-api: v1 100% -> 0%, v2 0% -> 100% (generation 2)\n";
    assert_eq!((code, &*text), (Some(0), moved), "{error}");
    // The way back leads to what can be reached, so it needs no `force`.
    assert_eq!(post(&mut proxy.admin(), "rollback", &json!({})).status, 200);
    assert_eq!(proxy.get("/").text(), "v1");
}

#[test]
fn a_version_whose_checks_fail_gets_the_traffic_only_if_the_caller_insists() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let dead = free_address();
    let file = to(&origins[0], &[dead]).service("health: { http: { path: / }, interval: 100ms }");
    let proxy = file.start();
    let is_down = || {
        let snapshot = proxy.snapshot();
        !snapshot.services[0].versions[1].known[0].state.standing.serves()
    };
    eventually("v2 is down", is_down);
    let refused = post(&mut proxy.admin(), "cutover", &json!({ "to": "v2" }));
    assert_refused(&refused, "to", &format!("no endpoint of `v2` serves ({dead} is down)"));
    assert_eq!(post(&mut proxy.admin(), "eject", &json!({ "version": "v2" })).status, 200);
    let insisted = json!({ "to": "v2", "force": true });
    let ejected = post(&mut proxy.admin(), "cutover", &insisted);
    assert_eq!(ejected.status, 409, "an ejected version is reinstated first");
    assert_eq!(post(&mut proxy.admin(), "reinstate", &json!({ "version": "v2" })).status, 200);
    let moved = post(&mut proxy.admin(), "cutover", &insisted);
    assert_eq!(moved.status, 200, "{}", moved.text());
    assert_eq!(proxy.snapshot().services[0].share(1), 1.0);
}

#[test]
fn one_endpoint_that_accepts_connections_is_enough() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = to(&origins[0], &[free_address(), origins[1].address]).start();
    let moved = post(&mut proxy.admin(), "cutover", &json!({ "to": "v2" }));
    assert_eq!(moved.status, 200, "{}", moved.text());
}

#[test]
fn a_rollback_to_a_version_that_was_stopped_is_refused_too() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let stopped = free_address();
    let file = Proxy::builder().version_at("v1", &[stopped]).version("v2", &origins[1]);
    let proxy =
        file.service("weights: { v1: 1 }").top("admin: { address: \"127.0.0.1:0\" }").start();
    assert_eq!(post(&mut proxy.admin(), "cutover", &json!({ "to": "v2" })).status, 200);
    let back = post(&mut proxy.admin(), "rollback", &json!({}));
    assert_eq!(back.status, 409, "{}", back.text());
    let detail = back.json()["detail"].as_str().expect("a detail").to_owned();
    assert!(detail.contains(&format!("{stopped}: Connection refused")), "{detail}");
    assert_eq!(proxy.get("/").text(), "v2");
    assert_eq!(post(&mut proxy.admin(), "rollback", &json!({ "force": true })).status, 200);
}

#[test]
fn weights_that_would_leave_nobody_who_can_be_reached_are_refused() {
    let origin = Origin::answering("v1");
    let dead = free_address();
    let proxy = to(&origin, &[dead]).start();
    // A share beside a version that serves is a canary that the verdict judges.
    assert_eq!(put(&proxy, &json!({ "weights": { "v2": "10%" } })).status, 200);
    let all = json!({ "weights": { "v2": "100%" } });
    assert_refused(&put(&proxy, &all), "weights.v2", &format!("{dead}: Connection refused"));
    assert_eq!(proxy.snapshot().services[0].share(0), 0.9, "nothing has moved");
    let (code, _, error) = command(&proxy, &["weights", "game-api", "v2=100%"]);
    assert_eq!((code, error.contains("--force")), (Some(65), true), "{error}");
    let (code, _, error) = command(&proxy, &["weights", "game-api", "v2=100%", "--force"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(proxy.snapshot().services[0].share(0), 0.0);
}
