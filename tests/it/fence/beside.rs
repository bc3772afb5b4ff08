//! What passes while fenced cutovers wait for writes in flight: a client that is slow decides over its service alone.

use super::*;

/// Longest time of a change that waits for nobody, on a busy machine; the cutovers wait for much longer.
const SOON: Duration = Duration::from_secs(10);

/// A stage with two more services of the same versions, `other` and `free`, of which both have fences.
fn three(fence: &str) -> (Stage, String) {
    let mut stage = Stage::with(fence, Duration::ZERO, |builder| {
        builder.route("match: { path: /* }").service("cohort: { key: [ \"header:x-player\" ] }")
    });
    let [v1, v2] = [&stage.origins[0], &stage.origins[1]].map(|origin| origin.address);
    let service = |name: &str, fence: &str| {
        format!(
            "  {name}: {{ baseline: v1, {fence}, versions: {{ v1: {{ endpoints: [ \"{v1}\" ] }}, v2: {{ endpoints: [ \
             \"{v2}\" ] }} }} }}\n"
        )
    };
    let fenced = format!("fence: {{ {fence} }}");
    let services = service("other", &fenced) + &service("free", "fence: {}");
    let route =
        |name: &str| format!("  - {{ service: {name}, match: {{ path: \"/stuck/{name}/*\" }} }}\n");
    let routes = format!("{services}routes:\n{}{}", route("other"), route("free"));
    let text = stage.builder.text().replace("routes:\n", &routes);
    stage.proxy.take().expect("it runs").shutdown();
    stage.proxy = Some(Proxy::start_with_file(&text));
    (stage, text)
}

fn ask(stage: &Stage, method: &str, path: &str, body: &Value) -> Answer {
    let mut admin = stage.proxy().admin();
    admin.request(method, path).host("127.0.0.1").body(body.to_string().as_bytes()).send()
}

/// A change, which waits for nobody.
#[track_caller]
fn soon(stage: &Stage, method: &str, path: &str, body: &Value) -> Answer {
    let began = Instant::now();
    let answer = ask(stage, method, path, body);
    assert!(began.elapsed() < SOON, "{path} took {:?}", began.elapsed());
    answer
}

fn is_closed(stage: &Stage, service: &str) -> bool {
    let snapshot = stage.proxy().snapshot();
    let fence = snapshot.service(service).and_then(|service| service.fence.as_ref());
    fence.is_some_and(|fence| fence.state.is_closed())
}

/// The only version with players.
fn writer(stage: &Stage, service: &str) -> String {
    let snapshot = stage.proxy().snapshot();
    let service = snapshot.service(service).expect("a service");
    let share = (0_u16..).zip(&service.versions).find(|(index, _)| service.share(*index) > 0.99);
    share.map_or_else(String::new, |(_, version)| version.name.to_string())
}

