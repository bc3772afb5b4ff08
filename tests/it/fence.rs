//! Fenced cutovers: writes wait, those of the old version end, and never do two versions work on writes.

mod beside;
mod many;
mod places;
mod reclassed;
mod repeated;
mod required;
mod smoke;
mod undone;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::{
    app::Ended,
    registry::FenceState,
    store::{Entry, Filter, Reader},
};

use crate::support::{
    Answer, Client, Origin, Proxy, eventually,
    http2::{Http2, request},
    proxy::{Builder, SERVICE},
};

/// What an origin saw of a write, by its own clock.
#[derive(Debug, Clone)]
struct Write {
    version: &'static str,
    target: String,
    epoch: u64,
    began: Instant,
    ended: Instant,
}

/// The writes of both versions.
type Writes = Arc<Mutex<Vec<Write>>>;

/// Writes that do not end.
#[derive(Default)]
struct Stuck {
    holds: AtomicBool,
    /// How many have begun.
    count: AtomicUsize,
}

/// A version that takes `time` for each write, as long as `stuck` for those that say so, and no time for reads.
fn version(version: &'static str, writes: &Writes, time: Duration, stuck: Arc<Stuck>) -> Origin {
    let writes = Arc::clone(writes);
    Origin::start(move |call| {
        call.skip_body()?;
        let epochs: Vec<u64> =
            call.head.all("tidegate-epoch").filter_map(|epoch| epoch.parse().ok()).collect();
        assert_eq!(epochs.len(), 1, "one epoch on each request: {:?}", call.head);
        if call.method() != "POST" {
            return call.answer(200, version.as_bytes());
        }
        let (target, began) = (call.target().to_owned(), Instant::now());
        match target.starts_with("/stuck") {
            true => {
                stuck.count.fetch_add(1, SeqCst);
                eventually("the write may end", || !stuck.holds.load(SeqCst));
            }
            false => thread::sleep(time),
        }
        let write = Write { version, target, epoch: epochs[0], began, ended: Instant::now() };
        writes.lock().expect("no panic").push(write);
        call.answer(200, version.as_bytes())
    })
}

/// Two versions with a fence, and what they saw.
struct Stage {
    proxy: Option<Proxy>,
    origins: [Origin; 2],
    writes: Writes,
    stuck: Arc<Stuck>,
    /// The journal.
    folder: TempDir,
    builder: Builder,
}

impl Stage {
    fn new(fence: &str) -> Self {
        Self::with(fence, Duration::from_millis(20), |builder| builder)
    }

    fn with(fence: &str, time: Duration, more: impl FnOnce(Builder) -> Builder) -> Self {
        let (writes, stuck) = (Writes::default(), Arc::<Stuck>::default());
        let origins = ["v1", "v2"].map(|name| version(name, &writes, time, Arc::clone(&stuck)));
        let folder = TempDir::new().expect("a folder");
        let state = folder.path().join("state");
        let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
        let builder = builder.workers(2).service(&format!("fence: {{ {fence} }}"));
        let builder = builder.top("admin: { address: \"127.0.0.1:0\" }");
        let builder = more(builder.top(&format!("state: '{}'", state.display())));
        let proxy = Some(builder.start_with_file());
        Self { proxy, origins, writes, stuck, folder, builder }
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("it runs")
    }

    fn post(&self, what: &str, body: &Value) -> Answer {
        let (path, body) = (format!("/v1/services/{SERVICE}/{what}"), body.to_string());
        let mut admin = self.proxy().admin();
        admin.request("POST", &path).host("127.0.0.1").body(body.as_bytes()).send()
    }

    fn cut_over(&self, to: &str) -> Answer {
        self.post("cutover", &json!({ "to": to }))
    }

    /// Begins a write on the version that has them, which does not end before [`Stage::unstick`].
    fn stick(&self) -> Client {
        self.stuck.holds.store(true, SeqCst);
        let before = self.stuck.count.load(SeqCst);
        let client = self.begin("/stuck");
        eventually("it has begun", || self.stuck.count.load(SeqCst) > before);
        client
    }

