//! After a weight change was acknowledged, no request that begins later is assigned by the old weights,
//! on any worker.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
};

use crate::support::{Client, Origin, Proxy, SetOnDrop, eventually};

/// Workers, each on a core of its own where there are so many.
const WORKERS: u16 = 4;

/// Clients, each with a connection of its own; the acceptor spreads them evenly.
const CLIENTS: usize = 8;

/// Changes from one version to the other and back.
const CHANGES: u64 = 200;

/// The version that has all weight after change number `change`.
fn version_after(change: u64) -> &'static str {
    if change.is_multiple_of(2) { "v1" } else { "v2" }
}

/// Changes the weights under load by `change`, which returns when the change is acknowledged, and
/// holds every answer against the changes that were begun and acknowledged around it.
fn assert_in_force_once_acknowledged(proxy: &Proxy, change: impl Fn(&Proxy, &'static str)) {
    let (begun, acknowledged) = (AtomicU64::new(0), AtomicU64::new(0));
    let ended = AtomicBool::new(false);
    // The last change that each client has seen in force.
    let seen: Vec<AtomicU64> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    let ask = |seen: &AtomicU64| {
        let mut client = proxy.connect();
        while !ended.load(SeqCst) {
            let before = acknowledged.load(SeqCst);
            let answer = client.get("/").send();
            let after = begun.load(SeqCst);
            let got = answer.text();
            let allowed = (before..=after).any(|change| version_after(change) == got);
            assert!(allowed, "{got} answered though change {before} was in force until after it");
            seen.store(before, SeqCst);
        }
    };
    thread::scope(|scope| {
        let _end = SetOnDrop(&ended);
        let clients: Vec<_> = seen.iter().map(|seen| scope.spawn(move || ask(seen))).collect();
        for number in 1..=CHANGES {
            begun.store(number, SeqCst);
            change(proxy, version_after(number));
            acknowledged.store(number, SeqCst);
            eventually("every client has asked since", || {
                assert!(!clients.iter().any(|client| client.is_finished()), "a client failed");
                seen.iter().all(|seen| seen.load(SeqCst) == number)
            });
        }
    });
}

fn two_versions(origins: &[Origin; 2]) -> crate::support::proxy::Builder {
    Proxy::builder()
        .workers(WORKERS)
        .version("v1", &origins[0])
        .version("v2", &origins[1])
        .service("weights: { v1: 1 }")
}

#[test]
fn weights_are_in_force_everywhere_once_the_controller_has_returned() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = two_versions(&origins).start();
    assert_in_force_once_acknowledged(&proxy, |proxy, version| {
        proxy.set_weights(&[(version, 1.0)]);
    });
}

#[test]
fn weights_are_in_force_everywhere_once_the_admin_api_has_answered() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = two_versions(&origins).top("admin: { address: \"127.0.0.1:0\" }").start();
    let admin = Client::connect(proxy.app().admin.expect("an admin endpoint"));
    let admin = std::sync::Mutex::new(admin);
    assert_in_force_once_acknowledged(&proxy, |_, version| {
        let body = serde_json::json!({ "weights": { version: "100%" }, "reason": "test" });
        let body = body.to_string();
        let mut admin = admin.lock().expect("no panic");
        let request = admin.request("PUT", "/v1/services/game-api/weights").host("127.0.0.1");
        let request = request.header("Content-Type", "application/json").body(body.as_bytes());
        let answer = request.send();
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
}

/// `v42: 50` alone was all players, whom nobody meant to move.
#[test]
fn a_number_alone_moves_nobody_and_a_share_is_of_all_players() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
    let builder = builder.service("weights: { v1: 95, v2: 5 }");
    let proxy = builder.top("admin: { address: \"127.0.0.1:0\" }").start();
    let put = |query: &str, body: serde_json::Value| {
        let (target, body) = (format!("/v1/services/game-api/weights{query}"), body.to_string());
        let mut admin = proxy.admin();
        let request = admin.request("PUT", &target).host("127.0.0.1").body(body.as_bytes());
        let answer = request.send();
        (answer.status, answer.json())
    };
    let (status, problem) = put("", serde_json::json!({ "weights": { "v2": 50 } }));
    let detail = problem["detail"].as_str().expect("a detail");
    assert_eq!((status, &problem["field"]), (422, &"weights".into()));
    assert!(detail.contains("v1 95% -> 0%, v2 5% -> 100%"), "{detail}");
    assert!(detail.contains("`v2=50%`") && detail.contains("`only`"), "{detail}");
    assert_eq!(proxy.snapshot().generation, 1);

    let half = serde_json::json!({ "weights": { "v2": "50%" } });
    let (status, preview) = put("?dry_run=true", half.clone());
    let shares = serde_json::json!({
        "before": { "v1": 0.95, "v2": 0.05 }, "after": { "v1": 0.5, "v2": 0.5 },
    });
    assert_eq!((status, &preview["shares"]), (200, &shares));
    let (_, answer) = put("", half);
    assert_eq!((&answer["shares"], &answer["generation"]), (&shares, &2.into()));
    assert_eq!(proxy.snapshot().services[0].share(1), 0.5);
    let (status, _) = put("", serde_json::json!({ "weights": { "v2": 50 }, "only": true }));
    assert_eq!((status, proxy.snapshot().services[0].share(1)), (200, 1.0));
}

