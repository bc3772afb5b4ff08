//! The journal goes with the sockets from one process to the next, and comes back if that fails.

use std::{
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, Instant},
};

use super::*;

/// Replaces the process that serves; returns once another one does.
#[track_caller]
pub(super) fn upgrade(stage: &Stage) {
    let pid = || stage.try_get("/v1/status").and_then(|status| status["pid"].as_i64());
    let old = pid().expect("a process");
    let number = rustix::process::Pid::from_raw(i32::try_from(old).expect("a number"));
    rustix::process::kill_process(number.expect("above 0"), Signal::USR2).expect("it runs");
    eventually("another process serves", || pid().is_some_and(|new| new != old));
}

#[test]
fn no_change_acknowledged_is_lost_over_takeovers() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let _process = stage.start();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let changed = thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let (mut n, mut all) = (1, Vec::new());
            let path = format!("/v1/services/{SERVICE}/weights");
            while !stop.load(SeqCst) {
                n += 1;
                let body = format!(r#"{{"weights":{{"v1":{n},"v2":1}}}}"#);
                let mut client = Client::connect(stage.admin);
                let request = client.request("PUT", &path).host("localhost").body(body.as_bytes());
                // While neither of both decides it is refused; a connection that waits for the old one ends.
                match request.try_send() {
                    Ok(answer) if answer.status == 200 => {
                        all.push(n);
                        acknowledged.fetch_add(1, SeqCst);
                    }
                    Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                    Err(_) => {}
                }
            }
            all
        });
        for _ in 0..3 {
            let before = acknowledged.load(SeqCst);
            eventually("changes are made", || acknowledged.load(SeqCst) > before + 5);
            upgrade(&stage);
        }
        stop.store(true, SeqCst);
        changing.join().expect("no panic")
    });
    assert_eq!(stage.version(0)["weight"], json!(changed.last().map(|n| f64::from(*n))));
    let entries = stage.entries();
    let written: Vec<_> =
        entries.iter().filter(|e| e.kind == "weights").map(|e| e.after["v1"].as_f64()).collect();
    for n in &changed {
        assert!(written.contains(&Some(f64::from(*n))), "{n} was acknowledged");
    }
    let resumed: Vec<_> = entries.iter().filter(|entry| entry.kind == "resumed").collect();
    assert_eq!(resumed.len(), 4);
    assert!(resumed[1].reason.contains("handed over"), "{}", resumed[1].reason);
    assert!(!kinds(&entries).contains(&"withdrawn"));
    stage.verify();
}

#[test]
fn a_takeover_that_fails_gives_the_journal_back() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let process = stage.start();
    assert_eq!(stage.set_weights(2, 1).status, 200);
    // The next process finds something else in the place of the folder, and cannot open the journal.
    let elsewhere = stage.folder.path().join("elsewhere");
    fs::write(&elsewhere, "a file").expect("a file");
    let text = stage.builder.clone().top(&format!("state: '{}'", elsewhere.display())).text();
    process.write(&text);
    eventually("the file is read", || {
        stage.get("/v1/status")["reload"]["waiting"] == json!(["state"])
    });
    process.signal(Signal::USR2);
    eventually("the takeover fails", || {
        let status = stage.try_get("/v1/status");
        status.is_some_and(|status| !status["takeover"]["last_error"].is_null())
    });
    let error = stage.get("/v1/status")["takeover"]["last_error"]["message"].clone();
    assert!(error.as_str().is_some_and(|error| error.contains("elsewhere")), "{error}");
    let begun = Instant::now();
    eventually("changes are made again", || stage.set_weights(3, 1).status == 200);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let entries = stage.entries();
    let last = &entries[entries.len() - 2..];
    assert_eq!(kinds(last), ["resumed", "weights"]);
    assert!(last[0].reason.contains("did not take over"), "{}", last[0].reason);
    stage.verify();
}

/// Regression: the status did not say since when a journal failed that could not be opened again.
#[test]
fn a_journal_that_is_gone_when_it_is_given_back_is_told_with_the_time() {
    let origins = origins();
    let stage = Stage::new(&origins);
    let process = stage.start();
    assert_eq!(stage.set_weights(2, 1).status, 200);
    let (path, aside) = (stage.state().join("journal.db"), stage.folder.path().join("aside"));
    fs::rename(&path, &aside).expect("a file");
    process.signal(Signal::USR2);
    let journal = || stage.try_get("/v1/status").map(|status| status["journal"].clone());
    let mut failing = Value::Null;
    eventually("it is not open", || {
        // While the other process tries, this one has none.
        let journal = journal().filter(|journal| journal.is_object() && journal["seq"].is_null());
        failing = journal.map_or(Value::Null, |journal| journal["failing"].clone());
        failing.is_object()
    });
    assert!(failing["since"].is_string() && failing["message"].is_string(), "{failing}");
    fs::rename(&aside, &path).expect("a file");
    eventually("changes are made again", || stage.set_weights(3, 1).status == 200);
    assert!(journal().expect("a status")["failing"].is_null());
    stage.verify();
}