    fn unstick(&self) {
        self.stuck.holds.store(false, SeqCst);
    }

    /// Sends a write and does not wait for its answer.
    fn begin(&self, target: &str) -> Client {
        let mut client = self.proxy().connect();
        client.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"));
        client
    }

    fn fence(&self) -> Arc<FenceState> {
        let snapshot = self.proxy().snapshot();
        Arc::clone(&snapshot.services[0].fence.as_ref().expect("a fence").state)
    }

    fn await_closed(&self) {
        eventually("the fence is raised", || self.fence().is_closed());
    }

    fn await_waiting(&self, count: usize) {
        eventually("writes are held", || self.fence().waiting() == count);
    }

    fn writes(&self) -> Vec<Write> {
        self.writes.lock().expect("no panic").clone()
    }

    fn share_of_v2(&self) -> f64 {
        self.proxy().snapshot().services[0].share(1)
    }

    fn entries(&self) -> Vec<Entry> {
        let reader = Reader::open(&self.folder.path().join("state")).expect("a journal");
        let stored = reader.show(&Filter { limit: Some(10_000), ..Filter::default() });
        stored.expect("entries").into_iter().map(|stored| stored.entry).collect()
    }

    fn kinds(&self) -> Vec<String> {
        self.entries().into_iter().map(|entry| entry.kind).collect()
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        let mut admin = self.proxy().admin();
        let events = admin.get("/v1/events?since=0").host("127.0.0.1");
        let events = events.header("Accept", "application/json").send().json();
        let events = events["events"].as_array().expect("a list").iter();
        events.filter(|event| event["kind"] == kind).cloned().collect()
    }
}

/// No write of a version overlaps one of the other, and the epoch never falls.
#[track_caller]
fn assert_apart(mut writes: Vec<Write>) {
    writes.sort_by_key(|write| write.began);
    for pair in writes.windows(2) {
        let [one, next] = pair else { continue };
        assert!(one.epoch <= next.epoch, "the epoch fell: {one:?}, {next:?}");
    }
    let mut last: [Option<Write>; 2] = [None, None];
    for write in writes {
        let own = usize::from(write.version == "v2");
        if let Some(other) = &last[1 - own] {
            assert!(other.ended <= write.began, "{other:?} overlaps {write:?}");
        }
        if last[own].as_ref().is_none_or(|before| before.ended < write.ended) {
            last[own] = Some(write);
        }
    }
}

#[test]
fn writes_wait_reads_go_on_and_what_waits_goes_to_the_new_version_once_the_old_one_is_done() {
    let stage = Stage::new("queue: 3");
    let mut stuck = stage.stick();
    thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        let mut held: Vec<Client> = Vec::new();
        for n in 0..3 {
            held.push(stage.begin(&format!("/held/{n}")));
            stage.await_waiting(n + 1);
        }
        let full = stage.begin("/held/full").answer();
        assert_eq!((full.status, full.field("retry-after")), (503, Some("1")));
        assert_eq!(full.kind(), "fence_full");
        // Its place is free again, and it is never done.
        drop(held.pop());
        stage.await_waiting(2);
        let streams = Http2::connect(stage.proxy().address);
        held.push(stage.begin("/held/3"));
        stage.await_waiting(3);
        assert_eq!(stage.proxy().get("/").text(), "v1", "reads go on");
        let refused = streams.run(async {
            // The queue is full for a stream, too.
            let (answer, mut body) = streams.open(request("POST", "/held/stream")).await;
            // It may be refused before.
            let _ = body.send_data("x".into(), true);
            answer.await.expect("an answer").status()
        });
        assert_eq!(refused, 503);
        assert_eq!(stage.share_of_v2(), 0.0);
        stage.unstick();
        assert_eq!(stuck.answer().text(), "v1");
        for client in &mut held {
            assert_eq!(client.answer().text(), "v2");
        }
        let answer = moving.join().expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer.json();
        assert_eq!((&told["writes_held"], &told["writes_refused"]), (&json!(3), &json!(2)));
        assert!(told["longest_hold_ms"].as_f64() > Some(0.0) && told["fenced"] == true, "{told}");
        let epoch = stage.writes().iter().map(|write| write.epoch).max();
        assert_eq!(told["epoch"].as_u64(), epoch);
    });
    let targets: Vec<String> = stage.writes().into_iter().map(|write| write.target).collect();
    assert_eq!(targets.len(), 4, "{targets:?}");
    assert!(!targets.iter().any(|target| target == "/held/2"), "its client had left: {targets:?}");
    assert_apart(stage.writes());
    assert_eq!(stage.kinds().last().map(String::as_str), Some("cutover"));
    let mut admin = stage.proxy().admin();
    let metrics = admin.get("/metrics").host("127.0.0.1").send();
    for line in [
        "tidegate_cutovers_total{service=\"game-api\",result=\"made\"} 1\n",
        "tidegate_fence_held{service=\"game-api\"} 0\n",
        "tidegate_fence_hold_seconds_count{service=\"game-api\"} 3\n",
    ] {
        assert!(metrics.text().contains(line), "{line} in {}", metrics.text());
    }
}

