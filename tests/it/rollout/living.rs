//! No way back leads to versions that are known to be dead while the version itself serves.

use std::{net::TcpListener, sync::atomic::AtomicU64};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::*;
use crate::support::process::{Process, free_address, program};

const HEALTH: &str =
    "health: { http: { path: / }, interval: 50ms, unhealthy: 2, healthy: 2, slow_start: 0s }";

/// Nothing is ejected by it.
const ADVISE: &str = "eject: { errors: {}, mode: advise }";

/// An origin at `address` that fails the requests of one of `one_of` players (0: of none).
fn serving(address: SocketAddr, one_of: &Arc<AtomicU64>) -> Origin {
    let one_of = Arc::clone(one_of);
    let listener = TcpListener::bind(address).expect("the address is free");
    Origin::start_at(listener, move |call| {
        call.skip_body()?;
        let player: Option<u64> = call.head.field("x-player-id").and_then(|p| p.parse().ok());
        let one_of = one_of.load(SeqCst);
        let fails = one_of > 0 && player.is_some_and(|player| player.is_multiple_of(one_of));
        call.answer(if fails { 500 } else { 200 }, b"")
    })
}

/// A rollout from v1 to v2. The process of v1 can be killed.
struct Mortal {
    stage: Stage,
    v1: Option<Origin>,
    at: SocketAddr,
    /// One of so many players fails on v2.
    one_of: Arc<AtomicU64>,
    _v2: Origin,
}

impl Mortal {
    /// With all players on v2, which bakes.
    fn baking(fields: &[&str], gates: &Value) -> Self {
        let (at, one_of) = (free_address(), Arc::default());
        let v1 = Some(serving(at, &Arc::default()));
        let v2 = serving(free_address(), &one_of);
        let builder = Proxy::builder()
            .version_at("v1", &[at])
            .version("v2", &v2)
            .service("weights: { v1: 1 }")
            .service("cohort: { key: [ 'header:x-player-id' ] }")
            .top("admin: { address: 127.0.0.1:0 }");
        let proxy = fields.iter().fold(builder, |b, field| b.service(field)).start_with_file();
        let players = Players::at(proxy.address);
        let stage = Stage { versions: Versions::new(), proxy, _players: players };
        stage.begin(&json!([{ "weight": "100%", "bake": "1h", "gates": gates }]));
        stage.until("baking");
        Self { stage, v1, at, one_of, _v2: v2 }
    }

    fn kill(&mut self) {
        drop(self.v1.take().expect("it is alive"));
        eventually("nobody listens", || TcpStream::connect(self.at).is_err());
    }

    fn kill_and_see(&mut self) {
        self.kill();
        eventually("v1 is known to be dead", || self.version(0)["available"] == false);
    }

    fn revive(&mut self) {
        self.v1 = Some(serving(self.at, &Arc::default()));
    }

    fn version(&self, number: usize) -> Value {
        self.stage.get("/v1/services/game-api")["versions"][number].clone()
    }

    /// The events of this kind.
    fn events(&self, kind: &str) -> Vec<Value> {
        let mut admin = self.stage.proxy.admin();
        let request = admin.get("/v1/events?since=0").host("localhost");
        let events = request.header("Accept", "application/json").send().json();
        let events = events["events"].as_array().expect("a list").clone();
        events.into_iter().filter(|event| event["kind"] == kind).collect()
    }

    fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let admin = format!("http://{}", self.stage.proxy.admin_address());
        let mut command = program();
        command.args(arguments).env("TIDEGATE_ADMIN", admin).env_remove("TIDEGATE_TOKEN_FILE");
        let output = command.output().expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    #[track_caller]
    fn assert_refused(&self, what: &str, why: &str) {
        let answer = self.stage.post(&format!("{ROLLOUT}/{what}"), &json!({ "reason": "a test" }));
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert_eq!(answer.status, 409, "{detail}");
        let says = "no endpoint of `v1` of `game-api` can be reached: ";
        assert!(detail.starts_with(says) && detail.contains(why), "{detail}");
        assert!(detail.contains("`force`"), "{detail}");
    }
}