/// Regression: a rollback of another service took 40 s, while its players were sent to the bad version.
#[test]
fn while_cutovers_wait_changes_of_other_services_and_their_cutovers_do_not() {
    let (mut stage, text) = three("deadline: 30s");
    let mut stuck = [stage.stick(), stage.begin("/stuck/other/x")];
    eventually("both have begun", || stage.stuck.count.load(SeqCst) == 2);
    thread::scope(|scope| {
        let cutovers = [SERVICE, "other"].map(|service| {
            let path = format!("/v1/services/{service}/cutover");
            let stage = &stage;
            scope.spawn(move || ask(stage, "POST", &path, &json!({ "to": "v2" })))
        });
        eventually("both wait at once", || [SERVICE, "other"].iter().all(|s| is_closed(&stage, s)));

        let weights = json!({ "weights": { "v1": 1, "v2": 3 } });
        assert_eq!(soon(&stage, "PUT", "/v1/services/free/weights", &weights).status, 200);
        let cutover = json!({ "to": "v2" });
        assert_eq!(soon(&stage, "POST", "/v1/services/free/cutover", &cutover).status, 200);
        let back = soon(&stage, "POST", "/v1/services/free/rollback", &json!({ "fence": false }));
        assert_eq!(back.status, 200, "{}", back.text());
        let mode = json!({ "mode": "read-only", "service": "free", "reason": "a test" });
        assert_eq!(soon(&stage, "PUT", "/v1/mode", &mode).status, 200);
        // Of a service whose cutover waits, what moves nobody passes, and what would cross the move is refused.
        let mode = json!({ "mode": "read-only", "service": "other", "reason": "a test" });
        assert_eq!(soon(&stage, "PUT", "/v1/mode", &mode).status, 200);
        for (what, body) in [
            ("cutover", cutover),
            ("cutover", json!({ "to": "v2", "fence": false })),
            ("rollback", json!({})),
            ("rollout", json!({ "to": "v2", "steps": [ { "weight": "100%", "for": "1s" } ] })),
        ] {
            let path = format!("/v1/services/{SERVICE}/{what}");
            let refused = soon(&stage, "POST", &path, &body);
            assert_eq!(refused.status, 409, "{what}: {}", refused.text());
            let crosses = what != "rollback";
            let told = refused.text().contains("another cutover of it waits for writes in flight");
            assert_eq!(told, crosses, "{what}: {}", refused.text());
        }
        let path = format!("/v1/services/{SERVICE}/weights");
        assert_eq!(soon(&stage, "PUT", &path, &weights).status, 409);
        // A file that says the same of them.
        let applied = stage.proxy().reloads().0;
        stage.proxy().write(&format!("{text}limits: {{ idle_timeout: 33s }}\n"));
        eventually("the file is in force", || stage.proxy().reloads().0 > applied);
        assert!([SERVICE, "other"].iter().all(|service| is_closed(&stage, service)));

        stage.unstick();
        for cutover in cutovers {
            let made = cutover.join().expect("no panic");
            assert_eq!(
                (made.status, &made.json()["fenced"]),
                (200, &json!(true)),
                "{}",
                made.text()
            );
        }
    });
    stuck.iter_mut().for_each(|client| assert_eq!(client.answer().text(), "v1"));
    assert_eq!([SERVICE, "other"].map(|service| writer(&stage, service)), ["v2", "v2"]);
    let free = |stage: &Stage| stage.proxy().snapshot().service("free").expect("it").share(1);
    assert_eq!(free(&stage), 0.75);
    let kinds = stage.kinds();
    assert!(kinds.iter().all(|kind| kind != "withdrawn" && kind != "adjusted"), "{kinds:?}");
    let epochs = |stage: &Stage| {
        [SERVICE, "other", "free"].map(|name| stage.proxy().controller().fence_epoch(name))
    };
    let before = epochs(&stage);

    // The journal says the same.
    stage.proxy.take().expect("it runs").shutdown();
    stage.proxy = Some(Proxy::start_with_file(&text));
    assert_eq!([SERVICE, "other"].map(|service| writer(&stage, service)), ["v2", "v2"]);
    assert_eq!(free(&stage), 0.75);
    let grown = epochs(&stage).into_iter().zip(before).all(|(after, before)| after >= before);
    assert!(grown, "{:?} after {before:?}", epochs(&stage));
    let modes = ask(&stage, "GET", "/v1/mode", &json!({})).json();
    assert_eq!(modes["read_only"].as_array().map(Vec::len), Some(2), "{modes}");
}