#[test]
fn a_stream_that_is_reset_while_it_waits_is_never_done() {
    let stage = Stage::new("queue: 3");
    let mut stuck = stage.stick();
    thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        let streams = Http2::connect(stage.proxy().address);
        streams.run(async {
            let (left, mut body) = streams.open(request("POST", "/left")).await;
            body.send_data("x".into(), true).expect("open");
            let (kept, mut more) = streams.open(request("POST", "/kept")).await;
            more.send_data("x".into(), true).expect("open");
            // The connection has a thread of its own, so this one may wait.
            stage.await_waiting(2);
            body.send_reset(h2::Reason::CANCEL);
            drop(left);
            stage.await_waiting(1);
            stage.unstick();
            assert_eq!(kept.await.expect("an answer").status(), 200);
        });
        assert_eq!(moving.join().expect("no panic").json()["writes_held"], 1);
    });
    assert_eq!(stuck.answer().text(), "v1");
    assert!(stage.writes().iter().all(|write| write.target != "/left"));
    assert_apart(stage.writes());
}

/// An origin whose connections switch protocols, and last until their clients end them.
fn switching() -> Origin {
    Origin::start(|call| {
        call.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        )?;
        call.await_end()
    })
}

/// A connection that switched protocols on a route of class write has a write in flight until it ends.
#[test]
fn what_lasts_longer_than_the_deadline_undoes_the_cutover_and_is_named() {
    let live = switching();
    let (writes, folder) = (Writes::default(), TempDir::new().expect("a folder"));
    let other = version("v2", &writes, Duration::ZERO, Arc::default());
    let proxy = Proxy::builder()
        .version("v1", &live)
        .version("v2", &other)
        .service("fence: { deadline: 200ms }")
        .route("match: { path: /live }, class: write")
        .route("match: { path: \"/*\" }")
        .top("admin: { address: \"127.0.0.1:0\" }")
        .top(&format!("state: '{}'", folder.path().join("state").display()));
    let proxy = proxy.start();
    let mut client = proxy.connect();
    client.send(
        "GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let head = client.wire.head().expect("open").expect("a head");
    assert_eq!(head.start_line(), "HTTP/1.1 101 Switching Protocols");
    let cut_over = || {
        let path = format!("/v1/services/{SERVICE}/cutover");
        let mut admin = proxy.admin();
        admin.request("POST", &path).host("127.0.0.1").body(br#"{"to":"v2"}"#).send()
    };
    let undone = cut_over();
    assert_eq!(undone.status, 504, "{}", undone.text());
    let why = undone.json()["detail"].as_str().expect("a detail").to_owned();
    assert!(why.contains("was undone: after 200ms v1 still had 1 write in flight; "), "{why}");
    assert_eq!(proxy.snapshot().services[0].share(1), 0.0);
    let reader = Reader::open(&folder.path().join("state")).expect("a journal");
    let entries = reader.show(&Filter::default()).expect("entries");
    let kinds: Vec<_> = entries.iter().map(|stored| &*stored.entry.kind).collect();
    assert!(kinds.ends_with(&["cutover", "withdrawn"]), "{kinds:?}");
    drop(client);
    eventually("it has ended", || proxy.in_flight() == 0);
    assert_eq!(cut_over().status, 200);
    assert_eq!(proxy.snapshot().services[0].share(1), 1.0);
}

/// Regression: a client that sent its body slowly had every cutover undone.
#[test]
fn clients_that_are_slow_to_send_their_bodies_do_not_keep_the_writes_from_moving() {
    let stage = Stage::new("deadline: 2s");
    let state = stage.folder.path().join("state");
    let mut slow: Vec<Client> = Vec::new();
    for length in ["Content-Length: 9\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let mut client = stage.proxy().connect();
        client.send(format!("POST /slow HTTP/1.1\r\nHost: a\r\n{length}"));
        slow.push(client);
    }
    let streams = Http2::connect(stage.proxy().address);
    let told = streams.run(async {
        let (answer, mut body) = streams.open(request("POST", "/slow/stream")).await;
        body.send_data("abc".into(), false).expect("open");
        eventually("all have begun", || stage.proxy().in_flight() == 3);
        let moving = stage.cut_over("v2");
        assert_eq!(moving.status, 200, "{}", moving.text());
        assert_eq!(answer.await.expect("an answer").status(), 408);
        moving.json()
    });
    assert_eq!(told["uploads_cut"], 3, "{told}");
    for client in &mut slow {
        assert_eq!(client.answer().status, 408);
        client.expect_end();
    }
    // Whose body is there in the first half of the time is served, and nobody is cut later.
    assert_eq!(stage.begin("/after").answer().text(), "v2");
    let mut late = stage.proxy().connect();
    late.send("POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na");
    eventually("it has begun", || stage.proxy().in_flight() == 1);
    thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v1"));
        stage.await_closed();
        late.send("b");
        assert_eq!(late.answer().text(), "v2");
        assert_eq!(moving.join().expect("no panic").json()["uploads_cut"], 0);
    });
    // The journal names the cutover that ended them, and none of the one that ended nobody.
    let written =
        || Reader::open(&state).expect("a journal").show(&Filter::default()).expect("entries");
    eventually("it is written", || {
        written().iter().any(|stored| stored.entry.kind == "uploads_cut")
    });
    let entries = written();
    let [of] =
        &*entries.iter().filter(|stored| stored.entry.kind == "uploads_cut").collect::<Vec<_>>()
    else {
        panic!("one entry")
    };
    assert_eq!(of.entry.after["uploads_cut"], 3);
    let cutover = entries.iter().find(|stored| stored.entry.kind == "cutover").expect("a cutover");
    assert_eq!(of.entry.before["seq"], cutover.entry.seq);
    assert!(stage.writes().iter().all(|write| !write.target.starts_with("/slow")));
    assert_apart(stage.writes());
}

