//! Notices: what clients and receivers are told, and modes that they switch on.

use super::*;
use crate::support::proxy;

const DOCUMENT: &str = "match: { path: /notices.json }, name: notices, notices: true";

fn with_document(builder: Builder) -> Builder {
    builder.route(DOCUMENT).route("name: rest")
}

fn names(document: &Value) -> Vec<&str> {
    let notices = document["notices"].as_array().expect("a list").iter();
    notices.filter_map(|notice| notice["name"].as_str()).collect()
}

#[test]
fn notices_are_told_in_a_document_and_in_the_responses_of_their_services() {
    let (from, until) = (from_now(3600.0), from_now(7200.0));
    let stage = Stage::new(|builder| {
        with_document(builder).top(&format!(
            "notices:\n  schema: {{ from: '{from}', until: '{until}', services: [ {SERVICE} ], read_only: true, \
             text: {{ en: Deposits pause. }} }}\n  far: {{ from: '2090-01-01T00:00:00Z', until: '2090-01-02T00:00:00Z' }}"
        ))
    });
    let mut client = stage.proxy().connect();
    let told = client.get("/notices.json").send();
    assert_eq!(told.status, 200);
    assert_eq!(told.field("cache-control"), Some("public, max-age=30"));
    assert_eq!(told.field("access-control-allow-origin"), Some("*"));
    assert_eq!(told.field("content-type"), Some("application/json"));
    assert_eq!(told.field("idempotent-replayed"), None);
    let document = told.json();
    assert_eq!(names(&document), ["schema", "far"]);
    let schema = &document["notices"][0];
    assert_eq!((&schema["state"], &schema["kind"]), (&json!("coming"), &json!("maintenance")));
    assert_eq!((&schema["from"], &schema["text"]["en"]), (&json!(from), &json!("Deposits pause.")));
    let head = client.request("HEAD", "/notices.json").send();
    assert_eq!(head.status, 200);
    assert_eq!(client.post("/notices.json", b"x").send().status, 405);
    assert_eq!(stage.origin.requests(), 0);
    let answer = client.get("/games").send();
    let expected =
        format!("maintenance; name=\"schema\"; from=\"{from}\"; until=\"{until}\"; read-only");
    assert_eq!(answer.field("tidegate-notice"), Some(&*expected));
    assert_eq!(answer.head.all("tidegate-notice").count(), 1, "the other one is far away");
}

#[test]
fn a_notice_set_at_run_time_switches_the_mode_on_and_is_forgotten_when_it_is_over() {
    let stage = Stage::new(with_document);
    let notice = json!({
        "from": from_now(1.5), "until": from_now(5.0), "read_only": true,
        "text": { "en": "Back soon." }, "reason": "schema 42",
    });
    let path = "/v1/notices/schema-42";
    assert_eq!(stage.ask("PUT", &format!("{path}?dry_run=true"), &notice).status, 200);
    assert_eq!(stage.get("/v1/notices")["notices"], json!([]));
    assert_eq!(stage.ask("PUT", path, &notice).status, 200);
    assert_eq!(names(&stage.proxy().get("/notices.json").json()), ["schema-42"]);
    assert!(stage.proxy().get("/games").field("tidegate-notice").is_some());
    eventually("it begins", || stage.write("/bets").status == 503);
    let refused = stage.write("/bets").json();
    assert_eq!(
        (&refused["notice"], &refused["text"]["en"]),
        (&json!("schema-42"), &json!("Back soon."))
    );
    assert_eq!(stage.get("/v1/mode")["read_only"][0]["notice"], "schema-42");
    eventually("it ends", || stage.write("/bets").status == 200);
    eventually("it is forgotten", || stage.get("/v1/notices")["notices"] == json!([]));
    assert_eq!(stage.proxy().get("/games").field("tidegate-notice"), None);
    let mut stage = stage;
    let kinds: Vec<String> =
        stage.entries(&["mode", "notice"]).into_iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, ["notice", "mode", "mode", "notice"]);
}

