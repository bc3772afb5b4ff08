//! Read-only modes of routes and services that another file does not have.

use super::*;

fn renamed(stage: &Stage) -> String {
    stage.builder.text().replace("name: wallet.write", "name: wallet-write")
}

fn stage() -> Stage {
    Stage::new(|builder| {
        builder
            .route("name: wallet.write, match: { path: /w/* }")
            .route("name: rest, match: { path: /* }")
    })
}

/// Regression: writes went on in the middle of a migration, since a reload had renamed the route.
#[test]
fn a_file_without_what_is_read_only_is_refused_until_the_mode_has_ended() {
    let stage = stage();
    stage.mode(&json!({ "mode": "read-only", "route": "wallet.write", "reason": "schema 42" }));
    assert_eq!(stage.write("/w/x").status, 503);
    let rejected = stage.proxy().reloads().1;
    stage.proxy().write(&renamed(&stage));
    eventually("the file is refused", || stage.proxy().reloads().1 > rejected);
    let reload = stage.get("/v1/status")["reload"].to_string();
    for told in ["route `wallet.write` is read-only", "tidegate mode normal --route wallet.write"] {
        assert!(reload.contains(told), "{reload}");
    }
    assert_eq!((stage.write("/w/x").status, stage.write("/x").status), (503, 200));
    // Another change of the file is none of its business, and neither is the name once the mode has ended.
    let applied = || stage.proxy().reloads().0;
    let before = applied();
    let other = format!("{}limits: {{ idle_timeout: 33s }}\n", stage.builder.text());
    stage.proxy().write(&other);
    eventually("another file is taken", || applied() > before);
    stage.mode(&json!({ "mode": "normal", "route": "wallet.write" }));
    let before = applied();
    stage.proxy().write(&renamed(&stage));
    eventually("the file is taken", || applied() > before);
    assert_eq!(stage.write("/w/x").status, 200);
}

#[test]
fn a_process_that_starts_without_the_route_refuses_all_writes_of_its_service_and_says_so() {
    let mut stage = stage();
    stage.mode(&json!({ "mode": "read-only", "route": "wallet.write", "reason": "schema 42" }));
    stage.proxy.take().expect("it runs").shutdown();
    stage.proxy = Some(Proxy::start_with_file(&renamed(&stage)));
    assert_eq!((stage.write("/w/x").status, stage.write("/x").status), (503, 503));
    assert_eq!(stage.proxy().get("/w/x").status, 200);
    let told = format!("all writes of service `{SERVICE}`");
    for path in ["/v1/mode", "/v1/status"] {
        let warning = stage.get(path)["read_only"][0]["warning"].to_string();
        assert!(warning.contains(&told), "{path}: {warning}");
    }
    stage.mode(&json!({ "mode": "normal", "route": "wallet.write" }));
    assert_eq!((stage.write("/w/x").status, stage.write("/x").status), (200, 200));
}
