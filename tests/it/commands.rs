//! Commands that talk to a running instance: what they print, and the exit codes that scripts go by.

use crate::support::{Origin, Proxy, process::program};

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
    assert_eq!(dry, done("would eject v2 (generation 1 in force)"));
    assert!(!ejected());
    assert_eq!(run(&proxy, &eject), done("ejected v2 (generation 2)"));
    assert!(ejected());
    let (code, _, problem) = run(&proxy, &["eject", "game-api", "v1"]);
    assert_eq!(code, Some(65));
    assert!(problem.starts_with("409 Conflict: version: `v1` is the last version"), "{problem}");
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
        events.contains(": pays twice; `tidegate reinstate game-api v2` reinstates it\n"),
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

/// A reason could move the cursor, name the window and fake lines of a table.
#[test]
fn a_reason_neither_commands_the_terminal_nor_looks_like_a_line() {
    let (v1, v2) = (Origin::answering("v1"), Origin::answering("v2"));
    let builder = Proxy::builder().version("v1", &v1).version("v2", &v2);
    let proxy = builder.top("admin: { address: 127.0.0.1:0 }").start();
    let reason = "slow\n\u{1b}[2J\u{9b}31m\u{7f}\rgame-api  v2  serving\u{7}";
    let shown = r"slow\n\u{1b}[2J\u{9b}31m\u{7f}\rgame-api  v2  serving\u{7}";
    let in_a_line = shown.replace(r"\n", "; ").replace("2J; ", "2J");
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
        (&["eject", "a/b", "v1"], 2, "a service's name has letters"),
        (&["eject", "game-api", "v1", "--endpoint", "here"], 2, "'--endpoint <ADDRESS>'"),
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