#[test]
fn writes_that_waited_in_vain_go_to_the_old_version_in_time() {
    let stage = Stage::new("deadline: 150ms");
    let mut stuck = stage.stick();
    thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        let began = Instant::now();
        let mut held: Vec<Client> = (0..20).map(|_| stage.begin("/held")).collect();
        assert_eq!(held[0].answer().text(), "v1");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let undone = moving.join().expect("no panic");
        assert_eq!(undone.status, 504);
        // Regression: writes that were held, and let go as the move was undone, were counted, too.
        let one = "v1 still had 1 write in flight";
        assert!(undone.text().contains(one), "{}", undone.text());
        let entries = stage.entries();
        let withdrawn = entries.iter().rfind(|entry| entry.kind == "withdrawn").expect("an entry");
        assert!(withdrawn.reason.contains(one), "{withdrawn:?}");
    });
    let events = stage.events("cutover_undone");
    assert_eq!((events.len(), &events[0]["version"]), (1, &json!("v2")));
    assert_eq!(events[0]["what"], "cutover");
    stage.unstick();
    assert_eq!(stuck.answer().text(), "v1");
    assert_eq!(stage.cut_over("v2").status, 200);
    assert_apart(stage.writes());
}

#[test]
fn what_would_move_writes_in_another_way_is_refused_and_says_how_to_move_them() {
    let stage = Stage::new("required: true");
    let refused = |answer: &Answer| {
        assert_eq!(answer.status, 409, "{}", answer.text());
        let why = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(why.contains("`tidegate cutover game-api VERSION`"), "{why}");
    };
    let weights = |body: Value| {
        let (path, body) = (format!("/v1/services/{SERVICE}/weights"), body.to_string());
        let mut admin = stage.proxy().admin();
        admin.request("PUT", &path).host("127.0.0.1").body(body.as_bytes()).send()
    };
    refused(&weights(json!({ "weights": { "v1": 90, "v2": 10 } })));
    refused(&weights(json!({ "weights": { "v2": "100%" } })));
    assert_eq!(
        weights(json!({ "weights": { "v1": 7 }, "only": true })).status,
        200,
        "moves nothing"
    );
    refused(&stage.post("cutover", &json!({ "to": "v2", "fence": false })));
    let last = stage.post("eject", &json!({ "version": "v1" }));
    assert_eq!(last.status, 409, "{}", last.text());
    assert_eq!(stage.share_of_v2(), 0.0);
    // A version without players comes and goes as ever.
    assert_eq!(stage.post("eject", &json!({ "version": "v2" })).status, 200);
    assert_eq!(stage.post("reinstate", &json!({ "version": "v2" })).status, 200);

    // Nor does a file move them, and the event says so.
    let file = stage.builder.clone().service("weights: { v2: 1 }").text();
    let (applied, _) = stage.proxy().reloads();
    stage.proxy().write(&file);
    eventually("the file is applied", || stage.proxy().reloads().0 > applied);
    assert_eq!(stage.share_of_v2(), 0.0);
    let events = stage.events("configuration");
    let told = events.last().expect("an event")["reason"].as_str().expect("a reason").to_owned();
    assert!(told.contains("v1 keeps the writes"), "{told}");
    // Or away from their version.
    let (_, rejected) = stage.proxy().reloads();
    let without = Proxy::builder().version("v2", &stage.origins[1]).workers(2);
    let without = without.service("fence: { required: true }");
    let without = without.top("admin: { address: \"127.0.0.1:0\" }");
    let without = without.top(&format!("state: '{}'", stage.folder.path().join("state").display()));
    stage.proxy().write(&without.text());
    eventually("the file is rejected", || stage.proxy().reloads().1 > rejected);
    stage.proxy().write(&file);
    eventually("it is good again", || stage.proxy().controller().reloads().error.is_none());

    let moved = stage.cut_over("v2");
    assert_eq!((moved.status, stage.share_of_v2()), (200, 1.0), "{}", moved.text());
    let back = stage.post("rollback", &json!({}));
    assert_eq!((back.status, &back.json()["fenced"]), (200, &json!(true)), "{}", back.text());
    assert_eq!(stage.share_of_v2(), 0.0);
}

