//! The real program: signals and exit codes, which scripts and service managers rely on.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Output, Stdio},
    sync::{Mutex, mpsc},
};

use rustix::process::Signal;

use crate::support::{
    Client, Origin, Proxy, eventually,
    process::{Process, free_address, program},
};

/// An origin that answers when it is told to, and what tells it.
fn patient() -> (Origin, mpsc::Sender<()>) {
    let (signal, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |call| {
        // Fails if the test is over, and then nobody reads the answer.
        let _ = wait.lock().expect("no panic").recv();
        call.answer(200, b"at last")
    });
    (origin, signal)
}

/// Runs the program with a file that holds `text`, until it ends.
fn run(command: &[&str], text: &str) -> Output {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("a file");
    program().args(command).arg(file.path()).output().expect("the program runs")
}

#[test]
fn a_signal_lets_answers_in_flight_finish_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let (origin, go_on) = patient();
        let builder = Proxy::builder().version("v1", &origin);
        let mut process = builder.top("shutdown: { deadline: 30s }").spawn();
        let (mut busy, mut idle) = (process.connect(), process.connect());
        go_on.send(()).expect("the origin waits");
        idle.get("/").send();
        busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.await_requests(2);
        process.signal(signal);
        idle.expect_end();
        go_on.send(()).expect("the origin waits");
        let answer = busy.answer();
        assert_eq!((answer.text(), answer.field("connection")), ("at last", Some("close")));
        assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    }
}

#[test]
fn what_is_not_done_at_the_deadline_is_cut_and_the_exit_code_is_75() {
    let (origin, _go_on) = patient();
    let builder = Proxy::builder().version("v1", &origin);
    let mut process = builder.top("shutdown: { deadline: 200ms }").spawn();
    let mut client = process.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.await_requests(1);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(75), "{}", process.log());
    assert!(client.try_answer_to("GET").is_err());
}

#[test]
fn a_second_signal_does_not_wait() {
    let (origin, _go_on) = patient();
    let builder = Proxy::builder().version("v1", &origin);
    let mut process = builder.top("shutdown: { deadline: 10m }").spawn();
    let (mut busy, mut idle) = (process.connect(), process.connect());
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.await_requests(1);
    process.signal(Signal::TERM);
    idle.expect_end();
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(143), "{}", process.log());
}

/// A service manager and the shell that it runs both send it.
#[test]
fn the_same_signal_twice_at_once_is_one() {
    let (origin, go_on) = patient();
    let builder = Proxy::builder().version("v1", &origin);
    let mut process = builder.top("shutdown: { deadline: 30s }").spawn();
    let mut busy = process.connect();
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.await_requests(1);
    process.signal(Signal::TERM);
    eventually("it is heard", || process.log().contains("draining"));
    process.signal(Signal::TERM);
    go_on.send(()).expect("the origin waits");
    assert_eq!(busy.answer().text(), "at last");
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}

/// Connections that were established and not yet accepted were reset.
#[test]
fn who_waits_in_the_queue_at_a_stop_is_served() {
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version("v1", &origin).top("shutdown: { deadline: 30s }");
    let mut process = builder.spawn();
    process.signal(Signal::STOP);
    let mut waiting: Vec<_> = (0..100).map(|_| process.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    process.signal(Signal::TERM);
    process.signal(Signal::CONT);
    for client in &mut waiting {
        // One that is taken before the signal is heard is not told so, and its connection ends all the same.
        assert_eq!(client.answer().text(), "ok");
        client.expect_end();
    }
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}

#[test]
fn an_endpoint_that_does_not_speak_tls_is_told_of_once_and_not_for_each_request() {
    let origin = Origin::answering("no TLS");
    let builder = Proxy::builder().version_speaking("v1", &[origin.address], "h1, tls: {}");
    // It waits for a head of HTTP, so the handshake is never answered.
    let process = builder.service("connect_timeout: 50ms").spawn();
    for _ in 0..10 {
        assert_eq!(process.connect().get("/").send().kind(), "connect_timeout");
    }
    let said = || process.log().matches("the TLS handshake with an endpoint failed").count();
    eventually("it is said", || said() > 0);
    assert_eq!(said(), 1, "{}", process.log());
}

/// How to go back stood in answers of the API alone; at night people read the log first.
#[test]
fn the_log_of_an_ejection_names_the_command_that_takes_the_version_back() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
    let admin = free_address();
    let process = builder.top(&format!("admin: {{ address: {admin} }}")).spawn();
    let url = format!("http://{admin}");
    let mut eject = program();
    let ended = eject.args(["eject", "game-api", "v2", "--admin", &url]).status();
    assert!(ended.expect("it runs").success());
    eventually("the log says how it comes back", || {
        process.log().contains("tidegate reinstate game-api v2")
    });
}

