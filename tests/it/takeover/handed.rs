//! What a process that takes over knows of the one before.

use super::*;

/// Without a folder the reports of incidents were lost at a takeover.
#[test]
fn reports_of_incidents_that_are_in_no_file_are_handed_over() {
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let process = spawn(&builder, admin);
    let path = format!("/v1/services/{SERVICE}/eject");
    let body = br#"{"version": "v2", "reason": "pays twice"}"#;
    let ejected = Client::connect(admin).request("POST", &path).host("localhost").body(body).send();
    assert_eq!(ejected.status, 200, "{}", ejected.text());
    let get = |target: &str| Client::connect(admin).get(target).host("localhost").send().json();
    let listed = || get("/v1/incidents");
    eventually("it is reported", || listed()["incidents"].as_array().map(Vec::len) == Some(1));
    assert_eq!(listed()["kept_in"], "memory");
    let before = listed()["incidents"][0].clone();
    assert_eq!(before["state"], "open");

    upgrade(admin);
    eventually("it is handed over", || listed()["incidents"].as_array().map(Vec::len) == Some(1));
    let after = listed()["incidents"][0].clone();
    assert_eq!((&after["id"], &after["state"]), (&before["id"], &json!("complete")));
    let report = get(after["path"].as_str().expect("a path"));
    assert_eq!((&report["reason"], &report["kind"]), (&json!("pays twice"), &json!("ejected")));
    assert!(!process.log().contains("begin anew"), "{}", process.log());
}

/// Regression: the process before served the version that had been ejected, on connections that it still had.
#[test]
fn no_request_reaches_a_version_after_its_ejection_was_answered_by_the_next_process() {
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let process = spawn(&builder, admin);
    prefer_v2(admin);
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(process.address)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").send().text(), "v2");
    }
    upgrade(admin);
    let path = format!("/v1/services/{SERVICE}/weights");
    let asked = Client::connect(admin)
        .request("PUT", &path)
        .host("localhost")
        .body(br#"{"weights": {"v1": 1, "v2": 1}}"#)
        .send();
    assert_eq!(asked.status, 200, "{}", asked.text());
    let mut idle: Vec<_> = (0..20).map(|_| Client::connect(process.address)).collect();
    let path = format!("/v1/services/{SERVICE}/eject");
    let body = br#"{"version": "v2", "reason": "pays twice"}"#;
    let ejected = Client::connect(admin).request("POST", &path).host("localhost").body(body).send();
    assert_eq!(ejected.status, 200, "{}", ejected.text());
    let before = origins[1].requests();
    for client in clients.iter_mut().chain(&mut idle) {
        // A connection of the process before has been closed.
        if let Ok(answer) = client.get("/").try_send() {
            assert_eq!(answer.text(), "v1");
        }
    }
    assert_eq!(origins[1].requests(), before);
}
