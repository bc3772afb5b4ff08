//! Modes and notices that outlive their process.

use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use super::*;
use crate::support::process::{Process, free_address};

/// The program with a journal, and what it listens at.
struct Program {
    origin: Origin,
    admin: SocketAddr,
    builder: Builder,
    _folder: TempDir,
}

impl Program {
    fn new(more: impl FnOnce(Builder) -> Builder) -> Self {
        let (origin, folder) = (Origin::answering("ok"), TempDir::new().expect("a folder"));
        let (state, admin) = (folder.path().join("state"), free_address());
        let builder = Proxy::builder().version("v1", &origin).workers(2);
        let builder = builder.top(&format!("admin: {{ address: \"{admin}\" }}"));
        let builder = more(builder.top(&format!("state: '{}'", state.display())));
        Self { origin, admin, builder, _folder: folder }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        // It is bound last.
        eventually("the admin endpoint is there", || TcpStream::connect(self.admin).is_ok());
        ask(&mut Client::connect(self.admin), method, path, body)
    }

    #[track_caller]
    fn mode(&self, body: &Value) {
        let answer = self.ask("PUT", "/v1/mode", body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn write(process: &Process) -> u16 {
    process.connect().post("/bets", b"x").send().status
}

#[test]
fn a_killed_process_comes_back_read_only_and_a_mode_that_ended_meanwhile_does_not() {
    let program = Program::new(|builder| builder);
    let mut process = program.builder.spawn();
    assert_eq!(write(&process), 200);
    program.mode(&json!({ "mode": "read-only", "service": SERVICE, "reason": "schema 42" }));
    process.signal(Signal::KILL);
    process.wait();
    let mut process = program.builder.spawn();
    // The first write of all.
    assert_eq!(write(&process), 503);
    let modes = program.ask("GET", "/v1/mode", &Value::Null).json();
    assert_eq!(modes["read_only"][0]["reason"], "schema 42");
    program.mode(&json!({ "mode": "read-only", "service": SERVICE, "until": from_now(2.0) }));
    process.signal(Signal::KILL);
    process.wait();
    thread::sleep(Duration::from_millis(2100));
    let process = program.builder.spawn();
    assert_eq!(write(&process), 200, "its time has come while no process ran");
    eventually("the end has an entry", || {
        program.ask("GET", "/v1/audit", &Value::Null).text().contains("its time has come")
    });
}

#[test]
fn a_notice_that_began_while_no_process_ran_is_in_force_with_the_first_request() {
    let program = Program::new(|builder| {
        let (from, until) = (from_now(-1.0), from_now(3600.0));
        builder.top(&format!(
            "notices: {{ schema: {{ from: '{from}', until: '{until}', read_only: true }} }}"
        ))
    });
    let mut process = program.builder.spawn();
    assert_eq!(write(&process), 503);
    program.mode(&json!({ "mode": "normal" }));
    assert_eq!(write(&process), 200, "the work was done early");
    process.signal(Signal::KILL);
    process.wait();
    let process = program.builder.spawn();
    assert_eq!(write(&process), 200, "what was ended by hand does not begin again");
}

#[test]
fn a_takeover_goes_on_read_only_and_answers_those_who_wait() {
    let program = Program::new(|builder| {
        let hold = "match: { path: /callbacks/* }, name: cashier.webhook, read_only: { hold: {} }";
        builder.route(hold).route("name: rest").top("shutdown: { deadline: 10s }")
    });
    let process = program.builder.spawn();
    program.mode(&json!({ "mode": "read-only", "until": from_now(60.0) }));
    let held = |wanted: u64| {
        eventually("it waits", || {
            let answer = Client::connect(program.admin)
                .request("GET", "/v1/mode")
                .host("127.0.0.1")
                .try_send();
            answer.is_ok_and(|answer| {
                answer.status == 200 && answer.json()["services"][0]["held"] == wanted
            })
        });
    };
    let send = |client: &mut Client| {
        client.send("POST /callbacks/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    };
    let mut client = process.connect();
    send(&mut client);
    held(1);
    process.signal(Signal::USR2);
    let answer = client.answer();
    assert_eq!((answer.status, answer.kind()), (503, "read_only_moved".to_owned()));
    eventually("the new process serves", || process.pids().len() == 2);
    eventually("so does its admin endpoint", || TcpStream::connect(program.admin).is_ok());
    assert_eq!(write(&process), 503);
    // As providers do, it tries again; the new process holds it.
    let mut client = process.connect();
    send(&mut client);
    held(1);
    assert_eq!(program.origin.requests(), 0);
    program.mode(&json!({ "mode": "normal" }));
    assert_eq!(client.answer().status, 200);
    assert_eq!(program.origin.requests(), 1, "it arrived once");
}