#[test]
fn a_hangup_reads_the_file_again() {
    let origins = [Origin::answering("v1"), Origin::answering("v2")];
    let builder = Proxy::builder().version("v1", &origins[0]).version("v2", &origins[1]);
    let with = |weights: &str, address| {
        let builder = builder.clone().service(&format!("weights: {{ {weights} }}"));
        builder.listen(address).text()
    };
    let process = Process::spawn(|address| with("v1: 1", address));
    let mut client = process.connect();
    assert_eq!(client.get("/").send().text(), "v1");
    // In place, as a shell does it.
    fs::write(&process.file, with("v2: 1", process.address)).expect("a file");
    process.signal(Signal::HUP);
    eventually("the file applies", || client.get("/").send().text() == "v2");
    process.write("nonsense: true\n");
    process.signal(Signal::HUP);
    eventually("the log says why not", || process.log().contains("nonsense"));
    assert_eq!(client.get("/").send().text(), "v2");
}

#[test]
fn a_bad_file_is_exit_code_64_with_every_problem() {
    let text = "listen: [ { address: nowhere } ]\nservices: {}\nrutes: []\n";
    for command in [&["run", "--config"][..], &["check"]] {
        let output = run(command, text);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        for part in ["listen[0].address", ":3:", "rutes", "routes"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    let missing = program().args(["check", "/nonexistent"]).output().expect("the program runs");
    assert_eq!(missing.status.code(), Some(64));
    for wrong in [&["check"][..], &["run", "a.yaml", "--config", "b.yaml"], &["chek"]] {
        let output = program().args(wrong).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

/// It was reported without a line, and only the first one.
#[test]
fn a_missing_certificate_is_reported_at_each_line_that_names_it() {
    let tls = "tls: { certificates: [ { cert: nosuch.pem, key: nosuch.key } ] }";
    let builder = Proxy::builder().version_named("v1", "\"127.0.0.1:1\"").listener(tls);
    for command in [&["check"][..], &["run"], &["check", "--json"]] {
        let output = run(command, &builder.text());
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("listen[0].tls.certificates[0].cert"), "{said}");
        assert!(said.contains("nosuch.pem: No such file"), "{said}");
        assert!(said.contains("listen[0].tls.certificates[0].key"), "{said}");
        if command.len() == 1 {
            assert!(said.contains(":4:36: listen[0]"), "{said}");
        }
    }
}

/// `check` accepted the file, and the first ejection was told to nobody.
#[test]
fn files_of_receivers_that_cannot_be_used_are_reported_by_check_and_warned_of_by_run() {
    let alerts = "alerts: { webhooks: [ { url: 'http://127.0.0.1:1/', token_file: nosuch.token }, \
         { url: 'https://127.0.0.1:1/', name: b, token_file: empty.token, ca: nosuch.pem } ] }";
    let builder = Proxy::builder().version_named("v1", "\"127.0.0.1:1\"").top(alerts);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.yaml");
    fs::write(&file, builder.text()).expect("a file");
    fs::write(folder.path().join("empty.token"), "\n").expect("a file");
    let output = program().arg("check").arg(&file).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    for (field, why) in [
        ("5:65: alerts.webhooks[0].token_file: ", "nosuch.token: No such file"),
        ("5:133: alerts.webhooks[1].token_file: ", "empty.token: holds no token; write it alone"),
        ("5:150: alerts.webhooks[1].ca: ", "nosuch.pem: No such file"),
    ] {
        let line = said.lines().find(|line| line.contains(field)).unwrap_or_default();
        assert!(line.contains(why), "{field}: {said}");
    }
    let process = builder.spawn();
    eventually("it is said in advance", || {
        process.log().contains("alerts cannot be sent to the receiver")
    });
    assert!(process.log().contains("nosuch.token: No such file"), "{}", process.log());
}

/// A file that is mended showed the next bad one only at the next start.
#[test]
fn a_start_names_every_bad_file_of_certificates_and_not_the_first_alone() {
    let tls = "tls: { certificates: [ { cert: a.pem, key: a.key } ], client: { ca: b.pem } }";
    let builder = Proxy::builder().listener(tls);
    let version = |name: &str| format!("endpoints: [ 127.0.0.1:1 ], tls: {{ ca: {name}.pem }}");
    let text = builder.version_named("v1", "\"127.0.0.1:1\"").text().replace(
        "v1: { endpoints: [ \"127.0.0.1:1\" ] }",
        &format!("v1: {{ {} }}\n      v2: {{ {} }}", version("c"), version("d")),
    );
    let named = |command: &[&str]| {
        let output = run(command, &text);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        let field = |line: &str| line.split(": ").nth(1).map(str::to_owned);
        said.lines().filter_map(field).collect::<Vec<_>>()
    };
    let checked = named(&["check"]);
    assert_eq!(checked.len(), 5, "{checked:?}");
    assert_eq!(checked[4], "services.game-api.versions.v2.tls.ca");
    assert_eq!(named(&["run"]), checked);
}

/// Runs the program with `text` as its standard input, until it ends.
fn run_with_input(command: &[&str], text: &str) -> Output {
    let mut child = program()
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut input = child.stdin.take().expect("a pipe");
    // A program that ends at once does not read it.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    child.wait_with_output().expect("it ends")
}

#[test]
fn run_and_check_take_the_file_alike_and_from_standard_input() {
    let held = TcpListener::bind(free_address()).expect("a free port");
    let address = held.local_addr().expect("bound");
    let builder = Proxy::builder().version_named("v1", "\"127.0.0.1:1\"").listen(address);
    let text = builder.text();
    // That the address is taken shows that the file was read.
    for (command, code) in [
        (&["check"][..], 0),
        (&["check", "--config"], 0),
        (&["run"], 69),
        (&["run", "--config"], 69),
    ] {
        let output = run(command, &text);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
        let output = run_with_input(&[command, &["-"]].concat(), &text);
        assert_eq!(output.status.code(), Some(code), "{command:?} -: {output:?}");
        let output = run_with_input(&[command, &["-"]].concat(), "nonsense: true");
        assert_eq!(output.status.code(), Some(64), "{command:?} -: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("-:1:1: nonsense: unknown field"), "{said}");
    }
}

#[test]
fn what_is_doubtful_about_a_good_file_is_a_warning() {
    let builder = Proxy::builder().version_named("v1", "\"127.0.0.1:1\"");
    let builder = builder.version_named("v2", "\"127.0.0.1:1\"");
    let output = run(&["check"], &builder.text());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(said.matches(": warning: services.game-api").count(), 3, "{said}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(": ok (1 service, 1 route, 3 warnings)")
    );
    let strict = run(&["check", "--strict"], &builder.text());
    assert_eq!((strict.status.code(), strict.stderr.len()), (Some(64), output.stderr.len()));
    let json = run(&["check", "--json"], &builder.text()).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((&json["ok"], &json["problems"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(3), "{json}");
}

#[test]
fn a_good_file_is_checked_without_starting_anything() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("bound");
    let builder = Proxy::builder().version_named("v1", "\"127.0.0.1:1\"").listen(address);
    let output = run(&["check"], &builder.text());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_address_in_use_is_exit_code_69() {
    let held = TcpListener::bind(free_address()).expect("a free port");
    let address = held.local_addr().expect("bound");
    let builder = Proxy::builder().version_named("v1", "\"127.0.0.1:1\"").listen(address);
    let output = run(&["run", "--config"], &builder.text());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn a_restart_takes_over_the_address_at_once() {
    let origin = Origin::answering("ok");
    let builder = Proxy::builder().version("v1", &origin);
    let mut process = builder.spawn();
    let address = process.address;
    let mut client = Client::connect(address);
    client.get("/").send();
    process.signal(Signal::TERM);
    // The process ends the connection first, so that its end of it lingers in the system.
    assert_eq!(process.wait().code(), Some(0));
    let again = Process::spawn_at(address, &builder.listen(address).text());
    assert_eq!(again.connect().get("/").send().text(), "ok");
}

/// What people copy: `check --strict` had warnings for the first example of the documents.
#[test]
fn examples_are_whole_files_without_a_warning() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let read = |path: &Path| fs::read_to_string(path).expect("UTF-8");
    let mut examples = Vec::new();
    // The one for Kubernetes names files of tokens that only a pod has.
    for path in all("config").iter().filter(|path| !path.ends_with("kubernetes.yaml")) {
        examples.push((path.display().to_string(), read(path)));
    }
    for path in all("docs").iter().chain([&root.join("README.md")]) {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        for block in read(path).split("```yaml\n").skip(1) {
            let text = block.split("```").next().unwrap_or_default();
            let has = |field: &str| text.lines().any(|line| line.starts_with(field));
            if has("listen:") && has("services:") && has("routes:") {
                examples.push((path.display().to_string(), text.to_owned()));
            }
        }
    }
    assert!(examples.len() >= 8, "{}", examples.len());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.yaml");
    // The folder of an access log must exist.
    let logs = format!("{}/", folder.path().display());
    for (place, text) in examples {
        fs::write(&file, text.replace("/var/log/tidegate/", &logs)).expect("written");
        let output = program().args(["check", "--strict"]).arg(&file).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{place}");
    }
}
