use serde_json::json;

use super::{Gate, LocalTime, Weekly, json_schema};
use crate::config::pattern::{EndpointAddress, HostPattern, KeySource, PathPattern};

#[test]
fn the_schema_is_valid_and_refuses_unknown_fields() {
    let schema = json_schema();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["title"], "Tidegate configuration");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["$defs"]["Pool"]["properties"]["idle_timeout"]["default"], "55s");
    let loose = schema["$defs"].as_object().unwrap().iter().filter(|(_, def)| {
        def["properties"].is_object() && def["additionalProperties"] != json!(false)
    });
    assert_eq!(loose.count(), 0);
}

#[test]
fn every_field_is_documented() {
    let page = include_str!("../../../docs/configuration.md");
    let schema = json_schema();
    let defs = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for name in defs.filter_map(|def| def["properties"].as_object()).flat_map(|p| p.keys()) {
        let row = |line: &str| line.starts_with('|') && line.contains(&format!("`{name}`"));
        assert!(page.lines().any(row), "`{name}` has no row in docs/configuration.md");
    }
}

#[test]
fn the_schema_knows_the_small_languages() {
    let schema = json_schema();
    let accepts = |def: &str, value: serde_json::Value| {
        let schema = json!({ "$ref": format!("#/$defs/{def}"), "$defs": schema["$defs"] });
        jsonschema::validator_for(&schema).unwrap().is_valid(&value)
    };
    for good in ["/", "/*", "/a", "/a/", "/a/*", "/rounds/{id}/settle", "/v1/{a}/*"] {
        assert!(
            good.parse::<PathPattern>().is_ok() && accepts("PathPattern", good.into()),
            "{good}"
        );
    }
    for bad in ["", "a", "/a*", "/*/a", "/{a", "/{}", "/a b", "/a?b", "/{a}{b}"] {
        assert!(
            bad.parse::<PathPattern>().is_err() && !accepts("PathPattern", bad.into()),
            "{bad}"
        );
    }
    for good in
        ["127.0.0.1:9001", "[::1]:9001", "game-v41.internal:9001", "game.ns.svc.local.:9001"]
    {
        assert!(good.parse::<EndpointAddress>().is_ok(), "{good}");
        assert!(accepts("EndpointAddress", good.into()), "{good}");
    }
    for good in ["api.example.com", "*.example.com", "api.example.com."] {
        assert!(good.parse::<HostPattern>().is_ok(), "{good}");
        assert!(accepts("HostPattern", good.into()), "{good}");
    }
    for bad in [".", "a..", "*."] {
        assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        assert!(!accepts("HostPattern", bad.into()), "{bad}");
    }
    for bad in ["127.0.0.1", "http://a:80", ":80", "a:"] {
        assert!(bad.parse::<EndpointAddress>().is_err(), "{bad}");
        assert!(!accepts("EndpointAddress", bad.into()), "{bad}");
    }
    for good in [
        "client-ip",
        "header:x-player-id",
        "cookie:uid",
        "path:id",
        "query:p",
        "claim:sub",
        "claim:https://a/b",
    ] {
        assert!(good.parse::<KeySource>().is_ok() && accepts("KeySource", good.into()), "{good}");
    }
    for bad in ["ip", "claim:", "header:a/b", "header:", "header:a b"] {
        assert!(bad.parse::<KeySource>().is_err() && !accepts("KeySource", bad.into()), "{bad}");
    }
    for good in ["fri,sat 18:00-23:59", "mon-fri 22:00-06:00", "daily 00:00-24:00"] {
        assert!(good.parse::<Weekly>().is_ok() && accepts("Weekly", good.into()), "{good}");
    }
    for bad in ["friday", "fri 18-20"] {
        assert!(bad.parse::<Weekly>().is_err() && !accepts("Weekly", bad.into()), "{bad}");
    }
    for good in ["2026-12-24 18:00", "2026-12-24T24:00"] {
        assert!(good.parse::<LocalTime>().is_ok() && accepts("LocalTime", good.into()), "{good}");
    }
    for bad in ["2026-12-24", "24.12.2026 18:00"] {
        assert!(bad.parse::<LocalTime>().is_err() && !accepts("LocalTime", bad.into()), "{bad}");
    }
    let gate = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    for good in [
        r#""evidence""#,
        r#"{"slo": {"kind": "signal"}}"#,
        r#"{"smoke": "money-path"}"#,
        r#"{"smoke": {"name": "money-path", "kind": "signal"}}"#,
        r#"{"webhook": {"url": "http://gate/", "kind": "guardrail", "timeout": "2s"}}"#,
    ] {
        assert!(
            serde_json::from_str::<Gate>(good).is_ok() && accepts("Gate", gate(good)),
            "{good}"
        );
    }
    for bad in [r#""webhook""#, r#"{"smoke": {"kind": "signal"}}"#, r#"{"slo": {"kind": "hint"}}"#]
    {
        assert!(serde_json::from_str::<Gate>(bad).is_err() && !accepts("Gate", gate(bad)), "{bad}");
    }
    assert!(accepts("Labels", json!({ "contract": 2 })));
    assert!(!accepts("Labels", json!({ "kontract": "2" })));
}
