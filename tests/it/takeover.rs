//! One process after another on the same sockets: SIGUSR2, the takeover socket, socket activation, and the
//! delay before a drain.

mod chain;
mod handed;
mod many;

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Answer, Client, Origin, PATIENCE, Proxy, SetOnDrop, eventually,
    http2::{Http2, Reply, request},
    process::{Process, free_address, program},
    proxy::{Builder, SERVICE},
};

/// A proxy with an admin endpoint, of two versions of which the first gets everybody.
fn builder(origins: &[Origin; 2]) -> (Builder, SocketAddr) {
    let admin = free_address();
    let builder = Proxy::builder()
        .version("v1", &origins[0])
        .version("v2", &origins[1])
        .service("weights: { v1: 1 }")
        .top(&format!("admin: {{ address: \"{admin}\" }}"));
    (builder, admin)
}

/// What `builder` makes with a takeover socket in `folder`, and the path of that.
fn with_socket(builder: Builder, folder: &TempDir) -> (Builder, PathBuf) {
    let path = folder.path().join("takeover.sock");
    (builder.top(&format!("takeover: {{ socket: \"{}\" }}", path.display())), path)
}

/// Starts the program; answers once its admin endpoint, which is bound last, is there too.
#[track_caller]
fn spawn(builder: &Builder, admin: SocketAddr) -> Process {
    let process = builder.spawn();
    eventually("the admin endpoint is there", || TcpStream::connect(admin).is_ok());
    process
}

/// Origins that answer with their name, and echo once they are asked to go on as a WebSocket.
fn origins() -> [Origin; 2] {
    ["v1", "v2"].map(|name| {
        Origin::start(move |call| {
            if call.head.field("upgrade").is_none() {
                call.skip_body()?;
                return call.answer(200, name.as_bytes());
            }
            call.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")?;
            call.send("Connection: Upgrade\r\n\r\n")?;
            call.close();
            loop {
                match call.wire.some()? {
                    end if end.is_empty() => return Ok(()),
                    bytes => call.send(bytes)?,
                }
            }
        })
    })
}

/// A WebSocket, opened.
fn websocket(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client
        .send("GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let head = client.wire.head().expect("open").expect("a head");
    assert_eq!(head.start_line(), "HTTP/1.1 101 Switching Protocols");
    client
}

/// A masked frame of two bytes, and the close frame that a drain ends a WebSocket with.
const FRAME: &[u8] = b"\x82\x82\0\0\0\0hi";
const GOING_AWAY: &[u8] = b"\x88\x02\x03\xe9";

/// Sends a frame and gets it back; false if the WebSocket was closed in order instead.
#[track_caller]
fn echo(client: &mut Client) -> bool {
    if client.wire.send(FRAME).is_err() {
        return false;
    }
    let mut got = Vec::new();
    while got.len() < FRAME.len() {
        match client.wire.some() {
            Ok(bytes) if !bytes.is_empty() => got.extend(bytes),
            _ => break,
        }
        if got == GOING_AWAY {
            return false;
        }
    }
    assert!(got.starts_with(FRAME), "{got:?}");
    // The end may come right behind.
    got.len() == FRAME.len()
}

/// A client of HTTP/2 that opens another connection when it is told that one ends.
struct Streamer {
    address: SocketAddr,
    connection: Option<Http2>,
}

impl Streamer {
    fn ask(&mut self) -> Result<Reply, h2::Error> {
        loop {
            let client = self.connection.get_or_insert_with(|| Http2::connect(self.address));
            match client.run(client.asked(request("POST", "/bets"), Some(b"a bet"))) {
                // What was told to go took nothing of this one: so says GOAWAY (RFC 9113 section 6.8).
                Err(error)
                    if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) =>
                {
                    self.connection = None;
                }
                done => return done,
            }
        }
    }
}

/// What the process that serves the admin endpoint says of itself; nothing if it went away meanwhile.
fn status(admin: SocketAddr) -> Option<Value> {
    let answer = Client::connect(admin).get("/v1/status").host("localhost").try_send();
    answer.ok().map(|answer| answer.json())
}

fn pid(admin: SocketAddr) -> Option<i64> {
    status(admin)?["pid"].as_i64()
}