/// Regression: `rollout rollback`, and its dry run, said nothing, and all players met a port at which nobody listened.
#[test]
fn a_command_leads_to_a_version_that_was_stopped_only_if_the_caller_insists() {
    let mut mortal = Mortal::baking(&[ADVISE], &json!([]));
    // Nothing has asked v1 since: only a connection shows it.
    mortal.kill();
    for what in ["rollback?dry_run=true", "rollback", "abort?dry_run=true", "abort"] {
        mortal.assert_refused(what, "Connection refused");
    }
    for more in [&["--dry-run"][..], &[], &["--at-once"]] {
        let arguments = [&["rollout", "rollback", "game-api"], more].concat();
        let (code, _, error) = mortal.command(&arguments);
        assert_eq!((code, error.contains("--force")), (Some(65), true), "{error}");
    }
    let stage = &mortal.stage;
    assert_eq!((stage.rollout()["phase"].clone(), stage.shares()), (json!("baking"), [0.0, 1.0]));
    let wrong = stage.post(&format!("{ROLLOUT}/pause"), &json!({ "force": true }));
    assert_eq!((wrong.status, &wrong.json()["field"]), (422, &json!("force")));
    // It is known to be dead by now, so all players at once takes a word of its own.
    let insist = ["rollout", "rollback", "game-api", "--force", "--at-once"];
    let (code, _, error) = mortal.command(&insist);
    assert_eq!(code, Some(0), "{error}");
    mortal.stage.until("rolled_back");
    assert_eq!(mortal.stage.shares(), [1.0, 0.0], "somebody insisted");
}

#[test]
fn a_command_needs_no_force_once_the_version_serves_again() {
    let mut mortal = Mortal::baking(&[ADVISE], &json!([]));
    mortal.kill();
    mortal.assert_refused("abort", "Connection refused");
    mortal.revive();
    mortal.stage.order("abort", &json!({ "reason": "a test" }));
    mortal.stage.until("aborted");
    assert_eq!(mortal.stage.shares(), [1.0, 0.0]);
}

/// Regression: a guardrail that failed took all players to a version whose checks said that it was down.
#[test]
fn a_rollback_waits_while_the_checks_say_that_the_version_before_is_down() {
    let mut mortal = Mortal::baking(&[HEALTH, ADVISE, "slo: { errors: 2% }"], &json!(["slo"]));
    mortal.kill_and_see();
    mortal.assert_refused("rollback", "is down");
    mortal.one_of.store(5, SeqCst);
    let waits = |mortal: &Mortal| {
        let rollout = mortal.stage.rollout();
        let missing = rollout["missing"].to_string();
        rollout["phase"] == "rolling_back"
            && missing.contains("worse, and kept: nothing else serves: no endpoint of v1 works")
    };
    eventually("the rollback waits", || waits(&mortal));
    thread::sleep(Duration::from_secs(1));
    assert!(waits(&mortal), "{}", mortal.stage.rollout());
    assert_eq!(mortal.stage.shares(), [0.0, 1.0]);
    let warned = mortal.events("rollout_warning");
    let says = |event: &Value| event["reason"].to_string().contains("the rollback waits");
    assert!(warned.iter().any(says), "{warned:?}");
    mortal.assert_refused("rollback", "is down");
    mortal.revive();
    mortal.stage.until("rolled_back");
    assert_eq!(mortal.stage.shares(), [1.0, 0.0]);
}

/// Regression: v1 was down for a while as v2 failed 5 % of its requests, and was ejected: from then on all failed.
#[test]
fn a_version_is_ejected_only_once_another_one_serves_its_players() {
    let fields = [HEALTH, "eject: { errors: { absolute: 1% } }", "slo: { errors: 2% }"];
    let mut mortal = Mortal::baking(&fields, &json!([]));
    mortal.kill_and_see();
    mortal.one_of.store(10, SeqCst);
    eventually("it is kept", || !mortal.events("worse_kept").is_empty());
    let says = "worse, and kept: nothing else serves: no endpoint of v1 works";
    let kept = &mortal.events("worse_kept")[0];
    let reason = kept["reason"].as_str().expect("a text");
    assert!(reason.starts_with(says) && reason.contains("of its requests failed"), "{reason}");
    eventually("the rollout says so", || {
        mortal.stage.rollout()["missing"].to_string().contains(says)
    });
    assert_eq!(
        (mortal.version(1)["state"].clone(), mortal.stage.shares()),
        (json!("serving"), [0.0, 1.0])
    );
    let (code, status, error) = mortal.command(&["status"]);
    assert!(code == Some(0) && status.contains(says), "{status}{error}");
    thread::sleep(Duration::from_secs(1));
    assert_eq!(mortal.stage.rollout()["phase"], "rolling_back", "as its gate says");
    assert_eq!(mortal.stage.shares(), [0.0, 1.0]);
    assert_eq!(mortal.events("worse_kept").len(), 1, "once is enough");

    mortal.revive();
    let back = mortal.stage.until("rolled_back");
    assert!(back["cause"].as_str().expect("a text").starts_with("v2 was ejected: "), "{back}");
    assert_eq!(
        (mortal.version(1)["state"].clone(), mortal.stage.shares()),
        (json!("ejected"), [1.0, 0.0])
    );
    let service = mortal.stage.get("/v1/services/game-api");
    let verdict = &service["verdicts"][0];
    let kept_ms = verdict["held"]["nothing_else_serves"]["kept_ms"].as_u64();
    assert!(kept_ms.is_some_and(|ms| ms >= 1_000), "{verdict}");
    // It turned bad after a while: it is told by what it did since.
    let counts = &verdict["findings"][0]["numbers"]["bound"];
    let rate = counts["since_onset"]["rate"].as_f64().expect("a share");
    assert!((0.05..0.2).contains(&rate), "{verdict}");
    let ejected = &mortal.events("ejected")[0];
    let path = ejected["incident"]["path"].as_str().expect("a report");
    let mut report = Value::Null;
    eventually("the report is there", || {
        report = mortal.stage.get(path);
        report["harm"].is_object()
    });
    let harmed = report["harm"]["estimate"].as_f64();
    assert!(harmed.is_some_and(|harmed| harmed > 1.0), "{report}");
    assert!(report["onset_at"].is_string(), "{report}");
}

