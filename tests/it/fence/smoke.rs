//! Smoke checks of a service with a fence.

use super::*;

const CHECKS: &str = "\
smoke:
  pay:
    steps: [ { request: POST /smoke } ]
  look:
    steps: [ { request: GET /smoke } ]";

/// Whether `version` passes, and the reason if it does not.
fn check(stage: &Stage, version: &str, check: &str) -> (bool, String) {
    let answer = stage.post("smoke", &json!({ "version": version, "check": check }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let report = answer.json();
    let reason = report["reason"].as_str().unwrap_or_default().to_owned();
    (report["passed"] == true, reason)
}

/// A smoke check once wrote to a version beside the one with the writes, with its epoch.
#[test]
fn a_smoke_check_writes_only_to_the_version_that_has_the_writes() {
    let plain = |version: &'static str| {
        Origin::start(move |call| {
            call.skip_body()?;
            call.answer(200, version.as_bytes())
        })
    };
    let epochs = |origin: &Origin| -> Vec<Option<u64>> {
        let epoch = |head: &crate::support::origin::Seen| {
            head.head.field("tidegate-epoch").and_then(|epoch| epoch.parse().ok())
        };
        origin.seen().iter().map(epoch).collect()
    };
    for required in [true, false] {
        let mut stage = Stage::with(&format!("required: {required}"), Duration::ZERO, |builder| {
            builder.top(CHECKS)
        });
        drop(stage.proxy.take());
        let origins = ["v1", "v2"].map(plain);
        let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
        let builder = builder.service(&format!("fence: {{ required: {required} }}"));
        let builder = builder.top("admin: { address: \"127.0.0.1:0\" }").top(CHECKS);
        stage.proxy = Some(builder.start());
        assert_eq!(check(&stage, "v1", "pay"), (true, String::new()));
        let (passed, why) = check(&stage, "v2", "pay");
        assert_eq!(passed, !required, "{why}");
        if required {
            assert!(why.contains("another version has the writes of the service"), "{why}");
            assert_eq!(origins[1].requests(), 0);
        }
        assert_eq!(check(&stage, "v2", "look"), (true, String::new()));
        assert!(epochs(&origins[1]).iter().all(Option::is_none), "{:?}", epochs(&origins[1]));
        assert!(epochs(&origins[0]).iter().all(Option::is_some), "{:?}", epochs(&origins[0]));
        let moved = stage.cut_over("v2");
        assert_eq!(moved.status, 200, "{}", moved.text());
        assert_eq!(check(&stage, "v2", "pay"), (true, String::new()));
        assert!(epochs(&origins[1]).last().is_some_and(Option::is_some));
        assert_eq!(check(&stage, "v1", "pay").0, !required);
    }
}