#[test]
fn a_notice_that_is_taken_back_ends_its_mode() {
    let stage = Stage::new(|builder| builder);
    let notice = |until| json!({ "from": from_now(-5.0), "until": until, "read_only": true });
    assert_eq!(stage.ask("PUT", "/v1/notices/a", &notice(from_now(60.0))).status, 200);
    assert_eq!(stage.write("/bets").status, 503, "it has begun already");
    let later = from_now(90.0);
    assert_eq!(stage.ask("PUT", "/v1/notices/a", &notice(later)).status, 200);
    assert_eq!(stage.ask("DELETE", "/v1/notices/a", &json!({})).status, 200);
    assert_eq!(stage.write("/bets").status, 200);
    for (method, name, body, status) in [
        ("DELETE", "a", json!({}), 404),
        ("PUT", "a", notice(from_now(-6.0)), 422),
        ("PUT", "a", notice(from_now(-1.0)), 422),
        ("PUT", "a%20b", notice(from_now(9.0)), 422),
        ("PUT", "a", json!({ "from": from_now(1.0) }), 422),
    ] {
        assert_eq!(
            stage.ask(method, &format!("/v1/notices/{name}"), &body).status,
            status,
            "{body}"
        );
    }
}

#[test]
fn the_command_line_plans_shows_and_withdraws_a_notice() {
    let stage = Stage::new(|builder| builder);
    let admin = format!("http://{}", stage.proxy().admin_address());
    let run = |arguments: &[&str]| {
        let mut command = crate::support::process::program();
        let ran = command.arg("notices").args(arguments).args(["--admin", &admin]).output();
        let ran = ran.expect("it runs");
        let text = String::from_utf8([ran.stdout, ran.stderr].concat()).expect("text");
        (ran.status.code().expect("a code"), text)
    };
    assert_eq!(run(&[]), (0, "no notices\n".to_owned()));
    let from = from_now(-1.0);
    let plan =
        ["set", "schema-42", "--from", &from, "--for", "10m", "--service", SERVICE, "--read-only"];
    let (code, text) = run(&[&plan[..], &["--dry-run"]].concat());
    assert!(code == 0 && text.starts_with("notice schema-42 would be in force from "), "{text}");
    assert_eq!(stage.write("/bets").status, 200);
    let (code, text) = run(&[&plan[..], &["--text", "en=Back soon.", "--reason", "x"]].concat());
    assert!(code == 0 && text.starts_with("notice schema-42 is in force from "), "{text}");
    assert_eq!(stage.write("/bets").json()["text"]["en"], "Back soon.");
    let (_, text) = run(&[]);
    let row: Vec<&str> = text.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(
        (row[0], row[1], &row[4..]),
        ("schema-42", "now", &["maintenance", SERVICE, "refused"][..])
    );
    let (code, text) = run(&["withdraw", "schema-42"]);
    assert!(code == 0 && text.starts_with("notice schema-42 is in force no more"), "{text}");
    assert_eq!(stage.write("/bets").status, 200);
    let (code, text) = run(&["withdraw", "schema-42"]);
    assert!(code == 65 && text.contains("schema-42"), "{code} {text}");
}

#[test]
fn a_file_without_the_notice_ends_its_mode() {
    let stage = Stage::new(|builder| builder);
    let (from, until) = (from_now(-1.0), from_now(600.0));
    let notice =
        format!("notices: {{ a: {{ from: '{from}', until: '{until}', read_only: true }} }}");
    stage.proxy().write(&stage.builder.clone().top(&notice).text());
    eventually("it is read-only", || stage.write("/bets").status == 503);
    let other = stage.ask("PUT", "/v1/notices/a", &json!({ "from": from, "until": until }));
    assert_eq!((other.status, &other.json()["field"]), (422, &json!("name")), "it is in the file");
    stage.proxy().write(&stage.builder.text());
    eventually("it is not", || stage.write("/bets").status == 200);
}

