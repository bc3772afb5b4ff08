//! Endpoints that are ejected, for what they fail at or by word.

use std::{sync::atomic::Ordering::SeqCst, thread, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Proxy, eventually,
    patient::{Patient, QUICK, at, builder, metric, post, served, shown, state},
};

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
        Some(0.0)
    );
    assert_eq!(post(&old, "reinstate", &word).0, 200);
    let carried = old.controller().carried();
    new.controller().inherit(carried);
    assert_eq!(state(&new, 0, 1), "serving");
}
