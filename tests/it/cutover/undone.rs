//! Each rollback leads one change further back, and each exit code has one meaning.

use std::sync::Arc;

use super::*;

#[test]
fn each_rollback_leads_one_change_further_back_until_there_is_none() {
    let origins = ["v1", "v2", "v3"].map(Origin::answering);
    let [v1, v2, v3] = &origins;
    let builder = Proxy::builder().version("v1", v1).version("v2", v2).version("v3", v3);
    let builder = builder.service("weights: { v1: 1 }").top("admin: { address: \"127.0.0.1:0\" }");
    let proxy = builder.start();
    let change = |what: &str, body: Value| post(&mut proxy.admin(), what, &body);
    let back = || {
        let answer = change("rollback", json!({ "reason": "bad" }));
        assert_eq!(answer.status, 200, "{}", answer.text());
        proxy.get("/").text().to_owned()
    };
    for to in ["v2", "v3"] {
        assert_eq!(change("cutover", json!({ "to": to })).status, 200);
    }
    assert_eq!(back(), "v2");
    // What the rollback left was v3: a second one does not return to it.
    assert_eq!(back(), "v1");
    let nothing = change("rollback", json!({}));
    assert_eq!(nothing.status, 409, "{}", nothing.text());
    let detail = nothing.json()["detail"].as_str().expect("a detail").to_owned();
    for part in ["nothing further to go back to", "tidegate weights game-api", "tidegate cutover"] {
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(proxy.get("/").text(), "v1", "nothing has moved");
    // A change after rollbacks is undone as any other.
    assert_eq!(change("cutover", json!({ "to": "v3" })).status, 200);
    // It moves nothing, so it is none.
    assert_eq!(change("cutover", json!({ "to": "v3" })).status, 200);
    assert_eq!(back(), "v1");
    assert_eq!(change("rollback", json!({})).status, 409);
}

/// Holds a request of `v1` until it is told to answer it.
fn holding() -> (Origin, mpsc::Sender<()>) {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    let origin = Origin::start(move |call| {
        call.skip_body()?;
        // Fails if the test has failed first, and then nobody reads the answer.
        let _ = wait.lock().expect("no panic").recv();
        call.answer(200, b"v1")
    });
    (origin, go_on)
}

#[test]
fn a_cutover_that_was_undone_a_wait_in_vain_and_an_endpoint_out_of_reach_have_codes_of_their_own() {
    let undone = "504 Gateway Timeout: fence: the cutover of `game-api` was undone";
    let waited = "504 Gateway Timeout: wait: the change is in force as generation 2";
    for (fence, code, told) in [(Some("fence: { deadline: 100ms }"), 5, undone), (None, 4, waited)]
    {
        let (slow, go_on) = holding();
        let origins = [slow, Origin::answering("v2")];
        let builder = fence.into_iter().fold(two(&origins), |builder, f| builder.service(f));
        let proxy = builder.start();
        let mut client = proxy.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        origins[0].await_requests(1);
        let wait = ["--wait", "drained", "--timeout", "100ms"];
        let arguments = [&["cutover", "game-api", "v2"][..], &wait].concat();
        let (ended, _, error) = command(&proxy, &arguments);
        assert_eq!((ended, error.contains(told)), (Some(code), true), "{error}");
        let is_in_force = proxy.snapshot().services[0].share(1) == 1.0;
        assert_eq!(is_in_force, code == 4, "{error}");
        go_on.send(()).expect("the origin waits");
        assert_eq!(client.answer().text(), "v1");
    }
    let mut nobody = program();
    let admin = format!("http://{}", crate::support::process::free_address());
    let output = nobody.args(["cutover", "game-api", "v2"]).env("TIDEGATE_ADMIN", admin).output();
    assert_eq!(output.expect("the program runs").status.code(), Some(69));
}
