//! A canary that is worse than its baseline is out before many notice, and comes back only when it is reinstated.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::support::{Client, Origin, Proxy, eventually};

/// Requests that a test sends at most.
const REQUESTS: u32 = 40_000;

/// An origin that answers its name, and 500 to one request of `one_of` once `failing` is set.
fn origin(name: &'static str, failing: &Arc<AtomicBool>, one_of: usize) -> Origin {
    let failing = Arc::clone(failing);
    Origin::start(move |call| {
        call.skip_body()?;
        let fails = failing.load(SeqCst) && call.nth.is_multiple_of(one_of);
        call.answer(if fails { 500 } else { 200 }, name.as_bytes())
    })
}

fn proxy(baseline: &Origin, canary: &Origin, eject: &str) -> Proxy {
    Proxy::builder()
        .version("v1", baseline)
        .version("v2", canary)
        .service("weights: { v1: 95, v2: 5 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service(&format!("eject: {eject}"))
        .top("admin: { address: 127.0.0.1:0 }")
        .start()
}

/// One request of a player; the version that answered, and whether it failed.
fn ask(client: &mut Client, player: u32) -> (String, bool) {
    let answer = client.get("/").header("x-player-id", &player.to_string()).send();
    (answer.text().to_owned(), answer.status >= 500)
}

fn get(proxy: &Proxy) -> Value {
    proxy.admin().get("/v1/services/game-api").host("localhost").send().json()
}

fn post(proxy: &Proxy, what: &str, version: &str) -> (u16, Value) {
    let body = json!({ "version": version, "reason": "a test" }).to_string();
    let mut admin = proxy.admin();
    let request = admin.post(what, body.as_bytes()).host("localhost");
    let request = request.header("Content-Type", "application/json");
    let answer = request.send();
    (answer.status, answer.json())
}

#[test]
fn a_failing_canary_is_out_within_a_handful_of_failures_and_back_by_word() {
    let (never, failing) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let (v1, v2) = (origin("v1", &never, 1), origin("v2", &failing, 2));
    let proxy = proxy(&v1, &v2, "{ errors: {} }");
    let mut client = proxy.connect();
    let mut failed = 0;
    for player in 0..REQUESTS {
        if player == 4_000 {
            failing.store(true, SeqCst);
        }
        failed += u32::from(ask(&mut client, player).1);
        if failed > 0 && proxy.controller().ejections().len() == 1 {
            break;
        }
    }
    assert!((3..=60).contains(&failed), "{failed} answers failed before the canary was out");
    let shown = get(&proxy);
    let version = &shown["versions"][1];
    assert_eq!((&version["state"], &version["weight"]), (&json!("ejected"), &json!(5.0)));
    assert_eq!((&version["share"], &shown["versions"][0]["share"]), (&json!(0.0), &json!(1.0)));
    let verdict = &shown["verdicts"][0];
    assert_eq!((&verdict["version"], &verdict["answer"]), (&json!("v2"), &json!("fail")));
    assert_eq!(verdict["findings"][0]["metric"], "errors");
    // `onset_s` counts from the begin of the comparison, which is shown nowhere.
    let onset = verdict["onset_at"].as_str().expect("a time");
    let onset = humantime::parse_rfc3339(onset).expect("a time");
    let ago = SystemTime::now().duration_since(onset).expect("in the past");
    assert!(ago < Duration::from_secs(120), "{ago:?}");
    let onset_s = verdict["findings"][0]["onset_s"].as_f64().expect("seconds");
    let at = humantime::parse_rfc3339(version["ejection"]["at"].as_str().expect("a time"));
    let before = at.expect("a time").duration_since(onset).unwrap_or_default().as_secs_f64();
    let compared_s = verdict["compared_s"].as_f64().expect("seconds");
    assert!((compared_s - onset_s - before).abs() < 2.5, "{onset_s} of {compared_s}: {before}");
    for player in 0..1_000 {
        assert_eq!(ask(&mut client, player), ("v1".to_owned(), false));
    }
    let mut admin = proxy.admin();
    let page = admin.get("/metrics").host("localhost").send();
    let ejections = "tidegate_ejections_total{service=\"game-api\",version=\"v2\",endpoint=\"\",reason=\"verdict\"} 1\n";
    assert!(page.text().contains(ejections), "{}", page.text());

    failing.store(false, SeqCst);
    assert_eq!(post(&proxy, "/v1/services/game-api/reinstate", "v2").0, 200);
    let served: Vec<_> = (0..2_000).map(|player| ask(&mut client, player).0).collect();
    assert!(served.iter().any(|version| version == "v2"));
    assert_eq!(get(&proxy)["versions"][1]["state"], "serving");
}

/// Players from here on fail where a test says so.
const CURSED: u32 = 1_000_000;

/// An origin that answers its name, and 500 to players from [`CURSED`] on if it is to.
fn cursing(name: &'static str, cursed: bool) -> Origin {
    Origin::start(move |call| {
        call.skip_body()?;
        let player: u32 = call.head.field("x-player-id").and_then(|p| p.parse().ok()).unwrap_or(0);
        let fails = cursed && player >= CURSED;
        call.answer(if fails { 500 } else { 200 }, name.as_bytes())
    })
}

/// Cursed players whom the split sends to the canary, found at a proxy where nobody fails.
fn of_the_canary(count: usize) -> Vec<u32> {
    let (v1, v2) = (cursing("v1", false), cursing("v2", false));
    let proxy = proxy(&v1, &v2, "{ errors: {} }");
    let mut client = proxy.connect();
    (CURSED..).filter(|player| ask(&mut client, *player).0 == "v2").take(count).collect()
}

#[test]
fn a_player_who_fails_on_either_version_ejects_nobody() {
    let (v1, v2) = (cursing("v1", true), cursing("v2", true));
    let proxy = proxy(&v1, &v2, "{ errors: {} }");
    let mut client = proxy.connect();
    let cursed = of_the_canary(1)[0];
    let mut failed = 0;
    for player in 0..6_000 {
        assert!(!ask(&mut client, player).1);
        if player % 20 == 0 {
            failed += u32::from(ask(&mut client, cursed).1);
        }
    }
    assert_eq!(failed, 300);
    assert!(proxy.controller().ejections().is_empty());
}

#[test]
fn a_player_who_fails_twice_in_a_row_on_the_canary_is_sent_to_the_baseline() {
    let (v1, v2) = (cursing("v1", false), cursing("v2", true));
    let cursed = of_the_canary(1)[0];
    for (asks, expected) in [("true", "v1"), ("false", "v2")] {
        let eject = format!("{{ errors: {{}}, ask_players: {asks}, minimum_failures: 1000 }}");
        let proxy = proxy(&v1, &v2, &eject);
        let mut client = proxy.connect();
        let mut answers = Vec::new();
        for round in 0..40 {
            // Among others who are served, over several looks.
            (0..50).for_each(|player| drop(ask(&mut client, round * 50 + player)));
            answers.push(ask(&mut client, cursed).0);
        }
        assert_eq!(answers[..2], ["v2", "v2"], "{answers:?}");
        assert_eq!(answers[39], expected, "{answers:?}");
        assert!(answers.iter().filter(|version| *version == "v2").count() <= 5 || asks == "false");
    }
}

#[test]
fn an_ejection_that_helped_nobody_is_told_and_taken_back_where_the_file_says_so() {
    let (v1, v2) = (cursing("v1", true), cursing("v2", true));
    let cursed = of_the_canary(30);
    for (on_mistake, state) in [("tell", "ejected"), ("reinstate", "serving")] {
        let eject = format!("{{ errors: {{}}, on_mistake: {on_mistake}, ask_players: false }}");
        let proxy = proxy(&v1, &v2, &eject);
        let mut client = proxy.connect();
        let mut others = 0..REQUESTS;
        let mut serve_others = |client: &mut Client| {
            others.by_ref().take(40).for_each(|player| drop(ask(client, player)));
        };
        // Only those of the canary come, so that it looks bad.
        for player in &cursed {
            serve_others(&mut client);
            ask(&mut client, *player);
            if !proxy.controller().ejections().is_empty() {
                break;
            }
        }
        assert_eq!(proxy.controller().ejections().len(), 1, "not ejected");
        let events = |kind: &str| {
            let mut admin = proxy.admin();
            let request = admin.get("/v1/events").host("localhost");
            let events = request.header("Accept", "application/json").send();
            events.text().contains(&format!("\"kind\":\"{kind}\""))
        };
        // What fails in a moment without another answer of the baseline tells nothing: they come again.
        for player in cursed.iter().cycle().take(4 * cursed.len()) {
            serve_others(&mut client);
            assert!(ask(&mut client, *player).1, "cursed everywhere");
            if events("ejection_mistaken") {
                break;
            }
        }
        eventually("it is told", || events("ejection_mistaken"));
        let page = proxy.admin().get("/metrics").host("localhost").send().text().to_owned();
        for (kind, count) in [("ejection_mistaken", 1), ("refusals_rise", 0)] {
            let labels = format!("service=\"game-api\",version=\"v2\",kind=\"{kind}\"");
            let series = format!("tidegate_comparison_events_total{{{labels}}} {count}\n");
            assert!(page.contains(&series), "{series}: {page}");
        }
        eventually("it is done", || get(&proxy)["versions"][1]["state"] == state);
        assert_eq!(events("reinstated"), on_mistake == "reinstate");
        if on_mistake == "tell" {
            let reason = get(&proxy)["verdicts"][0]["reason"].as_str().expect("one").to_owned();
            assert!(reason.contains("Afterwards: the ejection did not help: "), "{reason}");
        }
    }
}

#[test]
fn what_fails_on_both_versions_ejects_nobody() {
    let failing = Arc::new(AtomicBool::new(true));
    let (v1, v2) = (origin("v1", &failing, 3), origin("v2", &failing, 3));
    let proxy = proxy(&v1, &v2, "{ errors: {} }");
    let mut client = proxy.connect();
    (0..10_000).for_each(|player| drop(ask(&mut client, player)));
    assert!(proxy.controller().ejections().is_empty());
    assert_eq!(get(&proxy)["verdicts"][0]["answer"], "undecided");
}

/// Endpoints that restart one after the other ejected their version, although another endpoint served every
/// request.
#[test]
fn a_refused_connection_whose_request_another_endpoint_serves_is_no_failure() {
    let never = Arc::default();
    let (v1, v2) = (origin("v1", &never, 1), origin("v2", &never, 1));
    let away = Origin::start(|_| unreachable!("it is gone")).address;
    let proxy = Proxy::builder()
        .version("v1", &v1)
        .version_at("v2", &[v2.address, away])
        .service("weights: { v1: 80, v2: 20 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: {} }")
        .service("health: { connect_faults: 0 }")
        .top("admin: { address: 127.0.0.1:0 }")
        .start();
    let mut client = proxy.connect();
    for player in 0..5_000 {
        assert!(!ask(&mut client, player).1, "player {player}");
    }
    assert!(proxy.controller().ejections().is_empty());
    let counts = &get(&proxy)["verdicts"][0]["findings"][0]["numbers"]["errors"]["counts"];
    assert_eq!(counts["canary"]["failures"], 0, "{counts}");
    let metrics = proxy.admin().get("/metrics").host("localhost").send().text().to_owned();
    let refused = metrics.lines().find(|line| {
        line.starts_with("tidegate_retries_total")
            && line.contains("v2")
            && line.contains("connect")
    });
    let refused = refused.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(refused.is_some_and(|refused| refused > 100.0), "{refused:?}");
}

#[test]
fn advice_moves_nobody() {
    let (never, failing) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let (v1, v2) = (origin("v1", &never, 1), origin("v2", &failing, 1));
    let proxy = proxy(&v1, &v2, "{ errors: {}, mode: advise }");
    let mut client = proxy.connect();
    (0..4_000).for_each(|player| drop(ask(&mut client, player)));
    eventually("the verdict is there", || get(&proxy)["verdicts"][0]["answer"] == "fail");
    assert!(proxy.controller().ejections().is_empty());
    assert_eq!(get(&proxy)["versions"][1]["state"], "serving");
}

#[test]
fn by_word_any_version_goes_but_the_last() {
    let never = Arc::default();
    let (v1, v2) = (origin("v1", &never, 1), origin("v2", &never, 1));
    let proxy = proxy(&v1, &v2, "{ errors: {} }");
    let eject = "/v1/services/game-api/eject";
    assert_eq!(post(&proxy, "/v1/services/game-api/reinstate", "v2").0, 409);
    assert_eq!(post(&proxy, eject, "v1").0, 200);
    let mut client = proxy.connect();
    assert!((0..500).all(|player| ask(&mut client, player).0 == "v2"));
    let (status, problem) = post(&proxy, eject, "v2");
    assert_eq!((status, &problem["field"]), (409, &json!("version")), "{problem}");
    assert_eq!(post(&proxy, eject, "v3").0, 422);
    assert_eq!(post(&proxy, "/v1/services/game-api/reinstate", "v1").0, 200);
    assert!((0..500).any(|player| ask(&mut client, player).0 == "v1"));
}

/// There is nowhere for its players to go.
#[test]
fn the_only_version_that_serves_is_reported_and_stays() {
    let (never, failing) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let (v1, v2) = (origin("v1", &never, 1), origin("v2", &failing, 5));
    let proxy = Proxy::builder()
        .version("v1", &v1)
        .version("v2", &v2)
        .service("weights: { v1: 0, v2: 100 }")
        .service("eject: { errors: {} }")
        .service("slo: { errors: 1% }")
        .top("admin: { address: 127.0.0.1:0 }")
        .start();
    let mut client = proxy.connect();
    let told = || {
        let controller = proxy.controller();
        controller.events().since(0).any(|event| event.kind.label() == "worse_alone")
    };
    eventually("it is told", || {
        (0..50).for_each(|player| drop(ask(&mut client, player)));
        told()
    });
    let shown = get(&proxy);
    assert_eq!(shown["versions"][1]["state"], "serving");
    let verdict = &shown["verdicts"][0];
    assert_eq!((&verdict["answer"], &verdict["alone"]), (&json!("fail"), &json!(true)));
    assert_eq!(verdict["findings"][0]["numbers"]["bound"]["source"], "slo");
    let record =
        proxy.admin().get("/v1/services/game-api/record?version=v2").host("localhost").send();
    let (title, record) = tidegate::analysis::Record::read(record.text()).expect("a record");
    assert!(record.is_alone());
    assert_eq!(record.judge(title.at), title.verdict);
    assert!(proxy.controller().ejections().is_empty());
}

/// A bad version came back with every upgrade of the proxy, until it was found out again.
#[test]
fn what_is_ejected_stays_so_when_another_process_takes_over() {
    let never = Arc::default();
    let (v1, v2) = (origin("v1", &never, 1), origin("v2", &never, 1));
    let (old, new) = (proxy(&v1, &v2, "{ errors: {} }"), proxy(&v1, &v2, "{ errors: {} }"));
    assert_eq!(post(&old, "/v1/services/game-api/eject", "v2").0, 200);
    let carried = old.controller().carried();
    // As between two processes, which ask twice.
    let text = serde_json::to_string(&carried).expect("JSON");
    for _ in 0..2 {
        new.controller().inherit(serde_json::from_str(&text).expect("the same"));
    }
    let ejected: Vec<_> = {
        let controller = new.controller();
        controller.events().since(0).map(|event| event.matter.reason.clone()).collect()
    };
    assert_eq!(ejected, ["a test"]);
    let mut client = new.connect();
    assert!((0..1_000).all(|player| ask(&mut client, player).0 == "v1"));
    assert_eq!(get(&new)["versions"][1]["state"], "ejected");
    // What is changed while the new process prepares goes along with what it is told last.
    assert_eq!(post(&old, "/v1/services/game-api/reinstate", "v2").0, 200);
    new.controller().inherit(old.controller().hand_over());
    assert_eq!(get(&new)["versions"][1]["state"], "serving");
    let told: Vec<_> = {
        let controller = new.controller();
        let events = controller.events().since(0);
        events.map(|event| (event.kind.label(), event.matter.carried_over)).collect()
    };
    assert_eq!(told, [("ejected", true), ("reinstated", true)]);
    old.controller().take_back();
    assert_eq!(post(&old, "/v1/services/game-api/eject", "v2").0, 200);
    new.controller().inherit(old.controller().hand_over());
    assert_eq!(get(&new)["versions"][1]["state"], "ejected");
    assert_eq!(post(&new, "/v1/services/game-api/reinstate", "v2").0, 200);
}

/// The file of the new process may lack a version that is ejected.
#[test]
fn an_ejection_of_a_version_that_is_in_no_file_is_handed_over_and_shown_nowhere() {
    let never = Arc::default();
    let (v1, v2) = (origin("v1", &never, 1), origin("v2", &never, 1));
    let (old, last) = (proxy(&v1, &v2, "{ errors: {} }"), proxy(&v1, &v2, "{ errors: {} }"));
    let between = Proxy::builder().version("v1", &v1).top("admin: { address: 127.0.0.1:0 }");
    let between = between.start();
    assert_eq!(post(&old, "/v1/services/game-api/eject", "v2").0, 200);
    // As between two processes, which ask twice.
    for _ in 0..2 {
        between.controller().inherit(old.controller().carried());
    }
    assert!(between.controller().ejections().is_empty());
    let told = |proxy: &Proxy, kind: &str| {
        proxy.controller().events().since(0).any(|event| event.kind.label() == kind)
    };
    assert!(!told(&between, "ejected") && !told(&between, "reinstated"));
    last.controller().inherit(between.controller().hand_over());
    assert_eq!(get(&last)["versions"][1]["state"], "ejected");
    assert!(told(&last, "ejected"));
}
