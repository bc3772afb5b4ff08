//! No change leaves a service that nobody serves: not by the API, not by a file, not by a takeover.

use serde_json::{Value, json};

use crate::support::{Origin, Proxy, eventually, nobody::refusing, proxy::Builder};

fn origins() -> [Origin; 2] {
    [Origin::answering("v1"), Origin::answering("v2")]
}

fn two_versions(origins: &[Origin; 2]) -> Builder {
    let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
    builder.top("admin: { address: 127.0.0.1:0 }")
}

/// A proxy with a file that shares players evenly, whose second version is then ejected.
fn without_v2(origins: &[Origin; 2]) -> (Builder, Proxy) {
    let file = two_versions(origins).service("weights: { v1: 50, v2: 50 }");
    let proxy = file.start_with_file();
    assert_eq!(eject(&proxy, "v2").0, 200);
    (file, proxy)
}

/// A change of the service, asked for at `what` below it.
fn change(proxy: &Proxy, method: &str, what: &str, body: &Value) -> (u16, Value) {
    let (target, body) = (format!("/v1/services/game-api/{what}"), body.to_string());
    let mut admin = proxy.admin();
    let answer = admin.request(method, &target).host("localhost").body(body.as_bytes()).send();
    (answer.status, answer.json())
}

fn eject(proxy: &Proxy, version: &str) -> (u16, Value) {
    change(proxy, "POST", "eject", &json!({ "version": version, "reason": "pays twice" }))
}

fn reinstate(proxy: &Proxy, version: &str) -> (u16, Value) {
    change(proxy, "POST", "reinstate", &json!({ "version": version }))
}

fn weigh(proxy: &Proxy, v1: u32, v2: u32) -> (u16, Value) {
    change(proxy, "PUT", "weights", &json!({ "weights": { "v1": v1, "v2": v2 } }))
}

fn get(proxy: &Proxy, path: &str) -> Value {
    proxy.admin().get(path).host("localhost").send().json()
}

fn page(proxy: &Proxy, path: &str) -> (u16, String) {
    let answer = proxy.admin().get(path).host("localhost").send();
    (answer.status, answer.text().to_owned())
}

/// Who answers players of every cohort.
fn served_by(proxy: &Proxy) -> Vec<String> {
    let mut client = proxy.connect();
    let ask = |player: u32| {
        let answer = client.get("/").header("x-player-id", &player.to_string()).send();
        answer.text().to_owned()
    };
    let mut all: Vec<String> = (0..50).map(ask).collect();
    all.sort();
    all.dedup();
    all
}

/// A pipeline that did not know of an ejection went on with its next step, and every request was 503.
#[test]
fn weights_on_an_ejected_version_alone_are_refused_with_the_way_out() {
    let origins = origins();
    let proxy = two_versions(&origins).service("weights: { v1: 50, v2: 50 }").start();
    let (_, answer) = eject(&proxy, "v2");
    assert_eq!(answer["ejected"][0]["version"], "v2");
    for dry_run in ["", "?dry_run=true"] {
        let body = json!({ "weights": { "v1": 0, "v2": 100 } });
        let (status, problem) = change(&proxy, "PUT", &format!("weights{dry_run}"), &body);
        assert_eq!((status, &problem["field"]), (409, &json!("weights.v2")), "{problem}");
        let detail = problem["detail"].as_str().expect("a detail");
        for part in ["`v2` is ejected since 20", "pays twice", "tidegate reinstate game-api v2"] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
    }
    assert_eq!(served_by(&proxy), ["v1"]);
    let (status, answer) = weigh(&proxy, 1, 99);
    assert_eq!((status, &answer["shares"]["after"]), (200, &json!({ "v1": 1.0, "v2": 0.0 })));
    assert_eq!(answer["ejected"][0]["reason"], "pays twice");
    let (_, answer) = reinstate(&proxy, "v2");
    assert_eq!(answer["ejected"], json!([]));
    assert_eq!(weigh(&proxy, 0, 100).0, 200);
    assert_eq!(served_by(&proxy), ["v2"]);
}