fn signal(pid: i64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a number of a process"));
    kill_process(pid.expect("above 0"), signal).expect("it runs");
}

/// Replaces the process that serves; answers the number of the new one.
#[track_caller]
fn upgrade(admin: SocketAddr) -> i64 {
    let old = pid(admin).expect("a process");
    signal(old, Signal::USR2);
    let mut new = None;
    eventually("another process serves", || {
        new = pid(admin).filter(|new| *new != old);
        new.is_some()
    });
    new.expect("another process")
}

#[track_caller]
fn prefer_v2(admin: SocketAddr) -> Answer {
    let weights = br#"{"weights": {"v2": 1}, "only": true}"#;
    let path = format!("/v1/services/{SERVICE}/weights");
    let answer =
        Client::connect(admin).request("PUT", &path).host("localhost").body(weights).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// A restart dropped weights and ejections without a word.
#[test]
fn a_start_says_by_which_file_and_what_became_of_changes_made_before() {
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let process = spawn(&builder, admin);
    let told = || {
        let mut client = Client::connect(admin);
        let request = client.get("/v1/events").host("localhost");
        let list = request.header("Accept", "application/json").send().json();
        let events = list["events"].as_array().expect("a list").clone();
        let started: Vec<_> = events.iter().filter(|e| e["kind"] == "started").collect();
        assert_eq!(started.len(), 1, "{events:?}");
        started[0]["reason"].as_str().expect("a reason").to_owned()
    };
    let hash = status(admin).expect("a status")["config_hash"].as_str().expect("text").to_owned();
    let file = process.file.display();
    let configuration = format!("configuration {file}, hash {hash}; ");
    let gone = "no process handed over to it, so weights set at runtime and ejections of a process before it, \
                if there was one, are gone";
    assert_eq!(told(), format!("{configuration}{gone}"));
    prefer_v2(admin);
    let first = pid(admin).expect("a process");
    upgrade(admin);
    let kept = format!("took over from process {first}, with what was changed at runtime");
    assert_eq!(told(), format!("{configuration}{kept}"));
    let set = &status(admin).expect("a status")["weights_set"][SERVICE];
    assert_eq!((&set["by"], &set["reason"]), (&json!("anonymous"), &json!("")));
}

/// A client that keeps its connection until it is told that it ends.
struct Player {
    address: SocketAddr,
    connection: Option<Client>,
}

impl Player {
    /// Asks as a client library does: on the connection that it holds unless that has ended.
    fn ask(&mut self, post: bool) -> io::Result<Answer> {
        let has_ended = |client: &mut Client| {
            let stream = &client.wire.stream;
            stream.set_nonblocking(true).expect("an open socket");
            let peeked = stream.peek(&mut [0]);
            stream.set_nonblocking(false).expect("an open socket");
            !matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
        };
        self.connection.take_if(has_ended);
        let client = self.connection.get_or_insert_with(|| Client::connect(self.address));
        let answer = if post {
            client.post("/bets", b"a bet").try_send()
        } else {
            client.get("/").try_send()
        };
        if !answer.as_ref().is_ok_and(|answer| answer.field("connection") != Some("close")) {
            self.connection = None;
        }
        answer
    }
}

#[test]
fn ten_upgrades_in_a_row_under_load_lose_no_request() {
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let mut process = spawn(&builder.workers(2), admin);
    let generation = prefer_v2(admin).json()["generation"].as_u64().expect("a number");
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    // Busy ones, some that think for less than the grace of a drain, and one that thinks for longer.
    let thinking_ms = [0, 0, 0, 3, 40, 300, 1_300];
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        let (stop, asked) = (&stop, &asked);
        for thinking in [0, 3, 300] {
            let mut streamer = Streamer { address: process.address, connection: None };
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let answer = streamer.ask().expect("an answer");
                    assert_eq!((answer.status, &answer.body[..]), (200, &b"v2"[..]), "streams");
                    asked.fetch_add(1, Relaxed);
                    thread::sleep(Duration::from_millis(thinking));
                }
            });
        }
        let address = process.address;
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                let mut client = websocket(address);
                // It lives on while its process drains, or is closed in order.
                while !stop.load(SeqCst) && echo(&mut client) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        for (n, thinking) in thinking_ms.into_iter().enumerate() {
            let mut player = Player { address: process.address, connection: None };
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    let post = (n as u64 + asked.fetch_add(1, Relaxed)).is_multiple_of(2);
                    let answer = player.ask(post).expect("an answer");
                    assert_eq!((answer.status, answer.text()), (200, "v2"), "player {n}");
                    thread::sleep(Duration::from_millis(thinking));
                }
            });
        }
        for _ in 0..10 {
            let before = asked.load(Relaxed);
            upgrade(admin);
            eventually("the new process serves", || asked.load(Relaxed) > before + 50);
        }
    });
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    let status = status(admin).expect("a process");
    assert_eq!(status["overrides"], json!({ SERVICE: { "v2": 1.0 } }));
    assert!(status["generation"].as_u64() >= Some(generation + 10), "{status}");
    eventually("the log tells each", || process.pids().len() == 11);
}