/// `v1=60% v2=40%` took all players from a third version that nobody had named, and the hint for numbers was to
/// write just that.
#[test]
fn shares_that_leave_nothing_to_a_version_that_is_not_named_are_refused() {
    let origins = [Origin::answering("v1"), Origin::answering("v2"), Origin::answering("v3")];
    let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
    let builder = builder.version("v3", &origins[2]).service("weights: { v1: 50, v2: 45, v3: 5 }");
    let proxy = builder.top("admin: { address: \"127.0.0.1:0\" }").start();
    let put = |body: serde_json::Value| {
        let (target, body) = ("/v1/services/game-api/weights", body.to_string());
        let mut admin = proxy.admin();
        let request = admin.request("PUT", target).host("127.0.0.1").body(body.as_bytes());
        let answer = request.send();
        (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    for (weights, hint) in [
        (serde_json::json!({ "v1": "60%", "v2": "40%" }), "with `v3=0%` for no players"),
        (serde_json::json!({ "v1": 60, "v2": 40 }), "with `v3=0` for no players"),
    ] {
        let (status, detail) = put(serde_json::json!({ "weights": weights }));
        assert_eq!(status, 422, "{detail}");
        let told =
            "`v3` would get no players, since the weights name only `v1`, `v2`: v1 50% -> 60%";
        assert!(detail.starts_with(told), "{detail}");
        assert!(detail.contains(hint) && !detail.contains("`v1=60%"), "{detail}");
    }
    let only = serde_json::json!({ "weights": { "v1": "60%", "v2": "40%" }, "only": true });
    assert_eq!(put(only), (200, String::new()));
    assert_eq!(proxy.snapshot().services[0].share(2), 0.0);
}

#[test]
fn a_head_that_ends_after_a_change_is_assigned_by_it() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = two_versions(&origins).start();
    let mut client = proxy.connect();
    for (version, n) in [("v2", 1.0), ("v1", 2.0), ("v2", 3.0)] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n");
        proxy.set_weights(&[(version, n)]);
        client.send("\r\n");
        assert_eq!(client.answer().text(), version);
    }
}

#[test]
fn a_request_under_way_keeps_the_version_that_it_began_with() {
    let (signal, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::start(move |call| {
        // Fails if the test has failed first, and then nobody reads the answer.
        let _ = wait.lock().expect("no panic").recv();
        call.answer(200, b"v1")
    });
    let origins = [slow, Origin::answering("v2")];
    let proxy = two_versions(&origins).start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origins[0].await_requests(1);
    proxy.set_weights(&[("v2", 1.0)]);
    assert_eq!(proxy.get("/").text(), "v2");
    signal.send(()).expect("the origin waits");
    assert_eq!(client.answer().text(), "v1");
    assert_eq!(client.get("/").send().text(), "v2");
}

#[test]
fn weights_that_move_nothing_leave_the_generation() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let proxy = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]).start();
    proxy.set_weights(&[("v1", 3.0), ("v2", 1.0)]);
    let before = proxy.snapshot().generation;
    proxy.set_weights(&[("v1", 3.0), ("v2", 1.0)]);
    assert_eq!(proxy.snapshot().generation, before);
    proxy.set_weights(&[("v1", 1.0), ("v2", 1.0)]);
    assert!(proxy.snapshot().generation > before);
}
