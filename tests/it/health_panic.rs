//! Where most endpoints of a version are out, and what cannot be reached at all: what happens, what is shown.

use std::{collections::HashMap, net::TcpListener, time::Duration};

use serde_json::json;
use tidegate::registry::ErrorKind;

use crate::support::{
    Origin, Proxy, eventually,
    nobody::{refusing, swallowing},
    patient::{Patient, builder, served, shown, state},
};

/// The value of the series that `series` names whole.
fn gauge(proxy: &Proxy, series: &str) -> Option<f64> {
    let page = proxy.admin().get("/metrics").host("localhost").send();
    page.text().lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

const PANIC: &str = "tidegate_health_panic{service=\"game-api\",version=\"v1\"}";

/// All requests went to the tenth for half a minute, though the nine were away for a second only.
#[test]
fn nine_of_ten_that_refuse_for_a_moment_do_not_put_everything_on_the_tenth() {
    let nine: Vec<_> = (0..9).map(|_| refusing()).collect();
    let tenth = Patient::new("tenth");
    let mut endpoints: Vec<_> = nine.iter().map(|(address, _)| *address).collect();
    endpoints.push(tenth.origin.address);
    let proxy = builder("connect_timeout: 5s").version_at("v1", &endpoints).start();
    eventually("nobody is believed", || {
        assert!(served(&proxy, 20).iter().all(|name| name == "tenth"), "no request fails");
        shown(&proxy)["versions"][0]["health_panic"] == json!(true)
    });
    assert_eq!(gauge(&proxy, PANIC), Some(1.0));
    assert!(served(&proxy, 200).iter().all(|name| name == "tenth"));

    let serve = |socket: socket2::Socket| {
        socket.listen(128).expect("bound");
        Origin::start_at(TcpListener::from(socket), |call| call.answer(200, b"nine"))
    };
    let _nine: Vec<_> = nine.into_iter().map(|(_, socket)| serve(socket)).collect();
    let mut by_name = HashMap::new();
    for name in served(&proxy, 400) {
        *by_name.entry(name).or_insert(0) += 1;
    }
    assert!(by_name["tenth"] < 100, "{by_name:?}");
    eventually("all are back without a rest", || {
        served(&proxy, 20);
        (0..10).all(|endpoint| state(&proxy, 0, endpoint) == "serving")
    });
    let tenth = served(&proxy, 400).iter().filter(|name| *name == "tenth").count();
    assert!(tenth < 100, "nobody starts slowly who was never out of use: {tenth} of 400");
    assert_eq!(shown(&proxy)["versions"][0]["health_panic"], json!(false));
    assert_eq!(gauge(&proxy, PANIC), Some(0.0));
}

#[test]
fn checks_that_fail_at_most_endpoints_are_not_believed_unless_the_file_says_so() {
    for (threshold, is_used) in [("50%", true), ("0%", false)] {
        let patients = ["a", "b", "c"].map(Patient::new);
        let endpoints = patients.each_ref().map(|patient| patient.origin.address);
        let health = format!(
            "health: {{ http: {{}}, interval: 10ms, timeout: 10s, panic_threshold: {threshold} }}"
        );
        let proxy = builder(&health).version_at("v1", &endpoints).start();
        for patient in &patients[1..] {
            patient.ill.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        eventually("two are down", || [1, 2].iter().all(|n| state(&proxy, 0, *n) == "down"));
        let others = served(&proxy, 200).iter().filter(|name| *name != "a").count();
        assert_eq!(others > 50, is_used, "{threshold}: {others} of 200");
        assert_eq!(shown(&proxy)["versions"][0]["health_panic"], json!(is_used));
    }
}

/// One other endpoint was tried, and the request failed if that refused as well.
#[test]
fn a_request_of_which_nothing_was_sent_tries_several_endpoints() {
    let refusing: Vec<_> = (0..5).map(|_| refusing()).collect();
    let good = Patient::new("good");
    let mut endpoints: Vec<_> = refusing.iter().map(|(address, _)| *address).collect();
    endpoints.push(good.origin.address);
    let proxy = builder("health: { connect_faults: 0 }").version_at("v1", &endpoints).start();
    for _ in 0..30 {
        let answer = proxy.connect().post("/", b"a body").send();
        assert_eq!((answer.status, answer.text()), (200, "good"));
    }
    assert_eq!(good.players(), 30, "none was sent twice");
}

#[test]
fn silent_endpoints_cost_two_connect_timeouts_at_most() {
    let silent: Vec<_> = (0..6).map(|_| swallowing()).collect();
    let endpoints: Vec<_> = silent.iter().map(|(address, _)| *address).collect();
    let service = "connect_timeout: 200ms";
    let proxy = builder(service)
        .service("health: { connect_faults: 0 }")
        .version_at("v1", &endpoints)
        .start();
    let began = std::time::Instant::now();
    assert_eq!(proxy.connect().get("/").send().status, 504);
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert_eq!(proxy.errors("v1", ErrorKind::Connect), 2);
}

#[test]
fn an_only_endpoint_that_cannot_be_connected_is_seen() {
    let (address, socket) = refusing();
    let proxy = builder("connect_timeout: 1s").version_at("v1", &[address]).start();
    let up = format!(
        "tidegate_endpoint_up{{service=\"game-api\",version=\"v1\",endpoint=\"{address}\"}}"
    );
    assert_eq!(gauge(&proxy, &up), Some(1.0));
    let endpoint = || shown(&proxy)["versions"][0]["endpoints"][0].clone();
    eventually("it is shown", || {
        assert_eq!(proxy.connect().get("/").send().status, 502);
        endpoint()["reachable"] == json!(false)
    });
    assert_eq!((gauge(&proxy, &up), &endpoint()["state"]), (Some(0.0), &json!("serving")));
    let mut admin = proxy.admin();
    let events = admin.get("/v1/events").host("localhost").header("Accept", "application/json");
    let events = events.send().json();
    let kinds: Vec<_> = events["events"].as_array().expect("a list").iter().collect();
    let told = |kind: &str| kinds.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!((told("endpoint_unreachable"), told("endpoint_reached")), (1, 0));
    socket.listen(128).expect("bound");
    let _origin = Origin::start_at(TcpListener::from(socket), |call| call.answer(200, b"a"));
    eventually("it is back", || {
        served(&proxy, 1);
        endpoint()["reachable"] == json!(true)
    });
    assert_eq!(gauge(&proxy, &up), Some(1.0));
}

#[test]
fn a_name_that_is_not_resolved_is_seen() {
    let a = Patient::new("a");
    let good = format!("'localhost:{}'", a.origin.address.port());
    let proxy = builder("connect_timeout: 1s")
        .version_named("v1", &good)
        .version_named("v2", "nowhere.invalid:80")
        .start();
    eventually("it was asked for", || {
        gauge(&proxy, "tidegate_name_resolved{name=\"nowhere.invalid\"}") == Some(0.0)
    });
    assert_eq!(gauge(&proxy, "tidegate_name_resolved{name=\"localhost\"}"), Some(1.0));
    let shown = shown(&proxy);
    assert_eq!(shown["versions"][0]["unresolved"], json!({}));
    let why = shown["versions"][1]["unresolved"]["nowhere.invalid"].as_str();
    assert!(why.is_some_and(|why| !why.is_empty()), "{shown}");
}
