//! The file while the process runs: what it changes, and what it leaves alone.

use std::{
    fmt::Write,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Origin, Proxy, SetOnDrop, eventually, process::Process, proxy::Builder};

fn two_versions(origins: &[Origin; 2]) -> Builder {
    Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1])
}

fn origins() -> [Origin; 2] {
    [Origin::answering("v1"), Origin::answering("v2")]
}

#[test]
fn a_changed_file_takes_effect_and_connections_survive() {
    let origins = origins();
    let file = two_versions(&origins);
    let proxy = file.clone().service("weights: { v1: 1 }").start_with_file();
    let mut client = proxy.connect();
    assert_eq!(client.get("/").send().text(), "v1");
    proxy.write(&file.clone().service("weights: { v2: 1 }").text());
    eventually("the new weights apply", || client.get("/").send().text() == "v2");
    let routed =
        file.route("match: { path: /old/* }, version: v1").route("name: rest, version: v2");
    proxy.write(&routed.text());
    eventually("the new route applies", || client.get("/old/x").send().text() == "v1");
    assert_eq!(client.get("/x").send().text(), "v2");
    // One client connection lived through it all, and so did the endpoints'.
    assert_eq!((origins[0].connections(), origins[1].connections()), (1, 1));
}

#[test]
fn a_bad_file_changes_nothing_and_is_counted() {
    let origins = origins();
    let file = two_versions(&origins);
    let proxy = file.clone().service("weights: { v1: 1 }").start_with_file();
    let mut client = proxy.connect();
    let generation = proxy.snapshot().generation;
    let good = file.clone().service("weights: { v2: 1 }").text();
    for (number, bad) in [
        file.clone().service("weights: { v3: 1 }").text(),
        good.replace("routes:", "roots:"),
        good.replace("v2: 1 }", "v2: 1"),
        String::new(),
    ]
    .iter()
    .enumerate()
    {
        proxy.write(bad);
        eventually("refused", || proxy.reloads() == (0, number as u64 + 1));
        assert_eq!(client.get("/").send().text(), "v1");
        assert_eq!(proxy.snapshot().generation, generation);
    }
    assert!(proxy.app().observatory().controller().reloads().error.is_some());
    proxy.write(&good);
    eventually("a good file applies again", || client.get("/").send().text() == "v2");
    assert!(proxy.app().observatory().controller().reloads().error.is_none());
}

#[test]
fn a_file_that_vanishes_is_refused_until_it_is_back() {
    let origins = origins();
    let file = two_versions(&origins);
    let proxy = file.start_with_file();
    let error = || proxy.controller().reloads().error.as_ref().map(ToString::to_string);
    proxy.remove_file();
    eventually("refused", || proxy.reloads() == (0, 1));
    assert!(error().is_some_and(|error| error.contains("cannot be read")), "{:?}", error());
    assert_eq!(proxy.get("/").status, 200);
    proxy.write(&file.text());
    eventually("as before", || error().is_none());
    assert_eq!(proxy.reloads(), (1, 1));
}

#[test]
fn a_change_that_waits_for_the_next_start_is_named_until_it_is_undone() {
    let origins = origins();
    let file = two_versions(&origins);
    let proxy = file.start_with_file();
    let waiting = || proxy.controller().reloads().waiting.clone();
    let moved = file.clone().listen(([127, 0, 0, 1], 1).into()).workers(2);
    proxy.write(&moved.text());
    eventually("taken over", || proxy.reloads() == (1, 0));
    assert_eq!(waiting(), ["workers", "listen"]);
    proxy.write(&moved.top("log: { level: warn }").text());
    eventually("taken over", || proxy.reloads() == (2, 0));
    assert_eq!(waiting(), ["workers", "listen"], "another change starts no process");
    proxy.write(&file.text());
    eventually("nothing waits", || waiting().is_empty());
}

#[test]
fn weights_set_while_running_stay_until_the_files_own_change() {
    let origins = origins();
    let file = two_versions(&origins);
    let with = |weights: &str, more: &str| {
        let file = file.clone().service(&format!("weights: {{ {weights} }}"));
        file.route("name: rest").route(more).text()
    };
    let proxy = Proxy::start_with_file(&with("v1: 1", "match: { path: /a }"));
    let mut client = proxy.connect();
    proxy.set_weights(&[("v2", 1.0)]);
    assert_eq!(client.get("/").send().text(), "v2");
    proxy.write(&with("v1: 1", "match: { path: /b }, version: v1"));
    eventually("the new route applies", || client.get("/b").send().text() == "v1");
    assert_eq!(client.get("/").send().text(), "v2", "the file's weights are as before");
    proxy.write(&with("v1: 2", "match: { path: /b }, version: v1"));
    eventually("the file's new weights apply", || client.get("/").send().text() == "v1");
    // Nobody was told that what an operator had set was gone.
    let last = {
        let controller = proxy.controller();
        controller.events().since(0).last().expect("an event").matter.reason.clone()
    };
    let told = "; game-api: v1 0% -> 100%, v2 100% -> 0%; the weights of the file replace weights set by test at 20";
    assert!(last.contains(told), "{last}");
}

