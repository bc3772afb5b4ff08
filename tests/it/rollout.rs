//! Rollouts over real sockets: they grow, hold, go back, and go on after a kill.

mod alone;
mod before;
mod beside;
mod commanded;
mod counted;
mod files;
mod four_eyes;
mod gated;
mod kept;
mod living;
mod loaded;
mod told;

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Answer, Client, Origin, Proxy, eventually, proxy::Builder};

const ROLLOUT: &str = "/v1/services/game-api/rollout";

/// An origin that answers 500 once `failing` is set.
fn origin(failing: &Arc<AtomicBool>) -> Origin {
    let failing = Arc::clone(failing);
    Origin::start(move |call| {
        call.skip_body()?;
        call.answer(if failing.load(SeqCst) { 500 } else { 200 }, b"")
    })
}

/// The versions v1 and v2, all players on v1.
struct Versions {
    failing: Arc<AtomicBool>,
    origins: [Origin; 2],
}

impl Versions {
    fn new() -> Self {
        let (healthy, failing) = (Arc::default(), Arc::default());
        let origins = [origin(&healthy), origin(&failing)];
        Self { failing, origins }
    }

    fn builder(&self, fields: &[&str]) -> Builder {
        let builder = Proxy::builder()
            .version("v1", &self.origins[0])
            .version("v2", &self.origins[1])
            .service("cohort: { key: [ 'header:x-player-id' ] }")
            .top("admin: { address: 127.0.0.1:0 }");
        fields.iter().fold(builder, |builder, field| builder.service(field))
    }
}

