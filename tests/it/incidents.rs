//! An ejection leaves a report: over the API, as files, and by command.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::SystemTime,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::{
    config::{problem::FieldPath, schema::Step, units::Weight},
    rollout::{Event, Observed, Phase, Plan, Rollout, Start, apply, start},
};

use crate::support::{Answer, Origin, Proxy, eventually, process::program};

/// A service with two versions, of which `v2` fails every second request once `failing` is set.
struct Stage {
    proxy: Proxy,
    failing: Arc<AtomicBool>,
    state: Option<TempDir>,
    _origins: [Origin; 2],
}

fn stage(with_state: bool) -> Stage {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let v1 = Origin::answering("v1");
    let v2 = Origin::start(move |call| {
        call.skip_body()?;
        let fails = fails.load(SeqCst) && call.nth.is_multiple_of(2);
        call.answer(if fails { 500 } else { 200 }, b"v2")
    });
    let state = with_state.then(|| TempDir::new().expect("a folder"));
    let mut builder = Proxy::builder()
        .version("v1", &v1)
        .version("v2", &v2)
        .service("weights: { v1: 80, v2: 20 }")
        .service("cohort: { key: [ 'header:x-player-id' ] }")
        .service("eject: { errors: {} }")
        .top("admin: { address: 127.0.0.1:0 }");
    if let Some(state) = &state {
        builder = builder.top(&format!("state: {}", state.path().join("journal").display()));
    }
    Stage { proxy: builder.start(), failing, state, _origins: [v1, v2] }
}

impl Stage {
    /// Sends players until the canary is out.
    fn fail(&self) {
        let mut client = self.proxy.connect();
        for player in 0..40_000 {
            if player == 2_000 {
                self.failing.store(true, SeqCst);
            }
            client.get("/").header("x-player-id", &player.to_string()).send();
            if !self.proxy.controller().ejections().is_empty() {
                return;
            }
        }
        panic!("v2 is not ejected");
    }

    fn get(&self, target: &str) -> Answer {
        self.proxy.admin().get(target).host("localhost").send()
    }

    /// The names of all incidents, once there are so many.
    fn names(&self, count: usize) -> Vec<String> {
        let list = || self.get("/v1/incidents").json();
        eventually("they are reported", || {
            list()["incidents"].as_array().expect("a list").len() == count
        });
        let all = list();
        let names = all["incidents"].as_array().expect("a list").iter();
        names.map(|incident| incident["id"].as_str().expect("a name").to_owned()).collect()
    }

    fn folder(&self) -> std::path::PathBuf {
        self.state.as_ref().expect("a folder").path().join("journal/incidents")
    }
}

/// Checks that all tags are closed in their place, and returns the number of elements `name`.
fn elements(page: &str, name: &str) -> usize {
    let (mut open, mut found) = (Vec::new(), 0);
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document");
    while let Some((_, tag)) = rest.split_once('<') {
        let (tag, after) = tag.split_once('>').expect("a tag ends");
        rest = after;
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "closed in its place"),
            None => {
                let this = tag.split([' ', '/']).next().expect("a name");
                found += usize::from(this == name);
                if !tag.ends_with('/') {
                    open.push(this);
                }
            }
        }
    }
    assert!(open.is_empty(), "all are closed: {open:?}");
    found
}