#[test]
fn a_websocket_finishes_on_the_process_that_it_began_on() {
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let mut process = spawn(&builder.top("shutdown: { deadline: 60s }"), admin);
    let mut before = websocket(process.address);
    assert!(echo(&mut before));
    upgrade(admin);
    let mut after = websocket(process.address);
    for _ in 0..20 {
        assert!(echo(&mut before) && echo(&mut after));
    }
    assert!(!process.has_ended(), "it waits for its WebSocket");
    drop(before);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    assert!(echo(&mut after));
}

/// Regression: the old process kept the admin endpoint's socket for its whole drain, so a new process that had died
/// could not be replaced by another one until then.
#[test]
fn a_process_that_took_over_and_died_can_be_started_again_while_the_old_one_drains() {
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let builder = builder.top("shutdown: { deadline: 30s }");
    let process = spawn(&builder, admin);
    // It keeps the old process for its whole drain.
    let mut live = websocket(process.address);
    let old = pid(admin).expect("it answers");
    let new = upgrade(admin);
    signal(new, Signal::KILL);
    let again = builder.spawn();
    eventually("it answers", || pid(admin).is_some_and(|pid| pid != old && pid != new));
    assert!(echo(&mut live), "the old one still drains");
    drop((again, process));
}

#[test]
fn a_new_process_that_fails_leaves_the_old_one_serving() {
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let process = spawn(&builder, admin);
    let good = fs::read_to_string(&process.file).expect("a file");
    let old = pid(admin).expect("a process");
    let mut client = process.connect();
    client.get("/").send();
    prefer_v2(admin);
    let held = TcpListener::bind(free_address()).expect("a free port");
    let held = held.local_addr().map(|address| (held, address)).expect("bound");
    let elsewhere = good.replace("listen:\n", &format!("listen:\n  - address: \"{}\"\n", held.1));
    assert_ne!(elsewhere, good);
    for (text, reason) in [("nonsense: true\n", "nonsense"), (&*elsewhere, "cannot listen")] {
        process.write(text);
        signal(old, Signal::USR2);
        let mut message = String::new();
        eventually("the status says why not", || {
            let status = status(admin).expect("a process");
            message = status["takeover"]["last_error"]["message"].as_str().unwrap_or("").to_owned();
            message.contains(reason)
        });
        // The log has a thread of its own.
        eventually("the log says so", || process.log().contains("no other process took over"));
        assert_eq!(pid(admin), Some(old));
        assert_eq!(client.get("/").send().field("connection"), None, "{message}");
        assert_eq!(process.connect().get("/").send().text(), "v2");
        process.write(&good);
    }
    let new = upgrade(admin);
    let takeover = status(admin).expect("a process")["takeover"].take();
    assert_eq!(takeover, json!({ "from_pid": old, "last_error": null }));
    eventually("the log tells it", || {
        process.pids().last().map(|pid| i64::from(*pid)) == Some(new)
    });
}

#[test]
fn an_answer_in_flight_is_finished_by_the_old_process() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let origin = Origin::start(move |call| {
        // Fails if the test has failed first, and then nobody reads the answer.
        let _ = held.lock().expect("no panic").recv();
        call.answer(200, b"at last")
    });
    let origins = [origin, Origin::answering("v2")];
    let (builder, admin) = builder(&origins);
    let mut process = spawn(&builder, admin);
    let (mut busy, mut idle) = (process.connect(), process.connect());
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    origins[0].await_requests(1);
    upgrade(admin);
    // Its worker drains once it has closed what was idle.
    idle.expect_end();
    release.send(()).expect("the origin waits");
    let answer = busy.answer();
    assert_eq!((answer.text(), answer.field("connection")), ("at last", Some("close")));
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}