#[test]
fn a_version_that_is_ejected_meanwhile_goes_first() {
    let stage = Stage::with("deadline: 10s", Duration::ZERO, |builder| {
        let builder = builder.service("weights: { v1: 1, v2: 1 }");
        builder.service("cohort: { key: [ \"header:x-player\" ] }")
    });
    // Both have writes, so one of these sticks to v1 and delays a cutover to v2.
    let mut stuck = Vec::new();
    while stage.origins[0].requests() == 0 {
        stage.stuck.holds.store(true, SeqCst);
        let mut client = stage.proxy().connect();
        client.send(format!(
            "POST /stuck HTTP/1.1\r\nHost: a\r\nX-Player: {}\r\nContent-Length: 1\r\n\r\nx",
            stuck.len()
        ));
        stuck.push(client);
        let all = stuck.len();
        eventually("it has begun", || stage.stuck.count.load(SeqCst) == all);
        assert!(stuck.len() < 64);
    }
    thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        assert_eq!(stage.post("eject?dry_run=true", &json!({ "version": "v2" })).status, 200);
        // An operator waits for the cutover; a verdict does not, and takes the way of this call.
        let target = tidegate::control::controller::Target {
            service: SERVICE.to_owned(),
            version: "v2".to_owned(),
            endpoint: None,
            head: tidegate::control::controller::ChangeHead::of(tidegate::store::Actor::system()),
        };
        stage.proxy().controller().eject(target).expect("v1 serves");
        let undone = moving.join().expect("no panic");
        assert_eq!(undone.status, 409, "{}", undone.text());
        assert!(undone.text().contains("a version was taken out"), "{}", undone.text());
    });
    assert_eq!(stage.share_of_v2(), 0.0);
    stage.unstick();
    stuck.iter_mut().for_each(|client| drop(client.answer()));
}