fn read(folder: &Path, id: &str) -> Value {
    let text = fs::read(folder.join(format!("{id}.json"))).expect("a file");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn an_ejection_leaves_a_report_with_its_verdict_its_curves_and_the_journal() {
    let stage = stage(true);
    stage.fail();
    let [id] = &*stage.names(1) else { panic!("one incident") };
    assert!(id.ends_with("Z-game-api-v2-ejected"), "{id}");
    let path = format!("/v1/incidents/{id}");
    let report = stage.get(&path).json();
    assert_eq!(
        [&report["state"], &report["kind"], &report["by"], &report["baseline"]],
        ["open", "ejected", "verdict", "v1"]
    );
    let verdict = &report["verdict"];
    assert_eq!(
        (&verdict["answer"], &verdict["findings"][0]["metric"]),
        (&json!("fail"), &json!("errors"))
    );
    assert_eq!(report["reason"], verdict["reason"]);
    let harm = &report["harm"];
    assert_eq!(harm["source"], "verdict");
    let (estimate, failures) = (harm["estimate"].as_f64(), harm["failures"].as_f64());
    assert!(estimate > Some(2.0) && estimate <= failures, "{harm}");
    // They are counted by whole seconds, also those after the verdict.
    eventually("its failures are counted by kind", || {
        let kinds = stage.get(&path).json()["harm"]["failed_attempts"].clone();
        kinds["status"].as_f64() >= failures && kinds["timeout"] == 0
    });
    assert!(report["onset_at"].as_str() <= report["at"].as_str(), "{report}");

    // The event names it.
    let mut admin = stage.proxy.admin();
    let events = admin.get("/v1/events").host("localhost").header("Accept", "application/json");
    let events = events.send().json();
    let events = events["events"].as_array().expect("a list");
    let event = events.iter().find(|event| event["kind"] == "ejected").expect("the ejection");
    assert_eq!(event["incident"], json!({ "id": id, "path": path }));

    // At the end it is completed, here before its minute is over.
    assert_eq!(stage.proxy.app().observatory().finish_incidents().len(), 1);
    let report = read(&stage.folder(), id);
    assert_eq!(report, stage.get(&path).json(), "the file is what the API shows");
    assert_eq!(report["state"], "complete");
    let kinds: Vec<_> =
        report["journal"].as_array().expect("entries").iter().map(|e| e["kind"].as_str()).collect();
    assert_eq!(kinds.last(), Some(&Some("ejected")), "{kinds:?}");
    for version in report["versions"].as_array().expect("curves") {
        let rates = &version["rates"]["requests"];
        let sum: u64 = rates.as_array().expect("rates").iter().filter_map(Value::as_u64).sum();
        assert!(sum > 100, "{version}");
        assert!(!version["latency"].as_array().expect("points").is_empty(), "{version}");
    }
    let counted = &report["versions"][0]["rates"]["failures"];
    let failed: u64 = counted.as_array().expect("rates").iter().filter_map(Value::as_u64).sum();
    assert!(failed as f64 >= failures.expect("a number"), "{failed} of {failures:?}");

    let page = fs::read_to_string(stage.folder().join(format!("{id}.html"))).expect("a page");
    assert_eq!(page, stage.get(&format!("{path}.html")).text());
    assert_eq!(elements(&page, "svg"), 5);
    for name in ["game-api v2 was ejected", "v1 (baseline)", ">v2</text>", ">onset</text>"] {
        assert!(page.contains(name), "{name}");
    }
    assert!(
        page.contains("class=\"line look0\" points=")
            && page.contains("class=\"line look1\" points=")
    );
    let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for outside in ["http:", "https:", "src=", "href=", "<script", "<link", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }

    let metrics = stage.get("/metrics");
    let counter = "tidegate_incidents_total{service=\"game-api\",kind=\"ejected\"} 1\n";
    assert!(metrics.text().contains(counter), "{}", metrics.text());
}

#[test]
fn a_report_is_json_or_a_page_and_strange_names_lead_nowhere() {
    let stage = stage(true);
    fs::write(stage.state.as_ref().expect("a folder").path().join("secret.json"), "{}")
        .expect("a file");
    eject(&stage, "pays <b>twice</b>");
    let [id] = &*stage.names(1) else { panic!("one incident") };
    let path = format!("/v1/incidents/{id}");
    let kind = |target: &str, accept: &str| {
        let mut admin = stage.proxy.admin();
        let answer = admin.get(target).host("localhost").header("Accept", accept).send();
        answer.field("content-type").expect("a type").to_owned()
    };
    let (html, json) = ("text/html; charset=utf-8", "application/json");
    assert_eq!(kind(&path, "*/*"), json);
    assert_eq!(kind(&path, "text/html,*/*;q=0.8"), html);
    assert_eq!(kind(&format!("{path}?format=html"), "*/*"), html);
    assert_eq!(kind(&format!("{path}?format=json"), "text/html"), json);
    assert_eq!(kind(&format!("{path}.html"), "*/*"), html);
    assert_eq!(kind(&format!("{path}.json"), "text/html"), json);
    let page = stage.get(&format!("{path}.html"));
    let policy = page.field("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(page.text().contains("pays &lt;b&gt;twice&lt;/b&gt;"));

    for strange in [
        "..%2f..%2fsecret",
        "..%2F..%2Fsecret.json",
        "2026-11-27T231500Z-..%2f..%2f..%2fsecret",
        "%2fetc%2fpasswd",
        "%00",
        "2026-11-27T231500Z-game-api-v2-ejected",
    ] {
        let answer = stage.get(&format!("/v1/incidents/{strange}"));
        assert_eq!((answer.status, &answer.json()["field"]), (404, &json!("id")), "{strange}");
    }
    assert_eq!(stage.get("/v1/incidents?limit=0").json()["field"], "limit");
    assert_eq!(
        stage.get("/v1/incidents?service=other").json(),
        json!({ "incidents": [], "kept_in": "state" })
    );
    assert_eq!(stage.get(&format!("{path}?format=pdf")).status, 400);
}

fn eject(stage: &Stage, reason: &str) {
    let body = json!({ "version": "v2", "reason": reason }).to_string();
    let mut admin = stage.proxy.admin();
    let request = admin.post("/v1/services/game-api/eject", body.as_bytes()).host("localhost");
    assert_eq!(request.header("Content-Type", "application/json").send().status, 200);
}

#[test]
fn without_a_folder_reports_are_in_memory_and_commands_show_them() {
    let stage = stage(false);
    let command = |arguments: &[&str]| {
        let admin = format!("http://{}", stage.proxy.admin_address());
        let mut command = program();
        command.args(arguments).env("TIDEGATE_ADMIN", admin).env_remove("TIDEGATE_TOKEN_FILE");
        let output = command.output().expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(command(&["incidents"]), (Some(0), "no incidents\n".to_owned(), String::new()));
    eject(&stage, "pays twice");
    let [id] = &*stage.names(1) else { panic!("one incident") };
    let (_, list, _) = command(&["incidents", "--service", "game-api"]);
    assert!(list.contains(&**id) && list.contains("game-api v2 was ejected"), "{list}");
    assert!(list.contains("kept in memory only"), "{list}");
    assert!(list.lines().all(|line| line.chars().count() <= 100), "{list}");
    let (_, shown, _) = command(&["incidents", id]);
    assert!(shown.contains("by anonymous (open)") && shown.contains("pays twice"), "{shown}");
    let (_, document, _) = command(&["incidents", id, "--json"]);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!((&document["id"], &document["harm"]["source"]), (&json!(id), &json!("counters")));

    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("report.html");
    let name = file.to_str().expect("text");
    assert_eq!(command(&["incidents", id, "--html", name]).0, Some(0));
    assert_eq!(elements(&fs::read_to_string(&file).expect("a page"), "svg"), 5);
    let (code, _, why) = command(&["incidents", id, "--html", name]);
    assert_eq!(code, Some(65));
    assert!(why.contains("is not overwritten"), "{why}");
    assert_eq!(command(&["incidents", id, "--html", "-"]).1.matches("<svg").count(), 5);
    assert_eq!(command(&["incidents", "../../etc/passwd"]).0, Some(2));
    let (code, _, why) = command(&["incidents", "2026-11-27T231500Z-game-api-v2-ejected"]);
    assert_eq!(code, Some(65));
    assert!(why.contains("there is no incident 2026-11-27T231500Z-game-api-v2-ejected: "), "{why}");
    assert!(!why.contains("404"), "{why}");

    let saved = stage.proxy.app().observatory().save_incident(&name_of(id), folder.path());
    assert!(saved.expect("it is saved").exists());
}

fn name_of(text: &str) -> tidegate::incident::Id {
    tidegate::incident::Id::parse(text).expect("a name")
}

#[test]
fn reports_outlive_the_process_also_one_that_was_open() {
    let stage = stage(true);
    eject(&stage, "pays twice");
    let [id] = &*stage.names(1) else { panic!("one incident") };
    let id = id.clone();
    assert_eq!(read_soon(&stage, &id)["state"], "open");
    let Stage { proxy, state, _origins: [v1, v2], .. } = stage;
    proxy.shutdown();
    let folder = state.as_ref().expect("a folder").path().join("journal");
    assert_eq!(read(&folder.join("incidents"), &id)["state"], "complete", "the end completes it");
    // As if the process had been killed.
    let open = read(&folder.join("incidents"), &id).to_string().replace("\"complete\"", "\"open\"");
    fs::write(folder.join("incidents").join(format!("{id}.json")), open).expect("a file");

    let builder = Proxy::builder().version("v1", &v1).version("v2", &v2);
    let builder = builder.top("admin: { address: 127.0.0.1:0 }");
    let proxy = builder.top(&format!("state: {}", folder.display())).start();
    let get = |target: &str| proxy.admin().get(target).host("localhost").send();
    let list = get("/v1/incidents").json();
    let first = &list["incidents"][0];
    assert_eq!(
        (&first["id"], &first["state"], &first["by"]),
        (&json!(id), &json!("open"), &json!("anonymous"))
    );
    assert_eq!(
        list["incidents"].as_array().map(Vec::len),
        Some(1),
        "what it took over is no new incident"
    );
    let page = get(&format!("/v1/incidents/{id}.html"));
    assert!(page.text().contains("This report is open"));
    assert_eq!(elements(page.text(), "svg"), 5);
}

/// A rollout to `v2` that an operator gave up at once.
fn aborted() -> Rollout {
    let steps: Vec<Step> =
        serde_json::from_str(r#"[{"weight":"5%","for":"1m"},{"weight":"100%"}]"#).expect("steps");
    let weight = |w| Weight::new(w).expect("a weight");
    let begin = Start {
        urgent: false,
        service: "game-api".to_owned(),
        to: "v2".to_owned(),
        plan: Plan::new(Some("careful"), &steps, &FieldPath::default()).expect("a plan"),
        by: "ci".to_owned(),
        reason: "release 2".to_owned(),
        second_person: false,
        weights: [("v1".to_owned(), weight(100.0)), ("v2".to_owned(), weight(0.0))].into(),
        ejected: Default::default(),
    };
    let now = SystemTime::now();
    let mut rollout = start(begin, None, now).expect("started").0;
    let abort = Event::Abort { by: "ops".to_owned(), reason: "not today".to_owned() };
    for event in [Event::Tick(Observed::default()), abort, Event::Tick(Observed::default())] {
        rollout = apply(&rollout, event, now).expect("possible").0;
    }
    rollout
}

#[test]
fn a_rollout_that_has_ended_and_a_rollback_leave_reports() {
    let stage = stage(true);
    let rollout = aborted();
    let mut running = rollout.clone();
    running.phase = Phase::Growing;
    assert_eq!(stage.proxy.controller().finished_rollout(&running), None);
    let opened = stage.proxy.controller().finished_rollout(&rollout).expect("an incident");
    assert_eq!(opened.path, format!("/v1/incidents/{}", opened.id));
    let rolled_back = stage.proxy.controller().rolled_back(("game-api", "v2"), "ops", "as before");
    let rolled_back = rolled_back.expect("another");
    let names = stage.names(2);
    assert!(names.iter().any(|name| name.contains("-game-api-v2-rolled-back")), "{names:?}");
    let second = read_soon(&stage, rolled_back.id.as_str());
    assert_eq!(second["harm"]["counted_in"], json!(opened.id), "no request counts twice");
    let report = read_soon(&stage, opened.id.as_str());
    assert_eq!((&report["kind"], &report["by"]), (&json!("rollout_aborted"), &json!("ops")));
    let review = &report["rollout"];
    assert_eq!((&review["plan"], &review["ended"]), (&json!("careful"), &json!("aborted")));
    assert_eq!(review["steps"].as_array().map(Vec::len), Some(2));
    let timeline = report["timeline"].as_array().expect("a list");
    assert!(timeline.iter().any(|moment| moment["source"] == "rollout"), "{timeline:?}");
    let page = stage.get(&format!("{}.html", opened.path));
    assert!(page.text().contains("Aborted: the rollout of game-api to v2"));
    assert!(page.text().contains("Steps of the plan") && page.text().contains("not today"));
    assert_eq!(elements(page.text(), "svg"), 5);
}

/// The document in its file, once it is there.
fn read_soon(stage: &Stage, id: &str) -> Value {
    let file = stage.folder().join(format!("{id}.json"));
    eventually("the file is written", || file.exists());
    read(&stage.folder(), id)
}