/// Players who ask all the time, each once, until it is dropped.
struct Players {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Players {
    fn at(address: SocketAddr) -> Self {
        let ended: Arc<AtomicBool> = Arc::default();
        let stop = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut client = None;
            for player in 0_u64.. {
                if stop.load(SeqCst) {
                    return;
                }
                if client.is_none() && TcpStream::connect(address).is_err() {
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
                let mut with = client.take().unwrap_or_else(|| Client::connect(address));
                let asked = with.get("/").header("x-player-id", &player.to_string()).try_send();
                // The proxy may be started anew meanwhile.
                client = asked.is_ok().then_some(with);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Players {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Stage {
    versions: Versions,
    proxy: Proxy,
    _players: Players,
}

impl Stage {
    fn start(fields: &[&str]) -> Self {
        Self::with(fields, |builder| builder)
    }

    fn with(fields: &[&str], more: impl FnOnce(Builder) -> Builder) -> Self {
        let versions = Versions::new();
        let proxy = more(versions.builder(fields)).start_with_file();
        let players = Players::at(proxy.address);
        Self { versions, proxy, _players: players }
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.proxy.admin().post(path, body.as_bytes()).host("localhost").send()
    }

    #[track_caller]
    fn begin(&self, steps: &Value) -> Value {
        let body = json!({ "to": "v2", "steps": steps, "reason": "a test" });
        let answer = self.post(ROLLOUT, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    #[track_caller]
    fn order(&self, command: &str, body: &Value) -> Value {
        let answer = self.post(&format!("{ROLLOUT}/{command}"), body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["rollout"].clone()
    }

    fn get(&self, path: &str) -> Value {
        self.proxy.admin().get(path).host("localhost").send().json()
    }

    fn rollout(&self) -> Value {
        self.get(ROLLOUT)
    }

    /// Waits until the rollout is in `phase`, and returns it.
    #[track_caller]
    fn until(&self, phase: &str) -> Value {
        let mut last = Value::Null;
        eventually(&format!("the rollout is {phase}"), || {
            last = self.rollout();
            last["phase"] == phase
        });
        last
    }

    /// The shares of v1 and v2 in force.
    fn shares(&self) -> [f64; 2] {
        let service = self.get("/v1/services/game-api");
        [0, 1].map(|n| service["versions"][n]["share"].as_f64().expect("a share"))
    }

    /// The events of this kind, the oldest first.
    fn events_of(&self, kind: &str) -> Vec<Value> {
        let mut admin = self.proxy.admin();
        let request = admin.get("/v1/events?since=0").host("localhost");
        let events = request.header("Accept", "application/json").send().json();
        let events = events["events"].as_array().expect("a list").iter();
        events.filter(|event| event["kind"] == kind).cloned().collect()
    }

    /// The last event of this kind about `what` was done.
    #[track_caller]
    fn event(&self, kind: &str, what: &str) -> Value {
        let found = self.events_of(kind).into_iter().rfind(|event| event["what"] == what);
        found.unwrap_or_else(|| panic!("no event {kind} of {what}: {:#?}", self.events_of(kind)))
    }

    fn metrics(&self) -> String {
        self.proxy.admin().get("/metrics").host("localhost").send().text().to_owned()
    }

    fn kinds(&self) -> Vec<String> {
        let mut admin = self.proxy.admin();
        let request = admin.get("/v1/events?since=0").host("localhost");
        let events = request.header("Accept", "application/json").send().json();
        let events = events["events"].as_array().expect("a list").clone();
        events.iter().map(|event| event["kind"].as_str().expect("a kind").to_owned()).collect()
    }
}

/// The transitions of `rollout` as they are named.
fn transitions(rollout: &Value) -> Vec<&str> {
    let entries = rollout["entries"].as_array().expect("a list");
    entries.iter().map(|entry| entry["on"].as_str().expect("a name")).collect()
}

#[test]
fn a_rollout_grows_step_by_step_bakes_and_leaves_a_way_back() {
    let stage = Stage::start(&["eject: { errors: { absolute: 1% } }"]);
    let begun = stage.begin(&json!([
        { "weight": "10%", "for": "1s" }, { "weight": "50%", "for": "1s" },
        { "weight": "100%", "bake": "2s" },
    ]));
    assert_eq!(begun["rollout"]["phase"], "pending");
    let at_ten = stage.until("growing");
    assert_eq!((&at_ten["step"], &at_ten["share"]), (&json!(1), &json!(0.1)));
    assert_eq!(stage.shares(), [0.9, 0.1]);
    let second = stage.post(ROLLOUT, &json!({ "to": "v2", "steps": [{ "weight": "100%" }] }));
    assert_eq!(second.status, 409, "{}", second.text());
    assert!(second.text().contains("a rollout of `game-api` to `v2` is "), "{}", second.text());
    stage.until("baking");
    assert_eq!(stage.shares(), [0.0, 1.0]);
    let done = stage.until("done");
    assert_eq!(transitions(&done), ["grow", "grow", "bake", "finish"]);
    assert_eq!(done["way_back"], true);
    stage.order("rollback", &json!({ "reason": "the jackpot is wrong" }));
    let back = stage.until("rolled_back");
    assert_eq!(stage.shares(), [1.0, 0.0]);
    assert!(back["cause"].as_str().expect("a text").contains("jackpot"), "{back}");
    let kinds = stage.kinds();
    for kind in ["rollout_started", "rollout", "rollout_done", "rollout_rolled_back"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind} is missing in {kinds:?}");
    }
    let page = stage.proxy.admin().get("/metrics").host("localhost").send();
    let text = page.text();
    for line in [
        "tidegate_rollouts_total{outcome=\"done\",service=\"game-api\"} 1\n",
        "tidegate_rollouts_total{outcome=\"rolled_back\",service=\"game-api\"} 1\n",
        "tidegate_rollout_phase{service=\"game-api\",version=\"v2\",phase=\"rolled_back\"} 1\n",
    ] {
        assert!(text.contains(line), "{line} is missing");
    }
}

#[test]
fn a_version_that_fails_is_ejected_and_the_split_before_is_in_force_at_once() {
    let stage = Stage::start(&["eject: { errors: { absolute: 1% } }"]);
    stage.begin(&json!([{ "weight": "50%", "for": "1h" }, { "weight": "100%", "bake": "1h" }]));
    stage.until("growing");
    stage.versions.failing.store(true, SeqCst);
    let back = stage.until("rolled_back");
    assert!(back["cause"].as_str().expect("a text").starts_with("v2 was ejected: "), "{back}");
    assert_eq!(back["weights"], json!({ "v1": 1.0, "v2": 0.0 }));
    let version = &stage.get("/v1/services/game-api")["versions"][1];
    assert_eq!((&version["state"], &version["weight"]), (&json!("ejected"), &json!(0.0)));
    // One swap: no snapshot had the version ejected and the weights of the rollout.
    let mut admin = stage.proxy.admin();
    let request = admin.get("/v1/events?since=0").host("localhost");
    let events = request.header("Accept", "application/json").send().json();
    let events = events["events"].as_array().expect("a list");
    let of = |kind: &str| events.iter().find(|event| event["kind"] == kind).expect("an event");
    assert_eq!(of("ejected")["generation"], of("rollout_rolled_back")["generation"]);
    let again =
        stage.post(ROLLOUT, &json!({ "to": "v2", "steps": [{ "weight": "100%", "for": "1s" }] }));
    assert_eq!(again.status, 409);
    assert!(again.text().contains("`v2` is ejected; reinstate it first"), "{}", again.text());
}

#[test]
fn a_version_that_fails_while_it_bakes_is_ejected_and_the_one_before_serves_again() {
    let stage = Stage::start(&["eject: { errors: { absolute: 1% } }", "slo: { errors: 2% }"]);
    stage.begin(&json!([{ "weight": "100%", "bake": "1h" }]));
    stage.until("baking");
    assert_eq!(stage.shares(), [0.0, 1.0]);
    stage.versions.failing.store(true, SeqCst);
    stage.until("rolled_back");
    assert_eq!(stage.shares(), [1.0, 0.0]);
    assert_eq!(stage.get("/v1/services/game-api")["versions"][1]["state"], "ejected");
}