#[test]
fn a_shutdown_lets_nobody_wait() {
    let mut stage = Stage::new("deadline: 30s");
    let mut stuck = stage.stick();
    let mut held = thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        let held = stage.begin("/held");
        stage.await_waiting(1);
        stage.proxy().controller().drain();
        let undone = moving.join().expect("no panic");
        assert_eq!(undone.status, 409, "{}", undone.text());
        assert!(undone.text().contains("the process is shutting down"), "{}", undone.text());
        held
    });
    stage.unstick();
    let proxy = stage.proxy.take().expect("it runs");
    assert_eq!(proxy.shutdown(), Ended::Drained);
    assert_eq!((stuck.answer().text(), held.answer().text()), ("v1", "v1"));
}

#[test]
fn the_epoch_is_nobody_elses_and_grows_over_restarts() {
    let mut stage = Stage::new("");
    let ask = |stage: &Stage, field: &str| {
        let mut client = stage.proxy().connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{field}Content-Length: 0\r\n\r\n"));
        assert_eq!(client.answer().status, 200);
        stage.writes().last().expect("a write").epoch
    };
    let first = ask(&stage, "");
    for stranger in
        ["Tidegate-Epoch: 9", "tidegate-epoch: 9", "Tidegate_Epoch: 9", "TIDEGATE.EPOCH: 9"]
    {
        assert_eq!(ask(&stage, &format!("{stranger}\r\n")), first, "{stranger}");
    }
    let all = stage.origins.iter().flat_map(Origin::seen).flat_map(|seen| {
        let fields: Vec<String> = seen.head.fields().map(|(name, _)| name.to_lowercase()).collect();
        fields
    });
    let odd = all.filter(|name| name.starts_with("tidegate") && name != "tidegate-epoch");
    assert_eq!(odd.collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(stage.cut_over("v2").json()["epoch"], json!(first + 1));
    assert_eq!(ask(&stage, ""), first + 1);
    // Regression: the journal had another number by this name, so nobody could find the entry of an epoch.
    let entries = stage.entries();
    let cutover = entries.iter().rfind(|entry| entry.kind == "cutover").expect("an entry");
    assert_eq!((cutover.epoch, cutover.split), (Some(first + 1), Some(1)));
    assert_eq!(
        stage.post("cutover", &json!({ "to": "v2" })).json()["fenced"],
        false,
        "nothing moves"
    );
    assert_eq!(ask(&stage, ""), first + 1);
    drop(stage.proxy.take());
    stage.proxy = Some(stage.builder.start_with_file());
    let after = ask(&stage, "");
    assert!(after > first, "{after} after {first}");
    assert_eq!(stage.writes().last().map(|write| write.version), Some("v2"));
    assert_eq!(stage.post("rollback", &json!({})).json()["epoch"], json!(after + 1));
    let entries = stage.entries();
    let back = entries.iter().rfind(|entry| entry.kind == "rollback").expect("an entry");
    assert_eq!(back.epoch, Some(after + 1));
    let event = stage.events("cutover").pop().expect("an event");
    assert_eq!(event["what"], "rollback");
    assert!(event["reason"].as_str().expect("a text").starts_with("rolled back: "), "{event}");
}