#[test]
fn a_version_that_serves_nobody_itself_is_ejected_whatever_the_others_do() {
    let fields = [HEALTH, "eject: { errors: { absolute: 1% } }", "slo: { errors: 2% }"];
    let mut mortal = Mortal::baking(&fields, &json!([]));
    mortal.kill_and_see();
    mortal.one_of.store(1, SeqCst);
    mortal.stage.until("rolled_back");
    assert_eq!(mortal.version(1)["state"], "ejected");
}

#[test]
fn a_version_that_is_kept_is_ejected_once_it_serves_nobody_itself() {
    let fields = [HEALTH, "eject: { errors: { absolute: 1% } }", "slo: { errors: 2% }"];
    let mut mortal = Mortal::baking(&fields, &json!([]));
    mortal.kill_and_see();
    mortal.one_of.store(10, SeqCst);
    eventually("it is kept", || !mortal.events("worse_kept").is_empty());
    mortal.one_of.store(1, SeqCst);
    mortal.stage.until("rolled_back");
    assert_eq!(mortal.version(1)["state"], "ejected");
}

/// Regression: a command was refused since nobody listened at v1, and a verdict gave it all players two seconds later.
#[test]
fn a_version_without_checks_that_was_found_to_be_dead_gets_no_players_by_a_verdict() {
    let fields = ["eject: { errors: { absolute: 1% } }", "slo: { errors: 2% }"];
    let mut mortal = Mortal::baking(&fields, &json!([]));
    mortal.kill();
    mortal.assert_refused("rollback?dry_run=true", "Connection refused");
    assert_eq!(mortal.version(0)["endpoints"][0]["reachable"], false);
    mortal.one_of.store(5, SeqCst);
    eventually("it is kept", || !mortal.events("worse_kept").is_empty());
    assert_eq!(mortal.stage.shares(), [0.0, 1.0]);
    mortal.revive();
    mortal.stage.until("rolled_back");
    assert_eq!(mortal.version(1)["state"], "ejected");
}

/// Regression: the same, where nobody had asked: in a bake a connection is tried every second.
#[test]
fn a_way_back_without_checks_is_looked_at_while_a_version_bakes() {
    let mut mortal = Mortal::baking(&[ADVISE, "slo: { errors: 2% }"], &json!([]));
    mortal.kill();
    eventually("it is known", || mortal.version(0)["endpoints"][0]["reachable"] == false);
    mortal.revive();
    eventually("it is back", || mortal.version(0)["endpoints"][0]["reachable"] == true);
}

/// A process with a journal that can be replaced and killed, of a version that is kept since v1 is dead.
struct Replaced {
    text: String,
    address: SocketAddr,
    admin: SocketAddr,
    process: Process,
    _folder: TempDir,
    _players: Players,
}

