//! What a process that takes over continues: evidence, records and latencies.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tidegate::analysis::Record;

use crate::support::{
    Client, Origin, Proxy, eventually,
    process::{Process, free_address},
    proxy::SERVICE,
};

/// A canary that fails every fourth request, with a baseline that fails none.
struct Stage {
    process: Process,
    admin: SocketAddr,
    players: u32,
    /// Requests of the canary.
    asked: Arc<AtomicU32>,
    /// Whether it fails now.
    failing: Arc<AtomicBool>,
    _origins: [Origin; 2],
}

impl Stage {
    fn new() -> Self {
        let (asked, failing) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(true)));
        let v1 = Origin::start(|call| {
            call.skip_body()?;
            call.answer(200, b"v1")
        });
        let (count, fails) = (Arc::clone(&asked), Arc::clone(&failing));
        let v2 = Origin::start(move |call| {
            call.skip_body()?;
            let nth = count.fetch_add(1, SeqCst);
            call.answer(if nth % 4 == 0 && fails.load(SeqCst) { 500 } else { 200 }, b"v2")
        });
        let admin = free_address();
        let process = Proxy::builder()
            .version("v1", &v1)
            .version("v2", &v2)
            .service("weights: { v1: 50, v2: 50 }")
            .service("cohort: { key: [ 'header:x-player-id' ] }")
            .service("eject: { errors: {}, alpha: 1e-9 }")
            .top(&format!("admin: {{ address: \"{admin}\" }}"))
            .spawn();
        let stage = Self { process, admin, players: 0, asked, failing, _origins: [v1, v2] };
        eventually("the admin endpoint answers", || stage.get("/v1/status").is_some());
        stage
    }

    fn text(&self, path: &str) -> Option<String> {
        let mut client = std::panic::catch_unwind(|| Client::connect(self.admin)).ok()?;
        let answer = client.get(path).host("localhost").try_send().ok()?;
        (answer.status == 200).then(|| answer.text().to_owned())
    }

    fn get(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&self.text(path)?).ok()
    }

    fn service(&self) -> Value {
        self.get(&format!("/v1/services/{SERVICE}")).expect("the service")
    }

    fn record(&self) -> Record {
        let text = self.text(&format!("/v1/services/{SERVICE}/record?version=v2"));
        Record::read(&text.expect("a record")).expect("a record").1
    }

    /// Lets new players ask until the canary has had `requests` in all, or is ejected. Returns its requests. The last
    /// request is the baseline's: the canary's are judged beside one.
    fn ask(&mut self, requests: u32) -> u32 {
        let mut client = Client::connect(self.process.address);
        let mut was_baseline = false;
        while (self.asked.load(SeqCst) < requests && !self.is_ejected()) || !was_baseline {
            self.players += 1;
            let player = self.players.to_string();
            was_baseline = client.get("/").header("x-player-id", &player).send().body == b"v1";
        }
        self.asked.load(SeqCst)
    }

    fn is_ejected(&self) -> bool {
        self.service()["versions"][1]["state"] == "ejected"
    }

    /// Evidence against the canary, and its requests that are judged.
    fn evidence(&self) -> (Option<f64>, Option<u64>) {
        let verdict = self.service()["verdicts"][0].clone();
        let findings = verdict["findings"].as_array().cloned().unwrap_or_default();
        let errors = findings.iter().find(|finding| finding["metric"] == "errors");
        let requests = errors.and_then(|errors| {
            errors["numbers"]["errors"]["counts"]["canary"]["requests"].as_u64()
        });
        (verdict["log_evidence"].as_f64(), requests)
    }

    /// Replaces the process that serves.
    fn upgrade(&self) {
        let pid = || self.get("/v1/status").and_then(|status| status["pid"].as_i64());
        let old = pid().expect("a process");
        let number = Pid::from_raw(i32::try_from(old).expect("a number")).expect("above 0");
        kill_process(number, Signal::USR2).expect("it runs");
        eventually("another process serves", || {
            assert!(!self.process.log().contains("no other process took over"));
            pid().is_some_and(|new| new != old)
        });
    }
}

#[test]
fn a_verdict_in_the_making_goes_on_in_the_process_that_takes_over() {
    let needed = Stage::new().ask(u32::MAX);
    assert!(needed >= 24, "{needed} is too few for half of them to be evidence");
    let mut stage = Stage::new();
    let half = stage.ask(needed / 2);
    // Blocks that are open at the takeover are lost.
    eventually("what was asked is judged", || stage.evidence().1 == Some(u64::from(half)));
    let (before, blocks) = (stage.evidence(), stage.record().len());
    let latency = |stage: &Stage| stage.service()["versions"][0]["latency_ms"].clone();
    let p99 = latency(&stage)["p99"].as_f64().expect("known");
    for _ in 0..2 {
        stage.upgrade();
        // The first look of the new process begins with the evidence of the old one.
        eventually("the comparison goes on", || stage.evidence().0.is_some());
        assert_eq!(stage.evidence(), before);
        let record = stage.record();
        assert!(record.is_whole() && record.len() >= blocks, "{} of {blocks}", record.len());
        assert_eq!(latency(&stage)["p99"].as_f64(), Some(p99));
    }
    let all = stage.ask(3 * needed);
    assert!(stage.is_ejected());
    let most = needed + needed / 4 + 4;
    assert!(all <= most, "{all} requests; without a takeover {needed}, and {half} before it");
    let record = stage.record();
    assert!(record.is_whole() && record.len() > blocks);
}

#[test]
fn a_comparison_by_other_limits_begins_anew() {
    let mut stage = Stage::new();
    stage.failing.store(false, SeqCst);
    stage.ask(40);
    eventually("it is judged", || stage.evidence().1 >= Some(40));
    let text = std::fs::read_to_string(&stage.process.file).expect("a file");
    let other = text.replace("errors: {}", "errors: { absolute: 3% }");
    assert_ne!(text, other);
    stage.process.write(&other);
    stage.upgrade();
    eventually("the new process judges", || stage.evidence().1.is_some());
    assert_eq!(stage.evidence().1, Some(0));
    // A slow upgrade leaves the old process time to read the file itself.
    let log = stage.process.log();
    assert!(log.contains("begin anew") || log.contains("configuration taken over"), "{log}");
}