#[test]
fn who_asks_at_the_takeover_socket_takes_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let (builder, path) = with_socket(builder, &folder);
    let mut first = spawn(&builder, admin);
    let address = first.address;
    let text = builder.listen(address).text();
    prefer_v2(admin);
    eventually("the socket is there", || path.exists());
    let mode = fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let with_takeover = |mut command: Command| {
        command.arg("--takeover").arg(&path);
        command
    };
    // What was set stays, as over a reload, until the file's own weights are others.
    let changed = text.replace("weights: { v1: 1 }", "weights: { v1: 2 }");
    for (text, served) in [(&text, "v2"), (&text, "v2"), (&changed, "v1")] {
        let second = Process::spawn_beside(address, text, with_takeover);
        assert_eq!(first.wait().code(), Some(0), "{}{}", first.log(), second.log());
        assert_eq!(second.connect().get("/").send().text(), served, "{}", second.log());
        first = second;
    }
    first.signal(Signal::TERM);
    assert_eq!(first.wait().code(), Some(0));
    assert!(!path.exists(), "the last process clears up");
    // Nobody is there: a first start like any other.
    let again = Process::spawn_beside(address, &text, with_takeover);
    eventually("it serves", || !again.pids().is_empty());
    assert_eq!(again.connect().get("/").send().text(), "v1", "{}", again.log());
}

/// Sends a message of the protocol, if there is one to send, and reads the next one.
fn converse(stream: &mut UnixStream, message: &Value) -> Value {
    let text = message.to_string();
    stream.write_all(&(text.len() as u32).to_be_bytes()).expect("the process reads");
    stream.write_all(text.as_bytes()).expect("the process reads");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
    let mut text = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut text).expect("an answer");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn a_process_that_breaks_off_gets_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let (builder, path) = with_socket(builder, &folder);
    let process = spawn(&builder, admin);
    prefer_v2(admin);
    let connect = || UnixStream::connect(&path).expect("the process listens");
    eventually("the socket is there", || path.exists());
    let hello = |protocol| json!({ "message": "hello", "protocol": protocol, "version": "9" });
    let refused = converse(&mut connect(), &hello(99));
    assert_eq!(refused["message"], "refused", "{refused}");
    // As far as it comes before it is told that all is its own, and one step further.
    for steps in [0, 1, 2] {
        let problems = process.log().matches("no other process took over").count();
        let mut stream = connect();
        if steps > 0 {
            let offer = converse(&mut stream, &hello(1));
            assert_eq!(offer["message"], "offer", "{offer}");
            let set = &offer["carried"]["weights"][SERVICE];
            assert_eq!(set["set"], json!({ "v2": 1.0 }));
            assert_eq!(set["file"], json!({ "v1": 1.0 }));
            assert_eq!(set["why"]["by"], "anonymous");
            let sockets = offer["sockets"].as_array().expect("a list").len();
            assert_eq!(sockets, 2);
            // The bytes that the sockets come with; read like this, the sockets are dropped.
            stream.read_exact(&mut vec![0; sockets]).expect("one byte each");
        }
        if steps > 1 {
            let yours = converse(&mut stream, &json!({ "message": "ready" }));
            assert_eq!(yours["message"], "yours", "{yours}");
        }
        drop(stream);
        eventually("the process notices", || {
            process.log().matches("no other process took over").count() > problems
        });
        assert_eq!(process.connect().get("/").send().text(), "v2", "{}", process.log());
        prefer_v2(admin);
    }
}

