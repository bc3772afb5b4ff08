//! Checkpoints that are kept elsewhere.

use std::sync::{Mutex, atomic::AtomicU32};

use super::*;

#[test]
fn a_checkpoint_is_kept_in_a_file_and_sent_until_it_is_accepted() {
    let origins = origins();
    let mut stage = Stage::new(&origins);
    let (asked, bodies) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
    let receiver = {
        let (asked, bodies) = (Arc::clone(&asked), Arc::clone(&bodies));
        Origin::start(move |call| {
            let body = call.read_body()?;
            bodies.lock().expect("no panic").push(body);
            // The first two are refused.
            call.answer(if asked.fetch_add(1, SeqCst) < 2 { 500 } else { 200 }, b"")
        })
    };
    let file = stage.folder.path().join("kept.note");
    let versions = [origins[0].address, origins[1].address];
    stage.builder = Proxy::builder()
        .version_at("v1", &versions)
        .version("v2", &origins[2])
        .service("weights: { v1: 3, v2: 1 }")
        .top(&format!("admin: {{ address: \"{}\" }}", stage.admin))
        .top(&format!(
            "state: {{ folder: '{}', checkpoints: {{ file: '{}', webhook: \"http://{}/notes\" }} }}",
            stage.state().display(),
            file.display(),
            receiver.address
        ))
        .listen(stage.address);
    let _process = stage.start();
    eventually("it is in the file", || file.exists());
    eventually("it is accepted", || asked.load(SeqCst) >= 3);
    let note = fs::read_to_string(&file).expect("a file");
    for body in bodies.lock().expect("no panic").iter() {
        let body: Value = serde_json::from_slice(body).expect("JSON");
        assert_eq!((&body["note"], &body["seq"]), (&json!(note), &json!(2)), "{body}");
    }
    let verified = program()
        .args(["audit", "verify", "--state"])
        .arg(stage.state())
        .arg("--against")
        .arg(&file)
        .output()
        .expect("it runs");
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    let page = Client::connect(stage.admin).get("/metrics").host("localhost").send();
    let sent = |to: &str, result: &str, count: u32| {
        format!("tidegate_journal_checkpoints_total{{to=\"{to}\",result=\"{result}\"}} {count}\n")
    };
    for expected in
        [sent("webhook", "failed", 2), sent("webhook", "kept", 1), sent("file", "kept", 1)]
    {
        assert!(page.text().contains(&expected), "{expected}: {}", page.text());
    }
}