/// A version that left the file and came back, as when a file is reverted, served again, although an operator
/// had ejected it.
#[test]
fn a_version_that_leaves_the_file_and_comes_back_is_still_ejected() {
    let origins = origins();
    let alone = Proxy::builder().version("v1", &origins[0]);
    let alone = alone.top("admin: { address: \"127.0.0.1:0\" }");
    let both = alone.clone().version("v2", &origins[1]).service("weights: { v1: 1, v2: 1 }");
    let proxy = both.start_with_file();
    let post = |what: &str, body: Value| {
        let target = format!("/v1/services/game-api/{what}");
        let body = body.to_string();
        let answer = proxy.admin().post(&target, body.as_bytes()).host("localhost").send();
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let get = |path: &str| proxy.admin().get(path).host("localhost").send().text().to_owned();
    let events = || -> Vec<Value> {
        let mut admin = proxy.admin();
        let request = admin.get("/v1/events").host("localhost");
        let list = request.header("Accept", "application/json").send().json();
        list["events"].as_array().expect("a list").clone()
    };
    let address = origins[1].address.to_string();
    let other = "10.255.255.1:1";
    let wide = both
        .clone()
        .text()
        .replace(&format!("\"{address}\""), &format!("\"{address}\", \"{other}\""));
    proxy.write(&wide);
    eventually("taken over", || proxy.reloads() == (1, 0));
    post("eject", json!({ "version": "v2", "endpoint": other, "reason": "disk full" }));
    post("eject", json!({ "version": "v2", "reason": "pays twice" }));

    proxy.write(&alone.text());
    eventually("taken over", || proxy.reloads() == (2, 0));
    let last = events().pop().expect("an event");
    let told = last["reason"].as_str().expect("a reason");
    let left = "game-api v2 left the file while ejected, since 20";
    assert!(told.contains(left) && told.contains(" by anonymous (pays twice)"), "{told}");
    assert!(told.ends_with(": it stays ejected should it come back"), "{told}");
    assert!(proxy.controller().ejections().is_empty());
    for path in ["/v1/services", "/v1/services/game-api", "/metrics"] {
        assert!(!get(path).contains("v2"), "{path} shows it");
    }
    let dry = json!({ "weights": { "v1": 1 } }).to_string();
    let target = "/v1/services/game-api/weights?dry_run=true";
    let mut admin = proxy.admin();
    let answer = admin.request("PUT", target).host("localhost").body(dry.as_bytes()).send();
    assert_eq!(answer.json()["ejected"], json!([]));
    assert!(!proxy.controller().events().alerts().any(), "its alerts have ended");
    // The comparisons begin anew; it compared names that are in no file, and published a snapshot each time.
    let generation = proxy.snapshot().generation;
    proxy.controller().resume_evaluating();
    assert_eq!(proxy.snapshot().generation, generation);

    proxy.write(&wide);
    eventually("taken over", || proxy.reloads() == (3, 0));
    assert!(proxy.snapshot().services[0].versions[1].ejected);
    let last = events().pop().expect("an event");
    assert_eq!((&last["kind"], &last["version"]), (&json!("ejected"), &json!("v2")));
    assert_eq!((&last["reason"], &last["carried_over"]), (&json!("pays twice"), &json!(true)));
    assert!(proxy.controller().events().alerts().any(), "it is told again");
    let mut client = proxy.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").send().text(), "v1");
    }
    post("reinstate", json!({ "version": "v2" }));
    assert!(!proxy.snapshot().services[0].versions[1].ejected);
    let service: Value = serde_json::from_str(&get("/v1/services/game-api")).expect("JSON");
    let endpoint = &service["versions"][1]["endpoints"][1];
    let shown = (&endpoint["address"], &endpoint["state"], &endpoint["ejection"]["reason"]);
    assert_eq!(shown, (&json!(other), &json!("ejected"), &json!("disk full")));
}

#[test]
fn counters_survive_a_reload() {
    let origins = origins();
    let file = two_versions(&origins);
    let proxy = file.start_with_file();
    let mut client = proxy.connect();
    let started = || {
        let version = &proxy.snapshot().services[0].versions[0];
        version.state.started()
    };
    for _ in 0..5 {
        client.get("/").send();
    }
    proxy.write(&file.route("name: renamed").text());
    eventually("taken over", || proxy.reloads().0 == 1);
    client.get("/").send();
    assert_eq!(started(), 6);
}

/// As many routes as a large platform has, in the real program, replaced while clients ask.
#[test]
fn ten_thousand_routes_are_replaced_under_load_without_a_failed_request() {
    const ROUTES: usize = 10_000;
    const RELOADS: usize = 2;
    let origins = origins();
    let text = |marker: usize, address| {
        let mut text = two_versions(&origins).workers(2).listen(address).text();
        let version = marker % 2 + 1;
        for n in 0..ROUTES {
            let path = format!("/game-{n}/{{id}}/bets-{}", n % (marker + 7));
            writeln!(
                text,
                "  - {{ service: game-api, name: r{n}, match: {{ path: \"{path}\" }} }}"
            )
            .expect("memory");
        }
        let route = format!("name: marker, match: {{ path: /marker }}, version: v{version}");
        writeln!(text, "  - {{ service: game-api, {route} }}").expect("memory");
        text
    };
    let process = Process::spawn(|address| text(0, address));
    let (ended, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _end = SetOnDrop(&ended);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = process.connect();
                while !ended.load(SeqCst) {
                    let n = fastrand::usize(..ROUTES);
                    let answer = client.get(&format!("/game-{n}/7/other")).send();
                    assert_eq!(answer.text(), "v1");
                    asked.fetch_add(1, SeqCst);
                    // Leaves the machine time to read the file.
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let mut client = process.connect();
        for marker in 1..=RELOADS {
            process.write(&text(marker, process.address));
            let version = ["v1", "v2"][marker % 2];
            eventually("the new routes apply", || client.get("/marker").send().text() == version);
        }
    });
    assert!(asked.load(SeqCst) > 100);
}