/// A second one was turned away for as long as the first said nothing.
#[test]
fn who_connects_and_is_silent_keeps_no_other_process_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let (builder, path) = with_socket(builder, &folder);
    let mut first = spawn(&builder, admin);
    let (address, connect) = (first.address, || UnixStream::connect(&path));
    eventually("the socket is there", || path.exists());
    let _silent = connect().expect("the process listens");
    let mut prepares = connect().expect("the process listens");
    let offer =
        converse(&mut prepares, &json!({ "message": "hello", "protocol": 1, "version": "9" }));
    assert_eq!(offer["message"], "offer", "{offer}");
    let text = builder.listen(address).text();
    let second = Process::spawn_beside(address, &text, |mut command| {
        command.arg("--takeover").arg(&path);
        command
    });
    assert_eq!(first.wait().code(), Some(0), "{}{}", first.log(), second.log());
    assert_eq!(second.connect().get("/").send().text(), "v1", "{}", second.log());
    assert_eq!(pid(admin), second.pids().last().map(|pid| i64::from(*pid)));
}

/// A process that hangs, or another program, kept every successor from starting.
#[test]
fn a_takeover_socket_behind_which_nobody_answers_is_passed_by() {
    let folder = tempfile::tempdir().expect("a folder");
    let origins = origins();
    let (builder, _) = builder(&origins);
    let (builder, path) = with_socket(builder, &folder);
    let _silent = UnixListener::bind(&path).expect("a socket");
    let address = free_address();
    let text = builder.listen(address).text();
    let process = Process::spawn_beside(address, &text, |mut command| {
        command.arg("--takeover").arg(&path);
        command
    });
    eventually("it serves", || !process.pids().is_empty());
    assert_eq!(process.connect().get("/").send().text(), "v1", "{}", process.log());
    assert!(process.log().contains("is silent; starting alone"), "{}", process.log());
    let mut stream = UnixStream::connect(&path).expect("the new process listens");
    let offer =
        converse(&mut stream, &json!({ "message": "hello", "protocol": 1, "version": "9" }));
    assert_eq!(offer["message"], "offer", "{offer}");
}

#[test]
fn the_service_manager_is_told_which_process_to_follow() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("an open socket");
    let told = |what: &str| {
        let mut text = [0; 4096];
        loop {
            let length = manager.recv(&mut text).expect("word from the process");
            let text = String::from_utf8_lossy(&text[..length]);
            if let Some(value) = text.lines().find_map(|line| line.strip_prefix(what)) {
                return value.to_owned();
            }
            assert!(!text.contains("STOPPING=1"), "the service goes on: {text}");
        }
    };
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let address = free_address();
    let text = builder.listen(address).text();
    let mut process = Process::spawn_beside(address, &text, |mut command| {
        command.env("NOTIFY_SOCKET", folder.path().join("notify"));
        command
    });
    assert_eq!(told("READY="), "1", "{}", process.log());
    let new = upgrade(admin);
    assert_eq!(told("MAINPID="), new.to_string());
    // The new one speaks once it is the one to be heard.
    assert_eq!(told("READY="), "1");
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}

#[test]
fn sockets_of_the_service_manager_are_used() {
    let origin = Origin::answering("ok");
    let listener = TcpListener::bind(free_address()).expect("a free port");
    let address = listener.local_addr().expect("bound");
    // It waits in the queue of the socket before there is a process.
    let mut early = Client::connect(address);
    early.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let activated = |command: Command| {
        // As systemd does it: the socket as descriptor 3, announced to exactly this process.
        let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(program().get_program()).args(command.get_args());
        shell.stdin(OwnedFd::from(listener));
        shell
    };
    let text = Proxy::builder().version("v1", &origin).listen(address).text();
    let mut process = Process::spawn_beside(address, &text, activated);
    assert_eq!(early.answer().text(), "ok", "{}", process.log());
    assert_eq!(process.connect().get("/").send().text(), "ok");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}

#[test]
fn before_a_drain_everything_is_served_for_the_delay() {
    let delay = Duration::from_millis(800);
    let origins = origins();
    let (builder, admin) = builder(&origins);
    let builder = builder.top("shutdown: { delay: 800ms, deadline: 10s }");
    let mut process = spawn(&builder, admin);
    let mut kept = process.connect();
    assert_eq!(kept.get("/").send().field("connection"), None);
    let began = Instant::now();
    process.signal(Signal::TERM);
    eventually("it is not ready", || {
        Client::connect(admin).get("/readyz").send().status == 503 || began.elapsed() > delay
    });
    let mut new = process.connect();
    for client in [&mut kept, &mut new] {
        let answer = client.get("/").send();
        assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
        client.expect_end();
    }
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
    assert!(began.elapsed() >= delay, "{:?}", began.elapsed());
}
