//! The log of the database is on the disk before a change is answered: the system calls show it.

use std::collections::HashMap;

use super::*;
use crate::support::lacks;

/// Changes whose system calls are looked at.
const CHANGES: u32 = 200;

#[test]
fn each_change_is_synced_between_request_and_answer() {
    if lacks("strace", "strace") {
        return;
    }
    let origins = origins();
    let stage = Stage::new(&origins);
    let trace = stage.folder.path().join("trace");
    let process = Process::spawn_beside(stage.address, &stage.builder.text(), |program| {
        let mut command = std::process::Command::new("strace");
        let calls = "trace=read,recvfrom,write,writev,sendto,sendmsg,fsync,fdatasync";
        command.args(["-f", "-y", "-s", "64", "-e", calls, "-o"]).arg(&trace);
        command.arg(program.get_program()).args(program.get_args());
        command
    });
    serves(stage.admin);
    let mut client = Client::connect(stage.admin);
    let path = format!("/v1/services/{SERVICE}/weights");
    for n in 1..=CHANGES {
        let body = format!(r#"{{"weights":{{"v1":{n},"v2":1}}}}"#);
        let request = client.request("PUT", &path).host("localhost").body(body.as_bytes());
        assert_eq!(request.send().status, 200);
    }
    let pid = stage.get("/v1/status")["pid"].as_i64().expect("a number");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a number"));
    rustix::process::kill_process(pid.expect("above 0"), Signal::TERM).expect("it runs");
    let mut process = process;
    process.wait();
    let trace = fs::read_to_string(&trace).expect("a trace");
    assert_eq!(synced(&trace), Ok(CHANGES));
}

/// Number of changes between whose request and answer the log was synced; an error names the first one that was
/// not.
fn synced(trace: &str) -> Result<u32, String> {
    let (mut is_synced, mut is_asked, mut count) = (false, false, 0);
    let mut unfinished: HashMap<&str, &str> = HashMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.trim_start().split_once(' ') else { continue };
        let call = call.trim_start();
        let is_begun = call.ends_with("<unfinished ...>");
        if is_begun {
            unfinished.insert(thread, call);
        }
        let begun = match call.starts_with("<... ") {
            true => unfinished.remove(thread).unwrap_or_default(),
            false => call,
        };
        let is_sync = begun.starts_with("fdatasync(") || begun.starts_with("fsync(");
        if is_sync && begun.contains("journal.db-wal") && call.ends_with("= 0") {
            is_synced = true;
        } else if call.contains("\"PUT /v1/") {
            (is_asked, is_synced) = (true, false);
        } else if is_asked && begun.contains("\"HTTP/1.1 200 ") && !call.starts_with("<... ") {
            if !is_synced {
                return Err(format!("change {count} was answered before the log was synced"));
            }
            (is_asked, count) = (false, count + 1);
        }
    }
    Ok(count)
}

#[test]
fn an_answer_before_the_log_is_synced_is_found() {
    let put = "7 recvfrom(9<TCP:[1]>, \"PUT /v1/services/a/w\", 64, 0, NULL, NULL) = 20\n";
    let sync = "8 fdatasync(5</s/journal.db-wal>) = 0\n";
    let answer =
        "7 writev(9<TCP:[1]>, [{iov_base=\"HTTP/1.1 200 OK\\r\\n\", iov_len=17}], 1) = 17\n";
    assert_eq!(synced(&[put, sync, answer, put, sync, answer].concat()), Ok(2));
    assert!(synced(&[put, answer].concat()).is_err());
    assert!(synced(&[sync, put, answer].concat()).is_err());
    let begun = "8 fdatasync(5</s/journal.db-wal> <unfinished ...>\n";
    let ended = "8 <... fdatasync resumed>) = 0\n";
    assert_eq!(synced(&[put, begun, ended, answer].concat()), Ok(1));
    assert!(synced(&[put, begun, answer, ended].concat()).is_err());
}