#[test]
fn weights_on_a_version_without_an_endpoint_alone_are_refused() {
    let (origin, (nobody, _held)) = (Origin::answering("v1"), refusing());
    let builder = Proxy::builder().version("v1", &origin).version_at("v2", &[nobody]);
    let builder = builder.service("health: { tcp: {}, interval: 10ms }");
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    eventually("v2 is down", || {
        get(&proxy, "/v1/services/game-api")["versions"][1]["available"] == false
    });
    let (status, problem) = weigh(&proxy, 0, 100);
    assert_eq!((status, &problem["field"]), (409, &json!("weights.v2")), "{problem}");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.contains(&format!("no endpoint of `v2` serves ({nobody} is down)")), "{detail}");
    assert_eq!(weigh(&proxy, 50, 50).0, 200);
    // Without v1 all would be at v2.
    assert_eq!(eject(&proxy, "v1").0, 409);
    assert_eq!(served_by(&proxy), ["v1"]);
}

/// A file that put everything on an ejected version was taken over, and every request was 503.
#[test]
fn a_file_with_an_ejected_version_alone_serves_the_baseline_and_is_an_error() {
    let origins = origins();
    let (_, proxy) = without_v2(&origins);
    proxy.write(&two_versions(&origins).service("weights: { v2: 100 }").text());
    eventually("it is noticed", || proxy.reloads().1 == 1);
    assert_eq!((served_by(&proxy), proxy.reloads().0), (vec!["v1".to_owned()], 0));

    let service = get(&proxy, "/v1/services/game-api");
    let refused = service["weights_refused"].as_str().expect("told");
    assert!(refused.contains("`v2` is ejected since 20"), "{refused}");
    assert_eq!(
        (&service["available"], &service["versions"][0]["share"]),
        (&json!(true), &json!(1.0))
    );
    let reload = &get(&proxy, "/v1/status")["reload"]["error"];
    assert_eq!(reload["in_force"], true, "{reload}");
    let error = &reload["message"];
    assert!(error.as_str().is_some_and(|e| e.contains("so v1 serves: `v2` is ejected")), "{error}");
    let (_, metrics) = page(&proxy, "/metrics");
    assert!(
        metrics.contains("tidegate_config_reloads_total{result=\"rejected\"} 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("tidegate_weights_refused{service=\"game-api\"} 1\n"), "{metrics}");
    let told = |kind: &str| {
        let controller = proxy.controller();
        let mut events = controller.events().since(0);
        events.any(|e| e.kind.label() == kind && e.matter.service.as_deref() == Some("game-api"))
    };
    assert!(told("configuration_rejected"));

    // The weights of the file apply as soon as somebody serves by them.
    reinstate(&proxy, "v2");
    assert_eq!(served_by(&proxy), ["v2"]);
    assert_eq!(get(&proxy, "/v1/status")["reload"]["error"], Value::Null);
    assert_eq!(get(&proxy, "/v1/services/game-api")["weights_refused"], Value::Null);
    assert!(told("weights"));
}

/// The answer, the dry run and the event said 0 %, and everybody was moved at once.
#[test]
fn a_reinstatement_tells_the_share_by_the_weights_that_apply_again() {
    let origins = origins();
    let (_, proxy) = without_v2(&origins);
    proxy.write(&two_versions(&origins).service("weights: { v2: 100 }").text());
    eventually("it is refused", || proxy.reloads().1 == 1);
    // The answer to another change says it, too.
    let (_, answer) = eject(&proxy, "v2");
    assert_eq!(answer["ejected"][0]["share_when_reinstated"], 1.0, "{answer}");
    let body = json!({ "version": "v2" });
    for dry_run in ["?dry_run=true", ""] {
        let (_, answer) = change(&proxy, "POST", &format!("reinstate{dry_run}"), &body);
        assert_eq!(answer["share"], 1.0, "{answer}");
    }
    assert_eq!(served_by(&proxy), ["v2"]);
    let controller = proxy.controller();
    let mut events = controller.events().since(0);
    let event = events.find(|event| event.kind.label() == "reinstated").expect("an event");
    assert_eq!(event.matter.share, Some(1.0));
}

#[test]
fn a_file_whose_baseline_is_ejected_goes_on_with_who_served() {
    let origins = origins();
    let (file, proxy) = without_v2(&origins);
    let text = file.text().replace("baseline: v1", "baseline: v2");
    proxy.write(&text.replace("{ v1: 50, v2: 50 }", "{ v2: 100 }"));
    eventually("it is noticed", || proxy.reloads().1 == 1);
    assert_eq!(get(&proxy, "/v1/services/game-api")["baseline"], "v2");
    assert_eq!(served_by(&proxy), ["v1"]);
    // Weights that an operator sets go ahead of who stands in.
    assert_eq!(weigh(&proxy, 10, 90).0, 200);
    assert_eq!(get(&proxy, "/v1/services/game-api")["weights_refused"], Value::Null);
    assert_eq!(served_by(&proxy), ["v1"]);
}

#[test]
fn a_file_that_has_only_ejected_versions_changes_nothing() {
    let origins = origins();
    let (_, proxy) = without_v2(&origins);
    let only = Proxy::builder().version("v2", &origins[1]).top("admin: { address: 127.0.0.1:0 }");
    proxy.write(&only.text());
    eventually("it is refused", || proxy.reloads().1 == 1);
    assert_eq!(served_by(&proxy), ["v1"]);
    let error = get(&proxy, "/v1/status")["reload"]["error"]["message"].clone();
    assert!(
        error
            .as_str()
            .is_some_and(|e| e.starts_with("services.game-api: every version is ejected")),
        "{error}"
    );
}

#[test]
fn who_takes_over_serves_even_if_its_file_has_only_what_is_ejected() {
    let origins = origins();
    let old = two_versions(&origins).service("weights: { v1: 50, v2: 50 }").start();
    eject(&old, "v2");
    let moved = two_versions(&origins).service("weights: { v2: 100 }").start();
    let only = Proxy::builder().version("v2", &origins[1]);
    let only = only.top("admin: { address: 127.0.0.1:0 }").start();
    for _ in 0..2 {
        moved.controller().inherit(old.controller().carried());
        only.controller().inherit(old.controller().carried());
    }
    assert_eq!(
        (served_by(&moved), served_by(&only)),
        (vec!["v1".to_owned()], vec!["v2".to_owned()])
    );
    assert!(get(&moved, "/v1/services/game-api")["weights_refused"].is_string());
    let events = moved
        .controller()
        .events()
        .since(0)
        .filter(|e| e.matter.reason.contains("v1 serves"))
        .count();
    assert_eq!(events, 1, "told once");
}

#[test]
fn a_service_without_anybody_is_seen() {
    let (nobody, _held) = refusing();
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version_at("v1", &[nobody]);
    let builder = builder.service("health: { tcp: {}, interval: 10ms }");
    let text = builder.top("admin: { address: 127.0.0.1:0 }").text();
    let other = format!(
        "services:\n  other: {{ baseline: v1, versions: {{ v1: {{ endpoints: [ \"{}\" ] }} }} }}\n",
        origin.address
    );
    let text = text.replace("services:\n", &other);
    let proxy = Proxy::start(&text);
    assert_eq!(page(&proxy, "/readyz").0, 200);
    eventually("v1 is down", || page(&proxy, "/readyz").1 == "ready\nnobody serves: game-api\n");
    let (_, metrics) = page(&proxy, "/metrics");
    assert!(metrics.contains("tidegate_service_up{service=\"game-api\"} 0\n"), "{metrics}");
    assert!(metrics.contains("tidegate_service_up{service=\"other\"} 1\n"), "{metrics}");
    assert_eq!(get(&proxy, "/v1/services/game-api")["available"], false);
    // Where nobody serves before, a change is not what takes anybody away.
    let same = json!({ "weights": { "v1": 2 } });
    assert_eq!(change(&proxy, "PUT", "weights", &same).0, 200);
}

#[test]
fn who_has_no_address_for_any_service_is_not_ready() {
    let builder = Proxy::builder().version_named("v1", "\"nowhere.invalid:80\"");
    let builder = builder.top("resolver: { servers: [ 127.0.0.1:1 ] }");
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let why = "not ready: no service has an address\nnobody serves: game-api\ngame-api v1: ";
    eventually("the name was asked for", || {
        let (status, text) = page(&proxy, "/readyz");
        let reason = text.strip_prefix(why).unwrap_or_else(|| panic!("{status}: {text}"));
        status == 503 && reason.starts_with("nowhere.invalid is not resolved: ")
    });
    assert_eq!(page(&proxy, "/healthz").0, 200);
}

/// A region that a rule sends to the canary went on meeting what everybody else was saved from.
#[test]
fn an_ejected_version_serves_nobody_by_rule_or_route_unless_they_say_so() {
    let origins = origins();
    let stage = |on_eject: &str| {
        let rule = format!("{{ match: {{ headers: {{ x-tester: me }} }}, version: v2{on_eject} }}");
        let builder = two_versions(&origins).service("weights: { v1: 1 }");
        let builder = builder.service(&format!("rules: [ {rule} ]")).route("name: all");
        builder.route(&format!("match: {{ path: /canary/* }}, version: v2{on_eject}")).start()
    };
    for (on_eject, during) in [("", "v1"), (", on_eject: move", "v1"), (", on_eject: keep", "v2")] {
        let proxy = stage(on_eject);
        let mut client = proxy.connect();
        let mut by_both = || {
            let by_rule = client.get("/").header("x-tester", "me").send().text().to_owned();
            (by_rule, client.get("/canary/x").send().text().to_owned())
        };
        let both = |version: &str| (version.to_owned(), version.to_owned());
        assert_eq!(by_both(), both("v2"));
        assert_eq!(eject(&proxy, "v2").0, 200);
        assert_eq!(by_both(), both(during), "{on_eject}");
        assert_eq!(reinstate(&proxy, "v2").0, 200);
        assert_eq!(by_both(), both("v2"));
    }
}

#[test]
fn who_ejected_what_when_and_why_is_known_after_a_takeover_too() {
    let origins = origins();
    let both = [origins[0].address, origins[1].address];
    let builder = Proxy::builder().version_at("v1", &both).version("v2", &origins[1]);
    let builder = builder.top("admin: { address: 127.0.0.1:0 }");
    let (old, new) = (builder.start(), builder.start());
    eject(&old, "v2");
    let address = origins[0].address.to_string();
    let endpoint = json!({ "version": "v1", "endpoint": address, "reason": "disk full" });
    let (status, answer) = change(&old, "POST", "eject", &endpoint);
    assert_eq!((status, &answer["ejected"][0]["version"]), (200, &json!("v2")));
    let known = |proxy: &Proxy| {
        let versions = get(proxy, "/v1/services/game-api")["versions"].take();
        (versions[0]["endpoints"][0]["ejection"].clone(), versions[1]["ejection"].clone())
    };
    let (of_endpoint, of_version) = known(&old);
    for (ejection, reason) in [(&of_endpoint, "disk full"), (&of_version, "pays twice")] {
        assert_eq!((&ejection["by"], &ejection["reason"]), (&json!("anonymous"), &json!(reason)));
        let at = ejection["at"].as_str().expect("a time");
        assert!(humantime::parse_rfc3339(at).is_ok(), "{at}");
    }
    let first = old.controller().carried();
    new.controller().inherit(first);
    new.controller().inherit(old.controller().hand_over());
    assert_eq!(known(&new), (of_endpoint, of_version));
    // Each is told once, as it was told by the process before, and as carried over.
    let told = |proxy: &Proxy| {
        let events: Vec<_> = proxy.controller().events().since(0).cloned().collect();
        let out = events.into_iter().filter(|event| event.kind.label().ends_with("ejected"));
        let mut all: Vec<_> = out
            .map(|event| {
                let matter = event.matter.clone();
                let who = (matter.by, matter.reason, matter.endpoint);
                (event.kind.label(), event.at.clone(), who, matter.carried_over)
            })
            .collect();
        all.sort();
        all
    };
    let before = told(&old);
    assert_eq!(before.len(), 2);
    for (new, old) in told(&new).iter().zip(&before) {
        let time = |at: &str| humantime::parse_rfc3339(at).expect("a time");
        let apart = time(&new.1).duration_since(time(&old.1)).unwrap_or_else(|e| e.duration());
        assert!(apart.as_millis() <= 20, "{new:?} {old:?}");
        assert_eq!((new.0, &new.2, new.3, old.3), (old.0, &old.2, true, false));
    }
    assert_eq!(told(&new).len(), 2);
    let back = json!({ "version": "v1", "endpoint": address });
    assert_eq!(change(&new, "POST", "reinstate", &back).0, 200);
    assert_eq!(known(&new).0, Value::Null);
}
