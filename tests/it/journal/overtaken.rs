//! What waits for nothing withdraws what still waits for the disk, and nobody was told of.

use std::thread;

use super::*;

/// A stage with v1, which has all players, and v2.
struct Slow {
    stage: Stage,
    process: Process,
    _origins: [Origin; 2],
}

impl Slow {
    fn start() -> Self {
        let origins = ["v1", "v2"].map(Origin::answering);
        let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
        let stage = Stage::of(builder.service("weights: { v1: 1 }"));
        let process = stage.start();
        Self { stage, process, _origins: origins }
    }

    fn shares(&self) -> [Value; 2] {
        [0, 1].map(|nth| self.stage.version(nth)["share"].clone())
    }

    fn entries(&self) -> Vec<(String, String)> {
        let entries = entries(&self.stage.state());
        entries.iter().map(|entry| (entry.kind.to_string(), entry.reason.clone())).collect()
    }

    /// Sends `first` while the disk does not answer, then `second`; returns the answers of both.
    fn while_it_waits(&self, first: (&str, &str, Value), second: (&str, Value)) -> [Answer; 2] {
        // Who holds the lock of the database is a disk that takes long.
        let database = self.stage.state().join("journal.db");
        let other = rusqlite::Connection::open(database).expect("a database");
        other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
        thread::scope(|scope| {
            let pending = scope.spawn(|| self.stage.send(first.0, first.1, &first.2));
            eventually("it is being written", || {
                self.stage.get("/v1/status")["journal"]["waiting"] == 1
            });
            let second = self.stage.send("POST", second.0, &second.1);
            assert!(!pending.is_finished(), "it waits for the disk");
            other.execute_batch("ROLLBACK").expect("no lock");
            let first = pending.join().expect("no panic");
            eventually("all is written", || self.stage.get("/v1/status")["journal"]["late"] == 0);
            [first, second]
        })
    }
}

fn overtaken(answer: &Answer, by: &str) {
    let detail = answer.json()["detail"].to_string();
    assert_eq!(answer.status, 409, "{detail}");
    assert!(detail.contains(by) && detail.contains("it is withdrawn"), "{detail}");
}

/// Regression: the rollback led back from the change before, and the cutover was made over it.
#[test]
fn a_rollback_undoes_the_cutover_that_waits() {
    let mut slow = Slow::start();
    let to = |version: &str| json!({ "to": version });
    for version in ["v2", "v1"] {
        assert_eq!(slow.stage.send("POST", "cutover", &to(version)).status, 200);
    }
    let rollback = ("rollback", json!({ "reason": "pays twice" }));
    let [cutover, back] = slow.while_it_waits(("POST", "cutover", to("v2")), rollback.clone());
    assert_eq!(back.status, 200, "{}", back.text());
    let answer = back.json();
    assert_eq!(answer["before"], answer["after"], "{answer}");
    let why = answer["unwritten"].to_string();
    assert!(why.contains("withdrawn") && why.contains("the cutover to v2 by"), "{why}");
    overtaken(&cutover, "the rollback by");
    assert_eq!(slow.shares(), [json!(1.0), json!(0.0)]);
    let kinds = slow.entries();
    assert!(kinds.iter().any(|(kind, _)| kind == "withdrawn"), "{kinds:?}");
    // Weights alike.
    let half = ("PUT", "weights", json!({ "weights": { "v2": "50%" } }));
    let [weights, back] = slow.while_it_waits(half, rollback);
    assert_eq!(back.status, 200, "{}", back.text());
    overtaken(&weights, "the rollback by");
    assert_eq!(slow.shares(), [json!(1.0), json!(0.0)]);
    // The stack of rollbacks is as it was: the next one leads from v1 to v2.
    assert_eq!(slow.stage.send("POST", "rollback", &json!({})).status, 200);
    assert_eq!(slow.shares(), [json!(0.0), json!(1.0)]);
    // So says the journal to the next process.
    slow.process.signal(Signal::KILL);
    slow.process.wait();
    slow.process = slow.stage.start();
    assert_eq!(slow.shares(), [json!(0.0), json!(1.0)]);
    slow.stage.verify();
}

/// Regression: an ejection was answered as one that was there already, and then the reinstatement was made.
#[test]
fn an_ejection_withdraws_the_reinstatement_that_waits() {
    let slow = Slow::start();
    let v2 = json!({ "version": "v2" });
    assert_eq!(slow.stage.send("POST", "eject", &v2).status, 200);
    let reinstate = ("POST", "reinstate", v2.clone());
    let [back, out] = slow.while_it_waits(reinstate, ("eject", v2.clone()));
    assert_eq!(out.status, 200, "{}", out.text());
    overtaken(&back, "the ejection of v2 by");
    assert_eq!(slow.stage.version(1)["state"], "ejected");
    assert_eq!(slow.stage.send("POST", "reinstate", &v2).status, 200, "it can be asked for again");
}