/// A receiver that takes messages once `works`, and what came.
fn receiver(works: &Arc<AtomicBool>) -> (Origin, Arc<Mutex<Vec<Value>>>) {
    let (works, all) = (Arc::clone(works), Arc::<Mutex<Vec<Value>>>::default());
    let taken = Arc::clone(&all);
    let origin = Origin::start(move |call| {
        let body = call.read_body()?;
        if !works.load(SeqCst) {
            return call.answer(503, b"not now");
        }
        taken.lock().expect("no panic").push(serde_json::from_slice(&body).expect("JSON"));
        call.answer(200, b"")
    });
    (origin, all)
}

/// Each start told it once more, before the process knew what its predecessor had told.
#[test]
fn receivers_are_told_once_of_a_notice_in_the_file_however_often_the_process_starts() {
    let (hook, taken) = receiver(&Arc::new(AtomicBool::new(true)));
    let (from, until) = (from_now(600.0), from_now(660.0));
    let notices = format!("notices: {{ schema: {{ from: '{from}', until: '{until}' }} }}");
    let announcements = format!(
        "announcements: {{ webhooks: [ {{ name: push, url: \"http://{}/\" }} ], before: [ 1h ] }}",
        hook.address
    );
    let mut stage = Stage::new(|builder| builder.top(&notices).top(&announcements));
    for _ in 0..3 {
        eventually("it is noted", || {
            stage.get("/v1/notices")["notices"][0]["told"] == json!({ "push": 3600 })
        });
        drop(stage.proxy.take());
        stage.proxy = Some(proxy::Proxy::start_with_file(&stage.builder.text()));
    }
    assert_eq!(stage.entries(&["notice_sent"]).len(), 1);
    assert_eq!(taken.lock().expect("no panic").len(), 1);
}

#[test]
fn receivers_are_told_once_per_lead_time_also_over_restarts() {
    let works = Arc::new(AtomicBool::new(false));
    let (hook, taken) = receiver(&works);
    let announcements = format!(
        "announcements: {{ webhooks: [ {{ name: push, url: \"http://{}/\" }} ], before: [ 2h, 8s ] }}",
        hook.address
    );
    let mut stage = Stage::new(|builder| builder.top(&announcements));
    let notice =
        json!({ "from": from_now(20.0), "until": from_now(60.0), "text": { "en": "Soon." } });
    assert_eq!(stage.ask("PUT", "/v1/notices/schema", &notice).status, 200);
    eventually("it is tried", || hook.requests() > 0);
    works.store(true, SeqCst);
    let leads = || -> Vec<u64> {
        let taken = taken.lock().expect("no panic");
        taken.iter().filter_map(|message| message["lead_seconds"].as_u64()).collect()
    };
    eventually("it is told", || leads() == [7200]);
    eventually("it is noted", || {
        stage.get("/v1/notices")["notices"][0]["told"] == json!({ "push": 7200 })
    });
    drop(stage.proxy.take());
    stage.proxy = Some(proxy::Proxy::start_with_file(&stage.builder.text()));
    eventually("it is told again, shortly before", || leads().len() > 1);
    // Two seconds without another message.
    thread::sleep(Duration::from_secs(2));
    assert_eq!(leads(), [7200, 8]);
    let messages = taken.lock().expect("no panic").clone();
    assert_eq!(
        (&messages[0]["notice"], &messages[0]["text"]["en"]),
        (&json!("schema"), &json!("Soon."))
    );
    let id = format!("schema/{}/7200", notice["from"].as_str().expect("a time"));
    assert_eq!(messages[0]["id"], id);
}

