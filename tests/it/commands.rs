//! Commands that talk to a running instance: what they print, and the exit codes that scripts go by.

use std::sync::atomic::Ordering::SeqCst;

use crate::support::{
    Origin, Proxy, eventually,
    patient::{self, Patient, QUICK, at, shown, state},
    process::program,
};

/// Runs the program against the admin endpoint of `proxy`; its exit code, and what it printed where.
fn run(proxy: &Proxy, arguments: &[&str]) -> (Option<i32>, String, String) {
    let admin = format!("http://{}", proxy.app().admin.expect("an admin endpoint"));
    let mut command = program();
    command.args(arguments).env("TIDEGATE_ADMIN", admin).env_remove("TIDEGATE_TOKEN_FILE");
    let output = command.output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_version_goes_and_comes_back_by_command() {
    let (v1, v2) = (Origin::answering("v1"), Origin::answering("v2"));
    let builder = Proxy::builder().version("v1", &v1).version("v2", &v2);
    let builder = builder.service("weights: { v1: 50, v2: 50 }");
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let done = |line: &str| (Some(0), format!("game-api: {line}\n"), String::new());
    let ejected = || proxy.snapshot().services[0].versions[1].ejected;

    let eject = ["eject", "game-api", "v2", "--reason", "pays twice"];
    let dry = run(&proxy, &[&eject[..], &["--dry-run"]].concat());
    assert_eq!(dry, done("would eject v2 (generation 1 in force): v1 50% -> 100%, v2 50% -> 0%"));
    assert!(!ejected());
    assert_eq!(run(&proxy, &eject), done("ejected v2 (generation 2)"));
    assert!(ejected());
    let (code, _, problem) = run(&proxy, &["eject", "game-api", "v1"]);
    assert_eq!(code, Some(65));
    let last = "409 Conflict: version: `v1` is the last version of `game-api` that serves; `v2` has weight, too, \
                but `v2` is ejected since 20";
    assert!(problem.starts_with(last), "{problem}");
    // It said "ejected" again and dropped the reason.
    let (code, line, _) = run(&proxy, &["eject", "game-api", "v2", "--reason", "again"]);
    assert_eq!(code, Some(0), "{line}");
    let already = "game-api: v2 is ejected already, since 20";
    assert!(line.starts_with(already) && line.contains(" by anonymous (pays twice); "), "{line}");

    let reinstate = ["reinstate", "game-api", "v2", "--if-generation"];
    let (code, _, problem) = run(&proxy, &[&reinstate[..], &["1"]].concat());
    assert_eq!((code, problem.starts_with("412 ")), (Some(65), true), "{problem}");
    let (code, line, _) = run(&proxy, &[&reinstate[..], &["2"]].concat());
    let back = "game-api: reinstated v2 (generation 3); it gets 50% of the players\n";
    assert_eq!((code, &*line), (Some(0), back));
    assert!(!ejected());
    let (code, _, problem) = run(&proxy, &["reinstate", "game-api", "v2"]);
    assert_eq!(code, Some(65), "{problem}");
}

/// A pipeline went on with a canary that had long been taken out.
#[test]
fn a_change_says_which_versions_are_ejected_and_status_who_when_and_why() {
    let (v1, v2) = (Origin::answering("v1"), Origin::answering("v2"));
    let builder = Proxy::builder().version("v1", &v1).version("v2", &v2);
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    run(&proxy, &["eject", "game-api", "v2", "--reason", "pays twice"]);
    let (code, _, told) = run(&proxy, &["weights", "game-api", "v2=50%", "--strict"]);
    assert_eq!(code, Some(65), "{told}");
    assert!(told.contains("game-api: nothing was changed\nv2 is ejected since 20"), "{told}");
    assert_eq!(proxy.snapshot().generation, 2, "nothing was changed");
    let (code, told, _) = run(&proxy, &["weights", "game-api", "v1=100%", "--strict", "--dry-run"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told, _) = run(&proxy, &["weights", "game-api", "v2=50%"]);
    assert_eq!(code, Some(0), "{told}");
    let line = "game-api: v1 100% -> 100%, v2 0% -> 0% (generation 3)\nv2 is ejected since 20";
    assert!(told.starts_with(line), "{told}");
    assert!(
        told.contains(" by anonymous (pays twice); `tidegate reinstate game-api v2`"),
        "{told}"
    );
    let (_, status, _) = run(&proxy, &["status"]);
    assert!(status.contains("\ngame-api v2: ejected since 20"), "{status}");
    let back = " by anonymous (pays twice); `tidegate reinstate game-api v2` reinstates it\n";
    assert!(status.contains(back), "{status}");

    let (code, _, problem) = run(&proxy, &["weights", "game-api", "v2=50", "--only"]);
    assert_eq!(code, Some(65), "{problem}");
    assert!(
        problem.starts_with("409 Conflict: weights.v2: no version would serve `game-api`"),
        "{problem}"
    );
    assert!(problem.contains("`tidegate reinstate game-api v2`"), "{problem}");
    let (_, json, _) = run(&proxy, &["weights", "game-api", "v2=1%", "--json", "--dry-run"]);
    let answer: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(answer["ejected"][0]["reason"], "pays twice");
    assert_eq!(answer["ejected"][0]["share_when_reinstated"], 0.01);

    // The event of the change was "v1 100% -> 100%, v2 0% -> 0%" alone.
    let (_, events, _) = run(&proxy, &["events", "game-api"]);
    let changed = "v2 0% -> 0%; v2 is ejected, and gets 50% when it is reinstated";
    assert!(events.contains(changed), "{events}");
    assert!(
        events.contains(
            ": pays twice; `tidegate reinstate game-api v2` reinstates it; `tidegate incidents 2"
        ),
        "{events}"
    );
    let (_, dry, _) = run(&proxy, &["reinstate", "game-api", "v2", "--dry-run"]);
    assert_eq!(
        dry,
        "game-api: would reinstate v2 (generation 3 in force); it would get 50% of the players\n"
    );
    run(&proxy, &["reinstate", "game-api", "v2", "--reason", "fixed"]);
    let (_, events, _) = run(&proxy, &["events", "game-api"]);
    assert!(events.contains("by anonymous: fixed; it gets 50% of the players\n"), "{events}");
}

/// `v2 0% -> 0%` and success were all that a pipeline learnt of a canary without an endpoint that serves.
#[test]
fn a_change_says_which_versions_have_no_endpoint_that_serves() {
    let (v1, v2) = (Patient::new("v1"), Patient::new("v2"));
    let service = format!("health: {{ http: {{}}, {QUICK} }}");
    let builder = patient::builder(&service).service("weights: { v1: 90, v2: 10 }");
    let builder = builder.version_at("v1", &at(&[&v1])).version_at("v2", &at(&[&v2]));
    let proxy = builder.service("eject: { errors: {} }").start();
    v2.ill.store(true, SeqCst);
    eventually("v2 is down", || state(&proxy, 1, 0) == "down");
    eventually("it has no share", || shown(&proxy)["versions"][1]["share"] == 0.0);
    let address = v2.origin.address;
    let told = format!("no endpoint of `v2` serves ({address} is down)");
    let line = format!("v2 gets no players: {told}; it gets 25% of the players once one does\n");
    let (code, _, problem) = run(&proxy, &["weights", "game-api", "v2=25%", "--strict"]);
    assert_eq!((code, problem), (Some(65), format!("game-api: nothing was changed\n{line}")));
    let (code, changed, _) = run(&proxy, &["weights", "game-api", "v2=25%"]);
    assert_eq!(code, Some(0), "{changed}");
    assert!(changed.starts_with("game-api: v1 100% -> 100%, v2 0% -> 0% (gen"), "{changed}");
    assert!(changed.ends_with(&line), "{changed}");
    let (_, events, _) = run(&proxy, &["events", "game-api"]);
    let told_by_event = format!("; v2 gets no players: {told}; it gets 25% once one does\n");
    assert!(events.contains(&told_by_event), "{events}");
    let (code, _, problem) = run(&proxy, &["eject", "game-api", "v1"]);
    let last = format!("that serves; `v2` has weight, too, but {told}\n");
    assert!(code == Some(65) && problem.ends_with(&last), "{problem}");

    v2.ill.store(false, SeqCst);
    eventually("v2 serves", || shown(&proxy)["versions"][1]["share"] == 0.25);
    let (_, dry, _) = run(&proxy, &["eject", "game-api", "v1", "--dry-run"]);
    let alone = ": v1 75% -> 0%, v2 25% -> 100%; v2 then has no baseline to be compared with\n";
    assert!(dry.ends_with(alone), "{dry}");
}

/// An endpoint that failed its checks made a change fail: "somebody else made a change", though nobody had.
#[test]
fn only_what_somebody_decided_outdates_a_generation() {
    let (a, b) = (Patient::new("a"), Patient::new("b"));
    let v2 = Origin::answering("v2");
    let builder = patient::builder(&format!("health: {{ http: {{}}, {QUICK} }}"));
    let proxy = builder.version_at("v1", &at(&[&a, &b])).version("v2", &v2).start();
    let seen = proxy.snapshot().generation.to_string();
    b.ill.store(true, SeqCst);
    eventually("b is down", || state(&proxy, 0, 1) == "down");
    let now = proxy.snapshot().generation;
    assert!(now.to_string() != seen, "its leave is a generation");
    let set = |share: &str, generation: &str| {
        run(&proxy, &["weights", "game-api", share, "--if-generation", generation])
    };
    let (code, _, problem) = set("v2=20%", &(now + 1).to_string());
    assert!(code == Some(65) && problem.starts_with("412 "), "{problem}");
    let (code, _, problem) = set("v2=20%", &seen);
    assert_eq!(code, Some(0), "{problem}");
    let (code, _, problem) = set("v2=30%", &seen);
    let decided = proxy.snapshot().generation;
    let told = format!(
        "412 Precondition Failed: If-Match: generation {seen} is outdated: the last change by an operator, a \
         verdict or a file is generation {decided}, and {decided} is in force; look again\n"
    );
    assert_eq!((code, problem), (Some(65), told));
    b.ill.store(false, SeqCst);
    eventually("b serves", || state(&proxy, 0, 1) == "serving");
    let (code, _, problem) = set("v2=30%", &decided.to_string());
    assert_eq!(code, Some(0), "{problem}");
}

/// A reason could move the cursor, name the window and fake lines of a table.
#[test]
fn a_reason_neither_commands_the_terminal_nor_looks_like_a_line() {
    let (v1, v2) = (Origin::answering("v1"), Origin::answering("v2"));
    let builder = Proxy::builder().version("v1", &v1).version("v2", &v2);
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let wrong = ["eject", "game-api", "v2", "--reason", "slow\u{1b}[2J\u{9b}31m\u{7f}\r\u{7}"];
    let (code, _, problem) = run(&proxy, &wrong);
    assert_eq!((code, problem.lines().count()), (Some(65), 1), "{problem:?}");
    assert!(problem.contains(r"the control character \u{1b}"), "{problem:?}");
    let reason = "slow\ngame-api  v2  serving";
    let shown = r"slow\ngame-api  v2  serving";
    let in_a_line = shown.replace(r"\n", "; ");
    let eject = ["eject", "game-api", "v2", "--reason", reason];
    run(&proxy, &eject);
    for (arguments, lines, expected) in [
        (&eject[..], 1, shown),
        (&["status"], 8, shown),
        (&["weights", "game-api"], 5, shown),
        (&["weights", "game-api", "v2=5%", "--dry-run"], 2, shown),
        (&["events", "game-api"], 1, &*in_a_line),
    ] {
        let (code, told, problem) = run(&proxy, arguments);
        assert_eq!((code, &*problem), (Some(0), ""), "{arguments:?}");
        assert!(told.contains(expected), "{arguments:?}: {told:?}");
        assert!(!told.contains(|c: char| c.is_control() && c != '\n'), "{arguments:?}: {told:?}");
        assert_eq!(told.lines().count(), lines, "{arguments:?}: {told:?}");
    }
    let (code, _, problem) = run(&proxy, &["eject", "game-api", "\u{1b}[2J\nv3"]);
    assert_eq!((code, problem.lines().count()), (Some(65), 1), "{problem:?}");
    assert!(problem.contains(r"`\u{1b}[2J\nv3`"), "{problem:?}");
    let (_, json, _) = run(&proxy, &["events", "game-api", "--json"]);
    let event: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(event["reason"], reason);
}

/// `v42=0` was refused without a word on how to write what was meant.
#[test]
fn weights_that_are_all_0_say_how_to_write_a_share() {
    let (v1, v2) = (Origin::answering("v1"), Origin::answering("v2"));
    let builder = Proxy::builder().version("v1", &v1).version("v2", &v2);
    let builder = builder.service("weights: { v1: 50, v2: 50 }");
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let (code, _, problem) = run(&proxy, &["weights", "game-api", "v2=0"]);
    assert_eq!(code, Some(65));
    assert!(problem.contains("write `v2=0%` for no players"), "{problem}");
    let (_, _, problem) = run(&proxy, &["weights", "game-api", "v1=0", "v2=0"]);
    assert!(problem.contains("give at least one version a weight"), "{problem}");
    let (_, _, problem) = run(&proxy, &["weights", "game-api", "v2=50"]);
    assert!(problem.contains("or add `only` (`--only` on the command line)"), "{problem}");
    let (code, line, _) = run(&proxy, &["weights", "game-api", "v2=0%"]);
    assert_eq!(
        (code, &*line),
        (Some(0), "game-api: v1 50% -> 100%, v2 50% -> 0% (generation 2)\n")
    );
}

#[test]
fn an_endpoint_goes_and_comes_back_by_command() {
    let (a, b) = (Origin::answering("a"), Origin::answering("b"));
    let builder = Proxy::builder().version_at("v1", &[a.address, b.address]);
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let endpoint = b.address.to_string();
    let word = |word| run(&proxy, &[word, "game-api", "v1", "--endpoint", &endpoint]);

    let (code, line, _) = word("eject");
    let expected = format!("game-api: ejected {endpoint} of v1 (generation 2)\n");
    assert_eq!((code, line), (Some(0), expected));
    let (_, status, _) = run(&proxy, &["status"]);
    let told = format!("game-api v1: {endpoint} is ejected since 20");
    assert!(status.contains(&told) && status.ends_with(" by anonymous\n"), "{status}");
    let mut client = proxy.connect();
    assert!((0..50).all(|_| client.get("/").send().text() == "a"));

    let (code, line, _) = word("reinstate");
    let expected = format!("game-api: reinstated {endpoint} of v1 (generation 3)\n");
    assert_eq!((code, line), (Some(0), expected));
    let (_, status, _) = run(&proxy, &["status"]);
    assert!(!status.contains(&endpoint), "{status}");
}

/// It said that the version is not compared on that route, whether the route exists or not.
#[test]
fn a_record_of_a_route_that_is_not_compared_for_itself_names_those_that_are() {
    let (v1, v2) = (Origin::answering("v1"), Origin::answering("v2"));
    let builder = Proxy::builder().version("v1", &v1).version("v2", &v2);
    let builder = builder.service("weights: { v1: 50, v2: 50 }").service("eject: { errors: {} }");
    let builder = builder.route("name: bets, match: { path: /bets }, eject: { alpha: 1e-4 }");
    let builder = builder.route("name: all");
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    for route in ["nope", "all"] {
        let (code, _, problem) = run(&proxy, &["record", "game-api", "v2", "--route", route]);
        assert_eq!(code, Some(65), "{problem}");
        let expected = format!("no route `{route}` with limits of its own; these have: `bets`");
        assert!(problem.contains(&expected), "{problem}");
    }
}

#[test]
fn a_mistake_is_named_and_changes_nothing() {
    let origin = Origin::answering("v1");
    let builder = Proxy::builder().version("v1", &origin);
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    for (arguments, code, expected) in [
        (&["eject", "game-api"][..], 2, "<VERSION>"),
        (&["eject", "a/b", "v1"], 2, "a name has letters"),
        (&["eject", "game-api", "v1", "--endpoint", "here"], 2, "'--endpoint <ADDRESS>'"),
        (
            &["eject", "game-api", "v1", "--endpoint", "localhost:9011"],
            2,
            "an address as `tidegate status` shows it",
        ),
        (&["weights", "game-api", "v1=1", "v1=2"], 2, "`v1` is given twice"),
        (&["status", "--token-file", "/nonexistent"], 64, "/nonexistent: "),
        (&["eject", "other", "v1"], 65, "404 Not Found: there is no service `other`"),
        (&["eject", "game-api", "v9"], 65, "422 Unprocessable Entity: version: service `game-api`"),
        (
            &["eject", "game-api", "v1", "--endpoint", "10.0.0.1:1"],
            65,
            "422 Unprocessable Entity: endpoint: version `v1` of `game-api` has no endpoint `10.0.0.1:1`; it has: 127.0.0.1:",
        ),
        (
            &["record", "game-api", "v9"],
            65,
            "404 Not Found: version: `game-api` has no version `v9`; it has: `v1`",
        ),
        (
            &["record", "game-api", "v1", "--route", "nope"],
            65,
            "404 Not Found: route: `game-api` has no route `nope` with limits of its own; no route of it has",
        ),
        (
            &["reinstate", "game-api", "v1", "--admin", "http://127.0.0.1:1"],
            69,
            "cannot be reached",
        ),
    ] {
        let (actual, _, problem) = run(&proxy, arguments);
        assert_eq!(actual, Some(code), "{arguments:?}: {problem}");
        assert!(problem.contains(expected), "{arguments:?}: {problem}");
    }
    assert_eq!(proxy.snapshot().generation, 1);
}

/// Regression: a bad file with nobody to read the error was exit code 101, a panic, and a full disk was exit code 0.
#[test]
fn an_exit_code_tells_the_truth_whoever_reads_the_output() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let bad = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(bad.path(), "listne: []\n").expect("room");
    for command in ["check", "run"] {
        let ended = program().arg(command).arg(bad.path()).stderr(full()).status();
        assert_eq!(ended.expect("the program runs").code(), Some(64), "{command}");
    }
    let schema = program().arg("schema").stdout(full()).output().expect("the program runs");
    let problem = String::from_utf8_lossy(&schema.stderr).into_owned();
    assert_eq!(schema.status.code(), Some(74), "{problem}");
    assert!(problem.contains("the output cannot be written"), "{problem}");
    // A reader that has read enough is no error.
    let mut schema = program();
    let mut schema =
        schema.arg("schema").stdout(std::process::Stdio::piped()).spawn().expect("it runs");
    drop(schema.stdout.take());
    assert_eq!(schema.wait().expect("it ends").code(), Some(0));
}
