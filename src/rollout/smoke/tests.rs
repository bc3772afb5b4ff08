use proptest::prelude::*;
use serde_json::json;

use super::{super::gate::Reply, *};

/// A check with these steps, as the file has them.
fn check(steps: Value) -> Smoke {
    let check: SmokeCheck = serde_json::from_value(json!({ "steps": steps })).expect("well formed");
    Smoke::compile(&check).expect("good")
}

fn answer(status: u16, fields: &[(&'static str, &str)], body: &str) -> SmokeAnswer {
    let fields = fields.iter();
    let fields = fields.map(|(n, v)| (HeaderName::from_static(n), v.parse().expect("a value")));
    SmokeAnswer {
        status,
        headers: fields.collect(),
        body: body.as_bytes().to_vec(),
        took: Duration::from_millis(3),
    }
}

/// The failure of a check of one step that gets this answer.
fn failure(step: Value, answer: &SmokeAnswer) -> String {
    let check = check(json!([step]));
    let failed = check.begin().judge(answer).expect_err("it fails");
    failed.0
}

/// Steps after a login that kept the token and the round's number.
fn logged_in(then: Value) -> Smoke {
    check(json!([
        {
            "request": "POST /v1/login",
            "json": { "user": "smoke" },
            "keep": { "token": "json:$.token", "round": "json:$.round", "sid": "cookie:sid", "at": "header:X-At" },
        },
        then,
    ]))
}

const TOKEN: &str = "s3cr\"t/7";

fn login(smoke: &Smoke) -> SmokeRun<'_> {
    let mut run = smoke.begin();
    let body = json!({ "token": TOKEN, "round": 7 }).to_string();
    let fields = [("set-cookie", "a=b"), ("set-cookie", "sid=abcd; Path=/"), ("x-at", "18:00")];
    let came = SmokeAnswer { headers: HeaderMap::new(), ..answer(200, &[], &body) };
    let mut headers = came.headers.clone();
    fields.iter().for_each(|(name, value)| {
        headers.append(*name, value.parse().expect("a value"));
    });
    run.judge(&SmokeAnswer { headers, ..came }).expect("as expected");
    run
}

#[test]
fn kept_values_go_into_every_part_of_a_request() {
    let smoke = logged_in(json!({
        "request": "PUT /v1/rounds/${round}/${token}?sid=${sid}",
        "headers": { "Authorization": "Bearer ${sid}", "x-at": "${at}" },
        "json": { "round": "${round}", "text": "round ${round} of $${", "all": [ "${token}", 1, null ] },
    }));
    assert_eq!(smoke.labels().last(), Some("PUT /v1/rounds/${round}/${token}?sid=${sid}"));
    let first = smoke.begin().request().expect("a step").expect("nothing is kept yet");
    assert_eq!((&*first.method, &*first.target), ("POST", "/v1/login"));
    assert_eq!(first.headers["content-type"], "application/json");
    assert_eq!(first.body, br#"{"user":"smoke"}"#);
    let mut run = login(&smoke);
    let next = run.request().expect("another step").expect("all is kept");
    assert_eq!(next.target, "/v1/rounds/7/s3cr%22t%2F7?sid=abcd");
    assert_eq!(
        (&next.headers["authorization"], &next.headers["x-at"]),
        (&"Bearer abcd".parse().expect("a value"), &"18:00".parse().expect("a value"))
    );
    let body: Value = serde_json::from_slice(&next.body).expect("JSON");
    assert_eq!(body, json!({ "round": 7, "text": "round 7 of ${", "all": [ TOKEN, 1, null ] }));
    run.judge(&answer(204, &[], "")).expect("2xx is expected by default");
    assert!(run.request().is_none());
}

#[test]
fn a_failure_tells_what_was_expected_and_what_came() {
    let ok = |body: &str| answer(200, &[("content-type", "text/html"), ("x-a", "b")], body);
    for (step, came, expected) in [
        (
            json!({}),
            answer(500, &[], "no\ndatabase"),
            "expected the status 2xx, got 500 with the body `no\\ndatabase`",
        ),
        (
            json!({ "expect": { "status": [ 204, "300-302" ] } }),
            ok("{}"),
            "expected the status 204 or 300-302, got 200",
        ),
        (
            json!({ "expect": { "headers": { "content-type": { "matches": "^application/json" } } } }),
            ok("{}"),
            "expected the field content-type to match `^application/json`, got `text/html`",
        ),
        (
            json!({ "expect": { "headers": { "X-A": "c" } } }),
            ok(""),
            "expected the field x-a to be `c`, got `b`",
        ),
        (
            json!({ "expect": { "headers": { "x-b": "c" } } }),
            ok(""),
            "expected the field x-b to be `c`, got there is none",
        ),
        (
            json!({ "expect": { "json": { "$.state": "settled" } } }),
            ok(r#"{"state":"open"}"#),
            "expected $.state to be \"settled\", got `open`",
        ),
        (
            json!({ "expect": { "json": { "$.a[*]": 1 } } }),
            ok(r#"{"a":[1,1]}"#),
            "expected $.a[*] to be 1, got 2 values",
        ),
        (
            json!({ "expect": { "json": { "$.b": null } } }),
            ok("{}"),
            "expected $.b to be null, got nothing at that path",
        ),
        (
            json!({ "expect": { "json": { "$": 1 } } }),
            ok("<html>"),
            "expected $ to be 1, got a body that is not JSON",
        ),
        (
            json!({ "keep": { "t": "json:$.t" } }),
            ok("{}"),
            "expected json:$.t to keep as `t`, got nothing at that path",
        ),
        (
            json!({ "keep": { "t": "json:$.t" } }),
            ok(r#"{"t":[1]}"#),
            "expected json:$.t to keep as `t`, got a list or an object",
        ),
        (
            json!({ "keep": { "t": "header:x-t" } }),
            ok(""),
            "expected header:x-t to keep as `t`, got no such field",
        ),
        (
            json!({ "keep": { "t": "cookie:t" } }),
            ok(""),
            "expected cookie:t to keep as `t`, got no such cookie",
        ),
        (
            json!({ "expect": { "within": "2ms" } }),
            ok(""),
            "expected the answer within 2ms, it took 3 ms",
        ),
    ] {
        let mut step = step;
        step["request"] = "GET /".into();
        assert_eq!(failure(step, &came), expected);
    }
    let long = failure(json!({ "request": "GET /" }), &answer(500, &[], &"é".repeat(1000)));
    assert!(long.chars().count() < 300 && long.ends_with("é…`"), "{long}");
}

#[test]
fn numbers_are_equal_however_they_are_written() {
    let smoke = check(json!([{
        "request": "GET /",
        "expect": { "json": { "$.a": 1, "$.b": 1.5, "$.c": { "d": [ 2.0 ] }, "$.e": 9_007_199_254_740_993_u64 } },
    }]));
    let judge = |body: &str| smoke.begin().judge(&answer(200, &[], body)).is_ok();
    assert!(judge(r#"{"a": 1.0, "b": 15e-1, "c": { "d": [ 2 ] }, "e": 9007199254740993}"#));
    assert!(!judge(r#"{"a": 1.0, "b": 15e-1, "c": { "d": [ 2 ] }, "e": 9007199254740992}"#));
    assert!(!judge(r#"{"a": "1", "b": 1.5, "c": { "d": [ 2 ] }, "e": 9007199254740993}"#));
}

#[test]
fn an_expectation_may_name_what_was_kept() {
    let smoke = logged_in(json!({
        "request": "GET /",
        "expect": { "headers": { "x-sid": "${sid}" }, "json": { "$.round": "${round}" } },
    }));
    let mut run = login(&smoke);
    run.judge(&answer(200, &[("x-sid", "abcd")], r#"{"round":7}"#)).expect("the same");
    let mut run = login(&smoke);
    let other =
        run.judge(&answer(200, &[("x-sid", "abcd")], r#"{"round":"7"}"#)).expect_err("a text");
    assert_eq!(other.0, "expected $.round to be \"${round}\", got `${round}`");
}

#[test]
fn a_failure_never_shows_a_kept_value() {
    let smoke = logged_in(
        json!({ "request": "GET /", "expect": { "status": 204, "headers": { "x-a": "b" } }, "keep": { "new": "json:$.new" } }),
    );
    let echo = json!({ "why": format!("bad token {TOKEN}"), "url": "/s3cr%22t%2F7", "new": "another-secret" });
    for came in [
        answer(403, &[], &echo.to_string()),
        answer(403, &[], TOKEN),
        answer(204, &[("x-a", TOKEN)], "{}"),
        answer(204, &[("x-a", "another-secret")], r#"{"new":"another-secret"}"#),
    ] {
        let failed = login(&smoke).judge(&came).expect_err("another status or field").0;
        assert!(!failed.contains("s3cr") && !failed.contains("another-secret"), "{failed}");
        assert!(failed.contains("${"), "{failed}");
    }
}

#[test]
fn a_kept_value_is_hidden_within_other_texts_however_it_is_encoded() {
    let smoke = check(json!([
        { "request": "GET /", "keep": { "t": "json:$.t", "short": "json:$.s" } },
        { "request": "GET /", "expect": { "json": { "$.x": 1 } } },
    ]));
    let secret = "ab/cd é+1";
    for (came, shown) in [
        ("id=ab/cd é+1;", "id=${t};"),
        ("https://x/?q=ab%2Fcd%20%C3%A9%2B1&b=2", "https://x/?q=${t}&b=2"),
        ("https://x/?q=ab%2fcd%20%c3%a9%2b1&b=2", "https://x/?q=${t}&b=2"),
        ("q=ab/cd+%C3%A9%2B1, again ab%2Fcd%20\u{e9}+1", "q=${t}, again ${t}"),
        ("%61b%2Fcd \u{e9}%2b1", "${t}"),
        ("ab/cd is a part", "ab/cd is a part"),
        ("100% of abc", "100% of abc"),
    ] {
        let mut run = smoke.begin();
        let login = json!({ "t": secret, "s": "abc" }).to_string();
        run.judge(&answer(200, &[], &login)).expect("kept");
        let failed = run.judge(&answer(200, &[], &json!({ "x": came }).to_string()));
        let failed = failed.expect_err("not 1").0;
        assert_eq!(failed, format!("expected $.x to be 1, got `{shown}`"), "{came}");
    }
}

#[test]
fn a_value_that_cannot_be_sent_fails_the_step() {
    let smoke = logged_in(json!({ "request": "GET /", "headers": { "x-t": "${token}" } }));
    let mut run = smoke.begin();
    let body = json!({ "token": "a\r\nb: c", "round": true }).to_string();
    run.judge(&answer(200, &[("set-cookie", "sid=1"), ("x-at", "1")], &body)).expect("kept");
    let failed = run.request().expect("a step").err().expect("it cannot be sent");
    assert_eq!(failed.0, "the field x-t cannot be sent: a kept value in it has control characters");
    let mut run = smoke.begin();
    let body = json!({ "token": "a".repeat(LARGEST_KEPT + 1), "round": 1 }).to_string();
    let failed = run.judge(&answer(200, &[("set-cookie", "sid=1"), ("x-at", "1")], &body));
    assert!(failed.expect_err("too long").0.ends_with("got a text of more than 16384 bytes"));
}

#[test]
fn a_report_names_the_step_that_failed() {
    let smoke = logged_in(json!({ "request": "GET /${round}" }));
    let mut report = SmokeReport::new(("game", "v2", "money"), smoke.labels());
    report.note(0, Some(200), Duration::from_micros(1500), &Ok(()));
    report.note(1, None, Duration::from_millis(2), &Err(Failure("it broke off".to_owned())));
    let report = report.end(Duration::from_millis(4));
    assert_eq!((report.passed, report.failed_step, report.took_ms), (false, Some(2), 4.0));
    assert_eq!(report.summary().as_deref(), Some("step 2 (GET /${round}): it broke off"));
    assert_eq!(report.steps[0].took_ms, Some(1.5));
    let text = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<SmokeReport>(&text).expect("the same"), report);
    let mut good = SmokeReport::new(("game", "v2", "money"), smoke.labels());
    (0..2).for_each(|at| good.note(at, Some(200), Duration::ZERO, &Ok(())));
    let good = good.end(Duration::ZERO);
    assert_eq!((good.passed, good.summary()), (true, None));
    assert_eq!(good.reply(), Reply::Pass.because("all 2 steps passed"));
    let why = "step 2 (GET /${round}): it broke off";
    assert_eq!(report.reply(), Reply::Fail.because(why));
    let unsent = SmokeReport::new(("game", "v2", "money"), smoke.labels()).end(Duration::ZERO);
    assert!(!unsent.passed, "no step was answered");
}

proptest! {
    /// Whatever an endpoint answers, what was kept of it is not shown.
    #[test]
    fn nothing_kept_is_ever_shown(secret in "[a-z0-9\"/ \u{e9}\n]{4,40}", around in "[A-Z<>%]{0,10}") {
        let smoke = check(json!([
            { "request": "GET /", "keep": { "t": "json:$.t" } },
            { "request": "GET /", "expect": { "json": { "$.x": 1 } } },
        ]));
        let mut run = smoke.begin();
        run.judge(&answer(200, &[], &json!({ "t": secret }).to_string())).expect("kept");
        let echo = format!("{around}{secret}{around}");
        for came in [
            answer(500, &[], &echo),
            answer(500, &[], &json!({ "x": echo }).to_string()),
            answer(200, &[], &json!({ "x": echo }).to_string()),
            answer(200, &[], &json!({ "x": { "y": [ echo ] } }).to_string()),
        ] {
            let failed = run.judge(&came).expect_err("not 1").0;
            let inner = serde_json::to_string(&secret).expect("JSON");
            prop_assert!(!failed.contains(secret.trim()) || secret.trim().len() < 4, "{}", failed);
            prop_assert!(!failed.contains(inner.trim_matches('"').trim()) || secret.trim().len() < 4, "{}", failed);
        }
    }

    /// A kept value stays one part of the path or the query.
    #[test]
    fn a_kept_value_never_changes_the_shape_of_a_target(value in ".{0,30}") {
        let smoke = logged_in(json!({ "request": "GET /a/${token}/b?c=${token}" }));
        let mut run = smoke.begin();
        let body = json!({ "token": value, "round": 1 }).to_string();
        run.judge(&answer(200, &[("set-cookie", "sid=1"), ("x-at", "1")], &body)).expect("kept");
        let request = run.request().expect("a step").expect("encoded");
        prop_assert_eq!(request.target.matches('/').count(), 3);
        prop_assert_eq!(request.target.matches(['?', '#', '&', ' ']).count(), 1);
        prop_assert!(request.target.bytes().all(|b| b.is_ascii_graphic()));
    }
}