/// The mode was ended, and the notice went on saying that writes are refused.
#[test]
fn a_notice_whose_mode_was_ended_early_no_longer_says_read_only() {
    let stage = Stage::new(with_document);
    let notice = json!({ "from": from_now(-1.0), "until": from_now(600.0), "read_only": true });
    assert_eq!(stage.ask("PUT", "/v1/notices/schema", &notice).status, 200);
    let refused = stage.write("/bets");
    let told = |answer: &Answer| answer.field("tidegate-notice").expect("a field").to_owned();
    assert!(refused.status == 503 && told(&refused).ends_with("; read-only"), "{refused:?}");
    assert!(told(&refused).starts_with("maintenance; name=\"schema\""), "{refused:?}");
    assert_eq!(stage.normal()["notices"], json!(["schema"]));
    let accepted = stage.write("/bets");
    assert!(accepted.status == 200 && !told(&accepted).contains("read-only"), "{accepted:?}");
    let document = stage.proxy().get("/notices.json").json();
    assert_eq!(document["notices"][0]["read_only"], false);
    assert_eq!(stage.get("/v1/notices")["notices"][0]["ended_early"], true);
}

/// Regression: a mode by hand replaced that of a notice, and writes went on when its short time was over.
#[test]
fn a_mode_by_hand_with_an_end_returns_to_the_notice_in_whichever_order_they_come() {
    let notice = json!({ "from": from_now(-1.0), "until": from_now(600.0), "read_only": true });
    for is_first in [true, false] {
        let mut stage = Stage::new(with_document);
        let set = || assert_eq!(stage.ask("PUT", "/v1/notices/schema", &notice).status, 200);
        let by_hand = || {
            let short = json!({ "mode": "read-only", "until": from_now(1.0), "reason": "a look" });
            stage.mode(&short)["followed_by"].clone()
        };
        match is_first {
            true => {
                set();
                assert_eq!(by_hand(), "schema");
            }
            false => {
                assert_eq!(by_hand(), Value::Null);
                set();
            }
        }
        let modes = stage.get("/v1/mode");
        assert_eq!(modes["read_only"][0]["notice"], Value::Null, "what was set by hand stays");
        eventually("the mode of the notice follows", || {
            assert_eq!(stage.write("/bets").status, 503, "no write goes on in between");
            stage.get("/v1/mode")["read_only"][0]["notice"] == "schema"
        });
        assert_eq!(stage.normal()["notices"], json!(["schema"]));
        assert_eq!(stage.write("/bets").status, 200);
        let entries = stage.entries(&["mode"]);
        let reasons: Vec<_> = entries.iter().map(|entry| entry.reason.as_str()).collect();
        let last = reasons.iter().find(|reason| reason.contains("notice `schema`; the mode of"));
        assert!(last.is_some(), "{reasons:?}");
    }
}

/// Regression: a notice that was ended early was shown as read-only again once another one had begun.
#[test]
fn a_notice_that_was_ended_early_is_not_shown_again_when_another_one_begins() {
    let stage = Stage::new(with_document);
    let notice =
        |until| json!({ "from": from_now(-1.0), "until": from_now(until), "read_only": true });
    assert_eq!(stage.ask("PUT", "/v1/notices/a", &notice(600.0)).status, 200);
    assert_eq!(stage.normal()["notices"], json!(["a"]));
    assert_eq!(stage.ask("PUT", "/v1/notices/b", &notice(300.0)).status, 200);
    assert_eq!(stage.write("/bets").status, 503, "the other one has begun");
    let document = stage.proxy().get("/notices.json").json();
    let shown = document["notices"].as_array().expect("a list").iter();
    let shown: Vec<_> = shown.map(|n| (&n["name"], &n["read_only"])).collect();
    assert_eq!(shown, [(&json!("a"), &json!(false)), (&json!("b"), &json!(true))]);
    let notices = stage.get("/v1/notices");
    let early = notices["notices"].as_array().expect("a list").iter();
    let early: Vec<_> = early.map(|n| &n["ended_early"]).collect();
    assert_eq!(early, [&json!(true), &json!(false)]);
}