impl Replaced {
    fn kept(fields: &[&str], v1: SocketAddr, v2: &Origin) -> Self {
        let folder = TempDir::new().expect("a folder");
        let (address, admin) = (free_address(), free_address());
        let builder = Proxy::builder()
            .version_at("v1", &[v1])
            .version("v2", v2)
            .service("weights: { v1: 1 }")
            .service("cohort: { key: [ 'header:x-player-id' ] }")
            .service("eject: { errors: { absolute: 1% } }")
            .service("slo: { errors: 2% }")
            .top(&format!("admin: {{ address: \"{admin}\" }}"))
            .top(&format!("state: '{}'", folder.path().join("state").display()))
            .listen(address);
        let text = fields.iter().fold(builder, |builder, field| builder.service(field)).text();
        let process = Process::spawn_at(address, &text);
        let players = Players::at(address);
        let replaced = Self { text, address, admin, process, _folder: folder, _players: players };
        replaced.until("the admin endpoint is there", |service| service.is_object());
        let body = json!({ "to": "v2", "steps": [{ "weight": "100%", "bake": "1h" }] }).to_string();
        let begun = Client::connect(admin).post(ROLLOUT, body.as_bytes()).host("localhost").send();
        assert_eq!(begun.status, 200, "{}", begun.text());
        replaced.until("it bakes", |service| service["rollout"]["phase"] == "baking");
        replaced
    }

    /// Waits until `holds` of the service; nobody gets v1 meanwhile if `stays`.
    #[track_caller]
    fn until_as(&self, what: &str, stays: bool, holds: impl Fn(&Value) -> bool) {
        eventually(what, || {
            let get = |path: &str| {
                std::net::TcpStream::connect(self.admin).ok()?;
                let answer = Client::connect(self.admin).get(path).host("localhost").try_send();
                answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.json())
            };
            let Some(mut service) = get("/v1/services/game-api") else { return false };
            if let Some(rollout) = get(ROLLOUT) {
                service["rollout"] = rollout;
            }
            let share = &service["versions"][0]["share"];
            assert!(!stays || *share == json!(0.0), "v1 is dead, and gets players: {service}");
            holds(&service)
        });
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        self.until_as(what, false, holds);
    }

    /// Waits until it is known in this process that v1 is dead, and the rollout has seen that.
    #[track_caller]
    fn until_kept(&self) {
        self.until_as("v2 is kept", true, |service| {
            let v1 = &service["versions"][0];
            let is_dead = v1["available"] == false || v1["endpoints"][0]["reachable"] == false;
            let missing = service["rollout"]["missing"].to_string();
            let says = "no endpoint of v1 works";
            is_dead && missing.contains(says) && !missing.contains("has not answered yet")
        });
    }

    fn pid(&self) -> Option<i64> {
        let status = Client::connect(self.admin).get("/v1/status").host("localhost").try_send();
        status.ok()?.json()["pid"].as_i64()
    }

    fn take_over(&self) {
        let old = self.pid().expect("a process");
        let number = Pid::from_raw(i32::try_from(old).expect("a number")).expect("above 0");
        kill_process(number, Signal::USR2).expect("it runs");
        eventually("another process serves", || self.pid().is_some_and(|new| new != old));
    }

    fn kill_and_start(&mut self) {
        let last = self.pid().expect("a process");
        let number = Pid::from_raw(i32::try_from(last).expect("a number")).expect("above 0");
        kill_process(number, Signal::KILL).expect("it runs");
        eventually("it is gone", || TcpStream::connect(self.address).is_err());
        self.process = Process::spawn_at(self.address, &self.text);
    }
}

/// Regression: each process that took over, or was started after a kill, took the dead v1 for alive, and gave it a part of
/// the players for good.
#[test]
fn no_other_process_gives_players_to_a_version_that_was_known_to_be_dead() {
    for health in [None, Some("health: { http: { path: / }, interval: 5s }")] {
        let (at, one_of) = (free_address(), Arc::default());
        let v1 = serving(at, &Arc::default());
        let v2 = serving(free_address(), &one_of);
        let fields: Vec<&str> = health.into_iter().collect();
        let mut replaced = Replaced::kept(&fields, at, &v2);
        drop(v1);
        eventually("nobody listens", || TcpStream::connect(at).is_err());
        let knows = |service: &Value| {
            let v1 = &service["versions"][0];
            v1["available"] == false || v1["endpoints"][0]["reachable"] == false
        };
        replaced.until("it is known that v1 is dead", knows);
        one_of.store(5, SeqCst);
        replaced.until_kept();
        for _ in 0..2 {
            replaced.take_over();
            replaced.until_kept();
        }
        replaced.kill_and_start();
        replaced.until_kept();
        let _v1 = serving(at, &Arc::default());
        replaced.until("it is rolled back", |service| service["rollout"]["phase"] == "rolled_back");
        replaced.until("v1 serves", |service| service["versions"][0]["share"] == json!(1.0));
    }
}