/// The writes of a service with another fence are not those that were held.
#[test]
fn a_file_that_describes_the_service_differently_undoes_its_cutover_alone() {
    let (stage, text) = three("deadline: 30s");
    let mut stuck = [stage.stick(), stage.begin("/stuck/other/x")];
    eventually("both have begun", || stage.stuck.count.load(SeqCst) == 2);
    thread::scope(|scope| {
        let [own, other] = [SERVICE, "other"].map(|service| {
            let path = format!("/v1/services/{service}/cutover");
            let stage = &stage;
            scope.spawn(move || ask(stage, "POST", &path, &json!({ "to": "v2" })))
        });
        eventually("both wait at once", || [SERVICE, "other"].iter().all(|s| is_closed(&stage, s)));
        stage.proxy().write(&text.replace("    fence: { deadline: 30s }\n", ""));
        let undone = own.join().expect("no panic");
        assert_eq!(undone.status, 409, "{}", undone.text());
        assert!(undone.text().contains("a file with another description"), "{}", undone.text());
        assert!(is_closed(&stage, "other"));
        stage.unstick();
        assert_eq!(other.join().expect("no panic").status, 200);
    });
    stuck.iter_mut().for_each(|client| assert_eq!(client.answer().text(), "v1"));
    assert_eq!([SERVICE, "other"].map(|service| writer(&stage, service)), ["v1", "v2"]);
    assert_eq!(stage.kinds().iter().filter(|kind| *kind == "withdrawn").count(), 1);
}

/// Regression: the caller was told that a version had been taken out, when a rollout had been ended.
#[test]
fn a_rollout_that_is_aborted_undoes_the_cutover_and_its_caller_is_told_what_came_between() {
    let (stage, _) = three("deadline: 30s");
    let steps = json!([{ "weight": "50%", "for": "1h" }, { "weight": "100%", "for": "1h" }]);
    let started = stage.post("rollout", &json!({ "to": "v2", "steps": steps }));
    assert_eq!(started.status, 200, "{}", started.text());
    eventually("its first step is in force", || stage.share_of_v2() > 0.0);
    let mut stuck = Vec::new();
    while stage.origins[0].requests() == 0 {
        stage.stuck.holds.store(true, SeqCst);
        let mut client = stage.proxy().connect();
        let player = stuck.len();
        client.send(format!(
            "POST /stuck HTTP/1.1\r\nHost: a\r\nX-Player: {player}\r\nContent-Length: 1\r\n\r\nx"
        ));
        stuck.push(client);
        eventually("it has begun", || stage.stuck.count.load(SeqCst) == stuck.len());
        assert!(stuck.len() < 64);
    }
    thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        let aborted = stage.post("rollout/abort", &json!({}));
        assert_eq!(aborted.status, 200, "{}", aborted.text());
        let undone = moving.join().expect("no panic");
        assert_eq!(undone.status, 409, "{}", undone.text());
        assert!(
            undone.text().contains("another change of the split came before"),
            "{}",
            undone.text()
        );
    });
    assert_eq!(stage.share_of_v2(), 0.0);
    stage.unstick();
    stuck.iter_mut().for_each(|client| drop(client.answer()));
}

/// Regression: writes that a read-only mode refuses waited until the fence called them, and counted as held.
#[test]
fn writes_that_become_read_only_while_they_wait_are_refused_at_once_and_others_wait_on() {
    let stage = Stage::with("deadline: 30s", Duration::ZERO, |builder| {
        builder
            .route("match: { path: /hook }, name: hook, read_only: pass")
            .route("match: { path: /* }")
    });
    let mut stuck = stage.stick();
    thread::scope(|scope| {
        let moving = scope.spawn(|| stage.cut_over("v2"));
        stage.await_closed();
        let mut refused = stage.begin("/first");
        stage.await_waiting(1);
        let mut hook = stage.begin("/hook");
        stage.await_waiting(2);
        let mode = json!({ "mode": "read-only", "service": SERVICE, "reason": "a test" });
        assert_eq!(soon(&stage, "PUT", "/v1/mode", &mode).status, 200);
        let answer = refused.answer();
        assert_eq!((answer.status, answer.kind()), (503, "read_only".to_owned()));
        stage.await_waiting(1);
        assert!(is_closed(&stage, SERVICE));
        stage.unstick();
        assert_eq!(hook.answer().text(), "v2");
        let made = moving.join().expect("no panic");
        assert_eq!((made.status, &made.json()["writes_held"]), (200, &json!(1)), "{}", made.text());
    });
    assert_eq!(stuck.answer().text(), "v1");
    let targets: Vec<String> = stage.writes().into_iter().map(|write| write.target).collect();
    assert!(!targets.iter().any(|target| target == "/first"), "{targets:?}");
}
