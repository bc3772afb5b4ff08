//! A process that is killed in the middle of a fenced cutover continues on the new version.

use std::sync::Mutex;

use super::*;

#[test]
fn a_fenced_cutover_that_is_in_the_journal_is_in_force_after_a_kill() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let slow = Origin::start(move |call| {
        call.skip_body()?;
        // Fails if the test has failed first, and then nobody reads the answer.
        let _ = wait.lock().expect("no panic").recv();
        call.answer(200, b"v1")
    });
    let new = Origin::answering("v2");
    let builder = Proxy::builder().version("v1", &slow).version("v2", &new);
    let stage = Stage::of(builder.service("fence: { required: true, deadline: 30s }"));
    let mut process = stage.start();
    let mut client = Client::connect(stage.address);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    slow.await_requests(1);
    let before: u64 =
        slow.last().head.field("tidegate-epoch").expect("an epoch").parse().expect("a number");
    let mut admin = Client::connect(stage.admin);
    let path = format!("/v1/services/{SERVICE}/cutover");
    admin.send(format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n{{\"to\":\"v2\"}}"
    ));
    eventually("its entry is written", || kinds(&stage.entries()).last() == Some(&"cutover"));
    assert_eq!(stage.version(0)["weight"], json!(1.0), "v1 still has a write in flight");
    process.signal(Signal::KILL);
    process.wait();
    drop(go_on);

    let _process = stage.start();
    let answer = Client::connect(stage.address).post("/", b"x").send();
    assert_eq!(answer.text(), "v2");
    let after: u64 =
        new.last().head.field("tidegate-epoch").expect("an epoch").parse().expect("a number");
    assert!(after > before, "{after} after {before}");
    stage.verify();
}

/// A file that requires the fence may be changed while no process runs: the split before must not come back.
#[test]
fn a_start_that_requires_the_fence_of_a_split_leaves_one_writer_and_says_so() {
    let origins = ["v1", "v2"].map(Origin::answering);
    let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
    let mut stage = Stage::of(builder);
    let mut process = stage.start();
    assert_eq!(stage.set_weights(1, 3).status, 200);
    process.signal(Signal::KILL);
    process.wait();

    stage.builder = stage.builder.service("fence: { required: true }");
    let process = stage.start();
    for _ in 0..20 {
        assert_eq!(Client::connect(stage.address).post("/", b"x").send().text(), "v2");
    }
    let started = stage.events().into_iter().find(|event| event["kind"] == "started");
    let told = "several versions had writes, of which `fence.required` leaves those of the largest share: \
                v2 has them all now";
    let started = started.expect("an event").to_string();
    assert!(started.contains(told), "{started}");
    eventually("the log says so", || process.log().contains("several versions had writes"));
    let status = stage.get("/v1/status").to_string();
    assert!(status.contains("several versions had writes"), "{status}");
    // What takes the last writer away is refused as ever, and a cutover moves the writes.
    assert_eq!(stage.set_weights(1, 1).status, 409);
    assert_eq!(stage.send("POST", "cutover", &json!({ "to": "v1" })).status, 200);
    stage.verify();
}
